"""Rounding of float32 to narrower formats, against ml_dtypes and by hand."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.compiler.losses.rounding import rounded
from gimlet.runtime.errors import UsageError

FLOATS = st.lists(st.floats(width=32, allow_nan=True), min_size=1, max_size=40)


@given(FLOATS)
def test_halves_are_those_of_ml_dtypes(values: list[float]):
    array = np.array(values, np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(rounded(array, "bf16"), array.astype(ml_dtypes.bfloat16).astype(np.float32))
        np.testing.assert_array_equal(rounded(array, "fp16"), array.astype(np.float16).astype(np.float32))


@given(FLOATS)
def test_tf32_has_ten_bits_and_is_as_near_as_that_allows(values: list[float]):
    array = np.array(values, np.float32)
    found = rounded(array, "tf32")
    normal = np.isfinite(found) & (np.abs(array) > 1e-30)
    assert not (found[np.isfinite(found)].view(np.uint32) & 0x1FFF).any()
    assert (np.abs(found[normal] - array[normal]) <= np.abs(array[normal]) * 2.0**-11).all()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(array))


def test_blocks_run_along_the_axis():
    values = np.ones((32, 2), np.float32)
    values[0, 0] = 128.0
    along = rounded(values, "mxint8", 0)
    assert (along[1:, 0] == 2.0 * np.rint(0.5)).all()
    assert (along[:, 1] == 1.0).all()
    np.testing.assert_array_equal(rounded(values.T, "mxint8").T, along)


def test_what_is_not_float32_stays():
    indices = np.arange(3)
    assert rounded(indices, "bf16") is indices
    assert rounded(np.float32(1.00001).reshape(()), "bf16").shape == ()


def test_an_unknown_format_is_refused():
    with pytest.raises(UsageError, match="what int3 loses is not known"):
        rounded(np.ones(2, np.float32), "int3")
