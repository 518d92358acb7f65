"""Rules for operators that work element by element: arithmetic, activations, comparisons, casts."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.functions import FUNCTIONS
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.expression import Argument, Index, Node
from gimlet.targets.sram.lowering import Lowering, Rule, shape_of, vector_type

_UNARY = {
    "Abs": "abs",
    "Ceil": "ceil",
    "Cos": "cos",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "HardSwish": "hard_swish",
    "Log": "log",
    "Neg": "neg",
    "Not": "not",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
    "com.microsoft.FastGelu": "gelu_tanh",
    "com.microsoft.Gelu": "gelu",
}
_BINARY = {
    "Add": "add",
    "And": "and",
    "Div": "div",
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Mul": "mul",
    "Or": "or",
    "PRelu": "prelu",
    "Pow": "pow",
    "Sub": "sub",
    "Xor": "xor",
}
_NUMBERS = {"f32": np.float32, "i64": np.int64, "i32": np.int32}
_VARIADIC = {"Max": "max", "Mean": "add", "Min": "min", "Sum": "add"}
_PARAMETERS = {
    "Elu": ("elu", ("alpha",)),
    "HardSigmoid": ("hard_sigmoid", ("alpha", "beta")),
    "LeakyRelu": ("leaky_relu", ("alpha",)),
    "Selu": ("selu", ("alpha", "gamma")),
}


def present(op: OnnxOp, index: int) -> SSAValue:
    """An input that must be there. RefusedError if it is absent."""
    value = op.input_at(index)
    if value is None:
        raise RefusedError(f"{op.op_type} lacks input {index}")
    return value


def result(op: OnnxOp) -> SSAValue:
    """The first result."""
    return op.results[0]


def define(
    lowering: Lowering, op: OnnxOp, function: str, *arguments: Argument, parameters: tuple[float, ...] = ()
) -> None:
    """Makes the op's result a vector function of arguments; a number, where all of them are."""
    value = result(op)
    shape, dtype = shape_of(value), vector_type(value)
    numbers = [each for each in arguments if isinstance(each, int | float)]
    if len(numbers) == len(arguments) and dtype in _NUMBERS:
        lowering.define(value, _computed_now(function, numbers, parameters, dtype))
    else:
        lowering.define(value, lowering.node(function, arguments, shape, dtype, parameters))


def _computed_now(function: str, numbers: Sequence[float], parameters: tuple[float, ...], dtype: str) -> float:
    """A function of numbers, rounded as the vector unit does it."""
    wide = np.float32 if dtype == "f32" else np.int64
    with np.errstate(all="ignore"):
        found = FUNCTIONS[function].compute(*(np.asarray(each, wide) for each in numbers), *parameters)
        return found.astype(_NUMBERS[dtype]).item()


def _unary(lowering: Lowering, op: OnnxOp) -> None:
    name = f"{op.domain}.{op.op_type}" if op.domain else op.op_type
    argument = lowering.argument(present(op, 0))
    if op.op_type == "FastGelu" and (bias := op.input_at(1)) is not None:
        argument = lowering.node("add", (argument, lowering.argument(bias)), shape_of(result(op)))
    if vector_type(result(op)) != "f32" and _UNARY[name] in ("ceil", "floor", "round"):
        define(lowering, op, "copy", argument)
    else:
        define(lowering, op, _UNARY[name], argument)


def _binary(lowering: Lowering, op: OnnxOp) -> None:
    left, right = present(op, 0), present(op, 1)
    if op.op_type == "PRelu" and vector_type(left) != "f32":
        raise RefusedError(f"{op.op_type} of {vector_type(left)} is not generated")
    arguments = [lowering.argument(left), lowering.argument(right)]
    if op.op_type == "Pow" and vector_type(left) != vector_type(right):
        arguments[1] = _cast(lowering, arguments[1], right, vector_type(left))
    if op.op_type == "Pow" and arguments[1] == 2:
        define(lowering, op, "mul", arguments[0], arguments[0])
    elif op.op_type == "Pow" and arguments[1] == 0.5:
        define(lowering, op, "sqrt", arguments[0])
    else:
        define(lowering, op, _BINARY[op.op_type], *arguments)


def _cast(lowering: Lowering, argument: Argument, value: SSAValue, dtype: str) -> Argument:
    if isinstance(argument, int | float):
        return float(argument) if dtype == "f32" else int(argument)
    return lowering.node("copy", (argument,), shape_of(value), dtype)


