"""Casts that a 16-bit segment makes explicit."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.types import element_of
from gimlet.targets.api import Rounding
from gimlet.targets.portable import FolderWeights, segment_model, write_model
from gimlet.targets.tensorrt.precision import insert_casts, stays_in_float32
from gimlet.targets.tensorrt.target import TensorRTTarget

FLOAT = TensorProto.FLOAT


def model_of(nodes, weights=(), shape=(4, 8), opset=17):
    inputs = [helper.make_tensor_value_info("x", FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", FLOAT, None)]
    tensors = [helper.make_tensor(name, FLOAT, a.shape, a.tobytes(), raw=True) for name, a in weights]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def converted(segment, fmt="fp16"):
    count = insert_casts(segment.op.body.block, fmt, segment.ctx)
    segment.op.verify()
    return count


def elements(segment, name):
    return [element_of(op.results[0].type).onnx for op in segment.op.body.walk() if op.name == f"onnx.{name}"]


def test_neighbours_exchange_sixteen_bits(make_segment):
    segment = make_segment(model_of([helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Neg", ["r"], ["y"])]))
    assert converted(segment) == 2
    assert elements(segment, "Cast") == ["float16", "float"]
    assert elements(segment, "Relu") + elements(segment, "Neg") == ["float16", "float16"]


@pytest.mark.parametrize("op_type", ["Softmax", "ReduceSum", "Exp"])
def test_what_loses_too_much_stays_in_float32(make_segment, op_type):
    segment = make_segment(model_of([helper.make_node(op_type, ["x"], ["r"]), helper.make_node("Relu", ["r"], ["y"])]))
    assert converted(segment) == 1
    assert elements(segment, op_type) == ["float"]


def test_a_weight_that_float16_cannot_hold_keeps_its_op_in_float32(make_segment):
    weights = [("w", np.full((8, 400), 1e30, np.float32))]
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], weights)
    assert converted(make_segment(model), "fp16") == 0
    assert converted(make_segment(model), "bf16") == 1


def test_an_operator_without_the_type_stays(make_segment):
    """BatchNormalization has no bfloat16 at opset 9."""
    vectors = [(name, np.ones(8, np.float32)) for name in "sbmv"]
    node = helper.make_node("BatchNormalization", ["x", *"sbmv"], ["y"])
    segment = make_segment(model_of([node], vectors, opset=9))
    assert converted(segment, "bf16") == 0


def test_unused_weights_go(make_segment):
    weights = [("w", np.ones((8, 400), np.float32))]
    segment = make_segment(model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], weights))
    converted(segment)
    assert [op.key for op in segment.op.body.walk() if op.name == "onnx.initializer"] == ["w.fp16"]


def test_the_numbers_are_those_of_sixteen_bits(make_segment, tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 400), np.float32)
    segment = make_segment(model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [("w", weight)]))
    converted(segment)
    write_model(segment_model(segment), FolderWeights(tmp_path), tmp_path / "m.onnx")
    x = rng.standard_normal((4, 8), np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    assert y.dtype == np.float32
    exact = x @ weight
    assert 1e-5 < np.abs(y - exact).max() < 2e-2
    assert onnx.load(tmp_path / "m.onnx").graph.initializer[0].data_type == TensorProto.FLOAT16


@pytest.mark.parametrize(("kind", "stays"), [(TensorProto.BFLOAT16, False), (TensorProto.FLOAT, True)])
def test_what_is_in_sixteen_bits_already_is_not_priced_in_float32(import_onnx, kind, stays):
    infos = [helper.make_tensor_value_info(name, kind, [4, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    module, _ = import_onnx(model)
    op = next(op for op in module.walk() if isinstance(op, OnnxOp))
    assert stays_in_float32(op, "bf16") == stays


def test_an_op_is_rounded_and_priced_as_what_the_casts_make_of_it(make_segment, make_device):
    segment = make_segment(
        model_of([helper.make_node("Gelu", ["x"], ["a"]), helper.make_node("Softmax", ["a"], ["y"])], opset=22)
    )
    target, device = TensorRTTarget(), make_device()
    by_type = {op.op_type: op for op in segment.op.body.block.ops if isinstance(op, OnnxOp)}
    gelu, softmax = by_type["Gelu"], by_type["Softmax"]
    assert target.rounding(gelu, device, "fp16", segment.ctx) == Rounding(("fp16",), "fp16")
    assert target.rounding(gelu, device, "fp32", segment.ctx) is None
    assert target.rounding(softmax, device, "fp16", segment.ctx) is None
    assert target.op_cost(softmax, device, "fp16", {}) == target.op_cost(softmax, device, "fp32", {})
    assert target.cast_s_per_byte(device, "fp16") > target.cast_s_per_byte(device, "fp32") == 0.0
