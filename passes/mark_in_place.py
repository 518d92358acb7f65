"""Finds the ops that write a state where it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, UnitAttr
from xdsl.passes import ModulePass

from gimlet.dialects.onnx import OnnxOp
from gimlet.passes.entry import entry_function
from gimlet.passes.state_pairs import IN_PLACE, StatePair, state_pairs

UPDATES: Final = ("ScatterND", "ScatterElements", "TensorScatter")
"""Operators whose result is their first operand but for what they put into it."""


@dataclass(frozen=True)
class MarkInPlacePass(ModulePass):
    """Notes `placement.in_place` on an op that puts something into a state, where nothing else sees the old one.

    ```mlir
    func.func @main(%at: tensor<1x1xi64>, %x: tensor<1xf32>, %past: tensor<8xf32> {placement.state = "past"})
        -> (tensor<8xf32> {placement.state = "past"}) {
      %present = onnx.ScatterND(%past, %at, %x) : (tensor<8xf32>, tensor<1x1xi64>, tensor<1xf32>) -> tensor<8xf32>
      func.return %present : tensor<8xf32>
    }
    ```

    ```mlir
    func.func @main(%at: tensor<1x1xi64>, %x: tensor<1xf32>, %past: tensor<8xf32> {placement.state = "past"})
        -> (tensor<8xf32> {placement.state = "past"}) {
      %present = onnx.ScatterND(%past, %at, %x) {placement.in_place}
          : (tensor<8xf32>, tensor<1x1xi64>, tensor<1xf32>) -> tensor<8xf32>
      func.return %present : tensor<8xf32>
    }
    ```

    Costs, placement and targets see by it that only what is new has to be written. It must not act where another op
    reads the state, even one that would come before: segments may run in any order that their values allow.

    Requires nothing. Without states it changes nothing.
    """

    name = "mark-in-place"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for pair in state_pairs(entry_function(op)):
            update = _update(pair)
            if update is not None:
                update.attributes[IN_PLACE] = UnitAttr()


def _update(pair: StatePair) -> OnnxOp | None:
    op = pair.result.owner
    if not isinstance(op, OnnxOp) or op.domain or op.op_type not in UPDATES:
        return None
    only_use = pair.argument.get_unique_use()
    if only_use is None or only_use.operation is not op or only_use.index != 0:
        return None
    return op if pair.argument.type == pair.result.type else None
