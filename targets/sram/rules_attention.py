"""Rules for ONNX's own Attention and RotaryEmbedding: two products around a softmax, and a rotation of halves."""

from __future__ import annotations

from math import inf, sqrt

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import ONE, ZERO, Expr
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.expression import Argument, Index
from gimlet.targets.sram.lowering import Lowering, Rule, shape_of, vector_type
from gimlet.targets.sram.products import multiply
from gimlet.targets.sram.rules_elementwise import present, result
from gimlet.targets.sram.rules_reduce import softmax
from gimlet.targets.sram.rules_shape import reshaped
from gimlet.targets.sram.views import Shape, View


def _heads(lowering: Lowering, value: SSAValue, heads: int | None) -> View:
    """A value as [batch, heads, length, size]; of three dimensions it has the heads side by side in the last."""
    view, shape = lowering.view(value), shape_of(value)
    if len(shape) == 4:
        return view
    if heads is None:
        raise RefusedError("Attention of three dimensions says how many heads there are")
    batch, length, width = shape
    split = (batch, length, Expr.const(heads), Expr.const(width.as_int() // heads))
    return reshaped(lowering, view, split).transpose((0, 2, 1, 3))


def _joined(lowering: Lowering, past: SSAValue | None, new: View) -> View:
    """What the cache holds, followed by what is new, along the length."""
    if past is None:
        return new
    before = lowering.view(past)
    length = before.shape[2]
    target = lowering.builder.temporary("f32", (*new.shape[:2], length + new.shape[2], new.shape[3]))
    lowering.emit(before, target.slice(2, 0, length), "concat")
    lowering.emit(new, target.slice(2, length, new.shape[2]), "concat")
    return target


def _attention(lowering: Lowering, op: OnnxOp) -> None:
    outputs = list(op.outputs) + [None] * (4 - len(op.outputs))
    if outputs[3] is not None:
        raise RefusedError("the scores of Attention are not generated, only its result")
    query = _heads(lowering, present(op, 0), op.attr("q_num_heads"))
    past_key, past_value = op.input_at(4), op.input_at(5)
    keys = _joined(lowering, past_key, _heads(lowering, present(op, 1), op.attr("kv_num_heads")))
    values = _joined(lowering, past_value, _heads(lowering, present(op, 2), op.attr("kv_num_heads")))
    batch, query_heads, length, _ = query.shape
    heads = keys.shape[1]
    group = Expr.const(query_heads.as_int() // heads.as_int())
    scores = _scores(lowering, op, query, keys, group)
    weights = softmax(lowering, scores, [4], dtype=lowering.activation_type)
    held = lowering.converted(values, lowering.activation_type).unsqueeze(2)
    product = multiply(lowering, op, weights, held, (batch, heads, group))
    width = values.shape[3]
    shape = (batch, heads, group, length, width)
    value = result(op)
    found = lowering.computed(product, shape, "f32")
    found = reshaped(lowering, found, (batch, query_heads, length, width))
    if len(shape_of(value)) == 3:
        found = reshaped(lowering, found.transpose((0, 2, 1, 3)), shape_of(value))
    lowering.define(value, found)
    lowering.define(outputs[1], keys)
    lowering.define(outputs[2], values)


def _scores(lowering: Lowering, op: OnnxOp, query: View, keys: View, group: Expr) -> View:
    """Scaled and masked scores, [batch, heads, group, length, total]."""
    batch, query_heads, length, size = query.shape
    heads, total = keys.shape[1], keys.shape[2]
    shape = (batch, heads, group, length, total)
    dtype = lowering.activation_type
    left = lowering.converted(query, dtype)
    left = reshaped(lowering, left, (batch, heads, group, length, size))
    right = lowering.converted(keys, dtype).unsqueeze(2).transpose((0, 1, 2, 4, 3))
    product = multiply(lowering, op, left, right, shape[:3])
    scale = op.attr("scale")
    scale = 1.0 / sqrt(size.as_int()) if scale is None else float(scale)
    found: Argument = lowering.node("mul", (product, scale), shape)
    cap = float(op.attr("softcap", 0.0) or 0.0)
    if cap > 0:
        inner = lowering.node("tanh", (lowering.node("mul", (found, 1.0 / cap), shape),), shape)
        found = lowering.node("mul", (inner, cap), shape)
    mask = op.input_at(3)
    if mask is not None:
        found = _masked(lowering, mask, found, shape, query_heads)
    seen = _visible(lowering, op, shape)
    if seen is not None:
        found = lowering.node("select", (seen, found, -inf), shape)
    return lowering.computed(found, shape, "f32")


def _visible(lowering: Lowering, op: OnnxOp, shape: Shape) -> Argument | None:
    """Which keys a query may see for where it stands: those before it, in its window, in its sequence; None for all."""
    past, counts = op.input_at(4), op.input_at(6)
    left, right = int(op.attr("left_window_size", -1)), int(op.attr("right_window_size", -1))
    each = (shape[0], ONE, ONE, ONE, ONE)
    valid: Argument | None = None
    offset: Argument = ZERO if past is None else shape_of(past)[2]
    if counts is not None:
        valid = reshaped(lowering, lowering.view(counts), each)
        offset = lowering.node("sub", (valid, shape[3]), each, "i64")
    row = Index(1) if offset == ZERO else lowering.node("add", (Index(1), offset), shape, "i64")

    def shifted(by: int) -> Argument:
        return lowering.node("add", (row, by), shape, "i64") if by else row

    limits: list[tuple[str, Argument]] = [("less", valid)] if valid is not None else []
    limits += [("less_equal", row)] if op.attr("is_causal", 0) else []
    limits += [("greater_equal", shifted(-left))] if left >= 0 else []
    limits += [("less_equal", shifted(right))] if right >= 0 else []
    seen: Argument | None = None
    for function, limit in limits:
        allowed = lowering.node(function, (Index(0), limit), shape, "i1")
        seen = allowed if seen is None else lowering.node("and", (seen, allowed), shape, "i1")
    return seen


def _masked(lowering: Lowering, mask: SSAValue, scores: Argument, shape: Shape, query_heads: Expr) -> Argument:
    _, heads, group, _, total = shape
    view = lowering.view(mask)
    if view.shape[-1] != total:
        raise RefusedError(f"the mask of Attention has {view.shape[-1]} columns for {total} keys")
    while len(view.shape) < 4:
        view = view.unsqueeze(0)
    if view.shape[1] == ONE:
        view = view.unsqueeze(2)
    else:
        view = view.expand((view.shape[0], query_heads, *view.shape[2:]))
        view = reshaped(lowering, view, (view.shape[0], heads, group, *view.shape[2:]))
    if vector_type(mask) == "i1":
        return lowering.node("select", (view, scores, -inf), shape)
    return lowering.node("add", (scores, view), shape)


def _rotary_embedding(lowering: Lowering, op: OnnxOp) -> None:
    source, value = present(op, 0), result(op)
    shape = shape_of(source)
    view = lowering.view(source)
    if len(shape) == 3:
        heads = int(op.attr("num_heads", 0))
        if not heads:
            raise RefusedError("RotaryEmbedding of three dimensions says how many heads there are")
        split = (shape[0], shape[1], Expr.const(heads), Expr.const(shape[2].as_int() // heads))
        view = reshaped(lowering, view, split)
    else:
        view = view.transpose((0, 2, 1, 3))
    batch, length, heads_size, size = view.shape
    turned = int(op.attr("rotary_embedding_dim", 0) or 0) or size.as_int()
    half = Expr.const(turned // 2)
    cosine, sine = (_cache(lowering, op, index, (batch, length, half)) for index in (1, 2))
    target = lowering.builder.temporary("f32", view.shape)
    parts = ((0, 2), (1, 2)) if op.attr("interleaved", 0) else ((0, 1), (turned // 2, 1))
    first, second = (view.slice(3, begin, half, step) for begin, step in parts)
    place = (batch, length, heads_size, half)
    real = lowering.node("mul", (first, cosine), place), lowering.node("mul", (second, sine), place)
    imaginary = lowering.node("mul", (first, sine), place), lowering.node("mul", (second, cosine), place)
    begin, step = parts[0]
    lowering.emit(lowering.node("sub", real, place), target.slice(3, begin, half, step), "rotate")
    begin, step = parts[1]
    lowering.emit(lowering.node("add", imaginary, place), target.slice(3, begin, half, step), "rotate")
    if turned < size.as_int():
        rest = size - turned
        lowering.emit(view.slice(3, turned, rest), target.slice(3, turned, rest), "rotate")
    if len(shape) == 3:
        lowering.define(value, reshaped(lowering, target, shape))
    else:
        lowering.define(value, target.transpose((0, 2, 1, 3)))


def _cache(lowering: Lowering, op: OnnxOp, index: int, shape: Shape) -> View:
    """The cosines or sines of each position as [batch, length, 1, half]."""
    if op.input_at(3) is not None:
        raise RefusedError("RotaryEmbedding that looks positions up itself is not generated")
    view = lowering.view(present(op, index))
    return view.expand(shape).unsqueeze(2)


RULES: dict[str, Rule] = {
    "Attention": _attention,
    "RotaryEmbedding": _rotary_embedding,
}
