"""One truth: `--explain`, the report, the manifest and the commands that read it say the same of the same things."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.e2e.models import CHAIN_PINS, chain

from gimlet.runtime.bundle import open_bundle
from gimlet.runtime.manifest import Manifest
from gimlet.runtime.units import bytes_text, joules_text, seconds_text
from gimlet.tools import gimlet_compile, gimlet_inspect

TOPOLOGIES = Path(__file__).resolve().parents[2] / "examples" / "topologies"
FLOAT = TensorProto.FLOAT


def branches(path: Path) -> Path:
    """Two branches that join: products of [n, 256], of which the right one has nothing to wait for but the input."""
    weights = [
        numpy_helper.from_array(np.full((256, 256), 0.01, np.float32), name) for name in ("w0", "w1", "w2", "shared")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="left0"),
        helper.make_node("MatMul", ["a", "shared"], ["b"], name="left1"),
        helper.make_node("MatMul", ["x", "w1"], ["c"], name="right0"),
        helper.make_node("MatMul", ["c", "shared"], ["d"], name="right1"),
        helper.make_node("Relu", ["d"], ["e"], name="right2"),
        helper.make_node("Add", ["b", "e"], ["y"], name="join"),
    ]
    ports = [helper.make_tensor_value_info(name, FLOAT, ["n", 256]) for name in ("x", "y", "a")]
    return saved(path, nodes, ports[:1], ports[1:], weights)


def counter(path: Path) -> Path:
    """A total that is a state: what comes in is added to it, and is scaled on its way out."""
    weight = numpy_helper.from_array(np.full((256, 256), 0.01, np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="product"),
        helper.make_node("Add", ["total", "p"], ["sum"], name="add"),
        helper.make_node("Relu", ["sum"], ["y"], name="out"),
    ]
    ports = {name: helper.make_tensor_value_info(name, FLOAT, ["n", 256]) for name in ("x", "total", "y", "sum")}
    return saved(path, nodes, [ports["x"], ports["total"]], [ports["y"], ports["sum"]], [weight])


def constant_too(path: Path) -> Path:
    """A model that also returns a constant, which is in no schedule."""
    weight = numpy_helper.from_array(np.full((64, 64), 0.01, np.float32), "w")
    ports = {name: helper.make_tensor_value_info(name, FLOAT, [64, 64]) for name in ("x", "y", "w")}
    return saved(
        path,
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="p")],
        [ports["x"]],
        [ports["y"], ports["w"]],
        [weight],
    )


def saved(path: Path, nodes: Any, inputs: Any, outputs: Any, weights: Any) -> Path:
    graph = helper.make_graph(nodes, "m", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


RACK, LARGE = (TOPOLOGIES / f"{name}.toml" for name in ("rack", "rack-large"))
CASES: Mapping[str, tuple[Callable[[Path], Path], str]] = {
    "one device": (chain, "--bind n=4"),
    "pinned": (chain, f"--topology {RACK} --bind n=1:4:16" + "".join(f" --pin {p}={d}" for p, d in CHAIN_PINS.items())),
    "throughput": (branches, f"--topology {RACK} --bind n=64 --objective throughput"),
    "energy": (branches, f"--topology {RACK} --bind n=64 --objective energy --pin left.*=sram0"),
    "shares": (branches, f"--topology {RACK} --bind n=1024 --min-share gpu0=0.2 --min-share sram0=0.2"),
    "side by side": (branches, f"--topology {LARGE} --bind n=64 --pin left.*=gpu0 --pin right.*=gpu1 --pin join=cpu"),
    "out of order": (branches, f"--topology {RACK} --bind n=64 --placement {{order}}"),
    "formats": (branches, f"--topology {RACK} --bind n=256 --loss-budget 0.05 --pin right.*=gpu0 --pin left.*=sram0"),
    "a state": (counter, f"--topology {RACK} --bind n=64 --state total=sum --pin add=gpu0 --pin product=sram0"),
    "a constant": (constant_too, f"--topology {RACK} --pin p=gpu0"),
}
ORDER = {"right0": 0, "left0": 1, "right1": 2, "left1": 3, "right2": 4, "join": 5}
"""Two devices in turns, the second branch first, each op a segment of its own."""


class Case(NamedTuple):
    """What `--explain --json` says, the manifest, the report's tables by name, and the bundle."""

    printed: dict[str, Any]
    manifest: Manifest
    tables: dict[str, list[dict[str, Any]]]
    bundle: Path


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    model, flags = CASES[request.param]
    folder = tmp_path_factory.mktemp("agree")
    assign = {name: {"device": ("gpu0", "cpu")[n % 2], "segment": n} for name, n in ORDER.items()}
    (folder / "order.json").write_text(json.dumps({"schema": 1, "assign": assign}))
    asked = flags.format(order=folder / "order.json").split()
    bundle, page, source = folder / "m.gimlet", folder / "r.html", str(model(folder / "m.onnx"))
    text = command(gimlet_compile.main, source, "-o", bundle, "--report", page, "--explain", "--json", *asked)
    data = re.search(r'id="tables">(.*?)</script>', page.read_text(), re.DOTALL)
    assert data is not None
    return Case(json.loads(text), open_bundle(bundle).manifest, rows(json.loads(data[1])), bundle)


