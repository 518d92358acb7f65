"""Rules for operators that move elements: most become views, the rest copies by the DMA engines."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import Operation, SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import ONE, ZERO, Expr
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.channels import are_last, first, last, temporary, temporary_for
from gimlet.targets.sram.constants import Constant
from gimlet.targets.sram.convolution import padded_view, vector_ranges, whole_place
from gimlet.targets.sram.expression import Argument
from gimlet.targets.sram.lowering import Lowering, Rule, shape_of, vector_type
from gimlet.targets.sram.rules_elementwise import present, result
from gimlet.targets.sram.views import Counter, Shape, View

_FAR = 1 << 31


def reshaped(lowering: Lowering, view: View, shape: Shape) -> View:
    """A view with another shape, copied first where no walk gives it."""
    probe = {name: max(2, size) for name, size in lowering.bounds.optimum.items()}
    found = view.reshape(shape, probe)
    if found is None:
        found = lowering.copied(view).reshape(shape, probe)
    if found is None:
        raise RefusedError(f"a copy of {list(map(str, view.shape))} cannot be seen as {list(map(str, shape))}")
    return found


def _reshape(lowering: Lowering, op: OnnxOp) -> None:
    value = result(op)
    lowering.define(value, reshaped(lowering, lowering.view(present(op, 0)), shape_of(value)))


def _identity(lowering: Lowering, op: OnnxOp) -> None:
    lowering.define(result(op), lowering.get(present(op, 0)))


def _transpose(lowering: Lowering, op: OnnxOp) -> None:
    """Another view; a constant that is only read transposed is one that is."""
    source = present(op, 0)
    permutation = [int(axis) for axis in op.attr("perm") or reversed(range(len(shape_of(source))))]
    found = lowering.get(source)
    if isinstance(found, Constant) and all(_is_transpose(each) for each in lowering.readers.get(source, ())):
        shape = tuple(found.shape[axis] for axis in permutation)
        turned = found.derived(f"turned {permutation}", shape, lambda array: array.transpose(permutation))
        lowering.define(result(op), turned)
    else:
        lowering.define(result(op), lowering.view(source).transpose(permutation))


def _is_transpose(op: Operation) -> bool:
    return isinstance(op, OnnxOp) and op.op_type == "Transpose" and not op.domain


def _expand(lowering: Lowering, op: OnnxOp) -> None:
    value = result(op)
    lowering.define(value, lowering.view(present(op, 0)).expand(shape_of(value)))


def _slice(lowering: Lowering, op: OnnxOp) -> None:
    view, shape = lowering.view(present(op, 0)), shape_of(result(op))
    starts = _integers(lowering, op, 1, "starts")
    axes = _integers(lowering, op, 3, "axes", list(range(len(starts))))
    steps = _integers(lowering, op, 4, "steps", [1] * len(starts))
    for start, axis, step in zip(starts, axes, steps, strict=True):
        axis %= len(view.shape)
        size = view.shape[axis]
        begin = _clamped(start, size, step, shape[axis], axis)
        view = view.slice(axis, begin, shape[axis], step)
    lowering.define(result(op), view)


def _clamped(start: int, size: Expr, step: int, length: Expr, axis: int) -> Expr:
    """Where a slice begins, as ONNX clamps it."""
    if size.is_constant:
        known = size.as_int()
        low, high = (0, known) if step > 0 else (0, known - 1)
        return Expr.const(max(low, min(high, start + known if start < 0 else start)))
    if start <= -_FAR or start >= _FAR:
        return ZERO if (start < 0) == (step > 0) else size - 1
    if start >= 0 and step > 0:
        return Expr.const(start)
    if start < 0:
        # Clamping at 0 matters only where fewer elements are there than the slice asks for; its length says so.
        if step < 0 or length == Expr.const(-start) or (size - length) == size + start:
            return size + start
        raise RefusedError(f"where the slice of dimension {axis} begins depends on whether {size} reaches {-start}")
    raise RefusedError(f"a slice of dimension {axis} runs backwards from {start} in a dimension of size {size}")


def _integers(
    lowering: Lowering, op: OnnxOp, index: int, attribute: str, default: list[int] | None = None
) -> list[int]:
    """An input of integers, or the attribute that older versions have. RefusedError if it is not constant."""
    value = op.input_at(index)
    if value is None:
        found = op.attr(attribute)
        if found is None and default is None:
            raise RefusedError(f"{op.op_type} has no {attribute}")
        return list(found) if found is not None else list(default or ())
    known = lowering.known(value)
    if known is None:
        raise RefusedError(f"{attribute} of {op.op_type} is computed, it must be constant")
    return [int(each) for each in known.reshape(-1)]


def _squeeze(lowering: Lowering, op: OnnxOp) -> None:
    value = result(op)
    lowering.define(value, reshaped(lowering, lowering.view(present(op, 0)), shape_of(value)))


def _split(lowering: Lowering, op: OnnxOp) -> None:
    view = lowering.view(present(op, 0))
    axis = int(op.attr("axis", 0)) % len(view.shape)
    begin = ZERO
    for value in op.outputs:
        if value is not None:
            length = shape_of(value)[axis]
            lowering.define(value, view.slice(axis, begin, length))
            begin = begin + length


def _concat(lowering: Lowering, op: OnnxOp) -> None:
    value = result(op)
    shape = shape_of(value)
    axis = int(op.attr("axis", 0)) % len(shape)
    if op in lowering.in_place:
        _grow(lowering, op, axis)
        return
    sources = [(source, _read(lowering, source)) for source in op.inputs if source is not None]
    by_position = any(are_last(lowering.builder, found, len(shape)) for _, found in sources)
    target = temporary(lowering.builder, vector_type(value), shape, by_position and value not in lowering.results)
    _put_behind(lowering, target, axis, ZERO, sources)
    lowering.define(value, target)


def _grow(lowering: Lowering, op: OnnxOp, axis: int) -> None:
    """Puts what is new behind what a state holds, in the memory that is laid out for its capacity (states.py)."""
    first, *new = [source for source in op.inputs if source is not None]
    held, value = lowering.view(first), result(op)
    _put_behind(lowering, held, axis, held.shape[axis], [(source, _read(lowering, source)) for source in new])
    lowering.define(value, held.slice(axis, 0, shape_of(value)[axis]))


def _put_behind(
    lowering: Lowering, target: View, axis: int, begin: Expr, sources: Sequence[tuple[SSAValue, Argument]]
) -> None:
    """Computes values into a view one behind the other along a dimension, from `begin` on."""
    for source, found in sources:
        length = shape_of(source)[axis]
        if not (length.is_constant and not length.as_int()):
            lowering.emit(found, target.slice(axis, begin, length), "concat")
        begin = begin + length


def _read(lowering: Lowering, value: SSAValue) -> Argument:
    found = lowering.get(value)
    return lowering.weights.view(found, found.dtype) if isinstance(found, Constant) else found


def _shape(lowering: Lowering, op: OnnxOp) -> None:
    dims = shape_of(present(op, 0))
    start, end = op.attr("start", 0), op.attr("end")
    chosen = dims[start : end if end is not None else len(dims)]
    lowering.define(result(op), _vector_of(lowering, chosen))


def _size(lowering: Lowering, op: OnnxOp) -> None:
    total = ONE
    for size in shape_of(present(op, 0)):
        total = total * size
    lowering.define(result(op), _vector_of(lowering, (total,)).squeeze(0))


def _vector_of(lowering: Lowering, values: Sequence[Expr]) -> View:
    """Expressions over the symbolic dimensions as a vector of i64, written by the vector unit."""
    target = lowering.builder.temporary("i64", (Expr.const(len(values)),)).rigid()
    with lowering.builder.kernel("shape") as kernel:
        for index, each in enumerate(values):
            tile = kernel.fill("i64", (ONE,), (1,), each)
            kernel.store(target, [Expr.const(index)], [[Counter(0, ONE)]], tile)
            kernel.free(tile)
    return View.whole(target.tensor, target.dtype, target.shape)


def _tile(lowering: Lowering, op: OnnxOp) -> None:
    view, shape = lowering.view(present(op, 0)), shape_of(result(op))
    known = lowering.known(present(op, 1))
    counts = _counts(view.shape, shape) if known is None else [Expr.const(int(each)) for each in known]
    wide: list[Expr] = []
    spread = view
    for axis, count in enumerate(counts):
        wide += [count, view.shape[axis]]
        spread = spread.unsqueeze(2 * axis)
    lowering.define(result(op), reshaped(lowering, spread.expand(tuple(wide)), shape))


def _counts(before: Shape, after: Shape) -> list[Expr]:
    """How often Tile repeats each dimension by repeats that are computed, as both shapes say."""
    counts: list[Expr] = []
    for axis, (old, new) in enumerate(zip(before, after, strict=True)):
        count = ONE if old == new else new // old
        if count * old != new:
            raise RefusedError(f"repeats of Tile are computed, and not known from sizes {old} and {new} of {axis=}")
        counts.append(count)
    return counts


def _pad(lowering: Lowering, op: OnnxOp) -> None:
    if op.attr("mode", "constant") != "constant":
        raise RefusedError(f"Pad in mode {op.attr('mode')} is not generated")
    view, value = lowering.view(present(op, 0)), result(op)
    shape, dtype = shape_of(value), vector_type(value)
    axes = _integers(lowering, op, 3, "axes", list(range(len(shape))))
    pads = _integers(lowering, op, 1, "pads")
    given = op.input_at(2)
    fill = float(op.attr("value", 0.0) or 0.0)
    if given is not None:
        known = lowering.known(given)
        if known is None:
            raise RefusedError("the value that Pad fills with is computed, it must be constant")
        fill = float(known.reshape(-1)[0])
    before = [0] * len(shape)
    for position, axis in enumerate(axes):
        before[axis % len(shape)] = pads[position]
    source = padded_view(lowering, view, range(len(shape)))
    target = temporary_for(lowering.builder, dtype, shape, view)
    with lowering.builder.kernel("pad") as kernel:
        ranges = vector_ranges(lowering, kernel, shape, target.order)
        place = whole_place(shape, ranges)
        begin = [each - low for each, low in zip(place.begin, before, strict=True)]
        tile = kernel.load(source, begin, place.tile, place.limits, fill=fill, repeated=True)
        kernel.store(target, place.begin, place.tile, tile)
    lowering.define(value, target)


def _resize(lowering: Lowering, op: OnnxOp) -> None:
    source, value = present(op, 0), result(op)
    before, after = shape_of(source), shape_of(value)
    factors = [_factor(old, new) for old, new in zip(before, after, strict=True)]
    mode = str(op.attr("mode", "nearest"))
    if mode != "nearest" or None in factors:
        raise RefusedError(f"{op.op_type} is generated for nearest by whole factors only, this one is {mode}")
    rounding = op.attr("nearest_mode", "round_prefer_floor") if op.op_type == "Resize" else "floor"
    transform = op.attr("coordinate_transformation_mode", "half_pixel") if op.op_type == "Resize" else "asymmetric"
    exact = (transform == "asymmetric" and rounding == "floor") or (
        transform in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel") and rounding == "round_prefer_floor"
    )
    if not exact and any(factor != 1 for factor in factors):
        raise RefusedError(f"nearest neighbours by {transform} and {rounding} are not generated")
    view = lowering.view(source)
    rank = len(before)
    by_position = are_last(lowering.builder, view, rank)
    order = last(rank) if by_position else tuple(range(rank))
    view = view.transpose(order)
    wide: list[Expr] = []
    for axis, each in enumerate(order):
        view = view.unsqueeze(2 * axis + 1)
        wide += [before[each], Expr.const(factors[each] or 1)]
    found = reshaped(lowering, view.expand(tuple(wide)), tuple(after[each] for each in order))
    if not by_position:
        lowering.define(value, found)
        return
    lowering.builder.channels_last.add(found.tensor)
    lowering.define(value, found.transpose(first(rank)))


def _factor(before: Expr, after: Expr) -> int | None:
    """The whole number that one size is of the other, if it is one."""
    for factor in range(1, 17):
        if before * factor == after:
            return factor
    return None


def _depth_to_space(lowering: Lowering, op: OnnxOp) -> None:
    value = result(op)
    batch, channels, height, width = shape_of(present(op, 0))
    block = Expr.const(int(op.attr("blocksize", 1)))
    out = shape_of(value)[1]
    view = lowering.view(present(op, 0))
    if op.attr("mode", "DCR") == "DCR":
        view = reshaped(lowering, view, (batch, block, block, out, height, width)).transpose((0, 3, 4, 1, 5, 2))
    else:
        view = reshaped(lowering, view, (batch, out, block, block, height, width)).transpose((0, 1, 4, 2, 5, 3))
    del channels
    lowering.define(value, reshaped(lowering, view, shape_of(value)))


RULES: dict[str, Rule] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _reshape,
    "Identity": _identity,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _squeeze,
    "Upsample": _resize,
}
