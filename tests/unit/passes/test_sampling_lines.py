"""Operators that read or write at computed places, written out in other operators, against ONNX Runtime's kernels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnxruntime import InferenceSession
from tests.unit.passes.test_einsum_lines import operators, written_out
from tests.unit.targets.sram_models import model_of

Array = np.ndarray[Any, Any]


def check(
    op: str, inputs: Sequence[Array | None], known: Mapping[int, Array] | None = None, opset: int = 20, **how: Any
) -> None:
    """One node with these inputs, of which those `known` are constants, and None is left out."""
    constants = {f"x{index}": value for index, value in (known or {}).items()}
    values = {f"x{index}": value for index, value in enumerate(inputs) if value is not None}
    count = max(len(inputs), *(index + 1 for index in known or {-1}))
    names = [name if (name := f"x{index}") in {**values, **constants} else "" for index in range(count)]
    node = helper.make_node(op, names, ["y"], name="op", **how)
    given = {name: (helper.np_dtype_to_tensor_dtype(each.dtype), each.shape) for name, each in values.items()}
    model = model_of([node], given, ["y"], opset=opset)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    module, after = written_out(model)
    assert op not in operators(module)
    found, expected = (_run(each, values) for each in (after, model))
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


def _run(model: onnx.ModelProto, values: Mapping[str, Array]) -> Array:
    return np.asarray(InferenceSession(model.SerializeToString()).run(None, dict(values))[0])


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


SIZE = st.integers(1, 5)


@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_grid_sample(data: st.DataObject):
    batch, channels, height, width, rows, columns = (data.draw(SIZE) for _ in range(6))
    how = {"padding_mode": data.draw(st.sampled_from(["zeros", "border", "reflection"]))}
    how |= {"mode": data.draw(st.sampled_from(["linear", "nearest"])), "align_corners": data.draw(st.integers(0, 1))}
    places = normal(batch, rows, columns, 2) * np.float32(1.5)
    check("GridSample", [normal(batch, channels, height, width), places], **how)


@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_deform_conv(data: st.DataObject):
    batch, channels, filters = (data.draw(st.integers(1, 3)) for _ in range(3))
    kernel = [data.draw(st.integers(1, 3)) for _ in range(2)]
    strides, holes = ([data.draw(st.integers(1, 2)) for _ in range(2)] for _ in range(2))
    pads = [data.draw(st.integers(0, 1)) for _ in range(4)]
    size = [data.draw(st.integers(5, 8)) for _ in range(2)]
    out = [
        (size[axis] + pads[axis] + pads[axis + 2] - holes[axis] * (kernel[axis] - 1) - 1) // strides[axis] + 1
        for axis in range(2)
    ]
    count = kernel[0] * kernel[1]
    inputs: list[Array | None] = [normal(batch, channels, *size), normal(filters, channels, *kernel)]
    inputs.append(normal(batch, 2 * count, *out))
    inputs.append(normal(filters) if data.draw(st.booleans()) else None)
    inputs.append(normal(batch, count, *out) if data.draw(st.booleans()) else None)
    how = {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": holes}
    check("DeformConv", inputs, opset=19, **how)


@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_dft(data: st.DataObject):
    sizes = [data.draw(st.integers(1, 9)) for _ in range(data.draw(st.integers(1, 3)))]
    axis, parts = data.draw(st.integers(0, len(sizes) - 1)), data.draw(st.integers(1, 2))
    kind = data.draw(st.sampled_from(["plain", "inverse", "onesided"]))
    how: dict[str, Any] = {} if kind == "plain" else {kind: 1}
    known = {2: np.array(axis - len(sizes) - 1)}
    if data.draw(st.booleans()):
        known[1] = np.array(data.draw(st.integers(1, 9)))
    check("DFT", [normal(*sizes, 1 if kind == "onesided" else parts)], known, **how)


@pytest.mark.parametrize("one_sided", [0, 1])
@pytest.mark.parametrize("has_window", [False, True])
def test_stft(has_window: bool, one_sided: int):
    known = {1: np.array(5), 3: np.array(16)} | ({2: np.hanning(16).astype(np.float32)} if has_window else {})
    check("STFT", [normal(2, 43, 1)], known, opset=17, onesided=one_sided)


@given(st.integers(1, 4), st.integers(1, 5), st.lists(st.integers(1, 4), max_size=2), st.integers(0, 1), st.data())
@settings(max_examples=10, deadline=None)
def test_reverse_sequence(batch: int, steps: int, rest: list[int], time: int, data: st.DataObject):
    lengths = np.array(data.draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch)))
    shape = [batch, steps] if time else [steps, batch]
    check("ReverseSequence", [normal(*shape, *rest), lengths], time_axis=time, batch_axis=1 - time)


@pytest.mark.parametrize("given", [False, True])
def test_max_unpool(given: bool):
    places = np.array([[[[5, 7], [13, 15]], [[21, 22], [28, 31]]]])
    how = {"kernel_shape": [2, 2], "strides": [2, 2]}
    known = {2: np.array([1, 2, 4, 5])} if given else None
    check("MaxUnpool", [normal(1, 2, 2, 2), places], known, **how)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.sampled_from([13, 20]), st.data())
@settings(max_examples=10, deadline=None)
def test_where_the_largest_integer_is(shape: list[int], opset: int, data: st.DataObject):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    kind = data.draw(st.sampled_from([np.int32, np.int64]))
    op = data.draw(st.sampled_from(["ArgMax", "ArgMin"]))
    how = {name: data.draw(st.integers(0, 1)) for name in ("keepdims", "select_last_index")}
    check(op, [np.round(normal(*shape)).astype(kind)], opset=opset, axis=axis, **how)
