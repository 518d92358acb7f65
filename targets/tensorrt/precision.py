"""Explicit casts for a segment that computes in 16 bits: in a strongly typed engine, precision is what the graph says.

    %y = onnx.MatMul(%x, %w) : f32      %x16 = onnx.Cast(%x) {to = 10}    %w16: the weight, stored in 16 bits
                                   →    %y16 = onnx.MatMul(%x16, %w16) : f16
                                        %y   = onnx.Cast(%y16) {to = 1}

Types at the segment's edge stay. Operations that lose too much in 16 bits stay in float32 (`KEPT`, the list that mixed
precision training uses), as do those whose schema has no such type, subgraphs, and any operation with a weight that
float16 cannot hold. A cast back and forth between two converted operations is not made.
"""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
from xdsl.dialects.builtin import BFloat16Type, Float16Type, TensorType, UnrankedTensorType, bf16, f16, f32
from xdsl.ir import Attribute, Block, Operation, SSAValue

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import (
    OPERATORS,
    InitializerOp,
    OnnxOp,
    OpSchema,
    constant_value,
    onnx_type,
    opset_in_force,
    set_value_name,
    value_name,
)
from gimlet.dialects.onnx.types import element_of
from gimlet.targets.one_op import is_constant

Half = Float16Type | BFloat16Type

HALVES: dict[str, Half] = {"fp16": f16, "bf16": bf16}
"""The number formats that are made by casts, and their element types."""

KEPT = frozenset(
    {
        "CumSum",
        "Exp",
        "InstanceNormalization",
        "GroupNormalization",
        "LayerNormalization",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "MeanVarianceNormalization",
        "Pow",
        "RMSNormalization",
        "Range",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Resize",
        "Softmax",
        "Softplus",
    }
)
"""Operators that stay in float32, after PyTorch's list of operations that autocast to float32."""

_DTYPES = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}


def insert_casts(block: Block, fmt: str, ctx: GimletContext) -> int:
    """Converts a segment's block in place. Returns how many of its operations compute in 16 bits now."""
    return _Conversion(fmt, ctx).run(block)


def computes_in_half(op: OnnxOp, fmt: str, ctx: GimletContext) -> bool:
    """Whether `insert_casts` would make an operation compute in 16 bits."""
    return _Conversion(fmt, ctx).converts(op)


def may_compute_in_half(op: OnnxOp, fmt: str) -> bool:
    """Whether an operation can compute in 16 bits, as far as that does not hang on the values of its weights."""
    if isinstance(op, InitializerOp) or op.regions or op.domain or op.op_type in KEPT | {"Cast", "Constant"}:
        return False
    schema = op.schema
    if schema is None or not any(map(is_float32, (*op.operands, *op.results))):
        return False
    return _allows(schema, op, fmt)


def stays_in_float32(op: OnnxOp, fmt: str) -> bool:
    """Whether an operation has float32 values and cannot compute with them in 16 bits."""
    return any(map(is_float32, (*op.operands, *op.results))) and not may_compute_in_half(op, fmt)


def _allows(schema: OpSchema, op: OnnxOp, fmt: str) -> bool:
    """Whether all float32 values of an operation may have the 16-bit type."""
    wanted = onnx_type(TensorType(HALVES[fmt], []))
    for parameters, values in ((schema.inputs, op.inputs), (schema.outputs, op.outputs)):
        for index, value in enumerate(values):
            if value is None or not is_float32(value):
                continue
            if wanted not in OpSchema.parameter(parameters, index).types:
                return False
    return True


def formats_of(block: Block) -> dict[str, int]:
    """How many operations of a segment compute in each number format: `fp32`, `fp16`, `bf16`, or `other`."""
    counts = Counter(_format_of(op) for op in block.ops if isinstance(op, OnnxOp) and not is_constant(op))
    return dict(sorted(counts.items()))


def _format_of(op: OnnxOp) -> str:
    names = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16"}
    element = element_of(op.results[0].type) if op.results and op.op_type != "Cast" else None
    return names.get(element.onnx, "other") if element is not None else "other"


def is_float32(value: SSAValue) -> bool:
    """Whether a value is a float32 tensor."""
    return isinstance(value.type, TensorType | UnrankedTensorType) and value.type.element_type == f32


