"""Outputs in the types that the model was traced with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import from_torch_dtype
from torch.export import ExportedProgram


def outputs_as_traced(model: ir.Model, program: ExportedProgram) -> None:
    """Casts each output of another type than the program's, whose outputs that are no constants the model has in order.

    What PyTorch's exporter computes in float32 because PyTorch's own kernels do, such as a sum of half precision, it
    casts back for those who read it, and not where it is an output.
    """
    returned = cast(Sequence[Any], program.graph.output_node().args[0])
    results = [node for node in returned if isinstance(node, torch.fx.Node)]
    traced = [node.meta.get("val") for node in results]
    # Names do not tell: those of the operators that others are written with may be taken by another output.
    for value, wanted in dict(zip(list(model.graph.outputs), traced, strict=False)).items():
        if not isinstance(wanted, torch.Tensor) or wanted.is_complex() or value.dtype is None:
            continue
        if value.dtype != from_torch_dtype(wanted.dtype):
            _cast(model.graph, value, from_torch_dtype(wanted.dtype))


def _cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> None:
    """The output keeps its name, and what it is cast from is called after it."""
    producer = value.producer()
    props = dict(producer.metadata_props) if producer is not None else None
    cast = ir.node("Cast", [value], {"to": dtype}, metadata_props=props)
    (result,) = cast.outputs
    cast.name, result.name = f"{value.name}_as_traced", value.name
    value.name = f"{value.name}_computed"
    result.dtype, result.shape = dtype, value.shape
    graph.append(cast)
    for place, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[place] = result
