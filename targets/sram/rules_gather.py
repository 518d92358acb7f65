"""Rules for operators that pick elements by computed positions: the gather instruction of the DMA engines."""

from __future__ import annotations

import numpy as np
from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import ONE, ZERO, Expr
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.convolution import whole_place
from gimlet.targets.sram.expression import Argument, emit_elementwise
from gimlet.targets.sram.lowering import Lowering, Rule, shape_of, vector_type
from gimlet.targets.sram.products import product_of
from gimlet.targets.sram.rules_elementwise import present, result
from gimlet.targets.sram.rules_shape import reshaped
from gimlet.targets.sram.views import Counter, Shape, View


def _gather(lowering: Lowering, op: OnnxOp) -> None:
    data, indices, value = present(op, 0), present(op, 1), result(op)
    axis = int(op.attr("axis", 0)) % len(shape_of(data))
    known = lowering.known(indices)
    if known is not None and _evenly_spaced(known):
        lowering.define(value, _picked(lowering, data, axis, known, shape_of(value)))
        return
    source = lowering.view(data)
    size = source.shape[axis]
    if size == ONE:
        count = shape_of(indices)
        view = source.squeeze(axis)
        for position, length in enumerate(count):
            view = view.unsqueeze(axis + position).expand(
                (*view.shape[: axis + position], length, *view.shape[axis + position :])
            )
        lowering.define(value, view)
        return
    positions = in_memory(lowering, wrapped(lowering, lowering.argument(indices), indices, size), indices)
    found = _gathered(lowering, source, axis, _flat(lowering, positions))
    lowering.define(value, reshaped(lowering, found, shape_of(value)))


def _evenly_spaced(indices: np.ndarray) -> bool:
    steps = np.diff(indices.reshape(-1).astype(np.int64))
    return indices.size > 0 and bool(indices.size < 2 or (steps == steps[0]).all()) and not (steps == 0).any()


def _picked(lowering: Lowering, data: SSAValue, axis: int, indices: np.ndarray, shape: Shape) -> View:
    """A Gather of constant, evenly spaced indices, which is a slice."""
    view = lowering.view(data)
    flat = [int(each) for each in indices.reshape(-1)]
    first = Expr.const(flat[0]) if flat[0] >= 0 else view.shape[axis] + flat[0]
    step = flat[1] - flat[0] if len(flat) > 1 else 1
    view = view.slice(axis, first, Expr.const(len(flat)), step)
    if indices.ndim != 1:
        view = view.squeeze(axis) if not indices.ndim else reshaped(lowering, view, shape)
    return view


def wrapped(
    lowering: Lowering, argument: Argument, indices: SSAValue, size: Expr, shape: Shape | None = None
) -> Argument:
    """Indices with negative ones counted from the end."""
    if isinstance(argument, int):
        return argument if argument >= 0 else size + argument
    shape, dtype = shape_of(indices) if shape is None else shape, vector_type(indices)
    negative = lowering.node("less", (argument, 0), shape, "i1")
    end = lowering.node("add", (argument, size), shape, dtype)
    return lowering.node("select", (negative, end, argument), shape, dtype)


def in_memory(lowering: Lowering, argument: Argument, indices: SSAValue, shape: Shape | None = None) -> View:
    """Indices that are computed now, of the type of `indices` and by default of its shape."""
    target = lowering.builder.temporary(vector_type(indices), shape_of(indices) if shape is None else shape)
    emit_elementwise(lowering.builder, argument, target, "indices")
    return target


def _flat(lowering: Lowering, view: View) -> View:
    return reshaped(lowering, view, (product_of(view.shape),))


