"""Which results of a segment are states: the input that an op changes, and what that becomes, are one tensor.

A state that Concat makes longer is laid out for its capacity: what is new is stored behind what is there, and nothing
that is there moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xdsl.ir import OpResult, SSAValue

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.passes.state_pairs import IN_PLACE, is_read_by_alone
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.program import Growth
from gimlet.targets.sram.builder import Bounds
from gimlet.targets.sram.views import Shape

_CHANGE_WHAT_THEY_READ = frozenset({"ScatterElements", "ScatterND", "TensorScatter"})

_FEWEST = 2
"""Positions that a state has room for: along a dimension of one nothing has a place."""


@dataclass(frozen=True)
class State:
    """A state that an op changes where it lies: what the op reads, and what that becomes."""

    before: SSAValue
    after: SSAValue


def changes_in_place(op: OnnxOp) -> bool:
    """Whether the code of an op can change its first operand where it lies."""
    return not op.domain and (op.op_type in _CHANGE_WHAT_THEY_READ or _grown_along(op) is not None)


def states_of(outputs: Iterable[SSAValue], inputs: Iterable[SSAValue]) -> dict[OnnxOp, State]:
    """For each op that changes a state where it lies, what it reads and what that becomes.

    It is marked `placement.in_place`, and nothing else reads what is there before.
    """
    given, found = set(inputs), dict[OnnxOp, State]()
    for value in outputs:
        op = value.op if isinstance(value, OpResult) else None
        if not isinstance(op, OnnxOp) or IN_PLACE not in op.attributes or not changes_in_place(op):
            continue
        before = op.operands[0]
        if before in given and is_read_by_alone(before, op):
            found[op] = State(before, value)
    return found


def layout_of(op: OnnxOp, state: State, bounds: Bounds) -> tuple[Shape, Growth] | None:
    """The shape of a state's tensor where an op makes it longer, and how it grows; None for one that keeps its size.

    Its capacity is what the input may be at most, or what is there in the sizes that code is tuned for.
    """
    axis, before, after = _grown_along(op), dims_of(state.before), dims_of(state.after)
    if axis is None or before is None or after is None:
        return None
    capacity = max(_FEWEST, bounds.most(before[axis]), bounds.best(after[axis]))
    growth = Growth(axis, before[axis], after[axis])
    return growth.filled(before, Expr.const(capacity)), growth


def _grown_along(op: OnnxOp) -> int | None:
    """The dimension in which Concat makes its first operand longer, if all others are as they were."""
    if op.op_type != "Concat" or op.domain:
        return None
    before, after = dims_of(op.operands[0]), dims_of(op.results[0])
    if before is None or after is None or len(before) != len(after):
        return None
    axis = int(op.attr("axis", 0)) % len(after)
    pairs = enumerate(zip(before, after, strict=True))
    return axis if all(old == new for dim, (old, new) in pairs if dim != axis) else None
