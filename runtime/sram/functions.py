"""The functions of the vector unit: what they compute, and how many passes over the lanes they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_SQRT_HALF = np.float32(0.7071067811865476)
_GELU_TANH_SCALE = np.float32(0.7978845608028654)
_GELU_TANH_CUBIC = np.float32(0.044715)

# erf(x) = x · P(x²) / Q(x²) on [−4, 4], the minimax approximation for float32 that Eigen and XLA use (error < 5e-7).
_ERF_NUMERATOR = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_DENOMINATOR = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


@dataclass(frozen=True)
class Function:
    """`compute(*operands, *parameters)`; `passes` is the cycles that one element takes in a lane; `parameters` a count.

    `kind` says what it accepts and gives: `float` (floats to a float), `any` (the operands' type), `test` (any to i1),
    `logic` (i1 to i1), `select` (i1 and two of one type), `copy` (any type to any other).
    """

    arity: int
    passes: int
    kind: str
    compute: Callable[..., Array]
    parameters: int = 0


def erf(x: Array) -> Array:
    """The error function of float32 values."""
    bounded = np.clip(x, np.float32(-4), np.float32(4))
    square = bounded * bounded
    return bounded * _polynomial(_ERF_NUMERATOR, square) / _polynomial(_ERF_DENOMINATOR, square)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += np.float32(coefficient)
    return value


def _sigmoid(x: Array) -> Array:
    return np.float32(1) / (np.float32(1) + np.exp(-x))


def _softplus(x: Array) -> Array:
    return np.maximum(x, np.float32(0)) + np.log1p(np.exp(-np.abs(x)))


def _gelu_tanh(x: Array) -> Array:
    inner = _GELU_TANH_SCALE * (x + _GELU_TANH_CUBIC * x * x * x)
    return np.float32(0.5) * x * (np.float32(1) + np.tanh(inner))


def _divide(a: Array, b: Array) -> Array:
    if not np.issubdtype(np.result_type(a, b), np.integer):
        return a / b
    quotient = np.abs(a) // np.maximum(np.abs(b), 1)
    return np.where((a < 0) != (b < 0), -quotient, quotient)


def _remainder(a: Array, b: Array) -> Array:
    return np.where(b == 0, a, np.mod(a, np.where(b == 0, 1, b)))


def _leaky_relu(x: Array, alpha: float) -> Array:
    return np.where(x < 0, np.float32(alpha) * x, x)


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, np.float32(alpha) * np.expm1(np.minimum(x, np.float32(0))))


def _hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.clip(np.float32(alpha) * x + np.float32(beta), np.float32(0), np.float32(1))


def _hard_swish(x: Array) -> Array:
    return x * np.clip(x * np.float32(1 / 6) + np.float32(0.5), np.float32(0), np.float32(1))


def _selu(x: Array, alpha: float, gamma: float) -> Array:
    return np.float32(gamma) * _elu(x, alpha)


def _multiply_add(a: Array, b: Array, c: Array) -> Array:
    return a * b + c


def _unary(passes: int, compute: Callable[[Array], Array], kind: str = "float") -> Function:
    return Function(1, passes, kind, compute)


def _binary(passes: int, compute: Callable[[Array, Array], Array], kind: str = "any") -> Function:
    return Function(2, passes, kind, compute)


FUNCTIONS: dict[str, Function] = {
    "copy": _unary(1, lambda x: x, "copy"),
    "neg": _unary(1, np.negative, "any"),
    "abs": _unary(1, np.abs, "any"),
    "sign": _unary(1, np.sign, "any"),
    "floor": _unary(1, np.floor),
    "ceil": _unary(1, np.ceil),
    "round": _unary(1, np.rint),
    "sqrt": _unary(4, np.sqrt),
    "reciprocal": _unary(4, lambda x: np.float32(1) / x),
    "rsqrt": _unary(4, lambda x: np.float32(1) / np.sqrt(x)),
    "exp": _unary(4, np.exp),
    "log": _unary(4, np.log),
    "erf": _unary(8, erf),
    "sin": _unary(6, np.sin),
    "cos": _unary(6, np.cos),
    "tanh": _unary(6, np.tanh),
    "sigmoid": _unary(6, _sigmoid),
    "silu": _unary(7, lambda x: x * _sigmoid(x)),
    "softplus": _unary(8, _softplus),
    "softsign": _unary(5, lambda x: x / (np.float32(1) + np.abs(x))),
    "relu": _unary(1, lambda x: np.maximum(x, x.dtype.type(0)), "any"),
    "gelu": _unary(10, lambda x: np.float32(0.5) * x * (np.float32(1) + erf(x * _SQRT_HALF))),
    "gelu_tanh": _unary(10, _gelu_tanh),
    "hard_swish": _unary(4, _hard_swish),
    "leaky_relu": Function(1, 2, "float", _leaky_relu, 1),
    "elu": Function(1, 6, "float", _elu, 1),
    "selu": Function(1, 7, "float", _selu, 2),
    "hard_sigmoid": Function(1, 3, "float", _hard_sigmoid, 2),
    "add": _binary(1, np.add),
    "sub": _binary(1, np.subtract),
    "mul": _binary(1, np.multiply),
    "div": _binary(4, _divide),
    "mod": _binary(4, _remainder),
    "fmod": _binary(4, np.fmod),
    "pow": _binary(10, np.power),
    "min": _binary(1, np.minimum),
    "max": _binary(1, np.maximum),
    "prelu": _binary(2, lambda x, slope: np.where(x < 0, slope * x, x), "float"),
    "equal": _binary(1, np.equal, "test"),
    "less": _binary(1, np.less, "test"),
    "less_equal": _binary(1, np.less_equal, "test"),
    "greater": _binary(1, np.greater, "test"),
    "greater_equal": _binary(1, np.greater_equal, "test"),
    "is_nan": _unary(1, np.isnan, "test"),
    "and": _binary(1, np.logical_and, "logic"),
    "or": _binary(1, np.logical_or, "logic"),
    "xor": _binary(1, np.logical_xor, "logic"),
    "not": _unary(1, np.logical_not, "logic"),
    "select": Function(3, 1, "select", np.where),
    "multiply_add": Function(3, 1, "any", _multiply_add),
}
"""Every function by name. Transcendental ones take several passes: the unit evaluates them piece by piece."""


def _in_halves(combine: np.ufunc) -> Callable[[Array, tuple[int, ...]], Array]:
    """A reduction that combines the first half of the elements with the second one, until a single one is left."""

    def reduce(values: Array, axes: tuple[int, ...]) -> Array:
        if not axes:
            return values
        moved = np.moveaxis(values, axes, range(-len(axes), 0))
        left = moved.reshape(*moved.shape[: -len(axes)], -1)
        while (count := left.shape[-1]) > 1:
            half = (count + 1) // 2
            combined = left[..., :half].copy()
            combine(combined[..., : count - half], left[..., half:], out=combined[..., : count - half])
            left = combined
        if not left.shape[-1]:
            left = np.full((*left.shape[:-1], 1), combine.identity, values.dtype)
        return np.expand_dims(left[..., 0], axes)

    return reduce


REDUCTIONS: dict[str, Callable[[Array, tuple[int, ...]], Array]] = {
    "sum": _in_halves(np.add),
    "max": lambda values, axes: np.max(values, axis=axes, keepdims=True),
    "min": lambda values, axes: np.min(values, axis=axes, keepdims=True),
    "prod": _in_halves(np.multiply),
}
"""Every reduction by name, of some dimensions, which keep size 1. Sums have an order of their own, not the host's."""

UPDATES: dict[str, np.ufunc] = {"add": np.add, "max": np.maximum, "min": np.minimum, "mul": np.multiply}
"""What a scatter makes of an element that is there and one that comes, by name."""
