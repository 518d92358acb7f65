"""What is refused without asking OpenVINO: types that its CPU plug-in computes in other types than the model says.

Found by running ONNX's own node tests on OpenVINO 2026.4. What depends on an operator's attributes is not listed here:
each op is tried against the reference (`probes`).
"""

from __future__ import annotations

from xdsl.ir import Operation, SSAValue

from gimlet.dialects.onnx import OnnxOp, onnx_type
from gimlet.targets.one_op import is_constant, untyped_refusal

_COMPUTED_IN: dict[str, str] = {
    "float16": "float32, without a rounding after each op",
    "bfloat16": "float32, without a rounding after each op",
    "double": "float32",
    "int16": "int32, which does not wrap around at 16 bits",
    "uint16": "int32, which does not wrap around at 16 bits",
    "uint32": "int32",
    "uint64": "int32",
}
_TAKEN = frozenset({"float", "bool", "int8", "uint8", "int32", "int64"})
_DIFFERENT: dict[str, str] = {
    "NonMaxSuppression": "keeps or drops boxes that overlap by exactly the threshold otherwise than ONNX says",
    "BitShift": "shifts negative numbers, and by more than the width, otherwise than ONNX says",
}
"""What differs for certain values only, which a trial need not meet."""

_WRAPS = frozenset({"int8", "uint8"})
_GROWS = frozenset(
    {"Add", "Sub", "Mul", "Pow", "Neg", "Abs", "CumSum", "CumProd", "ReduceSum", "ReduceProd", "ReduceSumSquare"}
    | {"ReduceL1", "ReduceL2", "MatMul", "Gemm", "Sum", "Einsum", "Mod", "BitwiseNot"}
)
"""Operators whose integer results may need more bits than their operands have."""

_FROM_SHAPES = frozenset({"Shape", "Size"})
_WALKED = 64


def static_refusal(op: OnnxOp) -> str | None:
    """Why an op is refused whatever OpenVINO says, or None."""
    for nested in op.walk():
        if isinstance(nested, OnnxOp):
            refusal = _refusal(nested)
            if refusal is not None:
                return refusal
    return None


def _refusal(op: OnnxOp) -> str | None:
    values = [*op.operands, *op.results]
    untyped = untyped_refusal(op)
    if untyped is not None:
        return untyped
    if is_constant(op):
        return None
    if op.op_type in _DIFFERENT:
        return f"OpenVINO's {op.op_type} {_DIFFERENT[op.op_type]}"
    for value in values:
        name = onnx_type(value.type) or ""
        element = name.removeprefix("tensor(").removesuffix(")")
        if not name.startswith("tensor("):
            return f"{name or 'a value that is no tensor'} has no form in OpenVINO"
        if element in _COMPUTED_IN:
            return f"OpenVINO computes {element} in {_COMPUTED_IN[element]}"
        if element not in _TAKEN:
            return f"{element} cannot be passed to OpenVINO"
        if element in _WRAPS and op.op_type in _GROWS:
            return f"OpenVINO's {op.op_type} does not wrap around at 8 bits"
    if op.op_type in _GROWS and any(_is_int64(value) for value in op.results) and not _is_of_shapes(op):
        return f"OpenVINO computes int64 in 32 bits, and {op.op_type} of unknown values may need more"
    return None


def _is_int64(value: SSAValue) -> bool:
    return onnx_type(value.type) == "tensor(int64)"


def _is_of_shapes(op: Operation) -> bool:
    """Whether an op's integers come from shapes and constants alone, which 32 bits hold."""
    seen: set[Operation] = set()
    waiting = [op]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if len(seen) > _WALKED:
            return False
        for value in current.operands:
            owner = value.owner
            if not isinstance(owner, OnnxOp):
                return False
            if not is_constant(owner) and owner.op_type not in _FROM_SHAPES:
                waiting.append(owner)
    return True
