"""Differences between bundles, and the limits that CI sets on them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gimlet.compiler.diff import diff, parse_limits
from gimlet.runtime.errors import UsageError
from gimlet.runtime.expr import Expr
from gimlet.runtime.manifest import (
    DeviceEntry,
    DimRange,
    Launch,
    Manifest,
    ModelInfo,
    PlacementSummary,
    Port,
    Segment,
    TopologyEntry,
    Value,
    Variant,
)
from gimlet.runtime.tensors import TensorSpec

SHAPE = (Expr.symbol("n"),)
SEGMENT = Segment(
    "s0",
    "cpu",
    "fp32",
    (TensorSpec("x", "float32", SHAPE),),
    (TensorSpec("y", "float32", SHAPE),),
    (Variant("onnxruntime", "fp32", ("segments/s0/model.onnx",), key="k0"),),
    ops=3,
)
MANIFEST = Manifest(
    producer={"onnx": "1.23.2"},
    model=ModelInfo("m", "m.onnx", "0" * 64),
    inputs=(Port("x", "x"),),
    outputs=(Port("y", "y"),),
    dims={"n": DimRange(1, 4, 8)},
    topology=TopologyEntry("cpu", "cpu", (DeviceEntry("cpu", "host"),)),
    values=(Value("x", "x", "float32", SHAPE, "cpu"), Value("y", "y", "float32", SHAPE, "cpu")),
    segments=(SEGMENT,),
    steps=(Launch("t0", "s0", ("x",), ("y",)),),
    placement=PlacementSummary("latency", 1e-3, 1e-3, 0.0, "optimal"),
)


def aspects(new: Manifest) -> list[str]:
    return [change.aspect for change in diff(MANIFEST, new)]


def test_equal_bundles_have_no_difference() -> None:
    assert diff(MANIFEST, MANIFEST) == []


def test_each_aspect_is_told_apart() -> None:
    assert aspects(replace(MANIFEST, dims={"n": DimRange(1, 4, 16)})) == ["interface"]
    assert aspects(replace(MANIFEST, producer={"onnx": "1.24.0"})) == ["producer"]
    moved = replace(SEGMENT, device="gpu0")
    assert aspects(replace(MANIFEST, segments=(moved,))) == ["placement"]
    rebuilt = replace(SEGMENT, variants=(replace(SEGMENT.variants[0], key="k1"),))
    assert aspects(replace(MANIFEST, segments=(rebuilt,))) == ["engines"]
    kind = TopologyEntry("cpu", "cpu", (DeviceEntry("cpu", "other"),))
    assert aspects(replace(MANIFEST, topology=kind)) == ["topology"]


def test_cost_may_drift_by_what_the_limit_says() -> None:
    slower = replace(MANIFEST, placement=replace(MANIFEST.placement, value=1.04e-3))
    (change,) = diff(MANIFEST, slower)
    assert change.ratio == pytest.approx(1.04)
    five, three = parse_limits("placement,cost:5%")[1], parse_limits("cost:3%")[0]
    assert not five.breaks(change)
    assert three.breaks(change)


def test_a_limit_without_a_figure_forbids_any_change() -> None:
    (change,) = diff(MANIFEST, replace(MANIFEST, producer={}))
    assert parse_limits("producer")[0].breaks(change)
    assert not parse_limits("placement")[0].breaks(change)


@pytest.mark.parametrize("text", ["speed", "cost:5", "placement:5%", "cost:"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_limits(text)
