"""Tensors as ONNX Runtime's C interface has them: made of numpy arrays, and read back as such."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import lru_cache
from itertools import pairwise
from math import prod

import numpy as np

from gimlet.runtime.executors.c_library import address_of
from gimlet.runtime.executors.ort_library import STRING_TYPE, OrtError, OrtLibrary
from gimlet.runtime.packed import BITS, pack, unpack
from gimlet.runtime.tensors import numpy_type, onnx_type, type_name, type_of_onnx

# ONNX Runtime's numbers of element types are ONNX's up to 23; of those after, it numbers by its own order.
_OWN_NUMBERS = {"uint2": 24, "int2": 25, "float8_e8m0fnu": 26}
_OWN_NAMES = {number: name for name, number in _OWN_NUMBERS.items()}
_MOST_DIMS = 64
"""numpy's own limit (NPY_MAXDIMS)."""
_SMALL_BYTES = 32 << 10
"""Up to this size a copy is quicker than letting an array keep the tensor alive (by 6 µs at 256 bytes)."""


def element_number(dtype: str) -> int:
    """ONNX Runtime's number of an element type."""
    return _OWN_NUMBERS.get(dtype) or onnx_type(dtype)


@lru_cache(maxsize=64)
def _element(number: int) -> tuple[np.dtype, int]:
    """The numpy type of ONNX Runtime's number of an element type, and its bits where several share a byte, else 0.

    Kept, because numpy takes longer to say a type's name than ONNX Runtime takes for a small model.
    """
    name = _OWN_NAMES.get(number)
    dtype = numpy_type(name) if name else type_of_onnx(number)
    return dtype, BITS.get(dtype.name, 0)


def make_strings(library: OrtLibrary, array: np.ndarray) -> int:
    """A tensor of texts, which has a copy of them."""
    dims = (c_int64 * array.ndim)(*array.shape)
    value = library.new("CreateTensorAsOrtValue", library.allocator, dims, array.ndim, STRING_TYPE)
    texts = [str(text).encode() for text in array.reshape(-1).tolist()]
    joined = b"\0".join(texts) + b"\0"
    block = (ctypes.c_char * len(joined)).from_buffer_copy(joined)
    starts = np.cumsum([0, *(len(text) + 1 for text in texts[:-1])], dtype=np.uintp) + ctypes.addressof(block)
    library.call("FillStringTensor", value, (c_char_p * len(texts)).from_buffer(starts.data), len(texts))
    if joined.count(0) > len(texts):
        _fill_with_zeros(library, value, texts)
    return value


def _fill_with_zeros(library: OrtLibrary, value: int, texts: Sequence[bytes]) -> None:
    """Gives a tensor again the texts that have zero bytes, which end a text for `FillStringTensor`."""
    for index, text in enumerate(texts):
        if b"\0" in text:
            place = library.new("GetResizedStringTensorElementBuffer", value, index, len(text))
            ctypes.memmove(place, text, len(text))


def make_tensor(library: OrtLibrary, array: np.ndarray, kept: list[np.ndarray]) -> int:
    """A tensor over an array's own memory, which `kept` keeps alive; over packed memory, for less than a byte each."""
    name = type_name(array.dtype)
    number = element_number(name)
    if number == STRING_TYPE:
        return make_strings(library, array)
    memory = pack(array, BITS[name]) if name in BITS else array
    kept.append(memory)
    dims = (c_int64 * array.ndim)(*array.shape)
    return library.new(
        "CreateTensorWithDataAsOrtValue",
        library.cpu_memory,
        address_of(memory),
        memory.nbytes,
        dims,
        array.ndim,
        number,
    )


class TensorReader:
    """Makes arrays of OrtValues. What the library's functions write to is kept, so one thread at a time may use it."""

    def __init__(self, library: OrtLibrary) -> None:
        self.library = library
        self._describe = library.function("GetTensorTypeAndShape")
        self._count = library.function("GetDimensionsCount")
        self._type = library.function("GetTensorElementType")
        self._sizes = library.function("GetDimensions")
        self._data = library.function("GetTensorMutableData")
        self._handle, self._rank, self._element = c_void_p(), c_size_t(), c_int()
        self._handle_place, self._rank_place = byref(self._handle), byref(self._rank)
        self._element_place = byref(self._element)
        self._dims = (c_int64 * _MOST_DIMS)()

    def read(self, value: int) -> tuple[np.ndarray, bool]:
        """The tensor of an OrtValue, and whether it is a view that keeps and finally releases the value.

        OrtError for a value of another kind.
        """
        shape = self._described(value)
        number = self._element.value
        if number == STRING_TYPE:
            return strings_of(self.library, value, prod(shape)).reshape(shape), False
        dtype, bits = _element(number)
        size = (prod(shape) * bits + 7) // 8 if bits else prod(shape) * dtype.itemsize
        if not size:
            return np.empty(shape, dtype), False
        self.library.check(self._data(value, self._handle_place))
        memory = (ctypes.c_char * size).from_address(self._handle.value or 0)
        if bits:
            return unpack(np.frombuffer(memoryview(memory), np.uint8), dtype, bits, shape), False
        if size <= _SMALL_BYTES:
            return np.ndarray(shape, dtype, memoryview(memory)).copy(), False
        self.library.release_with(memory, "ReleaseValue", value)
        return np.ndarray(shape, dtype, memoryview(memory)), True

    def _described(self, value: int) -> tuple[int, ...]:
        """A tensor's shape; its element type is then in `_element`."""
        library = self.library
        library.check(self._describe(value, self._handle_place))
        info = self._handle.value or 0
        try:
            status = self._type(info, self._element_place) or self._count(info, self._rank_place)
            rank = self._rank.value
            library.check(status or self._sizes(info, self._dims, min(rank, _MOST_DIMS)))
        finally:
            library.release("ReleaseTensorTypeAndShapeInfo", info)
        if rank > _MOST_DIMS:
            raise OrtError(f"the output has {rank} dimensions, and an array has at most {_MOST_DIMS}")
        return tuple(self._dims[:rank])


def strings_of(library: OrtLibrary, handle: int, count: int) -> np.ndarray:
    if not count:
        return np.empty(0, dtype=object)
    length = c_size_t()
    library.call("GetStringTensorDataLength", handle, byref(length))
    text = ctypes.create_string_buffer(length.value)
    offsets = (c_size_t * count)()
    library.call("GetStringTensorContent", handle, text, length.value, offsets, count)
    content = text.raw
    found = np.empty(count, dtype=object)
    found[:] = [content[start:end].decode("utf-8", "replace") for start, end in pairwise([*offsets[:], length.value])]
    return found
