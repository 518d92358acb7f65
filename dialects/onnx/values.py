"""Values that are known when compiling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from xdsl.ir import OpResult, SSAValue

from gimlet.dialects.onnx.attributes import SparseAttr, WeightAttr, tensor_value, text_of
from gimlet.dialects.onnx.extra_ops import InitializerOp
from gimlet.dialects.onnx.op import OnnxOp
from gimlet.dialects.onnx.sparse import dense_array
from gimlet.dialects.onnx.types import dims_of

if TYPE_CHECKING:
    from gimlet.dialects.context import GimletContext

_SCALARS: dict[str, Any] = {
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_string": np.object_,
    "value_strings": np.object_,
}


def constant_value(
    value: SSAValue, ctx: GimletContext | None = None, max_elements: int | None = None
) -> np.ndarray[Any, Any] | None:
    """The value of an initializer's or a Constant's result; None for anything else.

    Also None if it has more than `max_elements` elements, or if its bytes are in a weight store and there is none
    (`ctx` is None) or the store does not have them (a model without weights).
    """
    if not isinstance(value, OpResult) or not isinstance(value.op, OnnxOp):
        return None
    op = value.op
    if not isinstance(op, InitializerOp) and (op.op_type != "Constant" or op.domain):
        return None
    if max_elements is not None and not _fits(value, max_elements):
        return None
    attribute = op.properties.get("value", op.properties.get("sparse_value"))
    if isinstance(attribute, SparseAttr):
        return dense_array(attribute, None if ctx is None else ctx.weights) if _has_parts(attribute, ctx) else None
    key = op.key if isinstance(op, InitializerOp) else None
    if isinstance(attribute, WeightAttr):
        key = text_of(attribute.key)
    if key is None:
        return tensor_value(attribute) if attribute is not None else _from_scalar(op)
    if ctx is None or key not in ctx.weights or not ctx.weights[key].has_data:
        return None
    return ctx.weights[key].array()


def _has_parts(attribute: SparseAttr, ctx: GimletContext | None) -> bool:
    keys = [part.key.data for part in (attribute.values, attribute.indices) if isinstance(part, WeightAttr)]
    return all(ctx is not None and key in ctx.weights and ctx.weights[key].has_data for key in keys)


def _from_scalar(op: OnnxOp) -> np.ndarray[Any, Any] | None:
    for name, dtype in _SCALARS.items():
        if name in op.properties:
            return np.array(op.attr(name), dtype=dtype)
    return None


def _fits(value: SSAValue, max_elements: int) -> bool:
    dims = dims_of(value)
    if dims is None or not all(dim.is_constant for dim in dims):
        return False
    return int(np.prod([dim.as_int() for dim in dims], dtype=np.int64)) <= max_elements
