"""Kernels of ONNX Runtime's CPU provider that move, pick or reduce values, and how much of each kind of work they do.

What decides is how a kernel goes through memory, which depends on the axes and not only on the number of values:

- Transpose has a loop for one dimension that is moved among the others, copies stretches where the last dimensions stay
  behind each other, and else works out an index for every value. A softmax along another axis than the last is between
  two of those.
- Reductions are vectorised for sums, means, largest and least values, unless they are of dimensions between others
  behind a first of size 1; all others gather value by value.
- What goes over lines of cache a stride apart, some values of each at a time, comes back to the first of them after the
  last. They are then in the second-level cache only if they are few enough for the sets that they fall into, which
  strides of a power of two make few, and for the pages that the processor remembers (`is_kept`).
- Pools go over whole rows of the image first, then over the columns of each window.
- Resize has a kernel of its own for images of twice the size whose values are each repeated four times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from math import gcd, log2, prod

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.types import dims_of
from gimlet.dialects.onnx.values import constant_value
from gimlet.targets.onnxruntime.amounts import (
    Features,
    added,
    bytes_of,
    moves,
    results_of,
    size_of,
)
from gimlet.targets.onnxruntime.layout import Sizes, count, is_blocked, shape

Kernel = Callable[[OnnxOp, Sizes], Features]
_LINE, _SETS, _WAYS = 64, 2048, 8
"""Bytes of a line, and the sets and lines a set of a second-level cache of 1 MiB, as that of AMD's Zen 4."""
_PAGE, _PAGES = 4096, 2048
"""Bytes of a page, and how many pages' addresses a processor has at hand (its second-level TLB)."""
_FETCHED_AHEAD = 512
"""Bytes between lines, one after the other, up to which the processor fetches them before they are asked for."""
_BLOCK = 4
"""Rows and columns that a transpose moves at once."""
_FEW = 64
"""Elements of the longest constant that is looked at for axes, steps or counts."""


def integers(value: SSAValue | None) -> list[int] | None:
    """A short constant's values, in order; None where they are not known."""
    known = None if value is None else constant_value(value, None, _FEW)
    return None if known is None else [int(number) for number in known.reshape(-1)]


def is_kept(lines: int, stride: int, *, is_fixed: bool = True) -> bool:
    """Whether so many lines of cache, `stride` bytes apart, are near when a loop over them begins anew.

    A stride that varies falls into all sets: it is as likely to be odd, and a larger size must not cost less.
    """
    sets = _SETS // gcd(_SETS, stride // _LINE) if is_fixed and stride % _LINE == 0 else _SETS
    return lines <= _WAYS * sets and lines * min(stride, _PAGE) <= _PAGES * _PAGE


def varying(value: SSAValue | None) -> frozenset[int]:
    """The axes of a value whose sizes are not fixed."""
    dims = (None if value is None else dims_of(value)) or ()
    return frozenset(axis for axis, dim in enumerate(dims) if dim.symbols)


