"""Rules for reductions, normalisations and pooling: all on the vector unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import inf, prod

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import ONE, Expr
from gimlet.runtime.sram.program import Range
from gimlet.targets.sram.builder import KernelBuilder, RefusedError
from gimlet.targets.sram.channels import temporary_for
from gimlet.targets.sram.convolution import (
    Geometry,
    geometry_of,
    load_window,
    padded_view,
    vector_ranges,
    whole_place,
)
from gimlet.targets.sram.expression import Argument, Place
from gimlet.targets.sram.lowering import Lowering, Rule, shape_of, vector_type
from gimlet.targets.sram.products import product_of
from gimlet.targets.sram.rules_elementwise import present, result
from gimlet.targets.sram.rules_shape import reshaped
from gimlet.targets.sram.softmax import LARGEST_FLOAT, SMALLEST_FLOAT, pieces_of, shared_softmax
from gimlet.targets.sram.views import Counter, Shape, View

_TILE = 4096
_LEAST_PART = 64
_MOST_PARTS = 64
_LEAST_SHARE = 8
_LONGEST_ROW = 16384
_LEAST_SPREAD = 1024
"""Elements of a row from which many cores normalise it sooner than one, by the cycle model; twice with a mean."""
_START = {"sum": 0.0, "max": -inf, "min": inf, "prod": 1.0}
_SMALLEST = {"i64": -(1 << 63), "i32": -(1 << 31), "i1": 0}
_LARGEST = {"i64": (1 << 63) - 1, "i32": (1 << 31) - 1, "i1": 1}


def reduced(lowering: Lowering, view: View, axes: Sequence[int], function: str, over: Expr | None = None) -> View:
    """A reduction over some dimensions, which keep size 1; divided by `over`, each part of a sum for itself."""
    dtype = view.dtype
    rank = len(view.shape)
    kept = [axis for axis in range(rank) if axis not in axes]
    builder = lowering.builder
    target = builder.temporary(dtype, tuple(ONE if axis in axes else view.shape[axis] for axis in range(rank)))
    best = [builder.bounds.best(size) for size in view.shape]
    outer = max(1, min(64, -(-prod(best[axis] for axis in kept) // builder.cores)))
    steps = [1] * rank
    for room, chosen in ((outer, kept), (_TILE // outer, list(axes))):
        for axis in reversed(chosen):
            steps[axis] = max(1, min(best[axis], room))
            room = max(1, room // steps[axis])
    split = _split_axis(lowering, view, axes, kept, steps) if (function, dtype) == ("sum", "f32") else None
    with builder.kernel(f"reduce_{function}") as kernel:
        ranges: dict[int, Range] = {}
        if split is not None:
            steps[split] = max(_LEAST_PART, -(-best[split] // _MOST_PARTS))
            ranges[split] = kernel.range(view.shape[split], steps[split])
        ranges |= {axis: kernel.range(view.shape[axis], steps[axis]) for axis in kept}
        sizes = [ONE if axis in axes else ranges[axis].size for axis in range(rank)]
        limits = [1 if axis in axes else steps[axis] for axis in range(rank)]
        total = kernel.fill(dtype, sizes, limits, _neutral(function, dtype))
        with ExitStack() as loops:
            for axis in (each for each in axes if each != split):
                ranges[axis] = loops.enter_context(kernel.loop(view.shape[axis], steps[axis]))
            place = whole_place(view.shape, [ranges[axis] for axis in range(rank)])
            tile = kernel.load(view, place.begin, place.tile, place.limits, repeated=True)
            part = kernel.reduce(function, tile, axes)
            kernel.map({"sum": "add", "prod": "mul"}.get(function, function), [total, part], dtype, into=total)
        if over is not None:
            kernel.map("div", [total, over], dtype, into=total)
        begin = [Expr.const(0) if axis in axes else ranges[axis].start for axis in range(rank)]
        counters = [(Counter(axis, ONE if axis in axes else ranges[axis].size),) for axis in range(rank)]
        kernel.store(target, begin, counters, total, adds=split is not None)
    return target


def _split_axis(
    lowering: Lowering, view: View, axes: Sequence[int], kept: Sequence[int], steps: Sequence[int]
) -> int | None:
    """The dimension of a sum that several items share, each adding its part; None where there are items enough."""
    bounds = lowering.bounds
    longest = max(axes, key=lambda axis: bounds.best(view.shape[axis]))
    items = prod(-(-bounds.best(view.shape[axis]) // steps[axis]) for axis in kept)
    long = bounds.best(view.shape[longest]) >= 2 * _LEAST_PART
    few = items * _LEAST_SHARE <= lowering.builder.cores
    return longest if long and few and all(bounds.never_empty(size) for size in view.shape) else None


def _neutral(function: str, dtype: str) -> int | float:
    if dtype == "f32":
        return _START[function]
    if function in ("sum", "prod"):
        return int(_START[function])
    return (_SMALLEST if function == "max" else _LARGEST)[dtype]


def _reduce_axes(lowering: Lowering, op: OnnxOp, rank: int) -> list[int]:
    value = op.input_at(1)
    axes = op.attr("axes")
    if value is not None:
        known = lowering.known(value)
        if known is None:
            raise RefusedError(f"the axes of {op.op_type} are computed, they must be constant")
        axes = [int(each) for each in known.reshape(-1)]
    if not axes:
        return [] if op.attr("noop_with_empty_axes", 0) else list(range(rank))
    return sorted(int(axis) % rank for axis in axes)


def _reduce(lowering: Lowering, op: OnnxOp) -> None:
    source, value = present(op, 0), result(op)
    shape = shape_of(source)
    axes = _reduce_axes(lowering, op, len(shape))
    argument: Argument = lowering.argument(source)
    if op.op_type in ("ReduceL2", "ReduceSumSquare"):
        argument = lowering.node("mul", (argument, argument), shape, vector_type(source))
        view = lowering.computed(argument, shape, vector_type(source))
    else:
        view = lowering.view(source)
    if not axes:
        lowering.define(value, lowering.node("copy", (view,), shape, vector_type(value)))
        return
    if vector_type(source) not in (("f32",) if op.op_type == "ReduceL2" else ("f32", "i32", "i64")):
        raise RefusedError(f"{op.op_type} of {vector_type(source)} is not generated")
    function = _REDUCTIONS[op.op_type]
    if any(size.is_constant and not size.as_int() for size in shape):
        raise RefusedError(f"{op.op_type} of an empty tensor is not generated")
    view = lowering.converted(view, vector_type(source))
    is_mean = op.op_type == "ReduceMean" and view.dtype == "f32"
    over = product_of([shape[axis] for axis in axes])
    total = reshaped(lowering, reduced(lowering, view, axes, function, over if is_mean else None), shape_of(value))
    if op.op_type == "ReduceMean" and not is_mean:
        lowering.define(value, lowering.node("div", (total, over), shape_of(value), vector_type(value)))
    elif op.op_type == "ReduceL2":
        lowering.define(value, lowering.node("sqrt", (total,), shape_of(value)))
    else:
        lowering.define(value, total)


_REDUCTIONS = {
    "ReduceL2": "sum",
    "ReduceMax": "max",
    "ReduceMean": "sum",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceSum": "sum",
    "ReduceSumSquare": "sum",
}


def _global_pool(lowering: Lowering, op: OnnxOp) -> None:
    source, value = present(op, 0), result(op)
    shape = shape_of(source)
    axes = list(range(2, len(shape)))
    view = lowering.converted(lowering.view(source), "f32")
    if op.op_type == "GlobalMaxPool":
        lowering.define(value, reshaped(lowering, reduced(lowering, view, axes, "max"), shape_of(value)))
        return
    mean = reduced(lowering, view, axes, "sum", product_of([shape[axis] for axis in axes]))
    lowering.define(value, reshaped(lowering, mean, shape_of(value)))


RowBody = Callable[[KernelBuilder, str, Place], str]


def by_rows(lowering: Lowering, view: View, what: str, body: RowBody, dtype: str = "f32") -> View:
    """A kernel whose items have whole rows (the last dimension) of `view` [rows, length] in a tile."""
    rows, length = view.shape
    builder = lowering.builder
    longest = builder.bounds.most(length)
    target = builder.temporary(dtype, view.shape)
    count = max(1, min(_TILE // longest, -(-builder.bounds.best(rows) // builder.cores)))
    with builder.kernel(what) as kernel:
        row = kernel.range(rows, count)
        column = kernel.range(length, longest)
        place = whole_place(view.shape, [row, column])
        tile = kernel.load(view, place.begin, place.tile, place.limits, repeated=True)
        kernel.store(target, place.begin, place.tile, body(kernel, tile, place))
    return target


def _rows_of(lowering: Lowering, value: SSAValue, axes: Sequence[int]) -> tuple[View, Shape, list[int]]:
    """A value as [rows, length] with `axes` in the row, the permuted shape, and the way back."""
    shape = shape_of(value)
    order = [axis for axis in range(len(shape)) if axis not in axes] + list(axes)
    view = lowering.converted(lowering.view(value), "f32").transpose(order)
    length = product_of([shape[axis] for axis in axes])
    rows = product_of([shape[axis] for axis in order[: len(shape) - len(axes)]])
    back = [order.index(axis) for axis in range(len(shape))]
    return reshaped(lowering, view, (rows, length)), view.shape, back


def _softmax(lowering: Lowering, op: OnnxOp) -> None:
    source, value = present(op, 0), result(op)
    rank = len(shape_of(source))
    axis = int(op.attr("axis", -1)) % rank
    axes = list(range(axis, rank)) if op.since_version < 13 else [axis]
    lowering.define(value, softmax(lowering, source, axes, log=op.op_type == "LogSoftmax"))


def softmax(
    lowering: Lowering, value: SSAValue | View, axes: Sequence[int], log: bool = False, dtype: str = "f32"
) -> View:
    """Softmax, or its logarithm, over some dimensions of a value; of a view, over its last one.

    Attention calls it on views: there a row of −∞ alone, where everything is masked, becomes zeros.
    """
    masked = isinstance(value, View)
    rows, shape, back = _view_rows(lowering, value) if isinstance(value, View) else _rows_of(lowering, value, axes)
    builder = lowering.builder
    piece = pieces_of(builder.machine, builder.dealing, lowering.bounds, *rows.shape)
    if piece is not None:
        found = shared_softmax(lowering, rows, piece, log, masked, dtype)
        return reshaped(lowering, found, shape).transpose(back)
    if lowering.bounds.most(rows.shape[1]) > _LONGEST_ROW:
        return reshaped(lowering, _long_softmax(lowering, rows, log), shape).transpose(back)

    def body(kernel: KernelBuilder, tile: str, place: Place) -> str:
        del place
        largest = kernel.reduce("max", tile, [1])
        if masked:
            largest = kernel.map("max", [largest, -LARGEST_FLOAT])
        shifted = kernel.map("sub", [tile, largest])
        powers = kernel.map("exp", [shifted])
        total = kernel.reduce("sum", powers, [1])
        if log:
            return kernel.map("sub", [shifted, kernel.map("log", [total])])
        if masked:
            total = kernel.map("max", [total, SMALLEST_FLOAT])
        return kernel.map("div", [powers, total])

    found = by_rows(lowering, rows, "log_softmax" if log else "softmax", body, dtype)
    return reshaped(lowering, found, shape).transpose(back)


def _long_softmax(lowering: Lowering, rows: View, log: bool) -> View:
    """Softmax of rows that do not fit a core: three kernels where one reads each row three times."""
    largest = reduced(lowering, rows, [1], "max")
    shifted = lowering.node("sub", (rows, largest), rows.shape)
    powers = lowering.computed(lowering.node("exp", (shifted,), rows.shape), rows.shape, "f32")
    total = reduced(lowering, powers, [1], "sum")
    if log:
        found = lowering.node("sub", (shifted, lowering.node("log", (total,), total.shape)), rows.shape)
    else:
        found = lowering.node("div", (powers, total), rows.shape)
    return lowering.computed(found, rows.shape, "f32")


def _view_rows(lowering: Lowering, view: View) -> tuple[View, Shape, list[int]]:
    rows = product_of(view.shape[:-1])
    return reshaped(lowering, view, (rows, view.shape[-1])), view.shape, list(range(len(view.shape)))


def _layer_normalization(lowering: Lowering, op: OnnxOp) -> None:
    if any(each is not None for each in op.outputs[1:]):
        raise RefusedError("the mean and deviation of LayerNormalization are not generated, only its result")
    source, value = present(op, 0), result(op)
    shape = shape_of(value)
    axes = list(range(int(op.attr("axis", -1)) % len(shape), len(shape)))
    epsilon = float(op.attr("epsilon"))
    centred = op.op_type == "LayerNormalization"
    spread = _is_spread(lowering, shape, axes, 2 * _LEAST_SPREAD if centred else _LEAST_SPREAD)
    found: Argument = (_spread if spread else normalized)(lowering, source, axes, epsilon, centred)
    scale, bias = op.input_at(1), op.input_at(2) if centred else None
    if scale is not None:
        found = lowering.node("mul", (found, lowering.argument(scale)), shape)
    if bias is not None:
        found = lowering.node("add", (found, lowering.argument(bias)), shape)
    lowering.define(value, found)


def normalized(lowering: Lowering, source: SSAValue, axes: Sequence[int], epsilon: float, centred: bool) -> View:
    """A value divided by its deviation over `axes`, after its mean was taken off if `centred`."""
    rows, shape, back = _rows_of(lowering, source, axes)
    length = rows.shape[1]
    if lowering.bounds.most(length) > _LONGEST_ROW:
        return reshaped(lowering, _long_normalized(lowering, rows, epsilon, centred), shape).transpose(back)

    def body(kernel: KernelBuilder, tile: str, place: Place) -> str:
        del place
        if centred:
            mean = kernel.map("div", [kernel.reduce("sum", tile, [1]), length])
            tile = kernel.map("sub", [tile, mean])
        squares = kernel.reduce("sum", kernel.map("mul", [tile, tile]), [1])
        variance = kernel.map("add", [kernel.map("div", [squares, length]), epsilon])
        return kernel.map("mul", [tile, kernel.map("rsqrt", [variance])])

    found = by_rows(lowering, rows, "normalize", body)
    return reshaped(lowering, found, shape).transpose(back)


def _is_spread(lowering: Lowering, shape: Shape, axes: Sequence[int], least: int) -> bool:
    """Whether rows are few, and of at least so many elements: then many cores normalise one sooner than one core."""
    bounds = lowering.bounds
    rows = prod(bounds.best(size) for axis, size in enumerate(shape) if axis not in axes)
    length = prod(bounds.best(size) for axis, size in enumerate(shape) if axis in axes)
    few = rows * _LEAST_SHARE <= lowering.builder.cores
    return few and length >= least and all(bounds.never_empty(size) for size in shape)


def _spread(lowering: Lowering, source: SSAValue, axes: Sequence[int], epsilon: float, centred: bool) -> Argument:
    """As `normalized`, of sums to which many cores add their parts."""
    shape = shape_of(source)
    value: Argument = lowering.converted(lowering.view(source), "f32")
    length = product_of([shape[axis] for axis in axes])
    column = tuple(ONE if axis in axes else size for axis, size in enumerate(shape))
    if centred:
        mean = reduced(lowering, lowering.computed(value, shape, "f32"), axes, "sum", length)
        value = lowering.computed(lowering.node("sub", (value, mean), shape), shape, "f32")
    squares = lowering.computed(lowering.node("mul", (value, value), shape), shape, "f32")
    variance = lowering.node("div", (reduced(lowering, squares, axes, "sum"), length), column)
    scale = lowering.node("rsqrt", (lowering.node("add", (variance, epsilon), column),), column)
    return lowering.node("mul", (value, scale), shape)


def _long_normalized(lowering: Lowering, rows: View, epsilon: float, centred: bool) -> View:
    """Rows that do not fit a core, normalised by reductions and elementwise kernels."""
    length, column = rows.shape[1], (rows.shape[0], ONE)
    if centred:
        mean = lowering.node("div", (reduced(lowering, rows, [1], "sum"), length), column)
        rows = lowering.computed(lowering.node("sub", (rows, mean), rows.shape), rows.shape, "f32")
    squares = lowering.computed(lowering.node("mul", (rows, rows), rows.shape), rows.shape, "f32")
    variance = lowering.node("div", (reduced(lowering, squares, [1], "sum"), length), column)
    scale = lowering.node("rsqrt", (lowering.node("add", (variance, epsilon), column),), column)
    return lowering.computed(lowering.node("mul", (rows, scale), rows.shape), rows.shape, "f32")


def _instance_normalization(lowering: Lowering, op: OnnxOp) -> None:
    source, value = present(op, 0), result(op)
    shape = shape_of(value)
    found = normalized(lowering, source, list(range(2, len(shape))), float(op.attr("epsilon")), centred=True)
    scale, bias = (_along_channels(lowering, present(op, index), len(shape)) for index in (1, 2))
    lowering.define(value, lowering.node("multiply_add", (found, scale, bias), shape))


def _along_channels(lowering: Lowering, value: SSAValue, rank: int) -> View:
    view = lowering.view(value)
    for _ in range(rank - 2):
        view = view.unsqueeze(len(view.shape))
    return view


def _max_pool(lowering: Lowering, op: OnnxOp) -> None:
    if any(each is not None for each in op.outputs[1:]):
        raise RefusedError("the indices of MaxPool are not generated, only its result")
    source, value = present(op, 0), result(op)
    view = lowering.converted(lowering.view(source), "f32")
    geometry = _pool_geometry(op, source, value)
    lowering.define(value, _pooled(lowering, view, geometry, shape_of(value), "max", -inf))


def _pool_geometry(op: OnnxOp, source: SSAValue, value: SSAValue) -> Geometry:
    return geometry_of(op, op.attr("kernel_shape"), shape_of(source)[2:], shape_of(value)[2:])


def _pooled(lowering: Lowering, view: View, geometry: Geometry, shape: Shape, function: str, fill: float) -> View:
    """`function` over each window of a value, with `fill` around it."""
    builder = lowering.builder
    source = padded_view(lowering, view, range(2, len(shape)))
    target = temporary_for(builder, "f32", shape, view)
    with builder.kernel("pool") as kernel:
        ranges = vector_ranges(lowering, kernel, shape, target.order)
        place = whole_place(shape, ranges)
        total = kernel.fill("f32", place.sizes, place.limits, fill)
        with ExitStack() as loops:
            taps = [loops.enter_context(kernel.loop(Expr.const(size), 1)) for size in geometry.kernel]
            tile = load_window(kernel, source, ranges, taps, geometry, fill, builder.machine)
            kernel.map(function, [total, tile], into=total)
        kernel.store(target, place.begin, place.tile, total)
    return target


def _average_pool(lowering: Lowering, op: OnnxOp) -> None:
    source, value = present(op, 0), result(op)
    shape = shape_of(value)
    view = lowering.converted(lowering.view(source), "f32")
    geometry = _pool_geometry(op, source, value)
    total = _pooled(lowering, view, geometry, shape, "add", 0.0)
    inside = all(pad == Expr.const(0) for pad in geometry.pads) and not op.attr("ceil_mode", 0)
    ends = (op.attr("pads") or [0] * 2 * len(geometry.kernel))[len(geometry.kernel) :]
    if (inside and not any(ends)) or (op.attr("count_include_pad", 0) and not op.attr("ceil_mode", 0)):
        lowering.define(value, lowering.node("mul", (total, 1.0 / prod(geometry.kernel)), shape))
        return
    counts = _window_counts(
        lowering, geometry, shape_of(source)[2:], shape[2:], bool(op.attr("count_include_pad", 0)), ends
    )
    lowering.define(value, lowering.node("div", (total, counts), shape))


def _window_counts(
    lowering: Lowering, geometry: Geometry, sizes: Shape, shape: Shape, padding: bool, ends: Sequence[int]
) -> View:
    """How many elements each window of a pooling has: those in the tensor, or in it and its padding."""
    ones_shape = (
        ONE,
        ONE,
        *(size + (low + end if padding else 0) for size, low, end in zip(sizes, geometry.pads, ends, strict=True)),
    )
    ones = lowering.builder.temporary("f32", ones_shape)
    lowering.emit(1.0, ones, "ones")
    pads = tuple(Expr.const(0) for _ in geometry.pads) if padding else geometry.pads
    window = Geometry(geometry.kernel, geometry.strides, geometry.dilations, pads)
    return _pooled(lowering, ones, window, (ONE, ONE, *shape), "add", 0.0)


RULES: dict[str, Rule] = {
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "LogSoftmax": _softmax,
    "MaxPool": _max_pool,
    "RMSNormalization": _layer_normalization,
    "SimplifiedLayerNormalization": _layer_normalization,
    "Softmax": _softmax,
}
