"""What attention, packed products and experts cost on the host: their parts, without the parts' launches."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.unit.targets.host_ops import one_op, weight

from gimlet.compiler.frontends import load
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.targets.onnxruntime.features import features, has_kernel_model
from gimlet.targets.onnxruntime.host_model import host_figures


def attention(queries: int, *, past: int = 0, mask: bool = False, flat: bool = False) -> OnnxOp:
    """Six heads of 32 over 40 keys, of which two have keys and values; `past` more are in caches that it gives back."""

    def shape(heads: int, positions: int) -> list[int]:
        return [1, positions, heads * 32] if flat else [1, heads, positions, 32]

    shapes = {"q": shape(6, queries), "k": shape(2, 40), "v": shape(2, 40)}
    shapes |= {"m": [1, 1, queries, 40 + past]} if mask else {}
    shapes |= {"pk": [1, 2, past, 32], "pv": [1, 2, past, 32]} if past else {}
    names = ["q", "k", "v", *(["m"] if mask else [""] if past else []), *(["pk", "pv"] if past else [])]
    results = {"y": shape(6, queries), **({"k2": [1, 2, 40 + past, 32], "v2": [1, 2, 40 + past, 32]} if past else {})}
    settings = {"q_num_heads": 6, "kv_num_heads": 2} if flat else {}
    graph = helper.make_graph(
        [helper.make_node("Attention", names, list(results), **settings)],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in shapes.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in results.items()],
    )
    return one_op(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10))


def test_attention_is_two_products_and_a_softmax_of_each_head():
    found = features(attention(16), {})
    assert found["gemm.flops"] == 2 * 6 * 16 * (48 * 32 + 32 * 40)
    assert found["softmax.values"] == 6 * 16 * 40
    assert "attention.masked.values" not in found
    assert features(attention(16, mask=True), {})["attention.masked.values"] == 6 * 16 * 40


def test_attention_of_one_query_reads_all_keys_and_values_of_each_head():
    found = features(attention(1), {})
    assert found["attention.row.values"] == 6 * 40 * 64
    assert "gemm.flops" not in found
    assert "copy.bytes" not in features(attention(1), {})
    assert features(attention(1, past=24), {})["copy.bytes"] == 2 * 2 * 4 * (2 * 64 * 32)


def test_heads_side_by_side_are_taken_apart_first():
    assert features(attention(16, flat=True), {})["copy.bytes"] == 2 * 4 * 32 * (2 * 6 * 16 + 2 * 2 * 40)


def packed_product(rows: int, bits: int, level: int) -> OnnxOp:
    weights = [
        numpy_helper.from_array(np.zeros((48, 2, 4 * bits), np.uint8), "w"),
        numpy_helper.from_array(np.ones((48, 2), np.float32), "s"),
    ]
    settings = {"K": 64, "N": 48, "bits": bits, "block_size": 32, "accuracy_level": level}
    graph = helper.make_graph(
        [helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **settings)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, rows, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, rows, 48])],
        weights,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return one_op(helper.make_model(graph, opset_imports=opsets, ir_version=10))


@pytest.mark.parametrize(
    ("rows", "bits", "level", "name", "product_too"),
    [
        (1, 4, 0, "packed.4.row.values", False),
        (8, 4, 0, "packed.4.unpacked.values", True),
        (1, 8, 0, "packed.8.unpacked.values", True),
        (8, 8, 4, "packed.8.integer.values", False),
    ],
)
def test_how_packed_weights_are_computed_with(rows: int, bits: int, level: int, name: str, product_too: bool):
    found = features(packed_product(rows, bits, level), {})
    assert found[name] == 64 * 48
    assert ("gemm.flops" in found) == product_too
    assert found.keys() <= host_figures().seconds.keys()


def experts(tokens: int) -> OnnxOp:
    graph = helper.make_graph(
        [helper.make_node("MoE", ["x", "r", "w1", "", "w2"], ["y"], domain="com.microsoft", k=2)],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in (("x", [tokens, 32]), ("r", [tokens, 8]))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [tokens, 32])],
        [weight("w1", 8, 64, 32), weight("w2", 8, 32, 64)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return one_op(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def test_experts_that_no_token_reaches_are_not_read():
    one, many = features(experts(1), {}), features(experts(4000), {})
    assert one["expert.calls"] == pytest.approx(2)
    assert many["expert.calls"] == pytest.approx(8)
    assert one["expert.read.weights"] == pytest.approx(2 * 4 * (2 * 64 * 32))
    assert many["expert.flops"] == pytest.approx(2 * 4000 * 2 * (2 * 64 * 32))
    assert "weights" not in one


@pytest.mark.parametrize("by_heads", [True, False])
def test_attention_is_its_products_and_its_softmax_without_their_launches(by_heads: bool):
    batch, heads, length, size = 2, 4, 48, 32
    shape = [batch, heads, length, size] if by_heads else [batch, length, heads * size]
    counts = {} if by_heads else {"q_num_heads": heads, "kv_num_heads": heads}
    graph = helper.make_graph(
        [helper.make_node("Attention", ["q", "k", "v"], ["y"], **counts)],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "qkv"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    module = load(model, ctx=GimletContext())
    op = next(op for op in module.walk() if isinstance(op, OnnxOp))
    assert has_kernel_model(op)
    found = features(op, {})
    products = 2 * 2 * batch * heads * length * length * size
    assert (found["gemm.flops"], found["gemm.calls"], found["call"]) == (products, 2 * batch * heads, 1)
    assert found["softmax.values"] == batch * heads * length * length
