"""Tensors as ONNX Runtime's C interface has them: made of numpy arrays, and read back as such."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_int64, c_size_t
from math import prod

import numpy as np

from gimlet.runtime.executors.ort_library import STRING_TYPE, OrtError, OrtLibrary
from gimlet.runtime.packed import BITS, pack, unpack
from gimlet.runtime.tensors import numpy_type, onnx_type, type_name, type_of_onnx

# ONNX Runtime's numbers of element types are ONNX's up to 23; of those after, it numbers by its own order.
_OWN_NUMBERS = {"uint2": 24, "int2": 25, "float8_e8m0fnu": 26}
_OWN_NAMES = {number: name for name, number in _OWN_NUMBERS.items()}


def element_number(dtype: str) -> int:
    """ONNX Runtime's number of an element type."""
    return _OWN_NUMBERS.get(dtype) or onnx_type(dtype)


def address_of(array: np.ndarray) -> int:
    """Where an array's data begins. The short way is for writable arrays of numpy's own types that are not empty."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
    except (TypeError, ValueError, BufferError):
        return array.ctypes.data


def make_strings(library: OrtLibrary, array: np.ndarray) -> int:
    """A tensor of texts, which has a copy of them."""
    dims = (c_int64 * array.ndim)(*array.shape)
    value = library.new("CreateTensorAsOrtValue", library.allocator, dims, array.ndim, STRING_TYPE)
    texts = [str(text).encode() for text in array.reshape(-1)]
    library.call("FillStringTensor", value, (c_char_p * len(texts))(*texts), len(texts))
    return value


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


def array_of(library: OrtLibrary, value: int) -> tuple[np.ndarray, bool]:
    """The tensor of an OrtValue, and whether it is a view that keeps and finally releases the value.

    OrtError for a value of another kind.
    """
    is_tensor = c_int()
    library.call("IsTensor", value, byref(is_tensor))
    if not is_tensor.value:
        raise OrtError("the output is no tensor (a sequence, a map or an empty optional)")
    info = library.new("GetTensorTypeAndShape", value)
    rank, element = c_size_t(), c_int()
    library.call("GetDimensionsCount", info, byref(rank))
    library.call("GetTensorElementType", info, byref(element))
    dims = (c_int64 * rank.value)()
    library.call("GetDimensions", info, dims, rank.value)
    library.release("ReleaseTensorTypeAndShapeInfo", info)
    shape = tuple(dims)
    if element.value == STRING_TYPE:
        return strings_of(library, value, prod(shape)).reshape(shape), False
    name = _OWN_NAMES.get(element.value)
    dtype = numpy_type(name) if name else type_of_onnx(element.value)
    bits = BITS.get(dtype.name, 8 * dtype.itemsize)
    size = (prod(shape) * bits + 7) // 8
    if not size:
        return np.empty(shape, dtype), False
    if dtype.name in BITS:
        packed = (ctypes.c_ubyte * size).from_address(library.new("GetTensorMutableData", value))
        return unpack(np.frombuffer(memoryview(packed), np.uint8), dtype, bits, shape), False
    memory = (ctypes.c_char * size).from_address(library.new("GetTensorMutableData", value))
    library.release_with(memory, "ReleaseValue", value)
    return np.frombuffer(memoryview(memory), dtype).reshape(shape), True


def strings_of(library: OrtLibrary, handle: int, count: int) -> np.ndarray:
    if not count:
        return np.empty(0, dtype=object)
    length = c_size_t()
    library.call("GetStringTensorDataLength", handle, byref(length))
    text = ctypes.create_string_buffer(length.value)
    offsets = (c_size_t * count)()
    library.call("GetStringTensorContent", handle, text, length.value, offsets, count)
    ends = [*offsets[1:], length.value]
    found = [text.raw[start:end].decode("utf-8", "replace") for start, end in zip(offsets, ends, strict=True)]
    return np.array(found, dtype=object)