def command(main: Callable[[list[str]], Any], *args: object) -> str:
    """What a command prints."""
    printed = io.StringIO()
    with redirect_stdout(printed), pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    assert not stop.value.code, printed.getvalue()
    return printed.getvalue()


def rows(tables: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    titles = {table["name"]: [title for title, _ in table["columns"]] for table in tables}
    return {t["name"]: [dict(zip(titles[t["name"]], row, strict=True)) for row in t["rows"]] for t in tables}


def same(figure: Any) -> Any:
    """A figure as the manifest writes it: with nine digits."""
    return figure if figure is None or isinstance(figure, str) else pytest.approx(figure, rel=1e-8, abs=1e-15)


def test_every_figure_is_the_schedules(case: Case) -> None:
    found, manifest = case.printed["explain"], case.manifest
    summary = found["summary"]
    for name in ("objective", "value", "bound", "status", "latency_s", "period_s", "energy_j", "cost_usd"):
        assert getattr(manifest.placement, name) == same(summary[name]), name
    assert manifest.placement.gap == pytest.approx(summary["gap"], abs=1e-8)
    segments = [segment for segment in manifest.segments if segment.inputs]
    for segment, said, row in zip(segments, found["segments"], case.tables["segments"], strict=True):
        assert segment.id == f"s{said['segment']}" == row["segment"]
        assert (segment.device, segment.format, segment.ops) == (said["device"], said["format"], said["ops"])
        assert (segment.seconds, segment.joules) == (same(said["seconds"]), same(said["joules"]))
        assert (row["time"], row["energy"]) == (said["seconds"], said["joules"])
        assert segment.seconds > 0
        assert segment.weight_bytes == said["weight_bytes"] == row.get("weights", 0)
    for said in case.printed["segments"]:
        assert manifest.segment(said["id"]).seconds == same(said["seconds"])


def test_every_transfer_is_the_schedules(case: Case) -> None:
    manifest = case.manifest
    sizes = {name: dim.optimum for name, dim in manifest.dims.items()}
    device = {value.id: value.device for value in manifest.values}
    moved = {
        (step.source, device[step.source], device[step.target]): (step.bytes.evaluate(sizes), same(step.seconds))
        for step in manifest.transfers
    }
    assert len(moved) == len(manifest.transfers)
    told = case.printed["explain"]["transfers"]
    assert {(t["value"], t["from"], t["to"]): (t["bytes"], t["seconds"]) for t in told} == moved
    listed = case.tables["transfers"] if moved else []
    assert {(row["value"], row["from"], row["to"]): (row["size"], row["time alone"]) for row in listed} == moved


def test_figures_add_up(case: Case) -> None:
    """A segment to its launch and its ops, a device's busy time to its segments, the energy to segments and idling."""
    found = case.printed["explain"]
    for segment in found["segments"]:
        ops = [op for op in found["ops"] if op["segment"] == segment["segment"]]
        total = segment["launch_s"] + sum(op["seconds"] for op in ops) - segment["fused_s"] + segment["edges_s"]
        assert segment["seconds"] == pytest.approx(total)
    for device in found["devices"]:
        own = [segment["seconds"] for segment in found["segments"] if segment["device"] == device["name"]]
        assert device["busy_s"] == pytest.approx(sum(own))
    idle = sum(device["idle_joules"] or 0.0 for device in found["devices"])
    joules = sum(segment["joules"] for segment in found["segments"])
    assert found["summary"]["energy_j"] == pytest.approx(joules + idle)
    ends = [segment["start_s"] + segment["seconds"] for segment in found["segments"]]
    assert found["summary"]["latency_s"] >= max(ends) * (1 - 1e-9)


def test_a_device_runs_its_segments_in_the_schedules_order(case: Case) -> None:
    starts = {f"s{each['segment']}": each["start_s"] for each in case.printed["explain"]["segments"]}
    for device in case.manifest.topology.devices:
        own = [each.id for each in case.manifest.segments if each.device == device.name and each.id in starts]
        assert own == sorted(own, key=starts.__getitem__)


def test_inspect_says_the_same_in_the_same_words(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found = case.printed["explain"]
    text = command(gimlet_inspect.main, case.bundle)
    summary = found["summary"]
    assert f"predicted for one run: latency {seconds_text(summary['latency_s'])}, " in text
    assert f"energy {joules_text(summary['energy_j'])}" in text
    for segment in found["segments"]:
        (row,) = [line for line in text.splitlines() if line.startswith(f"s{segment['segment']} ")]
        times = seconds_text(segment["seconds"]), joules_text(segment["joules"])
        for part in (bytes_text(segment["weight_bytes"]), *times):
            assert f" {part} " in f"{row} "
