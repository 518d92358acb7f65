"""Rules for products of two dequantized operands: the integers are multiplied, and their sums scaled.

Σ sa (a − za) · sb (b − zb) = sa sb · Σ (a − za)(b − zb): the sum is exact, and rounded once.
"""

from __future__ import annotations

from gimlet.dialects.onnx import OnnxOp
from gimlet.targets.sram.expression import Argument
from gimlet.targets.sram.integers import Operand, Placed, as_it_is, product_of_integers
from gimlet.targets.sram.lowering import Lowering, Rule, shape_of
from gimlet.targets.sram.quantized import Dequantized, dequantized_operands
from gimlet.targets.sram.rules_elementwise import result
from gimlet.targets.sram.rules_integer import scaled_by
from gimlet.targets.sram.rules_integer_conv import along_channels, convolution_of_integers
from gimlet.targets.sram.rules_matrix import RULES as FLOATS
from gimlet.targets.sram.rules_matrix import define_biased, define_with_bias
from gimlet.targets.sram.rules_shape import reshaped
from gimlet.targets.sram.views import Shape


def _operands(lowering: Lowering, op: OnnxOp) -> tuple[Dequantized, Dequantized] | None:
    return dequantized_operands(op, lowering.inside) if lowering.product_type(op) == "i8" else None


def _integers(operand: Dequantized) -> Operand:
    return Operand(operand.value, operand.zero)


def _scaled(
    lowering: Lowering, found: Argument, operands: tuple[Dequantized, Dequantized], placed: Placed, shape: Shape
) -> Argument:
    scale = scaled_by(lowering, [(operands[0].scale, as_it_is), (operands[1].scale, placed)])
    return lowering.node("mul", (lowering.node("copy", (found,), shape), scale), shape)


def _product(
    lowering: Lowering, op: OnnxOp, operands: tuple[Dequantized, Dequantized], turned: bool
) -> tuple[Argument, Shape]:
    left, right = operands
    found, shape = product_of_integers(lowering, op, _integers(left), _integers(right), right.turned != turned)
    return _scaled(lowering, found, operands, as_it_is, shape), shape


def _matmul(lowering: Lowering, op: OnnxOp) -> None:
    operands, value = _operands(lowering, op), result(op)
    if operands is None:
        FLOATS["MatMul"](lowering, op)
        return
    found, shape = _product(lowering, op, operands, False)
    if shape != shape_of(value):
        found = reshaped(lowering, lowering.computed(found, shape, "f32"), shape_of(value))
    lowering.define(value, found)


def _gemm(lowering: Lowering, op: OnnxOp) -> None:
    operands = _operands(lowering, op)
    if operands is None:
        FLOATS["Gemm"](lowering, op)
        return
    define_biased(lowering, op, _product(lowering, op, operands, bool(op.attr("transB", 0)))[0])


def _conv(lowering: Lowering, op: OnnxOp) -> None:
    operands, value = _operands(lowering, op), result(op)
    if operands is None:
        FLOATS["Conv"](lowering, op)
        return
    shape = shape_of(value)
    found = convolution_of_integers(lowering, op, _integers(operands[0]), _integers(operands[1]))
    scaled = _scaled(lowering, found, operands, along_channels(len(shape)), shape)
    define_with_bias(lowering, op, scaled, value)


RULES: dict[str, Rule] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
