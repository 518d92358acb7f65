"""Shapes that no model is tuned for, on three parts of other sizes: one wide, prime, empty, just above an array's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from tests.unit.targets.sram_models import Runner, model_of, reference, segment_of
from tests.unit.targets.test_sram_ops import F

from gimlet.compiler.hardware import load_kind
from gimlet.targets.api import Device

PARTS = {
    name: Device("sram0", load_kind(name)) for name in ("d-matrix/corsair", "groq/lpu-v1", "tenstorrent/blackhole-p150")
}
ERROR = {"fp32": 6e-6, "bf16": 0.02, "mxint8": 0.04}
SIZES = st.sampled_from([1, 1, 2, 3, 5, 7, 13, 31, 33, 61, 64, 65, 67])
"""In dimensions of more, 127 to 321 too: an LPU's array is 320 wide."""
LARGE = st.one_of(SIZES, st.sampled_from([0, 127, 131, 257, 321]))
Case = tuple[onnx.ModelProto, dict[str, np.ndarray], np.ndarray | None]


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def matmul(draw: Callable[[Any], Any]) -> Case:
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    m, k, n, weights = draw(SIZES), draw(LARGE), draw(LARGE), draw(st.booleans())
    x, w = numbers(*batch, m, k), numbers(*([] if weights else batch), k, n)
    given, kept = ({"x": x}, {"w": w}) if weights else ({"x": x, "w": w}, {})
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model_of([node], {name: (F, each.shape) for name, each in given.items()}, ["y"], kept), given, x @ w


def conv(draw: Callable[[Any], Any]) -> Case:
    rank, groups, inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(SIZES), draw(SIZES)
    kernel = [draw(st.sampled_from([1, 2, 3, 5])) for _ in range(rank)]
    x = numbers(draw(st.integers(1, 2)), groups * inputs, *(size + draw(st.integers(0, 12)) for size in kernel))
    how = {name: [draw(st.integers(low, low + 1)) for _ in range(rank)] for name, low in (("strides", 1), ("pads", 0))}
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=groups, strides=how["strides"], pads=how["pads"] * 2)
    weights = {"w": numbers(groups * outputs, inputs, *kernel)}
    return model_of([node], {"x": (F, x.shape)}, ["y"], weights), {"x": x}, None


def reduction(draw: Callable[[Any], Any]) -> Case:
    shape = draw(st.lists(SIZES, min_size=1, max_size=3))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    kind = draw(st.sampled_from(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"]))
    x = numbers(*shape)
    node = helper.make_node(kind, ["x", "axes"], ["y"], keepdims=draw(st.integers(0, 1)))
    return model_of([node], {"x": (F, x.shape)}, ["y"], {"axes": np.array(axes)}, opset=18), {"x": x}, None


def attention(draw: Callable[[Any], Any]) -> Case:
    batch, heads, shared = (draw(st.integers(1, 3)) for _ in range(3))
    queries, keys, size, wide = (draw(SIZES) for _ in range(4))
    shapes = {
        "q": (batch, heads * shared, queries, size),
        "k": (batch, heads, keys, size),
        "v": (batch, heads, keys, wide),
    }
    x = {name: numbers(*shape) for name, shape in shapes.items()}
    node = helper.make_node("Attention", list(x), ["y"], is_causal=int(queries <= keys and draw(st.booleans())))
    return model_of([node], {name: (F, shape) for name, shape in shapes.items()}, ["y"], opset=23), x, None


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("case", [matmul, conv, reduction, attention])
@given(data=st.data(), fmt=st.sampled_from(list(ERROR)))
@settings(max_examples=6, deadline=None)
def test_odd_shapes(case: Callable[[Callable[[Any], Any]], Case], part: str, data: st.DataObject, fmt: str):
    model, x, expected = case(data.draw)
    expected = reference(model, **x)[0] if expected is None else expected
    found = Runner(segment_of(model, fmt=fmt), fmt, PARTS[part])(**x)[0]
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= ERROR[fmt] * np.linalg.norm(expected)


@pytest.mark.parametrize("fmt", list(ERROR))
@pytest.mark.parametrize(("m", "k", "n"), [(3, 0, 5), (3, 5, 0), (0, 5, 3), (0, 0, 0)])
@pytest.mark.parametrize("turned", [0, 1])
def test_weights_without_an_element(fmt: str, m: int, k: int, n: int, turned: int):
    """A sum of nothing is zero, and the bias is added to it."""
    weights = {"w": np.ones((n, k) if turned else (k, n), np.float32), "b": np.full(n, 2, np.float32)}
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=turned)
    model = model_of([node], {"x": (F, (m, k))}, ["y"], weights)
    found = Runner(segment_of(model, fmt=fmt), fmt)(x=np.ones((m, k), np.float32))[0]
    np.testing.assert_array_equal(found, np.full((m, n), k + 2, np.float32))
