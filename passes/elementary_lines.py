"""Elementary functions as lines of functions in ONNX's text form, in float32 and to its precision.

- sinh is tanh · cosh, which loses nothing near 0 as a difference of exponentials does.
- asinh, acosh and atanh are logarithms of 1 + y. What is lost in 1 + y is made good: log(u) · y / (u - 1) with
  u = 1 + y rounded (Kahan's identity), and y where u is 1. Where a square would overflow it is log(2 |x|).
- atan is a polynomial in x² between -tan(π/8) and tan(π/8), into which π/2 and π/4 bring every other argument
  (Cephes' atanf, S. L. Moshier). asin and acos are arcus tangents of x and the root of (1 - x) (1 + x).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.types import element_of
from gimlet.passes.function_lines import Lines, Unwritten

_FLOAT = 1
_FLOATS = ("float", "float16", "bfloat16")
_LARGE = 1e7
"""From here on 1 + y is y, and y + sqrt(y² + 1) is 2y."""
_ATAN = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)
"""Coefficients of x⁹, x⁷, x⁵ and x³."""


def _number(name: str, value: float) -> str:
    return f"{name} = Constant <value_float: float = {value!r}> ()"


_NUMBERS = [_number("zero", 0.0), _number("half", 0.5), _number("one", 1.0), _number("two", 2.0)]


def _in_float32(lines: list[str]) -> Callable[[OnnxOp, int], Lines]:
    """`y0` of `x0` by lines that make `y` of `x`."""

    def write(op: OnnxOp, opset: int) -> Lines:
        del opset
        element = element_of(op.operands[0].type)
        if element is None or element.onnx not in _FLOATS:
            return Unwritten(f"for {', '.join(_FLOATS)}")
        return [f"x = Cast <to: int = {_FLOAT}> (x0)", *_NUMBERS, *lines, "y0 = CastLike (y, x0)"]

    return write


def _log_of_one_plus(name: str, given: str) -> list[str]:
    """`name`: log(1 + given), for `given` from 0 on."""
    return [
        _number("large", _LARGE),
        f"u = Add (one, {given})",
        "without = Sub (u, one)",
        f"missing = Div ({given}, without)",
        f"is_large = Greater ({given}, large)",
        "factor = Where (is_large, one, missing)",
        "log = Log (u)",
        "whole = Mul (log, factor)",
        "is_small = Equal (u, one)",
        f"{name} = Where (is_small, {given}, whole)",
    ]


def _log_of_twice(name: str, given: str) -> list[str]:
    """`name`: log(2 given)."""
    return [_number("log_two", math.log(2)), f"log_of_it = Log ({given})", f"{name} = Add (log_of_it, log_two)"]


_ASINH = [
    "size = Abs (x)",
    "sign = Sign (x)",
    "square = Mul (size, size)",
    "square_and_one = Add (square, one)",
    "root = Sqrt (square_and_one)",
    "below = Add (root, one)",
    "rest = Div (square, below)",
    "more = Add (size, rest)",
    *_log_of_one_plus("near", "more"),
    *_log_of_twice("far", "size"),
    "is_far = Greater (size, large)",
    "found = Where (is_far, far, near)",
    "y = Mul (sign, found)",
]
_ACOSH = [
    "above = Sub (x, one)",
    "sum = Add (x, one)",
    "product = Mul (above, sum)",
    "root = Sqrt (product)",
    "more = Add (above, root)",
    *_log_of_one_plus("near", "more"),
    *_log_of_twice("far", "x"),
    "is_far = Greater (x, large)",
    "y = Where (is_far, far, near)",
]
_ATANH = [
    "size = Abs (x)",
    "sign = Sign (x)",
    "twice = Mul (two, size)",
    "left = Sub (one, size)",
    "more = Div (twice, left)",
    *_log_of_one_plus("found", "more"),
    "halved = Mul (half, found)",
    "y = Mul (sign, halved)",
]


def _atan(name: str, given: str) -> list[str]:
    """`name`: the arcus tangent of any number."""
    steps = [_number("p0", _ATAN[0])]
    for index, coefficient in enumerate(_ATAN[1:], 1):
        steps += [_number(f"c{index}", coefficient), f"q{index} = Mul (p{index - 1}, z)"]
        steps.append(f"p{index} = Add (q{index}, c{index})")
    return [
        _number("first", math.tan(math.pi / 8)),
        _number("last", math.tan(3 * math.pi / 8)),
        _number("quarter", math.pi / 4),
        _number("right", math.pi / 2),
        f"width = Abs ({given})",
        f"side = Sign ({given})",
        "is_wide = Greater (width, last)",
        "is_middle = Greater (width, first)",
        "inverse = Reciprocal (width)",
        "minus = Neg (inverse)",
        "less = Sub (width, one)",
        "plus = Add (width, one)",
        "ratio = Div (less, plus)",
        "middle = Where (is_middle, ratio, width)",
        "t = Where (is_wide, minus, middle)",
        "middle_begin = Where (is_middle, quarter, zero)",
        "begin = Where (is_wide, right, middle_begin)",
        "z = Mul (t, t)",
        *steps,
        f"tz = Mul (p{len(_ATAN) - 1}, z)",
        "bent = Mul (tz, t)",
        "arc = Add (bent, t)",
        "turned = Add (begin, arc)",
        f"{name} = Mul (side, turned)",
    ]


_ROOTS = ["below = Sub (one, x)", "above = Add (one, x)"]
_ASIN = [
    *_ROOTS,
    "product = Mul (below, above)",
    "root = Sqrt (product)",
    "slope = Div (x, root)",
    *_atan("y", "slope"),
]
_ACOS = [
    *_ROOTS,
    "share = Div (below, above)",
    "slope = Sqrt (share)",
    *_atan("halved", "slope"),
    "y = Mul (two, halved)",
]

ELEMENTARY: Mapping[str, Callable[[OnnxOp, int], Lines]] = {
    "Acos": _in_float32(_ACOS),
    "Acosh": _in_float32(_ACOSH),
    "Asin": _in_float32(_ASIN),
    "Asinh": _in_float32(_ASINH),
    "Atan": _in_float32(_atan("y", "x")),
    "Atanh": _in_float32(_ATANH),
    "Sinh": _in_float32(["bend = Tanh (x)", "growth = Cosh (x)", "y = Mul (bend, growth)"]),
}
