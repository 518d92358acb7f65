"""Segments built, run and timed; times kept by what decides them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit.compiler.costs.conftest import CountingTarget, host, parse
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from gimlet.compiler.costs.as_called import as_called
from gimlet.compiler.costs.in_flight import InFlight
from gimlet.compiler.costs.timer import Effort, SegmentTimer, Timing
from gimlet.compiler.placement.reading.graph import read_graph
from gimlet.dialects.context import GimletContext
from gimlet.runtime.errors import MissingError, UsageError
from gimlet.targets.api import DimBound, Reason
from gimlet.targets.registry import load

INDICES = """
func.func @main(%x: tensor<4x64xf32>, %i: tensor<3xi64>) -> tensor<3x64xf32> {
  %s = onnx.Abs(%i) : (tensor<3xi64>) -> tensor<3xi64>
  %g = onnx.Gather(%x, %s) {axis = 0 : si64} : (tensor<4x64xf32>, tensor<3xi64>) -> tensor<3x64xf32>
  func.return %g : tensor<3x64xf32>
}
"""
OPEN = """
func.func @main(%x: tensor<8xf32>) -> tensor<1x?xf32, #onnx.dims<"", "found">> {
  %n = onnx.NonZero(%x) : (tensor<8xf32>) -> tensor<1x?xi64, #onnx.dims<"", "found">>
  %f = onnx.Cast(%n) {to = 1 : si64} : (tensor<1x?xi64, #onnx.dims<"", "found">>)
    -> tensor<1x?xf32, #onnx.dims<"", "found">>
  %e = onnx.Exp(%f) : (tensor<1x?xf32, #onnx.dims<"", "found">>) -> tensor<1x?xf32, #onnx.dims<"", "found">>
  func.return %e : tensor<1x?xf32, #onnx.dims<"", "found">>
}
"""


def ops_of(graph) -> list[Operation]:
    return [op for unit in graph.units for op in unit.ops]


def test_a_segment_is_timed_once(timer: SegmentTimer, graph):
    target = CountingTarget()
    first = timer.time(ops_of(graph), target, host(), "fp32")
    again = timer.time(ops_of(graph), target, host(), "fp32")
    assert isinstance(first, Timing)
    assert (first.runs, first.cached) == (2, False)
    assert first.seconds > 0
    assert again == replace(first, cached=True)
    assert target.built == [4]
    assert (timer.measured, timer.reused) == (1, 1)


def test_equal_layers_are_one_shape_class(timer: SegmentTimer, graph):
    """Other weights, other names, an input in place of an op's result: the same time."""
    target = CountingTarget()
    ops = ops_of(graph)
    timer.time(ops[:2], target, host(), "fp32")
    found = timer.time(ops[2:], target, host(), "fp32")
    assert isinstance(found, Timing)
    assert found.cached
    assert target.built == [2]


@pytest.mark.parametrize("change", ["version", "sizes", "options", "ops", "format"])
def test_times_are_kept_by_what_decides_them(timer: SegmentTimer, graph, change: str):
    target = CountingTarget()
    ops = ops_of(graph)
    timer.time(ops[:2], target, host(), "fp32")
    if change == "version":
        target.version = "2"
    if change == "sizes":
        timer = replace(timer, sizes={"rows": 16})
    found = timer.time(
        ops[:1] if change == "ops" else ops[:2],
        target,
        host(),
        "bf16" if change == "format" else "fp32",
        {"threads": 1} if change == "options" else {},
    )
    assert isinstance(found, Timing)
    assert not found.cached


@pytest.mark.parametrize("damage", ["", "[1]", '{"schema": 2, "seconds": 1, "runs": 1}', '{"schema": 1}'])
def test_a_damaged_time_is_measured_again(timer: SegmentTimer, graph, damage: str):
    timer.time(ops_of(graph), CountingTarget(), host(), "fp32")
    (file,) = (timer.cache / "timings").iterdir()
    file.write_text(damage)
    found = timer.time(ops_of(graph), CountingTarget(), host(), "fp32")
    assert isinstance(found, Timing)
    assert not found.cached
    assert json.loads(file.read_text())["runs"] == 2


def test_the_effort_says_how_often(timer: SegmentTimer, graph):
    found = replace(timer, effort=Effort(seconds=60.0, least=3, most=7)).time(
        ops_of(graph), CountingTarget(), host(), "fp32"
    )
    assert isinstance(found, Timing)
    assert found.runs == 7


def test_a_segment_that_does_not_build_is_a_reason(timer: SegmentTimer, graph):
    found = timer.time(ops_of(graph), CountingTarget(refused=4), host(), "fp32")
    assert found == Reason("timed", "does not build")
    assert not (timer.cache / "timings").exists()


@pytest.mark.parametrize(("text", "first"), [(INDICES, 1), (OPEN, 2)])
def test_indices_and_open_shapes_are_computed(ctx: GimletContext, tmp_path: Path, text: str, first: int):
    """Random numbers are no indices, and the shape of what depends on data is not known."""
    module = parse(ctx, text)
    graph = read_graph(module, {})
    timer = SegmentTimer(module, ctx, {}, graph.sizes, tmp_path, Effort(seconds=0.0, least=1))
    assert isinstance(timer.time(ops_of(graph)[first:], CountingTarget(), host(), "fp32"), Timing)


def test_the_module_stays_as_it_is(timer: SegmentTimer, graph, module: ModuleOp):
    before = str(module)
    timer.time(ops_of(graph)[1:3], CountingTarget(), host(), "fp32")
    assert str(module) == before


def test_an_input_that_cannot_be_made_up(ctx: GimletContext, tmp_path: Path):
    module = parse(ctx, INDICES.replace("tensor<3xi64>", 'tensor<?xi64, #onnx.dims<"n">>'))
    graph = read_graph(module, {})
    timer = SegmentTimer(module, ctx, {"n": DimBound(1, 2, 3)}, {}, tmp_path)
    found = timer.time(ops_of(graph)[1:], CountingTarget(), host(), "fp32")
    assert found == Reason("i", "no values can be made up for this input")


def test_another_machine_is_not_measured(timer: SegmentTimer, graph):
    with pytest.raises(UsageError, match="it is not this machine"):
        timer.time(ops_of(graph), CountingTarget(), host("cpu.toml"), "fp32")


def test_an_emulator_is_not_measured(timer: SegmentTimer, graph):
    with pytest.raises(UsageError, match="emulated"):
        timer.time(ops_of(graph), load("sram"), host("d-matrix/corsair"), "fp32")


def test_an_absent_device_is_named(timer: SegmentTimer, graph, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(CountingTarget, "requires", lambda *_: {"execution_provider": "MIGraphXExecutionProvider"})
    with pytest.raises(MissingError, match="cannot be measured here"):
        timer.time(ops_of(graph), CountingTarget(), host(), "fp32")


def test_a_segment_is_ready_in_each_setting_for_each_request_in_flight(timer: SegmentTimer, graph):
    """The launches of one setting run at once, each on its own buffers."""
    settings = [{"threads": 0}, {"threads": 1}]
    with timer.loaded(ops_of(graph), CountingTarget(), host(), "fp32", settings, 3) as found:
        assert not isinstance(found, Reason)
        assert [len(launches) for launches in found] == [3, 3]
        for launches in found:
            with InFlight(3) as three:
                three.run(launches)


class _Bindings:
    """Notes what is bound."""

    def __init__(self) -> None:
        self.bound: list[tuple[str, np.ndarray]] = []

    def set_output(self, name: str, buffer: np.ndarray) -> None:
        self.bound.append((name, buffer))


def test_a_launch_of_a_trial_does_what_a_program_does_around_it():
    """Small inputs are copied in, large outputs are new in every run; what the executor allocates is new by itself."""
    small, kept, large = np.ones(4, np.float32), np.zeros(4, np.float32), np.zeros(1 << 14, np.float32)
    seen: list[np.ndarray] = []
    bindings = _Bindings()
    inputs = {"x": (small, kept), "wide": (large, large)}
    outputs = [("y", np.zeros(2, np.float32)), ("big", large), ("open", None)]
    call = as_called(lambda: seen.append(kept.copy()), bindings, inputs, outputs)  # type: ignore[arg-type]
    call()
    call()
    np.testing.assert_array_equal(seen[0], small)
    assert [name for name, _ in bindings.bound] == ["big", "big"]
    first, second = (buffer for _, buffer in bindings.bound)
    assert first.shape == large.shape
    assert first is not second
    assert first is not large


def test_what_a_trial_launches_knows_the_inputs_and_outputs_of_the_program(
    timer: SegmentTimer, graph, monkeypatch: pytest.MonkeyPatch
):
    found: list[tuple[list[str], list[str]]] = []

    def noted(launch, bindings, inputs, outputs):
        found.append((list(inputs), [name for name, _ in outputs]))
        return launch

    monkeypatch.setattr("gimlet.compiler.costs.timer.as_called", noted)
    ops = ops_of(graph)
    for part in (ops, ops[:2], ops[2:]):
        with timer.loaded(part, CountingTarget(), host(), "fp32", [{}]):
            pass
    assert [(len(inputs), len(outputs)) for inputs, outputs in found] == [(1, 1), (1, 0), (0, 1)]
