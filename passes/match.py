"""What passes share that recognise several operations as one: producers, scalars, products, and who reads what."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import bf16, f16, f32
from xdsl.ir import Attribute, Operation, OpResult, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.onnx import OnnxOp, constant_value
from gimlet.dialects.onnx.types import element_of

_NUMBERS = "fiuV"
"""numpy's kinds of numbers; V is that of bfloat16 and of the types of fewer than eight bits."""
_TOLERANCE = 1e-5
"""Exporters write √2 and the like with six digits or more."""
_HALF_DIGITS: dict[Attribute, float] = {f16: 2.0**-10, bf16: 2.0**-7}
"""How far a product of two rounded constants is off in the types of half precision."""


def made_by(value: SSAValue | None, *op_types: str) -> OnnxOp | None:
    """The operation of the default domain that makes `value` as its first result, if it is one of `op_types`."""
    if not isinstance(value, OpResult) or not isinstance(value.op, OnnxOp) or value.index:
        return None
    return value.op if value.op.op_type in op_types and not value.op.domain else None


def scalar_of(value: SSAValue | None) -> float | None:
    """The number that a constant of one element holds; None for anything else."""
    array = constant_value(value, None, 1) if value is not None else None
    if array is None or array.size != 1 or array.dtype.kind not in _NUMBERS:
        return None
    return float(array.reshape(()).astype(np.float64))


def is_near(number: float | None, wanted: float, of: SSAValue) -> bool:
    """Whether a constant of the model is `wanted`, up to the digits that exporters write and the type of `of` holds."""
    element = element_of(of.type)
    digits = None if element is None else _HALF_DIGITS.get(element.type)
    return number is not None and math.isclose(number, wanted, rel_tol=digits or _TOLERANCE)


def is_float32(value: SSAValue) -> bool:
    """Whether the value is a float32 tensor: of others the operations apart round more often than the one for all."""
    element = element_of(value.type)
    return element is not None and element.type == f32


def is_float(value: SSAValue) -> bool:
    """Whether the value is a tensor of a floating-point type that fusions know: float32, float16 or bfloat16."""
    element = element_of(value.type)
    return element is not None and element.type in (f32, f16, bf16)


def is_read_once(value: SSAValue) -> bool:
    """Whether one operand of one operation is all that reads the value."""
    return value.has_one_use()


@dataclass
class Product:
    """`constant` times `factors`, divided by `divisors`; `ops` are the operations that multiply and divide."""

    constant: float = 1.0
    factors: list[SSAValue] = field(default_factory=list[SSAValue])
    divisors: list[SSAValue] = field(default_factory=list[SSAValue])
    ops: list[OnnxOp] = field(default_factory=list[OnnxOp])

    def only_factor(self) -> SSAValue | None:
        """The value that is scaled by the constant, if there is nothing else."""
        return self.factors[0] if len(self.factors) == 1 and not self.divisors else None


def product_of(value: SSAValue) -> Product:
    """What `value` is a product of, through Mul, Div and Reciprocal that nothing else reads, in whatever order."""
    product = Product()
    _multiply(value, product, root=True)
    return product


def _multiply(value: SSAValue, product: Product, *, root: bool = False) -> None:
    op = made_by(value, "Mul", "Div", "Reciprocal")
    number = scalar_of(value)
    if number is not None:
        product.constant *= number
    elif op is None or not (root or is_read_once(value)):
        product.factors.append(value)
    elif op.op_type == "Mul":
        product.ops.append(op)
        for operand in op.operands:
            _multiply(operand, product)
    elif op.op_type == "Div" and (divisor := scalar_of(op.operands[1])):
        product.ops.append(op)
        product.constant /= divisor
        _multiply(op.operands[0], product)
    elif op.op_type == "Div":
        product.ops.append(op)
        product.divisors.append(op.operands[1])
        _multiply(op.operands[0], product)
    else:
        product.ops.append(op)
        product.divisors.append(op.operands[0])


def plus_constant(value: SSAValue) -> tuple[OnnxOp, SSAValue, float] | None:
    """The Add that makes `value`, what it adds a number to, and the number."""
    op = made_by(value, "Add")
    if op is None:
        return None
    for index in (0, 1):
        number = scalar_of(op.operands[index])
        if number is not None:
            return op, op.operands[1 - index], number
    return None


def reduced_axes(op: OnnxOp) -> list[int] | None:
    """The axes of a reduction that keeps its dimensions, as an attribute or an input has them; None if not known."""
    if not op.attr("keepdims", 1):
        return None
    given = op.input_at(1)
    if given is None:
        return op.attr("axes")
    array = constant_value(given, None, 16)
    return None if array is None else [int(axis) for axis in np.ravel(array)]


def is_closed(matched: Iterable[Operation], root: Operation) -> bool:
    """Whether nothing outside the matched operations reads a result of any but `root`."""
    inside = set(matched) | {root}
    return all(
        use.operation in inside for op in inside if op is not root for result in op.results for use in result.uses
    )


def replace_group(root: OnnxOp, made: OnnxOp, matched: Iterable[OnnxOp]) -> None:
    """Puts `made` in the place of `root`, under its name, and erases what nobody reads any more."""
    made.location = root.location
    Rewriter.insert_op(made, InsertPoint.before(root))
    made.results[0].name_hint = root.results[0].name_hint
    root.results[0].replace_all_uses_with(made.results[0])
    # A reader stands after what it reads, but the matched operations are in the order in which they were found.
    dead: list[OnnxOp] = list(dict.fromkeys([root, *matched]))
    while erased := [op for op in dead if op.parent is not None and not any(r.first_use for r in op.results)]:
        for op in erased:
            op.detach()
            op.erase()
