"""Written by `python -m gimlet.dialects.onnx.freeze` from onnx 1.23.2 and onnxruntime 1.32.0. Do not edit."""
# ruff: noqa
# fmt: off

from typing import Any

import numpy as np
from xdsl.ir import Attribute, SSAValue

from gimlet.dialects.onnx.op import OnnxOp
from gimlet.dialects.onnx.schema import OpSchema

OPERATORS: dict[tuple[str, str], type[OnnxOp]]

def accessors(schema: OpSchema) -> dict[str, int | str]: ...
def op_name(domain: str, name: str) -> str: ...
def namespace_name(domain: str) -> str: ...

class Abs(OnnxOp):
    X: SSAValue
class Acos(OnnxOp):
    input: SSAValue
class Acosh(OnnxOp):
    input: SSAValue
class Add(OnnxOp):
    A: SSAValue
    B: SSAValue
class AffineGrid(OnnxOp):
    align_corners: int
    theta: SSAValue
    size: SSAValue
class And(OnnxOp):
    A: SSAValue
    B: SSAValue
class ArgMax(OnnxOp):
    axis: int
    keepdims: int
    select_last_index: int
    data: SSAValue
class ArgMin(OnnxOp):
    axis: int
    keepdims: int
    select_last_index: int
    data: SSAValue
class Asin(OnnxOp):
    input: SSAValue
class Asinh(OnnxOp):
    input: SSAValue
class Atan(OnnxOp):
    input: SSAValue
class Atanh(OnnxOp):
    input: SSAValue
class Attention(OnnxOp):
    is_causal: int
    kv_num_heads: int | None
    left_window_size: int
    q_num_heads: int | None
    qk_matmul_output_mode: int
    right_window_size: int
    scale: float | None
    softcap: float
    softmax_precision: int | None
    Q: SSAValue
    K: SSAValue
    V: SSAValue
    attn_mask: SSAValue | None
    past_key: SSAValue | None
    past_value: SSAValue | None
    nonpad_kv_seqlen: SSAValue | None
class AveragePool(OnnxOp):
    auto_pad: str
    ceil_mode: int
    count_include_pad: int
    dilations: list[int] | None
    kernel_shape: list[int]
    pads: list[int] | None
    strides: list[int] | None
    X: SSAValue
class BatchNormalization(OnnxOp):
    epsilon: float
    momentum: float
    training_mode: int
    X: SSAValue
    scale: SSAValue
    B: SSAValue
    input_mean: SSAValue
    input_var: SSAValue
class Bernoulli(OnnxOp):
    dtype: int | None
    seed: float | None
    input: SSAValue
class BitCast(OnnxOp):
    to: int
    input: SSAValue
class BitShift(OnnxOp):
    direction: str
    X: SSAValue
    Y: SSAValue
class BitwiseAnd(OnnxOp):
    A: SSAValue
    B: SSAValue
class BitwiseNot(OnnxOp):
    X: SSAValue
class BitwiseOr(OnnxOp):
    A: SSAValue
    B: SSAValue
class BitwiseXor(OnnxOp):
    A: SSAValue
    B: SSAValue
class BlackmanWindow(OnnxOp):
    output_datatype: int
    periodic: int
    size: SSAValue
class Cast(OnnxOp):
    round_mode: str
    saturate: int
    to: int
    input: SSAValue
class CastLike(OnnxOp):
    round_mode: str
    saturate: int
    input: SSAValue
    target_type: SSAValue
class CausalConvWithState(OnnxOp):
    activation: str
    input: SSAValue
    weight: SSAValue
    bias: SSAValue | None
    past_state: SSAValue | None
class Ceil(OnnxOp):
    X: SSAValue
class Celu(OnnxOp):
    alpha: float
    X: SSAValue
class CenterCropPad(OnnxOp):
    axes: list[int] | None
    input_data: SSAValue
    shape: SSAValue
class Clip(OnnxOp):
    input: SSAValue
    min: SSAValue | None
    max: SSAValue | None
class Col2Im(OnnxOp):
    dilations: list[int] | None
    pads: list[int] | None
    strides: list[int] | None
    input: SSAValue
    image_shape: SSAValue
    block_shape: SSAValue
class Compress(OnnxOp):
    axis: int | None
    input: SSAValue
    condition: SSAValue
class Concat(OnnxOp):
    axis: int
class ConcatFromSequence(OnnxOp):
    axis: int
    new_axis: int
    input_sequence: SSAValue
class Constant(OnnxOp):
    sparse_value: Attribute | None
    value: np.ndarray[Any, Any] | Attribute | None
    value_float: float | None
    value_floats: list[float] | None
    value_int: int | None
    value_ints: list[int] | None
    value_string: str | None
    value_strings: list[str] | None
class ConstantOfShape(OnnxOp):
    value: np.ndarray[Any, Any] | Attribute | None
    input: SSAValue
class Conv(OnnxOp):
    auto_pad: str
    dilations: list[int] | None
    group: int
    kernel_shape: list[int] | None
    pads: list[int] | None
    strides: list[int] | None
    X: SSAValue
    W: SSAValue
    B: SSAValue | None
class ConvInteger(OnnxOp):
    auto_pad: str
    dilations: list[int] | None
    group: int
    kernel_shape: list[int] | None
    pads: list[int] | None
    strides: list[int] | None
    x: SSAValue
    w: SSAValue
    x_zero_point: SSAValue | None
    w_zero_point: SSAValue | None
class ConvTranspose(OnnxOp):
    auto_pad: str
    dilations: list[int] | None
    group: int
    kernel_shape: list[int] | None
    output_padding: list[int] | None
    output_shape: list[int] | None
    pads: list[int] | None
    strides: list[int] | None
    X: SSAValue
    W: SSAValue
    B: SSAValue | None
class Cos(OnnxOp):
    input: SSAValue
class Cosh(OnnxOp):
    input: SSAValue
class CumProd(OnnxOp):
    exclusive: int
    reverse: int
    x: SSAValue
    axis: SSAValue
class CumSum(OnnxOp):
    exclusive: int
    reverse: int
    x: SSAValue
    axis: SSAValue
class DFT(OnnxOp):
    inverse: int
    onesided: int
    input: SSAValue
    dft_length: SSAValue | None
    axis: SSAValue | None
class DeformConv(OnnxOp):
    dilations: list[int] | None
    group: int
    kernel_shape: list[int] | None
    offset_group: int
    pads: list[int] | None
    strides: list[int] | None
    X: SSAValue
    W: SSAValue
    offset: SSAValue
    B: SSAValue | None
    mask: SSAValue | None
class DepthToSpace(OnnxOp):
    blocksize: int
    mode: str
    input: SSAValue
class DequantizeLinear(OnnxOp):
    axis: int
    block_size: int
    output_dtype: int
    x: SSAValue
    x_scale: SSAValue
    x_zero_point: SSAValue | None
class Det(OnnxOp):
    X: SSAValue
class Div(OnnxOp):
    A: SSAValue
    B: SSAValue
class Dropout(OnnxOp):
    seed: int | None
    data: SSAValue
    ratio: SSAValue | None
    training_mode: SSAValue | None
class DynamicQuantizeLinear(OnnxOp):
    x: SSAValue
class Einsum(OnnxOp):
    equation: str
class Elu(OnnxOp):
    alpha: float
    X: SSAValue
class Equal(OnnxOp):
    A: SSAValue
    B: SSAValue
class Erf(OnnxOp):
    input: SSAValue
class Exp(OnnxOp):
    input: SSAValue
class Expand(OnnxOp):
    input: SSAValue
    shape: SSAValue
class EyeLike(OnnxOp):
    dtype: int | None
    k: int
    input: SSAValue
class Flatten(OnnxOp):
    axis: int
    input: SSAValue
class Floor(OnnxOp):
    X: SSAValue
class GRU(OnnxOp):
    activation_alpha: list[float] | None
    activation_beta: list[float] | None
    activations: list[str] | None
    clip: float | None
    direction: str
    hidden_size: int | None
    layout: int
    linear_before_reset: int
    X: SSAValue
    W: SSAValue
    R: SSAValue
    B: SSAValue | None
    sequence_lens: SSAValue | None
    initial_h: SSAValue | None
class Gather(OnnxOp):
    axis: int
    data: SSAValue
    indices: SSAValue
class GatherElements(OnnxOp):
    axis: int
    data: SSAValue
    indices: SSAValue
class GatherND(OnnxOp):
    batch_dims: int
    data: SSAValue
    indices: SSAValue
class Gelu(OnnxOp):
    approximate: str
    X: SSAValue
class Gemm(OnnxOp):
    alpha: float
    beta: float
    transA: int
    transB: int
    A: SSAValue
    B: SSAValue
    C: SSAValue | None
class GlobalAveragePool(OnnxOp):
    X: SSAValue
class GlobalLpPool(OnnxOp):
    p: int
    X: SSAValue
class GlobalMaxPool(OnnxOp):
    X: SSAValue
class Greater(OnnxOp):
    A: SSAValue
    B: SSAValue
class GreaterOrEqual(OnnxOp):
    A: SSAValue
    B: SSAValue
class GridSample(OnnxOp):
    align_corners: int
    mode: str
    padding_mode: str
    X: SSAValue
    grid: SSAValue
class GroupNormalization(OnnxOp):
    epsilon: float
    num_groups: int
    stash_type: int
    X: SSAValue
    scale: SSAValue
    bias: SSAValue
class HammingWindow(OnnxOp):
    output_datatype: int
    periodic: int
    size: SSAValue
class HannWindow(OnnxOp):
    output_datatype: int
    periodic: int
    size: SSAValue
class HardSigmoid(OnnxOp):
    alpha: float
    beta: float
    X: SSAValue
class HardSwish(OnnxOp):
    X: SSAValue
