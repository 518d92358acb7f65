"""Names, types and shapes of the tensors that a bundle speaks about.

An element type is spelled the way numpy spells it (`float32`, `int64`, `bool`); those that numpy lacks (`bfloat16`,
the 8-bit floats, `int4`) come from `ml_dtypes`, which is imported only when one of them is met.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from gimlet.runtime.errors import InputError, MissingError
from gimlet.runtime.expr import Expr

NUMPY_TYPES = (
    "float32",
    "float16",
    "float64",
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "complex64",
    "complex128",
)
EXTENDED_TYPES = (
    "bfloat16",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float4_e2m1fn",
    "int4",
    "uint4",
    "int2",
    "uint2",
)
STRING = "string"

_ONNX_TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "string": 8,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
    "complex64": 14,
    "complex128": 15,
    "bfloat16": 16,
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
    "uint4": 21,
    "int4": 22,
    "float4_e2m1fn": 23,
    "float8_e8m0fnu": 24,
    "uint2": 25,
    "int2": 26,
}


def is_element_type(name: str) -> bool:
    """Whether `name` is an element type that a manifest may hold."""
    return name in _ONNX_TYPES


@lru_cache(maxsize=64)
def numpy_type(name: str) -> np.dtype:
    """The numpy type called `name`; a string tensor holds Python objects.

    InputError for a name that is no element type, MissingError where it needs `ml_dtypes` and that is not installed.
    """
    if name in NUMPY_TYPES:
        return np.dtype(name)
    if name == STRING:
        return np.dtype(object)
    if name not in EXTENDED_TYPES:
        raise InputError(f"{name!r} is not an element type", hint=f"one of {', '.join(_ONNX_TYPES)}")
    try:
        import ml_dtypes
    except ImportError:
        raise MissingError(f"numpy has no {name} by itself", hint="pip install ml-dtypes") from None
    return np.dtype(getattr(ml_dtypes, name))


def as_array(value: Any) -> np.ndarray:
    """What a caller gives as an array, in its own memory where it has one. Errors as those of what is given."""
    if isinstance(value, np.ndarray):
        return value
    name = str(getattr(value, "dtype", ""))
    if name.startswith("torch.") and name.removeprefix("torch.") in EXTENDED_TYPES:
        return _of_extended(value, numpy_type(name.removeprefix("torch.")))
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    return np.asarray(value)


def _of_extended(tensor: Any, dtype: np.dtype) -> np.ndarray:
    """A tensor of PyTorch, which hands numpy the bits of these types only."""
    torch: Any = sys.modules["torch"]
    bits = torch.uint8 if dtype.itemsize == 1 else torch.int16
    return tensor.detach().view(bits).numpy().view(dtype)


@lru_cache(maxsize=64)
def type_name(dtype: np.dtype) -> str:
    """The manifest's name of a numpy type. InputError for one that no tensor has."""
    if dtype.kind in "OUT":
        return STRING
    if not is_element_type(dtype.name):
        raise InputError(f"numpy's {dtype} is not the type of a tensor")
    return dtype.name


def onnx_type(name: str) -> int:
    """The number of element type `name` in ONNX's `TensorProto.DataType`."""
    return _ONNX_TYPES[name]


def type_of_onnx(number: int) -> np.dtype:
    """The numpy type of a number in ONNX's `TensorProto.DataType`. InputError for one that no tensor here has."""
    for name, known in _ONNX_TYPES.items():
        if known == number:
            return numpy_type(name)
    raise InputError(f"ONNX's element type {number} is unknown to this version")


@dataclass(frozen=True)
class TensorSpec:
    """A tensor: its name, element type, and one expression a dimension, or `shape` None where even the rank is open.

    A dimension whose size only the executor can know (a data-dependent one) is None. Of a sequence, an optional or a
    map (`gimlet.runtime.structures`), `dtype` is the whole type, `seq(float32)`, and `shape` that of the tensors in it.
    """

    name: str
    dtype: str
    shape: tuple[Expr | None, ...] | None

    @property
    def is_tensor(self) -> bool:
        """Whether this is a tensor, and no sequence, optional or map."""
        return "(" not in self.dtype

    @property
    def numpy_type(self) -> np.dtype:
        """The element type as numpy has it; that of any object where this is no tensor."""
        return numpy_type(self.dtype) if self.is_tensor else np.dtype(object)

    @property
    def symbols(self) -> frozenset[str]:
        """The dimensions that the shape depends on."""
        found: frozenset[str] = frozenset()
        for dim in self.shape or ():
            found |= dim.symbols if dim is not None else frozenset()
        return found

    def resolve(self, sizes: Mapping[str, int]) -> tuple[int, ...] | None:
        """The shape in elements with each dimension at its size, or None where only computing it can tell.

        Of a sequence, an optional or a map, that of the tensors in it.
        """
        if self.shape is None or not self.symbols <= sizes.keys():
            return None
        resolved: list[int] = []
        for dim in self.shape:
            if dim is None:
                return None
            resolved.append(dim.evaluate(sizes))
        return tuple(resolved)

    def __str__(self) -> str:
        if not self.is_tensor:
            return f"{self.name}: {self.dtype}"
        dims = "?" if self.shape is None else ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name}: {self.dtype}[{dims}]"


def symbol_of(dim: Expr | None) -> str | None:
    """The name of a dimension that is a symbol by itself, None for any other expression."""
    if dim is None or len(dim.symbols) != 1:
        return None
    (name,) = dim.symbols
    return name if dim == Expr.symbol(name) else None


def nbytes(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Bytes of a dense tensor in numpy's layout."""
    return dtype.itemsize * prod(shape)
