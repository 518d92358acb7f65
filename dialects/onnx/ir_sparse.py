"""Sparse tensors between ONNX's protobuf, or `onnx_ir`, and the attribute that keeps one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from xdsl.dialects.builtin import StringAttr, TensorType
from xdsl.ir import Attribute

from gimlet.dialects.onnx.attributes import SparseAttr, WeightAttr, tensor_attr
from gimlet.dialects.onnx.ir_weights import INLINE_BYTES, inline_tensor, register_tensor
from gimlet.dialects.onnx.sparse import check_indices, dense_array, part_array
from gimlet.dialects.onnx.types import dims_of, dtype_of, element_by_code, tensor_type
from gimlet.dialects.onnx.weights import WeightStore
from gimlet.runtime.errors import InputError


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
    check_indices(name, values.shape.numpy(), indices.numpy(), tuple(proto.dims))
    values_attr = _part(f"{name}.values", values, store, roots)
    return SparseAttr(values_attr, _part(f"{name}.indices", indices, store, roots), type_)


def _part(name: str, tensor: ir.TensorProtocol, store: WeightStore, roots: Sequence[Path]) -> Attribute:
    if tensor.nbytes <= INLINE_BYTES:
        return tensor_attr(tensor.numpy())
    key, type_ = register_tensor(store, name, tensor, roots)
    return WeightAttr(StringAttr(key), type_)


def sparse_proto(attribute: SparseAttr, name: str, store: WeightStore | None) -> onnx.SparseTensorProto:
    """The protobuf of a sparse tensor."""
    values, indices = (part_array(part, store) for part in (attribute.values, attribute.indices))
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