class Hardmax(OnnxOp):
    axis: int
    input: SSAValue
class Identity(OnnxOp):
    input: SSAValue
class If(OnnxOp):
    cond: SSAValue
class ImageDecoder(OnnxOp):
    pixel_format: str
    encoded_stream: SSAValue
class InstanceNormalization(OnnxOp):
    epsilon: float
    input: SSAValue
    scale: SSAValue
    B: SSAValue
class IsInf(OnnxOp):
    detect_negative: int
    detect_positive: int
    X: SSAValue
class IsNaN(OnnxOp):
    X: SSAValue
class LRN(OnnxOp):
    alpha: float
    beta: float
    bias: float
    size: int
    X: SSAValue
class LSTM(OnnxOp):
    activation_alpha: list[float] | None
    activation_beta: list[float] | None
    activations: list[str] | None
    clip: float | None
    direction: str
    hidden_size: int | None
    input_forget: int
    layout: int
    X: SSAValue
    W: SSAValue
    R: SSAValue
    B: SSAValue | None
    sequence_lens: SSAValue | None
    initial_h: SSAValue | None
    initial_c: SSAValue | None
    P: SSAValue | None
class LayerNormalization(OnnxOp):
    axis: int
    epsilon: float
    stash_type: int
    X: SSAValue
    Scale: SSAValue
    B: SSAValue | None
class LeakyRelu(OnnxOp):
    alpha: float
    X: SSAValue
class Less(OnnxOp):
    A: SSAValue
    B: SSAValue
class LessOrEqual(OnnxOp):
    A: SSAValue
    B: SSAValue
class LinearAttention(OnnxOp):
    chunk_size: int
    kv_num_heads: int
    q_num_heads: int
    scale: float
    update_rule: str
    query: SSAValue
    key: SSAValue
    value: SSAValue
    past_state: SSAValue | None
    decay: SSAValue | None
    beta: SSAValue | None
class Log(OnnxOp):
    input: SSAValue
class LogSoftmax(OnnxOp):
    axis: int
    input: SSAValue
class Loop(OnnxOp):
    M: SSAValue | None
    cond: SSAValue | None
class LpNormalization(OnnxOp):
    axis: int
    p: int
    input: SSAValue
class LpPool(OnnxOp):
    auto_pad: str
    ceil_mode: int
    dilations: list[int] | None
    kernel_shape: list[int]
    p: int
    pads: list[int] | None
    strides: list[int] | None
    X: SSAValue
class MatMul(OnnxOp):
    A: SSAValue
    B: SSAValue
class MatMulInteger(OnnxOp):
    A: SSAValue
    B: SSAValue
    a_zero_point: SSAValue | None
    b_zero_point: SSAValue | None
class Max(OnnxOp): ...
class MaxPool(OnnxOp):
    auto_pad: str
    ceil_mode: int
    dilations: list[int] | None
    kernel_shape: list[int]
    pads: list[int] | None
    storage_order: int
    strides: list[int] | None
    X: SSAValue
class MaxRoiPool(OnnxOp):
    pooled_shape: list[int]
    spatial_scale: float
    X: SSAValue
    rois: SSAValue
class MaxUnpool(OnnxOp):
    kernel_shape: list[int]
    pads: list[int] | None
    strides: list[int] | None
    X: SSAValue
    I: SSAValue
    output_shape: SSAValue | None
class Mean(OnnxOp): ...
class MeanVarianceNormalization(OnnxOp):
    axes: list[int]
    X: SSAValue
class MelWeightMatrix(OnnxOp):
    output_datatype: int
    num_mel_bins: SSAValue
    dft_length: SSAValue
    sample_rate: SSAValue
    lower_edge_hertz: SSAValue
    upper_edge_hertz: SSAValue
class Min(OnnxOp): ...
class Mish(OnnxOp):
    X: SSAValue
class Mod(OnnxOp):
    fmod: int
    A: SSAValue
    B: SSAValue
class Mul(OnnxOp):
    A: SSAValue
    B: SSAValue
class Multinomial(OnnxOp):
    dtype: int
    sample_size: int
    seed: float | None
    input: SSAValue
class Neg(OnnxOp):
    X: SSAValue
class NegativeLogLikelihoodLoss(OnnxOp):
    ignore_index: int | None
    reduction: str
    input: SSAValue
    target: SSAValue
    weight: SSAValue | None
class NonMaxSuppression(OnnxOp):
    center_point_box: int
    boxes: SSAValue
    scores: SSAValue
    max_output_boxes_per_class: SSAValue | None
    iou_threshold: SSAValue | None
    score_threshold: SSAValue | None
class NonZero(OnnxOp):
    X: SSAValue
class Not(OnnxOp):
    X: SSAValue
class OneHot(OnnxOp):
    axis: int
    indices: SSAValue
    depth: SSAValue
    values: SSAValue
class Optional(OnnxOp):
    type: Attribute | None
    input: SSAValue | None
class OptionalGetElement(OnnxOp):
    input: SSAValue
class OptionalHasElement(OnnxOp):
    input: SSAValue | None
class Or(OnnxOp):
    A: SSAValue
    B: SSAValue
class PRelu(OnnxOp):
    X: SSAValue
    slope: SSAValue
class Pad(OnnxOp):
    mode: str
    data: SSAValue
    pads: SSAValue
    constant_value: SSAValue | None
    axes: SSAValue | None
class Pow(OnnxOp):
    X: SSAValue
    Y: SSAValue
class QLinearConv(OnnxOp):
    auto_pad: str
    dilations: list[int] | None
    group: int
    kernel_shape: list[int] | None
    pads: list[int] | None
    strides: list[int] | None
    x: SSAValue
    x_scale: SSAValue
    x_zero_point: SSAValue
    w: SSAValue
    w_scale: SSAValue
    w_zero_point: SSAValue
    y_scale: SSAValue
    y_zero_point: SSAValue
    B: SSAValue | None
class QLinearMatMul(OnnxOp):
    a: SSAValue
    a_scale: SSAValue
    a_zero_point: SSAValue
    b: SSAValue
    b_scale: SSAValue
    b_zero_point: SSAValue
    y_scale: SSAValue
    y_zero_point: SSAValue
class QuantizeLinear(OnnxOp):
    axis: int
    block_size: int
    output_dtype: int
    precision: int
    saturate: int
    x: SSAValue
    y_scale: SSAValue
    y_zero_point: SSAValue | None
class RMSNormalization(OnnxOp):
    axis: int
    epsilon: float
    stash_type: int
    X: SSAValue
    scale: SSAValue
class RNN(OnnxOp):
    activation_alpha: list[float] | None
    activation_beta: list[float] | None
    activations: list[str]
    clip: float | None
    direction: str
    hidden_size: int | None
    layout: int
    X: SSAValue
    W: SSAValue
    R: SSAValue
    B: SSAValue | None
    sequence_lens: SSAValue | None
    initial_h: SSAValue | None
class RandomNormal(OnnxOp):
    dtype: int
    mean: float
    scale: float
    seed: float | None
    shape: list[int]
class RandomNormalLike(OnnxOp):
    dtype: int | None
    mean: float
    scale: float
    seed: float | None
    input: SSAValue
class RandomUniform(OnnxOp):
    dtype: int
    high: float
    low: float
    seed: float | None
    shape: list[int]
class RandomUniformLike(OnnxOp):
    dtype: int | None
    high: float
    low: float
    seed: float | None
    input: SSAValue
class Range(OnnxOp):
    stash_type: int
    start: SSAValue
    limit: SSAValue
    delta: SSAValue
class Reciprocal(OnnxOp):
    X: SSAValue
class ReduceL1(OnnxOp):
    keepdims: int
    noop_with_empty_axes: int
    data: SSAValue
    axes: SSAValue | None
class ReduceL2(OnnxOp):
    keepdims: int
    noop_with_empty_axes: int
    data: SSAValue
    axes: SSAValue | None
class ReduceLogSum(OnnxOp):
    keepdims: int
    noop_with_empty_axes: int
    data: SSAValue
    axes: SSAValue | None
class ReduceLogSumExp(OnnxOp):
    keepdims: int
    noop_with_empty_axes: int
    data: SSAValue
    axes: SSAValue | None
class ReduceMax(OnnxOp):
    keepdims: int
    noop_with_empty_axes: int
    data: SSAValue
    axes: SSAValue | None
class ReduceMean(OnnxOp):
    keepdims: int
    noop_with_empty_axes: int
    data: SSAValue
    axes: SSAValue | None
class ReduceMin(OnnxOp):
    keepdims: int
    noop_with_empty_axes: int
    data: SSAValue
    axes: SSAValue | None
class ReduceProd(OnnxOp):
    keepdims: int
    noop_with_empty_axes: int
    data: SSAValue
    axes: SSAValue | None
class ReduceSum(OnnxOp):
    keepdims: int
    noop_with_empty_axes: int
    data: SSAValue
    axes: SSAValue | None
class ReduceSumSquare(OnnxOp):
    keepdims: int
    noop_with_empty_axes: int
    data: SSAValue
    axes: SSAValue | None
class RegexFullMatch(OnnxOp):
    pattern: str | None
    X: SSAValue
class Relu(OnnxOp):
    X: SSAValue
class Reshape(OnnxOp):
    allowzero: int
    data: SSAValue
    shape: SSAValue
class Resize(OnnxOp):
    antialias: int
    axes: list[int] | None
    coordinate_transformation_mode: str
    cubic_coeff_a: float
    exclude_outside: int
    extrapolation_value: float
    keep_aspect_ratio_policy: str
    mode: str
    nearest_mode: str
    X: SSAValue
    roi: SSAValue | None
    scales: SSAValue | None
    sizes: SSAValue | None
