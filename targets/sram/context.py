"""The ops among which one is priced: what it adds to a program depends on those before it.

Alone an op waits for all that it reads and stores all that it makes. In a segment it is fused behind a product, or its
weights go into the arrays while others still work, or it needs what is converted already.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from xdsl.ir import Operation, SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.sram.tiles import TILES
from gimlet.passes.state_pairs import IN_PLACE
from gimlet.targets.one_op import is_constant, signature_of

_OPS_BEFORE = 4
"""More of them take longer to generate and are no nearer to whole segments (benchmarks/sram_costs.py)."""


def ops_before(op: OnnxOp, taken: Callable[[OnnxOp], bool]) -> list[OnnxOp]:
    """The last few ops before `op` in its block that the device takes too, constants not counted, in order."""
    found: list[OnnxOp] = []
    before: Operation | None = op.prev_op
    while before is not None and len(found) < _OPS_BEFORE:
        if isinstance(before, OnnxOp) and not is_constant(before) and taken(before):
            found.append(before)
        before = before.prev_op
    return found[::-1]


def signature_of_op(op: OnnxOp) -> Hashable:
    """What decides the program of one op, that it changes a state where it lies and its tiles included."""
    return signature_of(op), IN_PLACE in op.attributes, op.attributes.get(TILES)


def signature_of_ops(ops: Sequence[OnnxOp]) -> Hashable:
    """What decides the program of several ops: each of them, what reads what, and what leaves."""
    inside = set[Operation](ops)
    numbers: dict[SSAValue, int] = {}
    found: list[Hashable] = []
    for op in ops:
        reads = tuple(numbers.setdefault(value, len(numbers)) for value in op.operands)
        for result in op.results:
            numbers[result] = len(numbers)
        leaves = tuple(any(use.operation not in inside for use in result.uses) for result in op.results)
        found.append((signature_of_op(op), reads, leaves))
    return tuple(found)
