"""The report of a compile: what is on the page, that nothing breaks out of it, and how it is written."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from xdsl.dialects.builtin import ModuleOp

from gimlet.compiler.compile import Compilation
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.placement.model.problem import DeviceSpec, Node, Option, Place, Placement, Problem, Route, Value
from gimlet.compiler.placement.model.schedule import simulate
from gimlet.compiler.placement.service import PlacementResult
from gimlet.compiler.placement.solve import Solution
from gimlet.compiler.report.figures import graph, timeline
from gimlet.compiler.report.page import render, write_report
from gimlet.compiler.report.roofline import op_bytes, roofline
from gimlet.dialects.context import GimletContext
from gimlet.runtime.errors import InputError, UsageError
from gimlet.runtime.manifest import ModelInfo
from gimlet.targets.api import Device, DimBound, HardwareKind, Link, MemoryLevel, Topology

EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)> & \"quoted\" \u2028 {{ 7 * 7 }}"
KIND = HardwareKind("a-kind", ("t",), {"fp32": 1e12, "vector": 1e11}, (MemoryLevel("dram", 1 << 30, 1e10),))
TOPOLOGY = Topology(
    "rack",
    (Device("cpu", KIND), Device("gpu0", KIND)),
    (Link("pcie0", "pcie5x16", ("cpu", "gpu0"), 1e-5, 5e10),),
    "cpu",
)


def compilation(
    names: tuple[str, str, str] = ("conv1", "relu1", "softmax1"), refusal: str = "it has a data-dependent shape"
) -> Compilation:
    """Three ops: the first on gpu0, the others on cpu, the last of which also reads what the first makes."""
    nodes = (
        Node(names[0], "Conv", {0: Option(4e-3, 0.1, 1000), 1: Option(1e-3, 0.2, 1000)}, {}, 5e6),
        Node(names[1], "Relu", {0: Option(2e-4, 0.1, 400)}, {1: refusal}, 1e3),
        Node(names[2], "Softmax", {0: Option(3e-4, 0.1, 400), 1: Option(float("inf"))}, {}, 0.0),
    )
    values = (
        Value("x", 1000, None, (0,)),
        Value("a", 2000, 0, (1, 2)),
        Value("b", 3000, 1, (2,)),
        Value("y", 4000, 2, (), is_output=True),
    )
    route = 1e-5, 2e-11
    problem = Problem(
        devices=(DeviceSpec("cpu", 1 << 30, 1e-5, kind="a-kind"), DeviceSpec("gpu0", None, 2e-5, kind="a-kind")),
        places=(Place(0), Place(1)),
        nodes=nodes,
        values=values,
        routes={(0, 1): Route(*route, (("pcie0>", 2e-11),)), (1, 0): Route(*route, (("pcie0<", 2e-11),))},
    )
    placement = Placement((1, 0, 0), (0, 1, 1))
    schedule = simulate(problem, placement)
    solution = Solution(placement, schedule, schedule.latency_s, schedule.latency_s / 2, "feasible", 12.5, groups=3)
    return Compilation(
        ModuleOp([]),
        GimletContext(),
        CompileOptions(TOPOLOGY, bindings={"width": DimBound(32, 320, 2048)}, min_shares=(("gpu0", 0.3),)),
        ModelInfo("my-model", "my-model.onnx", "0123456789abcdef" * 4),
        placement=PlacementResult(problem, solution, ("something has to be said",)),
    )


class Page(HTMLParser):
    """The elements and the visible text of a page, and the tables that it carries."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") or "script" if tag in ("script", "style") else ""

    def handle_data(self, data: str) -> None:
        if self._inside == "tables":
            self.data += data
        elif not self._inside:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    @property
    def tables(self) -> dict[str, dict[str, Any]]:
        return {table["name"]: table for table in json.loads(self.data)}


def rows(page: Page, name: str) -> list[dict[str, Any]]:
    table = page.tables[name]
    titles = [title for title, _ in table["columns"]]
    return [dict(zip(titles, row, strict=True)) for row in table["rows"]]


def test_the_head_says_what_was_asked_and_found():
    text = Page(render(compilation())).text
    for part in ("my-model.onnx", "sha256 0123456789abcdef…", "50.00%", "feasible", "something has to be said"):
        assert part in text
    for part in ("--objective latency", "--bind width=32:320:2048", "--min-share gpu0=0.3"):
        assert part in text
    assert "12.5" not in text, "how long the solver took differs from run to run"


