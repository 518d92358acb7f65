"""8-bit weights get the sign of what they are multiplied with, and the numbers stay those of exact sums."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gimlet.targets.portable import write_portable

RANDOM = np.random.default_rng(0)
SIGNS = [(np.uint8, np.int8), (np.int8, np.uint8), (np.int8, np.int8), (np.uint8, np.uint8)]


def model_of(nodes, inputs, weights):
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for name, a in inputs
    ]
    tensors = [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_empty_tensor_value_info("y")], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def written(make_segment, tmp_path, model):
    """The portable form, and what it computes for inputs."""
    typed = onnx.shape_inference.infer_shapes(model)
    write_portable(make_segment(typed), tmp_path)
    path = tmp_path / "model.onnx"

    def run(inputs):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run(None, dict(inputs))[0]

    return onnx.load(path), run


def types(proto):
    return {tensor.name: tensor.data_type for tensor in proto.graph.initializer}


def large(dtype, *shape):
    """Numbers whose products have large sums, two of which 16 bits do not hold where signs are mixed."""
    limits = np.iinfo(dtype)
    values = RANDOM.integers(limits.max - 30, limits.max + 1, shape).astype(dtype)
    values[..., ::3] = limits.min
    return values


@pytest.mark.parametrize(("left", "right"), SIGNS)
@pytest.mark.parametrize("with_zero_point", [False, True])
def test_integer_products_are_exact(make_segment, tmp_path, left, right, with_zero_point):
    a, w, zero = large(left, 4, 64), large(right, 64, 24), np.array(3, right)
    names = ["a", "w", "", "z"] if with_zero_point else ["a", "w"]
    model = model_of([helper.make_node("MatMulInteger", names, ["y"])], [("a", a)], {"w": w, "z": zero})
    proto, run = written(make_segment, tmp_path, model)
    moved = w.astype(np.int32) - (zero.astype(np.int32) if with_zero_point else 0)
    np.testing.assert_array_equal(run([("a", a)]), a.astype(np.int32) @ moved)
    unsigned = (left, right) != (np.int8, np.int8)
    assert types(proto)["w$flipped" if left is np.uint8 and right is np.int8 else "w"] == (
        TensorProto.UINT8 if unsigned else TensorProto.INT8
    )


@pytest.mark.parametrize(("left", "right"), SIGNS)
def test_integer_convolutions_are_exact(make_segment, tmp_path, left, right):
    x, w = large(left, 1, 8, 3, 3), large(right, 5, 8, 3, 3)
    model = model_of([helper.make_node("ConvInteger", ["x", "w"], ["y"])], [("x", x)], {"w": w})
    _, run = written(make_segment, tmp_path, model)
    sums = (w.astype(np.int32) * x.astype(np.int32)).sum(axis=(1, 2, 3))
    np.testing.assert_array_equal(run([("x", x)]).ravel(), sums)


def qdq(activation, *, axis=1, zero_point=True):
    """A product between Q/DQ pairs whose weights have a scale for each column."""
    zeros = np.array(0, activation)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "za"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "za"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "sw", *(["zw"] if zero_point else [])], ["dw"], axis=axis),
        helper.make_node("MatMul", ["d", "dw"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "so", "za"], ["qo"]),
        helper.make_node("DequantizeLinear", ["qo", "so", "za"], ["y"]),
    ]
    w, scales = large(np.int8, 64, 24), np.linspace(0.5, 1.5, 24).astype(np.float32)
    weights = {"s": np.float32(1), "za": zeros, "w": w, "sw": scales, "so": np.float32(20000)}
    if zero_point:
        weights["zw"] = np.zeros(24, np.int8)
    x = large(activation, 4, 64).astype(np.float32)
    limits = np.iinfo(activation)
    wanted = np.clip(np.rint(x @ (w * scales) / 20000), limits.min, limits.max) * 20000
    return model_of(nodes, [("x", x)], weights), x, wanted


@pytest.mark.parametrize("activation", [np.uint8, np.int8])
@pytest.mark.parametrize("zero_point", [False, True])
def test_products_between_pairs_are_what_the_model_says(make_segment, tmp_path, activation, zero_point):
    model, x, wanted = qdq(activation, zero_point=zero_point)
    proto, run = written(make_segment, tmp_path, model)
    np.testing.assert_allclose(run([("x", x)]), wanted, atol=20000 * 1.01)
    assert np.mean(run([("x", x)]) == wanted) > 0.98
    found = types(proto)
    assert found["w$flipped"] == TensorProto.UINT8
    assert "w" not in found
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    (made,) = (node for node in proto.graph.node if node.output[0] == "dw")
    assert made.input[0] == "w$flipped"
    np.testing.assert_array_equal(tensors[made.input[2]], np.full(24, 128, np.uint8))


def test_weights_that_something_else_reads_too_stay(make_segment, tmp_path):
    model, x, _ = qdq(np.uint8)
    model.graph.node.append(helper.make_node("ReduceMax", ["dw"], ["most"], keepdims=0))
    model.graph.output.append(helper.make_empty_tensor_value_info("most"))
    proto, _ = written(make_segment, tmp_path, model)
    assert types(proto)["w"] == TensorProto.INT8
    del x


def test_weights_of_two_nodes_are_made_once_and_kept_for_a_third(make_segment, tmp_path):
    a, b, w = large(np.uint8, 4, 8), large(np.int8, 4, 8), large(np.int8, 8, 16)
    nodes = [
        helper.make_node("MatMulInteger", ["a", "w"], ["m"]),
        helper.make_node("MatMulInteger", ["a", "w"], ["n"]),
        helper.make_node("MatMulInteger", ["b", "w"], ["o"]),
        helper.make_node("Add", ["m", "n"], ["p"]),
        helper.make_node("Add", ["p", "o"], ["y"]),
    ]
    proto, run = written(make_segment, tmp_path, model_of(nodes, [("a", a), ("b", b)], {"w": w}))
    wide = w.astype(np.int32)
    wanted = 2 * (a.astype(np.int32) @ wide) + b.astype(np.int32) @ wide
    np.testing.assert_array_equal(run([("a", a), ("b", b)]), wanted)
    assert {name: kind for name, kind in types(proto).items() if kind != TensorProto.UINT8} == {"w": TensorProto.INT8}