def _variadic(lowering: Lowering, op: OnnxOp) -> None:
    value = result(op)
    shape, dtype = shape_of(value), vector_type(value)
    arguments = [lowering.argument(each) for each in op.inputs if each is not None]
    total: Argument = arguments[0] if len(arguments) > 1 else lowering.node("copy", arguments, shape, dtype)
    for each in arguments[1:]:
        total = lowering.node(_VARIADIC[op.op_type], (total, each), shape, dtype)
    if op.op_type == "Mean":
        total = lowering.node("mul", (total, 1.0 / len(arguments)), shape, dtype)
    lowering.define(value, total)


def _parametric(lowering: Lowering, op: OnnxOp) -> None:
    function, names = _PARAMETERS[op.op_type]
    parameters = tuple(float(op.attr(name)) for name in names)
    define(lowering, op, function, lowering.argument(present(op, 0)), parameters=parameters)


def _gelu(lowering: Lowering, op: OnnxOp) -> None:
    function = "gelu_tanh" if op.attr("approximate", "none") == "tanh" else "gelu"
    define(lowering, op, function, lowering.argument(present(op, 0)))


def _swish(lowering: Lowering, op: OnnxOp) -> None:
    shape = shape_of(result(op))
    argument = lowering.argument(present(op, 0))
    alpha = float(op.attr("alpha", 1.0))
    if alpha == 1.0:
        define(lowering, op, "silu", argument)
        return
    scaled = lowering.node("mul", (argument, alpha), shape)
    define(lowering, op, "mul", argument, lowering.node("sigmoid", (scaled,), shape))


def _mish(lowering: Lowering, op: OnnxOp) -> None:
    shape, argument = shape_of(result(op)), lowering.argument(present(op, 0))
    bent = lowering.node("tanh", (lowering.node("softplus", (argument,), shape),), shape)
    define(lowering, op, "mul", argument, bent)


def _celu(lowering: Lowering, op: OnnxOp) -> None:
    shape, alpha = shape_of(result(op)), float(op.attr("alpha"))
    scaled = lowering.node("mul", (lowering.argument(present(op, 0)), 1.0 / alpha), shape)
    define(lowering, op, "mul", lowering.node("elu", (scaled,), shape, parameters=(1.0,)), alpha)


def _thresholded_relu(lowering: Lowering, op: OnnxOp) -> None:
    argument = lowering.argument(present(op, 0))
    passes = lowering.node("greater", (argument, float(op.attr("alpha"))), shape_of(result(op)), "i1")
    define(lowering, op, "select", passes, argument, 0.0)


def _tan(lowering: Lowering, op: OnnxOp) -> None:
    shape, argument = shape_of(result(op)), lowering.argument(present(op, 0))
    define(lowering, op, "div", *(lowering.node(function, (argument,), shape) for function in ("sin", "cos")))


def _cosh(lowering: Lowering, op: OnnxOp) -> None:
    shape, argument = shape_of(result(op)), lowering.argument(present(op, 0))
    power = lowering.node("exp", (lowering.node("abs", (argument,), shape),), shape)
    both = lowering.node("add", (power, lowering.node("reciprocal", (power,), shape)), shape)
    define(lowering, op, "mul", both, 0.5)


def _clip(lowering: Lowering, op: OnnxOp) -> None:
    value = result(op)
    shape, dtype = shape_of(value), vector_type(value)
    limits: list[Argument | None] = []
    for index, name in ((1, "min"), (2, "max")):
        given = op.input_at(index)
        limits.append(lowering.argument(given) if given is not None else op.attr(name))
    argument = lowering.argument(present(op, 0))
    for limit, function in zip(limits, ("max", "min"), strict=True):
        if limit is not None and limit not in (inf, -inf):
            argument = lowering.node(function, (argument, limit), shape, dtype)
    lowering.define(value, argument if isinstance(argument, Node) else lowering.node("copy", (argument,), shape, dtype))


def _where(lowering: Lowering, op: OnnxOp) -> None:
    define(lowering, op, "select", *(lowering.argument(present(op, index)) for index in range(3)))


def _cast_op(lowering: Lowering, op: OnnxOp) -> None:
    source, value = present(op, 0), result(op)
    if op.op_type == "CastLike":
        present(op, 1)
    vector_type(source)
    argument = lowering.argument(source)
    if isinstance(argument, int | float | Expr):
        argument = _number(argument, vector_type(value))
    define(lowering, op, "copy", argument)


def _number(argument: float | Expr, dtype: str) -> Argument:
    if isinstance(argument, Expr) or dtype == "f32":
        return argument
    return int(argument)


