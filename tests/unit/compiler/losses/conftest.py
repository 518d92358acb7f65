"""A small network of two products, and what measures its losses on targets made up for the tests."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.ir import Operation
from xdsl.parser import Parser
from xdsl.universe import Universe

from gimlet.compiler.losses.model import LossModel, LossSite
from gimlet.compiler.placement.reading.graph import read_graph
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.universe import GIMLET_UNIVERSE
from gimlet.targets.api import Artifact, Cost, Device, HardwareKind, Reason, Rounding, SegmentContext, Target

LAYERS = "\n".join(
    f"""
  %w{n} = onnx.initializer {{key = "w{n}"}} : tensor<64x64xf32>
  %a{n} = onnx.MatMul(%x{n}, %w{n}) : (tensor<4x64xf32>, tensor<64x64xf32>) -> tensor<4x64xf32>
  %x{n + 1} = onnx.Tanh(%a{n}) : (tensor<4x64xf32>) -> tensor<4x64xf32>"""
    for n in range(8)
)
MODEL = f"""
builtin.module attributes {{onnx.opsets = {{"" = 21 : i64}}}} {{
  func.func @main(%x0: tensor<4x64xf32>) -> tensor<4x64xf32> {{{LAYERS}
    func.return %x8 : tensor<4x64xf32>
  }}
}}
"""


class Rounds(Target):
    """A target that takes everything, and rounds what `rounded` lists."""

    name = "rounds"
    executor = "none"

    def __init__(self, rounded: Sequence[str] = ("MatMul",), formats: Sequence[str] = ("fp32", "bf16", "fp16")) -> None:
        self.rounded, self.all_formats = rounded, tuple(formats)

    def formats(self, device: Device) -> tuple[str, ...]:
        return self.all_formats

    def refuses(self, op: Operation, device: Device, fmt: str) -> Reason | None:
        return None

    def rounding(self, op: Operation, device: Device, fmt: str, ctx: Context) -> Rounding | None:
        taken = isinstance(op, OnnxOp) and op.op_type in self.rounded
        return super().rounding(op, device, fmt, ctx) if taken else None

    def op_cost(self, op: Operation, device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost:
        return Cost({"fp32": 4e-6, "bf16": 1e-6}.get(fmt, 2e-6))

    def emit(self, segment: SegmentContext, device: Device, fmt: str, folder: Path) -> Artifact | Reason:
        return Reason("", "never emitted")


def device(name: str = "box") -> Device:
    return Device(name, HardwareKind("test/box", ("rounds",), {"fp32": 1e12}, ()))


@pytest.fixture
def losses() -> Callable[..., LossModel]:
    """A function that makes the loss model of eight layers on one device with some formats."""

    def make(rounded: Sequence[str] = ("MatMul",), scale: float = 0.1, text: str = MODEL, **more: object) -> LossModel:
        ctx = GimletContext()
        for name, factory in (Universe.get_multiverse().all_dialects | GIMLET_UNIVERSE.all_dialects).items():
            ctx.register_dialect(name, factory)
        for n in range(8):
            array = np.random.default_rng(n).standard_normal((64, 64)).astype(np.float32) * scale
            ctx.weights.add(f"w{n}", array)
        module = Parser(ctx, text).parse_module()
        target = Rounds(rounded)
        sites = [LossSite(device(), target, fmt) for fmt in target.all_formats]
        return LossModel(module, ctx, read_graph(module, {}), sites, **more)  # pyright: ignore[reportArgumentType]

    return make
