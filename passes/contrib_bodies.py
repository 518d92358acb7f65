"""What operators compute that ONNX does not define by a function, as functions in ONNX's text form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import onnx
from onnx import parser

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.dialects.onnx.types import element_of
from gimlet.passes.contrib_attention import group_query_attention, multi_head_attention, projected_attention
from gimlet.passes.contrib_quantized import OLDEST_QUANTIZED, QUANTIZED
from gimlet.passes.function_lines import Unwritten, has, integers, number, rotated
from gimlet.passes.plain_bodies import Known, plain_lines

OLDEST_OPSET = 17
"""LayerNormalization is in it, and everything else means there what it means today but for ReduceMean's axes."""
_AXES_ARE_AN_INPUT = 18
_FLOAT = 1


def written_body(op: OnnxOp, opset: int, known: Known) -> onnx.FunctionProto | None:
    """The function of ONNX's simpler operators at `opset` that computes what `op` does.

    None for another operator, an option of it that is not written out, or a shape that the function needs and that is
    not known.
    """
    if op.domain:
        oldest = OLDEST_QUANTIZED if op.op_type in QUANTIZED else OLDEST_OPSET
        write = BODIES.get(op.op_type) if op.domain == "com.microsoft" and opset >= oldest else None
        lines = None if write is None else write(op, opset)
    else:
        lines = plain_lines(op, opset, known)
    if lines is None or isinstance(lines, Unwritten):
        return None
    inputs = ", ".join(f"x{index}" if value is not None else f"absent{index}" for index, value in enumerate(op.inputs))
    outputs = ", ".join(f"y{index}" for index in range(len(op.outputs)))
    text = f'<domain: "body", opset_import: ["": {opset}]> {op.op_type} ({inputs}) => ({outputs}) {{'
    # A function gives every result; nothing reads those that the operation leaves out.
    unread = [f"y{index} = Identity (y0)" for index, value in enumerate(op.outputs) if index and value is None]
    return parser.parse_function("\n".join([text, *lines, *unread, "}"]))


def _quick_gelu(op: OnnxOp, opset: int) -> list[str]:
    del opset
    inner = [*number("alpha", op.attr("alpha", 1.702), "x0"), "inner = Mul (alpha, x0)", "gate = Sigmoid (inner)"]
    return [*inner, "y0 = Mul (x0, gate)"]


def _erf_gelu(op: OnnxOp, opset: int) -> list[str]:
    """Gelu, and BiasGelu with what is added before."""
    del opset
    return [
        "x = Add (x0, x1)" if has(op, 1) else "x = Identity (x0)",
        *number("root", math.sqrt(2), "x0"),
        *number("half", 0.5, "x0"),
        *number("one", 1.0, "x0"),
        "inner = Div (x, root)",
        "curve = Erf (inner)",
        "sum = Add (curve, one)",
        "scaled = Mul (x, sum)",
        "y0 = Mul (scaled, half)",
    ]


def _tanh_gelu(op: OnnxOp, opset: int) -> list[str]:
    del opset
    return [
        "x = Add (x0, x1)" if has(op, 1) else "x = Identity (x0)",
        *number("root", math.sqrt(2 / math.pi), "x0"),
        *number("factor", 0.044715, "x0"),
        *number("half", 0.5, "x0"),
        *number("one", 1.0, "x0"),
        "square = Mul (x, x)",
        "cube = Mul (square, x)",
        "rest = Mul (cube, factor)",
        "cubic = Add (x, rest)",
        "inner = Mul (cubic, root)",
        "curve = Tanh (inner)",
        "sum = Add (curve, one)",
        "scaled = Mul (x, sum)",
        "y0 = Mul (scaled, half)",
    ]


def _fused_matmul(op: OnnxOp, opset: int) -> list[str] | None:
    del opset
    lines: list[str] = []
    if op.attr("transBatchA", 0) or op.attr("transBatchB", 0):
        return None
    for index, name in enumerate(("transA", "transB")):
        value = op.input_at(index)
        dims = dims_of(value) if value is not None else None
        if not op.attr(name, 0) or (dims is not None and len(dims) == 1):
            lines.append(f"t{index} = Identity (x{index})")
        elif dims is None:
            return None
        else:
            perm = [*range(len(dims) - 2), len(dims) - 1, len(dims) - 2]
            lines.append(f"t{index} = Transpose <perm: ints = {perm}> (x{index})")
    return [*lines, "p = MatMul (t0, t1)", *number("alpha", op.attr("alpha", 1.0), "x0"), "y0 = Mul (p, alpha)"]


def _fused_gemm(op: OnnxOp, opset: int) -> list[str] | None:
    """Gemm and an activation behind it."""
    del opset
    names = ("activation_alpha", "activation_beta")
    activation = _activation(str(op.attr("activation", "")), [op.attr(name) for name in names])
    if activation is None:
        return None
    how = [f"{name}: float = {float(op.attr(name, 1.0))!r}" for name in ("alpha", "beta")]
    how += [f"{name}: int = {int(op.attr(name, 0))}" for name in ("transA", "transB")]
    return [f"sum = Gemm <{', '.join(how)}> (x0, x1{', x2' if has(op, 2) else ''})", f"y0 = {activation} (sum)"]