class _Conversion:
    def __init__(self, fmt: str, ctx: GimletContext) -> None:
        self.fmt = fmt
        self.element = HALVES[fmt]
        self.dtype = _DTYPES[fmt]
        self.ctx = ctx
        self.halves: dict[SSAValue, SSAValue] = {}
        self.made: list[OnnxOp] = []

    def run(self, block: Block) -> int:
        converted = 0
        for op in tuple(block.ops):
            if isinstance(op, OnnxOp) and self.converts(op):
                self.convert(op, block)
                converted += 1
        for op in reversed(self.made):
            if not op.results[0].uses:
                block.erase_op(op)
        for op in tuple(block.ops):
            if isinstance(op, InitializerOp) and not op.results[0].uses:
                block.erase_op(op)
        return converted

    def converts(self, op: OnnxOp) -> bool:
        """Whether an operation goes to 16 bits."""
        return may_compute_in_half(op, self.fmt) and all(map(self.fits, op.operands))

    def fits(self, value: SSAValue) -> bool:
        """Whether a weight stays finite in the 16-bit type; values that are not constant are taken to."""
        if not is_float32(value):
            return True
        array = constant_value(value, self.ctx)
        if array is None or self.fmt == "bf16":
            return True
        with np.errstate(over="ignore"):
            return bool(np.isfinite(array.astype(self.dtype)).all() or not np.isfinite(array).all())

    def convert(self, op: OnnxOp, block: Block) -> None:
        operands = [self.half_of(value, op) if is_float32(value) else value for value in op.operands]
        types = [self.half_type(result.type) if is_float32(result) else result.type for result in op.results]
        half = type(op).create(
            operands=operands,
            result_types=types,
            properties=op.properties.copy(),
            attributes=op.attributes.copy(),
            location=op.location,
        )
        block.insert_op_before(half, op)
        for old, new in zip(op.results, half.results, strict=True):
            name = value_name(old)
            if not is_float32(old):
                old.replace_all_uses_with(new)
                set_value_name(new, name)
                continue
            set_value_name(new, f"{name}.{self.fmt}")
            back = self.cast(new, old.type, name)
            block.insert_op_before(back, op)
            self.halves[back.results[0]] = new
            old.replace_all_uses_with(back.results[0])
        block.erase_op(op)

    def half_of(self, value: SSAValue, reader: Operation) -> SSAValue:
        """The value in 16 bits: a weight's copy, what it was cast back from, or a cast before its first reader."""
        known = self.halves.get(value)
        if known is None:
            known = self.half_weight(value)
            if known is None:
                cast = self.cast(value, self.half_type(value.type), f"{value_name(value)}.{self.fmt}")
                block = reader.parent_block()
                if block is None:
                    raise TypeError("an operation of a segment is in its block")
                block.insert_op_before(cast, reader)
                known = cast.results[0]
            self.halves[value] = known
        return known

    def half_weight(self, value: SSAValue) -> SSAValue | None:
        source = value.owner
        if not isinstance(source, InitializerOp):
            return None
        name = f"{value_name(value)}.{self.fmt}"
        block = source.parent_block()
        if block is None:
            raise TypeError("a weight of a segment is in its block")
        if source.key is None:
            array = constant_value(value, self.ctx)
            if array is None:
                return None
            half = InitializerOp.from_array(array.astype(self.dtype), name)
        else:
            weight = self.ctx.weights[source.key]
            key = self.ctx.weights.add_lazy(
                f"{source.key}.{self.fmt}",
                self.dtype,
                weight.shape,
                lambda: weight.array().astype(self.dtype),
                identity=("cast", self.fmt, source.key),
            )
            half = InitializerOp.from_key(key, self.half_type(value.type), name)
        block.insert_op_after(half, source)
        return half.results[0]

    def half_type(self, type_: Attribute) -> Attribute:
        if isinstance(type_, TensorType):
            return TensorType(self.element, type_.get_shape(), type_.encoding)
        return UnrankedTensorType(self.element)

    def cast(self, value: SSAValue, type_: Attribute, name: str) -> OnnxOp:
        element = element_of(type_)
        if element is None:
            raise TypeError("a cast makes a tensor")
        opset = opset_in_force(self.block_op(value), "")
        made = OPERATORS["", "Cast"].make([value], [type_], {"to": element.code}, opset=opset, node_name=f"{name}/cast")
        set_value_name(made.results[0], name)
        self.made.append(made)
        return made

    @staticmethod
    def block_op(value: SSAValue) -> Operation:
        owner = value.owner
        found = owner if isinstance(owner, Operation) else owner.parent_op()
        if found is None:
            raise TypeError("a value of a segment belongs to it")
        return found
