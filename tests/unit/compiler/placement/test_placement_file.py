"""A problem in our own file, through gimlet-place: what it prints, and what a bad file gets."""

import json
from pathlib import Path
from typing import Any

import pytest

from gimlet.compiler.placement.model.problem import Option
from gimlet.compiler.placement.model.problem_json import problem_of
from gimlet.runtime.errors import GimletError
from gimlet.tools.gimlet_place import main

TABLE3 = Path(__file__).parents[4] / "examples" / "placement" / "paper_table3.json"


def data(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "host": "cpu",
        "devices": [{"name": "gpu", "launch_s": 0.5, "idle_w": 1, "load_w": 20}, {"name": "cpu", "memory_bytes": 90}],
        "routes": [
            {"from": "cpu", "to": "gpu", "latency_s": 1, "seconds_per_byte": 0.5},
            {"from": "gpu", "to": "cpu", "usd_per_byte": 2},
        ],
        "nodes": [{"name": "a", "options": {"gpu": {"seconds": 3}, "cpu": {"seconds": 9, "joules": 4, "usd": 7}}}],
        "values": [
            {"name": "x", "size_bytes": 4, "consumers": ["a"]},
            {"name": "y", "size_bytes": 6, "producer": "a", "is_output": True},
        ],
        "weights": [{"name": "w", "size_bytes": 8, "users": ["a"]}],
    } | changes


def command(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


def test_the_example_of_the_paper(capsys: pytest.CaptureFixture[str]):
    code, out, _ = command(capsys, TABLE3, "--objective", "cost", "--bound", "latency=120ms")
    assert code == 0
    assert "cost  0.095\nbound  0.095 (gap 0.000%, optimal" in out
    assert "latency_s  0.12\n" in out
    assert "fast  1 node: prefill\ncheap  1 node: decode\n" in out


def test_the_example_of_the_paper_without_its_limit(capsys: pytest.CaptureFixture[str]):
    report = json.loads(command(capsys, TABLE3, "--objective", "cost", "--json")[1])
    assert report["objective"] == pytest.approx(0.06)
    assert report["figures"]["latency_s"] == pytest.approx(0.160)
    assert report["assignment"] == {"prefill": "cheap", "decode": "cheap"}


def test_a_limit_that_nothing_keeps(capsys: pytest.CaptureFixture[str]):
    code, _, error = command(capsys, TABLE3, "--objective", "cost", "--bound", "latency=100ms")
    assert code == 5
    assert "latency cannot be below 105 ms, and at most 100 ms is asked for" in error


def test_every_figure_is_read():
    problem = problem_of(data(), Path("p.json"))
    assert problem.host == 1
    assert [spec.memory_bytes for spec in problem.devices] == [None, 90]
    assert problem.launch_s == (0.5, 0.0)
    assert problem.nodes[0].options == {0: Option(3.0, 60.0), 1: Option(9.0, 4.0, usd=7.0)}
    assert problem.routes[1, 0].seconds(4) == 3.0
    assert problem.routes[1, 0].links == (("cpu>gpu", 0.5),)
    assert problem.routes[0, 1].usd_per_byte == 2.0
    assert [(value.producer, value.consumers, value.is_output) for value in problem.values] == [
        (None, (0,), False),
        (0, (), True),
    ]
    assert problem.weights[0].size_bytes == {0: 8, 1: 8}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema must be 1, not 2"),
        ({"host": "gpu1"}, "unknown device 'gpu1'"),
        ({"devices": [{"name": "cpu"}, {"name": "cpu"}]}, "two devices have the name 'cpu'"),
        ({"routes": []}, "no link leads from one to the other of"),
        ({"nodes": [{"name": "a", "options": {"cpu": {"seconds": -1}}}]}, "must not be negative"),
        ({"nodes": [{"name": "a", "options": {"npu": {"seconds": 1}}}]}, "unknown device 'npu'"),
        ({"values": [{"name": "x", "size_bytes": 1, "consumers": ["b"]}]}, "unknown node 'b'"),
        ({"weights": [{"name": "w", "size_bytes": 1, "users": []}]}, "users"),
        ({"devices": []}, "devices must not be empty"),
        ({"nodes": [{"name": "a", "options": {"cpu": {"seconds": True}}}]}, "seconds must be a number, not True"),
        ({"routes": []}, "add a route each way to the problem"),
        ({"speed": 3}, "speed is not a key that this file may have"),
        ({"nodes": [{"name": "a", "options": {}}]}, r"nodes\[a\].options must not be empty"),
        (
            {"routes": [{"from": "cpu", "to": "gpu"}] * 2},
            r"routes\[1\]: there is a route from cpu to gpu already",
        ),
        ({"routes": [{"from": "cpu", "to": "cpu"}]}, r"p.json: routes\[0\]: leads from cpu to itself"),
        (
            {"values": [{"name": "v", "size_bytes": 1, "producer": "a", "consumers": ["a"]}]},
            "p.json: value 'v': nodes are",
        ),
        ({"routes": []}, "p.json: no link leads from"),
    ],
)
def test_a_bad_file_is_named(changes: dict[str, Any], message: str):
    with pytest.raises(GimletError, match=message):
        problem_of(data(**changes), Path("p.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [({}, "neither 'devices' (our format) nor 'maxFPGAs'"), ({"schema": 1}, "devices is missing")],
)
def test_a_file_in_no_format(content: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "p.json")])
    assert stop.value.code == 1
    assert message in capsys.readouterr().err


def test_what_only_one_format_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "p.json").write_text(json.dumps({"maxFPGAs": 1, "nodes": [], "edges": []}))
    for args in (["--objective", "cost"], ["--bound", "latency=1s"]):
        code, _, error = command(capsys, tmp_path / "p.json", *args)
        assert code == 2
        assert "the public format has no energy, no prices and no bounds" in error
    code, _, error = command(capsys, TABLE3, "--contiguous")
    assert code == 2
    assert "--contiguous: is for problems in the public format" in error


@pytest.mark.parametrize("content", ['{"schema": 1, "devices": ' + "[" * 100_000, '{"schema": ' + "9" * 5_000 + "}"])
def test_a_file_that_python_cannot_read_as_json(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "p.json"
    path.write_text(content)
    code, _, error = command(capsys, path)
    assert code == 1
    assert "p.json: is no JSON that can be read" in error


def test_figures_that_are_hundreds_of_digits_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    routes = [{"from": a, "to": b} for a, b in [("gpu", "cpu"), ("cpu", "gpu")]]
    nodes = [
        {"name": "a", "options": {"gpu": {"seconds": 1e300}, "cpu": {"seconds": 1e-3}}},
        {"name": "b", "options": {"gpu": {"seconds": 1e-3}, "cpu": {"seconds": 1e-3}}},
    ]
    devices = [{"name": "gpu"}, {"name": "cpu"}]
    problem = {"schema": 1, "devices": devices, "routes": routes, "nodes": nodes}
    (tmp_path / "p.json").write_text(json.dumps(problem))
    code, printed, _ = command(capsys, tmp_path / "p.json", "--json")
    assert code == 0
    assert json.loads(printed)["assignment"] == {"a": "cpu", "b": "gpu"}
