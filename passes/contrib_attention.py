"""What com.microsoft's attentions compute, as lines of a function of ONNX's operators, in ONNX's text form.

Queries, keys and values get the shape [batch, heads, positions, size], scores are masked and weighed there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.passes.function_lines import has, integers, number, rotated
from gimlet.runtime.expr import Expr

_INT64, _LOWEST = 7, -3.4028234663852886e38
_MASK_FILTER = -10000.0


def multi_head_attention(op: OnnxOp, opset: int) -> list[str] | None:
    """Queries, keys and values by themselves or packed, with a bias of all three, a mask, a bias of scores, a past.

    Keys and values that have their heads apart already, [batch, heads, positions, size], are those of another sequence.
    """
    del opset
    heads = int(op.attr("num_heads", 0))
    beyond = any(has(op, index) for index in range(8, len(op.inputs))) or len(op.outputs) > 3
    if beyond or heads <= 0 or _rank(op, 4) not in (None, 2, 3) or has(op, 6) != has(op, 7):
        return None
    found = _packed(op, heads) if not has(op, 1) else _apart(op, heads)
    if found is None:
        return None
    lines, size, width = found
    past = ("x6", "x7") if has(op, 6) else None
    lines += [*_behind(past), *_scores(size, op), *_padding(op, 4), *_bias(op, 5), *_causal(op, past)]
    return [*lines, *_mixed(width), *_presents(op)]


def projected_attention(op: OnnxOp, opset: int) -> list[str] | None:
    """com.microsoft's Attention: projects its input to queries, keys and values first; its past has both in one."""
    del opset
    if any(has(op, index) for index in range(6, len(op.inputs))):
        return None
    lines = ["projected = MatMul (x0, x1)"]
    lines.append("all = Add (projected, x2)" if has(op, 2) else "all = Identity (projected)")
    return _attended(op, lines, mask=3, past=4, bias=5)


def quantized_attention(op: OnnxOp, opset: int) -> list[str] | None:
    """com.microsoft's QAttention: the same where input and weights are integers of 8 bits. All behind is in floats."""
    del opset
    zeros = [f"x{index}" if has(op, index) else "" for index in (6, 7)]
    while zeros and not zeros[-1]:
        zeros.pop()
    lines = [f"sums = MatMulInteger ({', '.join(['x0', 'x1', *zeros])})", "scales = Mul (x3, x4)"]
    lines += ["wide = CastLike (sums, x2)", "projected = Mul (wide, scales)", "all = Add (projected, x2)"]
    return _attended(op, lines, mask=5, past=8, bias=None)


