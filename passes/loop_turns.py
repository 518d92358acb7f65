"""How many turns a Loop or a Scan takes, where that does not depend on what the model is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from xdsl.ir import Block, BlockArgument, OpResult, SSAValue

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp, constant_value, dims_of
from gimlet.dialects.onnx.exporter import export_block
from gimlet.runtime.errors import GimletError

MOST_TURNS = 256
_MOST_READ = 64
_GO, _CARRIED = 1, 2
_SAME = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators behind which a condition is what it was."""
# What onnx's reference implementation raises for what it does not implement, or for values that are not valid.
_REFERENCE_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, GimletError)


def known_turns(op: OnnxOp, ctx: GimletContext, opsets: Mapping[str, int]) -> int | None:
    """The number of turns; None where it is more than 256, or not known."""
    turns = _scanned(op) if op.op_type == "Scan" else _looped(op, ctx, opsets)
    return turns if turns is not None and turns <= MOST_TURNS else None


def _scanned(op: OnnxOp) -> int | None:
    """The size of the first sequence along the dimension that is scanned."""
    scanned = int(op.attr("num_scan_inputs", 0))
    first = op.input_at(len(op.inputs) - scanned) if 0 < scanned <= len(op.inputs) else None
    dims, axis = None if first is None else dims_of(first), int((op.attr("scan_input_axes") or [0])[0])
    if (
        dims is None
        or not -len(dims) <= axis < len(dims)
        or not dims[axis].is_constant
        or "directions" in op.properties
    ):
        return None
    return dims[axis].as_int()


def _looped(op: OnnxOp, ctx: GimletContext, opsets: Mapping[str, int]) -> int | None:
    limit, start = op.input_at(0), op.input_at(1)
    most, first = (None if value is None else constant_value(value, ctx, 1) for value in (limit, start))
    if (limit is not None and most is None) or (start is not None and first is None):
        return None
    turns = MOST_TURNS + 1 if most is None else max(0, int(most.reshape(-1)[0]))
    if first is not None and not first.any():
        return 0
    body = op.subgraphs["body"].block
    if body.last_op is None:
        return None
    condition = body.last_op.operands[0]
    while isinstance(condition, OpResult) and isinstance(condition.op, OnnxOp) and condition.op.op_type in _SAME:
        condition = condition.op.operands[0]
    if condition is body.args[_GO]:
        return turns
    known = constant_value(condition, ctx, 1)
    if known is not None:
        return turns if known.any() else min(turns, 1)
    counter = _Counter(op, ctx)
    return counter.turns(turns, opsets) if counter.reads(body.last_op.operands[0]) else None


class _Counter:
    """The part of a Loop's body that its condition is computed by, from constants and the number of the turn."""

    def __init__(self, loop: OnnxOp, ctx: GimletContext) -> None:
        self.loop = loop
        self.ctx = ctx
        self.body = loop.subgraphs["body"].block
        self.ops: set[OnnxOp] = set()
        self.carried: dict[int, np.ndarray[Any, Any]] = {}
        """What the arguments that the condition depends on are before the first turn."""

    def reads(self, condition: SSAValue) -> bool:
        """Collects all that `condition` depends on; False where that is not known before the model runs."""
        pending = [condition]
        while pending:
            value = pending.pop()
            if isinstance(value, BlockArgument) and value.owner is self.body:
                found = self._argument(value.index)
            elif isinstance(value, OpResult) and isinstance(value.op, OnnxOp) and value.op.parent is self.body:
                found = self._operation(value.op)
            else:
                found = None if constant_value(value, self.ctx, _MOST_READ) is None else []
            if found is None:
                return False
            pending += found
        return True

    def _argument(self, index: int) -> list[SSAValue] | None:
        if index < _CARRIED or index in self.carried:
            return []
        given, last = self.loop.input_at(index), self.body.last_op
        first = None if given is None else constant_value(given, self.ctx, _MOST_READ)
        if first is None or last is None:
            return None
        self.carried[index] = first
        return [last.operands[index - 1]]

    def _operation(self, op: OnnxOp) -> list[SSAValue] | None:
        if op in self.ops:
            return []
        schema = op.schema
        if schema is None or not schema.deterministic or op.regions:
            return None
        self.ops.add(op)
        return list(op.operands)

    def turns(self, most: int, opsets: Mapping[str, int]) -> int | None:
        """Computes the condition turn by turn; None where the reference implementation cannot."""
        names = {index: f"a{index}" for index in (0, _GO, *self.carried)}
        given = {names[index]: value for index, value in self.carried.items()}
        given |= {names[0]: np.array(0), names[_GO]: np.array(True)}
        try:
            evaluator = ReferenceEvaluator(ir.to_proto(self._model(names, opsets)))
            for turn in range(most):
                results = evaluator.run(None, {**given, names[0]: np.array(turn)})
                goes_on, *carried = (np.asarray(each) for each in results)
                if not goes_on.any():
                    return turn + 1
                given |= {names[index]: value for index, value in zip(self.carried, carried, strict=True)}
        except _REFERENCE_ERRORS:
            return None
        return most

    def _model(self, names: Mapping[int, str], opsets: Mapping[str, int]) -> ir.Model:
        block = Block(arg_types=[argument.type for argument in self.body.args])
        values: dict[SSAValue, SSAValue] = dict(zip(self.body.args, block.args, strict=True))
        block.add_ops([op.clone(values) for op in self.body.ops if op in self.ops])
        last = self.body.last_op
        wanted = [] if last is None else [last.operands[0], *(last.operands[index - 1] for index in self.carried)]
        inputs = [(name, block.args[index]) for index, name in names.items()]
        outputs = [(f"y{index}", values.get(value, value)) for index, value in enumerate(wanted)]
        try:
            return export_block(block, inputs, outputs, opsets, self.ctx, "condition")
        finally:
            # The copies are uses of the constants, which may not stay.
            block.drop_all_references()