def test_tables_hold_every_op_with_its_other_places():
    page = Page(render(compilation()))
    assert [row["device"] for row in rows(page, "devices")] == ["cpu", "gpu0"]
    assert [(row["segment"], row["ops"]) for row in rows(page, "segments")] == [("s0", 1), ("s1", 2)]
    (whole,) = rows(page, "segments")[0]["moved whole"]
    assert whole == ["cpu (fp32)", pytest.approx(2.95e-3, abs=2e-4)]
    assert [(row["value"], row["from"], row["to"]) for row in rows(page, "transfers")] == [
        ("x", "cpu", "gpu0"),
        ("a", "gpu0", "cpu"),
    ]
    conv, relu, softmax = rows(page, "ops")
    (there,) = conv["elsewhere"]
    assert there[:4] == ["cpu (fp32)", 4e-3, "", 0.1]
    assert [move[0] for move in there[4:]] == pytest.approx([2.95e-3, 2.95e-3], abs=2e-4), "alone, and with its segment"
    assert relu["elsewhere"] == [["gpu0 (fp32)", None, "it has a data-dependent shape"]]
    assert softmax["elsewhere"] == [["gpu0 (fp32)", None, ""]], "JSON has no infinity"
    assert "pinned" not in conv, "a column that is empty in every row is left out"


def test_devices_that_are_alike_elsewhere_are_one_entry():
    made = compilation()
    assert made.placement is not None
    problem = made.placement.problem
    twins = tuple(
        replace(node, options=node.options | ({2: node.options[1]} if 1 in node.options else {}), refusals={})
        for node in problem.nodes
    )
    links = (
        Link("pcie0", "pcie5x16", ("cpu", "gpu0"), 1e-5, 5e10),
        Link("pcie1", "pcie5x16", ("cpu", "gpu1"), 1e-5, 5e10),
    )
    route = Route(1e-5, 2e-11)
    wider = replace(
        problem,
        devices=(*problem.devices, replace(problem.devices[1], name="gpu1")),
        places=(*problem.places, Place(2)),
        nodes=twins,
        routes=dict.fromkeys([(a, b) for a in range(3) for b in range(3) if a != b], route),
    )
    placement = Placement((0, 0, 0), (0, 0, 0))
    schedule = simulate(wider, placement)
    made.placement = PlacementResult(wider, Solution(placement, schedule, 1.0, 1.0, "feasible", 1.0, groups=3), ())
    devices = (*TOPOLOGY.devices, Device("gpu1", KIND))
    made.options = replace(made.options, topology=Topology("rack", devices, links, "cpu"))
    conv, relu, _ = rows(Page(render(made)), "ops")
    assert [entry[0] for entry in conv["elsewhere"]] == ["gpu0, gpu1 (fp32)"]
    assert [entry[0] for entry in relu["elsewhere"]] == ["gpu0, gpu1 (fp32)"]


def test_nothing_in_a_name_becomes_markup():
    plain, evil = Page(render(compilation())), Page(render(compilation((EVIL, EVIL + "2", EVIL + "3"), EVIL)))
    assert [tag for tag, _ in evil.elements] == [tag for tag, _ in plain.elements]
    assert rows(evil, "ops")[0]["op"] == EVIL
    assert rows(evil, "ops")[1]["elsewhere"][0][2] == EVIL
    assert "{{ 7 * 7 }}" in evil.data, "names are not templates"


def test_the_model_and_notes_are_escaped_too():
    made = compilation()
    assert made.placement is not None
    made.model = ModelInfo(EVIL, EVIL, EVIL)
    made.placement = replace(made.placement, notes=(EVIL,))
    page = Page(render(made))
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert page.text.count(EVIL) >= 3


def test_the_page_needs_no_network():
    text = render(compilation())
    assert not re.search(r"https?:|//\w+\.\w|@import|url\((?!#)", text)
    loaded = [
        (tag, attributes)
        for tag, attributes in Page(text).elements
        if tag in ("link", "iframe", "img", "object") or "src" in attributes or "href" in attributes
    ]
    assert loaded == []


def test_equal_compiles_give_equal_bytes(tmp_path: Path):
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, compilation())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_a_report_that_cannot_be_written_leaves_what_was_there(tmp_path: Path):
    (tmp_path / "taken.html").mkdir()
    for path in (tmp_path / "taken.html", tmp_path / "missing" / "report.html"):
        with pytest.raises(InputError, match="cannot be written") as caught:
            write_report(path, compilation())
        assert (caught.value.where, bool(caught.value.hint)) == (str(path), True)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.html"]


def test_a_name_that_is_no_unicode_can_be_written(tmp_path: Path):
    write_report(tmp_path / "r.html", compilation(("a\udc80b", "c", "d")))
    assert rows(Page((tmp_path / "r.html").read_text()), "ops")[0]["op"] == "a\udc80b"


def test_without_a_placement_there_is_no_report(tmp_path: Path):
    made = compilation()
    made.placement = None
    with pytest.raises(UsageError, match="placed already"):
        write_report(tmp_path / "r.html", made)
    assert list(tmp_path.iterdir()) == []


