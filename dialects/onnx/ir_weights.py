"""Tensors of `onnx_ir` in the weight store, and weights of the store as tensors of `onnx_ir`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute

from gimlet.dialects.onnx.types import STRING, element_by_code, element_by_dtype, tensor_type
from gimlet.dialects.onnx.weights import Weight, WeightStore
from gimlet.runtime.errors import InputError

INLINE_BYTES = 1024
"""Tensors up to this size are held by the text."""


def register_tensor(
    store: WeightStore, name: str, tensor: ir.TensorProtocol, data_roots: Sequence[Path] = ()
) -> tuple[str, TensorType[Attribute]]:
    """Adds a tensor to the store without reading it, and returns its key and type."""
    element = element_by_code(int(tensor.dtype))
    shape = tuple(int(dim) for dim in tensor.shape.numpy())
    type_ = tensor_type(element.type, shape)
    if not isinstance(type_, TensorType):
        raise TypeError("a tensor has a rank")
    if isinstance(tensor, ir.ExternalTensor):
        path = _data_path(name, tensor, data_roots)
        if tensor.length is not None and tensor.length != tensor.nbytes:
            raise InputError(
                f"external tensor {name!r} of type {type_} takes {tensor.nbytes} bytes, but says {tensor.length}",
                where=str(path),
                hint="the model does not fit its data file: copy or export both again",
            )
        return store.add_file(name, path, tensor.offset or 0, element.dtype, shape), type_
    if isinstance(tensor, ir.LazyTensor):
        return store.add_lazy(name, element.dtype, shape, tensor.numpy), type_
    raw: Any = getattr(tensor, "raw", None)
    if _is_torch(raw):
        identity = _torch_identity(raw)
        if _has_no_data(raw):
            return store.add_meta(name, element.dtype, shape, identity), type_
        return store.add_lazy(name, element.dtype, shape, tensor.numpy, identity), type_
    if isinstance(raw, np.ndarray) and raw.dtype == element.dtype and raw.shape == shape:
        return store.add(name, raw), type_
    return store.add_lazy(name, element.dtype, shape, _Once(tensor)), type_


def small_array(name: str, tensor: ir.TensorProtocol, data_roots: Sequence[Path] = ()) -> np.ndarray[Any, Any] | None:
    """The values of a tensor that the text is to hold; None if it is on the meta device, so that there are none."""
    raw: Any = getattr(tensor, "raw", None)
    if _is_torch(raw) and _has_no_data(raw):
        return None
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor.numpy()
    store = WeightStore()
    key, _ = register_tensor(store, name, tensor, data_roots)
    return np.array(store[key].array())


class _Once:
    """Reads a tensor of a protobuf when it is first asked for, and then keeps the array instead."""

    def __init__(self, tensor: ir.TensorProtocol) -> None:
        self.tensor: ir.TensorProtocol | None = tensor
        self.array: np.ndarray[Any, Any] | None = None

    def __call__(self) -> np.ndarray[Any, Any]:
        if self.array is None or self.tensor is not None:
            self.array = self.tensor.numpy() if self.tensor is not None else self.array
            self.tensor = None
        if self.array is None:
            raise TypeError("a tensor has values")
        return self.array


def _is_torch(raw: Any) -> bool:
    return type(raw).__module__.partition(".")[0] == "torch"


def _has_no_data(raw: Any) -> bool:
    return raw.device.type == "meta" or type(raw).__name__ == "FakeTensor"


class _Object:
    """Equal to itself alone. It keeps what it stands for alive, so that nothing else can get the same address."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __hash__(self) -> int:
        return id(self.held)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Object) and other.held is self.held


def _torch_identity(raw: Any) -> Hashable:
    if _has_no_data(raw):
        return _Object(raw)
    return ("torch", raw.data_ptr(), str(raw.dtype), tuple(raw.shape), tuple(raw.stride()))


def _data_path(name: str, tensor: ir.ExternalTensor, data_roots: Sequence[Path]) -> Path:
    base = Path(tensor.base_dir)
    path = base / tensor.location
    real = path.resolve()
    if not any(real.is_relative_to(root.resolve()) for root in (base, *data_roots)):
        raise InputError(
            f"external tensor {name!r} is in {real}, outside the model's folder",
            where=str(base),
            hint="a model may only read data from its own folder: move the file there",
        )
    return path


def tensor_of(name: str, weight: Weight) -> ir.TensorProtocol:
    """A weight as a tensor that is read only when it is written out."""
    element = element_by_dtype(weight.dtype)
    if element.type == STRING:
        raise InputError(f"weight {name!r} holds strings, which the store does not keep")
    dtype = ir.DataType(element.code)
    return ir.LazyTensor(
        lambda: ir.Tensor(weight.array(), dtype=dtype, name=name), dtype=dtype, shape=ir.Shape(weight.shape), name=name
    )


def inline_tensor(name: str, array: np.ndarray[Any, Any]) -> ir.TensorProtocol:
    """A small array as a tensor."""
    element = element_by_dtype(array.dtype)
    if element.type == STRING:
        texts = [str(text).encode() for text in array.ravel().tolist()]
        return ir.StringTensor(texts, shape=ir.Shape(array.shape), name=name)
    return ir.Tensor(array, dtype=ir.DataType(element.code), name=name)
