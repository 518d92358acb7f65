"""What ONNX Runtime computes in 8-bit integers: products and convolutions of integers, and those between Q/DQ pairs.

A product or convolution whose operands DequantizeLinear makes and whose result QuantizeLinear takes becomes one kernel
in integers; a product without the QuantizeLinear does too. So do the light ops in `_LIGHT`, which then move a quarter
of the bytes. The pairs around them are gone.
"""

from __future__ import annotations

from math import prod

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.types import element_of
from gimlet.targets.onnxruntime.amounts import COLUMNS, Features, moves, padded_to
from gimlet.targets.onnxruntime.layout import Sizes, consumers, producer, shape

_PRODUCTS = frozenset({"MatMul", "Gemm"})
_HEAVY = _PRODUCTS | {"Conv"}
_LIGHT = frozenset(
    {"Add", "Mul", "Sigmoid", "LeakyRelu", "AveragePool", "GlobalAveragePool", "Concat", "Softmax", "Where"}
    | {"MaxPool", "Resize", "Transpose", "Gather", "Split", "Squeeze", "Unsqueeze", "Reshape", "Relu"}
)
_INTEGER_OPS = frozenset({"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "DynamicQuantizeMatMul"})


def in_integers(op: OnnxOp) -> bool:
    """Whether an op between Q/DQ pairs is computed on integers."""
    if op.domain or op.op_type not in _HEAVY | _LIGHT:
        return False
    operands = [value for value in op.inputs[:2] if value is not None]
    if op.op_type not in _HEAVY and op.op_type not in ("Add", "Mul", "Concat"):
        operands = operands[:1]
    if not operands or not all(_is_dequantized(value) for value in operands):
        return False
    return op.op_type in _PRODUCTS or _is_quantized_again(op)


def is_absorbed(op: OnnxOp) -> bool:
    """Whether a QuantizeLinear or DequantizeLinear is part of the kernels beside it."""
    if op.op_type == "DequantizeLinear":
        readers = list(consumers(op.results[0]))
        return bool(readers) and all(reader is not None and in_integers(reader) for reader in readers)
    maker = producer(op.inputs[0]) if op.op_type == "QuantizeLinear" and op.inputs else None
    return maker is not None and in_integers(maker) and _is_quantized_again(maker)


def is_integer_product(op: OnnxOp) -> bool:
    """Whether a product or convolution is one of 8-bit integers."""
    return op.op_type in _INTEGER_OPS or (op.op_type in _HEAVY and in_integers(op))


def integer_product(op: OnnxOp, sizes: Sizes) -> Features:
    """The work of a product or convolution of 8-bit integers, a quarter of whose time a float32 one takes or more."""
    left, right = op.input_at(0), op.input_at(3 if op.op_type.startswith("QLinear") else 1)
    a, b, y = shape(left, sizes), shape(right, sizes), shape(op.results[0], sizes)
    if not a or not b or not y:
        return {}
    if "Conv" in op.op_type:
        pixels, inner, group = prod(y[2:]) * y[0], prod(b[1:]), int(op.attr("group", 1))
        if b[1] == 1 and group > 1:
            return {"integer.depthwise.flops": 2.0 * pixels * inner * b[0], **moves("copy", 1.0 * (prod(a) + prod(y)))}
        filters = padded_to(b[0] // group, COLUMNS) * group
        return {
            "integer.flops": 2.0 * pixels * inner * filters,
            "integer.windows.values": 1.0 * pixels * inner * group if prod(b[2:]) > 1 else 0.0,
            "integer.calls": float(group * y[0]),
            **moves("copy", 2.0 * (prod(a) + prod(y))),
        }
    columns = padded_to(y[-1], COLUMNS)
    rows = prod(y) // max(y[-1], 1)
    return {
        "integer.flops": 2.0 * rows * columns * a[-1],
        "integer.read.bytes": 1.0 * columns * a[-1],
        **moves("copy", 1.0 * (prod(a) + prod(y))),
    }


def _is_dequantized(value: SSAValue) -> bool:
    maker = producer(value)
    if maker is None or maker.op_type != "DequantizeLinear":
        return False
    element = element_of(maker.inputs[0].type) if maker.inputs and maker.inputs[0] is not None else None
    return element is not None and element.bits == 8


def _is_quantized_again(op: OnnxOp) -> bool:
    readers = list(consumers(op.results[0]))
    return bool(readers) and all(reader is not None and reader.op_type == "QuantizeLinear" for reader in readers)
