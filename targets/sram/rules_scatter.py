"""The rules of ScatterND, ScatterElements and TensorScatter: what is new goes over what was there.

Positions are computed. Where the data is a state that nothing else reads, it is changed where it lies; elsewhere a copy
of it is. With a reduction what is new is added to what was there, or the larger, the smaller or the product stays. An
item has a part of what the positions do not run along, and takes the updates in their order, so that of two for one
position the later one stays.
"""

from __future__ import annotations

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import ONE, ZERO, Expr
from gimlet.runtime.sram.formats import SUMS
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.constants import Constant
from gimlet.targets.sram.convolution import whole_place
from gimlet.targets.sram.expression import Argument, Index, emit_elementwise
from gimlet.targets.sram.lowering import Lowering, Rule, shape_of, vector_type
from gimlet.targets.sram.products import product_of
from gimlet.targets.sram.rules_elementwise import present, result
from gimlet.targets.sram.rules_gather import coordinates_joined, in_memory, wrapped
from gimlet.targets.sram.rules_shape import reshaped
from gimlet.targets.sram.views import Counter, Shape, View

_TILE = 4096
_LEAST = 64
_POSITIONS = 64


def _scatter_nd(lowering: Lowering, op: OnnxOp) -> None:
    indices, updates = present(op, 1), present(op, 2)
    where, sizes = shape_of(indices), shape_of(present(op, 0))
    if not where[-1].is_constant:
        raise RefusedError("how many coordinates ScatterND takes is not known")
    count = where[-1].as_int()
    rest, new = sizes[count:], product_of(where[:-1])
    positions = coordinates_joined(lowering, indices, sizes, count)
    for axis in range(len(rest)):
        positions = positions.unsqueeze(axis + 1)
    update = reshaped(lowering, lowering.view(updates), (new, *rest))
    _put(lowering, op, (product_of(sizes[:count]), *rest), positions.expand((new, *rest)), update, 0)


def _scatter_elements(lowering: Lowering, op: OnnxOp) -> None:
    """Along the dimensions in which positions are the same, whole tiles move; along the others, one element each."""
    indices, updates = present(op, 1), present(op, 2)
    shape, sizes = shape_of(indices), shape_of(present(op, 0))
    axis = int(op.attr("axis", 0)) % len(shape)
    _put(
        lowering,
        op,
        sizes,
        _positions(lowering, indices, axis, sizes[axis]).expand(shape),
        lowering.view(updates),
        axis,
    )


def _tensor_scatter(lowering: Lowering, op: OnnxOp) -> None:
    """Each sequence of a batch gets rows from its own position on; if circular, the first comes behind the last."""
    update, sizes = present(op, 1), shape_of(present(op, 0))
    shape, axis = shape_of(update), int(op.attr("axis", -2)) % len(sizes)
    if axis == 0:
        raise RefusedError("TensorScatter along the batch is not generated")
    positions = _rows_from(lowering, op.input_at(2), (shape[0], shape[axis]), sizes[axis] if _is_circular(op) else ZERO)
    for dim in range(1, len(shape)):
        positions = positions if dim == axis else positions.unsqueeze(dim)
    _put(lowering, op, sizes, positions.expand(shape), lowering.view(update), axis)


def _is_circular(op: OnnxOp) -> bool:
    return str(op.attr("mode", "linear")) == "circular"


def _rows_from(lowering: Lowering, begin: SSAValue | None, shape: Shape, around: Expr) -> View:
    """Positions [batch, rows] from `begin` [batch] on, or from 0, once for all readers; those behind `around` wrap."""
    first: View | int = 0 if begin is None else lowering.view(begin).unsqueeze(1).expand(shape)
    if isinstance(first, View) and (first, around) in lowering.positions:
        return lowering.positions[first, around]
    row: Argument = lowering.node("add", (Index(0), first), shape, "i64")
    if around != ZERO:
        row = lowering.node("mod", (row, around), shape, "i64")
    found = lowering.builder.temporary("i64", shape)
    emit_elementwise(lowering.builder, row, found, "indices")
    if isinstance(first, View):
        lowering.positions[first, around] = found
    return found


def _positions(lowering: Lowering, indices: SSAValue, axis: int, size: Expr) -> View:
    """Indices counted from the front, once for all dimensions but `axis` that repeat them, and for all readers."""
    argument = lowering.argument(indices)
    if not isinstance(argument, View):
        return in_memory(lowering, wrapped(lowering, argument, indices, size), indices)
    for dim, walk in enumerate(argument.walks):
        argument = argument if walk is not None or dim == axis else argument.slice(dim, 0, ONE)
    if (argument, size) not in lowering.positions:
        counted = wrapped(lowering, argument, indices, size, argument.shape)
        lowering.positions[argument, size] = in_memory(lowering, counted, indices, argument.shape)
    return lowering.positions[argument, size]


def _update_function(op: OnnxOp) -> str:
    """How the machine puts elements together; "" where the later one stays."""
    reduction, dtype = str(op.attr("reduction", "none")), vector_type(present(op, 0))
    if reduction != "none" and dtype not in SUMS.values():
        raise RefusedError(f"{op.op_type} that puts {dtype} together by {reduction} is not generated")
    return "" if reduction == "none" else reduction


def _put(lowering: Lowering, op: OnnxOp, seen_as: Shape, positions: View, update: View, axis: int) -> None:
    """Puts `update` at `positions` along a dimension into the data of `op`, which is seen with a shape of that rank."""
    value, data = result(op), present(op, 0)
    # What no kernel has computed yet is read by nothing else (define): it is computed for this alone.
    own = op in lowering.in_place or not isinstance(lowering.get(data), View | Constant)
    target = lowering.view(data) if own else lowering.copied(lowering.view(data))
    if op not in lowering.in_place and not target.is_whole:
        target = lowering.copied(target)
    seen = target.reshape(seen_as, lowering.bounds.optimum)
    if seen is None or not seen.is_whole:
        raise RefusedError(f"{op.op_type} changes a tensor that it does not see whole")
    _scatter(lowering, seen.rigid(), positions, update, axis, _update_function(op))
    lowering.define(value, target)


def _scatter(lowering: Lowering, target: View, positions: View, update: View, axis: int, function: str) -> None:
    builder, shape = lowering.builder, update.shape
    best = [builder.bounds.best(size) for size in shape]
    steps = [1] * len(shape)
    steps[axis] = min(best[axis], _POSITIONS)
    # So many that all cores have some, but no fewer than are worth a transfer.
    everything = 1
    for dim, size in enumerate(best):
        everything *= 1 if dim == axis else size
    room = min(max(_LEAST, -(-everything // builder.cores)), max(1, _TILE // steps[axis]))
    for dim in reversed([dim for dim in range(len(shape)) if dim != axis and positions.walks[dim] is None]):
        steps[dim] = max(1, min(best[dim], room))
        room = max(1, room // steps[dim])
    with builder.kernel("scatter") as kernel:
        ranges = {dim: kernel.range(size, steps[dim]) for dim, size in enumerate(shape) if dim != axis}
        with kernel.loop(shape[axis], steps[axis]) as along:
            place = whole_place(shape, [ranges.get(dim, along) for dim in range(len(shape))])
            at = kernel.load(positions, place.begin, [[Counter(axis, along.size)]], [along.step], repeated=True)
            new = kernel.load(update, place.begin, place.tile, place.limits, repeated=True)
            begin = [ZERO if dim == axis else each for dim, each in enumerate(place.begin)]
            kernel.scatter(target, begin, place.tile, new, at, axis, function)


RULES: dict[str, Rule] = {
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TensorScatter": _tensor_scatter,
}
