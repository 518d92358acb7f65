"""Folded half precision: computed in float32, rounded once. The sums here stop growing where each step is rounded."""

import numpy as np
import pytest
from ml_dtypes import bfloat16
from tests.unit.dialects.onnx_cases import context, parse

from gimlet.dialects.onnx import OnnxOp, constant_value
from gimlet.passes.fold_constants import FoldConstantsPass

COUNT = 8192
DTYPES = {"f16": np.dtype(np.float16), "bf16": np.dtype(bfloat16)}


def folded(body: str, array: np.ndarray, element: str, result: str, opset: int = 23) -> np.ndarray:
    """The constant that operations on %a, an array of half precision, are folded into."""
    ctx = context()
    key = ctx.weights.add("a", array.astype(DTYPES[element]))
    shape = "x".join(map(str, array.shape))
    module = parse(
        f'builtin.module attributes {{onnx.opsets = {{"" = {opset} : i64}}}} {{ func.func @main() -> {result} {{'
        f'%a = onnx.initializer {{key = "{key}"}} : tensor<{shape}x{element}>'
        f"{body} func.return %y : {result} }} }}".replace("HALF", element),
        ctx,
    )
    module.verify()
    FoldConstantsPass().apply(ctx, module)
    module.verify()
    (constant,) = [op for op in module.walk() if isinstance(op, OnnxOp)]
    key = getattr(constant, "key", None)
    return ctx.weights[key].array() if key is not None else constant_value(constant.results[0])


AXES = "%axes = onnx.initializer {value = dense<0> : tensor<1xi64>} : tensor<1xi64>"
ONES = np.ones((COUNT, 2))


@pytest.mark.parametrize("element", DTYPES)
@pytest.mark.parametrize(
    ("operator", "expected"),
    [("ReduceSum v13", COUNT), ("ReduceMean v18", 1), ("ReduceL2 v18", COUNT**0.5), ("ReduceL1 v18", COUNT)],
)
def test_a_reduction(operator: str, expected: float, element: str):
    body = AXES + f"%y = onnx.{operator}(%a, %axes) {{keepdims = 0}} : (tensor<{COUNT}x2xHALF>, tensor<1xi64>)"
    found = folded(body + " -> tensor<2xHALF>", ONES, element, f"tensor<2x{element}>")
    assert found.dtype == DTYPES[element]
    assert np.array_equal(found, np.full(2, expected).astype(DTYPES[element]))


@pytest.mark.parametrize("element", DTYPES)
def test_a_softmax(element: str):
    type_ = f"tensor<{COUNT}x2x{element}>"
    found = folded(f"%y = onnx.Softmax v13(%a) {{axis = 0}} : ({type_}) -> {type_}", ONES, element, type_)
    assert np.array_equal(found, np.full((COUNT, 2), 1 / COUNT).astype(DTYPES[element]))


@pytest.mark.parametrize("element", DTYPES)
def test_each_operation_of_a_chain_rounds(element: str):
    one = "%one = onnx.initializer {value = dense<1.0> : tensor<HALF>} : tensor<HALF>"
    body = one + (
        "%s = onnx.Add v14(%a, %one) : (tensor<2xHALF>, tensor<HALF>) -> tensor<2xHALF>"
        "%y = onnx.Sub v14(%s, %one) : (tensor<2xHALF>, tensor<HALF>) -> tensor<2xHALF>"
    )
    assert folded(body, np.full(2, 1e-4), element, f"tensor<2x{element}>").tolist() == [0, 0]


def test_results_that_are_no_half_keep_their_type():
    body = "%y = onnx.ArgMax v13(%a) {keepdims = 0} : (tensor<3x1xf16>) -> tensor<1xi64>"
    found = folded(body, np.array([[1], [3], [2]]), "f16", "tensor<1xi64>")
    assert (found.dtype, found.tolist()) == (np.int64, [1])


def test_bits_stay_bits():
    body = "%y = onnx.BitCast v26(%a) {to = 5} : (tensor<2xf16>) -> tensor<2xi16>"
    found = folded(body, np.ones(2), "f16", "tensor<2xi16>", opset=26)
    assert found.tolist() == [0x3C00, 0x3C00]