class ReverseSequence(OnnxOp):
    batch_axis: int
    time_axis: int
    input: SSAValue
    sequence_lens: SSAValue
class RoiAlign(OnnxOp):
    coordinate_transformation_mode: str
    mode: str
    output_height: int
    output_width: int
    sampling_ratio: int
    spatial_scale: float
    X: SSAValue
    rois: SSAValue
    batch_indices: SSAValue
class RotaryEmbedding(OnnxOp):
    interleaved: int
    num_heads: int | None
    rotary_embedding_dim: int
    X: SSAValue
    cos_cache: SSAValue
    sin_cache: SSAValue
    position_ids: SSAValue | None
class Round(OnnxOp):
    X: SSAValue
class STFT(OnnxOp):
    onesided: int
    signal: SSAValue
    frame_step: SSAValue
    window: SSAValue | None
    frame_length: SSAValue | None
class Scan(OnnxOp):
    num_scan_inputs: int
    scan_input_axes: list[int] | None
    scan_input_directions: list[int] | None
    scan_output_axes: list[int] | None
    scan_output_directions: list[int] | None
class Scatter(OnnxOp):
    axis: int
    data: SSAValue
    indices: SSAValue
    updates: SSAValue
class ScatterElements(OnnxOp):
    axis: int
    reduction: str
    data: SSAValue
    indices: SSAValue
    updates: SSAValue
class ScatterND(OnnxOp):
    reduction: str
    data: SSAValue
    indices: SSAValue
    updates: SSAValue
class Selu(OnnxOp):
    alpha: float
    gamma: float
    X: SSAValue
class SequenceAt(OnnxOp):
    input_sequence: SSAValue
    position: SSAValue
class SequenceConstruct(OnnxOp): ...
class SequenceEmpty(OnnxOp):
    dtype: int | None
class SequenceErase(OnnxOp):
    input_sequence: SSAValue
    position: SSAValue | None
class SequenceInsert(OnnxOp):
    input_sequence: SSAValue
    tensor: SSAValue
    position: SSAValue | None
class SequenceLength(OnnxOp):
    input_sequence: SSAValue
class SequenceMap(OnnxOp):
    input_sequence: SSAValue
class Shape(OnnxOp):
    end: int | None
    start: int
    data: SSAValue
class Shrink(OnnxOp):
    bias: float
    lambd: float
    input: SSAValue
class Sigmoid(OnnxOp):
    X: SSAValue
class Sign(OnnxOp):
    input: SSAValue
class Sin(OnnxOp):
    input: SSAValue
class Sinh(OnnxOp):
    input: SSAValue
class Size(OnnxOp):
    data: SSAValue
class Slice(OnnxOp):
    data: SSAValue
    starts: SSAValue
    ends: SSAValue
    axes: SSAValue | None
    steps: SSAValue | None
class Softmax(OnnxOp):
    axis: int
    input: SSAValue
class SoftmaxCrossEntropyLoss(OnnxOp):
    ignore_index: int | None
    reduction: str
    scores: SSAValue
    labels: SSAValue
    weights: SSAValue | None
class Softplus(OnnxOp):
    X: SSAValue
class Softsign(OnnxOp):
    input: SSAValue
class SpaceToDepth(OnnxOp):
    blocksize: int
    mode: str
    input: SSAValue
class Split(OnnxOp):
    axis: int
    num_outputs: int | None
    input: SSAValue
    split: SSAValue | None
class SplitToSequence(OnnxOp):
    axis: int
    keepdims: int
    input: SSAValue
    split: SSAValue | None
class Sqrt(OnnxOp):
    X: SSAValue
class Squeeze(OnnxOp):
    data: SSAValue
    axes: SSAValue | None
class StringConcat(OnnxOp):
    X: SSAValue
    Y: SSAValue
class StringNormalizer(OnnxOp):
    case_change_action: str
    is_case_sensitive: int
    locale: str | None
    stopwords: list[str] | None
    X: SSAValue
class StringSplit(OnnxOp):
    delimiter: str | None
    maxsplit: int | None
    X: SSAValue
class Sub(OnnxOp):
    A: SSAValue
    B: SSAValue
class Sum(OnnxOp): ...
class SwiGLU(OnnxOp):
    alpha: float
    A: SSAValue
    B: SSAValue
class Swish(OnnxOp):
    alpha: float
    X: SSAValue
class Tan(OnnxOp):
    input: SSAValue
class Tanh(OnnxOp):
    input: SSAValue
class TensorScatter(OnnxOp):
    axis: int
    mode: str
    past_cache: SSAValue
    update: SSAValue
    write_indices: SSAValue | None
class TfIdfVectorizer(OnnxOp):
    max_gram_length: int
    max_skip_count: int
    min_gram_length: int
    mode: str
    ngram_counts: list[int]
    ngram_indexes: list[int]
    pool_int64s: list[int] | None
    pool_strings: list[str] | None
    weights: list[float] | None
    X: SSAValue
class ThresholdedRelu(OnnxOp):
    alpha: float
    X: SSAValue
class Tile(OnnxOp):
    input: SSAValue
    repeats: SSAValue
class TopK(OnnxOp):
    axis: int
    largest: int
    sorted: int
    X: SSAValue
    K: SSAValue
class Transpose(OnnxOp):
    perm: list[int] | None
    data: SSAValue
class Trilu(OnnxOp):
    upper: int
    input: SSAValue
    k: SSAValue | None
class Unique(OnnxOp):
    axis: int | None
    sorted: int
    X: SSAValue
class Unsqueeze(OnnxOp):
    data: SSAValue
    axes: SSAValue
class Upsample(OnnxOp):
    mode: str
    X: SSAValue
    scales: SSAValue
class Where(OnnxOp):
    condition: SSAValue
    X: SSAValue
    Y: SSAValue
class Xor(OnnxOp):
    A: SSAValue
    B: SSAValue
class ai_onnx_ml:
    class ArrayFeatureExtractor(OnnxOp):
        X: SSAValue
        Y: SSAValue
    class Binarizer(OnnxOp):
        threshold: float
        X: SSAValue
    class CastMap(OnnxOp):
        cast_to: str
        map_form: str
        max_map: int
        X: SSAValue
    class CategoryMapper(OnnxOp):
        cats_int64s: list[int] | None
        cats_strings: list[str] | None
        default_int64: int
        default_string: str
        X: SSAValue
    class DictVectorizer(OnnxOp):
        int64_vocabulary: list[int] | None
        string_vocabulary: list[str] | None
        X: SSAValue
    class FeatureVectorizer(OnnxOp):
        inputdimensions: list[int] | None
    class Imputer(OnnxOp):
        imputed_value_floats: list[float] | None
        imputed_value_int64s: list[int] | None
        replaced_value_float: float
        replaced_value_int64: int
        X: SSAValue
    class LabelEncoder(OnnxOp):
        default_float: float
        default_int64: int
        default_string: str
        default_tensor: np.ndarray[Any, Any] | Attribute | None
        keys_floats: list[float] | None
        keys_int64s: list[int] | None
        keys_strings: list[str] | None
        keys_tensor: np.ndarray[Any, Any] | Attribute | None
        values_floats: list[float] | None
        values_int64s: list[int] | None
        values_strings: list[str] | None
        values_tensor: np.ndarray[Any, Any] | Attribute | None
        X: SSAValue
    class LinearClassifier(OnnxOp):
        classlabels_ints: list[int] | None
        classlabels_strings: list[str] | None
        coefficients: list[float]
        intercepts: list[float] | None
        multi_class: int
        post_transform: str
        X: SSAValue
    class LinearRegressor(OnnxOp):
        coefficients: list[float] | None
        intercepts: list[float] | None
        post_transform: str
        targets: int
        X: SSAValue
    class Normalizer(OnnxOp):
        norm: str
        X: SSAValue
    class OneHotEncoder(OnnxOp):
        cats_int64s: list[int] | None
        cats_strings: list[str] | None
        zeros: int
        X: SSAValue
    class SVMClassifier(OnnxOp):
        classlabels_ints: list[int] | None
        classlabels_strings: list[str] | None
        coefficients: list[float] | None
        kernel_params: list[float] | None
        kernel_type: str
        post_transform: str
        prob_a: list[float] | None
        prob_b: list[float] | None
        rho: list[float] | None
        support_vectors: list[float] | None
        vectors_per_class: list[int] | None
        X: SSAValue
    class SVMRegressor(OnnxOp):
        coefficients: list[float] | None
        kernel_params: list[float] | None
        kernel_type: str
        n_supports: int
        one_class: int
        post_transform: str
        rho: list[float] | None
        support_vectors: list[float] | None
        X: SSAValue
    class Scaler(OnnxOp):
        offset: list[float] | None
        scale: list[float] | None
        X: SSAValue
    class TreeEnsemble(OnnxOp):
        aggregate_function: int
        leaf_targetids: list[int]
        leaf_weights: np.ndarray[Any, Any] | Attribute
        membership_values: np.ndarray[Any, Any] | Attribute | None
        n_targets: int | None
        nodes_falseleafs: list[int]
        nodes_falsenodeids: list[int]
        nodes_featureids: list[int]
        nodes_hitrates: np.ndarray[Any, Any] | Attribute | None
        nodes_missing_value_tracks_true: list[int] | None
        nodes_modes: np.ndarray[Any, Any] | Attribute
        nodes_splits: np.ndarray[Any, Any] | Attribute
        nodes_trueleafs: list[int]
        nodes_truenodeids: list[int]
        post_transform: int
        tree_roots: list[int]
        X: SSAValue
    class TreeEnsembleClassifier(OnnxOp):
        base_values: list[float] | None
        base_values_as_tensor: np.ndarray[Any, Any] | Attribute | None
        class_ids: list[int] | None
        class_nodeids: list[int] | None
        class_treeids: list[int] | None
        class_weights: list[float] | None
        class_weights_as_tensor: np.ndarray[Any, Any] | Attribute | None
        classlabels_int64s: list[int] | None
        classlabels_strings: list[str] | None
        nodes_falsenodeids: list[int] | None
        nodes_featureids: list[int] | None
        nodes_hitrates: list[float] | None
        nodes_hitrates_as_tensor: np.ndarray[Any, Any] | Attribute | None
        nodes_missing_value_tracks_true: list[int] | None
        nodes_modes: list[str] | None
        nodes_nodeids: list[int] | None
        nodes_treeids: list[int] | None
        nodes_truenodeids: list[int] | None
        nodes_values: list[float] | None
        nodes_values_as_tensor: np.ndarray[Any, Any] | Attribute | None
        post_transform: str
        X: SSAValue
    class TreeEnsembleRegressor(OnnxOp):
        aggregate_function: str
        base_values: list[float] | None
        base_values_as_tensor: np.ndarray[Any, Any] | Attribute | None
        n_targets: int | None
        nodes_falsenodeids: list[int] | None
        nodes_featureids: list[int] | None
        nodes_hitrates: list[float] | None
        nodes_hitrates_as_tensor: np.ndarray[Any, Any] | Attribute | None
        nodes_missing_value_tracks_true: list[int] | None
        nodes_modes: list[str] | None
        nodes_nodeids: list[int] | None
        nodes_treeids: list[int] | None
        nodes_truenodeids: list[int] | None
        nodes_values: list[float] | None
        nodes_values_as_tensor: np.ndarray[Any, Any] | Attribute | None
        post_transform: str
        target_ids: list[int] | None
        target_nodeids: list[int] | None
        target_treeids: list[int] | None
        target_weights: list[float] | None
        target_weights_as_tensor: np.ndarray[Any, Any] | Attribute | None
        X: SSAValue
    class ZipMap(OnnxOp):
        classlabels_int64s: list[int] | None
        classlabels_strings: list[str] | None
        X: SSAValue
