"""What com.microsoft's operators on 8-bit integers compute, as lines of functions of ONNX's operators, in text.

Products are MatMulInteger's, whose sums are exact. All else is in float32, in the order of ONNX Runtime's kernels for
x86: some add a zero point before they round and some after, which is a step where a result is between two. What its
order does not say is a step of such a result as well: QLinearAdd does not round its products on a processor with fused
multiply-add, and sigmoids, powers and averages of floats are as exact as a device's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.dialects.onnx.types import element_of
from gimlet.passes.contrib_attention import quantized_attention
from gimlet.passes.function_lines import has
from gimlet.runtime.expr import Expr

_FLOAT = 1
_AXES_ARE_AN_INPUT = {"ReduceSum": 13, "ReduceMax": 18}
_SOFTMAX_OF_AN_AXIS = 13


def _counted(name: str, op: OnnxOp, value: int, zero: int) -> list[str]:
    """`name`: the integers of an input less their zero point, as floats."""
    if not has(op, zero):
        return [f"{name} = Cast <to: int = {_FLOAT}> (x{value})"]
    lines = [f"{name}_given = Cast <to: int = {_FLOAT}> (x{value})", _point(f"{name}_zero", zero)]
    return [*lines, f"{name} = Sub ({name}_given, {name}_zero)"]


def _point(name: str, zero: int) -> str:
    return f"{name} = Cast <to: int = {_FLOAT}> (x{zero})"


def _as_floats(name: str, op: OnnxOp, first: int) -> str:
    """`name`: what an input is with its scale and zero point, which are the two behind it."""
    return f"{name} = DequantizeLinear (x{first}, x{first + 1}{f', x{first + 2}' if has(op, first + 2) else ''})"


def _quantized(result: str, source: str, op: OnnxOp, scale: int, value: int = 0) -> list[str]:
    """`result`: floats by a scale and the zero point behind it, in the type of the integers `value`."""
    if has(op, scale + 1):
        return [f"{result} = QuantizeLinear ({source}, x{scale}, x{scale + 1})"]
    return [_no_point(op, value), f"{result} = QuantizeLinear ({source}, x{scale}, no_point)"]


def _no_point(op: OnnxOp, value: int) -> str:
    """`no_point`: the zero point zero, in the type of an input."""
    given = op.input_at(value)
    element = None if given is None else element_of(given.type)
    return f"no_point = Constant <value: tensor = {'uint8' if element is None else element.onnx} {{0}}> ()"


def _number(name: str, value: float) -> str:
    return f"{name} = Constant <value: tensor = float {{{value!r}}}> ()"


def _integers(name: str, *values: int) -> str:
    return f"{name} = Constant <value: tensor = int64[{len(values)}] {{{', '.join(map(str, values))}}}> ()"


def _rounded(source: str, op: OnnxOp, zero: int, value: int = 0) -> list[str]:
    """`y0`: floats in steps of the result, rounded before its zero point is added."""
    lines = [_number("step", 1.0)]
    if has(op, zero):
        return [*lines, f"y0 = QuantizeLinear ({source}, step, x{zero})"]
    return [*lines, _no_point(op, value), f"y0 = QuantizeLinear ({source}, step, no_point)"]


def _moved_and_rounded(source: str, op: OnnxOp, zero: int, value: int = 0) -> list[str]:
    """`y0`: the same, rounded with the zero point in it."""
    lines = [_number("step", 1.0), _no_point(op, value)]
    if has(op, zero):
        lines += [_point("point", zero), f"moved = Add ({source}, point)"]
    return [*lines, f"y0 = QuantizeLinear ({'moved' if has(op, zero) else source}, step, no_point)"]


def _add(op: OnnxOp, opset: int) -> list[str]:
    """a · sa / sc + (b · sb / sc + what the zero points make)."""
    del opset
    lines = ["ac = Div (x1, x6)", "bc = Div (x4, x6)"]
    lines += [f"{name} = Cast <to: int = {_FLOAT}> (x{index})" for name, index in (("a", 0), ("b", 3))]
    for name, zero in (("a", 2), ("b", 5)):
        lines.append(_point(f"{name}_zero", zero) if has(op, zero) else _number(f"{name}_zero", 0.0))
        lines.append(f"{name}_off = Mul ({name}c, {name}_zero)")
    lines.append(_point("c_zero", 7) if has(op, 7) else _number("c_zero", 0.0))
    lines += ["off = Add (a_off, b_off)", "fixed = Sub (c_zero, off)", "b_steps = Mul (b, bc)"]
    lines += ["first = Add (b_steps, fixed)", "a_steps = Mul (a, ac)", "steps = Add (a_steps, first)"]
    return [*lines, _number("step", 1.0), _no_point(op, 0), "y0 = QuantizeLinear (steps, step, no_point)"]


def _mul(op: OnnxOp, opset: int) -> list[str]:
    del opset
    lines = [*_counted("a", op, 0, 2), *_counted("b", op, 3, 5), "product = Mul (a, b)"]
    lines += ["scales = Mul (x1, x4)", "ratio = Div (scales, x6)", "steps = Mul (product, ratio)"]
    return [*lines, *_moved_and_rounded("steps", op, 7)]


def _elementwise(function: Callable[[OnnxOp], str]) -> Callable[[OnnxOp, int], list[str]]:
    def write(op: OnnxOp, opset: int) -> list[str]:
        del opset
        return [_as_floats("x", op, 0), f"y = {function(op)} (x)", *_quantized("y0", "y", op, 3)]

    return write


def _leaky_relu(op: OnnxOp) -> str:
    return f"LeakyRelu <alpha: float = {op.attr('alpha', 0.01)!r}>"


def _where(op: OnnxOp, opset: int) -> list[str]:
    del opset
    lines = [_as_floats("x", op, 1), _as_floats("y", op, 4)]
    lines += [*_quantized("xq", "x", op, 7, 1), *_quantized("yq", "y", op, 7, 1)]
    return [*lines, "y0 = Where (x0, xq, yq)"]


def _concat(op: OnnxOp, opset: int) -> list[str]:
    """The inputs, each by its own scale; what has that of the result stays as it is by rounding."""
    del opset
    lines: list[str] = []
    firsts = range(2, len(op.inputs), 3)
    for first in firsts:
        lines += [_as_floats(f"f{first}", op, first), *_quantized(f"q{first}", f"f{first}", op, 0)]
    names = ", ".join(f"q{first}" for first in firsts)
    return [*lines, f"y0 = Concat <axis: int = {int(op.attr('axis', 1))}> ({names})"]


def _global_average(op: OnnxOp, opset: int) -> list[str] | None:
    """The sum of all positions, which is exact, by a scale that has their number in it."""
    dims = _dims(op, 0)
    if dims is None or len(dims) < 3:
        return None
    last = bool(op.attr("channels_last", 0))
    axes = range(1, len(dims) - 1) if last else range(2, len(dims))
    lines = [*_counted("x", op, 0, 2), *_reduced("sum", "ReduceSum", "x", axes, opset)]
    if all(dims[axis].is_constant for axis in axes):
        size = 1
        for axis in axes:
            size *= dims[axis].as_int()
        lines.append(_number("size", float(size)))
    else:
        lines += ["all_sizes = Shape (x0)", _integers("from", axes[0]), _integers("to", axes[-1] + 1)]
        lines += ["sizes = Slice (all_sizes, from, to)", "count = ReduceProd <keepdims: int = 0> (sizes)"]
        lines.append(f"size = Cast <to: int = {_FLOAT}> (count)")
    return [
        *lines,
        "per = Mul (x3, size)",
        "ratio = Div (x1, per)",
        "steps = Mul (sum, ratio)",
        *_rounded("steps", op, 4),
    ]


def _average(op: OnnxOp, opset: int) -> list[str] | None:
    del opset
    dims, kernel = _dims(op, 0), op.attr("kernel_shape")
    if dims is None or not kernel:
        return None
    rank = len(dims)
    given = [f"kernel_shape: ints = {list(kernel)}"]
    given += [f"{name}: ints = {list(value)}" for name in ("strides", "pads") if (value := op.attr(name))]
    given += [f"{name}: int = {int(op.attr(name, 0))}" for name in ("ceil_mode", "count_include_pad")]
    given.append(f'auto_pad: string = "{op.attr("auto_pad", "NOTSET")}"')
    pool = f"AveragePool <{', '.join(given)}>"
    lines = [_as_floats("x", op, 0)]
    if op.attr("channels_last", 0):
        lines += [_turned("first", "x", [0, rank - 1, *range(1, rank - 1)]), f"pooled = {pool} (first)"]
        lines.append(_turned("mean", "pooled", [0, *range(2, rank), 1]))
    else:
        lines.append(f"mean = {pool} (x)")
    return [*lines, "steps = Div (mean, x3)", *_moved_and_rounded("steps", op, 4)]


def _softmax(op: OnnxOp, opset: int) -> list[str] | None:
    """Powers beside the largest integer, over their sum, in whole steps to 1."""
    dims = _dims(op, 0)
    if not dims:
        return None
    of_one_axis = int(op.attr("opset", _SOFTMAX_OF_AN_AXIS)) >= _SOFTMAX_OF_AN_AXIS
    axis = int(op.attr("axis", -1 if of_one_axis else 1)) % len(dims)
    axes = [axis] if of_one_axis else range(axis, len(dims))
    lines = [f"x = Cast <to: int = {_FLOAT}> (x0)", *_reduced("top", "ReduceMax", "x", axes, opset)]
    lines += ["below = Sub (x, top)", "scaled = Mul (below, x1)", "powers = Exp (scaled)"]
    lines += [*_reduced("sum", "ReduceSum", "powers", axes, opset), _number("whole", 1.0)]
    lines += ["most = Div (whole, x3)", "steps_of_one = Floor (most)", "times = Mul (powers, steps_of_one)"]
    return [*lines, "steps = Div (times, sum)", *_rounded("steps", op, 4)]


def _gemm(op: OnnxOp, opset: int) -> list[str]:
    del opset
    lines = [
        _turned(f"m{name}", f"x{index}", [1, 0]) if op.attr(f"trans{name}", 0) else f"m{name} = Identity (x{index})"
        for name, index in (("A", 0), ("B", 3))
    ]
    lines += ["product = MatMulInteger (mA, mB, x2, x5)"]
    lines.append("sum = Add (product, x6)" if has(op, 6) else "sum = Identity (product)")
    lines += [
        _number("alpha", float(op.attr("alpha", 1.0))),
        "alpha_a = Mul (alpha, x1)",
        "scale = Mul (alpha_a, x4)",
    ]
    lines.append(f"wide = Cast <to: int = {_FLOAT}> (sum)")
    if not has(op, 7):
        return [*lines, "y0 = Mul (wide, scale)"]
    return [*lines, "ratio = Div (scale, x7)", "steps = Mul (wide, ratio)", *_rounded("steps", op, 8)]


def _scaled_product(left: str, zero: str, scale: str, op: OnnxOp, given: Sequence[int]) -> list[str]:
    """`y0`: a product of integers as floats. `given` are the weights' scale and zero point, and the bias."""
    weight_scale, weight_zero, bias = given
    zeros = [zero, f"x{weight_zero}" if has(op, weight_zero) else ""]
    while zeros and not zeros[-1]:
        zeros.pop()
    lines = [f"product = MatMulInteger ({', '.join([left, 'x1', *zeros])})", f"scale = Mul ({scale}, x{weight_scale})"]
    lines += [f"wide = Cast <to: int = {_FLOAT}> (product)", "scaled = Mul (wide, scale)"]
    return [*lines, f"y0 = Add (scaled, x{bias})" if has(op, bias) else "y0 = Identity (scaled)"]


