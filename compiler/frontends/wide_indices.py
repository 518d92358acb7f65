"""Whole numbers of 32 bits and fewer, which PyTorch takes and its exporter passes on to operators that take 64."""

from __future__ import annotations

import onnx_ir as ir

_OPERATORS = frozenset({"ScatterND", "GatherND"})
_FEW_BITS = frozenset({ir.DataType.INT16, ir.DataType.INT32, ir.DataType.UINT8})


def widen_indices(model: ir.Model) -> None:
    """Casts the indices of each ScatterND and GatherND that are not known to be int64: a cast of these goes later."""
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.op_type not in _OPERATORS or node.domain or node.graph is None:
            continue
        indices = node.inputs[1]
        if indices is None or indices.dtype == ir.DataType.INT64:
            continue
        wide = ir.node("Cast", [indices], {"to": ir.DataType.INT64}, metadata_props=dict(node.metadata_props))
        wide.name, value = f"{node.name}_indices", wide.outputs[0]
        value.name = f"{node.name}_indices_wide"
        value.dtype, value.shape = ir.DataType.INT64, indices.shape
        node.graph.insert_before(node, wide)
        node.replace_input_with(1, value)


def widen_unique(model: ir.Model) -> None:
    """Finds the different ones of whole numbers as int64, which ONNX Runtime has a kernel for, and casts them back."""
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        values = node.inputs[0] if node.op_type == "Unique" and not node.domain else None
        if values is None or node.graph is None or values.dtype not in _FEW_BITS:
            continue
        wide = ir.node("Cast", [values], {"to": ir.DataType.INT64}, metadata_props=dict(node.metadata_props))
        back = ir.node("Cast", [node.outputs[0]], {"to": values.dtype}, metadata_props=dict(node.metadata_props))
        wide.name, back.name = f"{node.name}_wide", f"{node.name}_narrow"
        found, result = node.outputs[0], back.outputs[0]
        result.name, result.shape = found.name, found.shape
        result.dtype = values.dtype or ir.DataType.INT64
        found.name, found.dtype = f"{found.name}_wide", ir.DataType.INT64
        value = wide.outputs[0]
        value.name, value.dtype, value.shape = f"{node.name}_values", ir.DataType.INT64, values.shape
        found.replace_all_uses_with(result, replace_graph_outputs=True)
        back.replace_input_with(0, found)
        node.graph.insert_before(node, wide)
        node.replace_input_with(0, value)
        node.graph.insert_after(node, back)
