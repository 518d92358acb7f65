"""Sparse tensors: the dense array that an attribute of one stands for.

The indices are ONNX's: one row of coordinates for each value, or one number, counted in the dense tensor's C order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.ir import Attribute

from gimlet.dialects.onnx.attributes import SparseAttr, WeightAttr, tensor_value
from gimlet.dialects.onnx.types import dtype_of
from gimlet.dialects.onnx.weights import WeightStore
from gimlet.runtime.errors import InputError

Array = np.ndarray[Any, Any]
LARGEST_DENSE = 1 << 31


def dense_array(attribute: SparseAttr, store: WeightStore | None) -> Array:
    """The dense tensor, zero where it has no value.

    InputError if a part of it is in a store that is not given, where it takes more than `LARGEST_DENSE` bytes, and for
    an index that is outside.
    """
    shape, dtype = attribute.type.get_shape(), dtype_of(attribute.type)
    size = math.prod(shape) * dtype.itemsize
    if size > LARGEST_DENSE:
        raise InputError(
            f"a sparse tensor of shape {list(shape)} takes {size / 1e9:.1f} GB when it is written out",
            hint="weights are given to frameworks dense, and more than 2 GB of one tensor fit no model file",
        )
    values, indices = (part_array(part, store) for part in (attribute.values, attribute.indices))
    # Those of a model were checked when it was imported, but a text may hold any.
    check_indices(str(attribute.type), values.shape, indices, tuple(shape))
    dense = np.zeros(shape, dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


def check_indices(name: str, shape: Sequence[int], indices: Array, dims: tuple[int, ...]) -> None:
    """InputError for indices that do not fit values of `shape`, or that are outside of a tensor of `dims`."""
    where = f"sparse tensor {name!r}"
    if len(shape) != 1 or indices.shape not in ((shape[0],), (shape[0], len(dims))):
        raise InputError(
            f"it has values of shape {list(shape)} and indices of shape {list(indices.shape)}: ONNX wants one row of "
            f"{len(dims)} int64 indices for each value",
            where=where,
        )
    bounds = np.array(dims if indices.ndim == 2 else [math.prod(dims)], dtype=object)
    if indices.size and bool(np.any((indices < 0) | (indices >= bounds))):
        raise InputError(f"an index is outside of the dimensions {list(dims)}", where=where)


def part_array(part: Attribute, store: WeightStore | None) -> Array:
    """The values or the indices. InputError where they are in a store that is not given."""
    if not isinstance(part, WeightAttr):
        return tensor_value(part)
    if store is None:
        raise InputError(f"the sparse tensor's {part.key.data!r} is in a weight store")
    return store[part.key.data].array()
