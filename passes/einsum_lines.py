"""Einsum as lines of a function in ONNX's text form: products of matrices, transpositions and sums.

An operand is a value and a *label* for each of its dimensions: a letter of the equation, or a number for those that
`...` stands for, which counts from the last. First each operand gives up what concerns it alone: of a label that it has
twice only the diagonal stays, what only it has is summed, and a dimension of size 1 goes where it is longer in another
operand. Then the first two become one until one is left. Of two, labels that are summed behind both are the depth of a
MatMul, shared ones that are not are its batch, and of the others those of the first are rows and those of the second
columns. Where nothing is summed, or neither has others, it is a product element by element.

Rows stay apart where there is no batch, as MatMul takes them so, and columns are joined to one dimension. Sizes of what
is joined are read from the operands where at most one dimension may be left open (Reshape's 0 and -1) and two are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.passes.function_lines import Lines, LineWriter, Unwritten
from gimlet.runtime.expr import ONE, Expr

_AXES_ARE_AN_INPUT = 13
_NOTHING = Expr.const(0)
_EQUATION = re.compile(r"((?:[A-Za-z]|\.\.\.|,)*)(?:->((?:[A-Za-z]|\.\.\.)*))?")
_SUBSCRIPT = re.compile(r"([A-Za-z]*)(\.\.\.)?([A-Za-z]*)")

Label = str | int


def einsum(op: OnnxOp, opset: int) -> Lines:
    """The lines that compute `y0` of `x0`, `x1`, ..."""
    shapes = [None if value is None else dims_of(value) for value in op.inputs]
    known = [shape for shape in shapes if shape is not None]
    equation = str(op.attr("equation", "")).replace(" ", "")
    if opset < _AXES_ARE_AN_INPUT or len(known) < len(shapes) or any(_NOTHING in shape for shape in known):
        return Unwritten("where the shapes of all operands are known and nothing is empty, from opset 13 on")
    terms = _terms(equation, known)
    if isinstance(terms, Unwritten):
        return terms
    *given, wanted = terms
    writer = _Writer({}, wanted)
    for index, (labels, dims) in enumerate(zip(given, known, strict=True)):
        for axis, (label, size) in enumerate(zip(labels, dims, strict=True)):
            if writer.sizes.setdefault(label, _Size(f"x{index}", axis, size)).dim == ONE:
                writer.sizes[label] = _Size(f"x{index}", axis, size)
    operands = [
        _Operand(f"x{index}", labels, dims) for index, (labels, dims) in enumerate(zip(given, known, strict=True))
    ]
    last = writer.reduced(operands)
    writer.lines.append(f"y0 = Identity ({writer.ordered(last, wanted).name})")
    return writer.lines


def _terms(equation: str, shapes: Sequence[Sequence[Expr]]) -> list[list[Label]] | Unwritten:
    """The labels of each operand, and those of the result behind them."""
    parts = _EQUATION.fullmatch(equation)
    texts = parts.group(1).split(",") if parts else []
    wrong = Unwritten(f"where the equation fits the operands, and {equation!r} does not")
    if parts is None or len(texts) != len(shapes):
        return wrong
    terms = [_labels(text, len(shape)) for text, shape in zip(texts, shapes, strict=True)]
    found = [term for term in terms if term is not None]
    if len(found) < len(terms):
        return wrong
    widest = max((len([each for each in term if isinstance(each, int)]) for term in found), default=0)
    if parts.group(2) is not None:
        has_ellipsis = "..." in parts.group(2)
        count = len(parts.group(2).replace("...", "")) + (widest if has_ellipsis else 0)
        result = _labels(parts.group(2), count)
        if widest and not has_ellipsis:
            return Unwritten(f"where the result has all dimensions of '...', and that of {equation!r} has none")
    else:
        letters = [each for term in found for each in term if isinstance(each, str)]
        once = sorted(each for each in set(letters) if letters.count(each) == 1)
        if once and not ("".join(once).islower() or "".join(once).isupper()):
            return Unwritten(f"where the result's order is said, and {equation!r} has small and capital letters in one")
        result = [*range(widest - 1, -1, -1), *once]
    if result is None or len(set(result)) < len(result) or not set(result) <= {each for term in found for each in term}:
        return wrong
    return [*found, result]


def _labels(text: str, rank: int) -> list[Label] | None:
    """A label for each of `rank` dimensions; None where a subscript does not fit that."""
    match = _SUBSCRIPT.fullmatch(text)
    if match is None:
        return None
    before, dots, after = match.groups()
    hidden = rank - len(before) - len(after)
    if hidden < 0 or (hidden and not dots):
        return None
    return [*before, *range(hidden - 1, -1, -1), *after]


@dataclass(frozen=True)
class _Size:
    """Where a label's size may be read."""

    source: str
    axis: int
    dim: Expr


