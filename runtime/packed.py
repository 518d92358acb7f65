"""Elements of less than a byte: one to a byte in numpy, several to a byte in ONNX's raw data, the first one lowest."""

from __future__ import annotations

from math import prod

import numpy as np

BITS = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2}
"""The bits that an element takes, by the name of its type."""


def pack(array: np.ndarray, bits: int) -> np.ndarray:
    """The bytes that hold the elements of an array, in C order; the rest of the last byte is zero."""
    elements = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    spread = np.unpackbits(elements, bitorder="little").reshape(-1, 8)[:, :bits]
    return np.packbits(spread, bitorder="little")


def unpack(data: np.ndarray, dtype: np.dtype, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """The array of a shape that bytes hold: `pack` the other way round."""
    count = prod(shape)
    spread = np.unpackbits(data, bitorder="little", count=count * bits).reshape(count, bits)
    return np.packbits(spread, axis=1, bitorder="little").reshape(shape).view(dtype)
