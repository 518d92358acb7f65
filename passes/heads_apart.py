"""Products of three dimensions, [batch·heads, rows, columns], as those of four, [batch, heads, rows, columns].

What multiplies with PyTorch's `bmm` or `baddbmm` joins batch and heads before, and takes them apart again behind, also
for the mask. Each matrix is the same, so no value changes by a bit; fusions know the form of four dimensions.
"""

from __future__ import annotations

from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.onnx import OnnxOp, dims_of, ops, opset_in_force, set_value_name, tensor_type, value_name
from gimlet.dialects.onnx.types import element_of
from gimlet.passes.match import is_float, is_read_once, made_by, scalar_of
from gimlet.runtime.expr import ONE, Expr

_ROWS_AND_COLUMNS = [0, 2, 1]
Heads = tuple[Expr, Expr]


def take_heads_apart(function: FuncOp) -> None:
    """Rewrites products that are made of tensors whose heads were apart, and whose results' heads are.

    It does not act where a tensor did not have its heads apart, where something else reads what is between, or where
    the sizes are not known to fit.
    """
    for op in list(function.walk()):
        if isinstance(op, ops.Reshape) and op.parent is not None:
            _take_apart(op)


def _take_apart(root: OnnxOp) -> None:
    wanted, joined = dims_of(root.results[0]), dims_of(root.operands[0])
    if wanted is None or joined is None or len(wanted) != 4 or joined != (wanted[0] * wanted[1], *wanted[2:]):
        return
    if made_by(root.operands[0], "MatMul", "Mul", "Div", "Add", "Softmax", "Cast") is None:
        return
    made: list[OnnxOp] = []
    old: list[OnnxOp] = [root]
    apart = _apart(root.operands[0], (wanted[0], wanted[1]), made, old)
    if apart is None or not any(isinstance(op, ops.MatMul) for op in made):
        for op in reversed(made):
            op.erase()
        return
    Rewriter.insert_op(made, InsertPoint.before(root))
    made[-1].location = root.location
    set_value_name(apart, value_name(root.results[0]))
    root.results[0].replace_all_uses_with(apart)
    _erase_unread(old)


def _apart(value: SSAValue, heads: Heads, made: list[OnnxOp], old: list[OnnxOp]) -> SSAValue | None:
    """`value` with its heads apart, by operations that are added to `made`; those in whose place they are, to `old`."""
    dims, element = dims_of(value), element_of(value.type)
    if dims is None or element is None or len(dims) != 3 or dims[0] != heads[0] * heads[1]:
        return None
    joined = made_by(value, "Reshape")
    if joined is not None:
        source = joined.operands[0]
        old.append(joined)
        return source if dims_of(source) == (*heads, *dims[1:]) else None
    op = made_by(value, "MatMul", "Transpose", "Softmax", "Mul", "Div", "Add", "Cast")
    if op is None or not is_read_once(value) or not _keeps_matrices(op):
        return None
    old.append(op)
    operands = [operand if _is_scalar(operand) else _apart(operand, heads, made, old) for operand in op.operands]
    known = [operand for operand in operands if operand is not None]
    if len(known) != len(operands):
        return None
    attributes = {"Transpose": {"perm": [0, 1, 3, 2]}, "Softmax": {"axis": 3}, "Cast": {"to": op.attr("to")}}
    opset = opset_in_force(op, "")
    result = tensor_type(element.type, (*heads, *dims[1:]))
    made.append(type(op).make(known, [result], attributes.get(op.op_type, {}), opset=opset))
    set_value_name(made[-1].results[0], f"{value_name(value)}_apart")
    return made[-1].results[0]


def _keeps_matrices(op: OnnxOp) -> bool:
    """Whether an operation does the same with each matrix, wherever it is."""
    if op.op_type == "Transpose":
        return op.attr("perm") == _ROWS_AND_COLUMNS
    if op.op_type == "Cast":
        return is_float(op.results[0])
    return op.op_type != "Softmax" or op.attr("axis") in (-1, 2)


def _is_scalar(value: SSAValue) -> bool:
    return scalar_of(value) is not None and dims_of(value) in ((), (ONE,))


def _erase_unread(old: list[OnnxOp]) -> None:
    waiting: list[Operation] = [*old]
    while unread := [op for op in waiting if op.parent is not None and not any(r.first_use for r in op.results)]:
        for op in unread:
            op.detach()
            op.erase()
