"""Dimensions in the spelling of ONNX's tools."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.dialects.onnx.symbolic import SymbolTable, parse_symbolic
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr, ceildiv, floordiv

NAMES = {name: Expr.symbol(name) for name in ("x", "y")}
SIZES = {"x": 37, "y": 6}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("floor(x/2 - 1/2) + 1", (37 - 1) // 2 + 1),
        ("32*floor(floor(x/2 - 1/2)/2) + 32", 32 * (((37 - 1) // 2) // 2) + 32),
        ("ceiling(x/8)", 5),
        ("x*y/2", 111),
        ("(x + 1)//2", 19),
        ("x**2 - y", 37 * 37 - 6),
        ("Max(0, x - 40, y)", 6),
        ("Min(x, y, 3)", 3),
        ("Mod(x, 5) + x % 4", 3),
        ("-x + 40", 3),
        ("x/y*y", 37),
        ("(x*y)/(2*y)", 18),
    ],
)
def test_values(text: str, expected: int):
    assert parse_symbolic(text, NAMES).evaluate(SIZES) == expected


@pytest.mark.parametrize(
    "text", ["z + 1", "x +", "sqrt(x)", "x**y", "x.y", "'x'", "x if y else 1", "floor(x, y)", "x << 2", "x**100"]
)
def test_what_is_not_an_expression(text: str):
    with pytest.raises(InputError):
        parse_symbolic(text, NAMES)


EXPRESSIONS = st.recursive(
    st.sampled_from([Expr.symbol("batch"), Expr.symbol("seq-len"), Expr.const(3), Expr.const(1)]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: pair[0] + pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] * pair[1]),
        inner.map(lambda expr: floordiv(expr + 1, Expr.const(2))),
        inner.map(lambda expr: ceildiv(expr, Expr.const(4))),
        inner.map(lambda expr: -expr),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS)
def test_plain_names_are_translated_back(expr: Expr):
    table = SymbolTable()
    text = table.spell(expr)
    assert text.replace("g", "").replace(" ", "").translate(str.maketrans("", "", "0123456789+-*")) == ""
    assert table.parse(text) == expr


def test_a_name_of_somebody_else():
    assert SymbolTable().parse("_d0 + 1") is None
