"""Rewrites a model so that number formats without CPU kernels are computed in float32.

    y = MatMul(a, b)            a_f32 = Cast<to=FLOAT>(a)      b_f32 = Cast<to=FLOAT>(b)
    (all bfloat16)         →    y_f32 = MatMul(a_f32, b_f32)
                                y     = Cast<to=BFLOAT16>(y_f32)

Values keep their names and types; only what happens inside an op changes. A node that has a kernel for the types it
carries stays as it is. A parameter that may not be float32 by the operator's schema (the quantised side of a
QuantizeLinear) keeps its type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from gimlet.dialects.onnx.schema import OpSchema, Parameter, schema_table
from gimlet.dialects.onnx.types import element_by_code
from gimlet.targets.api import Reason
from gimlet.targets.onnxruntime.kernels import has_kernel, value_types

NARROW = frozenset(
    {
        ir.DataType.BFLOAT16,
        ir.DataType.FLOAT8E4M3FN,
        ir.DataType.FLOAT8E4M3FNUZ,
        ir.DataType.FLOAT8E5M2,
        ir.DataType.FLOAT8E5M2FNUZ,
        ir.DataType.FLOAT8E8M0,
        ir.DataType.FLOAT4E2M1,
    }
)
"""Floating-point formats that a CPU seldom has kernels for."""

_FLOAT = ir.DataType.FLOAT
_TYPE_ATTRIBUTES = ("dtype", "to", "output_dtype")


def widen_missing_formats(model: ir.Model) -> list[Reason]:
    """Rewrites the model in place. The reasons are those of nodes that cannot be computed this way."""
    opsets = dict(model.graph.opset_imports)
    reasons: list[Reason] = []
    for graph in _graphs(model.graph):
        cast_inputs: dict[ir.Value, ir.Value] = {}
        for node in tuple(graph):
            if any(_is_narrow(value) for value in (*node.inputs, *node.outputs)) and not _has_kernel(node, opsets):
                reason = _widen(graph, node, _schema(node, opsets), opsets, cast_inputs)
                if reason is not None:
                    reasons.append(reason)
    return reasons


def _graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    yield graph
    for node in tuple(graph):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _graphs(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for inner in attribute.as_graphs():
                    yield from _graphs(inner)


def _is_narrow(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in NARROW


def _schema(node: ir.Node, opsets: dict[str, int]) -> OpSchema | None:
    return schema_table().in_force(node.domain, node.op_type, opsets.get(node.domain, 1))


def _has_kernel(node: ir.Node, opsets: dict[str, int]) -> bool:
    schema = _schema(node, opsets)
    if schema is None:
        return False
    types = value_types(schema, map(_onnx_type, node.inputs), map(_onnx_type, node.outputs))
    return has_kernel(node.domain, node.op_type, schema.since_version, types)


def _onnx_type(value: ir.Value | None) -> str | None:
    if value is None or value.dtype is None:
        return None
    return f"tensor({element_by_code(int(value.dtype)).onnx})"


def _may_be_float(parameters: Sequence[Parameter] | None, index: int) -> bool:
    if not parameters:
        return True
    return "tensor(float)" in OpSchema.parameter(tuple(parameters), index).types


def _widen(
    graph: ir.Graph,
    node: ir.Node,
    schema: OpSchema | None,
    opsets: dict[str, int],
    cast_inputs: dict[ir.Value, ir.Value],
) -> Reason | None:
    for index, value in enumerate(node.inputs):
        if value is None or not _is_narrow(value) or not _may_be_float(schema and schema.inputs, index):
            continue
        if not _castable(value, opsets):
            return Reason(node.name or node.op_type, f"nothing on a CPU casts {_onnx_type(value)}")
        if value not in cast_inputs:
            wide = ir.Value(name=f"{value.name}$wide", type=ir.TensorType(_FLOAT), shape=value.shape)
            graph.insert_before(node, _cast(value, wide, _FLOAT))
            cast_inputs[value] = wide
        node.replace_input_with(index, cast_inputs[value])
    for index, value in enumerate(node.outputs):
        narrow = value.dtype
        if narrow is None or narrow not in NARROW or not _may_be_float(schema and schema.outputs, index):
            continue
        if not _castable(value, opsets):
            return Reason(node.name or node.op_type, f"nothing on a CPU casts {_onnx_type(value)}")
        _round_output(graph, node, value, narrow)
    _widen_attributes(node)
    return None


def _castable(value: ir.Value, opsets: dict[str, int]) -> bool:
    schema = schema_table().in_force("", "Cast", opsets.get("", 1))
    types = frozenset({f"{_onnx_type(value)}", "tensor(float)"})
    return schema is not None and has_kernel("", "Cast", schema.since_version, {"T1": types, "T2": types})


def _cast(source: ir.Value, target: ir.Value, to: ir.DataType) -> ir.Node:
    return ir.Node("", "Cast", [source], [ir.AttrInt64("to", int(to))], outputs=[target], name=f"{target.name}$cast")


def _round_output(graph: ir.Graph, node: ir.Node, value: ir.Value, to: ir.DataType) -> None:
    rounded = ir.Value(name=value.name, type=value.type, shape=value.shape)
    value.replace_all_uses_with(rounded, replace_graph_outputs=True)
    value.name = f"{value.name}$raw"
    value.type = ir.TensorType(_FLOAT)
    graph.insert_after(node, _cast(value, rounded, to))


def _widen_attributes(node: ir.Node) -> None:
    """A type or a tensor that an attribute gives is float32 too."""
    for name, attribute in tuple(node.attributes.items()):
        if attribute.type == ir.AttributeType.INT and name in _TYPE_ATTRIBUTES and attribute.as_int() in NARROW:
            node.attributes[name] = ir.AttrInt64(name, int(_FLOAT))
        elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in NARROW:
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(attribute.as_tensor().numpy().astype(np.float32)))
