"""Indices of 32 bits, which PyTorch takes and its exporter passes on to operators of ONNX that take 64."""

from __future__ import annotations

import onnx_ir as ir

_OPERATORS = frozenset({"ScatterND", "GatherND"})


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
