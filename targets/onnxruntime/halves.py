"""What is done for 16-bit floats where ONNX Runtime has no kernel: the op is computed in float32, between casts.

Ops in float16 without a kernel hand each other what they computed in float32: ONNX Runtime casts what they read of
others, once for all of them, and what others read of them. In bfloat16 `gimlet.targets.widen` rounds what each gives.
"""

from __future__ import annotations

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.types import element_of, onnx_type
from gimlet.targets.onnxruntime.amounts import Features, moves
from gimlet.targets.onnxruntime.kernels import has_kernel, value_types
from gimlet.targets.onnxruntime.layout import Sizes, consumers, count, is_known, producer

_HALVES = ("float16", "bfloat16")


def casts(op: OnnxOp, sizes: Sizes) -> Features:
    """The casts of an op that is computed in float32, and the other half of its values; weights are cast at load."""
    if not is_widened(op):
        return {}
    inputs = list(dict.fromkeys(v for v in op.inputs if v is not None and _is_half(v) and not is_known(v)))
    results = [value for value in op.outputs if value is not None and _is_half(value)]
    shares = [(value, 1 / _readers(value)) for value in inputs if _is_cast(producer(value), value)]
    shares += [(value, 1.0) for value in results if any(_is_cast(user, value) for user in consumers(value))]
    values = sum(share * count(value, sizes) for value, share in shares)
    wider = 2.0 * sum(count(value, sizes) for value in (*inputs, *results))
    calls = sum(share for _, share in shares)
    return {"call": calls, "cast.values": values, **moves("elementwise", 6.0 * values + wider)}


def is_widened(op: OnnxOp) -> bool:
    """Whether an op has values in 16 bits, and no kernel for them."""
    schema = op.schema
    if (
        schema is None
        or op.regions
        or not any(value is not None and _is_half(value) for value in (*op.inputs, *op.outputs))
    ):
        return False
    inputs, outputs = ([value and onnx_type(value.type) for value in values] for values in (op.inputs, op.outputs))
    types = value_types(schema, inputs, outputs)
    return not has_kernel(op.domain, op.op_type, schema.since_version, types)


def _is_cast(other: OnnxOp | None, value: SSAValue) -> bool:
    """Whether a value is cast on its way between a widened op and another, or the end of a segment."""
    return other is None or _element(value) != "float16" or not is_widened(other)


def _readers(value: SSAValue) -> int:
    return max(sum(user is not None and is_widened(user) for user in {*consumers(value)}), 1)


def _element(value: SSAValue) -> str | None:
    element = element_of(value.type)
    return None if element is None else element.onnx


def _is_half(value: SSAValue) -> bool:
    return _element(value) in _HALVES
