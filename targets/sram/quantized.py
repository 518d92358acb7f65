"""Which products of a segment are of 8-bit integers: by their operator, or since both operands are dequantized.

A product of two values that DequantizeLinear makes of 8-bit integers is the product of those integers and of their
scales. It is computed so in every number format: the sums are exact, and the array takes 8-bit integers fastest.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from xdsl.ir import Operation, SSAValue

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.dialects.onnx.types import element_of
from gimlet.runtime.expr import ONE

INTEGER_PRODUCTS: Mapping[str, tuple[int, int]] = {
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
}
"""Operators of ONNX that multiply 8-bit integers, and which of their inputs those are."""

_FLOAT_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_EIGHT_BITS = frozenset({"int8", "uint8"})


@dataclass(frozen=True)
class Dequantized:
    """An operand that is dequantized: 8-bit integers, their scale and zero point; a matrix is `turned` after that."""

    value: SSAValue
    scale: SSAValue
    zero: SSAValue | None
    turned: bool = False


def is_integer_product(op: Operation, inside: Container[Operation]) -> bool:
    """Whether an op multiplies 8-bit integers in a segment with the ops `inside`."""
    if not isinstance(op, OnnxOp) or op.domain:
        return False
    return op.op_type in INTEGER_PRODUCTS or dequantized_operands(op, inside) is not None


def dequantized_operands(op: OnnxOp, inside: Container[Operation]) -> tuple[Dequantized, Dequantized] | None:
    """What both operands of a MatMul, Gemm or Conv are dequantized from, by ops that are `inside`. None for others.

    The first has one scale, the second one or one for each column (output of a convolution): then the scales are
    factors of sums.
    """
    if op.domain or op.op_type not in _FLOAT_PRODUCTS or op.attr("transA", 0):
        return None
    left, right = (_dequantized(op.input_at(index), inside) for index in (0, 1))
    if left is None or right is None or left[0].turned or not _is_one(left[0].scale):
        return None
    operand, axis = right
    dims = dims_of(operand.value)
    if dims is None or (operand.turned and op.op_type == "Conv"):
        return None
    if _is_one(operand.scale):
        return left[0], operand
    outputs_first = op.op_type == "Conv" or operand.turned != bool(op.attr("transB", 0))
    outputs = 0 if outputs_first else len(dims) - 1
    scale = dims_of(operand.scale)
    return (left[0], operand) if scale is not None and len(scale) == 1 and axis % len(dims) == outputs else None


def dequantizers(op: OnnxOp) -> list[OnnxOp]:
    """The ops that dequantize both operands of a product of integers, and turn one; none for other ops."""
    if dequantized_operands(op, EVERYTHING) is None:
        return []
    found: list[OnnxOp] = []
    pending = [op.inputs[0], op.inputs[1]]
    while pending:
        value = pending.pop()
        owner = None if value is None else value.owner
        if not isinstance(owner, OnnxOp) or owner in found:
            continue
        found.append(owner)
        if owner.op_type == "Transpose":
            pending.append(owner.inputs[0])
    return found[::-1]


def _dequantized(value: SSAValue | None, inside: Container[Operation]) -> tuple[Dequantized, int] | None:
    """What a value is dequantized from, and along which axis."""
    op = None if value is None else value.owner
    turned = isinstance(op, OnnxOp) and op.op_type == "Transpose" and not op.domain
    if turned and isinstance(op, OnnxOp):
        source = op.input_at(0)
        dims = None if source is None else dims_of(source)
        if op not in inside or source is None or dims is None or len(dims) != 2:
            return None
        if list(op.attr("perm") or (1, 0)) != [1, 0]:
            return None
        op = source.owner
    if not isinstance(op, OnnxOp) or op.op_type != "DequantizeLinear" or op.domain or op not in inside:
        return None
    integers, scale = op.input_at(0), op.input_at(1)
    element = None if integers is None else element_of(integers.type)
    if integers is None or scale is None or element is None or element.onnx not in _EIGHT_BITS:
        return None
    if op.attr("block_size", 0):
        return None
    return Dequantized(integers, scale, op.input_at(2), turned), int(op.attr("axis", 1))


def _is_one(value: SSAValue) -> bool:
    """Whether a value has one element."""
    dims = dims_of(value)
    return dims is not None and all(dim == ONE for dim in dims)


class _Everything:
    """Contains every op."""

    def __contains__(self, item: object) -> bool:
        return True


EVERYTHING = _Everything()
"""As the ops of a segment: an op and those that dequantize its operands are not parted."""
