"""The caches that RotaryEmbedding reads: of cosines and sines that hold each number twice, the first half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, Block, Operation, SSAValue
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
from gimlet.runtime.expr import ONE, Expr


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
    _repeated: dict[SSAValue, bool] = field(default_factory=dict[SSAValue, bool], init=False)
    _halves: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue], init=False)
    _made: dict[tuple[SSAValue, Expr, Block | None], SSAValue] = field(
        default_factory=dict[tuple[SSAValue, Expr, Block | None], SSAValue], init=False
    )

    def fits(self, angle: SSAValue, x: SSAValue) -> bool:
        """Whether `angle` has x's positions and size, is the same for all heads, and holds its first half twice."""
        dims, wanted = dims_of(angle), dims_of(x)
        if dims is None or wanted is None or len(wanted) != 4 or not 2 <= len(dims) <= 4:
            return False
        batch, heads, *rest = (ONE,) * (4 - len(dims)) + dims
        if batch not in (ONE, wanted[0]) or heads != ONE or tuple(rest) != wanted[2:]:
            return False
        return self._is_repeated(angle)

    def cache(self, angle: SSAValue, x: SSAValue, root: OnnxOp) -> SSAValue:
        """The first half of what `fits`, [batch, positions, size / 2], at hand before `root`."""
        batch = _dims(x)[0]
        key = angle, batch, root.parent
        if key not in self._made:
            half = self._without_heads(angle, root)
            self._made[key] = half if _dims(half)[:-2] == (batch,) else self._spread(half, x, root)
        return self._made[key]

    def _is_repeated(self, value: SSAValue) -> bool:
        if value not in self._repeated:
            self._repeated[value] = self._find_repeated(value)
        return self._repeated[value]

    def _find_repeated(self, value: SSAValue) -> bool:
        size = last_size(value)
        if size is None or size % 2:
            return False
        array = constant_value(value, self.ctx)
        if array is not None:
            return np.array_equal(array[..., : size // 2], array[..., size // 2 :])
        concat = made_by(value, "Concat")
        if concat is not None:
            return joins_two(concat) and concat.operands[0] is concat.operands[1]
        sources = _repeating_operands(value)
        return bool(sources) and all(map(self._is_repeated, sources))

    def _half(self, value: SSAValue) -> SSAValue:
        """The first half of what is repeated, made where the value is."""
        if value not in self._halves:
            self._halves[value] = self._make_half(value)
        return self._halves[value]

    def _make_half(self, value: SSAValue) -> SSAValue:
        op = value.owner
        if not isinstance(op, OnnxOp):
            raise TypeError("what repeats its first half is made by an operation")
        concat = made_by(value, "Concat")
        if concat is not None:
            return concat.operands[0]
        *rest, size = _dims(value)
        array = constant_value(value, self.ctx)
        if array is not None:
            return self._constant(array[..., : size.as_int() // 2], value)
        sources = {source: self._half(source) for source in _repeating_operands(value)}
        made = op.create(
            operands=[sources.get(operand, operand) for operand in op.operands],
            result_types=[_like(value, [*rest, size // 2])],
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
            made = InitializerOp.from_key(key, _like(value, array.shape))
        if not isinstance(value.owner, Operation):
            raise TypeError("a constant is made by an operation")
        return _insert(made, name, InsertPoint.after(value.owner))

    def _without_heads(self, angle: SSAValue, root: OnnxOp) -> SSAValue:
        """The first half without the dimension of heads, which has one element."""
        dims = _dims(angle)
        if len(dims) < 4:
            return self._half(angle)
        array = constant_value(angle, self.ctx)
        if array is not None:
            return self._constant(array[:, 0, :, : array.shape[-1] // 2], angle)
        unsqueezed = made_by(angle, "Unsqueeze")
        if unsqueezed is not None and integers_of(unsqueezed.operands[1]) in ([1], [-3]):
            return self._half(unsqueezed.operands[0])
        half, before = self._half(angle), InsertPoint.before(root)
        name = f"{value_name(angle)}_cache"
        axis = _insert(InitializerOp.from_array(np.array([1])), f"{name}_axis", before)
        type_ = _like(half, [dims[0], *_dims(half)[2:]])
        return _insert(ops.Squeeze.make([half, axis], [type_], opset=self.opset), name, before)

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
        type_ = _like(half, [batch, *_dims(half)[-2:]])
        return _insert(ops.Expand.make([half, shape], [type_], opset=self.opset), name, before)


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


def _like(value: SSAValue, dims: Sequence[Expr | int]) -> Attribute:
    """The type of `value` with other dimensions."""
    if not isinstance(value.type, TensorType):
        raise TypeError("a value of a rotary embedding is a tensor")
    return tensor_type(value.type.element_type, dims)


def _insert(op: Operation, name: str, where: InsertPoint) -> SSAValue:
    set_value_name(op.results[0], name)
    Rewriter.insert_op(op, where)
    return op.results[0]
