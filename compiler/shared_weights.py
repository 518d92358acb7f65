"""The weights of all segments in one file of the bundle, written from file to file.

A tensor starts at a multiple of 64 bytes, a large one at a multiple of a page, so that a runtime can use it where it
is mapped. Equal tensors are stored once. Nothing is held in memory but one piece.

A model refers to its weights by ONNX's external data, with a location relative to the *bundle's* folder
(`weights/weights.bin`): libraries refuse a location that leaves the model's own folder by `..`, so an executor reads
the model as bytes and names the bundle as the folder of its external data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from gimlet.dialects.onnx.types import element_by_dtype
from gimlet.dialects.onnx.weight_pieces import pieces

WEIGHTS = "weights/weights.bin"
ALIGNMENT = 64
PAGE = 4096
LARGE = 64 << 10

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class WeightRef:
    """Where a tensor lies: a path relative to the bundle, an offset and a length in bytes."""

    path: str
    offset: int
    length: int


class SharedWeights:
    """The writer of one weights file, `path` under the folder `root`. The file exists once a tensor was added.

    `uses` counts the calls of `add`: where it grew while a target emitted, the artifact needs this file.
    """

    def __init__(self, root: Path, path: str = WEIGHTS) -> None:
        self.path = path
        self.uses = 0
        self._target = root / path
        self._file: BinaryIO | None = None
        self._end = 0
        self._hash = hashlib.sha256()
        self._places: dict[tuple[str, int], WeightRef] = {}

    @property
    def sha256(self) -> str:
        """The hash of all that was written so far."""
        return self._hash.hexdigest()

    @property
    def nbytes(self) -> int:
        """The size of the file so far."""
        return self._end

    def add(self, array: Array, digest: str = "") -> WeightRef:
        """Stores a tensor as ONNX does (little-endian, C order, elements under a byte packed) and says where.

        `digest` is any hash of the values that the caller has; equal tensors are found by it. Without one the tensor
        is read twice. The bytes are in the file when this returns.
        """
        self.uses += 1
        bits = element_by_dtype(array.dtype).bits
        length = (array.size * bits + 7) // 8
        key = (digest or _digest(array, bits), length)
        place = self._places.get(key)
        if place is None:
            place = WeightRef(self.path, self._pad(PAGE if length >= LARGE else ALIGNMENT), length)
            for chunk in _chunks(array, bits):
                self._write(chunk)
            if self._file is not None:
                self._file.flush()
            self._places[key] = place
        return place

    def close(self) -> None:
        """Closes the file. A second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _pad(self, alignment: int) -> int:
        self._write(bytes(-self._end % alignment))
        return self._end

    def _write(self, data: bytes | memoryview) -> None:
        if self._file is None:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._target.open("xb")
        self._file.write(data)
        self._hash.update(data)
        self._end += len(data)


def _digest(array: Array, bits: int) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(array, bits):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(array: Array, bits: int) -> Iterator[memoryview]:
    """The bytes that ONNX stores for `array`, a piece at a time."""
    for piece in pieces(array):
        raw = piece.astype(piece.dtype.newbyteorder("<"), copy=False).view(np.uint8)
        yield (raw if bits >= 8 else _packed(raw, bits)).data


def _packed(raw: np.ndarray, bits: int) -> np.ndarray:
    """Elements of `bits` bits, one a byte, packed with the first in the lowest bits."""
    spread = np.unpackbits(raw.reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(spread.reshape(-1), bitorder="little")
