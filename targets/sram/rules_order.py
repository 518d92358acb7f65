"""Rules for operators that compare or add up the elements of a row one after the other: TopK, ArgMax, CumSum."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from math import inf

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import ONE, ZERO, Expr
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.convolution import whole_place
from gimlet.targets.sram.lowering import Lowering, Rule, shape_of, vector_type
from gimlet.targets.sram.products import product_of
from gimlet.targets.sram.rules_elementwise import present, result
from gimlet.targets.sram.rules_shape import reshaped
from gimlet.targets.sram.views import Counter, View

_LONGEST_ROW = 16384
_TILE = 4096


def largest(
    lowering: Lowering, rows: View, count: Expr, smallest: bool = False, last: bool = False
) -> tuple[View, View]:
    """The `count` largest (or smallest) of each row of f32 `rows` [rows, length], in order, and where they are.

    Of equal ones the first comes first (or the `last`). Each takes a few passes of the vector unit over the row: the
    largest, where it is, and −∞ in its place. A NaN in a row makes all that is found in it NaN, at position 0.
    """
    length = rows.shape[1]
    longest = lowering.bounds.most(length)
    if longest > _LONGEST_ROW:
        raise RefusedError(f"rows of {longest} elements are longer than the {_LONGEST_ROW} that are ordered in a core")
    builder = lowering.builder
    values = builder.temporary("f32", (rows.shape[0], count))
    indices = builder.temporary("i64", (rows.shape[0], count))
    step = max(1, min(_TILE // longest, -(-builder.bounds.best(rows.shape[0]) // builder.cores)))
    best, worst = ("min", inf) if smallest else ("max", -inf)
    first, nowhere = ("max", -1) if last else ("min", length)
    with builder.kernel("largest") as kernel:
        row = kernel.range(rows.shape[0], step)
        place = whole_place(rows.shape, [row, kernel.range(length, longest)])
        own = kernel.map("copy", [kernel.load(rows, place.begin, place.tile, place.limits, repeated=True)], "f32")
        zeros = kernel.fill("i64", place.sizes, place.limits, 0)
        left = kernel.map("add", [zeros, kernel.iota([ONE, length], [1, longest], 1, ZERO)], "i64")
        with kernel.loop(count, 1) as at:
            found = kernel.reduce(best, own, [1])
            same = kernel.map("equal", [own, found], "i1")
            where = kernel.reduce(first, kernel.map("select", [same, left, nowhere], "i64"), [1])
            taken = kernel.map("equal", [left, where], "i1")
            kernel.map("select", [taken, worst, own], "f32", into=own)
            kernel.map("select", [taken, nowhere, left], "i64", into=left)
            missing = kernel.map("equal", [where, nowhere], "i1")
            tile = [[Counter(0, row.size)], [Counter(1, ONE)]]
            kernel.store(values.rigid(), [row.start, at.start], tile, found)
            where = kernel.map("select", [missing, 0, where], "i64")
            kernel.store(indices.rigid(), [row.start, at.start], tile, where)
    return values, indices


def _as_rows(lowering: Lowering, op: OnnxOp, axis: int) -> tuple[View, list[int]]:
    """The first input as rows along `axis`, and the order of dimensions that brings the axis to the end."""
    source = present(op, 0)
    shape = shape_of(source)
    if vector_type(source) != "f32":
        raise RefusedError(f"{op.op_type} of {vector_type(source)} is not generated")
    order = [*(each for each in range(len(shape)) if each != axis), axis]
    view = lowering.converted(lowering.view(source), "f32").transpose(order)
    rows = product_of([shape[each] for each in order[:-1]])
    return reshaped(lowering, view, (rows, shape[axis])), order


def _back(lowering: Lowering, rows: View, sizes: Sequence[Expr], order: list[int]) -> View:
    wide = reshaped(lowering, rows, tuple(sizes[each] for each in order))
    return wide.transpose([order.index(each) for each in range(len(order))])


def _top_k(lowering: Lowering, op: OnnxOp) -> None:
    sizes = shape_of(op.results[0])
    axis = int(op.attr("axis", -1)) % len(sizes)
    rows, order = _as_rows(lowering, op, axis)
    found = largest(lowering, rows, sizes[axis], smallest=not op.attr("largest", 1))
    for value, view in zip(op.outputs, found, strict=False):
        lowering.define(value, _back(lowering, view, sizes, order))


def _arg(lowering: Lowering, op: OnnxOp) -> None:
    sizes = shape_of(present(op, 0))
    axis = int(op.attr("axis", 0)) % len(sizes)
    rows, order = _as_rows(lowering, op, axis)
    smallest, last = op.op_type == "ArgMin", bool(op.attr("select_last_index", 0))
    _, indices = largest(lowering, rows, ONE, smallest, last)
    kept = [ONE if each == axis else size for each, size in enumerate(sizes)]
    lowering.define(result(op), reshaped(lowering, _back(lowering, indices, kept, order), shape_of(result(op))))


def _cumulative_sum(lowering: Lowering, op: OnnxOp) -> None:
    """A loop along the axis, with the sum so far in a tile."""
    source, value = present(op, 0), result(op)
    known = lowering.known(present(op, 1))
    if known is None:
        raise RefusedError("the axis of CumSum is computed, it must be constant")
    shape, dtype = shape_of(value), vector_type(value)
    axis = int(known.reshape(-1)[0]) % len(shape)
    view = lowering.converted(lowering.view(source), dtype)
    target = lowering.builder.temporary(dtype, shape)
    into = target
    if op.attr("reverse", 0):
        view, into = (each.slice(axis, shape[axis] - 1, shape[axis], -1) for each in (view, target))
    builder, room = lowering.builder, _TILE
    steps = [1] * len(shape)
    for dim in reversed([dim for dim in range(len(shape)) if dim != axis]):
        steps[dim] = max(1, min(builder.bounds.best(shape[dim]), room))
        room = max(1, room // steps[dim])
    with builder.kernel("cumulate") as kernel, ExitStack() as loops:
        ranges = {dim: kernel.range(shape[dim], steps[dim]) for dim in range(len(shape)) if dim != axis}
        sizes = [ONE if dim == axis else ranges[dim].size for dim in range(len(shape))]
        total = kernel.fill(dtype, sizes, steps, 0.0 if dtype == "f32" else 0)
        ranges[axis] = loops.enter_context(kernel.loop(shape[axis], 1))
        place = whole_place(shape, [ranges[dim] for dim in range(len(shape))])
        tile = kernel.load(view, place.begin, place.tile, place.limits, repeated=True)
        if op.attr("exclusive", 0):
            kernel.store(into, place.begin, place.tile, kernel.map("copy", [total], dtype, depth=2))
            kernel.map("add", [total, tile], dtype, into=total)
        else:
            kernel.map("add", [total, tile], dtype, into=total)
            kernel.store(into, place.begin, place.tile, kernel.map("copy", [total], dtype, depth=2))
    lowering.define(value, target)


RULES: dict[str, Rule] = {
    "ArgMax": _arg,
    "ArgMin": _arg,
    "CumSum": _cumulative_sum,
    "TopK": _top_k,
}