def _gathered(lowering: Lowering, source: View, axis: int, indices: View) -> View:
    """The kernel of a Gather: rows of the source at positions that a tile of indices gives."""
    walk = source.walks[axis]
    if walk is None:
        raise RefusedError("it gathers along a dimension that repeats one element")
    if indices.walks[0] is None:
        indices = indices.rigid()
    builder = lowering.builder
    shape = (*source.shape[:axis], indices.shape[0], *source.shape[axis + 1 :])
    target = builder.temporary(source.dtype, shape)
    with builder.kernel("gather") as kernel:
        best = [builder.bounds.best(size) for size in shape]
        steps = [1] * len(shape)
        steps[axis] = min(best[axis], 64)
        room = 4096 // steps[axis]
        for dim in reversed([dim for dim in range(len(shape)) if dim != axis]):
            steps[dim] = max(1, min(best[dim], room))
            room = max(1, room // steps[dim])
        ranges = [kernel.range(size, step) for size, step in zip(shape, steps, strict=True)]
        place = whole_place(shape, ranges)
        at = ranges[axis]
        positions = kernel.load(indices, [at.start], [[Counter(0, at.size)]], [at.step], repeated=True)
        begin = [ZERO if dim == axis else each for dim, each in enumerate(place.begin)]
        access = source.access(begin, place.tile, repeated=True)
        tile = kernel.gather(access, source.dtype, place.limits, positions, axis)
        kernel.store(target, place.begin, place.tile, tile)
    return target


def _gather_elements(lowering: Lowering, op: OnnxOp) -> None:
    """One row along the axis at a time: the same gather, whose other positions are those of the indices."""
    data, indices, value = present(op, 0), present(op, 1), result(op)
    shape = shape_of(value)
    axis = int(op.attr("axis", 0)) % len(shape)
    builder, source = lowering.builder, lowering.view(data)
    size = source.shape[axis]
    source = source.rigid() if source.is_whole else lowering.copied(source).rigid()
    argument = wrapped(lowering, lowering.argument(indices), indices, size)
    positions = in_memory(lowering, argument, indices).rigid()
    target = builder.temporary(source.dtype, shape)
    with builder.kernel("gather_elements") as kernel:
        step = min(lowering.bounds.best(shape[axis]), 64)
        ranges = [kernel.range(each, step if dim == axis else 1) for dim, each in enumerate(shape)]
        tile = [[Counter(axis, ranges[axis].size)]]
        begin = [each.start for each in ranges]
        at = kernel.load(positions, begin, tile, [step], repeated=True)
        rows = [Expr.const(0) if dim == axis else each for dim, each in enumerate(begin)]
        found = kernel.gather(source.access(rows, tile, repeated=True), source.dtype, [step], at, 0)
        kernel.store(target.rigid(), begin, tile, found)
    lowering.define(value, target)


def _gather_nd(lowering: Lowering, op: OnnxOp) -> None:
    """Coordinates become positions in the data with its first dimensions joined."""
    if op.attr("batch_dims", 0):
        raise RefusedError("GatherND with batch dimensions is not generated")
    data, indices, value = present(op, 0), present(op, 1), result(op)
    where, sizes = shape_of(indices), shape_of(data)
    if not where[-1].is_constant:
        raise RefusedError("how many coordinates GatherND takes is not known")
    count = where[-1].as_int()
    positions = coordinates_joined(lowering, indices, sizes, count)
    joined = reshaped(lowering, lowering.view(data), (product_of(sizes[:count]), *sizes[count:]))
    lowering.define(value, reshaped(lowering, _gathered(lowering, joined, 0, positions), shape_of(value)))


def coordinates_joined(lowering: Lowering, indices: SSAValue, sizes: Shape, count: int) -> View:
    """Positions in the first `count` dimensions as one, for each row of `count` indices, in one dimension."""
    where = shape_of(indices)
    coordinates = lowering.view(indices)
    outer = where[:-1]
    total: Argument = 0
    for axis in range(count):
        seen = coordinates.slice(len(where) - 1, axis, ONE).squeeze(len(where) - 1)
        position = wrapped(lowering, seen, indices, sizes[axis], outer)
        stride = product_of(sizes[axis + 1 : count])
        scaled = position if stride == ONE else lowering.node("mul", (position, stride), outer, vector_type(indices))
        total = scaled if axis == 0 else lowering.node("add", (total, scaled), outer, vector_type(indices))
    return _flat(lowering, in_memory(lowering, total, indices, outer))


RULES: dict[str, Rule] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
}
