"""Shapes of what attentions give beside their result: the keys and values so far, and the scores.

`onnx-shape-inference` 0.4 has no expression for those of MultiHeadAttention where the past's length is a name, takes
the size of a value for that of a query, has no heads in those of ONNX's Attention of three dimensions, and takes what a
GroupQueryAttention is given as the past for no longer than it is filled.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_shape_inference import ShapeInferenceContext

Dim = int | ir.SymbolicDim


def multi_head_attention(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """com.microsoft's: keys and values [batch, heads, past and new, size], scores [batch, heads, queries, keys]."""
    query, key, value, past = (_shape(node, index) for index in (0, 1, 2, 6))
    given, heads = node.inputs[0], node.attributes.get("num_heads")
    # With a length of its own the past is a buffer, as large as the result.
    if given is None or query is None or heads is None or heads.as_int() < 1 or _input(node, 8) is not None:
        return
    keys, count = query if key is None else key, heads.as_int()
    if min(len(query), len(keys)) < 3 or (value is not None and len(value) < 3):
        return
    new = keys[2] if len(keys) == 4 else keys[1]
    total = ctx.simplify_dim(new + past[2]) if past is not None and len(past) == 4 else new
    sizes = [_head_size(ctx, each, count) for each in (keys, keys if value is None else value)]
    for output, size in zip(node.outputs[1:3], sizes, strict=False):
        _set_type(output, given)
        output.shape = ir.Shape([query[0], count, total, size])
    if value is not None and len(value) == 4:
        node.outputs[0].shape = ir.Shape([query[0], query[1], _times(ctx, count, value[3])])
    if len(node.outputs) > 3:
        _set_type(node.outputs[3], given)
        node.outputs[3].shape = ir.Shape([query[0], count, query[1], total])


def attention(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """ONNX's of three dimensions and without a past: [batch, heads of keys, keys, size]."""
    query, key, heads = _shape(node, 0), _shape(node, 1), node.attributes.get("kv_num_heads")
    if query is None or len(query) != 3 or heads is None or heads.as_int() < 1 or _input(node, 4) is not None:
        return
    count = heads.as_int()
    for index, output in enumerate(node.outputs[1:3], start=1):
        given = _shape(node, index)
        if given is not None and len(given) == 3:
            output.shape = ir.Shape([given[0], count, given[1], _head_size(ctx, given, count)])
    scores = node.outputs[3] if len(node.outputs) > 3 else None
    if scores is not None and scores.shape is not None and key is not None:
        scores.shape = ir.Shape([*scores.shape[:3], key[1]])


def group_query_attention(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """com.microsoft's keys and values where the past is a buffer with room for the new ones: as long as that.

    How far it is filled, the total length says, where that is a number. Where it is not, the past is taken for full.
    """
    past, total = _shape(node, 3), _number(ctx, _input(node, 6))
    room = past[2] if past is not None and len(past) == 4 else None
    if total is None or not isinstance(room, int):
        return
    for output in node.outputs[1:3]:
        if output.shape is not None and len(output.shape) == 4:
            output.shape = ir.Shape([*output.shape[:2], max(room, total), output.shape[3]])


def _number(ctx: ShapeInferenceContext, value: ir.Value | None) -> int | None:
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None:
        return int(tensor.numpy().item()) if tensor.size == 1 else None
    elements = ctx.get_symbolic_value(value)
    return elements[0] if elements and len(elements) == 1 and isinstance(elements[0], int) else None


def _set_type(value: ir.Value, like: ir.Value) -> None:
    if like.dtype is not None:
        value.dtype = like.dtype


def _head_size(ctx: ShapeInferenceContext, shape: ir.Shape, heads: int) -> Dim:
    """The size of a head of keys or values, whose heads are apart where there are more than three dimensions."""
    width = shape[-1]
    if len(shape) > 3:
        return width
    return width // heads if isinstance(width, int) else ctx.new_symbolic_dim()


def _times(ctx: ShapeInferenceContext, count: int, size: Dim) -> Dim:
    return count * size if isinstance(size, int) else ctx.new_symbolic_dim()


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _shape(node: ir.Node, index: int) -> ir.Shape | None:
    value = _input(node, index)
    return None if value is None else value.shape
