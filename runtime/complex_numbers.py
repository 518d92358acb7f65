"""Complex numbers as a program has them: real ones with a last dimension of two, as ONNX's `DFT` does."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from gimlet.runtime.errors import InputError
from gimlet.runtime.tensors import as_array

COMPLEX: Final = ("complex64", "complex128")


def as_pairs(given: Any, numbers: str, path: str) -> NDArray[Any]:
    """[…, 2] of the same memory. InputError where `given`, the argument at `path`, is not of the type `numbers`."""
    try:
        array: NDArray[Any] = as_array(given.resolve_conj() if hasattr(given, "resolve_conj") else given)
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        raise InputError(f"is no tensor: {error}", where=f"argument {path!r}") from None
    if array.dtype != np.dtype(numbers):
        message = f"has elements of {array.dtype}, and the module takes {numbers}"
        raise InputError(message, where=f"argument {path!r}", hint=f"convert it: {path}.astype({numbers!r})")
    parts = np.real(array)
    return as_strided(parts, (*array.shape, 2), (*array.strides, parts.itemsize), writeable=array.flags.writeable)


def from_pairs(pairs: NDArray[Any], numbers: str) -> NDArray[Any]:
    """The complex numbers of pairs […, 2]."""
    return np.ascontiguousarray(pairs).view(numbers)[..., 0]
