"""Ranges of shapes from bounds of dimensions."""

from hypothesis import given
from hypothesis import strategies as st

from gimlet.runtime.expr import Expr
from gimlet.targets.api import DimBound, Reason
from gimlet.targets.tensorrt.profiles import dim_range, profile_json, profile_of

BOUNDS = {"batch": DimBound(1, 2, 8), "width": DimBound(32, 320, 2048)}


def test_a_range_follows_the_bounds_through_an_expression():
    assert dim_range(Expr.parse("ceildiv(width, 8)"), BOUNDS) == (4, 40, 256)
    assert dim_range(Expr.parse("batch * width"), BOUNDS) == (32, 640, 16384)
    assert dim_range(Expr.const(3), BOUNDS) == (3, 3, 3)


def test_a_dimension_that_falls_where_its_symbol_grows():
    assert dim_range(Expr.parse("4096 - width"), BOUNDS) == (2048, 3776, 4064)


@given(st.integers(1, 64), st.integers(0, 64), st.integers(0, 64), st.integers(-3, 3), st.integers(0, 9))
def test_the_optimum_is_always_inside(minimum, more, most, factor, offset):
    bound = DimBound(minimum, minimum + more, minimum + more + most)
    low, best, high = dim_range(Expr.symbol("n") * factor + offset, {"n": bound})
    assert low <= best <= high


def test_a_profile_covers_every_input():
    inputs = [("x", (Expr.symbol("batch"), Expr.const(3))), ("mask", (Expr.symbol("width"),))]
    profile = profile_of("s0", inputs, BOUNDS)
    assert profile_json(profile) == {
        "mask": {"min": [32], "opt": [320], "max": [2048]},
        "x": {"min": [1, 3], "opt": [2, 3], "max": [8, 3]},
    }
    assert not profile["x"].is_static


def test_what_cannot_be_bounded_is_refused():
    assert "no known rank" in str(profile_of("s0", [("x", None)], BOUNDS))
    assert "dimension 0 of input 'x' is not known" in str(profile_of("s0", [("x", (None,))], BOUNDS))
    reason = profile_of("s0", [("x", (Expr.symbol("rows"),))], BOUNDS)
    assert isinstance(reason, Reason)
    assert "'rows', which has no bound" in reason.message