def transposed(dims: Sequence[int], perm: Sequence[int], varying: Set[int] = frozenset()) -> Features:
    """The work of a transpose of float32 besides the bytes that it moves; `varying` are the axes of no fixed size."""
    kept = [axis for axis in perm if dims[axis] != 1]
    order = sorted(kept)
    if kept == order:
        return {}
    together = 0
    while kept[-1 - together] == order[-1 - together]:
        together += 1
    run = prod(dims[axis] for axis in kept[len(kept) - together :])
    values = prod(dims)
    moved = _moved_one(kept, order)
    kind = "transpose.any" if moved is None else "transpose.single"
    if run > 1:
        return {f"{kind}.runs": float(values // run)}
    rows, columns = order[:-1], order[-1:]
    if moved is not None:
        passed = order[min(order.index(moved), kept.index(moved)) :]
        split = len(passed) - 1 if moved == order[-1] else 1
        rows, columns = passed[:split], passed[split:]
    lines, stride = prod(dims[axis] for axis in rows), 4 * prod(dims[axis] for axis in columns)
    found = {f"{kind}.values": float(values)}
    if moved is not None and lines < _BLOCK and not varying & {*rows}:
        found[f"{kind}.narrow.values"] = float(values)
    is_ahead = moved is not None and stride <= _FETCHED_AHEAD
    if not is_ahead and not is_kept(lines, stride, is_fixed=not varying & {*columns}):
        found[f"{kind}.far.values"] = float(values)
    return found


def _moved_one(perm: list[int], order: list[int]) -> int | None:
    """The one dimension that changes its place among the others; the last one where two could be it."""
    moved = (
        axis
        for axis in reversed(order)
        if [other for other in perm if other != axis] == [other for other in order if other != axis]
    )
    return next(moved, None)


def transpose(op: OnnxOp, sizes: Sizes) -> Features:
    dims = shape(op.inputs[0], sizes) or ()
    perm = op.attr("perm") or list(range(len(dims)))[::-1]
    turned = transposed(dims, perm, varying(op.inputs[0])) if dims else {}
    return added(turned, moves("copy", 2 * size_of(op.results[0], sizes)))


def softmax(op: OnnxOp, sizes: Sizes) -> Features:
    """Row by row of the axis, which is brought to the end first and back behind it."""
    dims = shape(op.inputs[0], sizes) or (1,)
    axis = int(op.attr("axis", -1)) % max(len(dims), 1)
    found: Features = {
        "softmax.values": float(prod(dims)),
        "softmax.rows": float(prod(dims) // max(dims[axis], 1)),
        **moves("elementwise", 8.0 * prod(dims)),
    }
    perm = list(range(len(dims)))
    perm[axis], perm[-1] = perm[-1], perm[axis]
    turned = transposed(dims, perm, varying(op.inputs[0]))
    if not turned:
        return found
    return added(found, turned, turned, moves("copy", 16.0 * prod(dims)))


_REDUCTIONS: Mapping[str, str] = {
    **dict.fromkeys(("ReduceSum", "ReduceMean"), "sum"),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), "most"),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare", "ArgMax", "ArgMin"), "each"),
    **dict.fromkeys(("ReduceLogSumExp", "ReduceLogSum"), "log"),
}


def reduction(op: OnnxOp, sizes: Sizes) -> Features:
    """Values by the kernel and by where the reduced dimensions are: last, first, or between others."""
    dims = shape(op.inputs[0], sizes) or (1,)
    reduced = _reduced(op, len(dims))
    place, kernel, values = _place(reduced, len(dims)), _REDUCTIONS[op.op_type], prod(dims)
    if place == "between" and kernel in ("sum", "most") and _is_always_one(op.inputs[0]):
        kernel = "each"
    in_order = place in ("all", "last") or (kernel, place) == ("sum", "first")
    behind = range(max(reduced, default=0) + 1, len(dims))
    lines, stride = prod(dims[axis] for axis in reduced), 4 * prod(dims[axis] for axis in behind)
    is_fixed = not varying(op.inputs[0]) & {*behind}
    is_far = not in_order and not is_kept(lines, stride, is_fixed=is_fixed)
    return {
        f"reduce.{kernel}.{place}.values": float(values),
        "reduce.far.values": float(values if is_far else 0),
        "reduce.rows": float(results_of(op, sizes)) if place == "last" else 0.0,
        **moves("elementwise", sum(bytes_of(op, sizes))),
    }


def _is_always_one(value: SSAValue | None) -> bool:
    """Whether a value's first dimension is 1 at all sizes: a larger size must not cost less."""
    first = next(iter((None if value is None else dims_of(value)) or ()), None)
    return first is not None and not first.symbols and first.evaluate({}) == 1


def _place(reduced: set[int], rank: int) -> str:
    """Where the reduced dimensions are: `all` of them, the `last`, only the `first`, or `between`."""
    if len(reduced) == rank:
        return "all"
    if rank - 1 in reduced:
        return "last"
    return "first" if reduced == set(range(len(reduced))) else "between"


def _reduced(op: OnnxOp, rank: int) -> set[int]:
    """The axes that an op reduces; all, where they are not known."""
    if op.op_type in ("ArgMax", "ArgMin"):
        return {int(op.attr("axis", 0)) % max(rank, 1)}
    axes = op.attr("axes") or integers(op.input_at(1))
    return {int(axis) % max(rank, 1) for axis in axes or range(rank)}


def chosen(op: OnnxOp, sizes: Sizes) -> Features:
    """TopK: each value is compared with the least of those that are kept, which are in a heap."""
    dims = shape(op.inputs[0], sizes) or (1,)
    rows = prod(dims) // max(dims[int(op.attr("axis", -1)) % len(dims)], 1)
    wanted = (integers(op.input_at(1)) or [1])[0]
    return {"topk.values": float(prod(dims)), "topk.kept.values": rows * wanted * log2(wanted + 1.0)}


def copies(op: OnnxOp, sizes: Sizes) -> Features:
    """Stretches of elements that are copied: their number and their bytes. Single ones, where a step is between."""
    source, result = shape(op.inputs[0], sizes) or (), shape(op.results[0], sizes) or ()
    axis = int(op.attr("axis", 0))
    name, moved = op.op_type.lower(), 2 * sum(size_of(value, sizes) for value in op.outputs if value is not None)
    if op.op_type in ("Concat", "Split"):
        parts = op.inputs if op.op_type == "Concat" else op.outputs
        shapes = [dims for value in parts if (dims := shape(value, sizes))]
        runs = sum(prod(dims[: axis % len(dims)]) for dims in shapes)
    elif op.op_type == "Gather":
        runs = prod(result) // max(prod(source[axis % max(len(source), 1) + 1 :]), 1)
    elif _steps_inside(op, len(source)):
        return {f"{name}.values": float(prod(result)), **moves("copy", moved)}
    else:
        runs = prod(result) // max(_copied(source, result), 1)
    return {f"{name}.runs": float(runs), **moves("copy", moved)}


def _steps_inside(op: OnnxOp, rank: int) -> bool:
    """Whether a Slice takes every so manieth element of the last dimension."""
    axes, steps = integers(op.input_at(3)), integers(op.input_at(4))
    if op.op_type != "Slice" or steps is None:
        return False
    places = range(len(steps)) if axes is None else [axis % max(rank, 1) for axis in axes]
    return any(place == rank - 1 and step != 1 for place, step in zip(places, steps, strict=False))


def _copied(source: tuple[int, ...], result: tuple[int, ...]) -> int:
    run = 1
    for own, full in zip(reversed(source), reversed(result), strict=False):
        run *= min(own, full)
        if own != full:
            break
    return run


def gathered(op: OnnxOp, sizes: Sizes) -> Features:
    """GatherND: a stretch for each index."""
    runs = prod((shape(op.input_at(1), sizes) or (1,))[:-1])
    return {"gather.runs": float(runs), **moves("copy", 2 * size_of(op.results[0], sizes))}


def scattered(op: OnnxOp, sizes: Sizes) -> Features:
    """A copy of the data, and updates one by one (ScatterElements) or a stretch for each index (ScatterND)."""
    places = shape(op.input_at(1), sizes) or (1,)
    updates = prod(places[:-1]) if op.op_type == "ScatterND" else prod(places)
    kind = "scatter.runs" if op.op_type == "ScatterND" else "scatter.values"
    return {kind: float(updates), **moves("copy", size_of(op.results[0], sizes))}


def pool(op: OnnxOp, sizes: Sizes) -> Features:
    """The rows of the image that each row of windows covers, then the columns of each window."""
    moved = moves("copy", sum(bytes_of(op, sizes)))
    image, result = list((shape(op.inputs[0], sizes) or ())[2:]), shape(op.results[0], sizes) or ()
    window = [min(*pair) for pair in zip(op.attr("kernel_shape", []), image, strict=False)]
    if is_blocked(op.results[0], sizes):
        return {"pool.blocked.values": results_of(op, sizes) * prod(window), **moved}
    kind = "most" if op.op_type == "MaxPool" else "sum"
    if len(image) not in (1, 2) or len(window) != len(image):
        return {f"pool.volume.{kind}.values": results_of(op, sizes) * prod(window), **moved}
    rows = prod(result[:-1]) * prod(window[:-1]) * image[-1]
    columns = results_of(op, sizes) * window[-1]
    return {f"pool.{kind}.values": float(rows + columns), **moved}


def global_pool(op: OnnxOp, sizes: Sizes) -> Features:
    kind = "blocked" if is_blocked(op.results[0], sizes) else "plain"
    return {f"pool.global.{kind}.values": float(count(op.inputs[0], sizes)), **moves("copy", sum(bytes_of(op, sizes)))}


def resize(op: OnnxOp, sizes: Sizes) -> Features:
    kind = str(op.attr("mode", "nearest"))
    if is_blocked(op.results[0], sizes):
        kind += ".blocked"
    elif _repeats_each(op, sizes):
        kind += ".repeated"
    return {f"resize.{kind}.values": results_of(op, sizes), **moves("copy", sum(bytes_of(op, sizes)))}


def _repeats_each(op: OnnxOp, sizes: Sizes) -> bool:
    """Whether each value of an image is repeated twice in each direction, from the first on."""
    image, result = (shape(value, sizes) or () for value in (op.inputs[0], op.results[0]))
    twice = len(image) == 4 and result == (*image[:2], 2 * image[2], 2 * image[3])
    if op.op_type == "Upsample":
        return twice and op.attr("mode", "nearest") == "nearest"
    settings = op.attr("mode", "nearest"), op.attr("coordinate_transformation_mode", ""), op.attr("nearest_mode", "")
    return twice and settings == ("nearest", "asymmetric", "floor")


def value_by_value(op: OnnxOp, sizes: Sizes) -> Features:
    """A kernel without vector instructions, of which every result takes its own time."""
    return {f"{op.op_type.lower()}.values": results_of(op, sizes), **moves("elementwise", sum(bytes_of(op, sizes)))}


def boxes(op: OnnxOp, sizes: Sizes) -> Features:
    """NonMaxSuppression: the scores of all boxes; how many are compared depends on the values."""
    return {"boxes.values": float(count(op.inputs[1], sizes)) if len(op.inputs) > 1 else 0.0}
