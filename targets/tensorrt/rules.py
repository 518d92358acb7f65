"""What TensorRT cannot run, as far as that is known without asking it.

The tables are from ONNX's own node tests (1,462 of one node each) put to TensorRT for RTX 1.7.1, static and with a
dynamic first dimension: what its parser said it supports was built, and for every operator but those in `OVERCLAIMED`
it did build.
"""

from __future__ import annotations

from xdsl.ir import Block, SSAValue

from gimlet.dialects.onnx import AnyType, InitializerOp, OnnxOp, value_name
from gimlet.dialects.onnx.types import element_of, shape_of
from gimlet.targets.shape_operands import shape_operands

FORMATS = ("fp32", "fp16", "bf16")

PLAIN_TYPES = frozenset({"float", "float16", "bfloat16", "int32", "int64", "bool"})
"""Element types that the whole library computes with."""

STORED_TYPES = frozenset({"int8", "uint8", "float8e4m3fn", "int4", "float4e2m1", "float8e8m0"})
"""Element types that only quantised values have, between the ops that make and read them."""

DATA_DEPENDENT = frozenset({"NonZero", "Unique", "Compress", "NonMaxSuppression", "StringSplit"})
"""Operators whose result has as many elements as the data says. The engines that gimlet builds have none."""

OVERCLAIMED = frozenset(
    {"Attention", "If", "Loop", "NonMaxSuppression", "QuantizeLinear", "Scan", "DequantizeLinear", "TensorScatter"}
)
"""Operators that the parser accepts and the builder may yet refuse: whether they build is tried."""

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN", "Attention"})
"""Operators that are matrix products, which some compute capabilities have in few formats."""


LARGE = frozenset({"Attention", "Gelu", "LayerNormalization", "RMSNormalization", "RotaryEmbedding", "Swish"})
"""Operators with a layer, or a kernel, of their own: attention that does not write its scores (IAttention),
normalisations that read their input once (INormalizationLayer), rotary embeddings (IRotaryEmbeddingLayer)."""


POINTWISE = frozenset(
    {
        "Abs", "Add", "BatchNormalization", "Cast", "Ceil", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Floor",
        "Gelu", "Greater", "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "Log", "Max", "Min", "Mish", "Mul", "Neg",
        "Not", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt",
        "Sub", "Swish", "Tanh", "Where",
    }
)  # fmt: skip
"""Operators that give each element from the elements at its place: they fuse with what makes their input."""


def static_refusal(op: OnnxOp, compute_capability: str) -> str | None:
    """Why an operation is refused whatever its framework's parser would say; None where it has to be asked."""
    if op.domain:
        return f"{op.domain}.{op.op_type} is not an operator of ONNX's own domain"
    if op.op_type in DATA_DEPENDENT:
        return f"{op.op_type} has a data-dependent shape"
    for value in (*op.operands, *op.results):
        refusal = _type_refusal(value)
        if refusal is not None:
            return refusal
    for value in shape_operands(op):
        if _is_model_input(value):
            return f"the model's input {value_name(value)!r} decides a shape, and its value is known only when running"
    if compute_capability == "7.5" and op.op_type in PRODUCTS and _has_element(op, "float"):
        return "compute capability 7.5 has no float32 matrix products in TensorRT for RTX"
    return None


def _type_refusal(value: SSAValue) -> str | None:
    if isinstance(value.type, AnyType):
        return f"the type of {value_name(value)!r} is not known"
    element = element_of(value.type)
    if element is None:
        return f"{value_name(value)!r} is no tensor"
    if element.onnx not in PLAIN_TYPES | STORED_TYPES:
        return f"TensorRT has no {element.onnx} tensors"
    return None


def _has_element(op: OnnxOp, name: str) -> bool:
    return any((element := element_of(value.type)) is not None and element.onnx == name for value in op.operands)


def _is_model_input(value: SSAValue) -> bool:
    owner = value.owner
    if not isinstance(owner, Block):
        return False
    parent = owner.parent_op()
    return parent is not None and not isinstance(parent, OnnxOp)


def is_constant(value: SSAValue) -> bool:
    """Whether a value is known when compiling."""
    owner = value.owner
    return isinstance(owner, InitializerOp) or (isinstance(owner, OnnxOp) and owner.op_type == "Constant")


def depends_on_its_place(op: OnnxOp) -> bool:
    """Whether an operation by itself says too little: a rank is unknown, or a shape is computed by other operations."""
    if any(shape_of(value) is None for value in op.operands):
        return True
    return any(not is_constant(value) for value in shape_operands(op))


def must_be_built(op: OnnxOp) -> bool:
    """Whether the parser's word is not enough, and only a build says that the operation is supported."""
    if op.op_type in OVERCLAIMED:
        return True
    values = (*op.operands, *op.results)
    return any((element := element_of(value.type)) is not None and element.onnx in STORED_TYPES for value in values)
