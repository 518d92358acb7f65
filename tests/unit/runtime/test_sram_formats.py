"""Number formats of the SRAM machine: bf16 against ml_dtypes, MXINT8 against its definition, element by element."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gimlet.runtime.errors import InputError
from gimlet.runtime.sram import formats
from gimlet.runtime.sram.formats import (
    CARRIERS,
    decode,
    encode,
    encode_pieces,
    round_bf16,
    round_mxint8,
    round_to,
    stored_bytes,
)

FLOAT32 = st.floats(width=32)
ROWS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=2, max_side=70), elements=FLOAT32)


def mxint8_of(block: list[float]) -> list[float]:
    """One block by the definition of the OCP MX specification, in exact arithmetic: no numpy, no float32."""
    if any(math.isnan(v) or math.isinf(v) for v in block):
        return [math.nan] * len(block)
    largest = max(abs(v) for v in block)
    if not largest:
        return [0.0] * len(block)
    exponent = max(math.floor(math.log2(largest)), -127)
    # log2 rounds: correct it, so that 2^exponent <= largest < 2^(exponent + 1) unless it is clamped.
    while exponent > -127 and 2.0**exponent > largest:
        exponent -= 1
    while 2.0 ** (exponent + 1) <= largest:
        exponent += 1
    scale = 2.0 ** (exponent - 6)
    # Python's round is half to even; an 8-bit integer, kept symmetric.
    return [max(-127, min(127, round(v / scale))) * scale for v in block]


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_bf16_rounds_as_ml_dtypes_does(values):
    with np.errstate(over="ignore"):
        expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(round_bf16(values), expected)


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_mxint8_is_the_definition(values):
    rows = values.reshape(-1, values.shape[-1])
    expected = [
        value
        for row in rows
        for start in range(0, len(row), 32)
        for value in mxint8_of([float(v) for v in row[start : start + 32]])
    ]
    found = round_mxint8(values).reshape(rows.shape)
    np.testing.assert_array_equal(found, np.array(expected, np.float32).reshape(rows.shape))


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ([1.0, 1.5, -1.984375], [1.0, 1.5, -1.984375]),
        ([1.999, 0.0078125], [1.984375, 0.0]),  # 127.9 is clamped, and half a step goes to even
        ([1.0, 0.0234375], [1.0, 0.03125]),  # one and a half steps go to even too
        ([3.0, 0.03125], [3.0, 0.03125]),
        ([0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_mxint8_by_hand(block, expected):
    padded = np.array(block + [0.0] * (32 - len(block)), np.float32)
    assert round_mxint8(padded)[: len(block)].tolist() == expected


@given(ROWS, st.sampled_from(["f32", "f16", "bf16", "mxint8"]))
@settings(max_examples=60, deadline=None)
def test_what_is_stored_comes_back_rounded(values, dtype):
    data = np.frombuffer(encode(dtype, values), np.uint8)
    assert data.nbytes == stored_bytes(dtype, values.shape)
    np.testing.assert_array_equal(decode(dtype, data, values.shape), round_to(dtype, values))


@pytest.mark.parametrize("dtype", ["i64", "i32", "i16", "i8", "ui8", "i1"])
def test_integers_are_stored_as_they_are(dtype):
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(CARRIERS[dtype])
    data = np.frombuffer(encode(dtype, values), np.uint8)
    np.testing.assert_array_equal(decode(dtype, data, values.shape), values)


def test_a_block_takes_33_bytes():
    assert stored_bytes("mxint8", (64, 64)) == 64 * 2 * 33
    assert stored_bytes("mxint8", (3, 33)) == 3 * 2 * 33


def test_bytes_that_do_not_fit():
    with pytest.raises(InputError, match="takes 8 bytes, not 6"):
        decode("bf16", np.zeros(6, np.uint8), (4,))


@given(ROWS, st.sampled_from(["f32", "f16", "bf16", "mxint8", "i8"]), st.integers(1, 2000))
@settings(max_examples=60, deadline=None)
def test_pieces_are_what_is_stored(values, dtype, piece_bytes):
    with pytest.MonkeyPatch.context() as patch, np.errstate(invalid="ignore"):
        patch.setattr(formats, "_PIECE_BYTES", piece_bytes)
        assert b"".join(encode_pieces(dtype, values)) == encode(dtype, values)


def test_a_single_number_and_none_are_one_piece():
    assert list(encode_pieces("f32", np.float32(1))) == [np.float32(1).tobytes()]
    assert b"".join(encode_pieces("bf16", np.zeros((0, 4), np.float32))) == b""
