"""How many operations each ONNX operator takes, and which of its inputs it does not read whole.

One entry of `FORMULAS` an operator, found by its name, or by domain and name where two domains differ. The conventions
are those of `gimlet.dialects.onnx.work`. Symbols in the docstrings are dimensions as ONNX's documentation names them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Literal

from xdsl.ir import SSAValue

from gimlet.dialects.onnx.op import OnnxOp
from gimlet.dialects.onnx.types import dims_of
from gimlet.dialects.onnx.values import constant_value
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr, minimum

OpClass = Literal["matrix", "conv", "depthwise", "vector", "data", "view"]
"""What limits an op: the matrix unit (`matrix`, `conv`), the vector unit (`depthwise`, `vector`), memory alone
(`data`), or nothing (`view`: it changes what memory means, or is a constant)."""

ZERO = Expr.const(0)
_UNTOUCHED = 0.002
"""Where no more than this part of the experts is left, all count as touched."""

ELEMENT_FLOPS: Mapping[str, int] = {
    **dict.fromkeys(("Div", "Reciprocal", "Sqrt", "Mod", "Softsign", "HardSigmoid", "HardSwish"), 4),
    **dict.fromkeys(("Exp", "Log", "Elu", "Celu", "Selu", "ReduceLogSum"), 8),
    **dict.fromkeys(("Sigmoid", "Tanh", "Erf", "Swish", "QuickGelu", "ScaledSiLU", "QLinearSigmoid", "SwiGLU"), 10),
    **dict.fromkeys(("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"), 12),
    **dict.fromkeys(("Gelu", "FastGelu", "BiasGelu", "QOrderedGelu", "Softplus", "BiasSplitGelu", "GemmFastGelu"), 14),
    **dict.fromkeys(("Pow", "Mish"), 18),
    **dict.fromkeys(("Softmax", "LogSoftmax", "QLinearSoftmax", "BiasSoftmax"), 12),
    **dict.fromkeys(("BatchNormalization", "PRelu", "LeakyRelu", "Clip", "ThresholdedRelu", "Shrink", "CumSum"), 2),
    **dict.fromkeys(("QuantizeLinear", "QLinearAdd", "QLinearMul", "QLinearLeakyRelu", "LpNormalization"), 4),
    **dict.fromkeys(("DequantizeLinear", "RotaryEmbedding", "GemmaRotaryEmbedding", "MRotaryEmbedding"), 3),
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization", "GroupNorm"), 8),
    **dict.fromkeys(("MeanVarianceNormalization", "SkipGroupNorm", "QOrderedLayerNormalization"), 8),
    **dict.fromkeys(("RMSNormalization", "SimplifiedLayerNormalization", "GatedRMSNorm", "BranchwiseRMSNorm"), 6),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "EmbedLayerNormalization"), 10),
    **dict.fromkeys(("GridSample", "LRN", "DynamicQuantizeLinear", "RoiAlign", "CropAndResize"), 10),
}
"""Operations for each value that an elementwise op, a softmax or a normalisation writes; any other counts one."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


VIEWS = _names(
    "Constant Dropout ExpandDims Flatten Identity Optional OptionalGetElement OptionalHasElement Reshape SequenceAt "
    "SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength Shape Size Squeeze Unsqueeze"
)
DATA = _names(
    "BitCast Cast CastLike CenterCropPad Col2Im Compress Concat ConcatFromSequence ConstantOfShape DepthToSpace Expand "
    "EyeLike Gather GatherBlockQuantized GatherElements GatherND MaxUnpool NonZero OneHot Pad QLinearConcat Range "
    "ReverseSequence Scatter ScatterElements ScatterND Slice SpaceToDepth Split SplitToSequence TensorScatter Tile "
    "TorchEmbedding Transpose Trilu Unique"
)


COUNTED_ONCE = _names(
    "Abs Add AffineGrid And Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Ceil CumProd "
    "Equal Floor Greater GreaterOrEqual HammingWindow HannWindow Hardmax ImageDecoder IsInf IsNaN Less LessOrEqual "
    "MelWeightMatrix Mul Multinomial Neg Not Or RandomNormal RandomNormalLike RandomUniform RandomUniformLike "
    "RegexFullMatch Relu Round Sign StringConcat StringNormalizer StringSplit Sub TfIdfVectorizer Where Xor"
)
"""Operators that take one operation for each value that they write. So does one of which nothing is known."""
UNKNOWN_LENGTH = 4096
"""What a transform counts whose length is not known."""