def _attended(op: OnnxOp, lines: list[str], *, mask: int, past: int, bias: int | None) -> list[str] | None:
    """Queries, keys and values of `all`, and what comes of them. Numbers are those of inputs, `bias` is of scores."""
    weights = dims_of(op.operands[1])
    heads = int(op.attr("num_heads", 0))
    if len(op.outputs) > 2 or weights is None or len(weights) != 2 or not weights[1].is_constant:
        return None
    widths = list(op.attr("qkv_hidden_sizes") or [weights[1].as_int() // 3] * 3)
    if op.attr("do_rotary", 0) or not _splits(widths, heads) or sum(widths) != weights[1].as_int():
        return None
    if _rank(op, mask) not in (None, 2, 3):
        return None
    lines += [integers("widths", *widths), "piece0, piece1, piece2 = Split <axis: int = 2> (all, widths)"]
    lines += [
        line for index, width in enumerate(widths) for line in _heads(index, f"piece{index}", heads, width // heads)
    ]
    before = ("past0", "past1") if has(op, past) else None
    for index, name in enumerate(before or ()):
        lines += [
            f"at{index} = Constant <value_int: int = {index}> ()",
            f"{name} = Gather <axis: int = 0> (x{past}, at{index})",
        ]
    lines += [*_behind(before), *_scores(widths[0] // heads, op, like="all"), *_padding(op, mask, "all")]
    lines += ["s2 = Identity (s1)"] if bias is None else _bias(op, bias)
    lines += [*_causal(op, before, "all"), *_mixed(widths[2])]
    if len(op.outputs) > 1 and op.outputs[1] is not None:
        lines += [integers("front", 0), "k1 = Unsqueeze (keys, front)", "v1 = Unsqueeze (values, front)"]
        lines.append("y1 = Concat <axis: int = 0> (k1, v1)")
    return lines


def group_query_attention(op: OnnxOp, opset: int) -> list[str] | None:
    """Fewer heads of keys than of queries, rotated, behind what is cached; each sequence has a length of its own.

    A sink of each head, or 0 for a smooth softmax, is one more score that weighs nothing.
    """
    del opset
    heads, groups = int(op.attr("num_heads", 0)), int(op.attr("kv_num_heads", 0))
    width = dims_of(op.operands[0])
    beyond = any(has(op, index) for index in range(12, len(op.inputs))) or len(op.outputs) > 3
    if beyond or min(heads, groups) <= 0 or heads % groups or not width or not width[-1].is_constant:
        return None
    if int(op.attr("qk_output", 0)) > 0 or has(op, 3) != has(op, 4):
        return None
    parts = heads if has(op, 1) else heads + 2 * groups
    size, rest = divmod(width[-1].as_int(), parts)
    if rest or not size:
        return None
    lines = _separated(op, heads, groups, size)
    lines += [f"total32 = Cast <to: int = {_INT64}> (x5)", integers("one", 1), "total = Add (total32, one)"]
    lines += ["shape = Shape <start: int = 1, end: int = 2> (x0)", "ahead = Sub (total, shape)"]
    lines += [integers("zero", 0), "before = Max (ahead, zero)", "before2 = Unsqueeze (before, one)"]
    lines += [*_range("along", "shape"), "places = Add (before2, along)"]
    if op.attr("do_rotary", 0):
        turned = _turned(op, heads, groups, size)
        if turned is None:
            return None
        lines += turned
    lines += _cached(op)
    lines += [*_repeated(groups, heads, size), *_scores(size, op, "query", "kr")]
    if softcap := float(op.attr("softcap", 0.0)):
        lines += [*number("cap", softcap, "x0"), "small = Div (s0, cap)", "curve = Tanh (small)"]
        lines += ["s0c = Mul (curve, cap)"]
    lines += _bias(op, 10, "s0c" if softcap else "s0")
    lines += [*_visible(int(op.attr("local_window_size", -1))), *number("lowest", _LOWEST, "x0")]
    lines.append("scores = Where (keep, s2, lowest)")
    return [*lines, *_mixed(heads * size, values="vr", sink=_sink(op, heads)), *_kept(op)]


def _splits(widths: Sequence[int], heads: int) -> bool:
    return heads > 0 and all(width >= heads and width % heads == 0 for width in widths)


def _rank(op: OnnxOp, index: int) -> int | None:
    """The rank of an input; None where it is left out, 0 where it is not known."""
    value = op.input_at(index)
    dims = dims_of(value) if value is not None else None
    return None if value is None else len(dims or ())


def _heads(index: int, source: str, heads: int, size: int) -> list[str]:
    return [
        integers(f"split{index}", 0, 0, heads, size),
        f"apart{index} = Reshape ({source}, split{index})",
        f"h{index} = Transpose <perm: ints = [0, 2, 1, 3]> (apart{index})",
    ]


def _apart(op: OnnxOp, heads: int) -> tuple[list[str], int, int] | None:
    """The lines for queries, keys and values of three dimensions, the size of a head, the width of all values."""
    dims = [None if (value := op.input_at(index)) is None else dims_of(value) for index in range(3)]
    if [None if each is None else len(each) for each in dims] == [3, 4, 4]:
        return _across(op, heads)
    known = [each for each in dims if each is not None and len(each) == 3 and each[2].is_constant]
    widths = [each[2].as_int() for each in known]
    if len(known) != 3 or not _splits(widths, heads):
        return None
    lines: list[str] = []
    if has(op, 3):
        lines += [integers("widths", *widths), "bias0, bias1, bias2 = Split <axis: int = 0> (x3, widths)"]
        lines += [f"added{index} = Add (x{index}, bias{index})" for index in range(3)]
    source = "added" if has(op, 3) else "x"
    for index, width in enumerate(widths):
        lines += _heads(index, f"{source}{index}", heads, width // heads)
    return lines, widths[0] // heads, widths[2]


def _across(op: OnnxOp, heads: int) -> tuple[list[str], int, int] | None:
    """The same for keys and values of four dimensions, to which no bias is added."""
    query, _, value = (dims_of(operand) for operand in op.operands[:3])
    if not query or not value or not query[2].is_constant or not value[3].is_constant or len(op.outputs) > 1:
        return None
    width = query[2].as_int()
    if not _splits([width], heads):
        return None
    lines = ["query3 = Identity (x0)"]
    if has(op, 3):
        lines = [integers("from", 0), integers("to", width), "bias0 = Slice (x3, from, to)", "query3 = Add (x0, bias0)"]
    lines += [*_heads(0, "query3", heads, width // heads), "h1 = Identity (x1)", "h2 = Identity (x2)"]
    return lines, width // heads, heads * value[3].as_int()


def _behind(past: tuple[str, str] | None) -> list[str]:
    """`keys` and `values`: those of the past, and the new ones behind them."""
    if past is None:
        return ["keys = Identity (h1)", "values = Identity (h2)"]
    return [f"keys = Concat <axis: int = 2> ({past[0]}, h1)", f"values = Concat <axis: int = 2> ({past[1]}, h2)"]


def _packed(op: OnnxOp, heads: int) -> tuple[list[str], int, int] | None:
    """The same for [batch, positions, heads, 3, size]."""
    dims = dims_of(op.operands[0])
    if dims is None or len(dims) != 5 or not dims[4].is_constant or has(op, 2) or has(op, 3):
        return None
    size = dims[4].as_int()
    lines = [integers("each", 1, 1, 1), "piece0, piece1, piece2 = Split <axis: int = 3> (x0, each)"]
    lines += [line for index in range(3) for line in _heads(index, f"piece{index}", heads, size)]
    return lines, size, heads * size


def _separated(op: OnnxOp, heads: int, groups: int, size: int) -> list[str]:
    if has(op, 1):
        sources, lines = ["x0", "x1", "x2"], list[str]()
    else:
        widths = integers("widths", heads * size, groups * size, groups * size)
        sources, lines = (
            ["piece0", "piece1", "piece2"],
            [widths, "piece0, piece1, piece2 = Split <axis: int = 2> (x0, widths)"],
        )
    for index, source in enumerate(sources):
        lines += _heads(index, source, groups if index else heads, size)
    return lines


def _range(name: str, length: str) -> list[str]:
    """0, 1, … up to a length, which is given as the one element of a list."""
    scalars = [f"{name}_{at} = Constant <value_int: int = {at}> ()" for at in (0, 1)]
    return [
        *scalars,
        f"{name}_end = Squeeze ({length})",
        f"{name} = Range ({name}_0, {name}_end, {name}_1)",
    ]


def _turned(op: OnnxOp, heads: int, groups: int, size: int) -> list[str] | None:
    """Queries and keys turned by the angles of their places, all heads at once."""
    cache = None if (value := op.input_at(7)) is None else dims_of(value)
    if not cache or not cache[-1].is_constant or not has(op, 8):
        return None
    turns = "x9" if has(op, 9) else "places"
    lines = [f"cos = Gather (x7, {turns})", f"sin = Gather (x8, {turns})"]
    lines += ["cos4 = Unsqueeze (cos, one)", "sin4 = Unsqueeze (sin, one)", "x = Concat <axis: int = 1> (h0, h1)"]
    lines += rotated(cache[-1].as_int(), size, pairs=bool(op.attr("rotary_interleaved", 0)))
    return [*lines, integers("both_heads", heads, groups), "q, k = Split <axis: int = 1> (turned, both_heads)"]


def _cached(op: OnnxOp) -> list[str]:
    """`keys` and `values`: what is cached of each sequence, what is new behind it, and then what nothing looks at."""
    rotary = bool(op.attr("do_rotary", 0))
    new, lines = ("k" if rotary else "h1"), ["query = Identity (q)" if rotary else "query = Identity (h0)"]
    if not has(op, 3):
        return [*lines, f"keys = Identity ({new})", "values = Identity (h2)", *_range("slots", "shape")]
    lines += [f"all_keys = Concat <axis: int = 2> (x3, {new})", "all_values = Concat <axis: int = 2> (x4, h2)"]
    lines += [
        "room = Shape <start: int = 2, end: int = 3> (all_keys)",
        "old = Sub (room, shape)",
        *_range("slots", "room"),
    ]
    # Slot j of a sequence with n cached is the j-th cached one up to n, and the (j - n)-th new one behind.
    lines += ["is_old = Less (slots, before2)", "gap = Sub (old, before2)", "moved = Add (slots, gap)"]
    lines += ["wanted = Where (is_old, slots, moved)", "most = Sub (room, one)", "inside = Min (wanted, most)"]
    lines += [integers("ends", 1, 3), "places4 = Unsqueeze (inside, ends)", "whole = Shape (all_keys)"]
    lines += ["taken = Expand (places4, whole)"]
    gathered = "GatherElements <axis: int = 2>"
    return [*lines, f"keys = {gathered} (all_keys, taken)", f"values = {gathered} (all_values, taken)"]


def _repeated(groups: int, heads: int, size: int) -> list[str]:
    """`h0`, `kr` and `vr`: queries, and the keys and values of as many heads."""
    if groups == heads:
        return ["kr = Identity (keys)", "vr = Identity (values)"]
    lines = [integers("two", 2), integers("times", 1, 1, heads // groups, 1, 1), integers("spread", 0, heads, -1, size)]
    for name, source in (("kr", "keys"), ("vr", "values")):
        lines += [f"{name}5 = Unsqueeze ({source}, two)", f"{name}n = Expand ({name}5, times)"]
        lines.append(f"{name} = Reshape ({name}n, spread)")
    return lines


def _scores(size: int, op: OnnxOp, query: str = "h0", keys: str = "keys", like: str = "x0") -> list[str]:
    scale = float(op.attr("scale", 0.0)) or 1 / math.sqrt(size)
    return [
        f"turned_keys = Transpose <perm: ints = [0, 1, 3, 2]> ({keys})",
        f"product = MatMul ({query}, turned_keys)",
        *number("scale", scale, like),
        "s0 = Mul (product, scale)",
    ]


def _padding(op: OnnxOp, index: int, like: str = "x0") -> list[str]:
    """`s1`: keys that a mask [batch, keys] or [batch, queries, keys] excludes, with what is added to their scores."""
    if not has(op, index):
        return ["s1 = Identity (s0)"]
    fill = float(op.attr("mask_filter_value", _MASK_FILTER))
    return [
        f"given = Cast <to: int = {_INT64}> (x{index})",
        "nothing = Constant <value_int: int = 0> ()",
        "shown = Greater (given, nothing)",
        *number("none", 0.0, like),
        *number("fill", fill, like),
        "padding = Where (shown, none, fill)",
        integers("between", *((1, 2) if _rank(op, index) == 2 else (1,))),
        "padding4 = Unsqueeze (padding, between)",
        "s1 = Add (s0, padding4)",
    ]


def _bias(op: OnnxOp, index: int, scores: str = "s1") -> list[str]:
    return [f"s2 = Add ({scores}, x{index})" if has(op, index) else f"s2 = Identity ({scores})"]


def _causal(op: OnnxOp, past: tuple[str, str] | None, like: str = "x0") -> list[str]:
    """`scores`: those of keys behind a query's own place, which the past is in front of, are the lowest there are."""
    if not op.attr("unidirectional", 0):
        return ["scores = Identity (s2)"]
    lines = ["length = Shape <start: int = 2, end: int = 3> (h0)", *_range("step", "length")]
    lines += ["all_keys = Shape <start: int = 2, end: int = 3> (keys)", *_range("slot", "all_keys")]
    lines.append("at = Identity (step)")
    if past is not None:
        lines[-1:] = [f"before = Shape <start: int = 2, end: int = 3> ({past[0]})", "at = Add (step, before)"]
    lines += [integers("column", 1), "rows = Unsqueeze (at, column)", "keep = LessOrEqual (slot, rows)"]
    return [*lines, *number("lowest", _LOWEST, like), "scores = Where (keep, s2, lowest)"]


def _visible(window: int) -> list[str]:
    """`keep`: the keys up to a query's own place, of the last ones up to `window` where it is positive."""
    lines = [integers("sides", 1, 3), "rows = Unsqueeze (places, sides)", "up_to = LessOrEqual (slots, rows)"]
    if window <= 0:
        return [*lines, "keep = Identity (up_to)"]
    lines += [integers("window", window), "first = Sub (rows, window)", "near = Greater (slots, first)"]
    return [*lines, "keep = And (up_to, near)"]


def _sink(op: OnnxOp, heads: int) -> list[str]:
    """`sink` [heads, 1, 1], or nothing."""
    if has(op, 11):
        return [integers("one_each", heads, 1, 1), "sink = Reshape (x11, one_each)"]
    return number("sink", 0.0, "x0") if int(op.attr("smooth_softmax", 0)) > 0 else []


def _mixed(width: int, values: str = "values", sink: Sequence[str] = ()) -> list[str]:
    lines = ["weights = Softmax <axis: int = -1> (scores)"]
    if sink:
        lines = [*sink, integers("begin", 0), integers("last", -1), "column1 = Slice (scores, begin, one, last)"]
        lines += ["none = Sub (column1, column1)", "extra = Add (none, sink)"]
        lines += ["with_sink = Concat <axis: int = -1> (scores, extra)", "all = Softmax <axis: int = -1> (with_sink)"]
        lines.append("weights = Slice (all, begin, last, last)")
    return [
        *lines,
        f"mixed = MatMul (weights, {values})",
        "back = Transpose <perm: ints = [0, 2, 1, 3]> (mixed)",
        integers("joined", 0, 0, width),
        "y0 = Reshape (back, joined)",
    ]


def _presents(op: OnnxOp, prefix: str = "") -> list[str]:
    names = zip((1, 2), ("keys", "values"), strict=True)
    return [
        f"y{index} = Identity ({prefix}{name})"
        for index, name in names
        if len(op.outputs) > index and op.outputs[index]
    ]


def _kept(op: OnnxOp) -> list[str]:
    """`y1` and `y2`: what is cached and new; as long as the past where that is a buffer, with zeros behind."""
    room, new = _length(op.input_at(3), 2), _length(op.operands[0], 1)
    kept = None if len(op.outputs) < 2 else _length(op.outputs[1], 2)
    if room is None or kept is None or new is None or kept == room + new or not kept.is_constant:
        return _presents(op)
    lines = ["end = Add (before2, shape)", "is_behind = GreaterOrEqual (slots, end)", integers("around", 1, 3)]
    lines += ["is_behind4 = Unsqueeze (is_behind, around)", *number("nothing", 0.0, "x0")]
    lines += [integers("kept_from", 0), integers("kept_to", kept.as_int()), integers("kept_axis", 2)]
    for name in ("keys", "values"):
        lines.append(f"clean_{name} = Where (is_behind4, nothing, {name})")
        lines.append(f"kept_{name} = Slice (clean_{name}, kept_from, kept_to, kept_axis)")
    return [*lines, *_presents(op, "kept_")]


def _length(value: SSAValue | None, axis: int) -> Expr | None:
    dims = None if value is None else dims_of(value)
    return dims[axis] if dims is not None and len(dims) > axis else None
