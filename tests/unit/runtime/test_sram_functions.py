"""Functions of the vector unit: what a reduction gives is the emulator's own and not the host's."""

from __future__ import annotations

import numpy as np
import pytest

from gimlet.runtime.sram.functions import REDUCTIONS


def test_a_sum_adds_the_first_half_to_the_second():
    values = np.float32([1e8, 1, -1e8, 1, 0.5])
    halves = np.float32([1e8 + np.float32(1), 1.5, -1e8])
    halves = np.float32([halves[0] + halves[2], halves[1]])
    assert REDUCTIONS["sum"](values, (0,)) == [halves[0] + halves[1]]


@pytest.mark.parametrize(("function", "error"), [("sum", 2e-7), ("prod", 1e-5)])
def test_the_order_is_that_of_the_elements_however_they_lie_in_memory(function: str, error: float):
    values = np.random.default_rng(0).uniform(0.9, 1.1, (3, 40, 80)).astype(np.float32)
    last = np.ascontiguousarray(values.transpose(1, 2, 0)).transpose(2, 0, 1)
    reduce = REDUCTIONS[function]
    np.testing.assert_array_equal(reduce(values, (1, 2)), reduce(last, (1, 2)))
    wide = {"sum": np.sum, "prod": np.prod}[function](values.astype(np.float64), axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(reduce(last, (1, 2)), wide, rtol=error)


@pytest.mark.parametrize(("function", "neutral"), [("sum", 0), ("prod", 1)])
def test_nothing_gives_the_neutral_element(function: str, neutral: int):
    assert REDUCTIONS[function](np.zeros((2, 0), np.int64), (1,)).tolist() == [[neutral]] * 2
    assert REDUCTIONS[function](np.ones((2, 3), np.int64), ()).shape == (2, 3)
