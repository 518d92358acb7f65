"""Distances between tensors, and the tolerance of each format."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gimlet.compiler.checking.numerics import coarsest, deviation

FLOATS = hnp.arrays(np.float32, hnp.array_shapes(max_side=6), elements=st.floats(-1e3, 1e3, width=32))


@given(FLOATS)
def test_a_tensor_equals_itself(array: np.ndarray) -> None:
    found = deviation(array, array.copy())
    assert found.equal
    assert found.within("fp32")


def test_the_error_is_relative_to_the_range() -> None:
    found = deviation(np.array([0.0, 10.0, 5.001]), np.array([0.0, 10.0, 5.0]))
    assert found.of_range == pytest.approx(1e-4, rel=1e-6)
    assert found.relative_l2 == pytest.approx(1e-3 / np.sqrt(125), rel=1e-6)


@pytest.mark.parametrize(("error", "fmt", "ok"), [(5e-5, "fp32", True), (2e-4, "fp32", False), (5e-3, "bf16", True),
                                                  (2e-2, "bf16", False), (2e-2, "mxint8", True)])  # fmt: skip
def test_each_format_has_its_tolerance(error: float, fmt: str, ok: bool) -> None:
    reference = np.array([0.0, 1.0])
    assert deviation(np.array([0.0, 1.0 + error]), reference).within(fmt) is ok


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (np.array([1.0, np.nan]), "NaN or infinite elsewhere than the reference"),
        (np.array([1.0, np.inf]), "NaN or infinite elsewhere than the reference"),
        (np.array([1.0]), "of shape [1], and the reference has [2]"),
        (np.array(["a", "b"]), "other texts than the reference"),
        ([np.array(1.0)], "another kind of value than the reference"),
    ],
)
def test_what_is_not_comparable_is_infinitely_far_and_says_why(value: object, why: str) -> None:
    found = deviation(value, np.array([1.0, 2.0]))
    assert found.of_range == float("inf")
    assert str(found) == why


def test_lists_of_other_lengths_say_so() -> None:
    assert str(deviation([1, 2], [1])) == "2 items, and the reference has 1"


def test_equal_infinities_and_nans_do_not_count() -> None:
    a = np.array([np.nan, np.inf, 1.0])
    assert deviation(a + np.array([0, 0, 1e-9]), a).within("fp32")
    assert deviation(np.array([-np.inf, 1.0]), np.array([np.inf, 1.0])).of_range == float("inf")


def test_integers_must_be_equal() -> None:
    assert deviation(np.array([1, 2]), np.array([1, 2])).within("fp32")
    assert not deviation(np.array([1, 3]), np.array([1, 2])).within("fp32")


def test_a_mixed_model_is_held_to_its_coarsest_format() -> None:
    assert coarsest({"fp32", "mxint8", "bf16"}) == "mxint8"
    assert coarsest({"fp32"}) == "fp32"
    assert coarsest(set()) == "fp32"


def test_one_rounding_step_at_one_is_negligible_however_small_the_range() -> None:
    reference = np.array([1e-8, 2e-8])
    assert deviation(reference + 1e-8, reference).within("fp32")
    assert not deviation(reference + 1e-6, reference).within("fp32")


@pytest.mark.parametrize(
    ("reference", "uniform"), [([0.0, 0.0], True), ([0.0, 1.0], False), ([3.0], False), ([], False)]
)
def test_a_reference_that_is_the_same_everywhere_is_told(reference: list[float], uniform: bool) -> None:
    for error in (0.0, 1e-9):
        assert deviation(np.array(reference) + error, np.array(reference)).uniform is uniform
