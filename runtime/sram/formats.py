"""Number formats: how many bytes they take, how they are rounded, and how weights are stored.

The emulator carries values in numpy types that hold them exactly (`CARRIERS`): bf16 and MXINT8 in float32.

MXINT8 is the OCP Microscaling format (MX v1.0, section 5 and 6.3): blocks of 32 elements share a power of two,
2^(floor(log2(max |v|))), stored as E8M0; an element is an 8-bit integer with an implied factor 2⁻⁶, rounded to nearest
even and clamped to ±127 so that it is symmetric. A block of zeros has the smallest scale, a block with an infinity or a
NaN has the scale NaN. Blocks run along the last dimension, whose last block may be partial in value but not in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from gimlet.runtime.errors import InputError

MX_BLOCK = 32
MX_NAN_SCALE = 255
_MX_BIAS = 127
_MX_MIN_EXPONENT, _MX_MAX_EXPONENT = -127, 127
_MX_FRACTION_BITS = 6
_MX_LARGEST = 127.0
_PIECE_BYTES = 8 << 20

FloatArray = np.ndarray[Any, np.dtype[np.float32]]

CARRIERS: dict[str, type[np.generic]] = {
    "f32": np.float32,
    "f16": np.float32,
    "bf16": np.float32,
    "mxint8": np.float32,
    "i64": np.int64,
    "i32": np.int32,
    "i16": np.int16,
    "i8": np.int8,
    "ui8": np.uint8,
    "i1": np.bool_,
}
"""The element types of tensors and tiles, and the numpy type that carries each in the emulator."""

_ITEM_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "i64": 8, "i32": 4, "i16": 2, "i8": 1, "ui8": 1, "i1": 1}
_STORED = {"f16": np.dtype(np.float16), "bf16": np.dtype(np.uint16)}
FLOATS = frozenset({"f32", "f16", "bf16", "mxint8"})
SUMS: dict[str, str] = {"f32": "f32", "bf16": "f32", "mxint8": "f32", "i8": "i32"}
"""The element types that the matrix unit multiplies, and what it adds their products up in."""


def stored_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a dense tensor in memory. MXINT8 pads the last dimension to blocks, each with one byte of scale."""
    if dtype != "mxint8":
        return _ITEM_BYTES[dtype] * prod(shape)
    blocks = -(-shape[-1] // MX_BLOCK) if shape else 1
    return prod(shape[:-1]) * blocks * (MX_BLOCK + 1)


def moved_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of the elements of a tile, whichever dimension of it runs along the blocks of MXINT8."""
    if dtype != "mxint8":
        return _ITEM_BYTES[dtype] * prod(shape)
    return -(-prod(shape) // MX_BLOCK) * (MX_BLOCK + 1)


def round_bf16(values: FloatArray) -> FloatArray:
    """The nearest bf16 of each float32, ties to even, as float32. NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    rounded &= np.uint32(0xFFFF0000)
    result = rounded.view(np.float32)
    missing = np.isnan(values)
    if missing.any():
        result[missing] = np.float32(np.nan)
    return result


def mx_exponents(blocks: FloatArray) -> np.ndarray[Any, np.dtype[np.int32]]:
    """The shared exponent of each block: `blocks` is [..., 32], the result [...]. Blocks must be finite."""
    largest = np.abs(blocks).max(axis=-1)
    _, exponent = np.frexp(largest)
    shared = np.where(largest > 0, exponent - 1, _MX_MIN_EXPONENT)
    return np.clip(shared, _MX_MIN_EXPONENT, _MX_MAX_EXPONENT).astype(np.int32)


def _blocked(values: FloatArray) -> FloatArray:
    """`values` as [..., blocks, 32], the last dimension padded with zeros."""
    length = values.shape[-1]
    padding = -length % MX_BLOCK
    if padding:
        values = np.concatenate([values, np.zeros((*values.shape[:-1], padding), np.float32)], axis=-1)
    return values.reshape(*values.shape[:-1], (length + padding) // MX_BLOCK, MX_BLOCK)


def _encode_blocks(blocks: FloatArray) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    finite = np.asarray(np.isfinite(blocks).all(axis=-1))
    if not finite.all():
        blocks = np.where(finite[..., None], blocks, np.float32(0))
    exponents = mx_exponents(blocks)
    scaled = np.ldexp(blocks, (_MX_FRACTION_BITS - exponents)[..., None])
    elements = np.clip(np.rint(scaled, out=scaled), -_MX_LARGEST, _MX_LARGEST, out=scaled)
    return elements, exponents, finite


def round_mxint8(values: FloatArray) -> FloatArray:
    """What is left of float32 values after a trip through MXINT8 along the last dimension."""
    values = np.asarray(values, np.float32)
    if not values.size:
        return values
    elements, exponents, finite = _encode_blocks(_blocked(values))
    decoded = np.ldexp(elements, (exponents - _MX_FRACTION_BITS)[..., None])
    if not finite.all():
        decoded[~finite] = np.float32(np.nan)
    flat = decoded.reshape(*values.shape[:-1], -1)
    return flat[..., : values.shape[-1]]


def round_to(dtype: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values as element type `dtype` holds them, in its carrier. MXINT8 along the last dimension."""
    if dtype == "bf16":
        return round_bf16(values.astype(np.float32, copy=False))
    if dtype == "mxint8":
        return round_mxint8(values.astype(np.float32, copy=False))
    if dtype == "f16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    return values.astype(CARRIERS[dtype], copy=False)


def encode(dtype: str, values: np.ndarray[Any, Any]) -> bytes:
    """The stored form of a tensor, little endian. MXINT8: every element of every block, then one scale a block."""
    if dtype == "bf16":
        bits = round_bf16(values.astype(np.float32, copy=False)).view(np.uint32) >> np.uint32(16)
        return bits.astype("<u2").tobytes()
    if dtype == "mxint8":
        elements, exponents, finite = _encode_blocks(_blocked(values.astype(np.float32, copy=False)))
        scales = np.where(finite, exponents + _MX_BIAS, MX_NAN_SCALE).astype(np.uint8)
        return elements.astype(np.int8).tobytes() + scales.tobytes()
    stored = _STORED.get(dtype, np.dtype(CARRIERS[dtype]))
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values).astype(stored).astype(stored.newbyteorder("<")).tobytes()


def encode_pieces(dtype: str, values: np.ndarray[Any, Any]) -> Iterator[bytes]:
    """What `encode` gives, in pieces of about 8 MB that need little memory to make."""
    if values.size == 0 or values.ndim == 0:
        yield encode(dtype, values)
        return
    rows = values.reshape(-1, values.shape[-1])
    step = max(1, _PIECE_BYTES // (rows.shape[1] * values.itemsize))
    scales: list[bytes] = []
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        data = encode(dtype, part)
        elements = len(part) * -(-rows.shape[1] // MX_BLOCK) * MX_BLOCK if dtype == "mxint8" else len(data)
        yield data[:elements]
        scales.append(data[elements:])
    yield b"".join(scales)


def decode(dtype: str, data: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The tensor, in its carrier, that `encode` stored as the bytes `data` (uint8). InputError if they do not fit."""
    size = stored_bytes(dtype, shape)
    if data.nbytes != size:
        raise InputError(f"a tensor of {dtype} {list(shape)} takes {size} bytes, not {data.nbytes}")
    if dtype == "bf16":
        return (data.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(shape)
    if dtype == "mxint8":
        return _decode_mxint8(data, shape)
    stored = _STORED.get(dtype, np.dtype(CARRIERS[dtype]))
    return data.view(stored.newbyteorder("<")).astype(CARRIERS[dtype]).reshape(shape)


def _decode_mxint8(data: np.ndarray[Any, Any], shape: tuple[int, ...]) -> FloatArray:
    blocks = -(-shape[-1] // MX_BLOCK)
    count = prod(shape[:-1]) * blocks
    elements = data[: count * MX_BLOCK].view(np.int8).astype(np.float32).reshape(count, MX_BLOCK)
    scales = data[count * MX_BLOCK :].astype(np.int32)
    values = np.ldexp(elements, (scales - _MX_BIAS - _MX_FRACTION_BITS)[:, None])
    values[scales == MX_NAN_SCALE] = np.float32(np.nan)
    return values.reshape(*shape[:-1], blocks * MX_BLOCK)[..., : shape[-1]]
