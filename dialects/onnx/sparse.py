"""Sparse tensors: between ONNX's protobuf, the attribute that keeps one, and the dense array that it stands for.

The indices are ONNX's: one row of coordinates for each value, or one number, counted in the dense tensor's C order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from xdsl.dialects.builtin import StringAttr, TensorType
from xdsl.ir import Attribute

from gimlet.dialects.onnx.attributes import SparseAttr, WeightAttr, tensor_attr, tensor_value
from gimlet.dialects.onnx.ir_weights import INLINE_BYTES, inline_tensor, register_tensor
from gimlet.dialects.onnx.types import dims_of, dtype_of, element_by_code, tensor_type
from gimlet.dialects.onnx.weights import WeightStore
from gimlet.runtime.errors import InputError

Array = np.ndarray[Any, Any]
LARGEST_DENSE = 1 << 31


def sparse_attr(proto: onnx.SparseTensorProto, name: str, store: WeightStore, roots: Sequence[Path] = ()) -> SparseAttr:
    """The attribute of a sparse tensor. Its values and indices go into the store where they are large.

    InputError for indices that do not fit its values or its dimensions.
    """
    element = element_by_code(proto.values.data_type)
    if proto.indices.data_type != onnx.TensorProto.INT64:
        raise InputError("the indices of a sparse tensor are of type int64", where=f"sparse tensor {name!r}")
    values, indices = ir.from_proto(proto.values), ir.from_proto(proto.indices)
    type_ = tensor_type(element.type, list(proto.dims))
    if not isinstance(type_, TensorType) or min(proto.dims, default=0) < 0:
        raise InputError("a sparse tensor has dimensions that are negative", where=f"sparse tensor {name!r}")
    _check(name, values.shape.numpy(), indices.numpy(), tuple(proto.dims))
    values_attr = _part(f"{name}.values", values, store, roots)
    return SparseAttr(values_attr, _part(f"{name}.indices", indices, store, roots), type_)


def _check(name: str, shape: Sequence[int], indices: Array, dims: tuple[int, ...]) -> None:
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


def _part(name: str, tensor: ir.TensorProtocol, store: WeightStore, roots: Sequence[Path]) -> Attribute:
    if tensor.nbytes <= INLINE_BYTES:
        return tensor_attr(tensor.numpy())
    key, type_ = register_tensor(store, name, tensor, roots)
    return WeightAttr(StringAttr(key), type_)


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
    values, indices = (_array(part, store) for part in (attribute.values, attribute.indices))
    # Those of a model were checked when it was imported, but a text may hold any.
    _check(str(attribute.type), values.shape, indices, tuple(shape))
    dense = np.zeros(shape, dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


def _array(part: Attribute, store: WeightStore | None) -> Array:
    if not isinstance(part, WeightAttr):
        return tensor_value(part)
    if store is None:
        raise InputError(f"the sparse tensor's {part.key.data!r} is in a weight store")
    return store[part.key.data].array()


def sparse_proto(attribute: SparseAttr, name: str, store: WeightStore | None) -> onnx.SparseTensorProto:
    """The protobuf of a sparse tensor."""
    values, indices = (_array(part, store) for part in (attribute.values, attribute.indices))
    dims = [dim.as_int() for dim in dims_of(attribute.type) or ()]
    return onnx.SparseTensorProto(
        values=ir.to_proto(inline_tensor(name, values)), indices=ir.to_proto(inline_tensor("", indices)), dims=dims
    )


def dense_tensor(attribute: SparseAttr, name: str, store: WeightStore | None) -> ir.TensorProtocol:
    """The dense tensor for a framework, made when it is written."""
    dtype = ir.DataType.from_numpy(dtype_of(attribute.type))
    return ir.LazyTensor(
        lambda: ir.Tensor(dense_array(attribute, store), dtype=dtype, name=name),
        dtype=dtype,
        shape=ir.Shape(attribute.type.get_shape()),
        name=name,
    )
