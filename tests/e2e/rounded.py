"""ONNX Runtime in float32 with the operands of those products rounded that the SRAM accelerator rounds to bf16."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tests.e2e.models import Inputs
from tests.unit.targets.sram_models import DEVICE, Runner, reference, relative_error, segment_of

from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp, value_name
from gimlet.dialects.onnx.exporter import export_module
from gimlet.dialects.onnx.importer import import_model
from gimlet.targets.sram.precision import product_types
from gimlet.targets.sram.target import machine_of

_PRODUCTS = ("Conv", "Gemm", "MatMul")
_SPLIT = 2.0**16 + 1


def sized(path: str, inputs: Inputs) -> onnx.ModelProto:
    """The model of a file with the sizes of its inputs fixed."""
    model = onnx.load(path)
    del model.graph.value_info[:]
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, inputs[value.name].shape, strict=True):
            dim.Clear()
            dim.dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model after `normalize`, with operands of bf16 products rounded to 8 significant bits, to nearest.

    An operand is rounded by Veltkamp's split, (2^16 + 1)·a − ((2^16 + 1)·a − a) in float32: bfloat16 has no products in
    ONNX Runtime's CPU provider.
    """
    ctx = GimletContext()
    module = import_model(ir.from_proto(model), ctx)
    run_passes(module, ctx, NORMALIZE)
    products = [op for op in module.walk() if isinstance(op, OnnxOp) and op.op_type in _PRODUCTS]
    types = product_types(products, "bf16", machine_of(DEVICE.kind), {})
    names = {value_name(op.results[0]) for op in products if types.get(op, "bf16") == "bf16"}
    found = ir.to_proto(export_module(module, ctx))
    nodes: list[onnx.NodeProto] = []
    for node in found.graph.node:
        if node.output[0] in names:
            for index, name in enumerate(node.input[:2]):
                wide, rest, short = (f"{node.output[0]}/{index}/{what}" for what in ("wide", "rest", "short"))
                nodes.append(helper.make_node("Mul", [name, "split"], [wide]))
                nodes.append(helper.make_node("Sub", [wide, name], [rest]))
                nodes.append(helper.make_node("Sub", [wide, rest], [short]))
                node.input[index] = short
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del found.graph.node[:]
    found.graph.node.extend(nodes)
    found.graph.initializer.append(numpy_helper.from_array(np.float32(_SPLIT), "split"))
    return found


def distances(path: str, inputs: Inputs) -> tuple[float, float, float]:
    """Relative L2 of the first output: rounded from exact, the accelerator from exact, the accelerator from rounded."""
    model = sized(path, inputs)
    exact, expected = reference(model, **inputs)[0], reference(rounded(model), **inputs)[0]
    found: NDArray[np.float32] = Runner(segment_of(model, fmt="bf16"), "bf16")(**inputs)[0]
    return relative_error(expected, exact), relative_error(found, exact), relative_error(found, expected)
