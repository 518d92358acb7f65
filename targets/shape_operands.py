"""Shapes that a segment would be told from outside, computed inside it.

A split may leave the Shape, Gather and Concat that make a Reshape's target on one device and the Reshape on another.
What they compute is known all the same: the type of the result says each dimension as an expression over symbols, and
a symbol is a dimension of something that the segment reads.

    segment(%x: [batch, seq, 64], %s: [3])
      %y = Reshape(%x, %s) : [batch, 8*seq, 8]

    segment(%x: [batch, seq, 64], %s: [3])
      %b = Gather(Shape(%x), [0])
      %q = Mul(Gather(Shape(%x), [1]), [8])
      %y = Reshape(%x, Concat(%b, %q, [8])) : [batch, 8*seq, 8]

Frameworks that compile a segment need this: to them an input is a tensor of unknown values, not a shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from xdsl.dialects.builtin import i64
from xdsl.ir import Block, BlockArgument, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.onnx import (
    OPERATORS,
    InitializerOp,
    OnnxOp,
    constant_value,
    opset_in_force,
    shape_of,
    tensor_type,
)
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Atom, Call, Expr

SHAPE_OPERANDS: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""Inputs whose value decides the shape of a result."""

_SHAPE_MAKERS = frozenset({"Shape", "Size"})
_FROM_RESULT = frozenset({"ConstantOfShape", "Expand", "Reshape"})
_CALLS = {"floordiv": "Div", "mod": "Mod", "min": "Min", "max": "Max"}


def shape_operands(op: OnnxOp) -> list[SSAValue]:
    """The inputs of an operation whose value decides the shape of a result."""
    inputs = op.inputs
    found = (inputs[index] for index in SHAPE_OPERANDS.get(op.op_type, ()) if index < len(inputs) and not op.domain)
    return [value for value in found if value is not None]


def shapes_from_outside(block: Block) -> Iterator[tuple[OnnxOp, SSAValue]]:
    """Operations of a segment whose result's shape hangs on the value of an input, each with that operand."""
    for op in block.walk():
        if isinstance(op, OnnxOp):
            for value in shape_operands(op):
                if _hangs_on_input(value, block, set()):
                    yield op, value


def _hangs_on_input(value: SSAValue, block: Block, seen: set[SSAValue]) -> bool:
    if value in seen:
        return False
    seen.add(value)
    if isinstance(value, BlockArgument):
        return value.owner is block
    owner = value.owner
    if not isinstance(owner, OnnxOp) or owner.op_type in _SHAPE_MAKERS:
        return False
    return any(_hangs_on_input(operand, block, seen) for operand in owner.operands)


def compute_shapes_inside(block: Block) -> int:
    """Rewrites a segment's block in place; returns how many operands are computed inside now.

    An operand stays as it is where the result's type does not tell its value, or where a symbol is no dimension of
    anything in the segment. `shapes_from_outside` finds those.
    """
    rewriter = _Rewriter(block)
    changed = 0
    for op, value in list(shapes_from_outside(block)):
        target = _value_from_result(op, value)
        if target is not None and op.parent_block() is block:
            made = rewriter.tensor(target, op, scalar=shape_of(value) == ())
            if made is not None:
                op.operands[list(op.operands).index(value)] = made
                changed += 1
    if changed:
        _erase_unused(block)
    return changed


def _value_from_result(op: OnnxOp, operand: SSAValue) -> list[Expr] | None:
    """The elements of a shape operand as far as the type of the op's result tells them."""
    dims = shape_of(op.results[0])
    if dims is None:
        return None
    if op.op_type in _FROM_RESULT:
        return _with_one_unknown(dims) if op.op_type == "Reshape" else _all_known(dims)
    position = op.inputs.index(operand)
    if (op.op_type, position) == ("Resize", 3):
        return _all_known(dims)
    if (op.op_type, position) == ("Slice", 2):
        return _slice_ends(op, dims)
    if op.op_type == "Tile":
        return _repeats(shape_of(op.operands[0]), dims)
    if (op.op_type, position) == ("Range", 1) and dims[0] is not None:
        start, step = constant_value(op.operands[0]), constant_value(op.operands[2])
        return None if start is None or step is None or step != 1 else [dims[0] + int(start)]
    if op.op_type == "TopK":
        axis = dims[int(op.attr("axis"))]
        return None if axis is None else [axis]
    return None


def _repeats(source: Sequence[Expr | None] | None, result: Sequence[Expr | None]) -> list[Expr] | None:
    """How often a Tile repeats each dimension: those of size 1 as often as the result says, equal ones once."""
    repeats: list[Expr] = []
    for old, new in zip(source or (), result, strict=False):
        if old is None or new is None or old not in (Expr.const(1), new):
            return None
        repeats.append(Expr.const(1) if old == new else new)
    return repeats if source is not None and len(repeats) == len(result) else None


def _all_known(dims: Sequence[Expr | None]) -> list[Expr] | None:
    known = [dim for dim in dims if dim is not None]
    return known if len(known) == len(dims) else None


def _with_one_unknown(dims: Sequence[Expr | None]) -> list[Expr] | None:
    if sum(dim is None for dim in dims) > 1:
        return None
    return [Expr.const(-1) if dim is None else dim for dim in dims]


