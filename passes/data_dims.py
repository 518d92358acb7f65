"""Dimensions that depend on data, as how many elements NonZero finds: each a symbol with an upper limit.

The limit is an expression over the dimensions of the operator's inputs. The library takes every symbol for at least 1,
and such a dimension may be 0, so it is told `s - 1`, where `s` is one more than the dimension.

Dimensions inside of a Loop, an If or a Scan get no symbols: there is one for each time that the body runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import onnx_ir as ir
from onnx_shape_inference import ShapeInferenceContext

LIMITS = "gimlet.limits"
"""In the metadata of an inferred value: for each axis that depends on data, its symbol's spelling and its limit."""
TOP_LEVEL = "node"
"""The names of the nodes outside of subgraphs begin so, with a number behind it, while shapes are inferred."""

_ENDLESS = 1 << 30
Dim = int | ir.SymbolicDim


def non_zero(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """At most all elements of the input."""
    _limit(ctx, node, [(0, 1)], _count(node.inputs[0]))


def compress(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """At most what there is along the axis, or all elements."""
    data = node.inputs[0]
    axis = node.attributes.get("axis")
    if axis is None:
        _limit(ctx, node, [(0, 0)], _count(data))
    else:
        _limit(ctx, node, [(0, axis.as_int())], _size(data, axis.as_int()))


def unique(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """At most what there is along the axis, or all elements; the indices and the counts are as many."""
    data = node.inputs[0]
    axis = node.attributes.get("axis")
    limit = _count(data) if axis is None else _size(data, axis.as_int())
    along = 0 if axis is None else axis.as_int()
    places = [(0, along), *((index, 0) for index in (1, 3) if index < len(node.outputs))]
    _limit(ctx, node, places, limit)


def non_max_suppression(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """For each image and class at most its boxes, and at most as many as it is told."""
    boxes, scores = node.inputs[0], node.inputs[1]
    kept = _size(boxes, 1)
    most = ir.convenience.get_const_tensor(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    if kept is not None and most is not None and most.size == 1:
        kept = f"Min({kept}, {int(most.numpy().item())})"
    _limit(ctx, node, [(0, 0)], _product([_size(scores, 0), _size(scores, 1), kept]))


def top_k(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """At most what there is along the axis."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    _limit(ctx, node, [(0, axis), (1, axis)], _size(node.inputs[0], axis))


def sliced(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """Of each axis at most what there is."""
    data, output = node.inputs[0], node.outputs[0]
    for axis in range(len(output.shape) if output.shape is not None else 0):
        _limit(ctx, node, [(0, axis)], _size(data, axis))


def loop(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """What a Loop collects has one item for each turn, of which it takes at most as many as it is told."""
    most = node.inputs[0]
    elements = ctx.get_symbolic_value(most) if most is not None else None
    tensor = ir.convenience.get_const_tensor(most) if most is not None else None
    limit: str | None = None
    if tensor is not None and tensor.size == 1 and int(tensor.numpy().item()) < _ENDLESS:
        limit = str(max(0, int(tensor.numpy().item())))
    elif elements is not None and len(elements) == 1:
        limit = _text(elements[0])
    for index in range(len(node.inputs) - 2, len(node.outputs)):
        _limit(ctx, node, [(index, 0)], limit)


def _limit(ctx: ShapeInferenceContext, node: ir.Node, places: Sequence[tuple[int, int]], limit: str | None) -> None:
    """Makes one symbol of the dimensions at `places` (output, axis), which are equal, where nothing else is known."""
    if limit is None or not (node.name or "").startswith(TOP_LEVEL):
        return
    name = f"{node.name}_{places[0][0]}_{places[0][1] if places[0][1] >= 0 else 'last'}"
    for index, axis in places:
        output = node.outputs[index]
        if output.shape is None or not -len(output.shape) <= axis < len(output.shape):
            continue
        dim = output.shape[axis]
        if isinstance(dim, int) or (dim.value is not None and not ctx.is_generated_symbol(dim.value)):
            continue
        dims = list(output.shape)
        dims[axis] = ir.SymbolicDim(f"{name} - 1")
        output.shape = ir.Shape(dims)
        known = json.loads(output.metadata_props.get(LIMITS, "{}"))
        output.metadata_props[LIMITS] = json.dumps({**known, str(axis % len(dims)): [name, limit]})


def _text(dim: Dim) -> str | None:
    return str(dim) if isinstance(dim, int) else dim.value


def _size(value: ir.Value | None, axis: int) -> str | None:
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    return _text(value.shape[axis])


def _count(value: ir.Value | None) -> str | None:
    return None if value is None or value.shape is None else _product([_text(dim) for dim in value.shape])


def _product(factors: Sequence[str | None]) -> str | None:
    known = [f"({factor})" for factor in factors if factor is not None]
    return ("*".join(known) or "1") if len(known) == len(factors) else None


DATA_RULES: dict[str, Callable[[ShapeInferenceContext, ir.Node], None]] = {
    "Compress": compress,
    "Loop": loop,
    "NonMaxSuppression": non_max_suppression,
    "NonZero": non_zero,
    "Slice": sliced,
    "TopK": top_k,
    "Unique": unique,
}
