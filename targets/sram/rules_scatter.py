"""The rule of ScatterND: every position of the result asks which update it is, and takes that or what was there.

The machine stores where the program says, not where data says, so what is scattered is gathered instead: first a table
says for each position which update comes last for it (or none), then the rows of the updates are gathered by it. The
table takes one comparison of all positions for each update, which is little for a step of few tokens.
"""

from __future__ import annotations

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import ONE, ZERO, Expr
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.convolution import whole_place
from gimlet.targets.sram.lowering import Lowering, Rule, shape_of, vector_type
from gimlet.targets.sram.products import product_of
from gimlet.targets.sram.rules_elementwise import present, result
from gimlet.targets.sram.rules_gather import coordinates_joined
from gimlet.targets.sram.rules_shape import reshaped
from gimlet.targets.sram.views import Counter, View

_TILE = 4096
_POSITIONS = 64


def _scatter_nd(lowering: Lowering, op: OnnxOp) -> None:
    if op.attr("reduction", "none") != "none":
        raise RefusedError(f"ScatterND that puts elements together by {op.attr('reduction')} is not generated")
    data, indices, updates, value = present(op, 0), present(op, 1), present(op, 2), result(op)
    where, sizes = shape_of(indices), shape_of(data)
    if not where[-1].is_constant:
        raise RefusedError("how many coordinates ScatterND takes is not known")
    count = where[-1].as_int()
    rows, rest, new = product_of(sizes[:count]), sizes[count:], product_of(where[:-1])
    positions = coordinates_joined(lowering, indices, sizes, count)
    source = reshaped(lowering, lowering.view(data), (rows, *rest))
    update = reshaped(lowering, lowering.view(updates), (new, *rest))
    update = (update if update.is_whole else lowering.copied(update)).rigid()
    _check(lowering, source, positions)
    table = _table(lowering, positions, rows)
    target = lowering.builder.temporary(vector_type(value), (rows, *rest))
    _take(lowering, source, update, table, target)
    lowering.define(value, reshaped(lowering, target, sizes))


def _check(lowering: Lowering, source: View, positions: View) -> None:
    """Reads what the updates will take the place of: the machine faults on a position that is outside."""
    for axis in range(len(source.shape) - 1, 0, -1):
        source = source.slice(axis, 0, ONE).squeeze(axis)
    if source.walks[0] is None:
        return
    with lowering.builder.kernel("scatter_bounds") as kernel:
        each = kernel.range(positions.shape[0], _POSITIONS)
        counters = [[Counter(0, each.size)]]
        at = kernel.load(positions, [each.start], counters, [_POSITIONS], repeated=True)
        kernel.gather(source.access([ZERO], counters, repeated=True), source.dtype, [_POSITIONS], at, 0)


def _table(lowering: Lowering, positions: View, rows: Expr) -> View:
    """For each row the number of the last update whose position it is, or −1."""
    builder = lowering.builder
    table = builder.temporary("i64", (rows,))
    step = max(1, min(_POSITIONS, -(-builder.bounds.best(rows) // builder.cores)))
    with builder.kernel("scatter_table") as kernel:
        row = kernel.range(rows, step)
        own = kernel.iota([row.size], [step], 0, row.start)
        found = kernel.fill("i64", [row.size], [step], -1)
        with kernel.loop(positions.shape[0], 1) as each:
            at = kernel.load(positions, [each.start], [[Counter(0, ONE)]], [1], repeated=True)
            number = kernel.iota([ONE], [1], 0, each.start)
            here = kernel.map("equal", [own, at], "i1")
            kernel.map("select", [here, number, found], "i64", into=found)
        counters = [[Counter(0, row.size)]]
        kernel.store(table, [row.start], counters, kernel.map("copy", [found], "i64", depth=2))
    return table


def _take(lowering: Lowering, source: View, update: View, table: View, target: View) -> None:
    """Rows of the updates where the table has one, and of the source elsewhere."""
    builder, shape = lowering.builder, target.shape
    flags = table
    for axis in range(1, len(shape)):
        flags = flags.unsqueeze(axis)
    flags = flags.expand(shape)
    with builder.kernel("scatter") as kernel:
        steps = [1] * len(shape)
        steps[0] = min(builder.bounds.best(shape[0]), _POSITIONS)
        room = _TILE // steps[0]
        for dim in range(len(shape) - 1, 0, -1):
            steps[dim] = max(1, min(builder.bounds.best(shape[dim]), room))
            room = max(1, room // steps[dim])
        ranges = [kernel.range(size, step) for size, step in zip(shape, steps, strict=True)]
        place = whole_place(shape, ranges)
        at = kernel.load(table, [ranges[0].start], [[Counter(0, ranges[0].size)]], [steps[0]], repeated=True)
        first = kernel.map("max", [at, 0], "i64")
        begin = [ZERO, *place.begin[1:]]
        new = kernel.gather(update.access(begin, place.tile, repeated=True), update.dtype, place.limits, first, 0)
        old = kernel.load(source, place.begin, place.tile, place.limits, repeated=True)
        chosen = kernel.load(flags, place.begin, place.tile, place.limits)
        absent = kernel.map("less", [chosen, 0], "i1")
        kernel.store(target, place.begin, place.tile, kernel.map("select", [absent, old, new], target.dtype, depth=2))


RULES: dict[str, Rule] = {"ScatterND": _scatter_nd}