class UnknownShapeError(InputError):
    """A formula needs a shape that is not known."""


class View:
    """An op with the shapes that formulas ask for. UnknownShapeError where one is not known."""

    def __init__(self, op: OnnxOp) -> None:
        self.op = op
        self.inputs = op.inputs
        self.outputs = op.outputs

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def dims(self, index: int, rank: int = 1) -> tuple[Expr, ...]:
        """The dimensions of an input, which has at least `rank` of them."""
        dims = known_dims(self.inputs[index] if index < len(self.inputs) else None)
        if len(dims) < rank:
            raise UnknownShapeError(f"input {index} of {self.op.op_type} has {len(dims)} dimensions")
        return dims

    def out_dims(self, index: int = 0) -> tuple[Expr, ...]:
        """The dimensions of an output."""
        return known_dims(self.outputs[index] if index < len(self.outputs) else None)

    def size(self, index: int) -> Expr:
        """The number of elements of an input."""
        return product(self.dims(index, 0))

    def out(self, index: int = 0) -> Expr:
        """The number of elements of an output."""
        return product(self.out_dims(index))

    def integer(self, name: str, default: int) -> int:
        value = self.op.attr(name, default)
        return value if isinstance(value, int) else default

    def integers(self, name: str) -> list[int]:
        value = self.op.attr(name)
        return [int(item) for item in value] if isinstance(value, list) else []


Flops = Callable[[View], Expr]


def known_dims(value: SSAValue | None) -> tuple[Expr, ...]:
    """The dimensions of a value. UnknownShapeError if there is no value, or one of its dimensions is not known."""
    dims = None if value is None else dims_of(value)
    if dims is None:
        raise UnknownShapeError("a shape is not known")
    return dims


def product(factors: tuple[Expr, ...] | list[Expr]) -> Expr:
    return reduce(lambda a, b: a * b, factors, Expr.const(1))


def formula_of(op: View) -> tuple[OpClass, Expr]:
    """The class of an op that is no view and has no subgraphs, and its operations. UnknownShapeError as `View`."""
    name = op.op.op_type
    if name in DATA:
        return "data", ZERO
    op_class, flops = FORMULAS.get(f"{op.op.domain}.{name}") or FORMULAS.get(name) or ("vector", _elementwise)
    if op_class == "conv" and _is_depthwise(op):
        op_class = "depthwise"
    return op_class, flops(op)


def _elementwise(op: View) -> Expr:
    return op.out() * ELEMENT_FLOPS.get(op.op.op_type, 1)


def _variadic(op: View) -> Expr:
    return op.out() * max(len(op.inputs) - 1, 1)


def _reduction(op: View) -> Expr:
    weight = {"ReduceLogSumExp": 9, "ReduceL2": 2, "ReduceSumSquare": 2, "TopK": 8}.get(op.op.op_type, 1)
    return op.size(0) * weight


def _pool(op: View) -> Expr:
    return op.out() * math.prod(op.integers("kernel_shape"))


def _resize(op: View) -> Expr:
    weight = {"linear": 8, "cubic": 40}.get(str(op.op.attr("mode", "nearest")), 0)
    return op.out() * weight


def _matmul(op: View) -> Expr:
    return 2 * op.out() * op.dims(0)[-1]


def _fused_matmul(op: View) -> Expr:
    """com.microsoft's FusedMatMul, whose `transA` swaps the last two dimensions."""
    dims = op.dims(0, 2)
    return 2 * op.out() * dims[-2 if op.integer("transA", 0) else -1]


def _gemm(op: View) -> Expr:
    inner = op.dims(0, 2)[0 if op.integer("transA", 0) else 1]
    return 2 * op.out() * inner + (op.out() if op.has(6 if op.op.op_type == "QGemm" else 2) else ZERO)


def _n_bits(op: View) -> Expr:
    return 2 * op.out() * op.integer("K", 0)


