"""Weights piece by piece: every byte once and in order, and a mapped file's pages given back."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.dialects.onnx import weight_pieces
from gimlet.dialects.onnx.weight_pieces import PIECE_BYTES, pieces
from gimlet.dialects.onnx.weights import WeightStore


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    array = np.arange(int(np.prod(shape)), dtype=draw(st.sampled_from([np.float32, np.int64, np.uint8])))
    return array.reshape(shape).transpose(draw(st.permutations(range(len(shape)))))


@given(array=arrays(), piece_bytes=st.integers(1, 64))
def test_pieces_together_are_the_array_in_c_order(array: np.ndarray, piece_bytes: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_pieces, "PIECE_BYTES", piece_bytes)
        found = list(pieces(array))
    assert b"".join(piece.tobytes() for piece in found) == array.tobytes()
    assert all(piece.flags.c_contiguous and piece.nbytes <= max(piece_bytes, array.itemsize) for piece in found)


def mapped_bytes() -> int:
    """The pages of files that count as this process's memory."""
    return int(re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10


@pytest.fixture
def stored(tmp_path: Path) -> WeightStore:
    size = 8 * PIECE_BYTES
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(size)
    store = WeightStore()
    store.add_file("w", tmp_path / "weights.bin", 0, np.dtype(np.float32), (1024, size // 4096))
    return store


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_a_mapped_file_does_not_stay_in_memory(stored: WeightStore, axes: tuple[int, int]):
    array = stored["w"].array().transpose(axes)
    before = mapped_bytes()
    assert sum(int(piece.view(np.uint8).max()) for piece in pieces(array)) == 0
    assert mapped_bytes() - before < 2 * PIECE_BYTES


def test_a_store_gives_back_what_was_read(stored: WeightStore):
    before = mapped_bytes()
    assert stored["w"].array().max() == 0
    assert mapped_bytes() - before > 4 * PIECE_BYTES
    stored.give_back()
    assert mapped_bytes() - before < PIECE_BYTES
    assert stored["w"].array()[-1, -1] == 0


def test_arrays_that_a_program_may_change_are_let_be(tmp_path: Path):
    (tmp_path / "data").write_bytes(bytes(4096))
    array = np.memmap(tmp_path / "data", dtype=np.uint8, mode="c")
    array[:] = 7
    assert [int(piece.min()) for piece in pieces(array)] == [7]
    assert array.min() == 7
