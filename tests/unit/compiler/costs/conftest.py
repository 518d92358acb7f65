"""A small network of two equal layers, and a target that counts how often it is asked to build."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.parser import Parser
from xdsl.universe import Universe

from gimlet.compiler.costs.timer import Effort, SegmentTimer
from gimlet.compiler.placement.reading.graph import ModuleGraph, read_graph
from gimlet.dialects.context import GimletContext
from gimlet.dialects.universe import GIMLET_UNIVERSE
from gimlet.targets.api import Artifact, Cost, Device, DimBound, HardwareKind, MemoryLevel, Reason, SegmentContext
from gimlet.targets.onnxruntime.target import OnnxRuntimeTarget

ROWS = 'tensor<?x64xf32, #onnx.dims<"rows", "">>'
MODEL = f"""
func.func @main(%x: {ROWS}) -> {ROWS} {{
  %w = onnx.initializer {{value = dense<0.1> : tensor<64x64xf32>}} : tensor<64x64xf32>
  %v = onnx.initializer {{value = dense<0.2> : tensor<64x64xf32>}} : tensor<64x64xf32>
  %a = onnx.MatMul(%x, %w) : ({ROWS}, tensor<64x64xf32>) -> {ROWS}
  %b = onnx.Relu(%a) : ({ROWS}) -> {ROWS}
  %c = onnx.MatMul(%b, %v) : ({ROWS}, tensor<64x64xf32>) -> {ROWS}
  %d = onnx.Relu(%c) : ({ROWS}) -> {ROWS}
  func.return %d : {ROWS}
}}
"""
BOUNDS = {"rows": DimBound(1, 8, 32)}


class CountingTarget(OnnxRuntimeTarget):
    """ONNX Runtime; an op costs what `seconds` says, a model of `refused` ops cannot be built."""

    def __init__(self, seconds: float = 1e-3, refused: int = -1) -> None:
        super().__init__()
        self.seconds, self.refused = seconds, refused
        self.built: list[int] = []
        self.version = "1"

    def versions(self) -> Mapping[str, str]:
        return {"counting": self.version}

    def fusable(self, producer: Operation, consumer: Operation) -> bool:
        return (producer.name, consumer.name) == ("onnx.MatMul", "onnx.Relu")

    def op_cost(self, op: Operation, device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost:
        return Cost(self.seconds, 2.0)

    def emit(self, segment: SegmentContext, device: Device, fmt: str, folder: Path) -> Artifact | Reason:
        ops = [op for op in segment.op.body.block.ops if op.name in ("onnx.MatMul", "onnx.Relu", "onnx.Gather")]
        if len(ops) == self.refused:
            return Reason("timed", "does not build")
        self.built.append(len(ops))
        return super().emit(segment, device, fmt, folder)


def host(name: str = "host") -> Device:
    kind = HardwareKind(name, ("onnxruntime",), {"fp32": 1e11}, (MemoryLevel("dram", 1 << 30, 1e10),))
    return Device("cpu", kind)


@pytest.fixture
def ctx() -> GimletContext:
    context = GimletContext()
    for name, factory in (Universe.get_multiverse().all_dialects | GIMLET_UNIVERSE.all_dialects).items():
        context.register_dialect(name, factory)
    return context


def parse(ctx: GimletContext, function: str) -> ModuleOp:
    text = f'builtin.module attributes {{onnx.opsets = {{"" = 20 : i64}}}} {{\n{function}\n}}'
    return Parser(ctx, text).parse_module()


@pytest.fixture
def module(ctx: GimletContext) -> ModuleOp:
    return parse(ctx, MODEL)


@pytest.fixture
def graph(module: ModuleOp) -> ModuleGraph:
    return read_graph(module, {"rows": 8})


@pytest.fixture
def timer(module: ModuleOp, ctx: GimletContext, graph: ModuleGraph, tmp_path: Path) -> SegmentTimer:
    return SegmentTimer(module, ctx, BOUNDS, graph.sizes, tmp_path, Effort(seconds=0.0, least=2, warm_up=0))
