"""What RotaryEmbedding computes, in operations of older opsets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, SSAValue

from gimlet.dialects.onnx import InitializerOp, OnnxOp, dims_of, ops, tensor_type
from gimlet.runtime.expr import ONE, Expr

PARTS_OPSET = 13
"""The first opset that these operations are written for."""
_COUNTED_SPLIT = 18


def rotated(x: SSAValue, cos: SSAValue, sin: SSAValue, opset: int) -> SSAValue:
    """x [batch, heads, positions, size] turned by angles [batch, positions, size / 2], by operations in no block.

    A pair (a, b) of one element of each half becomes (a·cos − b·sin, b·cos + a·sin), rounded as in x·cos +
    rotate_half(x)·sin.
    """
    dims = dims_of(x)
    if dims is None:
        raise TypeError("a value of a rotary embedding has a shape")
    half = _like(x, [*dims[:-1], dims[-1] // 2])
    count = {"num_outputs": 2} if opset >= _COUNTED_SPLIT else {}
    first, second = ops.Split.make([x], [half, half], {"axis": len(dims) - 1, **count}, opset=opset).results
    heads = InitializerOp.from_array(np.array([1]))
    cos, sin = (_unsqueezed(angle, heads, opset) for angle in (cos, sin))

    def write(kind: type[OnnxOp], left: SSAValue, right: SSAValue) -> SSAValue:
        return kind.make([left, right], [half], opset=opset).results[0]

    real = write(ops.Sub, write(ops.Mul, first, cos), write(ops.Mul, second, sin))
    imaginary = write(ops.Add, write(ops.Mul, second, cos), write(ops.Mul, first, sin))
    return ops.Concat.make([real, imaginary], [x.type], {"axis": len(dims) - 1}, opset=opset).results[0]


def _unsqueezed(angle: SSAValue, axes: InitializerOp, opset: int) -> SSAValue:
    dims = dims_of(angle)
    if dims is None:
        raise TypeError("a value of a rotary embedding has a shape")
    return ops.Unsqueeze.make([angle, axes], [_like(angle, [dims[0], ONE, *dims[1:]])], opset=opset).results[0]


def _like(value: SSAValue, dims: Sequence[Expr]) -> Attribute:
    """The type of `value` with other dimensions."""
    if not isinstance(value.type, TensorType):
        raise TypeError("a value of a rotary embedding is a tensor")
    return tensor_type(value.type.element_type, dims)
