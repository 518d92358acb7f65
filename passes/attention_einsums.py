"""Attention written with Einsum, as transpositions and products of matrices [batch, heads, rows, columns].

Both Einsums become what `einsum_lines` would make of them, so that no value changes but by the order of sums; fusions
know the form of four dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.onnx import (
    InitializerOp,
    OnnxOp,
    dims_of,
    ops,
    opset_in_force,
    set_value_name,
    tensor_type,
    value_name,
)
from gimlet.dialects.onnx.types import element_of
from gimlet.passes.match import made_by
from gimlet.runtime.expr import ONE

_AXES_ARE_AN_INPUT = 13
_BETWEEN = ("Add", "Cast", "Div", "Identity", "Mul", "Sub", "Tanh", "Where")
"""What may stand between the scores and their softmax, or between that and the product with the values."""
_MOST_BETWEEN = 12


@dataclass(frozen=True)
class _Terms:
    """The letters of an Einsum's two operands and of its result, of which there are four."""

    operands: tuple[str, str]
    result: str


def write_attention_einsums(function: FuncOp) -> None:
    """Rewrites the Einsums before and behind each softmax over the last of four dimensions.

    It does not act where an operand has a letter twice, or neither batch, heads, rows, columns nor a depth.
    """
    for op in list(function.walk()):
        if not isinstance(op, ops.Einsum) or op.parent is None:
            continue
        terms = _terms(op)
        weighed = next((at for at, operand in enumerate(op.operands) if _source(operand, "Softmax")), None)
        if terms is None or weighed is None or len(terms.operands[weighed]) != 4:
            continue
        softmax = _source(op.operands[weighed], "Softmax")
        scores = None if softmax is None else _source(softmax.operands[0], "Einsum")
        of_scores = None if scores is None else _terms(scores)
        if scores is not None and of_scores is not None:
            batch, (row, column) = of_scores.result[:2], of_scores.result[2:]
            left = next((at for at, letters in enumerate(of_scores.operands) if row in letters), 0)
            _rewrite(scores, of_scores, left, batch, row, column)
        batch, row = terms.operands[weighed][:2], terms.operands[weighed][2]
        column = "".join(letter for letter in terms.result if letter not in terms.operands[weighed])
        _rewrite(op, terms, weighed, batch, row, column)


def _terms(op: OnnxOp) -> _Terms | None:
    given, arrow, result = str(op.attr("equation", "")).replace(" ", "").partition("->")
    operands = given.split(",")
    letters = [*operands, result]
    if not arrow or len(operands) != 2 or len(result) != 4 or not all(each.isalpha() for each in letters):
        return None
    if any(len(set(each)) < len(each) for each in letters):
        return None
    return _Terms((operands[0], operands[1]), result)


def _source(value: SSAValue, kind: str) -> OnnxOp | None:
    """The operation `kind` that a value of four dimensions comes from, element by element."""
    waiting, wanted = [value], dims_of(value)
    for _ in range(_MOST_BETWEEN):
        if not waiting:
            return None
        op = made_by(waiting.pop(0), kind, *_BETWEEN)
        if op is not None and op.op_type == kind:
            return op
        waiting += [] if op is None else [operand for operand in op.operands if dims_of(operand) == wanted]
    return None


def _rewrite(op: OnnxOp, terms: _Terms, left: int, batch: str, row: str, column: str) -> None:
    """Puts [batch, row, depth] by [batch, depth, column] in the place of an Einsum, where that is what it is."""
    first, second = terms.operands[left], terms.operands[1 - left]
    depth = "".join(letter for letter in first if letter in second and letter not in terms.result)
    is_product = len(batch) == 2 and len(row) == len(column) == len(depth) == 1
    if not is_product or set(first) != {*batch, row, depth} or not {column, depth} <= set(second):
        return
    if not set(second) <= {*batch, column, depth} or set(terms.result) != {*batch, row, column}:
        return
    opset = opset_in_force(op, "") or 0
    rows = _arranged(op, left, first, batch + row + depth, opset)
    columns = _arranged(op, 1 - left, second, batch + depth + column, opset)
    result, element = dims_of(op.results[0]), element_of(op.results[0].type)
    if rows is None or columns is None or result is None or element is None:
        return
    dims = [result[terms.result.index(letter)] for letter in batch + row + column]
    product = ops.MatMul.make([rows, columns], [tensor_type(element.type, dims)], opset=opset)
    product.location = op.location
    Rewriter.insert_op(product, InsertPoint.before(op))
    found = product.results[0]
    if batch + row + column != terms.result:
        set_value_name(found, f"{value_name(op.results[0])}_product")
        found = _transposed(op, found, batch + row + column, terms.result, opset)
    name = value_name(op.results[0])
    op.results[0].replace_all_uses_with(found)
    op.detach()
    op.erase()
    set_value_name(found, name)


def _arranged(op: OnnxOp, at: int, letters: str, wanted: str, opset: int) -> SSAValue | None:
    """An operand with its dimensions as `wanted`; of size 1 where it lacks one of batch or heads."""
    value = op.operands[at]
    dims, element = dims_of(value), element_of(value.type)
    missing = [letter for letter in wanted if letter not in letters]
    if dims is None or element is None or len(dims) != len(letters) or len(missing) > 1:
        return None
    if missing and opset < _AXES_ARE_AN_INPUT:
        return None
    for letter in missing:
        axis = wanted.index(letter)
        letters = letters[:axis] + letter + letters[axis:]
        axes = InitializerOp.from_array(np.array([axis]), f"{value_name(op.results[0])}_axes{at}")
        wide = tensor_type(element.type, [*dims[:axis], ONE, *dims[axis:]])
        spread = ops.Unsqueeze.make([value, axes.results[0]], [wide], opset=opset)
        Rewriter.insert_op([axes, spread], InsertPoint.before(op))
        value = spread.results[0]
        set_value_name(value, f"{value_name(op.results[0])}_wide{at}")
    return value if letters == wanted else _transposed(op, value, letters, wanted, opset)


def _transposed(op: OnnxOp, value: SSAValue, letters: Sequence[str], wanted: Sequence[str], opset: int) -> SSAValue:
    dims, element = dims_of(value), element_of(value.type)
    if dims is None or element is None:
        raise TypeError("what is transposed has a shape")
    perm = [letters.index(letter) for letter in wanted]
    made = ops.Transpose.make(
        [value], [tensor_type(element.type, [dims[axis] for axis in perm])], {"perm": perm}, opset=opset
    )
    Rewriter.insert_op(made, InsertPoint.before(op))
    set_value_name(made.results[0], f"{value_name(op.results[0])}_of_{value_name(value)}")
    return made.results[0]