def _to_float(op: OnnxOp, opset: int) -> list[str]:
    del opset
    return _scaled_product("x0", "x4" if has(op, 4) else "", "x2", op, (3, 5, 6))


def _dynamic(op: OnnxOp, opset: int) -> list[str]:
    del opset
    return ["q, s, z = DynamicQuantizeLinear (x0)", *_scaled_product("q", "z", "s", op, (2, 3, 4))]


def _embedding(op: OnnxOp, opset: int) -> list[str] | None:
    """The sum of words, positions and segments, dequantized, and its normalisation."""
    if opset < 17 or (len(op.outputs) > 1 and op.outputs[1] is not None and not has(op, 7)):
        return None
    dims = _dims(op, 0)
    if dims is None or len(dims) != 2:
        return None
    lines = ["zero = Constant <value_int: int = 0> ()", "one = Constant <value_int: int = 1> ()"]
    lines += ["shape = Shape <start: int = 1> (x0)", "end = Squeeze (shape)", "places = Range (zero, end, one)"]
    tables = [("word", 2, 8, 13, "x0"), ("position", 3, 9, 14, "places")]
    tables += [("segment", 4, 10, 15, "x1")] if has(op, 1) and has(op, 4) else []
    for name, table, scale, point, at in tables:
        lines += [f"{name}_rows = Gather <axis: int = 0> (x{table}, {at})"]
        lines.append(f"{name} = DequantizeLinear ({name}_rows, x{scale}, x{point})")
    lines.append("sum2 = Add (word, position)")
    lines.append("sum = Add (sum2, segment)" if len(tables) > 2 else "sum = Identity (sum2)")
    lines += ["gamma = DequantizeLinear (x5, x11, x16)", "beta = DequantizeLinear (x6, x12, x17)"]
    epsilon = f"<axis: int = -1, epsilon: float = {op.attr('epsilon', 1e-12)!r}>"
    lines.append(f"y0 = LayerNormalization {epsilon} (sum, gamma, beta)")
    if len(op.outputs) > 1 and op.outputs[1] is not None:
        lines += [_integers("last", 1), "y1 = ReduceSum <keepdims: int = 0> (x7, last)"]
    return lines


