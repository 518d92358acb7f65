"""A weight's bytes piece by piece, so that one of many gigabytes is hashed and copied in the memory of one piece.

What is mapped from a file counts as this process's memory once it was read (RssFile of /proc/PID/status), until it is
given back: that is done after each piece. The pages stay in the system's cache, which anybody may reclaim.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

PIECE_BYTES = 8 << 20


def pieces(array: Array) -> Iterator[Array]:
    """The elements of `array` in C order as flat contiguous arrays of at most `PIECE_BYTES` bytes.

    Only pieces of a strided array are copies. Pages of a mapped file are given back when the next piece is asked for;
    those of a strided array when all pieces were, since any of its pieces may touch all of them.
    """
    if array.flags.c_contiguous:
        yield from _contiguous(array.reshape(-1))
        return
    yield from _strided(array)
    give_back(array)


def _contiguous(flat: Array) -> Iterator[Array]:
    step = max(1, PIECE_BYTES // max(flat.itemsize, 1))
    for start in range(0, flat.size, step):
        piece = flat[start : start + step]
        yield piece
        give_back(piece)


def _strided(array: Array) -> Iterator[Array]:
    row_bytes = array.nbytes // array.shape[0] if array.size else 0
    if array.ndim > 1 and row_bytes > PIECE_BYTES:
        for row in array:
            yield from _strided(row)
        return
    step = max(1, PIECE_BYTES // max(row_bytes, 1))
    for start in range(0, array.shape[0] if array.size else 0, step):
        yield np.ascontiguousarray(array[start : start + step]).reshape(-1)


def give_back(array: Array) -> None:
    """Lets the system take the pages that `array` covers of a file mapped for reading; they are read again if asked."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    whole = np.frombuffer(base, dtype=np.uint8)
    if whole.flags.writeable:
        return
    low, high = np.lib.array_utils.byte_bounds(array)
    start = (low - whole.ctypes.data) // mmap.PAGESIZE * mmap.PAGESIZE
    base.madvise(mmap.MADV_DONTNEED, start, high - whole.ctypes.data - start)
