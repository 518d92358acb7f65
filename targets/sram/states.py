"""Which results of a segment are states: the input that an op changes, and what that becomes, are one tensor."""

from __future__ import annotations

from collections.abc import Iterable

from xdsl.ir import OpResult, SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.passes.state_pairs import IN_PLACE

_CHANGE_WHAT_THEY_READ = frozenset({"ScatterElements", "ScatterND", "TensorScatter"})


def changes_in_place(op: OnnxOp) -> bool:
    """Whether the code of an op can change its first operand where it lies."""
    return not op.domain and op.op_type in _CHANGE_WHAT_THEY_READ


def states_of(outputs: Iterable[SSAValue], inputs: Iterable[SSAValue]) -> dict[OnnxOp, tuple[SSAValue, SSAValue]]:
    """For each op that changes a state where it lies, what it reads and what that becomes.

    It is marked `placement.in_place`, and nothing else reads what is there before.
    """
    given, found = set(inputs), dict[OnnxOp, tuple[SSAValue, SSAValue]]()
    for value in outputs:
        op = value.op if isinstance(value, OpResult) else None
        if not isinstance(op, OnnxOp) or IN_PLACE not in op.attributes or not changes_in_place(op):
            continue
        before = op.operands[0]
        if before in given and before.get_unique_use() is not None:
            found[op] = before, value
    return found
