"""The expression language: its normal form, its text, and its arithmetic against Python's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr, ceildiv, floordiv, maximum, minimum, mod

NAMES = ["batch", "width", "past length"]
SIZES = st.fixed_dictionaries({name: st.integers(1, 4096) for name in NAMES})


def expressions() -> st.SearchStrategy[Expr]:
    leaves = st.one_of(st.integers(-20, 20).map(Expr.const), st.sampled_from(NAMES).map(Expr.symbol))

    def extend(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        pairs = st.tuples(inner, inner)
        divisor = st.integers(1, 12).map(Expr.const) | st.sampled_from(NAMES).map(Expr.symbol)
        return st.one_of(
            pairs.map(lambda p: p[0] + p[1]),
            pairs.map(lambda p: p[0] - p[1]),
            pairs.map(lambda p: p[0] * p[1]),
            pairs.map(lambda p: minimum(*p)),
            pairs.map(lambda p: maximum(*p)),
            st.tuples(inner, divisor).map(lambda p: floordiv(*p)),
            st.tuples(inner, divisor).map(lambda p: ceildiv(*p)),
            st.tuples(inner, divisor).map(lambda p: mod(*p)),
        )

    return st.recursive(leaves, extend, max_leaves=8)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("width * 2 + width // 8 * 8 - 3", "8*floordiv(width, 8) + 2*width - 3"),
        ("floordiv(batch*width*8, batch*8)", "width"),
        ("floordiv(width - 1, 2) + 1", "floordiv(width + 1, 2)"),
        ("floordiv(floordiv(w, 2), 2)", "floordiv(w, 4)"),
        ("floordiv(floordiv(w + 1, 2) + 1, 4)", "floordiv(w + 3, 8)"),
        ("mod(8*w + 3, 8)", "3"),
        ("ceildiv(12, 8)", "2"),
        ("max(w + 1, w)", "w + 1"),
        ("`past length` - `past length`", "0"),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert str(Expr.parse(text)) == normal


@given(expressions())
def test_text_parses_back(expr: Expr) -> None:
    assert Expr.parse(str(expr)) == expr


@given(expressions(), expressions(), SIZES)
def test_arithmetic_agrees_with_python(left: Expr, right: Expr, sizes: dict[str, int]) -> None:
    a, b = left.evaluate(sizes), right.evaluate(sizes)
    assert (left + right).evaluate(sizes) == a + b
    assert (left - right).evaluate(sizes) == a - b
    assert (left * right).evaluate(sizes) == a * b
    assert minimum(left, right).evaluate(sizes) == min(a, b)
    assert maximum(left, right).evaluate(sizes) == max(a, b)


@given(expressions(), st.integers(1, 64), SIZES)
def test_division_agrees_with_python(expr: Expr, divisor: int, sizes: dict[str, int]) -> None:
    value = expr.evaluate(sizes)
    assert floordiv(expr, Expr.const(divisor)).evaluate(sizes) == value // divisor
    assert ceildiv(expr, Expr.const(divisor)).evaluate(sizes) == -(-value // divisor)
    assert mod(expr, Expr.const(divisor)).evaluate(sizes) == value % divisor


@given(expressions(), SIZES)
def test_substitution_is_evaluation(expr: Expr, sizes: dict[str, int]) -> None:
    constants = {name: Expr.const(size) for name, size in sizes.items()}
    assert expr.substitute(constants).as_int() == expr.evaluate(sizes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width +", "expected a number or a name"),
        ("(width", "expected '\\)'"),
        ("width width", "unexpected text"),
        ("log(width)", "unknown function 'log'"),
        ("min(width)", "takes two arguments"),
        ("width & 1", "unexpected character"),
        ("width // 0", "must be positive"),
    ],
)
def test_bad_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Expr.parse(text)


def test_a_missing_dimension_is_named() -> None:
    with pytest.raises(InputError, match="dimension 'width' has no size"):
        Expr.parse("2*width").evaluate({})


def test_as_int_needs_a_constant() -> None:
    with pytest.raises(InputError, match="depends on width"):
        Expr.parse("width").as_int()