def result() -> PlacementResult:
    made = compilation().placement
    assert made is not None
    return made


def test_the_graph_has_a_box_a_segment_and_moves_each_value_once():
    made = graph(result())
    assert [box.segment for box in made.boxes] == ["", "s0", "s1", ""]
    assert [lane.name for lane in made.lanes] == ["cpu", "gpu0"]
    assert [(arrow.tooltip.splitlines()[0], arrow.moves) for arrow in made.arrows] == [
        ("inputs → s0: 1 kB moves to the other device", True),
        ("s0 → s1: 2 kB moves to the other device", True),
        ("s1 → outputs: 4 kB is on the device already", False),
    ]
    lefts = [box.x for box in made.boxes]
    assert lefts == sorted(lefts)
    assert all(box.x >= 0 and box.x + box.width <= made.width for box in made.boxes)
    assert all(box.y >= 0 and box.y + box.height <= made.height for box in made.boxes)


def test_the_timeline_has_a_lane_a_device_and_a_direction_of_a_link():
    made = timeline(result(), TOPOLOGY.links)
    assert [track.name for track in made.tracks] == ["cpu", "gpu0", "pcie0 gpu0 → cpu", "pcie0 cpu → gpu0"]
    cpu, gpu, back, there = (track.bars[0] for track in made.tracks)
    for before, after in ((there, gpu), (gpu, back), (back, cpu)):
        assert before.left + before.width == pytest.approx(after.left, abs=1e-3)
    assert cpu.left + cpu.width == pytest.approx(100)
    assert made.ticks[0] == (0.0, "0")
    assert made.ticks[1][1] == "200 µs"


def test_the_timeline_shows_inputs_as_they_arrive_for_segment_after_segment():
    route = Route(2.0, 1.0, (("pcie0>", 1.0),))
    problem = Problem(
        devices=(DeviceSpec("cpu"), DeviceSpec("gpu0")),
        places=(Place(1),),
        nodes=(Node("first", options={0: Option(1.0)}), Node("second", options={0: Option(1.0)})),
        values=(
            Value("late", 10, None, (1,)),
            Value("early", 10, None, (0,)),
            Value("between", 0, 0, (1,)),
            Value("y", 0, 1, (), is_output=True),
        ),
        routes={(0, 1): route, (1, 0): Route(0.0, 0.0)},
    )
    placement = Placement((0, 0), (0, 1))
    schedule = simulate(problem, placement)
    solution = Solution(placement, schedule, schedule.latency_s, schedule.latency_s, "optimal", 0.0, groups=2)
    made = timeline(PlacementResult(problem, solution, ()), TOPOLOGY.links)
    (there,) = (track for track in made.tracks if track.name == "pcie0 cpu → gpu0")
    assert [bar.tooltip.splitlines() for bar in there.bars] == [
        ["10 B cpu → gpu0, 0 s to 12 s", "early"],
        ["10 B cpu → gpu0, 10 s to 22 s", "late"],
    ]
    percent = 100 / schedule.latency_s
    assert [bar.left for bar in there.bars] == pytest.approx([0.0, 10 * percent], abs=1e-3)
    assert [bar.width for bar in there.bars] == pytest.approx([10 * percent, 12 * percent], abs=1e-3)


def test_a_roofline_shows_what_has_operations_bytes_and_time():
    made = result()
    cpu, gpu = (roofline(made, device, op_bytes(made)) for device in TOPOLOGY.devices)
    assert cpu is not None
    assert gpu is not None
    assert ([point.op for point in cpu.points], cpu.left_out) == (["relu1"], 1)
    assert [mark.label for mark in gpu.peaks] == ["fp32 1 TFLOP/s", "vector 100 GFLOP/s"]
    assert [mark.label for mark in gpu.slopes] == ["dram 10 GB/s"]
    (point,) = gpu.points
    left, top, width, height = gpu.frame
    assert left <= point.x <= left + width
    assert gpu.peaks[0].y1 < gpu.peaks[1].y1 < point.y <= top + height
    assert "5,000 FLOPs/byte, 5 GFLOP/s, 1 ms" in point.tooltip


def test_a_device_without_such_ops_has_no_roofline():
    made = result()
    assert roofline(made, TOPOLOGY.devices[0], [0, 0, 0]) is None
    assert "No op here has operations" in render(compilation_without_flops())


def compilation_without_flops() -> Compilation:
    made = compilation()
    assert made.placement is not None
    problem = made.placement.problem
    made.placement = replace(
        made.placement, problem=replace(problem, nodes=tuple(replace(node, flops=0.0) for node in problem.nodes))
    )
    return made