@dataclass(frozen=True)
class _Operand:
    """A value of the function, and the label and size of each dimension."""

    name: str
    labels: Sequence[Label]
    dims: Sequence[Expr]

    def size(self, label: Label) -> Expr:
        return self.dims[self.labels.index(label)]


@dataclass
class _Writer(LineWriter):
    """Writes lines for operands of one equation."""

    sizes: dict[Label, _Size]
    wanted: Sequence[Label]

    def reduced(self, operands: Sequence[_Operand]) -> _Operand:
        """All operands as one, with the labels of the result in some order."""
        alone = [self.diagonal(operand) for operand in operands]
        for index, operand in enumerate(alone):
            others = [*alone[:index], *alone[index + 1 :]]
            repeated = [
                label
                for label, size in zip(operand.labels, operand.dims, strict=True)
                if size == ONE and any(label in each.labels and each.size(label) != ONE for each in others)
            ]
            alone[index] = self.without(operand, repeated)
        total = self.summed(alone[0], alone[1:])
        for index, operand in enumerate(alone[1:], 1):
            rest = alone[index + 1 :]
            total = self.product(total, self.summed(operand, [total, *rest]), rest)
        return total

    def product(self, left: _Operand, right: _Operand, rest: Sequence[_Operand]) -> _Operand:
        """Two operands as one, without the labels that nothing behind them has."""
        shared = [label for label in left.labels if label in right.labels]
        batch = [label for label in shared if self.is_kept(label, rest)]
        depth = [label for label in shared if label not in batch]
        if not depth or len(shared) == len(left.labels) == len(right.labels):
            return self.summed(self.elementwise(left, right), rest)
        rows, columns = ([label for label in each.labels if label not in shared] for each in (left, right))
        if not columns or (rows and self.wanted and self.wanted[-1] in rows):
            return self.matmul(right, left, (batch, columns, depth, rows))
        return self.matmul(left, right, (batch, rows, depth, columns))

    def elementwise(self, left: _Operand, right: _Operand) -> _Operand:
        wide = [*left.labels, *(label for label in right.labels if label not in left.labels)]
        labels = [label for label in self.wanted if label in wide]
        labels = [*(label for label in wide if label not in labels), *labels]
        spread: list[str] = []
        for operand in (left, right):
            turned = self.ordered(operand, [label for label in labels if label in operand.labels])
            missing = [axis for axis, label in enumerate(labels) if label not in operand.labels]
            spread.append(self.unsqueezed(turned.name, missing))
        dims = [(left if label in left.labels else right).size(label) for label in labels]
        return _Operand(self.line(f"Mul ({spread[0]}, {spread[1]})"), labels, dims)

    def matmul(self, left: _Operand, right: _Operand, parts: Sequence[list[Label]]) -> _Operand:
        """Rows of one by columns of the other. There is a depth, and columns."""
        batch, rows, depth, columns = parts
        # MatMul takes rows of several dimensions as they are.
        apart = [] if batch else rows
        first = self.joined(left, [*batch, *apart], *([] if apart else [rows]), depth)
        product = self.line(f"MatMul ({first}, {self.joined(right, batch, depth, columns)})")
        result = [*batch, *rows, *columns]
        dims = [(left if label in left.labels else right).size(label) for label in result]
        if len(columns) > 1 or len(rows) > max(1, len(apart)):
            product = self.reshaped(product, [[label] for label in result], len(batch) + len(apart))
        elif not rows:
            product = self.line(f"Squeeze ({product}, {self.numbers(len(batch))})")
        return _Operand(product, result, dims)

    def joined(self, operand: _Operand, kept: Sequence[Label], *groups: Sequence[Label]) -> str:
        """A value with the dimensions `kept`, and one for each of the groups."""
        turned = self.ordered(operand, [*kept, *(label for group in groups for label in group)])
        if all(len(group) == 1 for group in groups):
            return turned.name
        return self.reshaped(turned.name, [*([label] for label in kept), *groups], len(kept))

    def reshaped(self, name: str, groups: Sequence[Sequence[Label]], same: int) -> str:
        """A value in another shape: a dimension for each group of labels, of which the first `same` are as they are."""
        open_ = [group for group in groups[same:] if not all(self.sizes[label].dim.is_constant for label in group)]
        entries: list[int] = []
        for index, group in enumerate(groups):
            entry = 1
            for label in group:
                dim = self.sizes[label].dim
                entry *= dim.as_int() if dim.is_constant else 1
            entries.append(0 if index < same else -1 if group in open_ else entry)
        if len(open_) < 2:
            return self.line(f"Reshape ({name}, {self.numbers(*entries)})")
        read = [
            self.product_of_sizes(group) if group in open_ else self.numbers(entry)
            for group, entry in zip(groups, entries, strict=True)
        ]
        shape = self.line(f"Concat <axis: int = 0> ({', '.join(read)})")
        return self.line(f"Reshape ({name}, {shape})")

    def product_of_sizes(self, labels: Sequence[Label]) -> str:
        """A vector of one number."""
        found = [self.size_of(label) for label in labels]
        total = found[0]
        for each in found[1:]:
            total = self.line(f"Mul ({total}, {each})")
        return total

    def size_of(self, label: Label) -> str:
        size = self.sizes[label]
        if size.dim.is_constant:
            return self.numbers(size.dim.as_int())
        shape = self.line(f"Shape ({size.source})")
        return self.line(f"Gather <axis: int = 0> ({shape}, {self.numbers(size.axis)})")

    def diagonal(self, operand: _Operand) -> _Operand:
        """An operand with no label twice: elements beside the diagonal are 0 in a sum over one of both dimensions."""
        for label in dict.fromkeys(operand.labels):
            while operand.labels.count(label) > 1:
                first = operand.labels.index(label)
                second = operand.labels.index(label, first + 1)
                rank = len(operand.labels)
                end = self.line(f"Squeeze ({self.size_of(label)})")
                zero, one = (self.line(f"Constant <value_int: int = {value}> ()") for value in (0, 1))
                places = self.line(f"Range ({zero}, {end}, {one})")
                rows, columns = (
                    self.unsqueezed(places, [each for each in range(rank) if each != axis]) for axis in (first, second)
                )
                same = self.line(f"Equal ({rows}, {columns})")
                wide = self.line("Constant <value_float: float = 0.0> ()")
                none = self.line(f"CastLike ({wide}, {operand.name})")
                kept = self.line(f"Where ({same}, {operand.name}, {none})")
                operand = self.total(_Operand(kept, operand.labels, operand.dims), [second])
        return operand

    def summed(self, operand: _Operand, rest: Sequence[_Operand]) -> _Operand:
        """An operand without the labels that neither the result nor another operand has."""
        return self.total(operand, [axis for axis, label in enumerate(operand.labels) if not self.is_kept(label, rest)])

    def is_kept(self, label: Label, rest: Sequence[_Operand]) -> bool:
        return label in self.wanted or any(label in each.labels for each in rest)

    def total(self, operand: _Operand, axes: Sequence[int]) -> _Operand:
        """Sums over dimensions, which go."""
        if not axes:
            return operand
        left = [axis for axis in range(len(operand.labels)) if axis not in axes]
        name = self.line(f"ReduceSum <keepdims: int = 0> ({operand.name}, {self.numbers(*axes)})")
        return _Operand(name, [operand.labels[axis] for axis in left], [operand.dims[axis] for axis in left])

    def without(self, operand: _Operand, labels: Sequence[Label]) -> _Operand:
        """An operand without some dimensions of size 1."""
        if not labels:
            return operand
        left = [axis for axis, label in enumerate(operand.labels) if label not in labels]
        axes = [axis for axis in range(len(operand.labels)) if axis not in left]
        name = self.line(f"Squeeze ({operand.name}, {self.numbers(*axes)})")
        return _Operand(name, [operand.labels[axis] for axis in left], [operand.dims[axis] for axis in left])

    def ordered(self, operand: _Operand, labels: Sequence[Label]) -> _Operand:
        """An operand with its dimensions in an order."""
        perm = [operand.labels.index(label) for label in labels]
        if perm == list(range(len(perm))):
            return operand
        name = self.line(f"Transpose <perm: ints = {perm}> ({operand.name})")
        return _Operand(name, labels, [operand.dims[axis] for axis in perm])

    def unsqueezed(self, name: str, axes: Sequence[int]) -> str:
        return self.line(f"Unsqueeze ({name}, {self.numbers(*axes)})") if axes else name