def _modulo(lowering: Lowering, op: OnnxOp) -> None:
    function = "fmod" if op.attr("fmod", 0) else "mod"
    define(lowering, op, function, lowering.argument(present(op, 0)), lowering.argument(present(op, 1)))


def _is_nan(lowering: Lowering, op: OnnxOp) -> None:
    define(lowering, op, "is_nan", lowering.argument(present(op, 0)))


def _batch_normalization(lowering: Lowering, op: OnnxOp) -> None:
    if op.attr("training_mode", 0) or sum(each is not None for each in op.outputs) > 1:
        raise RefusedError("BatchNormalization is generated for inference only")
    value = result(op)
    shape = shape_of(value)
    scale, bias, mean, variance = (_per_channel(lowering, present(op, index), len(shape)) for index in range(1, 5))
    channels = shape_of(present(op, 1))[0]
    wide = (channels, *(Expr.const(1) for _ in shape[2:]))
    inverse = lowering.node("rsqrt", (lowering.node("add", (variance, float(op.attr("epsilon"))), wide),), wide)
    centred = lowering.node("sub", (lowering.argument(present(op, 0)), mean), shape)
    factor = lowering.node("mul", (inverse, scale), wide)
    define(lowering, op, "multiply_add", centred, factor, bias)


def _per_channel(lowering: Lowering, value: SSAValue, rank: int) -> Argument:
    """A vector as [channels, 1, ...], which is broadcast along dimension 1."""
    view = lowering.view(value)
    for _ in range(rank - 2):
        view = view.unsqueeze(len(view.shape))
    return view


def _dropout(lowering: Lowering, op: OnnxOp) -> None:
    mask = op.outputs[1] if len(op.outputs) > 1 else None
    if mask is not None and (mask in lowering.results or lowering.readers.get(mask)):
        raise RefusedError("the mask of Dropout is not generated")
    training = op.input_at(2)
    known = lowering.known(training)
    if training is not None and (known is None or bool(known.reshape(-1)[0])):
        raise RefusedError("Dropout is generated for inference only")
    lowering.define(result(op), lowering.get(present(op, 0)))


def _range(lowering: Lowering, op: OnnxOp) -> None:
    value = result(op)
    shape, dtype = shape_of(value), vector_type(value)
    start, step = lowering.argument(present(op, 0)), lowering.argument(present(op, 2))
    position: Argument = Index(0)
    if dtype != "i64":
        position = lowering.node("copy", (position,), shape, dtype)
    scaled = position if step == 1 else lowering.node("mul", (position, step), shape, dtype)
    define(lowering, op, "add", scaled, start)


def _constant_of_shape(lowering: Lowering, op: OnnxOp) -> None:
    value = result(op)
    fill = op.attr("value")
    number = 0.0 if fill is None else np.asarray(fill).reshape(-1)[0].item()
    dtype = vector_type(value)
    define(lowering, op, "copy", number if dtype == "f32" else int(number))


def _trilu(lowering: Lowering, op: OnnxOp) -> None:
    value = result(op)
    shape, dtype = shape_of(value), vector_type(value)
    given = op.input_at(1)
    offset = 0 if given is None else lowering.argument(given)
    row, column = Index(1), Index(0)
    diagonal: Argument = row if offset == 0 else lowering.node("add", (row, offset), shape, "i64")
    function = "greater_equal" if op.attr("upper", 1) else "less_equal"
    kept = lowering.node(function, (column, diagonal), shape, "i1")
    zero = 0.0 if dtype == "f32" else 0
    argument = lowering.argument(present(op, 0))
    if dtype == "i1":
        define(lowering, op, "and", kept, argument)
    else:
        define(lowering, op, "select", kept, argument, zero)


RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_VARIADIC, _variadic),
    **dict.fromkeys(_PARAMETERS, _parametric),
    "BatchNormalization": _batch_normalization,
    "Cast": _cast_op,
    "CastLike": _cast_op,
    "Celu": _celu,
    "Clip": _clip,
    "ConstantOfShape": _constant_of_shape,
    "Cosh": _cosh,
    "Dropout": _dropout,
    "Gelu": _gelu,
    "IsNaN": _is_nan,
    "Mish": _mish,
    "Mod": _modulo,
    "Range": _range,
    "Swish": _swish,
    "Tan": _tan,
    "ThresholdedRelu": _thresholded_relu,
    "Trilu": _trilu,
    "Where": _where,
}