def _einsum(op: View) -> Expr:
    """Products over all labels together: what a contraction of two operands takes, an upper bound for more."""
    terms = str(op.op.attr("equation", "")).replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, Expr] = {}
    ellipsis = Expr.const(1)
    for index, term in enumerate(terms):
        dims = op.dims(index, 0)
        before, dots, after = term.partition("...")
        if dots:
            ellipsis = product(dims[len(before) : len(dims) - len(after)])
        sizes |= dict(zip(before, dims, strict=False))
        sizes |= dict(zip(reversed(after), reversed(dims), strict=False))
    return ellipsis * product(list(sizes.values())) * (2 * (len(terms) - 1) if len(terms) > 1 else 1)


def _conv(weight: int = 1) -> Flops:
    """Of each output value: a product with the filter, [filters, channels / group, kernel…] at input `weight`."""

    def flops(op: View) -> Expr:
        bias = 8 if op.op.op_type == "QLinearConv" else 2
        return 2 * op.out() * product(op.dims(weight, 3)[1:]) + (op.out() if op.has(bias) else ZERO)

    return flops


def _conv_transpose(op: View) -> Expr:
    """Of each input value: a product with the filter, [channels, filters / group, kernel…]."""
    return 2 * op.size(0) * product(op.dims(1, 3)[1:]) + (op.out() if op.has(2) else ZERO)


def _is_depthwise(op: View) -> bool:
    group = op.integer("group", 1)
    weight = op.dims(3 if op.op.op_type == "QLinearConv" else 1, 3)
    return group > 1 and weight[1] == Expr.const(1)


def _attention_core(queries: Expr, outputs: Expr, keys: Expr, scores: Expr) -> Expr:
    """Both products over `keys` positions and the softmax of `scores` values; the others count all heads' elements."""
    return 2 * queries * keys + 2 * outputs * keys + scores * ELEMENT_FLOPS["Softmax"]


def _attention(op: View) -> Expr:
    """The default domain's Attention: [batch, heads, length, size], or [batch, length, heads·size] with head counts."""
    query, key = op.dims(0, 3), op.dims(1, 3)
    positions, length = (key[-2], query[-2]) if len(query) == 4 else (key[1], query[1])
    if op.has(4):
        positions = positions + op.dims(4, 2)[-2]
    heads = query[1] if len(query) == 4 else Expr.const(op.integer("q_num_heads", 1))
    return _attention_core(op.size(0), op.out(), positions, query[0] * heads * length * positions)


def _multi_head_attention(op: View) -> Expr:
    """com.microsoft's: query [batch, length, hidden] or packed with keys and values, past keys at input 6."""
    query = op.dims(0, 3)
    positions = query[1]
    if op.has(1):
        key = op.dims(1, 3)
        positions = key[2] if len(key) == 4 else key[1]
    if op.has(6):
        positions = positions + op.dims(6, 2)[-2]
    scores = query[0] * op.integer("num_heads", 1) * query[1] * positions
    return _attention_core(op.out(), op.out(), positions, scores)


def _group_query_attention(op: View) -> Expr:
    """com.microsoft's: as many positions as the present keys have, output 1 [batch, heads, positions, size]."""
    query = op.dims(0, 3)
    present = op.outputs[1] if len(op.outputs) > 1 else None
    known = None if present is None else dims_of(present)
    past = op.dims(3, 3)[2] if op.has(3) else ZERO
    positions = known[2] if known and len(known) > 2 else query[1] + past
    scores = query[0] * op.integer("num_heads", 1) * query[1] * positions
    return _attention_core(op.out(), op.out(), positions, scores)


def _projected_attention(past: int) -> Flops:
    """com.microsoft's Attention: projects [batch, length, hidden] with [hidden, 3·inner] first; `past` is an input."""

    def flops(op: View) -> Expr:
        batch, length, hidden = op.dims(0, 3)[:3]
        positions = length + (op.dims(past, 2)[-2] if op.has(past) else ZERO)
        scores = batch * op.integer("num_heads", 1) * length * positions
        projection = 2 * batch * length * hidden * op.dims(1, 2)[1]
        return projection + _attention_core(op.out(), op.out(), positions, scores)

    return flops


def _linear_attention(op: View) -> Expr:
    """Each token: an outer product into the state, decayed and corrected as `update_rule` says, and a product with it.

    Queries and keys are [batch, length, heads·size], the state of a head is [size of a key, size of a value].
    """
    value_size = op.dims(2)[-1] // op.integer("kv_num_heads", 1)
    updates = {"linear": 2, "gated": 3, "delta": 4, "gated_delta": 5}.get(str(op.op.attr("update_rule")), 5)
    return (2 * op.size(0) + updates * op.size(1)) * value_size


