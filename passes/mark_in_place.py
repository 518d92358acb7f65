"""Finds the ops that write a state where it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, UnitAttr
from xdsl.passes import ModulePass

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.types import dims_of
from gimlet.passes.entry import entry_function
from gimlet.passes.state_pairs import IN_PLACE, StatePair, is_read_by_alone, state_pairs

UPDATES: Final = ("ScatterND", "ScatterElements", "TensorScatter")
"""Operators whose result is their first operand but for what they put into it."""
GROWS: Final = "Concat"
"""The operator whose result begins with its first operand."""


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

    A Concat that has the state in front of what is new puts that behind what is there: it is marked too, and a target
    that keeps room for the state's capacity leaves the rest where it is.

    Costs, placement and targets see by it that only what is new has to be written. It must not act where another op
    reads the state, even one that would come before: segments may run in any order that their values allow. To read
    its sizes (Shape) is not to read it.

    Requires nothing. Without states it changes nothing.
    """

    name = "mark-in-place"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for pair in state_pairs(entry_function(op)):
            maker = pair.result.owner
            if why_copied(pair) is None and isinstance(maker, OnnxOp):
                maker.attributes[IN_PLACE] = UnitAttr()


def why_copied(pair: StatePair) -> str | None:
    """Why a state is made anew in every run; None where an op changes it where it is."""
    op = pair.result.owner
    if not isinstance(op, OnnxOp) or op.domain or op.op_type not in (*UPDATES, GROWS):
        what = op.op_type if isinstance(op, OnnxOp) else "no op"
        return f"what it becomes is made by {what}, not by one of {', '.join((*UPDATES, GROWS))}"
    if not op.operands or op.operands[0] is not pair.argument:
        return f"{op.op_type} puts nothing into it: it is not what that begins with"
    if not is_read_by_alone(pair.argument, op):
        return f"{op.op_type} puts something into it, and it is read elsewhere too"
    if op.op_type == GROWS:
        return None if _grows(pair, op) else f"{GROWS} does not make it longer in one dimension alone"
    same = pair.argument.type == pair.result.type
    return None if same else f"{op.op_type} makes {pair.result.type} of {pair.argument.type}"


def _grows(pair: StatePair, op: OnnxOp) -> bool:
    """Whether all dimensions but the one of the Concat are as they were."""
    before, after = dims_of(pair.argument.type), dims_of(pair.result.type)
    if before is None or after is None or len(before) != len(after):
        return False
    axis = int(op.attr("axis", 0)) % len(after)
    return all(before[dim] == after[dim] for dim in range(len(after)) if dim != axis)