def _turned(name: str, source: str, order: Sequence[int]) -> str:
    return f"{name} = Transpose <perm: ints = {list(order)}> ({source})"


def _reduced(name: str, function: str, source: str, axes: Sequence[int], opset: int) -> list[str]:
    if opset < _AXES_ARE_AN_INPUT[function]:
        return [f"{name} = {function} <axes: ints = {list(axes)}> ({source})"]
    return [_integers(f"{name}_axes", *axes), f"{name} = {function} ({source}, {name}_axes)"]


def _dims(op: OnnxOp, index: int) -> Sequence[Expr] | None:
    value: SSAValue | None = op.input_at(index)
    return None if value is None else dims_of(value)


QUANTIZED: Mapping[str, Callable[[OnnxOp, int], list[str] | None]] = {
    "DynamicQuantizeMatMul": _dynamic,
    "MatMulIntegerToFloat": _to_float,
    "QAttention": quantized_attention,
    "QEmbedLayerNormalization": _embedding,
    "QGemm": _gemm,
    "QLinearAdd": _add,
    "QLinearAveragePool": _average,
    "QLinearConcat": _concat,
    "QLinearGlobalAveragePool": _global_average,
    "QLinearLeakyRelu": _elementwise(_leaky_relu),
    "QLinearMul": _mul,
    "QLinearSigmoid": _elementwise(lambda op: "Sigmoid"),
    "QLinearSoftmax": _softmax,
    "QLinearWhere": _where,
}

OLDEST_QUANTIZED = 11
"""The oldest opset at which the functions mean what they do today, but for where axes are given."""
