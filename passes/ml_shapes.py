"""Shapes of the operators of `ai.onnx.ml`, where `onnx-shape-inference` and ONNX have no rule or a wrong one."""

from __future__ import annotations

from math import prod

import onnx_ir as ir
from onnx import defs
from onnx_shape_inference import ShapeInferenceContext, registry

DOMAIN = "ai.onnx.ml"
_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")


def extend_with_ml() -> None:
    """Registers the rules for every version of their operators, in place of what is there."""
    for schema in defs.get_all_schemas_with_history():
        rule = _RULES.get(schema.name)
        if schema.domain == DOMAIN and rule is not None:
            registry.register(DOMAIN, schema.name, schema.since_version)(rule)


def _array_feature_extractor(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """The columns that all indices together name, whatever their shape; a vector is one row."""
    data, indices = node.inputs[0], node.inputs[1]
    if data is None or indices is None or data.shape is None or indices.shape is None:
        return
    rows = list(data.shape[:-1]) if len(data.shape) > 1 else [1]
    ctx.set_shape_and_dtype(node.outputs[0], ir.Shape([*rows, _count(ctx, indices.shape)]), data.dtype)


def _count(ctx: ShapeInferenceContext, shape: ir.Shape) -> int | ir.SymbolicDim:
    numbers = [dim for dim in shape if isinstance(dim, int)]
    names = [dim for dim in shape if isinstance(dim, ir.SymbolicDim)]
    if len(names) > 1 or any(dim.value is None for dim in names):
        return ctx.new_symbolic_dim()
    return ctx.simplify_dim(names[0] * prod(numbers)) if names else prod(numbers)


def _classifier(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """A label a row, of the type of the labels, and a score for each of them."""
    strings, *numbers = (len(node.attributes[name].value) if name in node.attributes else 0 for name in _LABELS)
    rows = _rows(ctx, node)
    dtype = ir.DataType.STRING if strings else ir.DataType.INT64
    ctx.set_shape_and_dtype(node.outputs[0], ir.Shape([rows]), dtype)
    if len(node.outputs) > 1:
        # Of two classes, or one, some kernels give one score and some two: it depends on how they were trained.
        classes = max(strings, *numbers)
        scores = classes if classes > 2 else ctx.new_symbolic_dim()
        ctx.set_shape_and_dtype(node.outputs[1], ir.Shape([rows, scores]), ir.DataType.FLOAT)


def _regressor(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """As many values a row as there are targets."""
    targets = node.attributes.get("n_targets") or node.attributes.get("targets")
    count = targets.as_int() if targets is not None else 1
    ctx.set_shape_and_dtype(node.outputs[0], ir.Shape([_rows(ctx, node), count]), ir.DataType.FLOAT)


def _rows(ctx: ShapeInferenceContext, node: ir.Node) -> int | ir.SymbolicDim:
    data = node.inputs[0]
    if data is None or data.shape is None:
        return ctx.new_symbolic_dim()
    return data.shape[0] if len(data.shape) > 1 else 1


_RULES = {
    "ArrayFeatureExtractor": _array_feature_extractor,
    "LinearClassifier": _classifier,
    "LinearRegressor": _regressor,
    "SVMClassifier": _classifier,
    "SVMRegressor": _regressor,
    "TreeEnsembleClassifier": _classifier,
    "TreeEnsembleRegressor": _regressor,
}