def _slice_ends(op: OnnxOp, dims: Sequence[Expr | None]) -> list[Expr] | None:
    """Where slices end that start at a constant and go forward one by one."""
    inputs: list[SSAValue | None] = [*op.inputs, None, None]
    starts = None if inputs[1] is None else constant_value(inputs[1])
    axes = None if inputs[3] is None else constant_value(inputs[3])
    steps = None if inputs[4] is None else constant_value(inputs[4])
    if starts is None or (inputs[3] is not None and axes is None) or (inputs[4] is not None and steps is None):
        return None
    if (starts < 0).any() or (steps is not None and (steps != 1).any()):
        return None
    places = range(len(starts)) if axes is None else [int(axis) % len(dims) for axis in axes]
    ends: list[Expr] = []
    for start, axis in zip(starts, places, strict=True):
        dim = dims[axis]
        if dim is None:
            return None
        ends.append(dim + int(start))
    return ends


class _Rewriter:
    """Makes integers inside a block: each a tensor of one element, made once."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.made: dict[Expr, SSAValue] = {}
        self.sources: dict[Expr, tuple[SSAValue, int]] = {}
        for argument in block.args:
            self.note(argument)

    def note(self, value: SSAValue) -> None:
        for axis, dim in enumerate(shape_of(value) or ()):
            if dim is not None and not dim.is_constant:
                self.sources.setdefault(dim, (value, axis))

    def tensor(self, elements: Sequence[Expr], reader: OnnxOp, *, scalar: bool) -> SSAValue | None:
        """A vector of `elements` before `reader`, or a scalar of the only one; None where one cannot be computed."""
        for op in self.block.ops:
            if op is reader:
                break
            for result in op.results:
                self.note(result)
        try:
            parts = [self.element(dim, reader) for dim in elements]
            if scalar:
                return self.insert("Reshape", [parts[0], self.constant([], reader)], reader, None)
            return self.insert("Concat", parts, reader, len(parts), {"axis": 0}) if len(parts) > 1 else parts[0]
        except (InputError, LookupError):
            return None

    def element(self, expr: Expr, reader: Operation) -> SSAValue:
        """The value of an expression. LookupError where one of its symbols is no dimension here."""
        if expr.is_constant:
            return self.constant([expr.as_int()], reader)
        if expr not in self.made:
            self.made[expr] = self.from_source(expr, reader) or self.from_terms(expr, reader)
        return self.made[expr]

    def from_source(self, expr: Expr, reader: Operation) -> SSAValue | None:
        if expr not in self.sources:
            return None
        value, axis = self.sources[expr]
        rank = len(shape_of(value) or ())
        shape = self.insert("Shape", [value], reader, rank)
        return self.insert("Gather", [shape, self.constant([axis], reader)], reader, 1, {"axis": 0})

    def from_terms(self, expr: Expr, reader: Operation) -> SSAValue:
        total: SSAValue | None = None
        for monomial, coefficient in expr.terms:
            factors = [self.atom(atom, reader) for atom, power in monomial for _ in range(power)]
            if coefficient != 1 or not factors:
                factors.append(self.constant([coefficient], reader))
            product = factors[0]
            for factor in factors[1:]:
                product = self.insert("Mul", [product, factor], reader, 1)
            total = product if total is None else self.insert("Add", [total, product], reader, 1)
        if total is None:
            raise LookupError("an expression without terms is constant")
        return total

    def atom(self, atom: Atom, reader: Operation) -> SSAValue:
        if isinstance(atom, str):
            symbol = Expr.symbol(atom)
            if symbol not in self.made and symbol not in self.sources:
                raise LookupError(atom)
            return self.element(symbol, reader)
        whole = Expr.parse(atom.text)
        if whole in self.sources:
            return self.element(whole, reader)
        return self.call(atom, reader)

    def call(self, call: Call, reader: Operation) -> SSAValue:
        left = call.left if call.function != "ceildiv" else call.left + call.right - 1
        function = "Div" if call.function == "ceildiv" else _CALLS[call.function]
        return self.insert(function, [self.element(left, reader), self.element(call.right, reader)], reader, 1)

    def constant(self, elements: list[int], reader: Operation) -> SSAValue:
        constant = InitializerOp.from_array(np.array(elements, np.int64))
        Rewriter.insert_op(constant, InsertPoint.before(reader))
        return constant.results[0]

    def insert(
        self,
        op_type: str,
        inputs: Sequence[SSAValue],
        reader: Operation,
        length: int | None,
        attributes: dict[str, int] | None = None,
    ) -> SSAValue:
        """An operation of int64 vectors before `reader`. InputError where the model's opset has no such operation."""
        made = OPERATORS["", op_type].make(
            inputs, [tensor_type(i64, [] if length is None else [length])], attributes, opset=opset_in_force(reader, "")
        )
        Rewriter.insert_op(made, InsertPoint.before(reader))
        return made.results[0]


def _erase_unused(block: Block) -> None:
    """Erases what nothing reads any more."""
    for op in reversed(tuple(block.ops)):
        if isinstance(op, OnnxOp) and not op.regions and not any(result.uses for result in op.results):
            block.erase_op(op)
