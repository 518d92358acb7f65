"""The weights of a module: read when asked for, from where they are.

The text of a module names a weight by its key; the bytes stay in the model's own file (mapped into memory), in the
tensors of PyTorch, or in numpy arrays. A model on PyTorch's `meta` device has weights with a shape and no bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gimlet.dialects.onnx.types import element_by_dtype
from gimlet.dialects.onnx.weight_pieces import give_back, pieces
from gimlet.runtime import packed
from gimlet.runtime.errors import InputError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


_LONGEST_NAME = 255
"""Bytes that a file's name may have on the systems that this runs on."""


class Weight:
    """One tensor of the store. `dtype` comes from ml_dtypes where numpy has no such type.

    `identity` tells whether two weights are the same bytes in the same place, which keeps tied weights one.
    """

    def __init__(
        self,
        key: str,
        dtype: np.dtype[Any],
        shape: Sequence[int],
        read: Callable[[], Array] | None,
        identity: Hashable = None,
    ) -> None:
        self.key = key
        self.dtype = np.dtype(dtype)
        self.shape = tuple(int(size) for size in shape)
        self.identity = identity
        self._read = read
        self._digest: str | None = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes that the tensor takes in a file: elements of less than a byte are packed."""
        return (self.size * element_by_dtype(self.dtype).bits + 7) // 8

    @property
    def has_data(self) -> bool:
        """False for a weight of which only the shape is known."""
        return self._read is not None

    def array(self) -> Array:
        """The values: a view of the file or tensor wherever possible. InputError for a weight without data."""
        if self._read is None:
            raise InputError(
                f"weight {self.key!r} has a shape but no values",
                hint="the model was made on the meta device: load its weights before this step",
            )
        return self._read()

    def digest(self) -> str:
        """The SHA-256 of the values, little-endian and in C order, one byte at least for an element. Computed once."""
        if self._digest is None:
            digest = hashlib.sha256()
            for piece in pieces(self.array()):
                digest.update(piece.view(np.uint8).data)
            self._digest = digest.hexdigest()
        return self._digest

    def __repr__(self) -> str:
        return f"Weight({self.key!r}, {self.dtype}, {list(self.shape)})"


class WeightStore:
    """Weights by key. A key that is taken by other bytes gets a suffix: use the key that the `add` methods return."""

    def __init__(self) -> None:
        self._weights: dict[str, Weight] = {}
        self._by_identity: dict[Hashable, str] = {}
        self._maps: dict[Path, Array] = {}

    def __getitem__(self, key: str) -> Weight:
        if key not in self._weights:
            raise InputError(
                f"there is no weight {key!r} in the store",
                hint="IR that was read from text has no weights: load the model that it came from",
            )
        return self._weights[key]

    def __contains__(self, key: object) -> bool:
        return key in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def add(self, key: str, array: Array) -> str:
        """Adds an array, which must not change afterwards."""
        place = array.__array_interface__["data"][0]
        identity = ("array", place, array.dtype.str, array.shape, array.strides) if array.size else None
        return self._insert(Weight(key, array.dtype, array.shape, lambda: array, identity))

    def add_file(self, key: str, path: Path | str, offset: int, dtype: np.dtype[Any], shape: Sequence[int]) -> str:
        """Adds a tensor that a file has at byte `offset`, packed as ONNX does. InputError if the file is too short."""
        path = Path(path).resolve()
        if len(path.name.encode()) > _LONGEST_NAME:
            raise InputError(f"weight {key!r}: there is no file {path.name[:40]}…", hint="the name is too long for one")
        dtype = np.dtype(dtype)
        weight = Weight(key, dtype, shape, None)
        if not path.is_file():
            raise InputError(f"weight {key!r}: there is no file {path}", hint="copy the model with its data files")
        end = offset + weight.nbytes
        if end > path.stat().st_size:
            raise InputError(
                f"weight {key!r} ends at byte {end} of {path}, which has {path.stat().st_size}",
                hint="the file is cut short: copy it again",
            )
        identity = ("file", str(path), offset, str(dtype), weight.shape)
        return self._insert(Weight(key, dtype, shape, lambda: self._read_file(path, offset, weight), identity))

    def add_lazy(
        self,
        key: str,
        dtype: np.dtype[Any],
        shape: Sequence[int],
        read: Callable[[], Array],
        identity: Hashable = None,
    ) -> str:
        """Adds a tensor that `read` gives when it is asked for."""
        return self._insert(Weight(key, dtype, shape, read, identity))

    def add_meta(self, key: str, dtype: np.dtype[Any], shape: Sequence[int], identity: Hashable = None) -> str:
        """Adds a tensor of which only the shape is known."""
        return self._insert(Weight(key, dtype, shape, None, identity))

    def give_back(self) -> None:
        """Lets the system take the pages of mapped files that were read; they are read again when asked for."""
        for mapped in self._maps.values():
            give_back(mapped)

    def _insert(self, weight: Weight) -> str:
        if weight.identity is not None:
            known = self._by_identity.get(weight.identity)
            if known is not None:
                return known
        key = weight.key
        suffix = 0
        while key in self._weights:
            suffix += 1
            key = f"{weight.key}.{suffix}"
        weight.key = key
        self._weights[key] = weight
        if weight.identity is not None:
            self._by_identity[weight.identity] = key
        return key

    def _read_file(self, path: Path, offset: int, weight: Weight) -> Array:
        if path not in self._maps:
            self._maps[path] = np.memmap(path, dtype=np.uint8, mode="r")
        raw = self._maps[path][offset : offset + weight.nbytes]
        return unpack(raw, weight.dtype, weight.shape)


def unpack(raw: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """The tensor that ONNX's raw bytes hold: a view, or a copy for elements of less than a byte."""
    bits = element_by_dtype(dtype).bits
    if bits >= 8:
        return raw.view(dtype).reshape(shape)
    return packed.unpack(raw, dtype, bits, shape)
