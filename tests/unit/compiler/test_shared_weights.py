"""The weights file: aligned, each tensor once, packed as ONNX packs, and never whole in memory."""

import hashlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir
import pytest

from gimlet.compiler.shared_weights import ALIGNMENT, LARGE, PAGE, WEIGHTS, SharedWeights
from gimlet.dialects.onnx.weight_pieces import PIECE_BYTES


@pytest.fixture
def weights(tmp_path: Path) -> Iterator[SharedWeights]:
    writer = SharedWeights(tmp_path)
    yield writer
    writer.close()


def test_tensors_are_aligned_and_equal_ones_stored_once(weights: SharedWeights, tmp_path: Path):
    small, large = np.arange(3, dtype=np.float32), np.ones(LARGE, np.uint8)
    places = [weights.add(array) for array in (small, large, small + 1, small.copy())]
    assert [place.offset for place in places] == [0, PAGE, PAGE + LARGE, 0]
    assert places[3] == places[0]
    assert places[2].offset % ALIGNMENT == 0
    assert weights.uses == 4
    weights.close()
    data = (tmp_path / WEIGHTS).read_bytes()
    assert len(data) == weights.nbytes
    assert hashlib.sha256(data).hexdigest() == weights.sha256
    for array, place in zip((small, large, small + 1), places, strict=False):
        assert data[place.offset : place.offset + place.length] == array.tobytes()


def test_bytes_can_be_read_at_once(weights: SharedWeights, tmp_path: Path):
    place = weights.add(np.arange(5, dtype=np.int16))
    assert (tmp_path / WEIGHTS).read_bytes()[place.offset :] == np.arange(5, dtype=np.int16).tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
        np.arange(8).astype(ml_dtypes.bfloat16),
        np.array([1, -2, 7, -8, 3], ml_dtypes.int4),
        np.array([1, 2, 15], ml_dtypes.uint4),
        np.array([True, False]),
        np.float32(2.5).reshape(()),
        np.zeros((0, 3), np.float32),
    ],
    ids=["strided", "bfloat16", "int4", "uint4", "bool", "scalar", "empty"],
)
def test_what_is_stored_is_what_onnx_stores(weights: SharedWeights, tmp_path: Path, array: np.ndarray):
    weights.add(np.zeros(1, np.uint8))
    place = weights.add(array)
    expected = onnx_ir.tensor(np.ascontiguousarray(array)).tobytes()
    assert (tmp_path / WEIGHTS).read_bytes()[place.offset : place.offset + place.length] == expected


def test_a_large_tensor_is_never_whole_in_memory(weights: SharedWeights, tmp_path: Path):
    size = 4 * PIECE_BYTES
    source = np.memmap(tmp_path / "source", np.uint8, "w+", shape=(size,))
    tracemalloc.start()
    try:
        weights.add(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < PIECE_BYTES
    assert weights.nbytes == size


def test_without_weights_there_is_no_file(weights: SharedWeights, tmp_path: Path):
    weights.close()
    assert list(tmp_path.iterdir()) == []
