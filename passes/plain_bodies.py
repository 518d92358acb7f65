"""What operators of ONNX compute that it defines in words only, as lines of functions of simpler ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp, constant_value, dims_of, opset_in_force
from gimlet.dialects.onnx.types import element_of
from gimlet.passes.einsum_lines import einsum
from gimlet.passes.elementary_lines import ELEMENTARY
from gimlet.passes.fourier_lines import dft, stft
from gimlet.passes.function_lines import Lines, Unwritten, has, integers, number
from gimlet.passes.recurrent_lines import recurrent
from gimlet.passes.resize_lines import resize
from gimlet.passes.sampling_lines import deform_conv, grid_sample
from gimlet.runtime.expr import Expr

Array = np.ndarray[Any, np.dtype[Any]]

OLDEST_PLAIN = 13
"""The oldest opset at which Unsqueeze, Squeeze and ReduceSum are given their axes as an input."""
MOST_READ = 64
"""Elements of a constant that lines may depend on."""
Known = Sequence[Array | None]
"""What the inputs are that are constants."""

_AXES_ARE_AN_INPUT = 18
_INT64 = 7
_INTEGERS = ("int32", "int64")
_LARGEST = {"float": 3.4028234663852886e38, "float16": 65504.0, "bfloat16": 3.3895313892515355e38}
_WIDEST_WINDOW = 64
_UNKNOWN_AXES = Unwritten("over axes that are known before it runs")
_UNKNOWN_RANK = Unwritten("where the rank of its input is known")
_NOT_FLOAT = Unwritten(f"for {', '.join(_LARGEST)}")


def read_constants(op: OnnxOp, ctx: GimletContext | None) -> Known:
    """The constants that the lines of an operator depend on."""
    if op.domain or op.op_type not in READING:
        return ()
    return [None if value is None else constant_value(value, ctx, MOST_READ) for value in op.inputs]


def _integers(known: Known, index: int) -> list[int] | None:
    """The whole numbers of an input that is a constant."""
    found = known[index] if index < len(known) else None
    return None if found is None else [int(each) for each in found.reshape(-1)]


def _dims(op: OnnxOp) -> Sequence[Expr] | None:
    value = op.input_at(0)
    return None if value is None else dims_of(value)


def _places(name: str, size: Expr, axis: int, rank: int) -> list[str]:
    """`name`: 0, 1, ... along dimension `axis` of `rank`, as many as the same dimension of `x0` has elements."""
    behind = rank - 1 - axis
    if size.is_constant:
        lines = [integers(f"{name}_all", *range(size.as_int()))]
    else:
        lines = [f"{name}_shape = Shape (x0)", integers(f"{name}_axis", axis)]
        lines.append(f"{name}_size = Gather <axis: int = 0> ({name}_shape, {name}_axis)")
        lines.append(f"{name}_to = Squeeze ({name}_size)")
        lines += [f"{name}_{word} = Constant <value_int: int = {value}> ()" for word, value in (("from", 0), ("by", 1))]
        lines.append(f"{name}_all = Range ({name}_from, {name}_to, {name}_by)")
    return [*lines, *_unsqueezed(name, f"{name}_all", range(1, behind + 1))]


def _unsqueezed(name: str, source: str, axes: Sequence[int]) -> list[str]:
    if not axes:
        return [f"{name} = Identity ({source})"]
    return [integers(f"{name}_at", *axes), f"{name} = Unsqueeze ({source}, {name}_at)"]


def _reduction(op: OnnxOp, known: Known) -> list[int]:
    """The dimensions of a reduction; none where they are not known, or nothing is reduced."""
    dims = _dims(op)
    axes = _integers(known, 1) if has(op, 1) else op.attr("axes") or ()
    if dims is None or axes is None or (not axes and op.attr("noop_with_empty_axes", 0)):
        return []
    return sorted(int(axis) % len(dims) for axis in axes) or list(range(len(dims)))


def _reduce(before: str, after: str) -> Callable[[OnnxOp, int, Known], Lines]:
    """A sum, with a function before and one behind it."""

    def write(op: OnnxOp, opset: int, known: Known) -> Lines:
        del opset
        axes = _reduction(op, known)
        if not axes:
            return _UNKNOWN_AXES
        keep = int(op.attr("keepdims", 1))
        lines = [f"x = {before} (x0)", integers("axes", *axes)]
        return [*lines, f"sum = ReduceSum <keepdims: int = {keep}> (x, axes)", f"y0 = {after} (sum)"]

    return write


def _reduce_log_sum_exp(op: OnnxOp, opset: int, known: Known) -> Lines:
    """Beside the largest element, so that no power overflows; that is left out where it is infinite."""
    axes, element = _reduction(op, known), element_of(op.operands[0].type)
    if not axes:
        return _UNKNOWN_AXES
    if element is None or element.onnx not in _LARGEST:
        return _NOT_FLOAT
    lines = [integers("axes", *axes), *number("zero", 0.0, "x0"), *number("most", _LARGEST[element.onnx], "x0")]
    lines += _extreme("top", "ReduceMax", "x0", axes, opset)
    lines += ["size = Abs (top)", "is_infinite = Greater (size, most)", "level = Where (is_infinite, zero, top)"]
    lines += ["below = Sub (x0, level)", "powers = Exp (below)", "sum = ReduceSum (powers, axes)", "log = Log (sum)"]
    lines.append("all = Add (log, level)")
    return [*lines, "y0 = Identity (all)" if op.attr("keepdims", 1) else "y0 = Squeeze (all, axes)"]


def _pad(op: OnnxOp, opset: int, known: Known) -> Lines:
    """Elements beside a dimension are gathered from it, in modes that repeat what is there."""
    del opset
    mode, dims, pads = str(op.attr("mode", "constant")), _dims(op), _integers(known, 1)
    if mode not in ("edge", "reflect", "wrap") or dims is None or pads is None:
        return Unwritten("in the modes edge, reflect and wrap, by constant paddings")
    given = _integers(known, 3) if has(op, 3) else list(range(len(dims)))
    if given is None or len(pads) != 2 * len(given) or min(pads) < 0:
        return Unwritten(f"by paddings from 0 on of known axes, and these are {pads}")
    lines, last = [], "x0"
    for index, axis in enumerate(axis % len(dims) for axis in given):
        before, behind = pads[index], pads[index + len(given)]
        size, most = dims[axis], max(before, behind) + (mode == "reflect")
        if size.is_constant and (size.as_int() < most if mode != "edge" else size.as_int() == 0):
            return Unwritten(f"where dimensions have what {mode} repeats, and dimension {axis} has {size} elements")
        parts = [last]
        for side, count in (("left", before), ("right", behind)):
            if count:
                places = _beside(mode, count, is_left=side == "left")
                lines += [integers(f"{side}_of_{index}", *places)]
                lines.append(f"{side}{index} = Gather <axis: int = {axis}> ({last}, {side}_of_{index})")
                parts.insert(0 if side == "left" else len(parts), f"{side}{index}")
        if len(parts) > 1:
            last = f"wide{index}"
            lines.append(f"{last} = Concat <axis: int = {axis}> ({', '.join(parts)})")
    return [*lines, f"y0 = Identity ({last})"]


def _beside(mode: str, count: int, *, is_left: bool) -> list[int]:
    """Which elements of a dimension are beside it, in order; negative ones count from its end."""
    if mode == "edge":
        return [0 if is_left else -1] * count
    if mode == "wrap":
        return list(range(-count, 0)) if is_left else list(range(count))
    return list(range(count, 0, -1)) if is_left else list(range(-2, -2 - count, -1))


def _one_hot(op: OnnxOp, opset: int, known: Known) -> Lines:
    del opset
    dims, depth = _dims(op), _integers(known, 1)
    if dims is None or depth is None or len(depth) != 1 or depth[0] < 1:
        return Unwritten("where the depth is a constant")
    axis = int(op.attr("axis", -1)) % (len(dims) + 1)
    lines = [f"given = Cast <to: int = {_INT64}> (x0)"]
    lines += [f"{word} = Constant <value_int: int = {value}> ()" for word, value in (("zero", 0), ("depth", depth[0]))]
    lines += ["is_negative = Less (given, zero)", "moved = Add (given, depth)"]
    lines.append("counted = Where (is_negative, moved, given)")
    lines += [*_unsqueezed("place", "counted", [axis]), *_places("places", Expr.const(depth[0]), axis, len(dims) + 1)]
    lines += ["is_hot = Equal (place, places)", "one = Constant <value_int: int = 1> ()"]
    lines += ["off = Gather <axis: int = 0> (x2, zero)", "on = Gather <axis: int = 0> (x2, one)"]
    return [*lines, "y0 = Where (is_hot, on, off)"]


def _hardmax(op: OnnxOp, opset: int) -> Lines:
    del opset
    dims = _dims(op)
    if not dims:
        return _UNKNOWN_RANK
    axis = int(op.attr("axis", -1)) % len(dims)
    lines = [f"place = ArgMax <axis: int = {axis}> (x0)", *_places("places", dims[axis], axis, len(dims))]
    return [*lines, "is_hot = Equal (place, places)", "y0 = CastLike (is_hot, x0)"]


def _arg(reduction: str) -> Callable[[OnnxOp, int], Lines]:
    """Where the largest or smallest integer of a dimension is: the first or last place that has it."""

    def write(op: OnnxOp, opset: int) -> Lines:
        dims, element, is_last = _dims(op), element_of(op.operands[0].type), bool(op.attr("select_last_index", 0))
        if not dims or element is None or element.onnx not in _INTEGERS:
            return Unwritten(f"for {' and '.join(_INTEGERS)}")
        axis = int(op.attr("axis", 0)) % len(dims)
        lines = [*_places("places", dims[axis], axis, len(dims)), integers("axes", axis)]
        lines += _extreme("found", reduction, "x0", [axis], opset)
        end = -1 if is_last else dims[axis].as_int() if dims[axis].is_constant else None
        lines.append("none = Identity (places_to)" if end is None else f"none = Constant <value_int: int = {end}> ()")
        lines += ["same = Equal (x0, found)", "those = Where (same, places, none)"]
        lines += _extreme("place", "ReduceMax" if is_last else "ReduceMin", "those", [axis], opset)
        return [*lines, "y0 = Identity (place)" if op.attr("keepdims", 1) else "y0 = Squeeze (place, axes)"]

    return write


def _extreme(name: str, reduction: str, source: str, axes: Sequence[int], opset: int) -> list[str]:
    """`name`: the largest or smallest along some dimensions, which stay. The line `axes` has them too."""
    if opset >= _AXES_ARE_AN_INPUT:
        return [f"{name} = {reduction} ({source}, axes)"]
    return [f"{name} = {reduction} <axes: ints = {list(axes)}> ({source})"]


def _resize(op: OnnxOp, opset: int, known: Known) -> Lines:
    del opset
    scales = known[2] if len(known) > 2 else None
    if has(op, 2) and scales is None:
        return Unwritten("by constant scales or to known sizes, and these scales are computed")
    return resize(op, None if scales is None or not scales.size else [float(each) for each in scales])


def _lrn(op: OnnxOp, opset: int) -> Lines:
    """Squares of neighbouring channels, summed one shift after the other."""
    del opset
    dims, size = _dims(op), int(op.attr("size", 0))
    if dims is None or len(dims) < 2 or not dims[1].is_constant or not 0 < size <= _WIDEST_WINDOW:
        return Unwritten(f"over up to {_WIDEST_WINDOW} neighbours of a known number of channels")
    channels, before = dims[1].as_int(), (size - 1) // 2
    pads = [0] * (2 * len(dims))
    pads[1], pads[len(dims) + 1] = before, size - 1 - before
    lines = ["square = Mul (x0, x0)", integers("pads", *pads), "padded = Pad (square, pads)", integers("axis", 1)]
    last = ""
    for shift in range(size):
        lines += [integers(f"from{shift}", shift), integers(f"to{shift}", shift + channels)]
        lines.append(f"part{shift} = Slice (padded, from{shift}, to{shift}, axis)")
        if last:
            lines.append(f"sum{shift} = Add ({last}, part{shift})")
        last = f"sum{shift}" if last else f"part{shift}"
    lines += [*number("scale", float(op.attr("alpha", 1e-4)) / size, "x0"), *number("bias", op.attr("bias", 1.0), "x0")]
    lines += [
        *number("beta", op.attr("beta", 0.75), "x0"),
        f"scaled = Mul ({last}, scale)",
        "base = Add (bias, scaled)",
    ]
    return [*lines, "divisor = Pow (base, beta)", "y0 = Div (x0, divisor)"]


def _powers(p: int) -> list[str]:
    if p == 2:
        return ["powers = Mul (x0, x0)"]
    size = "powers = Abs (x0)" if p == 1 else "size = Abs (x0)"
    return [size] if p == 1 else [size, *number("p", float(p), "x0"), "powers = Pow (size, p)"]


def _root(p: int) -> list[str]:
    if p < 3:
        return [f"y0 = {'Identity' if p == 1 else 'Sqrt'} (sum)"]
    return [*number("root", 1 / p, "x0"), "y0 = Pow (sum, root)"]


def _lp_pool(op: OnnxOp, opset: int) -> Lines:
    """The mean of a window, in which what is outside counts as 0, times the elements of a window."""
    del opset
    kernel, p = [int(size) for size in op.attr("kernel_shape") or ()], int(op.attr("p", 2))
    if not kernel or op.attr("ceil_mode", 0) or any(each != 1 for each in op.attr("dilations") or ()):
        return Unwritten("without dilations and with sizes that are rounded down")
    given = [f"kernel_shape: ints = {kernel}", "count_include_pad: int = 1"]
    given += [f"{name}: ints = {list(value)}" for name in ("strides", "pads") if (value := op.attr(name))]
    given.append(f'auto_pad: string = "{op.attr("auto_pad", "NOTSET")}"')
    lines = [*_powers(p), f"mean = AveragePool <{', '.join(given)}> (powers)"]
    return [*lines, *number("count", float(prod(kernel)), "x0"), "sum = Mul (mean, count)", *_root(p)]


def _global_lp_pool(op: OnnxOp, opset: int) -> Lines:
    del opset
    dims, p = _dims(op), int(op.attr("p", 2))
    if dims is None or len(dims) < 3:
        return _UNKNOWN_RANK
    return [*_powers(p), integers("axes", *range(2, len(dims))), "sum = ReduceSum (powers, axes)", *_root(p)]


def _lp_normalization(op: OnnxOp, opset: int) -> Lines:
    """What has no length stays as it is."""
    del opset
    p = int(op.attr("p", 2))
    lines = [*_powers(p), integers("axes", int(op.attr("axis", -1))), "total = ReduceSum (powers, axes)"]
    lines += [f"length = {'Identity' if p == 1 else 'Sqrt'} (total)", *number("zero", 0.0, "x0")]
    lines += [*number("one", 1.0, "x0"), "is_none = Equal (length, zero)", "divisor = Where (is_none, one, length)"]
    return [*lines, "y0 = Div (x0, divisor)"]


def _is_inf(op: OnnxOp, opset: int) -> Lines:
    del opset
    element = element_of(op.operands[0].type)
    positive, negative = (bool(op.attr(f"detect_{name}", 1)) for name in ("positive", "negative"))
    if element is None or element.onnx not in _LARGEST:
        return _NOT_FLOAT
    if not (positive or negative):
        return Unwritten("where one infinity or both are looked for")
    seen = "Abs" if positive and negative else "Identity" if positive else "Neg"
    return [*number("most", _LARGEST[element.onnx], "x0"), f"x = {seen} (x0)", "y0 = Greater (x, most)"]


def _shrink(op: OnnxOp, opset: int) -> Lines:
    del opset
    element, limit = element_of(op.operands[0].type), float(op.attr("lambd", 0.5))
    if element is None or element.onnx not in _LARGEST:
        return _NOT_FLOAT
    numbers = {"high": limit, "low": -limit, "bias": float(op.attr("bias", 0.0)), "zero": 0.0}
    lines = [line for name, value in numbers.items() for line in number(name, value, "x0")]
    lines += [
        "is_high = Greater (x0, high)",
        "is_low = Less (x0, low)",
        "less = Sub (x0, bias)",
        "more = Add (x0, bias)",
    ]
    return [*lines, "other = Where (is_low, more, zero)", "y0 = Where (is_high, less, other)"]


def _space_to_depth(op: OnnxOp, opset: int) -> Lines:
    """Rows and columns in blocks, whose places go before the channels, or behind them."""
    del opset
    dims, block = _dims(op), int(op.attr("blocksize", 1))
    if dims is None or len(dims) != 4:
        return _UNKNOWN_RANK
    channels_first = op.attr("mode", "DCR") == "CRD"
    if dims[2].is_constant and dims[3].is_constant:
        height, width = (size.as_int() // block for size in dims[2:])
        lines = [integers("apart", 0, 0, height, block, width, block), "blocks = Reshape (x0, apart)"]
        order = [0, 1, 3, 5, 2, 4] if channels_first else [0, 3, 5, 1, 2, 4]
        lines.append(f"first = Transpose <perm: ints = {order}> (blocks)")
        return [*lines, integers("joined", 0, -1, height, width), "y0 = Reshape (first, joined)"]
    lines = [integers("columns", 0, 0, 0, -1, block), "c = Reshape (x0, columns)"]
    lines += ["turned = Transpose <perm: ints = [0, 1, 3, 4, 2]> (c)", integers("rows", 0, 0, 0, 0, -1, block)]
    lines += ["r = Reshape (turned, rows)"]
    lines.append(f"last = Transpose <perm: ints = {[0, 4, 2, 1, 5, 3] if channels_first else [0, 4, 2, 5, 3, 1]}> (r)")
    lines += [integers("joined", 0, 0, 0, -1), "deep = Reshape (last, joined)"]
    return [*lines, "y0 = Transpose <perm: ints = [0, 3, 1, 2]> (deep)"]


def _reverse_sequence(op: OnnxOp, opset: int) -> Lines:
    """Positions of each sequence up to its length, x1 [batch], the other way round."""
    del opset
    dims, time, batch = _dims(op), int(op.attr("time_axis", 0)), int(op.attr("batch_axis", 1))
    if dims is None or {time, batch} != {0, 1}:
        return _UNKNOWN_RANK
    lines = [*_places("places", dims[time], time, len(dims)), "one = Constant <value_int: int = 1> ()"]
    others = [axis for axis in range(len(dims)) if axis != batch]
    lines += [integers("others", *others), "length = Unsqueeze (x1, others)"]
    lines += ["end = Sub (length, one)", "back = Sub (end, places)", "is_before = Less (places, length)"]
    lines += ["place = Where (is_before, back, places)", "shape = Shape (x0)", "wide = Expand (place, shape)"]
    return [*lines, f"y0 = GatherElements <axis: int = {time}> (x0, wide)"]


def _max_unpool(op: OnnxOp, opset: int) -> Lines:
    """Elements put back to where they were in the whole tensor; zeros elsewhere."""
    del opset
    after = dims_of(op.results[0])
    if after is None or not all(size.is_constant for size in after):
        return Unwritten("where the shape of its result is known")
    shape = [size.as_int() for size in after]
    lines = [integers("flat", -1), integers("shape", *shape), integers("count", prod(shape))]
    lines += [*number("zero", 0.0, "x0"), "none = Expand (zero, count)", "values = Reshape (x0, flat)"]
    lines += ["places = Reshape (x1, flat)", "all = ScatterElements (none, places, values)"]
    return [*lines, "y0 = Reshape (all, shape)"]


PLAIN: Mapping[str, Callable[[OnnxOp, int], Lines]] = {
    **ELEMENTARY,
    "ArgMax": _arg("ReduceMax"),
    "ArgMin": _arg("ReduceMin"),
    "DeformConv": deform_conv,
    "Einsum": einsum,
    "GlobalLpPool": _global_lp_pool,
    "GridSample": grid_sample,
    "Hardmax": _hardmax,
    "IsInf": _is_inf,
    "LRN": _lrn,
    "LpNormalization": _lp_normalization,
    "LpPool": _lp_pool,
    "GRU": recurrent,
    "LSTM": recurrent,
    "MaxUnpool": _max_unpool,
    "RNN": recurrent,
    "ReverseSequence": _reverse_sequence,
    "Shrink": _shrink,
    "SpaceToDepth": _space_to_depth,
}

READING: Mapping[str, Callable[[OnnxOp, int, Known], Lines]] = {
    "DFT": dft,
    "OneHot": _one_hot,
    "Pad": _pad,
    "ReduceL1": _reduce("Abs", "Identity"),
    "ReduceLogSum": _reduce("Identity", "Log"),
    "ReduceLogSumExp": _reduce_log_sum_exp,
    "Resize": _resize,
    "STFT": stft,
}
"""Those whose lines depend on the values of constants as well."""


def plain_lines(op: OnnxOp, opset: int, known: Known) -> Lines | None:
    """The lines of an operator of ONNX, given what `read_constants` found. None where it is never written out."""
    if op.op_type not in READING and op.op_type not in PLAIN:
        return None
    if opset < OLDEST_PLAIN:
        return Unwritten(f"from opset {OLDEST_PLAIN} on")
    if op.op_type in READING:
        return READING[op.op_type](op, opset, known)
    return PLAIN[op.op_type](op, opset)


def why_unwritten(op: OnnxOp) -> str | None:
    """In which cases an operator is written out that this one is none of; None where it is, or none ever is."""
    opset = opset_in_force(op, "")
    if op.domain or opset is None:
        return None
    found = plain_lines(op, opset, read_constants(op, None))
    return found.only if isinstance(found, Unwritten) else None
