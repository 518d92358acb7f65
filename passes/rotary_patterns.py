"""The ways in which a rotation of pairs of elements is written out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.ir import OpResult, SSAValue

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.passes.match import made_by
from gimlet.passes.rotary_caches import integers_of, joins_two, last_size
from gimlet.passes.rotary_parts import RotaryForm
from gimlet.runtime.expr import ONE


@dataclass(frozen=True)
class Rotation:
    """x of four dimensions turned by angles, as the operations `matched` make it."""

    x: SSAValue
    cos: SSAValue
    sin: SSAValue
    form: RotaryForm
    matched: list[OnnxOp]


def rotations(root: OnnxOp) -> Iterator[Rotation]:
    """What `root` can be read as: x·cos + rotate(x)·sin, or both of each pair by themselves, joined."""
    found = list(_sums(root) if root.op_type == "Add" else _joined_parts(root))
    for each in found:
        yield each
        yield Rotation(each.x, each.cos, each.sin, RotaryForm(each.form.pairs, 2, each.form.repeated), each.matched)


def _sums(root: OnnxOp) -> Iterator[Rotation]:
    left, right = (made_by(operand, "Mul") for operand in root.operands)
    if left is None or right is None:
        return
    for plain, across in ((left, right), (right, left)):
        for turned, sin in (across.operands, reversed(across.operands)):
            for x, pairs, parts in _turned(turned):
                if x in plain.operands:
                    cos = plain.operands[1] if plain.operands[0] is x else plain.operands[0]
                    yield Rotation(x, cos, sin, RotaryForm(pairs), [plain, across, *parts])


def _turned(value: SSAValue) -> Iterator[tuple[SSAValue, bool, list[OnnxOp]]]:
    """What (−b, a) is made of, for each pair (a, b): x, whether pairs are of neighbours, and the operations."""
    parted = _joined(value)
    if parted is None:
        return
    negated, first, pairs, matched = parted
    minus = made_by(negated, "Neg")
    found = _pair(first, minus.operands[0]) if minus is not None else None
    if minus is not None and found is not None and found[1] == pairs:
        yield found[0], pairs, [*matched, minus, *found[2]]


def _joined_parts(root: OnnxOp) -> Iterator[Rotation]:
    """(a·cos − b·sin, b·cos + a·sin) of each pair (a, b)."""
    parted = _joined(root.results[0])
    if parted is None:
        return
    minus, plus = made_by(parted[0], "Sub"), made_by(parted[1], "Add")
    if minus is None or plus is None:
        return
    products = [made_by(value, "Mul") for value in (*minus.operands, *plus.operands)]
    given = [set(product.operands) for product in products if product is not None]
    if len(given) != 4 or any(len(operands) != 2 for operands in given):
        return
    for two, three in ((2, 3), (3, 2)):
        # a is in the first and the last product, cos in the first and the one before, and so on.
        a, cos, sin, b = given[0] & given[three], given[0] & given[two], given[1] & given[three], given[1] & given[two]
        if not len(a) == len(cos) == len(sin) == len(b) == 1:
            continue
        found = _pair(a.pop(), b.pop())
        if found is not None and found[1] == parted[2]:
            ops = [op for op in products if op is not None]
            form = RotaryForm(parted[2], repeated=False)
            yield Rotation(found[0], cos.pop(), sin.pop(), form, [*parted[3], minus, plus, *ops, *found[2]])


def _joined(value: SSAValue) -> tuple[SSAValue, SSAValue, bool, list[OnnxOp]] | None:
    """The two that are joined along the last dimension, as halves or (True) in turns, with the operations that do."""
    concat = made_by(value, "Concat")
    if concat is not None:
        return (concat.operands[0], concat.operands[1], False, [concat]) if joins_two(concat) else None
    flat = made_by(value, "Reshape")
    concat = made_by(flat.operands[0], "Concat") if flat is not None else None
    if flat is None or concat is None or not joins_two(concat):
        return None
    columns = [made_by(operand, "Unsqueeze") for operand in concat.operands]
    ops = [column for column in columns if column is not None]
    if len(ops) != 2:
        return None
    first, second = (op.operands[0] for op in ops)
    dims, wanted = dims_of(first), dims_of(value)
    if not dims or wanted != (*dims[:-1], dims[-1] * 2) or any(dims_of(op.results[0]) != (*dims, ONE) for op in ops):
        return None
    return first, second, True, [flat, concat, *ops]


def _pair(first: SSAValue, second: SSAValue) -> tuple[SSAValue, bool, list[OnnxOp]] | None:
    """What the two are the first and the second of each pair of along the last dimension.

    With it whether pairs are of neighbours, and the operations that part them.
    """
    if not (isinstance(first, OpResult) and isinstance(second, OpResult)):
        return None
    parts = [op for op in (made_part(first), made_part(second)) if op is not None]
    if len(parts) != 2 or parts[0].operands[0] is not parts[1].operands[0]:
        return None
    size = last_size(parts[0].operands[0])
    if size is None or size % 2:
        return None
    found = [_range(part, size) for part in (first, second)]
    if found == [(0, size // 2, 1), (size // 2, size, 1)]:
        return parts[0].operands[0], False, parts
    return (parts[0].operands[0], True, parts) if found == [(0, size, 2), (1, size, 2)] else None


def made_part(value: OpResult) -> OnnxOp | None:
    """The Slice or Split that makes `value`."""
    op = value.op
    return op if isinstance(op, OnnxOp) and op.op_type in ("Slice", "Split") and not op.domain else None


def _range(part: OpResult, size: int) -> tuple[int, int, int] | None:
    """Where a part of the last dimension, of `size` elements, begins and ends, and its step; None for another one's."""
    op, dims = part.op, dims_of(part.op.operands[0])
    if not isinstance(op, OnnxOp) or dims is None:
        return None
    if op.op_type == "Split":
        whole = len(op.results) == 2 and op.attr("axis") in (-1, len(dims) - 1) and last_size(part) == size // 2
        return (part.index * size // 2, (part.index + 1) * size // 2, 1) if whole else None
    start, end, axis = (integers_of(op.input_at(index)) for index in (1, 2, 3))
    step = [1] if op.input_at(4) is None else integers_of(op.input_at(4))
    if step not in ([1], [2]) or axis not in ([-1], [len(dims) - 1]) or start is None or end is None:
        return None
    begin, stop, _ = slice(start[0], end[0]).indices(size)
    return begin, stop, step[0]