def _recurrent(op: View) -> Expr:
    """Each step and sequence: products with W [directions, gates·hidden, input] and R, and the gates' functions."""
    steps, batch = op.dims(0, 3)[:2]
    directions, gates = op.dims(1, 3)[:2]
    return 2 * steps * batch * (op.size(1) + op.size(2)) + steps * batch * directions * gates * ELEMENT_FLOPS["Tanh"]


def _experts(op: View) -> Iterator[tuple[int, Expr]]:
    """The expert weights of a MoE: input index, and values of one expert. QMoE packs several in a byte."""
    quantised = op.op.op_type == "QMoE"
    packed = 8 // op.integer("expert_weight_bits", 4) if quantised else 1
    for index in (2, 5, 8) if quantised else (2, 4, 6):
        if op.has(index):
            yield index, product(op.dims(index)[1:]) * packed


def _tokens(op: View) -> Expr:
    return product(op.dims(0)[:-1])


def _moe(op: View) -> Expr:
    each = sum((values for _, values in _experts(op)), ZERO)
    return 2 * _tokens(op) * op.integer("k", 1) * each


def _moe_reads(op: View) -> dict[int, Expr]:
    """Experts that tokens are sent to, each read once.

    Where every token chooses k of E experts at random, n tokens touch E · (1 − (1 − k/E)^n) of them on average. The
    expression is linear between n = 1, 2, 4, …, where it is exact, and at most 4% below the average elsewhere.
    """
    reads: dict[int, Expr] = {}
    for index, _ in _experts(op):
        each, experts = product(op.dims(index)[1:]), op.dims(index)[0]
        if experts.is_constant and each.is_constant:
            reads[index] = _touched(experts.as_int(), op.integer("k", 1), _tokens(op), each.as_int())
        else:
            reads[index] = minimum(experts, _tokens(op) * op.integer("k", 1)) * each
    return reads


