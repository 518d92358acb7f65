"""Half precision computed in float32: operands are cast, the operator computes, and its results are rounded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from xdsl.dialects.builtin import BFloat16Type, Float16Type
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.rewriter import Rewriter

from gimlet.dialects.onnx import OnnxOp, dims_of, ops, tensor_type
from gimlet.dialects.onnx.types import element_of

_HALVES = (Float16Type, BFloat16Type)
_FIRST_CAST_BY_NUMBER = 6


def widened(op: OnnxOp, opsets: Mapping[str, int], copies: dict[SSAValue, SSAValue]) -> Sequence[Operation]:
    """A copy of an operation, with Casts around it where it computes in float16 or bfloat16, in their order.

    `copies` says what stands for a value, as in `Operation.clone`; the results of `op` are added. All values are
    tensors. An evaluator that adds in the type of its operands adds ones of bfloat16 up to 256, and no further.
    """
    copy = op.clone(copies)
    opset = opsets.get("", 0)
    if opset < _FIRST_CAST_BY_NUMBER or not _computes_in_half(copy):
        return [copy]
    before: list[Operation] = []
    after: list[Operation] = []
    for index, value in enumerate(copy.operands):
        if _is_half(value.type):
            before.append(_cast(value, _in_float32(value), opset))
            copy.operands[index] = before[-1].results[0]
    for result, copied in zip(op.results, list(copy.results), strict=True):
        if _is_half(copied.type):
            wide = Rewriter.replace_value_with_new_type(copied, _in_float32(copied))
            after.append(_cast(wide, result.type, opset))
            copies[result] = after[-1].results[0]
    return [*before, copy, *after]


def _computes_in_half(op: OnnxOp) -> bool:
    """Whether an operation reads half precision as numbers, and not as bits."""
    return not isinstance(op, ops.BitCast) and any(_is_half(value.type) for value in op.operands)


def _is_half(type_: Attribute) -> bool:
    element = element_of(type_)
    return element is not None and isinstance(element.type, _HALVES)


def _in_float32(value: SSAValue) -> Attribute:
    return tensor_type(np.dtype(np.float32), dims_of(value))


def _cast(value: SSAValue, to: Attribute, opset: int) -> Operation:
    element = element_of(to)
    return ops.Cast.make([value], [to], {"to": element.code if element is not None else None}, opset=opset)