class ai_onnx_preview:
    class FlexAttention(OnnxOp):
        scale: float | None
        softmax_precision: int | None
        Q: SSAValue
        K: SSAValue
        V: SSAValue
class ai_onnx_preview_training:
    class Adagrad(OnnxOp):
        decay_factor: float
        epsilon: float
        norm_coefficient: float
        R: SSAValue
        T: SSAValue
    class Adam(OnnxOp):
        alpha: float
        beta: float
        epsilon: float
        norm_coefficient: float
        norm_coefficient_post: float
        R: SSAValue
        T: SSAValue
    class Gradient(OnnxOp):
        xs: list[str]
        y: str
        zs: list[str] | None
    class Momentum(OnnxOp):
        alpha: float
        beta: float
        mode: str
        norm_coefficient: float
        R: SSAValue
        T: SSAValue
class com_microsoft:
    class Attention(OnnxOp):
        do_rotary: int | None
        mask_filter_value: float | None
        num_heads: int
        past_present_share_buffer: int | None
        qkv_hidden_sizes: list[int] | None
        rotary_embedding_dim: int | None
        scale: float | None
        unidirectional: int
        input: SSAValue
        weights: SSAValue
        bias: SSAValue | None
        mask_index: SSAValue | None
        past: SSAValue | None
        attention_bias: SSAValue | None
        past_sequence_length: SSAValue | None
    class AttnLSTM(OnnxOp):
        activation_alpha: list[float] | None
        activation_beta: list[float] | None
        activations: list[str] | None
        clip: float | None
        direction: str
        hidden_size: int | None
        input_forget: int
        X: SSAValue
        W: SSAValue
        R: SSAValue
        B: SSAValue | None
        sequence_lens: SSAValue | None
        initial_h: SSAValue | None
        initial_c: SSAValue | None
        P: SSAValue | None
        QW: SSAValue | None
        MW: SSAValue | None
        V: SSAValue | None
        M: SSAValue | None
        memory_seq_lens: SSAValue | None
        AW: SSAValue | None
    class BeamSearch(OnnxOp):
        decoder_start_token_id: int
        early_stopping: int
        eos_token_id: int
        model_type: int
        no_repeat_ngram_size: int
        pad_token_id: int
        vocab_size: int
        input_ids: SSAValue
        max_length: SSAValue
        min_length: SSAValue | None
        num_beams: SSAValue
        num_return_sequences: SSAValue
        length_penalty: SSAValue | None
        repetition_penalty: SSAValue | None
        vocab_mask: SSAValue | None
        prefix_vocab_mask: SSAValue | None
        attention_mask: SSAValue | None
        decoder_input_ids: SSAValue | None
        logits_processor: SSAValue | None
    class BiasAdd(OnnxOp):
        X: SSAValue
        bias: SSAValue
        skip: SSAValue
    class BiasDropout(OnnxOp):
        seed: int | None
        data: SSAValue
        bias: SSAValue
        residual: SSAValue | None
        ratio: SSAValue | None
        training_mode: SSAValue | None
    class BiasGelu(OnnxOp):
        A: SSAValue
        B: SSAValue
    class BiasSoftmax(OnnxOp):
        axis: int
        is_inner_broadcast: int
        data: SSAValue
        bias: SSAValue
    class BiasSplitGelu(OnnxOp):
        X: SSAValue
        bias: SSAValue
    class BifurcationDetector(OnnxOp):
        max_ngram_size: int
        min_ngram_size: int
        src_tokens: SSAValue
        cur_tokens: SSAValue
        prev_suffix_match_idx: SSAValue
        pred_tokens: SSAValue | None
    class BitmaskBiasDropout(OnnxOp):
        seed: int | None
        data: SSAValue
        bias: SSAValue
        residual: SSAValue | None
        ratio: SSAValue | None
        training_mode: SSAValue | None
    class BitmaskDropout(OnnxOp):
        seed: int | None
        data: SSAValue
        ratio: SSAValue | None
        training_mode: SSAValue | None
    class BranchwiseRMSNorm(OnnxOp):
        epsilon: float
        num_branches: int
        X: SSAValue
        scale: SSAValue | None
    class CDist(OnnxOp):
        metric: str
        A: SSAValue
        B: SSAValue
    class CausalConvWithState(OnnxOp):
        activation: str
        channels_last: int
        dilation: int
        input_channel_offset: int
        input_channels: int
        ndim: int
        state_channels_last: int
        state_length: int
        state_update_capacity: int
        state_window: int
        input: SSAValue
        weight: SSAValue
        bias: SSAValue | None
        past_state: SSAValue | None
    class ComplexMul(OnnxOp):
        A: SSAValue
        B: SSAValue
    class ComplexMulConj(OnnxOp):
        A: SSAValue
        B: SSAValue
    class ConvStateReplay(OnnxOp):
        source_backing: SSAValue
        capture_backing: SSAValue
        destination_backing: SSAValue
        metadata: SSAValue
    class ConvTransposeWithDynamicPads(OnnxOp):
        auto_pad: str
        dilations: list[int] | None
        group: int
        kernel_shape: list[int] | None
        output_padding: list[int] | None
        strides: list[int] | None
        X: SSAValue
        W: SSAValue
        Pads: SSAValue | None
        B: SSAValue | None
    class CropAndResize(OnnxOp):
        extrapolation_value: float
        mode: str
        X: SSAValue
        rois: SSAValue
        batch_indices: SSAValue
        crop_size: SSAValue
    class DecoderAttention(OnnxOp):
        mask_filter_value: float | None
        num_heads: int
        query: SSAValue
        key: SSAValue
        q_weight: SSAValue
        kv_weight: SSAValue
        bias: SSAValue
        key_padding_mask: SSAValue | None
        key_cache: SSAValue | None
        value_cache: SSAValue | None
        static_kv: SSAValue
        use_past: SSAValue
        has_layer_state: SSAValue
        has_key_padding_mask: SSAValue
    class DecoderMaskedMultiHeadAttention(OnnxOp):
        mask_filter_value: float | None
        num_heads: int
        output_qk: int | None
        past_present_share_buffer: int | None
        scale: float | None
        query: SSAValue
        key: SSAValue | None
        value: SSAValue | None
        mask_index: SSAValue | None
        attention_bias: SSAValue | None
        past_key: SSAValue | None
        past_value: SSAValue | None
        past_sequence_length: SSAValue | None
        beam_width: SSAValue | None
        cache_indirection: SSAValue | None
        bias: SSAValue | None
    class DecoderMaskedSelfAttention(OnnxOp):
        do_rotary: int | None
        mask_filter_value: float | None
        num_heads: int
        past_present_share_buffer: int | None
        scale: float | None
        input: SSAValue
        weights: SSAValue
        bias: SSAValue
        mask_index: SSAValue | None
        past: SSAValue
        attention_bias: SSAValue | None
        past_sequence_length: SSAValue
        beam_width: SSAValue | None
        cache_indirection: SSAValue | None
    class DequantizeBFP(OnnxOp):
        bfp_type: int
        block_dim: int
        dtype: int
        x: SSAValue
        shape: SSAValue
        strides: SSAValue
    class DequantizeLinear(OnnxOp):
        axis: int | None
        x: SSAValue
        x_scale: SSAValue
        x_zero_point: SSAValue | None
    class DequantizeWithOrder(OnnxOp):
        order_input: int
        order_output: int
        to: int
        input: SSAValue
        scale_input: SSAValue
    class DynamicQuantizeLSTM(OnnxOp):
        activation_alpha: list[float] | None
        activation_beta: list[float] | None
        activations: list[str] | None
        clip: float | None
        direction: str
        hidden_size: int | None
        input_forget: int
        X: SSAValue
        W: SSAValue
        R: SSAValue
        B: SSAValue | None
        sequence_lens: SSAValue | None
        initial_h: SSAValue | None
        initial_c: SSAValue | None
        P: SSAValue | None
        W_scale: SSAValue
        W_zero_point: SSAValue
        R_scale: SSAValue
        R_zero_point: SSAValue
    class DynamicQuantizeMatMul(OnnxOp):
        A: SSAValue
        B: SSAValue
        b_scale: SSAValue
        b_zero_point: SSAValue | None
        bias: SSAValue | None
    class DynamicSparseAttention(OnnxOp):
        attention_mode: str
        auxiliary_kv_shared: int
        do_rotary: int
        is_causal: int
        kv_num_heads: int
        local_window_size: int
        num_heads: int
        output_bf16: int
        qk_norm_epsilon: float
        rotary_interleaved: int
        rotary_offset: int
        scale: float | None
        selected_kv_source: str
        smooth_softmax: int
        query: SSAValue
        key: SSAValue | None
        value: SSAValue | None
        past_key: SSAValue | None
        past_value: SSAValue | None
        auxiliary_key: SSAValue | None
        auxiliary_value: SSAValue | None
        selected_indices: SSAValue
        selected_counts: SSAValue
        seqlens_k: SSAValue
        total_sequence_length: SSAValue
        cos_cache: SSAValue | None
        sin_cache: SSAValue | None
        position_ids: SSAValue | None
        q_norm_weight: SSAValue | None
        k_norm_weight: SSAValue | None
        head_sink: SSAValue | None
        committed_length: SSAValue | None
        key_scale: SSAValue | None
        value_scale: SSAValue | None
    class DynamicTimeWarping(OnnxOp):
        input: SSAValue
    class EPContext(OnnxOp):
        embed_mode: int
        ep_cache_context: str | None
        ep_sdk_version: str | None
        hardware_architecture: str | None
        main_context: int
        max_size: int
        notes: str | None
        onnx_model_filename: str | None
        partition_name: str | None
        source: str | None
    class EmbedLayerNormalization(OnnxOp):
        epsilon: float
        mask_index_type: int | None
        input_ids: SSAValue
        segment_ids: SSAValue | None
        word_embedding: SSAValue
        position_embedding: SSAValue
        segment_embedding: SSAValue | None
        gamma: SSAValue
        beta: SSAValue
        mask: SSAValue | None
        position_ids: SSAValue | None
    class EngramGate(OnnxOp):
        epsilon: float
        key: SSAValue
        query: SSAValue
        value: SSAValue
        key_norm_scale: SSAValue
        query_norm_scale: SSAValue
        conv_norm_scale: SSAValue | None
    class ExpandDims(OnnxOp):
        X: SSAValue
        axis: SSAValue
    class FastGelu(OnnxOp):
        X: SSAValue
        bias: SSAValue | None
    class FusedConv(OnnxOp):
        activation: str | None
        activation_params: list[float] | None
        auto_pad: str
        dilations: list[int] | None
        group: int
        kernel_shape: list[int] | None
        pads: list[int] | None
        strides: list[int] | None
        X: SSAValue
        W: SSAValue
        B: SSAValue | None
        Z: SSAValue | None
    class FusedGemm(OnnxOp):
        activation: str | None
        activation_alpha: float | None
        activation_beta: float | None
        activation_gamma: float | None
        alpha: float
        beta: float
        transA: int
        transB: int
        A: SSAValue
        B: SSAValue
        C: SSAValue | None
    class FusedMatMul(OnnxOp):
        alpha: float
        transA: int
        transB: int
        transBatchA: int
        transBatchB: int
        A: SSAValue
        B: SSAValue
    class FusedMatMulActivation(OnnxOp):
        activation: str
        activation_alpha: float | None
        activation_axis: int | None
        activation_beta: float | None
        activation_gamma: float | None
        alpha: float
        transA: int
        transB: int
        transBatchA: int
        transBatchB: int
        A: SSAValue
        B: SSAValue
    class GatedAdd(OnnxOp):
        X: SSAValue
        Y: SSAValue
        gate: SSAValue
        gate_weight: SSAValue | None
    class GatedDeltaNet(OnnxOp):
        beta_activation: str
        chunk_size: int
        gate_activation: str
        gate_lower_bound: float
        qk_l2_norm: int
        scale: float
        state_update_capacity: int
        update_rule: str
        query: SSAValue
        key: SSAValue | None
        value: SSAValue | None
        cu_seqlens: SSAValue | None
        decay: SSAValue | None
        beta: SSAValue | None
        initial_state: SSAValue | None
        a_log: SSAValue | None
        dt_bias: SSAValue | None
        capture_count: SSAValue | None
        state_update_active: SSAValue | None
    class GatedDeltaNetStateReplay(OnnxOp):
        source_backing: SSAValue
        capsule_backing: SSAValue
        destination_backing: SSAValue
        metadata: SSAValue
    class GatedRMSNorm(OnnxOp):
        activation: str
        epsilon: float
        X: SSAValue
        scale: SSAValue
        gate: SSAValue
    class GatedRelativePositionBias(OnnxOp):
        num_heads: int
        query_layer: SSAValue
        query_bias: SSAValue
        rel_pos: SSAValue
        weight: SSAValue
        bias: SSAValue
        eco_a: SSAValue
        token_offset: SSAValue | None
    class GatherBlockQuantized(OnnxOp):
        bits: int
        block_size: int
        gather_axis: int
        quantize_axis: int
        data: SSAValue
        indices: SSAValue
        scales: SSAValue
        zero_points: SSAValue | None
    class GatherND(OnnxOp):
        data: SSAValue
        indices: SSAValue
    class GatherPacked(OnnxOp):
        K: int
        output_dtype: int
        packed_type: int
        data: SSAValue
        indices: SSAValue
    class Gelu(OnnxOp):
        X: SSAValue
    class GemmFastGelu(OnnxOp):
        X: SSAValue
        W: SSAValue
        bias: SSAValue | None
    class GemmFloat8(OnnxOp):
        activation: str | None
        alpha: float
        beta: float
        dtype: int
        transA: int
        transB: int
        A: SSAValue
        B: SSAValue
        C: SSAValue | None
        scaleA: SSAValue | None
        scaleB: SSAValue | None
        scaleY: SSAValue | None
    class GemmaRotaryEmbedding(OnnxOp):
        emb: SSAValue
        q: SSAValue
        q_rot: SSAValue
        k: SSAValue
        k_rot: SSAValue
    class GreedySearch(OnnxOp):
        decoder_start_token_id: int
        eos_token_id: int
        model_type: int
        no_repeat_ngram_size: int
        pad_token_id: int
        vocab_size: int
        input_ids: SSAValue
        max_length: SSAValue
        min_length: SSAValue | None
        repetition_penalty: SSAValue | None
        vocab_mask: SSAValue | None
        prefix_vocab_mask: SSAValue | None
        attention_mask: SSAValue | None
    class GridSample(OnnxOp):
        align_corners: int
        mode: str
        padding_mode: str
        X: SSAValue
        Grid: SSAValue
    class GroupNorm(OnnxOp):
        activation: int
        channels_last: int
        epsilon: float
        groups: int
        X: SSAValue
        gamma: SSAValue
        beta: SSAValue
    class GroupQueryAttention(OnnxOp):
        causal: int
        do_rotary: int | None
        k_norm_epsilon: float | None
        k_quant_type: str
        kv_cache_bit_width: int | None
        kv_num_heads: int
        local_window_size: int
        num_heads: int
        q_norm_epsilon: float | None
        qk_norm_epsilon: float
        qk_output: int
        rotary_interleaved: int | None
        scale: float | None
        sliding_window_cache: int
        smooth_softmax: int
        softcap: float | None
        v_quant_type: str
        query: SSAValue
        key: SSAValue | None
        value: SSAValue | None
        past_key: SSAValue | None
        past_value: SSAValue | None
        seqlens_k: SSAValue
        total_sequence_length: SSAValue
        cos_cache: SSAValue | None
        sin_cache: SSAValue | None
        position_ids: SSAValue | None
        attention_bias: SSAValue | None
        head_sink: SSAValue | None
        k_scale: SSAValue | None
        v_scale: SSAValue | None
        q_norm_weight: SSAValue | None
        k_norm_weight: SSAValue | None
        query_seqlens: SSAValue | None
    class HyperConnectionLowRankMix(OnnxOp):
        epsilon: float
        gate_div: float
        gate_mul: float
        num_branches: int
        reduction_scale: float
        silu_alpha: float
        streams: SSAValue
        norm_scale: SSAValue
        down_weight: SSAValue
        up_weight: SSAValue
        inject_weight: SSAValue
        prev_block_output: SSAValue | None
        prev_post_gate: SSAValue | None
    class HyperConnectionPostMix(OnnxOp):
        num_branches: int
        streams: SSAValue
        block_output: SSAValue
        post_mix: SSAValue
        stream_mix: SSAValue | None
    class HyperConnectionPreMix(OnnxOp):
        num_branches: int
        reduction_scale: float
        streams: SSAValue
        pre_mix: SSAValue
    class Inverse(OnnxOp):
        X: SSAValue
    class Irfft(OnnxOp):
        normalized: int
        onesided: int
        signal_ndim: int
        X: SSAValue
    class IsAllFinite(OnnxOp):
        isinf_only: int
        isnan_only: int
    class LinearAttention(OnnxOp):
        chunk_size: int
        kv_num_heads: int
        q_num_heads: int
        scale: float
        state_window: int
        update_rule: str
        query: SSAValue
        key: SSAValue
        value: SSAValue
        past_state: SSAValue | None
        decay: SSAValue | None
        beta: SSAValue | None
    class LinearAttentionGate(OnnxOp):
        a: SSAValue
        dt_bias: SSAValue
        decay_scale: SSAValue
        b: SSAValue | None
    class LongformerAttention(OnnxOp):
        num_heads: int
        window: int
        input: SSAValue
        weight: SSAValue
        bias: SSAValue
        mask: SSAValue
        global_weight: SSAValue
        global_bias: SSAValue
    class MRotaryEmbedding(OnnxOp):
        interleaved: int | None
        is_packed_batching: int | None
        mrope_layout: int | None
        mrope_section: list[int]
        num_heads: int | None
        rotary_embedding_dim: int | None
        scale: float | None
        input: SSAValue
        position_ids: SSAValue
        cos_cache: SSAValue
        sin_cache: SSAValue
    class Mamba2Verify(OnnxOp):
        d_state: int
        epsilon: float
        head_dim: int
        heads: int
        n_groups: int
        time_step_min: float
        projection: SSAValue
        conv_state: SSAValue
        ssm_state: SSAValue
        conv_weight: SSAValue
        conv_bias: SSAValue
        dt_bias: SSAValue
        A_negative: SSAValue
        D: SSAValue
        norm_weight: SSAValue
        state_row: SSAValue
    class MatMulBlockQuantizedFp4Weight(OnnxOp):
        block_size: int
        A: SSAValue
        B: SSAValue
        weight_scale: SSAValue
        weight_scale_2: SSAValue
        input_scale: SSAValue | None
        bias: SSAValue | None
    class MatMulBlockQuantizedFp8Weight(OnnxOp):
        block_size: int
        A: SSAValue
        B: SSAValue
        b_scale: SSAValue
        a_scale: SSAValue | None
        bias: SSAValue | None
    class MatMulBnb4(OnnxOp):
        K: int
        N: int
        block_size: int
        quant_type: int
        training_mode: int
        transB: int
        A: SSAValue
        B: SSAValue
        absmax: SSAValue
    class MatMulFpQ4(OnnxOp):
        blk_quant_type: int
        A: SSAValue
        B: SSAValue
        B_shape: SSAValue
    class MatMulInteger16(OnnxOp):
        A: SSAValue
        B: SSAValue
    class MatMulIntegerToFloat(OnnxOp):
        A: SSAValue
        B: SSAValue
        a_scale: SSAValue
        b_scale: SSAValue
        a_zero_point: SSAValue | None
        b_zero_point: SSAValue | None
        bias: SSAValue | None
    class MatMulNBits(OnnxOp):
        K: int
        N: int
        accuracy_level: int
        bits: int
        block_size: int
        weight_prepacked: int
        A: SSAValue
        B: SSAValue
        scales: SSAValue
        zero_points: SSAValue | None
        g_idx: SSAValue | None
        bias: SSAValue | None
    class MatMulNBitsMlp(OnnxOp):
        K: int
        N: int
        accuracy_level: int
        activation: str
        bits: int
        block_size: int
        epsilon: float
        A: SSAValue
        skip: SSAValue | None
        norm_scale: SSAValue | None
        gate_B: SSAValue
        gate_scales: SSAValue
        gate_bias: SSAValue | None
        up_B: SSAValue
        up_scales: SSAValue
        up_bias: SSAValue | None
    class MatMulNBitsQLoRA(OnnxOp):
        K: int
        N: int
        accuracy_level: int
        bits: int
        block_size: int
        lora_bits: int
        lora_block_size: int
        X: SSAValue
        W: SSAValue
        scales: SSAValue
        lora_A: SSAValue
        lora_A_scales: SSAValue
        lora_B: SSAValue
        lora_B_scales: SSAValue
    class MatMulNBitsQkv(OnnxOp):
        K: int
        Nkv: int
        Nq: int
        accuracy_level: int
        bits: int
        block_size: int
        epsilon: float
        A: SSAValue
        skip: SSAValue | None
        norm_scale: SSAValue
        q_B: SSAValue
        q_scales: SSAValue
        q_bias: SSAValue | None
        k_B: SSAValue
        k_scales: SSAValue
        k_bias: SSAValue | None
        v_B: SSAValue
        v_scales: SSAValue
        v_bias: SSAValue | None
    class MatMulPacked(OnnxOp):
        K: int
        N: int
        activation_type: str
        packed_type: int
        A: SSAValue
        B: SSAValue
        global_scale: SSAValue | None
    class MaxpoolWithMask(OnnxOp):
        auto_pad: str
        kernel_shape: list[int] | None
        pads: list[int] | None
        storage_order: int
        strides: list[int] | None
        X: SSAValue
        M: SSAValue
    class MoE(OnnxOp):
        activation_alpha: float
        activation_beta: float
        activation_type: str
        k: int
        normalize_routing_weights: int
        swiglu_fusion: int
        swiglu_limit: float | None
        swiglu_limit_after_activation: int
        use_sparse_mixer: int
        input: SSAValue
        router_probs: SSAValue
        fc1_experts_weights: SSAValue
        fc1_experts_bias: SSAValue | None
        fc2_experts_weights: SSAValue
        fc2_experts_bias: SSAValue | None
        fc3_experts_weights: SSAValue | None
        fc3_experts_bias: SSAValue | None
    class MoEGroupRouter(OnnxOp):
        group_topk: int
        n_group: int
        router_sentinel: float
        top_k: int
        topk_group: int
        logits: SSAValue
        expert_bias: SSAValue
        projection_weight: SSAValue | None
    class MoEPacked(OnnxOp):
        activation_type: str
        down_type: int
        gate_type: int
        k: int
        normalize_routing_weights: int
        routed_scaling_factor: float
        routing_epsilon: float
        up_type: int
        input: SSAValue
        router_probs: SSAValue
        gate_experts_weights: SSAValue
        up_experts_weights: SSAValue | None
        down_experts_weights: SSAValue
        router_weights: SSAValue | None
    class MulInteger(OnnxOp):
        A: SSAValue
        A_zero_point: SSAValue | None
        B: SSAValue
        B_zero_point: SSAValue | None
    class MultiHeadAttention(OnnxOp):
        mask_filter_value: float | None
        num_heads: int
        scale: float | None
        unidirectional: int
        query: SSAValue
        key: SSAValue | None
        value: SSAValue | None
        bias: SSAValue | None
        key_padding_mask: SSAValue | None
        attention_bias: SSAValue | None
        past_key: SSAValue | None
        past_value: SSAValue | None
        past_sequence_length: SSAValue | None
        cache_indirection: SSAValue | None
    class MurmurHash3(OnnxOp):
        positive: int
        seed: int
        X: SSAValue
    class NGramHashMapping(OnnxOp):
        max_ngram_size: int
        n_head_per_ngram: int
        pad_id: int
        reset_on_eos: int
        input_ids: SSAValue
        multipliers: SSAValue
        vocab_sizes: SSAValue
        past_ids: SSAValue | None
        head_offsets: SSAValue | None
        eos_token_id: SSAValue | None
        segment_ids: SSAValue | None
    class NGramRepeatBlock(OnnxOp):
        ngram_size: int
        input_ids: SSAValue
        scores: SSAValue
    class NhwcConv(OnnxOp):
        auto_pad: str
        dilations: list[int] | None
        group: int
        kernel_shape: list[int] | None
        pads: list[int] | None
        strides: list[int] | None
        X: SSAValue
        W: SSAValue
        B: SSAValue | None
    class NhwcFusedConv(OnnxOp):
        activation: str | None
        activation_params: list[float] | None
        auto_pad: str
        dilations: list[int] | None
        group: int
        kernel_shape: list[int] | None
        pads: list[int] | None
        strides: list[int] | None
        X: SSAValue
        W: SSAValue
        B: SSAValue | None
        Z: SSAValue | None
    class NhwcMaxPool(OnnxOp):
        auto_pad: str
        ceil_mode: int
        dilations: list[int] | None
        kernel_shape: list[int]
        pads: list[int] | None
        strides: list[int] | None
        x: SSAValue
    class PackedAttention(OnnxOp):
        num_heads: int
        qkv_hidden_sizes: list[int] | None
        scale: float | None
        input: SSAValue
        weights: SSAValue
        bias: SSAValue
        token_offset: SSAValue
        cumulative_sequence_length: SSAValue
        attention_bias: SSAValue | None
    class PackedMultiHeadAttention(OnnxOp):
        mask_filter_value: float | None
        num_heads: int
        scale: float | None
        query: SSAValue
        key: SSAValue | None
        value: SSAValue | None
        bias: SSAValue | None
        token_offset: SSAValue
        cumulative_sequence_length: SSAValue
        attention_bias: SSAValue | None
    class PackedSparseAttentionIndexer(OnnxOp):
        compress_ratio: int
        epsilon: float
        head_weight_scale: float | None
        index_topk: int | None
        indexshare_state_policy: str
        max_output_entries: int
        policy_mode: str
        scale: float | None
        state_capacity: int
        state_update_capacity: int
        token_budget: int | None
        query: SSAValue
        key: SSAValue | None
        query_norm_weight: SSAValue
        key_norm_weight: SSAValue
        cos_cache: SSAValue
        sin_cache: SSAValue
        cumulative_sequence_lengths: SSAValue
        past_sequence_lengths: SSAValue
        gate: SSAValue | None
        position_bias: SSAValue | None
        head_weights: SSAValue | None
        position_ids: SSAValue | None
        past_key_state: SSAValue
        past_kv_buffer: SSAValue
        past_gate_buffer: SSAValue | None
        past_state_lengths: SSAValue
        state_update_capture_count: SSAValue | None
        state_update_active: SSAValue | None
        indexshare_mode: SSAValue | None
        merged_indices: SSAValue | None
        merged_counts: SSAValue | None
        merged_status: SSAValue | None
    class PackedSparseAttentionIndexerMerge(OnnxOp):
        max_output_entries: int
        policy_mode: str
        base_indices: SSAValue
        base_counts: SSAValue
        base_row_indices: SSAValue
        range_starts: SSAValue | None
        range_ends: SSAValue | None
        additional_indices: SSAValue | None
        additional_counts: SSAValue | None
    class Pad(OnnxOp):
        mode: str
        data: SSAValue
        pads: SSAValue
        value: SSAValue | None
    class PagedAttention(OnnxOp):
        do_rotary: int | None
        is_causal: int
        k_cache_dtype: str
        k_quant_type: str
        kv_cache_layout: str
        kv_num_heads: int
        local_window_size: int
        num_heads: int
        qk_norm_epsilon: float | None
        rotary_interleaved: int | None
        rotary_offset: int | None
        scale: float | None
        softcap: float | None
        v_cache_dtype: str
        v_head_size: int | None
        v_quant_type: str
        query: SSAValue
        key: SSAValue | None
        value: SSAValue | None
        key_cache: SSAValue
        value_cache: SSAValue | None
        cumulative_sequence_length: SSAValue
        past_seqlens: SSAValue
        block_table: SSAValue
        cos_cache: SSAValue | None
        sin_cache: SSAValue | None
        slot_mapping: SSAValue | None
        head_sink: SSAValue | None
        q_norm_weight: SSAValue | None
        k_norm_weight: SSAValue | None
        k_scale: SSAValue | None
        v_scale: SSAValue | None
        attention_metadata: SSAValue | None
    class QAttention(OnnxOp):
        do_rotary: int | None
        mask_filter_value: float | None
        num_heads: int
        past_present_share_buffer: int | None
        scale: float | None
        unidirectional: int
        input: SSAValue
        weight: SSAValue
        bias: SSAValue
        input_scale: SSAValue
        weight_scale: SSAValue
        mask_index: SSAValue | None
        input_zero_point: SSAValue | None
        weight_zero_point: SSAValue | None
        past: SSAValue | None
    class QEmbedLayerNormalization(OnnxOp):
        epsilon: float
        input_ids: SSAValue
        segment_ids: SSAValue | None
        word_embedding_quant: SSAValue
        position_embedding_quant: SSAValue
        segment_embedding: SSAValue | None
        gamma_quant: SSAValue
        beta_quant: SSAValue
        mask: SSAValue | None
        word_embedding_scale: SSAValue
        position_embedding_scale: SSAValue
        segment_embedding_scale: SSAValue | None
        gamma_scale: SSAValue
        beta_scale: SSAValue
        word_embedding_zero_point: SSAValue
        position_embedding_zero_point: SSAValue
        segment_embedding_zero_point: SSAValue | None
        gamma_zero_point: SSAValue
        beta_zero_point: SSAValue
    class QGemm(OnnxOp):
        alpha: float
        transA: int
        transB: int
        A: SSAValue
        a_scale: SSAValue
        a_zero_point: SSAValue
        B: SSAValue
        b_scale: SSAValue
        b_zero_point: SSAValue
        C: SSAValue | None
        y_scale: SSAValue | None
        y_zero_point: SSAValue | None
    class QLinearAdd(OnnxOp):
        A: SSAValue
        A_scale: SSAValue
        A_zero_point: SSAValue | None
        B: SSAValue
        B_scale: SSAValue
        B_zero_point: SSAValue | None
        C_scale: SSAValue
        C_zero_point: SSAValue | None
    class QLinearAveragePool(OnnxOp):
        auto_pad: str
        ceil_mode: int
        channels_last: int
        count_include_pad: int
        kernel_shape: list[int]
        pads: list[int] | None
        strides: list[int] | None
        X: SSAValue
        x_scale: SSAValue
        x_zero_point: SSAValue | None
        y_scale: SSAValue
        y_zero_point: SSAValue | None
    class QLinearConcat(OnnxOp):
        axis: int
        Y_scale: SSAValue
        Y_zero_point: SSAValue
    class QLinearConv(OnnxOp):
        auto_pad: str
        channels_last: int
        dilations: list[int] | None
        group: int
        kernel_shape: list[int] | None
        pads: list[int] | None
        strides: list[int] | None
        x: SSAValue
        x_scale: SSAValue
        x_zero_point: SSAValue
        w: SSAValue
        w_scale: SSAValue
        w_zero_point: SSAValue
        y_scale: SSAValue
        y_zero_point: SSAValue
        B: SSAValue | None
    class QLinearGlobalAveragePool(OnnxOp):
        channels_last: int
        X: SSAValue
        x_scale: SSAValue
        x_zero_point: SSAValue
        y_scale: SSAValue
        y_zero_point: SSAValue
    class QLinearLeakyRelu(OnnxOp):
        alpha: float
        X: SSAValue
        X_scale: SSAValue
        X_zero_point: SSAValue | None
        Y_scale: SSAValue
        Y_zero_point: SSAValue | None
    class QLinearMul(OnnxOp):
        A: SSAValue
        A_scale: SSAValue
        A_zero_point: SSAValue | None
        B: SSAValue
        B_scale: SSAValue
        B_zero_point: SSAValue | None
        C_scale: SSAValue
        C_zero_point: SSAValue | None
    class QLinearReduceMean(OnnxOp):
        axes: list[int]
        keepdims: int
        data: SSAValue
        data_scale: SSAValue
        data_zero_point: SSAValue | None
        reduced_scale: SSAValue
        reduced_zero_point: SSAValue | None
    class QLinearSigmoid(OnnxOp):
        X: SSAValue
        X_scale: SSAValue
        X_zero_point: SSAValue | None
        Y_scale: SSAValue
        Y_zero_point: SSAValue | None
    class QLinearSoftmax(OnnxOp):
        axis: int
        opset: int
        X: SSAValue
        X_scale: SSAValue
        x_zero_point: SSAValue | None
        y_scale: SSAValue
        y_zero_point: SSAValue
    class QLinearWhere(OnnxOp):
        condition: SSAValue
        X: SSAValue
        x_scale: SSAValue
        x_zero_point: SSAValue
        Y: SSAValue
        y_scale: SSAValue
        y_zero_point: SSAValue
        z_scale: SSAValue
        z_zero_point: SSAValue
    class QMoE(OnnxOp):
        accuracy_level: int
        activation_alpha: float
        activation_beta: float
        activation_type: str
        block_size: int | None
        expert_weight_bits: int
        fc1_expert_weight_bits: int | None
        fc2_expert_weight_bits: int | None
        fc3_expert_weight_bits: int | None
        k: int
        normalize_routing_weights: int
        quant_type: str
        swiglu_fusion: int
        swiglu_limit: float | None
        swiglu_limit_after_activation: int
        use_sparse_mixer: int
        weights_prepacked: int
        input: SSAValue
        router_probs: SSAValue
        fc1_experts_weights: SSAValue
        fc1_scales: SSAValue | None
        fc1_experts_bias: SSAValue | None
        fc2_experts_weights: SSAValue
        fc2_scales: SSAValue | None
        fc2_experts_bias: SSAValue | None
        fc3_experts_weights: SSAValue | None
        fc3_scales: SSAValue | None
        fc3_experts_bias: SSAValue | None
        fc1_zero_points: SSAValue | None
        fc2_zero_points: SSAValue | None
        fc3_zero_points: SSAValue | None
        router_weights: SSAValue | None
        fc1_global_scale: SSAValue | None
        fc2_global_scale: SSAValue | None
        fc1_act_scale: SSAValue | None
        fc2_act_scale: SSAValue | None
        fc1_act_block_scale: SSAValue | None
        fc2_act_block_scale: SSAValue | None
    class QOrderedAttention(OnnxOp):
        num_heads: int
        order_input: int
        order_output: int
        order_weight: int
        qkv_hidden_sizes: list[int] | None
        unidirectional: int
        input: SSAValue
        scale_input: SSAValue
        scale_Q_gemm: SSAValue
        scale_K_gemm: SSAValue
        scale_V_gemm: SSAValue
        Q_weight: SSAValue
        K_weight: SSAValue
        V_weight: SSAValue
        scale_Q_weight: SSAValue
        scale_K_weight: SSAValue
        scale_V_weight: SSAValue
        Q_bias: SSAValue
        K_bias: SSAValue
        V_bias: SSAValue
        scale_QKT_gemm: SSAValue | None
        scale_QKT_softmax: SSAValue | None
        scale_values_gemm: SSAValue
        mask_index: SSAValue | None
        past: SSAValue | None
        attention_bias: SSAValue | None
    class QOrderedGelu(OnnxOp):
        order_X: int | None
        order_Y: int | None
        X: SSAValue
        scale_X: SSAValue
        scale_Y: SSAValue
    class QOrderedLayerNormalization(OnnxOp):
        axis: int
        epsilon: float
        order_X: int
        order_Y: int
        X: SSAValue
        scale_X: SSAValue
        scale: SSAValue
        B: SSAValue | None
        scale_Y: SSAValue
    class QOrderedLongformerAttention(OnnxOp):
        num_heads: int
        order_global_weight: int
        order_input: int
        order_output: int
        order_weight: int
        window: int
        input: SSAValue
        scale_input: SSAValue
        weight: SSAValue
        scale_weight: SSAValue
        bias: SSAValue
        scale_bias: SSAValue
        scale_qkv_gemm: SSAValue
        mask: SSAValue
        global_weight: SSAValue
        scale_global_weight: SSAValue
        global_bias: SSAValue
        scale_global_gemm: SSAValue
        scale_output: SSAValue
    class QOrderedMatMul(OnnxOp):
        order_A: int
        order_B: int
        order_Y: int
        A: SSAValue
        scale_A: SSAValue
        B: SSAValue
        scale_B: SSAValue
        scale_Y: SSAValue
        bias: SSAValue | None
        C: SSAValue | None
        scale_C: SSAValue | None
    class QuantizeBFP(OnnxOp):
        bfp_type: int
        block_dim: int
        x: SSAValue
    class QuantizeLinear(OnnxOp):
        axis: int | None
        x: SSAValue
        y_scale: SSAValue
        y_zero_point: SSAValue | None
    class QuantizeWithOrder(OnnxOp):
        order_input: int
        order_output: int
        input: SSAValue
        scale_input: SSAValue
    class QuickGelu(OnnxOp):
        alpha: float
        X: SSAValue
    class RMSNormRotary(OnnxOp):
        epsilon: float
        flatten_batch: int
        input_start: int
        input_width: int
        output_fp16: int
        rotary_embedding_dim: int
        use_fp32_arithmetic: int
        X: SSAValue
        scale: SSAValue
        position_ids: SSAValue
        cosine: SSAValue
        sine: SSAValue
        prefill_numerics: SSAValue | None
    class Range(OnnxOp):
        start: SSAValue
        limit: SSAValue
        delta: SSAValue | None
    class ReduceSumInteger(OnnxOp):
        axes: list[int]
        keepdims: int
        data: SSAValue
    class RelativePositionBias(OnnxOp):
        is_bidirectional: int
        max_distance: int
        bias_table: SSAValue
        query_length: SSAValue
        key_length: SSAValue
    class RemovePadding(OnnxOp):
        input: SSAValue
        sequence_token_count: SSAValue
    class RestorePadding(OnnxOp):
        input: SSAValue
        token_offset: SSAValue
    class Rfft(OnnxOp):
        normalized: int
        onesided: int
        signal_ndim: int
        X: SSAValue
    class RotaryEmbedding(OnnxOp):
        interleaved: int | None
        is_packed_batching: int | None
        num_heads: int | None
        rotary_embedding_dim: int | None
        scale: float | None
        input: SSAValue
        position_ids: SSAValue
        cos_cache: SSAValue
        sin_cache: SSAValue
    class RouterGateUpProj(OnnxOp):
        activation: str
        activation_alpha: float
        activation_beta: float
        limit: float
        router_size: int
        X: SSAValue
        W: SSAValue
    class SampleOp(OnnxOp):
        X: SSAValue
    class Sampling(OnnxOp):
        custom: int
        decoder_start_token_id: int
        eos_token_id: int
        filter_value: float
        min_tokens_to_keep: int
        model_type: int
        no_repeat_ngram_size: int
        pad_token_id: int
        presence_penalty: float
        temperature: float
        top_p: float
        vocab_size: int
        input_ids: SSAValue
        max_length: SSAValue
        min_length: SSAValue | None
        repetition_penalty: SSAValue | None
        vocab_mask: SSAValue | None
        prefix_vocab_mask: SSAValue | None
        attention_mask: SSAValue | None
        presence_mask: SSAValue | None
        seed: SSAValue | None
    class ScaledSiLU(OnnxOp):
        alpha: float
        X: SSAValue
        scale: SSAValue | None
    class SkipGroupNorm(OnnxOp):
        activation: int
        channels_last: int
        epsilon: float
        groups: int
        X: SSAValue
        gamma: SSAValue
        beta: SSAValue
        skip: SSAValue
        bias: SSAValue | None
    class SkipLayerNormalization(OnnxOp):
        epsilon: float
        input: SSAValue
        skip: SSAValue
        gamma: SSAValue
        beta: SSAValue | None
        bias: SSAValue | None
    class SkipSimplifiedLayerNormalization(OnnxOp):
        epsilon: float
        input: SSAValue
        skip: SSAValue
        gamma: SSAValue
        bias: SSAValue | None
    class Snpe(OnnxOp):
        DLC: str
        notes: str | None
        snpe_version: str | None
        target_device: str | None
    class SparseAttention(OnnxOp):
        do_rotary: int | None
        kv_num_heads: int
        num_heads: int
        rotary_interleaved: int | None
        scale: float | None
        sparse_block_size: int
        query: SSAValue
        key: SSAValue | None
        value: SSAValue | None
        past_key: SSAValue
        past_value: SSAValue
        block_row_indices: SSAValue
        block_col_indices: SSAValue
        total_sequence_length: SSAValue
        key_total_sequence_lengths: SSAValue
        cos_cache: SSAValue | None
        sin_cache: SSAValue | None
    class SparseAttentionIndexer(OnnxOp):
        compress_ratio: int
        epsilon: float
        head_weight_scale: float | None
        index_topk: int | None
        policy_mode: str
        scale: float | None
        token_budget: int | None
        query: SSAValue
        key: SSAValue | None
        query_norm_weight: SSAValue
        key_norm_weight: SSAValue
        cos_cache: SSAValue
        sin_cache: SSAValue
        mask: SSAValue | None
        past_key: SSAValue
        gate: SSAValue | None
        position_bias: SSAValue | None
        head_weights: SSAValue | None
        position_ids: SSAValue | None
        past_sequence_length: SSAValue | None
        past_proj_buffer: SSAValue | None
    class SparsePagedAttention(OnnxOp):
        attention_mode: str
        auxiliary_cache_layout: str
        auxiliary_kv_shared: int
        do_rotary: int
        is_causal: int
        k_quant_type: str
        kv_num_heads: int
        local_window_size: int
        num_heads: int
        qk_norm_epsilon: float
        rotary_interleaved: int
        rotary_offset: int
        scale: float | None
        selected_kv_source: str
        softcap: float | None
        v_quant_type: str
        query: SSAValue
        key: SSAValue | None
        value: SSAValue | None
        key_cache: SSAValue
        value_cache: SSAValue
        cumulative_sequence_length: SSAValue
        past_seqlens: SSAValue
        block_table: SSAValue
        slot_mapping: SSAValue | None
        selected_indices: SSAValue
        selected_counts: SSAValue
        auxiliary_key: SSAValue | None
        auxiliary_value: SSAValue | None
        auxiliary_lengths: SSAValue | None
        cos_cache: SSAValue | None
        sin_cache: SSAValue | None
        head_sink: SSAValue | None
        q_norm_weight: SSAValue | None
        k_norm_weight: SSAValue | None
        k_scale: SSAValue | None
        v_scale: SSAValue | None
        attention_metadata: SSAValue | None
    class SparseToDenseMatMul(OnnxOp):
        alpha: float
        transA: int
        transB: int
        A: SSAValue
        B: SSAValue
    class SpeculativePrefixCommit(OnnxOp):
        head_rows: int
        next_tokens: SSAValue
        input_ids: SSAValue
        status: SSAValue
        ctl: SSAValue
        ctx_commit: SSAValue
        prefixes: SSAValue
        ptrs: SSAValue
    class SwiGLU(OnnxOp):
        activation_alpha: float
        activation_beta: float
        limit: float
        round_activation: int
        gate: SSAValue
        up: SSAValue | None
    class Tokenizer(OnnxOp):
        mark: int
        mincharnum: int
        pad_value: str
        separators: list[str] | None
        tokenexp: str | None
        X: SSAValue
    class TorchEmbedding(OnnxOp):
        weight: SSAValue
        indices: SSAValue
        padding_idx: SSAValue | None
        scale_grad_by_freq: SSAValue | None
    class TransposeMatMul(OnnxOp):
        alpha: float
        transA: int
        transB: int
        A: SSAValue
        B: SSAValue
    class Trilu(OnnxOp):
        upper: int
        X: SSAValue
        k: SSAValue | None
    class UnfoldTensor(OnnxOp):
        dim: int
        size: int
        step: int
        input: SSAValue
    class Unique(OnnxOp):
        x: SSAValue
    class VarlenCausalConvWithState(OnnxOp):
        activation: str
        delta_offset: int
        dilation: int
        group_size: int
        state_update_capacity: int
        input: SSAValue
        weight: SSAValue
        cumulative_sequence_length: SSAValue
        bias: SSAValue | None
        initial_state: SSAValue
        capture_count: SSAValue | None
        kernel_delta: SSAValue | None
        previous_mask: SSAValue | None
    class VarlenNGramHashMapping(OnnxOp):
        max_ngram_size: int
        n_head_per_ngram: int
        pad_id: int
        reset_on_eos: int
        state_update_capacity: int
        input_ids: SSAValue
        multipliers: SSAValue
        vocab_sizes: SSAValue
        cumulative_sequence_length: SSAValue
        past_ids: SSAValue | None
        head_offsets: SSAValue | None
        eos_token_id: SSAValue | None
        segment_ids: SSAValue | None
        past_segment_ids: SSAValue | None
        capture_count: SSAValue | None
    class WhisperBeamSearch(OnnxOp):
        beginning_timestamp_token_id: int | None
        decoder_output_cross_qk: int | None
        decoder_start_token_id: int
        early_stopping: int
        eos_token_id: int
        model_type: int
        no_repeat_ngram_size: int
        no_speech_token_id: int | None
        no_timestamps_token_id: int | None
        pad_token_id: int
        start_of_lm_token_id: int | None
        transcribe_token_id: int | None
        translate_token_id: int | None
        vocab_size: int
        input_ids: SSAValue
        max_length: SSAValue
        min_length: SSAValue | None
        num_beams: SSAValue
        num_return_sequences: SSAValue
        length_penalty: SSAValue | None
        repetition_penalty: SSAValue | None
        vocab_mask: SSAValue | None
        prefix_vocab_mask: SSAValue | None
        attention_mask: SSAValue | None
        decoder_input_ids: SSAValue | None
        logits_processor: SSAValue | None
        cross_qk_layer_head: SSAValue | None
        extra_decoding_ids: SSAValue | None
        temperature: SSAValue | None
    class WordConvEmbedding(OnnxOp):
        char_embedding_size: int | None
        conv_window_size: int | None
        embedding_size: int | None
        Sequence: SSAValue
        W: SSAValue
        B: SSAValue
        C: SSAValue
