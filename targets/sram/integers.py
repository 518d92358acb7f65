"""Products of 8-bit integers as the array makes them: signed operands, and what their zero points take off.

The array multiplies i8. An unsigned integer is 128 less there, and so is its zero point. With zero points za and zb

    Σ (a − za)(b − zb) = Σ ab − zb · Σ a − za · Σ (b − zb)

A zero point that is zero costs nothing, that of `a` a number for each column (a constant, where the weights and za are
known), that of `b` the sum of each row. All of it is in i32, exact, and fused behind the product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import ONE
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.constants import Array, Constant
from gimlet.targets.sram.expression import Argument
from gimlet.targets.sram.lowering import Lowering, element_type, shape_of
from gimlet.targets.sram.products import MatrixProduct, WeightMatrix, broadcast, multiply
from gimlet.targets.sram.quantized import INTEGER_PRODUCTS
from gimlet.targets.sram.rules_reduce import reduced
from gimlet.targets.sram.views import Shape, View

_SIGN = 128
Placed = Callable[[View], View]
"""How a vector of one number a row, column or channel lies beside the result."""


@dataclass(frozen=True)
class Operand:
    """8-bit integers, and the zero point that they are counted from (None: zero)."""

    value: SSAValue
    zero: SSAValue | None = None

    @property
    def offset(self) -> int:
        """What is taken off to make them signed. RefusedError for other than 8-bit integers."""
        dtype = element_type(self.value)
        if dtype not in ("i8", "ui8"):
            raise RefusedError(f"a product of {dtype} as integers is not generated")
        return _SIGN if dtype == "ui8" else 0


def check_machine(lowering: Lowering, op: OnnxOp) -> None:
    """RefusedError where the array does not multiply 8-bit integers."""
    if "i8" not in lowering.builder.machine.row_cycles:
        raise RefusedError(f"{op.op_type} multiplies 8-bit integers, the matrix unit does not")


def signed(lowering: Lowering, operand: Operand) -> View | Constant:
    """The integers of an operand as i8."""
    offset, found = operand.offset, lowering.get(operand.value)
    if isinstance(found, Constant):
        if not offset:
            return found
        shifted = found.derived("signed", found.shape, lambda array: array.astype(np.int16) - _SIGN)
        return replace(shifted, dtype="i8")
    if not offset:
        return lowering.view(operand.value)
    if operand.value not in lowering.signed:
        shape = shape_of(operand.value)
        lowering.signed[operand.value] = lowering.computed(_as_signed(lowering, found, shape), shape, "i8")
    return lowering.signed[operand.value]


def _as_signed(lowering: Lowering, argument: Argument, shape: Shape) -> Argument:
    wide = lowering.node("copy", (argument,), shape, "i32")
    return lowering.node("copy", (lowering.node("sub", (wide, _SIGN), shape, "i32"),), shape, "i8")


def define_integers(lowering: Lowering, value: SSAValue, found: Argument) -> None:
    """Says what a result of 8-bit integers is: signed in memory, where several read it and products are among those."""
    readers = lowering.readers.get(value, ())
    several = len(readers) + (value in lowering.results) > 1
    if element_type(value) != "ui8" or not several or not _is_multiplied(lowering, value):
        lowering.define(value, found)
        return
    shape = shape_of(value)
    view = lowering.signed[value] = lowering.computed(_as_signed(lowering, found, shape), shape, "i8")
    wide = lowering.node("copy", (view,), shape, "i32")
    lowering.values[value] = lowering.node(
        "copy", (lowering.node("add", (wide, _SIGN), shape, "i32"),), shape, element_type(value)
    )


def _is_multiplied(lowering: Lowering, value: SSAValue) -> bool:
    """Whether a product of integers reads a value, or what is dequantized from it."""
    for reader in lowering.readers.get(value, ()):
        if not isinstance(reader, OnnxOp) or reader.domain:
            continue
        if reader.op_type in INTEGER_PRODUCTS:
            operands = [reader.inputs[index] for index in INTEGER_PRODUCTS[reader.op_type]]
            if value in operands:
                return True
        elif reader.op_type == "DequantizeLinear" and reader.inputs[0] is value:
            return only_multiplied(lowering, reader.results[0])
    return False


def only_multiplied(lowering: Lowering, value: SSAValue) -> bool:
    """Whether all that reads a dequantized value are products that take the integers in its place."""
    readers = lowering.readers.get(value, ())
    if value in lowering.results or not readers:
        return False
    return all(
        isinstance(reader, OnnxOp)
        and lowering.product_types.get(reader) == "i8"
        and value in reader.inputs[:2]
        and value not in reader.inputs[2:]
        for reader in readers
    )


def zero_point(lowering: Lowering, operand: Operand, placed: Placed) -> Argument:
    """The zero point in the count of the signed integers: a number where it is known and one, else i32."""
    if operand.zero is None:
        return -operand.offset
    known = lowering.known(operand.zero)
    if known is not None and known.size and (known == known.reshape(-1)[0]).all():
        return int(known.reshape(-1)[0]) - operand.offset
    view = lowering.view(operand.zero)
    view = placed(view) if len(view.shape) == 1 and view.shape != (ONE,) else view
    wide = lowering.node("copy", (view,), view.shape, "i32")
    return lowering.node("sub", (wide, operand.offset), view.shape, "i32") if operand.offset else wide


def product_of_integers(
    lowering: Lowering, op: OnnxOp, left: Operand, right: Operand, turned: bool = False
) -> tuple[Argument, Shape]:
    """A matrix product of integers without their zero points, as numpy.matmul defines it, in i32; and its shape.

    Vectors are matrices of one row or column. With `turned` the right-hand side is transposed first.
    """
    check_machine(lowering, op)
    lhs = _matrix(_in_memory(lowering, signed(lowering, left)), row=True)
    weight = signed(lowering, right)
    za = zero_point(lowering, left, lambda view: view.unsqueeze(1))
    zb = zero_point(lowering, right, as_it_is)
    if isinstance(weight, Constant) and len(weight.shape) == 2 and 0 not in weight.shape:
        matrix = WeightMatrix(lowering.weights, weight, "i8", turned)
        product = multiply(lowering, op, lhs, matrix, lhs.shape[:-2])
        found = _without_rows(lowering, product, lhs, zb)
        if za == 0:
            return found, product.shape
        columns = constant_sums(lowering, weight, right, (1 if turned else 0,), 0 if turned else 1)
        return less(lowering, found, columns, za, product.shape, _turned if turned else as_it_is), product.shape
    rhs = _matrix(_in_memory(lowering, weight), row=False)
    rhs = rhs.transpose((1, 0)) if turned else rhs
    product = multiply(lowering, op, lhs, rhs, broadcast(lhs.shape[:-2], rhs.shape[:-2]))
    found, shape = _without_rows(lowering, product, lhs, zb), product.shape
    if za == 0:
        return found, shape
    found = less(lowering, found, _sums(lowering, rhs, len(rhs.shape) - 2), za, shape)
    if zb == 0:
        return found, shape
    if isinstance(za, int) and isinstance(zb, int):
        both: Argument = rhs.shape[-2] * (za * zb)
    else:
        both = lowering.node("mul", (lowering.node("mul", (za, zb), shape, "i32"), rhs.shape[-2]), shape, "i32")
    return lowering.node("add", (found, both), shape, "i32"), shape


def _without_rows(lowering: Lowering, product: MatrixProduct, lhs: View, zb: Argument) -> Argument:
    """A product less the sums of its rows times the zero point of its columns."""
    if zb == 0:
        return product
    return less(lowering, product, _sums(lowering, lhs, len(lhs.shape) - 1), zb, product.shape)


def _turned(view: View) -> View:
    return view.transpose((1, 0))


def as_it_is(view: View) -> View:
    """A vector of columns, or what has all dimensions."""
    return view


def less(
    lowering: Lowering,
    found: Argument,
    sums: View | Constant,
    zero: Argument,
    shape: Shape,
    placed: Placed = as_it_is,
) -> Argument:
    """`found` without a zero point times sums, which is one constant where both are known."""
    if isinstance(sums, Constant) and isinstance(zero, int):
        times = sums.derived(
            f"times {zero}", sums.shape, lambda array: (array.astype(np.int64) * zero).astype(np.int32)
        )
        return lowering.node("sub", (found, placed(lowering.weights.view(times, "i32"))), shape, "i32")
    view = placed(lowering.weights.view(sums, "i32") if isinstance(sums, Constant) else sums)
    return lowering.node("sub", (found, lowering.node("mul", (view, zero), shape, "i32")), shape, "i32")


def constant_sums(
    lowering: Lowering, weight: Constant, operand: Operand, axes: Sequence[int], outputs: int
) -> Constant:
    """The sums of constant integers less their zero points over some dimensions, which keep size 1.

    A vector of zero points is along dimension `outputs`. RefusedError where the zero point is computed.
    """
    rank = len(weight.shape)
    zero = None if operand.zero is None else lowering.get(operand.zero)
    if zero is not None and not isinstance(zero, Constant):
        raise RefusedError("the zero point of constant integers is computed")
    offset = operand.offset

    def sums(array: Array) -> Array:
        points = np.asarray(-offset if zero is None else zero.read().astype(np.int64) - offset)
        if points.size > 1:
            points = points.reshape([-1 if axis == outputs % rank else 1 for axis in range(rank)])
        return (array.astype(np.int64) - points.reshape(points.shape or (1,) * rank)).sum(tuple(axes), keepdims=True)

    kept = tuple(1 if axis in axes else size for axis, size in enumerate(weight.shape))
    key = f"sums/{list(axes)}/{outputs}/{offset}/{'' if zero is None else zero.key}"
    return replace(weight.derived(key, kept, sums), dtype="i32")


def _sums(lowering: Lowering, view: View, axis: int) -> View:
    """The sums of integers in memory over a dimension, which keeps size 1; made once."""
    key = view.transpose([each for each in range(len(view.shape)) if each != axis] + [axis])
    if key not in lowering.row_sums:
        wide = lowering.computed(lowering.node("copy", (view,), view.shape, "i32"), view.shape, "i32")
        lowering.row_sums[key] = reduced(lowering, wide, [axis], "sum")
    return lowering.row_sums[key]


def _in_memory(lowering: Lowering, found: View | Constant) -> View:
    return lowering.weights.view(found, "i8") if isinstance(found, Constant) else found


def _matrix(view: View, row: bool) -> View:
    return view if len(view.shape) > 1 else view.unsqueeze(0 if row else 1)
