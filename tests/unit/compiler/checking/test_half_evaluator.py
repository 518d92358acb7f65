"""The reference in half precision: computed in float32, rounded once an operator. Sums of halves stop growing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ml_dtypes import bfloat16
from onnx import TensorProto, helper, numpy_helper
from tests.unit.compiler.checking.test_reference import saved

from gimlet.compiler.checking.half_evaluator import HalfEvaluator
from gimlet.compiler.checking.reference import OnnxReference

COUNT = 8192
CODES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
DTYPES = {"fp16": np.dtype(np.float16), "bf16": np.dtype(bfloat16)}
Arrays = dict[str, np.ndarray[Any, Any]]


def model(nodes: list[onnx.NodeProto], inputs: Arrays, opset: int = 23, functions: Any = ()) -> onnx.ModelProto:
    """A model of nodes; what the last one makes are its outputs."""
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in nodes[-1].output]
    weights = [numpy_helper.from_array(np.array([0]), "first")]
    graph = helper.make_graph(nodes, "g", values, outputs, weights)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)


def run(node: onnx.NodeProto, inputs: Arrays, opset: int = 23) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(each) for each in HalfEvaluator(model([node], inputs, opset)).run(None, inputs)]


def ones(fmt: str, *shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, DTYPES[fmt])


@pytest.mark.parametrize("fmt", CODES)
@pytest.mark.parametrize(("operator", "expected"), [("ReduceSum", COUNT), ("ReduceMean", 1), ("ReduceL1", COUNT)])
def test_a_reduction(operator: str, expected: float, fmt: str) -> None:
    (y,) = run(helper.make_node(operator, ["x", "first"], ["y"], keepdims=0), {"x": ones(fmt, COUNT, 2)})
    assert y.dtype == DTYPES[fmt]
    assert y.tolist() == [expected, expected]


@pytest.mark.parametrize("fmt", CODES)
def test_operands_and_results_of_several_types(fmt: str) -> None:
    x = np.linspace(-1, 1, COUNT).astype(DTYPES[fmt])[None]
    inputs = {"x": x, "w": ones(fmt, COUNT)}
    y, mean, _ = run(helper.make_node("LayerNormalization", ["x", "w", ""], ["y", "mean", "inverse"]), inputs)
    assert (y.dtype, mean.dtype) == (DTYPES[fmt], np.float32)
    expected = x.astype(np.float64) / x.astype(np.float64).std()
    assert np.abs(y.astype(np.float64) - expected).max() < 2 * float(np.finfo(np.float16).eps) * 8


@pytest.mark.parametrize("fmt", CODES)
def test_what_onnx_defines_by_a_function_is_one_operator(fmt: str) -> None:
    x = np.linspace(-4, 4, 101).astype(DTYPES[fmt])
    (y,) = run(helper.make_node("Swish", ["x"], ["y"]), {"x": x}, opset=24)
    wide = x.astype(np.float32)
    assert y.dtype == DTYPES[fmt]
    assert np.array_equal(y, (wide / (1 + np.exp(-wide))).astype(DTYPES[fmt]))


@pytest.mark.parametrize("fmt", CODES)
def test_each_operator_rounds(fmt: str) -> None:
    nodes = [helper.make_node("Add", ["x", "one"], ["s"]), helper.make_node("Sub", ["s", "one"], ["y"])]
    inputs = {"x": np.full(2, 1e-4, DTYPES[fmt]), "one": ones(fmt, 2)}
    (y,) = HalfEvaluator(model(nodes, inputs)).run(None, inputs)
    assert y.tolist() == [0, 0]


def test_bodies_and_functions_of_the_model_are_several_operators() -> None:
    x = np.full((COUNT, 1), 1, bfloat16)
    sums = helper.make_node("ReduceSum", ["v", "first"], ["s"], keepdims=0)
    body = helper.make_graph([helper.make_node("ReduceSum", ["x", "first"], ["t"], keepdims=0)], "b", [], [
        helper.make_tensor_value_info("t", TensorProto.BFLOAT16, None)
    ])  # fmt: skip
    branch = helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)
    (y,) = HalfEvaluator(model([branch], {"x": x, "yes": np.array(True)})).run(None, {"x": x, "yes": np.array(True)})
    assert y.tolist() == [COUNT]
    back = helper.make_node("Sub", ["s", "one"], ["y"])
    function = helper.make_function(
        "own", "F", ["v", "first", "one"], ["y"], [sums, back], [helper.make_opsetid("", 23)]
    )
    called = helper.make_node("F", ["x", "first", "one"], ["y"], domain="own")
    inputs = {"x": x, "one": np.ones(1, bfloat16)}
    (y,) = HalfEvaluator(model([called], inputs, functions=[function])).run(None, inputs)
    # 8191 has more digits than bfloat16.
    assert y.tolist() == [COUNT]


def test_an_optional_result_without_an_operand_of_its_type() -> None:
    inputs = {name: np.ones((1, 3, 4), np.float16) for name in ("q", "k", "v", "d", "b")}
    inputs["b"] = inputs["b"][..., :1]
    inputs["d"] = inputs["d"][..., :1]
    node = helper.make_node(
        "LinearAttention", ["q", "k", "v", "", "d", "b"], ["y", "state"], q_num_heads=1, kv_num_heads=1
    )
    y, state = run(node, inputs, opset=27)
    assert (y.dtype, state.dtype) == (np.float16, np.float16)


def test_what_reads_bits_or_says_its_type_runs_as_it_is() -> None:
    x = np.array([1.0, -2.5], np.float16)
    (bits,) = run(helper.make_node("BitCast", ["x"], ["y"], to=TensorProto.INT16), {"x": x}, opset=26)
    assert bits.tolist() == x.view(np.int16).tolist()
    (eye,) = run(helper.make_node("EyeLike", ["x"], ["y"]), {"x": np.ones((2, 2), np.float16)})
    assert eye.dtype == np.float16


def test_the_reference_of_a_file_in_half_precision(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", helper.make_node("Softmax", ["x"], ["y"], axis=0), [COUNT], {})
    x = np.ones(COUNT, bfloat16)
    (y,) = OnnxReference(path).run({"x": x})
    assert np.array_equal(y, np.full(COUNT, 1 / COUNT, bfloat16))
