"""Rules for QuantizeLinear and DequantizeLinear: integers in memory, float32 in between.

A constant that is dequantized is a constant, so that weights which a model has as integers are weights of its products.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import ONE, Expr
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.constants import Array, Constant
from gimlet.targets.sram.expression import Argument
from gimlet.targets.sram.integers import define_integers, only_multiplied
from gimlet.targets.sram.lowering import Lowering, Rule, element_type, shape_of, vector_type
from gimlet.targets.sram.rules_elementwise import present, result
from gimlet.targets.sram.rules_shape import reshaped
from gimlet.targets.sram.views import Shape

_LIMITS = {"i8": (-128.0, 127.0), "ui8": (0.0, 255.0), "i16": (-32768.0, 32767.0)}


def _quantize(lowering: Lowering, op: OnnxOp) -> None:
    """round(x / scale) + zero point, kept within the integers of the result."""
    source, value = present(op, 0), result(op)
    shape, dtype = shape_of(value), element_type(value)
    if vector_type(source) != "f32":
        raise RefusedError(f"{op.op_type} of {vector_type(source)} is not generated")
    found, scale = lowering.argument(source), _along(lowering, op, 1)
    if scale != 1.0:
        found = lowering.node("div", (found, scale), shape)
    zero = 0.0 if op.input_at(2) is None else _along(lowering, op, 2)
    define_integers(lowering, value, to_integers(lowering, found, zero, shape, dtype))


def to_integers(lowering: Lowering, found: Argument, zero: Argument, shape: Shape, dtype: str) -> Argument:
    """f32 rounded to nearest even, a zero point added, and kept within the integers of a type."""
    found = lowering.node("round", (found,), shape)
    if zero != 0:
        found = lowering.node("add", (found, zero), shape)
    for function, limit in zip(("max", "min"), _LIMITS[dtype], strict=True):
        found = lowering.node(function, (found, limit), shape)
    return lowering.node("copy", (found,), shape, dtype)


def _dequantize(lowering: Lowering, op: OnnxOp) -> None:
    """(x − zero point) · scale."""
    source, value = present(op, 0), result(op)
    shape, found = shape_of(value), lowering.get(source)
    given = [lowering.get(each) for each in op.inputs[1:] if each is not None]
    constants = [each for each in given if isinstance(each, Constant)]
    if isinstance(found, Constant) and len(constants) == len(given):
        lowering.define(value, _dequantized(op, found, constants))
        return
    argument: Argument = lowering.node("copy", (lowering.argument(source),), shape)
    if op.input_at(2) is not None:
        argument = lowering.node("sub", (argument, _along(lowering, op, 2)), shape)
    found = lowering.node("mul", (argument, _along(lowering, op, 1)), shape)
    if only_multiplied(lowering, value):
        lowering.values[value] = found  # Products read the integers: it is not computed.
    else:
        lowering.define(value, found)


def _dequantized(op: OnnxOp, source: Constant, others: Sequence[Constant]) -> Constant:
    """What a constant is with its scale and zero point, `others`."""
    wide = _wide(op, len(source.shape), tuple(Expr.const(size) for size in others[0].shape))
    sizes = tuple(size.as_int() for size in wide)

    def read() -> Array:
        scale, *zero = (np.asarray(each.read(), np.float32).reshape(sizes) for each in others)
        values = np.asarray(source.read(), np.float32)
        return np.asarray((values - zero[0] if zero else values) * scale, np.float32)

    key = "|".join([source.key, "dequantized", str(sizes), *(each.key for each in others)])
    return Constant(key, "f32", source.shape, read)


def _along(lowering: Lowering, op: OnnxOp, index: int) -> Argument:
    """The scale or zero point as f32, a number or with one dimension that is not 1."""
    value = present(op, index)
    argument = lowering.argument(value)
    if isinstance(argument, int | float):
        return float(argument)
    wide = _wide(op, len(shape_of(result(op))), shape_of(value))
    view = reshaped(lowering, lowering.view(value), wide)
    return lowering.converted(view, "f32")


def _wide(op: OnnxOp, rank: int, shape: Shape) -> Shape:
    """The shape of a scale beside a value of `rank` dimensions: one for all of it, or for each position of an axis."""
    if op.attr("block_size", 0):
        raise RefusedError(f"{op.op_type} of blocks is not generated")
    if all(size == ONE for size in shape):
        return (ONE,) * rank
    if len(shape) != 1:
        raise RefusedError(f"{op.op_type} with a scale of {len(shape)} dimensions is not generated")
    axis = int(op.attr("axis", 1)) % rank
    return tuple(shape[0] if each == axis else ONE for each in range(rank))


RULES: dict[str, Rule] = {
    "DequantizeLinear": _dequantize,
    "QuantizeLinear": _quantize,
}
