"""Segments and devices for the tests of targets."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx.exporter import function_inputs, function_outputs, read_opsets
from gimlet.dialects.onnx.importer import import_model
from gimlet.dialects.placement import SegmentOp, YieldOp
from gimlet.passes.infer_shapes import InferShapesPass
from gimlet.targets.api import Device, DimBound, HardwareKind, MemoryLevel, SegmentContext


def main_of(module: ModuleOp) -> FuncOp:
    return next(op for op in module.body.block.ops if isinstance(op, FuncOp) and op.sym_name.data == "main")


@pytest.fixture
def import_onnx() -> Callable[[onnx.ModelProto], tuple[ModuleOp, GimletContext]]:
    """A module of a model, with the types that ONNX's own inference finds."""

    def run(model: onnx.ModelProto) -> tuple[ModuleOp, GimletContext]:
        ctx = GimletContext()
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        return import_model(ir.from_proto(inferred), ctx), ctx

    return run


@pytest.fixture
def make_segment(import_onnx, tmp_path: Path) -> Callable[..., SegmentContext]:
    """A whole model, its types inferred as in the pipeline, as one segment on @dev."""

    def run(
        model: onnx.ModelProto,
        bounds: Mapping[str, tuple[int, int, int]] | None = None,
        fmt: str = "fp32",
        **options: Any,
    ) -> SegmentContext:
        module, ctx = import_onnx(model)
        InferShapesPass().apply(ctx, module)
        main = main_of(module)
        inputs, outputs = function_inputs(main), function_outputs(main)
        block = Block(arg_types=[value.type for _, value in inputs])
        for (name, value), argument in zip(inputs, block.args, strict=True):
            argument.name_hint = value.name_hint
            value.replace_all_uses_with(argument)
            del name
        for op in tuple(main.body.block.ops):
            if isinstance(op, ReturnOp):
                block.add_op(YieldOp(op.operands))
            else:
                op.detach()
                block.add_op(op)
        segment = SegmentOp("s0", "dev", fmt, Region(block), [n for n, _ in inputs], [n for n, _ in outputs])
        ranges = {name: DimBound(*sizes) for name, sizes in (bounds or {}).items()}
        holder = ModuleOp([segment], attributes=dict(module.attributes))
        context = SegmentContext(segment, ctx, read_opsets(module), ranges, tmp_path / "cache", **options)
        holders.append(holder)
        return context

    holders: list[ModuleOp] = []
    return run


@pytest.fixture
def make_device() -> Callable[..., Device]:
    """A device whose kind has the given options."""

    def run(target: str = "tensorrt", **options: Any) -> Device:
        kind = HardwareKind(
            name="test/kind",
            targets=(target,),
            peak={"fp32": 1e12, "fp16": 2e12, "bf16": 2e12},
            memory=(MemoryLevel("dram", 1 << 34, 1e11),),
            segment_overhead_s=1e-5,
            kernel_overhead_s=1e-6,
            options=options,
        )
        return Device("dev", kind)

    return run


@pytest.fixture
def conv_net() -> onnx.ModelProto:
    """Conv, Relu and MatMul on `x: [batch, 3, 8, width]`, with weights of 4 to 20 KB."""
    import numpy as np
    from onnx import TensorProto, helper

    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((32, 3, 3, 3), np.float32)
    matrix = rng.standard_normal((32, 24), np.float32)

    def weight(name: str, array: np.ndarray) -> onnx.TensorProto:
        return helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.tobytes(), raw=True)

    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], name="/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="/relu"),
        helper.make_node("Transpose", ["r"], ["t"], name="/transpose", perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["t", "matrix"], ["y"], name="/matmul"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, "width", 24])],
        [weight("kernel", kernel), weight("matrix", matrix)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
