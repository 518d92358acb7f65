"""What com.microsoft's attentions compute, as lines of a function of ONNX's operators, in ONNX's text form.

Queries, keys and values get the shape [batch, heads, positions, size], scores are masked and weighed there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.passes.contrib_lines import has, integers, number, rotated

_INT64, _LOWEST = 7, -3.4028234663852886e38
_MASK_FILTER = -10000.0


def multi_head_attention(op: OnnxOp, opset: int) -> list[str] | None:
    """Queries, keys and values by themselves or packed, with a bias of all three, a mask and a bias of scores."""
    del opset
    heads = int(op.attr("num_heads", 0))
    beyond = any(has(op, index) for index in range(6, len(op.inputs))) or len(op.outputs) > 1
    if beyond or heads <= 0 or _rank(op, 4) not in (None, 2):
        return None
    found = _packed(op, heads) if not has(op, 1) else _apart(op, heads)
    if found is None:
        return None
    lines, size, width = found
    lines += [*_scores(size, op), *_padding(op, 4), *_bias(op, 5), *_causal(op)]
    return [*lines, *_mixed(width)]


def projected_attention(op: OnnxOp, opset: int) -> list[str] | None:
    """com.microsoft's Attention: projects its input to queries, keys and values first."""
    del opset
    weights = dims_of(op.operands[1])
    heads = int(op.attr("num_heads", 0))
    beyond = any(has(op, index) for index in (4, *range(6, len(op.inputs)))) or len(op.outputs) > 1
    if beyond or weights is None or len(weights) != 2 or not weights[1].is_constant or op.attr("do_rotary", 0):
        return None
    widths = list(op.attr("qkv_hidden_sizes") or [weights[1].as_int() // 3] * 3)
    if not _splits(widths, heads) or sum(widths) != weights[1].as_int() or _rank(op, 3) not in (None, 2):
        return None
    lines = ["projected = MatMul (x0, x1)"]
    lines.append("all = Add (projected, x2)" if has(op, 2) else "all = Identity (projected)")
    lines += [integers("widths", *widths), "piece0, piece1, piece2 = Split <axis: int = 2> (all, widths)"]
    lines += [
        line for index, width in enumerate(widths) for line in _heads(index, f"piece{index}", heads, width // heads)
    ]
    lines += [*_scores(widths[0] // heads, op), *_padding(op, 3), *_bias(op, 5), *_causal(op)]
    return [*lines, *_mixed(widths[2])]


def group_query_attention(op: OnnxOp, opset: int) -> list[str] | None:
    """Fewer heads of keys than of queries, rotated, behind what is cached; each sequence has a length of its own."""
    del opset
    heads, groups = int(op.attr("num_heads", 0)), int(op.attr("kv_num_heads", 0))
    width = dims_of(op.operands[0])
    beyond = any(has(op, index) for index in (9, *range(11, len(op.inputs)))) or len(op.outputs) > 3
    if beyond or min(heads, groups) <= 0 or heads % groups or not width or not width[-1].is_constant:
        return None
    if any(int(op.attr(name, 0)) > 0 for name in ("smooth_softmax", "qk_output")) or has(op, 3) != has(op, 4):
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
    lines += [*_repeated(groups, heads, size), *_scores(size, op, keys="kr")]
    if softcap := float(op.attr("softcap", 0.0)):
        lines += [*number("cap", softcap, "x0"), "small = Div (s0, cap)", "curve = Tanh (small)"]
        lines += ["s0c = Mul (curve, cap)"]
    lines += _bias(op, 10, "s0c" if softcap else "s0")
    lines += [*_visible(int(op.attr("local_window_size", -1))), *number("lowest", _LOWEST, "x0")]
    lines.append("scores = Where (keep, s2, lowest)")
    return [*lines, *_mixed(heads * size, values="vr"), *_presents(op)]


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
    lines = ["cos = Gather (x7, places)", "sin = Gather (x8, places)"]
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


def _scores(size: int, op: OnnxOp, keys: str = "h1") -> list[str]:
    scale = float(op.attr("scale", 0.0)) or 1 / math.sqrt(size)
    query = "h0" if keys == "h1" else "query"
    return [
        f"turned_keys = Transpose <perm: ints = [0, 1, 3, 2]> ({keys})",
        f"product = MatMul ({query}, turned_keys)",
        *number("scale", scale, "x0"),
        "s0 = Mul (product, scale)",
    ]


def _padding(op: OnnxOp, index: int) -> list[str]:
    """`s1`: keys that a mask [batch, keys] excludes, with what ONNX Runtime adds to their scores."""
    if not has(op, index):
        return ["s1 = Identity (s0)"]
    fill = float(op.attr("mask_filter_value", _MASK_FILTER))
    return [
        f"given = Cast <to: int = {_INT64}> (x{index})",
        "nothing = Constant <value_int: int = 0> ()",
        "shown = Greater (given, nothing)",
        *number("none", 0.0, "x0"),
        *number("fill", fill, "x0"),
        "padding = Where (shown, none, fill)",
        integers("between", 1, 2),
        "padding4 = Unsqueeze (padding, between)",
        "s1 = Add (s0, padding4)",
    ]


def _bias(op: OnnxOp, index: int, scores: str = "s1") -> list[str]:
    return [f"s2 = Add ({scores}, x{index})" if has(op, index) else f"s2 = Identity ({scores})"]


def _causal(op: OnnxOp) -> list[str]:
    if not op.attr("unidirectional", 0):
        return ["scores = Identity (s2)"]
    return [
        "length = Shape <start: int = 2, end: int = 3> (h0)",
        *_range("step", "length"),
        integers("column", 1),
        "rows = Unsqueeze (step, column)",
        "keep = LessOrEqual (step, rows)",
        *number("lowest", _LOWEST, "x0"),
        "scores = Where (keep, s2, lowest)",
    ]


def _visible(window: int) -> list[str]:
    """`keep`: the keys up to a query's own place, of the last ones up to `window` where it is positive."""
    lines = [integers("sides", 1, 3), "rows = Unsqueeze (places, sides)", "up_to = LessOrEqual (slots, rows)"]
    if window <= 0:
        return [*lines, "keep = Identity (up_to)"]
    lines += [integers("window", window), "first = Sub (rows, window)", "near = Greater (slots, first)"]
    return [*lines, "keep = And (up_to, near)"]


def _mixed(width: int, values: str = "h2") -> list[str]:
    return [
        "weights = Softmax <axis: int = -1> (scores)",
        f"mixed = MatMul (weights, {values})",
        "back = Transpose <perm: ints = [0, 2, 1, 3]> (mixed)",
        integers("joined", 0, 0, width),
        "y0 = Reshape (back, joined)",
    ]


def _presents(op: OnnxOp) -> list[str]:
    names = zip((1, 2), ("keys", "values"), strict=True)
    return [f"y{index} = Identity ({name})" for index, name in names if len(op.outputs) > index and op.outputs[index]]
