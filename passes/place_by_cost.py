"""Chooses a device for every op."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.context import GimletContext
from gimlet.passes.entry import only_topology

SERVICE = "placement"
Objective = Literal["latency", "throughput", "energy", "cost"]


@dataclass(frozen=True)
class PlaceByCostPass(ModulePass):
    """Puts every op of @main on the device, in the number format and in the segment that cost least together.

    ```mlir
    placement.topology @rack {
      placement.device @cpu {kind = "host"}
      placement.device @box {kind = "host"}
      placement.link @net between @cpu, @box {kind = "ethernet-400g"}
    }
    func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
      %a = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
      %b = onnx.Exp(%a) : (tensor<4xf32>) -> tensor<4xf32>
      %c = onnx.Sqrt(%b) : (tensor<4xf32>) -> tensor<4xf32>
      func.return %c : tensor<4xf32>
    }
    ```

    After `place-by-cost{pins="Sqrt=box"}`, since a launch costs more than the few operations before it:

    ```mlir
    placement.topology @rack {
      placement.device @cpu {kind = "host"}
      placement.device @box {kind = "host"}
      placement.link @net between @cpu, @box {kind = "ethernet-400g"}
    }
    func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
      %a = onnx.Relu(%x) {placement.device = @box, placement.format = "fp32", placement.segment = 0 : i64}
          : (tensor<4xf32>) -> tensor<4xf32>
      %b = onnx.Exp(%a) {placement.device = @box, placement.format = "fp32", placement.segment = 0 : i64}
          : (tensor<4xf32>) -> tensor<4xf32>
      %c = onnx.Sqrt(%b) {placement.device = @box, placement.format = "fp32", placement.segment = 0 : i64}
          : (tensor<4xf32>) -> tensor<4xf32>
      func.return %c : tensor<4xf32>
    }
    ```

    `objective` is what is least: latency, throughput (the period of a pipeline), energy or cost. `pins` are texts
    `REGEX=DEVICE`; the expression is searched in an op's node name or matches its operator as a whole, and of two pins
    on one op the later wins. `time_limit` is in seconds; without it the solver's work is limited instead, so that the
    answer is the same everywhere.

    It must not act on a module without hardware or on an op that no device takes: it fails and says which. Constants
    are not placed, they go with what uses them.

    Requires a `placement.topology`, and sizes for the symbolic dimensions in `onnx.dim_bounds`. Ensures that every op
    of @main but constants has `placement.device`, `placement.format` and `placement.segment`.
    """

    name = "place-by-cost"

    objective: str = "latency"
    pins: tuple[str, ...] = ()
    time_limit: float | None = None
    seed: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if only_topology(op) is None:
            raise PassFailedException("the module says nothing about the hardware: add a placement.topology")
        if self.objective not in get_args(Objective):
            raise PassFailedException(f"there is no objective {self.objective!r}: {', '.join(get_args(Objective))}")
        service = ctx.services.get(SERVICE) if isinstance(ctx, GimletContext) else None
        if service is None:
            raise PassFailedException("there is no placement service in this context: run the pass with gimlet-opt")
        service(
            op,
            ctx,
            objective=self.objective,
            pins=tuple(_pin(text) for text in self.pins),
            time_limit_s=self.time_limit,
            seed=self.seed,
        )


def _pin(text: str) -> tuple[str, str]:
    expression, equals, device = text.rpartition("=")
    if not equals or not expression or not device:
        raise PassFailedException(f"cannot read the pin {text!r}: write REGEX=DEVICE")
    return expression, device
