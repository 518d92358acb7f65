"""What RotaryEmbedding computes, in operations of older opsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, OpResult, SSAValue

from gimlet.dialects.onnx import InitializerOp, OnnxOp, dims_of, ops, tensor_type
from gimlet.runtime.expr import ONE, Expr

PARTS_OPSET = 13
"""The first opset that these operations are written for."""
_COUNTED_SPLIT = 18


@dataclass(frozen=True)
class RotaryForm:
    """How a rotation is written: what is paired, and where its heads are.

    `pairs`: of neighbours, not of one element of each half. `heads_axis`: 1 for [batch, heads, positions, size], 2 for
    [batch, positions, heads, size]. `repeated`: cosines and sines have the size of x, each number for both of a pair.
    """

    pairs: bool = False
    heads_axis: int = 1
    repeated: bool = True


def rotated(x: SSAValue, cos: SSAValue, sin: SSAValue, opset: int, form: RotaryForm) -> SSAValue:
    """x of four dimensions turned by angles [batch, positions, size / 2], by operations in no block.

    A pair (a, b) becomes (a·cos − b·sin, b·cos + a·sin), rounded as in x·cos + rotate_half(x)·sin.
    """
    dims = dims_of(x)
    if dims is None:
        raise TypeError("a value of a rotary embedding has a shape")
    half = with_dims(x, [*dims[:-1], dims[-1] // 2])
    first, second = _neighbours(x, half, opset) if form.pairs else _halves(x, half, opset)
    heads = InitializerOp.from_array(np.array([form.heads_axis]))
    cos, sin = (_unsqueezed(angle, heads, form.heads_axis, opset) for angle in (cos, sin))

    def write(kind: type[OnnxOp], left: SSAValue, right: SSAValue) -> SSAValue:
        return kind.make([left, right], [half], opset=opset).results[0]

    real = write(ops.Sub, write(ops.Mul, first, cos), write(ops.Mul, second, sin))
    imaginary = write(ops.Add, write(ops.Mul, second, cos), write(ops.Mul, first, sin))
    if not form.pairs:
        return ops.Concat.make([real, imaginary], [x.type], {"axis": len(dims) - 1}, opset=opset).results[0]
    last, column = InitializerOp.from_array(np.array([-1])), with_dims(x, [*dims[:-1], dims[-1] // 2, ONE])
    columns = [ops.Unsqueeze.make([part, last], [column], opset=opset).results[0] for part in (real, imaginary)]
    apart = with_dims(x, [*dims[:-1], dims[-1] // 2, 2])
    joined = ops.Concat.make(columns, [apart], {"axis": -1}, opset=opset).results[0]
    return reshaped(joined, x.type, [0, 0, 0, dims[-1].as_int()], opset)


def reshaped(value: SSAValue, type_: Attribute, sizes: Sequence[int], opset: int) -> OpResult:
    """`value` as a `type_`, by a Reshape in no block to `sizes`, of which 0 is as before."""
    shape = InitializerOp.from_array(np.array(sizes))
    return ops.Reshape.make([value, shape], [type_], opset=opset).results[0]


def _halves(x: SSAValue, half: Attribute, opset: int) -> Sequence[SSAValue]:
    count = {"num_outputs": 2} if opset >= _COUNTED_SPLIT else {}
    return ops.Split.make([x], [half, half], {"axis": 3, **count}, opset=opset).results


def _neighbours(x: SSAValue, half: Attribute, opset: int) -> Sequence[SSAValue]:
    end, axis, step = (InitializerOp.from_array(np.array([number])) for number in (np.iinfo(np.int64).max, 3, 2))
    begins = [InitializerOp.from_array(np.array([begin])) for begin in (0, 1)]
    return [ops.Slice.make([x, begin, end, axis, step], [half], opset=opset).results[0] for begin in begins]


def _unsqueezed(angle: SSAValue, axes: InitializerOp, heads_axis: int, opset: int) -> SSAValue:
    dims = dims_of(angle)
    if dims is None:
        raise TypeError("a value of a rotary embedding has a shape")
    spread = with_dims(angle, [*dims[:heads_axis], ONE, *dims[heads_axis:]])
    return ops.Unsqueeze.make([angle, axes], [spread], opset=opset).results[0]


def with_dims(value: SSAValue, dims: Sequence[Expr | int]) -> Attribute:
    """The type of `value` with other dimensions."""
    if not isinstance(value.type, TensorType):
        raise TypeError("a value of a rotary embedding is a tensor")
    return tensor_type(value.type.element_type, dims)
