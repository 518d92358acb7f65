"""The caches that RotaryEmbedding reads: of cosines and sines that hold each number twice, one of the two."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.ir import Block, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import (
    InitializerOp,
    OnnxOp,
    constant_value,
    dims_of,
    ops,
    set_value_name,
    tensor_type,
    value_name,
)
from gimlet.dialects.onnx.ir_weights import INLINE_BYTES
from gimlet.passes.match import made_by
from gimlet.passes.rotary_parts import RotaryForm, with_dims
from gimlet.runtime.expr import ONE, Expr

_Key = tuple[SSAValue, RotaryForm]


def last_size(value: SSAValue) -> int | None:
    """The size of the last dimension, if that is a number."""
    dims = dims_of(value)
    return dims[-1].as_int() if dims and dims[-1].is_constant else None


def integers_of(value: SSAValue | None) -> list[int] | None:
    """The elements of a small constant."""
    array = constant_value(value, None, 16) if value is not None else None
    return None if array is None else [int(number) for number in np.ravel(array)]


def joins_two(concat: OnnxOp) -> bool:
    """Whether a Concat joins two values along their last dimension."""
    dims = dims_of(concat.results[0])
    return dims is not None and len(concat.operands) == 2 and concat.attr("axis") in (-1, len(dims) - 1)


@dataclass
class RotaryCaches:
    """Cosines and sines as RotaryEmbedding takes them at `opset`; each is made once and read by every layer."""

    ctx: GimletContext
    opset: int
    _repeated: dict[_Key, bool] = field(default_factory=dict[_Key, bool], init=False)
    _halves: dict[_Key, SSAValue] = field(default_factory=dict[_Key, SSAValue], init=False)
    _made: dict[tuple[_Key, Expr, Block | None], SSAValue] = field(
        default_factory=dict[tuple[_Key, Expr, Block | None], SSAValue], init=False
    )

    def fits(self, angle: SSAValue, x: SSAValue, form: RotaryForm) -> bool:
        """Whether `angle` has x's positions and size, is the same for all heads, and each number for both of a pair."""
        dims, wanted = dims_of(angle), dims_of(x)
        if dims is None or wanted is None or len(wanted) != 4 or not 2 <= len(dims) <= 4:
            return False
        if form.heads_axis == 2 and len(dims) != 4:
            return False
        batch, *rest = (ONE,) * (4 - len(dims)) + dims
        size = wanted[3] if form.repeated else wanted[3] // 2
        expected = [ONE, wanted[2], size] if form.heads_axis == 1 else [wanted[1], ONE, size]
        if batch not in (ONE, wanted[0]) or rest != expected:
            return False
        return not form.repeated or self._is_repeated((angle, form))

    def cache(self, angle: SSAValue, x: SSAValue, root: OnnxOp, form: RotaryForm) -> SSAValue:
        """One number of each pair of what `fits`, [batch, positions, size / 2], at hand before `root`."""
        batch = _dims(x)[0]
        key = (angle, form), batch, root.parent
        if key not in self._made:
            half = self._without_heads(angle, root, form)
            self._made[key] = half if _dims(half)[:-2] == (batch,) else self._spread(half, x, root)
        return self._made[key]

    def _is_repeated(self, key: _Key) -> bool:
        if key not in self._repeated:
            self._repeated[key] = self._find_repeated(*key)
        return self._repeated[key]

    def _find_repeated(self, value: SSAValue, form: RotaryForm) -> bool:
        size = last_size(value)
        if size is None or size % 2:
            return False
        array = constant_value(value, self.ctx)
        if array is not None:
            first, second = _parted(array, form)
            return np.array_equal(first, second)
        if form.pairs and made_by(value, "Reshape") is not None:
            return _doubled(value) is not None
        concat = made_by(value, "Concat")
        if concat is not None:
            return not form.pairs and joins_two(concat) and concat.operands[0] is concat.operands[1]
        sources = _repeating_operands(value)
        return bool(sources) and all(self._is_repeated((source, form)) for source in sources)

    def _half(self, value: SSAValue, form: RotaryForm) -> SSAValue:
        """One of the two of each number that is repeated, made where the value is."""
        key = value, form
        if key not in self._halves:
            self._halves[key] = self._make_half(value, form) if form.repeated else value
        return self._halves[key]

    def _make_half(self, value: SSAValue, form: RotaryForm) -> SSAValue:
        op = value.owner
        if not isinstance(op, OnnxOp):
            raise TypeError("what repeats its numbers is made by an operation")
        doubled = _doubled(value) if form.pairs else None
        concat = made_by(value, "Concat")
        if doubled is not None or concat is not None:
            return doubled or op.operands[0]
        *rest, size = _dims(value)
        array = constant_value(value, self.ctx)
        if array is not None:
            return self._constant(_parted(array, form)[0], value)
        sources = {source: self._half(source, form) for source in _repeating_operands(value)}
        made = op.create(
            operands=[sources.get(operand, operand) for operand in op.operands],
            result_types=[with_dims(value, [*rest, size // 2])],
            properties=op.properties,
            attributes=op.attributes,
            location=op.location,
        )
        return _insert(made, f"{value_name(value)}_half", InsertPoint.after(op))

    def _constant(self, array: np.ndarray[Any, Any], value: SSAValue) -> SSAValue:
        """A part of the constant that `value` is, beside it."""
        name = f"{value_name(value)}_half"
        if array.nbytes <= INLINE_BYTES:
            made = InitializerOp.from_array(array)
        else:
            key = self.ctx.weights.add(name, array)
            made = InitializerOp.from_key(key, with_dims(value, array.shape))
        if not isinstance(value.owner, Operation):
            raise TypeError("a constant is made by an operation")
        return _insert(made, name, InsertPoint.after(value.owner))

    def _without_heads(self, angle: SSAValue, root: OnnxOp, form: RotaryForm) -> SSAValue:
        """One number of each pair, without the dimension of heads, which has one element."""
        dims, axis = _dims(angle), form.heads_axis
        if len(dims) < 4:
            return self._half(angle, form)
        array = constant_value(angle, self.ctx)
        if array is not None:
            array = array.squeeze(axis)
            return self._constant(_parted(array, form)[0] if form.repeated else array, angle)
        unsqueezed = made_by(angle, "Unsqueeze")
        if unsqueezed is not None and integers_of(unsqueezed.operands[1]) in ([axis], [axis - 4]):
            return self._half(unsqueezed.operands[0], form)
        half, before = self._half(angle, form), InsertPoint.before(root)
        name = f"{value_name(angle)}_cache"
        axes = _insert(InitializerOp.from_array(np.array([axis])), f"{name}_axis", before)
        kept = _dims(half)
        type_ = with_dims(half, [*kept[:axis], *kept[axis + 1 :]])
        return _insert(ops.Squeeze.make([half, axes], [type_], opset=self.opset), name, before)

    def _spread(self, half: SSAValue, x: SSAValue, root: OnnxOp) -> SSAValue:
        """The half once for each batch of x."""
        batch, before = _dims(x)[0], InsertPoint.before(root)
        name = f"{value_name(half)}_spread"
        sizes = [batch.as_int(), 1, 1] if batch.is_constant else [1, 1]
        shape = _insert(InitializerOp.from_array(np.array(sizes)), f"{name}_sizes", before)
        if not batch.is_constant:
            counted = ops.Shape.make([x], [tensor_type(np.int64, [1])], {"start": 0, "end": 1}, opset=self.opset)
            operands = [_insert(counted, f"{name}_batch", before), shape]
            joined = ops.Concat.make(operands, [tensor_type(np.int64, [3])], {"axis": 0}, opset=self.opset)
            shape = _insert(joined, f"{name}_shape", before)
        type_ = with_dims(half, [batch, *_dims(half)[-2:]])
        return _insert(ops.Expand.make([half, shape], [type_], opset=self.opset), name, before)


def _parted(array: np.ndarray[Any, Any], form: RotaryForm) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Both of each pair along the last dimension."""
    if form.pairs:
        return array[..., ::2], array[..., 1::2]
    half = array.shape[-1] // 2
    return array[..., :half], array[..., half:]


def _doubled(value: SSAValue) -> SSAValue | None:
    """What `value` has each number of twice in a row: Unsqueeze at the end, Expand or Concat to two there, Reshape."""
    joined = made_by(value, "Reshape")
    spread = made_by(joined.operands[0], "Expand", "Concat") if joined is not None else None
    apart = made_by(spread.operands[0], "Unsqueeze") if spread is not None else None
    if spread is None or apart is None:
        return None
    if spread.op_type == "Concat" and (len(spread.operands) != 2 or spread.operands[0] is not spread.operands[1]):
        return None
    dims, one, two, wanted = map(dims_of, (apart.operands[0], apart.results[0], spread.results[0], value))
    if not dims or one != (*dims, ONE) or two != (*dims, Expr.const(2)) or wanted != (*dims[:-1], dims[-1] * 2):
        return None
    return apart.operands[0]


def _repeating_operands(value: SSAValue) -> list[SSAValue]:
    """The operands that must hold their first half twice for `value` to do so; none if that does not follow."""
    op = made_by(value, "Cast", "Cos", "Gather", "Mul", "Sin", "Unsqueeze")
    if op is None:
        return []
    if op.op_type == "Mul":
        return [operand for operand in op.operands if dims_of(operand) != () and last_size(operand) != 1]
    if op.op_type == "Gather":
        source = dims_of(op.operands[0])
        return [op.operands[0]] if source is not None and op.attr("axis") in range(len(source) - 1) else []
    # An Unsqueeze at the end would have left one element there, which has no halves.
    return [op.operands[0]]


def _dims(value: SSAValue) -> tuple[Expr, ...]:
    dims = dims_of(value)
    if dims is None:
        raise TypeError("a value of a rotary embedding has a shape")
    return dims


def _insert(op: Operation, name: str, where: InsertPoint) -> SSAValue:
    set_value_name(op.results[0], name)
    Rewriter.insert_op(op, where)
    return op.results[0]
