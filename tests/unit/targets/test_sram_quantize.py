"""QuantizeLinear and DequantizeLinear on the SRAM machine: integers as ONNX Runtime makes them."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import DEVICE, Runner, emit, model_of, reference, relative_error, segment_of

from gimlet.targets.api import Reason

F = TensorProto.FLOAT
RNG = np.random.default_rng(0)
ELEMENT = {np.dtype(np.int8): TensorProto.INT8, np.dtype(np.uint8): TensorProto.UINT8}


def quantizer(zero, scale, **attributes):
    """A QuantizeLinear and its model, of an input of [3, 5, 7], ties and values beyond the integers among them."""
    x = (RNG.standard_normal((3, 5, 7)) * 3).astype(np.float32)
    x[0, 0] = [0.25, -0.25, 0.75, 1e6, -1e6, 63.5, -64.0]
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], **attributes)
    return model_of([node], {"x": (F, x.shape)}, ["y"], {"s": scale, "z": zero}, opset=19), x


@pytest.mark.parametrize("zero", [np.int8(-3), np.uint8(128), np.uint8(0)], ids=repr)
def test_quantized_numbers_are_those_of_the_definition(zero):
    model, x = quantizer(zero, np.float32(0.5))
    found, expected = Runner(segment_of(model), "fp32")(x=x)[0], reference(model, x=x)[0]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_scale_for_each_position_of_an_axis(axis):
    size = (3, 5, 7)[axis]
    scale, zero = (RNG.uniform(0.1, 1, size)).astype(np.float32), RNG.integers(-9, 9, size).astype(np.int8)
    model, x = quantizer(zero, scale, axis=axis)
    np.testing.assert_array_equal(Runner(segment_of(model), "fp32")(x=x)[0], reference(model, x=x)[0])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_integers_become_numbers(dtype):
    x = RNG.integers(0, 100, (4, 6)).astype(dtype)
    kept = {"s": RNG.uniform(0.1, 1, 6).astype(np.float32), "z": RNG.integers(0, 9, 6).astype(dtype)}
    node = helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"])
    model = model_of([node], {"x": (ELEMENT[x.dtype], x.shape)}, ["y"], kept, opset=19)
    np.testing.assert_array_equal(Runner(segment_of(model), "fp32")(x=x)[0], reference(model, x=x)[0])


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_that_are_dequantized_are_weights(axis):
    """A quantized layer, as quantizers of models write it: its weights stay on the cores, and no kernel makes them."""
    x, w = (RNG.standard_normal((7, 96))).astype(np.float32), RNG.integers(-127, 127, (96, 70)).astype(np.int8)
    size = w.shape[axis]
    kept = {
        "w": w,
        "s": RNG.uniform(0.001, 0.01, size).astype(np.float32),
        "z": np.zeros(size, np.int8),
        "xs": np.float32(0.03),
        "xz": np.uint8(120),
        "ys": np.float32(0.1),
        "yz": np.int8(3),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "xs", "xz"], ["b"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"], axis=axis),
        helper.make_node("MatMul", ["b", "v"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "ys", "yz"], ["y"]),
    ]
    model = model_of(nodes, {"x": (F, x.shape)}, ["y"], kept, opset=19)
    for fmt in ("fp32", "bf16"):
        runner = Runner(segment_of(model, fmt=fmt), fmt)
        assert any(tensor.role == "weight" and tensor.space == "core" for tensor in runner.executor.program.tensors)
        found, expected = runner(x=x)[0].astype(np.float32), reference(model, x=x)[0].astype(np.float32)
        assert np.abs(found - expected).max() <= 1
        assert relative_error(found, expected) < (0.003 if fmt == "fp32" else 0.02)


def test_weights_of_a_convolution_may_be_dequantized():
    x, w = RNG.standard_normal((2, 6, 9, 8)).astype(np.float32), RNG.integers(-127, 127, (4, 3, 3, 3)).astype(np.int8)
    kept = {"w": w, "s": RNG.uniform(0.001, 0.01, 4).astype(np.float32), "z": np.zeros(4, np.int8)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"], axis=0),
        helper.make_node("Conv", ["x", "v"], ["y"], group=2, strides=[3, 1], pads=[1, 0, 2, 1], dilations=[1, 2]),
    ]
    model = model_of(nodes, {"x": (F, x.shape)}, ["y"], kept, opset=19)
    assert relative_error(Runner(segment_of(model), "fp32")(x=x)[0], reference(model, x=x)[0]) < 1e-6


def refusal(node, inputs, kept, opset=21) -> str:
    found = emit(segment_of(model_of([node], inputs, ["y"], kept, opset)), "fp32", None, DEVICE)
    assert isinstance(found, Reason)
    return found.message


def test_what_is_not_quantized_says_so():
    x = {"x": (F, [4, 8])}
    blocks = {"s": np.ones((4, 2), np.float32), "z": np.zeros((4, 2), np.int8)}
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], axis=1, block_size=4)
    assert refusal(node, x, blocks) == "QuantizeLinear of blocks is not generated"
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    wide = {"s": np.float32(1), "z": np.uint16(0)}
    assert refusal(node, x, wide) == "the machine has no elements of type tensor<4x8xui16>"
    assert refusal(node, x, blocks) == "QuantizeLinear with a scale of 2 dimensions is not generated"
    node = helper.make_node("QuantizeLinear", ["x", "s"], ["y"])
    integers = {"x": (TensorProto.INT32, [4, 8])}
    assert refusal(node, integers, {"s": np.int32(1)}, 19) == "QuantizeLinear of i32 is not generated"
