"""What is done for 16-bit floats where ONNX Runtime has no kernel: the op is computed in float32, between casts.

Ops in float16 without a kernel hand each other what they computed in float32: ONNX Runtime casts what they read of
others, once for all of them, and what others read of them. In bfloat16 `gimlet.targets.widen` rounds what each gives.
Weights are cast when the model is loaded, so that they take twice their bytes in memory and in every pass over them.
"""

from __future__ import annotations

from dataclasses import replace

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.types import element_of, onnx_type
from gimlet.dialects.onnx.work import Work, work_of
from gimlet.targets.onnxruntime.amounts import Features, moves
from gimlet.targets.onnxruntime.kernels import has_kernel, value_types
from gimlet.targets.onnxruntime.layout import Sizes, consumers, count, is_known, producer

_HALVES = ("float16", "bfloat16")


def casts(op: OnnxOp, sizes: Sizes) -> Features:
    """The casts of an op that is computed in float32, and the other half of its values."""
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


def widened_work(op: OnnxOp) -> Work:
    """The work of an op, with the other half of its weights where it is computed in float32."""
    work = work_of(op)
    if work.values is None or not is_widened(op):
        return work
    values, read = work.values, work.weight_bytes if work.weight_read is None else work.weight_read
    more = 2 * values.weight_read
    return replace(
        work,
        bytes_read=work.bytes_read + more,
        weight_bytes=work.weight_bytes + 2 * values.weights,
        weight_read=read + more,
    )


def held_bytes(value: SSAValue) -> float:
    """Bytes that a weight takes when the model is loaded."""
    element = element_of(value.type)
    if element is None:
        return 0.0
    wide = _is_half(value) and any(user is not None and is_widened(user) for user in consumers(value))
    return count(value, {}) * (32 if wide else element.bits) / 8


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
