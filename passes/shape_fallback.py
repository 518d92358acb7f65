"""Types by ONNX's own inference, for operators and old versions of them that `onnx-shape-inference` has no rule for.

ONNX's knows sizes and names of dimensions, and nothing of expressions: what it cannot say is unknown. For operators
that have no inference there either, the element type is what the schema fixes, and the shape is unknown.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from onnx import defs, shape_inference
from onnx_shape_inference import ShapeInferenceContext, registry

from gimlet.dialects.onnx.ir_types import type_from_ir, type_from_proto, type_to_ir, type_to_proto
from gimlet.dialects.onnx.proto import is_disguised

_MOST_ELEMENTS = 64
_DOMAINS = ("", "ai.onnx.ml")
# Of these the result is as large as the first input, and ONNX has no inference.
_ELEMENTWISE = ("Imputer", "Normalizer", "Scaler")


def extend_with_fallback() -> None:
    """Registers ONNX's own inference for every schema in force that the library has no rule for."""
    for schema in defs.get_all_schemas_with_history():
        known = (schema.domain, schema.name, schema.since_version)
        if schema.domain in _DOMAINS and registry.get(*known) is None:
            registry.register(*known)(_by_schema(schema))


def _by_schema(schema: defs.OpSchema) -> Any:
    def infer(ctx: ShapeInferenceContext, node: ir.Node) -> None:
        types = _inferred(ctx, schema, node) if schema.has_type_and_shape_inference_function else {}
        for index, output in enumerate(node.outputs):
            found = types.get(output.name or "")
            if found is not None:
                _set(ctx, output, found)
            elif (dtype := _fixed_type(schema, node, index)) is not None:
                ctx.set_shape_and_dtype(output, _like_input(schema, node), dtype)

    return infer


def _inferred(ctx: ShapeInferenceContext, schema: defs.OpSchema, node: ir.Node) -> dict[str, onnx.TypeProto]:
    given = [value for value in node.inputs if value is not None and value.type is not None]
    inputs = {value.name or "": _type_proto(value) for value in given}
    tensors = {value.name or "": value.const_value for value in given if value.const_value is not None}
    values = {name: ir.to_proto(tensor) for name, tensor in tensors.items() if tensor.size <= _MOST_ELEMENTS}
    opsets = [onnx.helper.make_opsetid(schema.domain, schema.since_version)]
    try:
        return shape_inference.infer_node_outputs(schema, ir.to_proto(node), inputs, values, None, opsets)
    except (shape_inference.InferenceError, RuntimeError, ValueError, TypeError, KeyError) as error:
        ctx.record_error(node, str(error))
        return {}


def _type_proto(value: ir.Value) -> onnx.TypeProto:
    if isinstance(value.type, ir.TensorType) and not is_disguised(value.type.denotation):
        return ir.to_proto(ir.Value(name=value.name, type=value.type, shape=value.shape)).type
    return type_to_proto(type_from_ir(value.type, None)) if value.type is not None else onnx.TypeProto()


def _set(ctx: ShapeInferenceContext, output: ir.Value, found: onnx.TypeProto) -> None:
    type_, shape = type_to_ir(type_from_proto(found))
    if isinstance(type_, ir.TensorType) and shape is not None:
        dims = [_named(ctx, dim) for dim in shape]
        ctx.set_shape_and_dtype(output, ir.Shape(dims), type_.dtype)
    elif type_ is not None:
        ctx.set_type(output, type_)


def _named(ctx: ShapeInferenceContext, dim: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
    return dim if isinstance(dim, int) or dim.value is not None else ctx.new_symbolic_dim()


def _fixed_type(schema: defs.OpSchema, node: ir.Node, index: int) -> ir.DataType | None:
    """The element type of a result that the schema fixes, or that is an input's."""
    spelled = schema.outputs[min(index, len(schema.outputs) - 1)].type_str
    for parameter, value in zip(schema.inputs, node.inputs, strict=False):
        if parameter.type_str == spelled and value is not None:
            return value.dtype
    constraint = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}.get(spelled)
    allowed = [spelled] if constraint is None else list(constraint)
    if len(allowed) != 1:
        return None
    name = allowed[0].removeprefix("tensor(").removesuffix(")").upper()
    return ir.DataType[name] if name in ir.DataType.__members__ else None


def _like_input(schema: defs.OpSchema, node: ir.Node) -> ir.Shape | None:
    first = node.inputs[0] if node.inputs else None
    return first.shape if first is not None and schema.name in _ELEMENTWISE else None