def _touched(experts: int, chosen: int, tokens: Expr, each: int) -> Expr:
    """Values in the experts that `tokens` touch on average: the least of the chords, since the curve is concave."""
    if not 0 < chosen < experts:
        return Expr.const(experts * each)
    missed = 1 - chosen / experts
    found, count = Expr.const(experts * each), 1
    while experts * missed**count > experts * _UNTOUCHED:
        start, end = (round(each * experts * (1 - missed**at)) for at in (count, 2 * count))
        slope = -((start - end) // count)
        found = minimum(found, tokens * slope + max(start - slope * count, 0))
        count *= 2
    return minimum(found, tokens * (chosen * each))


def _dft(op: View) -> Expr:
    """5 n log2 n for a transform of n complex values (radix-2), half of it for real ones."""
    known = constant_value(op.inputs[2], None, 1) if op.has(2) and op.inputs[2] is not None else None
    default = -2 if op.op.since_version >= 20 else 1
    axis = op.integer("axis", default) if known is None else int(known.reshape(-1)[0])
    dims = op.dims(0, 2)
    return _transform(op, dims[axis if -len(dims) <= axis < len(dims) else 1])


def _stft(op: View) -> Expr:
    """A transform for each frame, of the window's length where there is one."""
    return _transform(op, op.dims(2)[0] if op.has(2) else Expr.const(UNKNOWN_LENGTH))


def _transform(op: View, length: Expr) -> Expr:
    """A written value is half a complex one, and takes 5/2 log2 n."""
    steps = max(math.ceil(math.log2(length.as_int() if length.is_constant else UNKNOWN_LENGTH)), 1)
    return op.out() * 5 * steps // 2


def _det(op: View) -> Expr:
    """Elimination of n × n matrices: 2/3 n³."""
    size = op.dims(0, 2)[-1]
    return 2 * op.size(0) * size // 3


def _non_max_suppression(op: View) -> Expr:
    """At worst each pair of boxes of a class, an overlap of 16 operations. Scores are [batch, classes, boxes]."""
    batch, classes, boxes = op.dims(1, 3)[:3]
    return batch * classes * boxes * boxes * (16 // 2)


def _roi_pool(op: View) -> Expr:
    """Each value of a pooled region is the largest of its share of the image, all of it at worst."""
    regions = op.out_dims()[0]
    return regions * product(op.dims(0, 4)[1:])


def _loss(op: View) -> Expr:
    """A logarithmic softmax of the scores, and one term an example."""
    return op.size(0) * (ELEMENT_FLOPS["LogSoftmax"] if op.op.op_type == "SoftmaxCrossEntropyLoss" else 0) + op.size(1)


def _all(op_class: OpClass, flops: Flops, names: str) -> dict[str, tuple[OpClass, Flops]]:
    return dict.fromkeys(names.split(), (op_class, flops))


FORMULAS: dict[str, tuple[OpClass, Flops]] = {
    **_all("matrix", _matmul, "MatMul MatMulInteger QLinearMatMul MatMulIntegerToFloat DynamicQuantizeMatMul"),
    **_all("matrix", _matmul, "MatMulInteger16 QOrderedMatMul SparseToDenseMatMul GemmFastGelu"),
    **_all("matrix", _fused_matmul, "FusedMatMul FusedMatMulActivation TransposeMatMul"),
    **_all("matrix", _gemm, "Gemm FusedGemm QGemm GemmFloat8"),
    **_all("matrix", _n_bits, "MatMulNBits MatMulBnb4 MatMulFpQ4 MatMulNBitsQLoRA"),
    **_all("matrix", _n_bits, "MatMulBlockQuantizedFp4Weight MatMulBlockQuantizedFp8Weight"),
    **_all("matrix", _einsum, "Einsum"),
    **_all("conv", _conv(), "Conv ConvInteger FusedConv NhwcConv NhwcFusedConv DeformConv"),
    **_all("depthwise", _conv(), "CausalConvWithState"),
    **_all("conv", _conv(3), "QLinearConv"),
    **_all("conv", _conv_transpose, "ConvTranspose ConvTransposeWithDynamicPads"),
    **_all("matrix", _attention, "Attention"),
    **_all("matrix", _multi_head_attention, "MultiHeadAttention DecoderMaskedMultiHeadAttention"),
    **_all("matrix", _group_query_attention, "GroupQueryAttention"),
    **_all("matrix", _projected_attention(4), "com.microsoft.Attention"),
    **_all("matrix", _projected_attention(8), "QAttention"),
    **_all("matrix", _linear_attention, "LinearAttention"),
    **_all("matrix", _recurrent, "LSTM GRU RNN DynamicQuantizeLSTM"),
    **_all("matrix", _moe, "MoE QMoE"),
    **_all("vector", _variadic, "Sum Max Min Mean"),
    **_all("vector", _reduction, "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum"),
    **_all("vector", _reduction, "ReduceLogSumExp ReduceSumSquare ReduceSumInteger QLinearReduceMean ArgMax ArgMin"),
    **_all("vector", _reduction, "TopK GlobalAveragePool GlobalMaxPool GlobalLpPool QLinearGlobalAveragePool"),
    **_all("vector", _pool, "AveragePool MaxPool LpPool QLinearAveragePool NhwcMaxPool"),
    **_all("vector", _resize, "Resize Upsample"),
    **_all("vector", _dft, "DFT"),
    **_all("vector", _stft, "STFT"),
    **_all("vector", _det, "Det"),
    **_all("vector", _non_max_suppression, "NonMaxSuppression"),
    **_all("vector", _roi_pool, "MaxRoiPool"),
    **_all("vector", _loss, "SoftmaxCrossEntropyLoss NegativeLogLikelihoodLoss"),
}

PARTIAL: dict[str, Callable[[View], dict[int, Expr]]] = {
    **dict.fromkeys(("Gather", "GatherElements", "GatherND", "TorchEmbedding"), lambda op: {0: op.out()}),
    "GatherBlockQuantized": lambda op: {0: op.out()},
    "Slice": lambda op: {0: op.out()},
    "Shape": lambda op: {0: ZERO},
    "TensorScatter": lambda op: {0: ZERO, -1: op.size(1)},
    "MoE": _moe_reads,
    "QMoE": _moe_reads,
}
"""Values of an input that an op really reads, by the input's index, and at −1 those that it really writes.

TensorScatter updates a cache in place."""
