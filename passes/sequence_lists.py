"""Sequences of tensors that a model puts together itself, element by element, as what is read from them."""

from __future__ import annotations

import numpy as np
from xdsl.ir import Attribute, Operation, OpResult, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.onnx import InitializerOp, OnnxOp, constant_value, ops, opset_in_force, tensor_type
from gimlet.dialects.onnx.types import element_of

_AXES_ARE_AN_INPUT = 13


def read_directly(op: OnnxOp) -> None:
    """Replaces SequenceAt, SequenceLength and ConcatFromSequence of a sequence whose elements are known.

    These are what SequenceEmpty, SequenceConstruct, SequenceInsert and SequenceErase make at positions that are known.
    """
    elements = _elements(op.operands[0])
    opset = opset_in_force(op, "")
    if elements is None or (opset is not None and opset < _AXES_ARE_AN_INPUT):
        return
    if op.op_type == "SequenceLength":
        found: SSAValue | None = _constant(op, np.array(len(elements)))
    elif op.op_type == "SequenceAt":
        at = _place(op.operands[1], len(elements))
        found = None if at is None or at == len(elements) else elements[at]
    else:
        found = _joined(op, elements, opset) if elements else None
    if found is None:
        return
    op.results[0].replace_all_uses_with(found)
    op.detach()
    op.erase()


def _elements(value: SSAValue) -> list[SSAValue] | None:
    """What is in a sequence; None where that is not known."""
    changes: list[OnnxOp] = []
    while isinstance(value, OpResult) and isinstance(value.op, OnnxOp) and value.op.op_type in _CHANGE:
        changes.append(value.op)
        value = value.op.operands[0]
    maker = value.op if isinstance(value, OpResult) else None
    if not isinstance(maker, OnnxOp) or maker.op_type not in ("SequenceEmpty", "SequenceConstruct"):
        return None
    found = list(maker.operands)
    for op in reversed(changes):
        given = op.input_at(2 if op.op_type == "SequenceInsert" else 1)
        last = len(found) - (op.op_type == "SequenceErase")
        at = last if given is None else _place(given, len(found))
        if at is None or not 0 <= at <= last:
            return None
        if op.op_type == "SequenceInsert":
            found.insert(at, op.operands[1])
        else:
            del found[at]
    return found


_CHANGE = frozenset({"SequenceInsert", "SequenceErase"})


def _place(value: SSAValue, count: int) -> int | None:
    """A position in a sequence of `count`, counted from the front; None where it is computed, or outside."""
    known = constant_value(value, None, 1)
    at = count + 1 if known is None else int(known.reshape(-1)[0])
    return at % (count or 1) if -count <= at < 0 else at if 0 <= at <= count else None


def _joined(op: OnnxOp, elements: list[SSAValue], opset: int | None) -> SSAValue:
    """The Concat of all elements, behind a dimension of their own where the result has one more."""
    made: list[Operation] = []
    axis = int(op.attr("axis"))
    if op.attr("new_axis", 0):
        at = _constant(op, np.array([axis]))
        for index, value in enumerate(elements):
            made.append(ops.Unsqueeze.make([value, at], [_open(value)], opset=opset))
            elements[index] = made[-1].results[0]
    concat = ops.Concat.make(elements, [op.results[0].type], {"axis": axis}, opset=opset)
    concat.location = op.location
    concat.results[0].name_hint = op.results[0].name_hint
    Rewriter.insert_op([*made, concat], InsertPoint.before(op))
    return concat.results[0]


def _constant(op: OnnxOp, array: np.ndarray) -> SSAValue:
    made = InitializerOp.from_array(array)
    Rewriter.insert_op(made, InsertPoint.before(op))
    return made.results[0]


def _open(value: SSAValue) -> Attribute:
    """The type of what has a dimension more: infer-shapes says which."""
    element = element_of(value.type)
    return value.type if element is None else tensor_type(element.type, None)
