"""Measured costs: what was timed is what the ops cost together, shared out as the model says."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.compiler.costs.conftest import BOUNDS, MODEL, CountingTarget, host, parse
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from gimlet.compiler.costs import measured
from gimlet.compiler.costs.measured import MeasuredCosts, cut, stretches
from gimlet.compiler.costs.provider import AnalyticCosts, model_costs, parse_providers
from gimlet.compiler.costs.timer import SegmentTimer, Timing
from gimlet.compiler.placement.reading.graph import ModuleGraph, read_graph
from gimlet.compiler.placement.service import PlacementOptions, PlacementService
from gimlet.dialects.context import GimletContext
from gimlet.runtime.errors import UsageError
from gimlet.targets.api import Cost, Device, Reason, Target, Topology


class FixedTimer(SegmentTimer):
    """Seconds by how many ops there are; a Reason for a number that is not listed."""

    def __init__(self, by_count: dict[int, float]) -> None:
        self.by_count, self.measured, self.reused = by_count, 0, 0

    def time(
        self, ops: Sequence[Operation], target: Target, device: Device, fmt: str, options: object = None
    ) -> Timing | Reason:
        self.measured += 1
        seconds = self.by_count.get(len(ops))
        return Reason("timed", "does not build") if seconds is None else Timing(seconds, 1)


ALL = [0, 1, 2, 3]


def test_pieces_are_scaled_to_their_time_and_to_that_of_the_whole(graph: ModuleGraph, monkeypatch: pytest.MonkeyPatch):
    """Two pieces of 5 ms that take 8 ms together; fusion makes a Relu free, so a piece costs one op by the model."""
    monkeypatch.setattr(measured, "PIECE_SECONDS", 1.5e-3)
    target = CountingTarget(seconds=1e-3)
    monkeypatch.setattr(CountingTarget, "fusion_saving", lambda *_: 1e-3 if _[2].name == "onnx.Relu" else 0.0)
    found = MeasuredCosts(FixedTimer({2: 5e-3, 4: 8e-3})).costs(graph, ALL, target, host(), "fp32")
    assert found.scale == pytest.approx(dict.fromkeys(ALL, 4.0))
    assert [found.costs[n].seconds for n in ALL] == pytest.approx([4e-3] * 4)
    assert [found.costs[n].joules for n in ALL] == pytest.approx([8.0] * 4)
    assert found.notes == ("cpu: costs of onnxruntime measured, 4 segments timed, 0 known from before",)


def test_what_is_not_to_be_cut_is_timed_as_a_whole(graph: ModuleGraph, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measured, "PIECE_SECONDS", 1.5e-3)
    timer = FixedTimer({4: 8e-3})
    found = MeasuredCosts(timer, in_pieces=False).costs(graph, ALL, CountingTarget(1e-3), host(), "fp32")
    assert sum(cost.seconds for cost in found.costs.values()) > 4e-3
    assert timer.measured == len(CountingTarget().settings(host()))


def test_pieces_are_timed_in_the_settings_that_are_best_for_the_whole(graph, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measured, "PIECE_SECONDS", 1.5e-3)
    asked: list[tuple[int, object]] = []

    class Recording(FixedTimer):
        def time(self, ops, target, device, fmt, options=None):
            asked.append((len(ops), options))
            return Timing(1e-3 * len(ops) * (1 if options == {"threads": 1} else 2), 1)

    monkeypatch.setattr(CountingTarget, "fusion_saving", lambda *_: 1e-3 if _[2].name == "onnx.Relu" else 0.0)
    MeasuredCosts(Recording({})).costs(graph, ALL, CountingTarget(1e-3), host(), "fp32")
    assert asked == [(4, {"threads": 0}), (4, {"threads": 1}), (2, {"threads": 1}), (2, {"threads": 1})]


def test_what_cannot_be_measured_keeps_the_model_and_says_so(graph: ModuleGraph, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measured, "PIECE_SECONDS", 1.5e-3)
    found = MeasuredCosts(FixedTimer({4: 8e-3})).costs(graph, ALL, CountingTarget(1e-3), host(), "fp32")
    assert [found.costs[n].seconds for n in ALL] == [1e-3] * 4
    assert found.scale == {}
    assert found.notes[1] == "cpu: 4 ops by the model, not measured: does not build"


def test_stretches_are_what_nothing_interrupts():
    assert stretches([5, 1, 2, 3, 6, 9]) == [[1, 2, 3], [5, 6], [9]]


@given(seconds=st.lists(st.sampled_from([0.0, 1e-4, 4e-4, 2e-3]), min_size=4, max_size=4))
def test_pieces_are_the_stretch_in_order(seconds: list[float]):
    from xdsl.universe import Universe

    from gimlet.dialects.universe import GIMLET_UNIVERSE

    ctx = GimletContext()
    for name, factory in (Universe.get_multiverse().all_dialects | GIMLET_UNIVERSE.all_dialects).items():
        ctx.register_dialect(name, factory)
    graph = read_graph(parse(ctx, MODEL), {"rows": 8})
    pieces = cut(graph, ALL, {n: Cost(s) for n, s in enumerate(seconds)}, CountingTarget())
    assert [n for piece in pieces for n in piece] == ALL
    assert all(pieces)
    assert not any(piece[-1] in (0, 2) and sum(seconds[n] for n in piece) < 1.2e-3 for piece in pieces)


QUANTIZED = """
func.func @main(%x: tensor<8x64xf32>) -> tensor<8x64xf32> {
  %s = onnx.initializer {value = dense<0.1> : tensor<f32>} : tensor<f32>
  %z = onnx.initializer {value = dense<0> : tensor<i8>} : tensor<i8>
  %w = onnx.initializer {value = dense<1> : tensor<64x64xi8>} : tensor<64x64xi8>
  %v = onnx.initializer {value = dense<2> : tensor<64x64xi8>} : tensor<64x64xi8>
  %0 = onnx.DequantizeLinear(%w, %s, %z) : (tensor<64x64xi8>, tensor<f32>, tensor<i8>) -> tensor<64x64xf32>
  %1 = onnx.DequantizeLinear(%v, %s, %z) : (tensor<64x64xi8>, tensor<f32>, tensor<i8>) -> tensor<64x64xf32>
  %2 = onnx.QuantizeLinear(%x, %s, %z) : (tensor<8x64xf32>, tensor<f32>, tensor<i8>) -> tensor<8x64xi8>
  %3 = onnx.DequantizeLinear(%2, %s, %z) : (tensor<8x64xi8>, tensor<f32>, tensor<i8>) -> tensor<8x64xf32>
  %4 = onnx.MatMul(%3, %0) : (tensor<8x64xf32>, tensor<64x64xf32>) -> tensor<8x64xf32>
  %5 = onnx.QuantizeLinear(%4, %s, %z) : (tensor<8x64xf32>, tensor<f32>, tensor<i8>) -> tensor<8x64xi8>
  %6 = onnx.DequantizeLinear(%5, %s, %z) : (tensor<8x64xi8>, tensor<f32>, tensor<i8>) -> tensor<8x64xf32>
  %7 = onnx.MatMul(%6, %1) : (tensor<8x64xf32>, tensor<64x64xf32>) -> tensor<8x64xf32>
  %8 = onnx.QuantizeLinear(%7, %s, %z) : (tensor<8x64xf32>, tensor<f32>, tensor<i8>) -> tensor<8x64xi8>
  %9 = onnx.DequantizeLinear(%8, %s, %z) : (tensor<8x64xi8>, tensor<f32>, tensor<i8>) -> tensor<8x64xf32>
  func.return %9 : tensor<8x64xf32>
}
"""


@pytest.mark.parametrize("seconds", [3.1e-4, 1.3e-3])
def test_pieces_end_between_what_quantizes_and_what_dequantizes(ctx: GimletContext, seconds: float):
    """However long each op takes: 4 and 7 are products, whose weights 0 and 1 dequantize far before them."""
    graph = read_graph(parse(ctx, QUANTIZED), {})
    pieces = cut(graph, range(10), {n: Cost(seconds) for n in range(10)}, CountingTarget())
    assert pieces == [[2], [0, 3, 4, 5], [1, 6, 7, 8], [9]]


def test_analytic_costs_are_the_targets(graph: ModuleGraph):
    target = CountingTarget(1e-3)
    found = AnalyticCosts().costs(graph, [1, 3], target, host(), "fp32")
    assert found.costs == model_costs(graph, [1, 3], target, host(), "fp32")
    assert (found.scale, found.notes) == ({}, ())


def test_the_provider_is_stated_and_replayed(module: ModuleOp, ctx: GimletContext, tmp_path: Path):
    """The second placement is made from the saved costs alone: same figures, same words, nothing timed."""
    target = CountingTarget(1e-3)
    service = PlacementService(ctx, Topology("t", (host(),), (), "cpu"), {"cpu": [target]})
    options = {"cost_providers": (("cpu", "measured"),), "cache": tmp_path}
    first = service.place(module, PlacementOptions(**options), BOUNDS)
    built = list(target.built)
    assert built
    assert first.explain()["devices"][0]["costs"] == ["measured"]
    assert "segments timed" in first.explain()["summary"]["notes"][0]
    costs = tmp_path / "costs.json"
    costs.write_text(json.dumps(first.costs()))
    again = service.place(module, PlacementOptions(costs=costs), BOUNDS)
    assert target.built == built
    assert again.costs() == first.costs()
    assert again.objective == first.objective
    assert again.explain()["devices"][0]["costs"] == ["measured"]


@pytest.mark.parametrize(
    ("pair", "message"),
    [(("gpu7", "measured"), "there is no device 'gpu7'"), (("cpu", "guessed"), "there is no cost provider 'guessed'")],
)
def test_what_does_not_exist_is_named(pair: tuple[str, str], message: str):
    with pytest.raises(UsageError, match=message):
        parse_providers([pair], ["cpu"])


def test_costs_and_a_provider_contradict_each_other(module: ModuleOp, ctx: GimletContext, tmp_path: Path):
    service = PlacementService(ctx, Topology("t", (host(),), (), "cpu"), {"cpu": [CountingTarget()]})
    options = PlacementOptions(cost_providers=(("cpu", "measured"),), costs=tmp_path / "costs.json")
    with pytest.raises(UsageError, match="saved costs and a cost provider"):
        service.place(module, options, BOUNDS)