def _fused_conv(op: OnnxOp, opset: int) -> list[str] | None:
    """A convolution, what is added to it, and an activation behind both."""
    del opset
    name, given = op.attr("activation"), list(op.attr("activation_params") or ())
    activation = "Identity" if not name else _activation(str(name), given)
    if activation is None:
        return None
    how = [f"{each}: ints = {list(value)}" for each in _WINDOW if (value := op.attr(each))]
    how += [f"group: int = {int(op.attr('group', 1))}", f'auto_pad: string = "{op.attr("auto_pad", "NOTSET")}"']
    lines = [f"made = Conv <{', '.join(how)}> (x0, x1{', x2' if has(op, 2) else ''})"]
    lines.append("sum = Add (made, x3)" if has(op, 3) else "sum = Identity (made)")
    if name != "Clip":
        return [*lines, f"y0 = {activation} (sum)"]
    limits = [line for limit, value in zip(("low", "high"), given, strict=True) for line in number(limit, value, "x0")]
    return [*lines, *limits, "y0 = Clip (sum, low, high)"]


def _activation(name: str, given: Sequence[float | None]) -> str | None:
    """An operator with its attributes, of which as many are given as it has; None for one that is not written out."""
    attributes = _ACTIVATIONS.get(name)
    if attributes is None or any(value is None for value in given[: len(attributes)]) or len(given) < len(attributes):
        return None
    pairs = zip(attributes, given, strict=False)
    text = ", ".join(f"{each}: float = {float(value)!r}" for each, value in pairs if value is not None)
    return f"{name} <{text}>" if text else name


def _skip_layer_norm(op: OnnxOp, opset: int) -> list[str] | None:
    """The sum of an input, a residual and a bias, and its normalisation. The statistics are given for training only."""
    del opset
    if any(value is not None for value in op.outputs[1:3]):
        return None
    lines = ["added = Add (x0, x1)", "sum = Add (added, x4)" if has(op, 4) else "sum = Identity (added)"]
    epsilon = f"<axis: int = -1, epsilon: float = {op.attr('epsilon', 1e-12)!r}>"
    lines.append(f"y0 = LayerNormalization {epsilon} (sum, x2{', x3' if has(op, 3) else ''})")
    return [*lines, *_sum_output(op)]


def _skip_rms_norm(op: OnnxOp, opset: int) -> list[str] | None:
    if any(value is not None for value in op.outputs[1:3]):
        return None
    element = element_of(op.results[0].type)
    if element is None:
        return None
    mean = "mean = ReduceMean <axes: ints = [-1]> (square)"
    return [
        "added = Add (x0, x1)",
        "sum = Add (added, x3)" if has(op, 3) else "sum = Identity (added)",
        f"wide = Cast <to: int = {_FLOAT}> (sum)",
        "square = Mul (wide, wide)",
        *([integers("last", -1), "mean = ReduceMean (square, last)"] if opset >= _AXES_ARE_AN_INPUT else [mean]),
        *number("epsilon", op.attr("epsilon", 1e-12), "mean"),
        "shifted = Add (mean, epsilon)",
        "root = Sqrt (shifted)",
        "quotient = Div (wide, root)",
        "narrow = CastLike (quotient, x0)",
        "y0 = Mul (narrow, x2)",
        *_sum_output(op),
    ]


def _sum_output(op: OnnxOp) -> list[str]:
    return ["y3 = Identity (sum)"] if len(op.outputs) > 3 and op.outputs[3] is not None else []


def _rotary(op: OnnxOp, opset: int) -> list[str] | None:
    """x [batch, positions, heads·size] or [batch, heads, positions, size], caches [most positions, size / 2]."""
    del opset
    x, ids, cos = (op.input_at(index) for index in range(3))
    dims, places, cache = (None if value is None else dims_of(value) for value in (x, ids, cos))
    if not dims or places is None or not cache or len(places) != 2 or not cache[-1].is_constant:
        return None
    half, heads = cache[-1].as_int(), int(op.attr("num_heads", 0))
    if op.attr("scale", 1.0) != 1.0 or op.attr("is_packed_batching", 0) or not dims[-1].is_constant:
        return None
    lines = ["cos = Gather (x2, x1)", "sin = Gather (x3, x1)", integers("axis", 2 if len(dims) == 3 else 1)]
    lines += ["cos4 = Unsqueeze (cos, axis)", "sin4 = Unsqueeze (sin, axis)"]
    size = dims[-1].as_int()
    if len(dims) == 3:
        size = size // heads if heads else 2 * half
        lines += [integers("split", 0, 0, -1, size), "x = Reshape (x0, split)"]
    else:
        lines.append("x = Identity (x0)")
    return [
        *lines,
        *rotated(half, size, pairs=bool(op.attr("interleaved", 0))),
        "shape = Shape (x0)",
        "y0 = Reshape (turned, shape)",
    ]


_WINDOW = ("kernel_shape", "strides", "pads", "dilations")
_ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "Clip": (),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}
"""Activations that ONNX Runtime's optimizer puts behind a product, and their attributes in the order of its own."""

BODIES: Mapping[str, Callable[[OnnxOp, int], list[str] | None]] = {
    **QUANTIZED,
    "Attention": projected_attention,
    "BiasGelu": _erf_gelu,
    "FastGelu": _tanh_gelu,
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "Gelu": _erf_gelu,
    "GroupQueryAttention": group_query_attention,
    "MultiHeadAttention": multi_head_attention,
    "QuickGelu": _quick_gelu,
    "RotaryEmbedding": _rotary,
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_rms_norm,
}
