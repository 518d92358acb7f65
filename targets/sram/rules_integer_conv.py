"""Rules for convolutions of 8-bit integers. Outside of the input there is its zero point, which counts as zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import Expr
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.constants import Array, Constant
from gimlet.targets.sram.convolution import Convolution, Geometry, geometry_of, padded_view
from gimlet.targets.sram.depthwise import Depthwise
from gimlet.targets.sram.expression import Argument, Product
from gimlet.targets.sram.integers import (
    Operand,
    Placed,
    check_machine,
    constant_sums,
    define_integers,
    less,
    signed,
    zero_point,
)
from gimlet.targets.sram.lowering import Lowering, Rule, shape_of
from gimlet.targets.sram.rules_elementwise import present, result
from gimlet.targets.sram.rules_integer import requantized
from gimlet.targets.sram.rules_matrix import MOST_OUTPUTS_PER_GROUP, channel_vector, repeated_channels
from gimlet.targets.sram.rules_shape import reshaped
from gimlet.targets.sram.views import Shape, View


def _conv_integer(lowering: Lowering, op: OnnxOp) -> None:
    left, right = (Operand(present(op, index), op.input_at(index + 2)) for index in (0, 1))
    lowering.define(result(op), convolution_of_integers(lowering, op, left, right))


def _qlinear_conv(lowering: Lowering, op: OnnxOp) -> None:
    value, bias = result(op), op.input_at(8)
    left, right = (Operand(present(op, index), op.input_at(index + 2)) for index in (0, 3))
    shape = shape_of(value)
    found = convolution_of_integers(lowering, op, left, right)
    if bias is not None:
        found = lowering.node("add", (found, channel_vector(lowering, bias, len(shape))), shape, "i32")
    factors = [(present(op, 1), along_channels(len(shape))), (present(op, 4), along_channels(len(shape)))]
    define_integers(lowering, value, requantized(lowering, op, found, factors, (6, 7), shape))


def along_channels(rank: int) -> Placed:
    """How a vector of one number a channel lies beside a value of `rank` dimensions."""

    def placed(view: View) -> View:
        for _ in range(rank - 2):
            view = view.unsqueeze(len(view.shape))
        return view

    return placed


def convolution_of_integers(lowering: Lowering, op: OnnxOp, left: Operand, right: Operand) -> Argument:
    """A convolution of integers without their zero points, in i32."""
    check_machine(lowering, op)
    weight = signed(lowering, right)
    if not isinstance(weight, Constant):
        raise RefusedError(f"the weights of {op.op_type} are computed, they must be constant")
    sizes, shape = shape_of(left.value), shape_of(result(op))
    rank, groups = len(shape), int(op.attr("group", 1))
    geometry = geometry_of(op, weight.shape[2:], sizes[2:], shape[2:])
    source = signed(lowering, left)
    view = lowering.weights.view(source, "i8") if isinstance(source, Constant) else source
    za = zero_point(lowering, left, along_channels(rank))
    fill = float(za) if isinstance(za, int) else 0.0
    if not isinstance(za, int):
        view, geometry = _padded(lowering, op, view, geometry, za, shape)
    outside = constant_sums(lowering, weight, right, range(1, rank), 0)
    if weight.shape[1] == 1 and groups > 1 and weight.shape[0] // groups <= MOST_OUTPUTS_PER_GROUP:
        found: Argument = _depthwise(lowering, view, weight, right, (groups, fill), geometry, shape)
    else:
        found = _product(lowering, op, view, weight, (groups, fill), geometry, shape)
        zb = zero_point(lowering, right, along_channels(rank))
        if zb != 0:
            sums = _window_sums(lowering, view, weight, (groups, fill), geometry, shape)
            found = less(lowering, found, sums, zb, shape)
    return found if za == 0 else less(lowering, found, outside, za, shape, lambda each: each.squeeze(1))


def _product(
    lowering: Lowering,
    op: OnnxOp | None,
    view: View,
    weight: Constant,
    how: tuple[int, float],
    geometry: Geometry,
    shape: Shape,
) -> Product:
    """The product on the array: `how` has the groups, and what there is outside the source."""
    groups, fill = how
    padded = padded_view(lowering, view, range(2, len(shape)))
    given = None if op is None else lowering.plan.convolution(op)
    return Convolution(lowering, padded, False, weight, groups, geometry, "i8", shape, op, given, fill)


def _window_sums(
    lowering: Lowering, view: View, weight: Constant, how: tuple[int, float], geometry: Geometry, shape: Shape
) -> View:
    """The sum of all integers that an output is made of, as a product with ones; for each channel of the result."""
    groups, ones = how[0], (how[0], *weight.shape[1:])

    def read() -> Array:
        return np.ones(ones, np.int8)

    few = (shape[0], Expr.const(groups), *shape[2:])
    product = _product(lowering, None, view, Constant(f"ones/{ones}", "i8", ones, read), how, geometry, few)
    sums = lowering.computed(product, few, "i32")
    if groups == 1:
        return sums
    each = Expr.const(weight.shape[0] // groups)
    return reshaped(lowering, sums.unsqueeze(2).expand((*few[:2], each, *few[2:])), shape)


def _depthwise(
    lowering: Lowering,
    view: View,
    weight: Constant,
    operand: Operand,
    how: tuple[int, float],
    geometry: Geometry,
    shape: Shape,
) -> Product:
    """With one channel a group: on the vector unit in i32, the weights without their zero points."""
    groups, fill = how
    multiplier = weight.shape[0] // groups
    view = repeated_channels(lowering, view, multiplier) if multiplier > 1 else view
    own = constant_sums(lowering, weight, operand, (1,), 0)
    flat = replace(
        own.derived("depthwise", (weight.shape[0], *weight.shape[2:]), lambda array: array[:, 0]), dtype="i32"
    )
    held = lowering.weights.view(flat, "i32").rigid()
    return Depthwise(lowering, padded_view(lowering, view, range(2, len(shape))), held, geometry, shape, fill)


def _padded(
    lowering: Lowering, op: OnnxOp, view: View, geometry: Geometry, zero: Argument, shape: Shape
) -> tuple[View, Geometry]:
    """The source with its zero point, which is computed, around it; and the geometry of what needs no padding."""
    rank = len(geometry.kernel)
    pads = [*(op.attr("pads") or (0,) * (2 * rank))]
    if op.attr("auto_pad", "NOTSET") not in ("NOTSET", "", None, "VALID"):
        raise RefusedError(f"{op.op_type} pads as auto_pad says by a zero point that is computed")
    if not any(pads):
        return view, geometry
    before, after = pads[:rank], pads[rank:]
    wide = tuple(size + low + high for size, low, high in zip(view.shape[2:], before, after, strict=True))
    target = lowering.builder.temporary("i8", (*view.shape[:2], *wide))
    inner = _cut(target, view.shape, before, rank)
    lowering.emit(view, inner, "pad")
    border = lowering.node("copy", (zero,), (), "i8")
    for dim in range(rank):
        strips = ((0, before[dim]), (before[dim] + view.shape[dim + 2], after[dim]))
        for begin, length in strips:
            if length:
                rest = _cut(target, view.shape, before, dim)
                lowering.emit(border, rest.slice(dim + 2, begin, Expr.const(length)), "pad")
    return target, replace(geometry, pads=(Expr.const(0),) * rank)


def _cut(view: View, shape: Shape, before: Sequence[int], dims: int) -> View:
    """The part of a padded view that is inside in the first `dims` spatial dimensions."""
    for dim in range(dims):
        view = view.slice(dim + 2, before[dim], shape[dim + 2])
    return view


RULES: dict[str, Rule] = {
    "ConvInteger": _conv_integer,
    "QLinearConv": _qlinear_conv,
}
