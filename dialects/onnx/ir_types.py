"""Types and attributes of `onnx_ir` in the dialect, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from xdsl.dialects.builtin import (
    ArrayAttr,
    BytesAttr,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    UnrankedTensorType,
)
from xdsl.ir import Attribute, TypeAttribute

from gimlet.dialects.onnx.attributes import (
    RawAttr,
    ReferenceAttr,
    StringsAttr,
    float_attr,
    floats_attr,
    int_attr,
    ints_attr,
    python_value,
    strings_attr,
    tensor_attr,
    tensor_value,
)
from gimlet.dialects.onnx.ir_weights import inline_tensor
from gimlet.dialects.onnx.types import (
    ANY,
    UNKNOWN_DIM,
    Dim,
    OptionalType,
    SeqType,
    SparseType,
    element_by_code,
    element_of,
    shape_of,
    tensor_type,
)
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr


def dim_of(dim: int | ir.SymbolicDim) -> Dim:
    """A dimension of `onnx_ir`; None for one that is not known.

    A name that reads as an expression, such as `past_sequence_length + 1`, is one.
    """
    if isinstance(dim, int):
        return dim if dim >= 0 else None
    # A text that is not ASCII does not survive printing and parsing (see `attributes`).
    name = dim.value and dim.value.encode("ascii", "backslashreplace").decode()
    if not name or name == UNKNOWN_DIM:
        return None
    try:
        expr = Expr.parse(name)
    except InputError:
        return Expr.symbol(name.replace("`", "'"))
    return Expr.symbol(name) if expr.is_constant else expr


class TypeReader:
    """Reads the types of values. Dimensions of inputs that have no name get one, such as `x_d0`."""

    def __init__(self) -> None:
        self._symbols: set[str] = set()

    def reserve(self, graph: ir.Graph) -> None:
        """Notes the names of dimensions that a graph's inputs have, so that none is given twice."""
        for value in graph.inputs:
            for dim in value.shape or ():
                if isinstance(named := dim_of(dim), Expr):
                    self._symbols |= named.symbols

    def type_of(self, value: ir.Value) -> Attribute:
        """The type of a value, `!onnx.any` if the model does not say."""
        return type_from_ir(value.type, None if value.shape is None else [dim_of(dim) for dim in value.shape])

    def input_type(self, value: ir.Value) -> Attribute:
        """The type of an input, with a name for every dynamic dimension."""
        if value.shape is None:
            return self.type_of(value)
        dims = [dim_of(dim) for dim in value.shape]
        named = [self._fresh(f"{value.name}_d{axis}") if dim is None else dim for axis, dim in enumerate(dims)]
        return type_from_ir(value.type, named)

    def _fresh(self, name: str) -> Expr:
        while name in self._symbols:
            name += "_"
        self._symbols.add(name)
        return Expr.symbol(name)


def type_from_ir(type_: ir.TypeProtocol | None, dims: Sequence[Dim] | None) -> Attribute:
    """A type of `onnx_ir`, whose shape is kept beside it."""
    if isinstance(type_, ir.SequenceType):
        return SeqType(type_from_ir(type_.elem_type, dims))
    if isinstance(type_, ir.OptionalType):
        return OptionalType(type_from_ir(type_.elem_type, dims))
    if type_ is None or int(type_.dtype) == 0:
        return ANY
    tensor = tensor_type(element_by_code(int(type_.dtype)).type, dims)
    return SparseType(tensor) if isinstance(type_, ir.SparseTensorType) else tensor


def type_to_ir(type_: Attribute) -> tuple[ir.TypeProtocol | None, ir.Shape | None]:
    """A type as `onnx_ir` has it: the type, and the shape of the innermost tensor."""
    if isinstance(type_, SeqType | OptionalType):
        inner, shape = type_to_ir(type_.element)
        if inner is None:
            return None, None
        return (ir.SequenceType if isinstance(type_, SeqType) else ir.OptionalType)(inner), shape
    element = element_of(type_)
    if element is None or not isinstance(type_, TensorType | UnrankedTensorType | SparseType):
        return None, None
    dtype = ir.DataType(element.code)
    dims = shape_of(type_)
    shape = None if dims is None else ir.Shape([dim_to_ir(dim) for dim in dims])
    return (ir.SparseTensorType(dtype) if isinstance(type_, SparseType) else ir.TensorType(dtype)), shape


def dim_to_ir(dim: Expr | None) -> int | str | None:
    """A dimension as `onnx_ir` has it. A dimension that is one name is spelled without backquotes."""
    if dim is None:
        return None
    if dim.is_constant:
        return dim.as_int()
    symbols = dim.symbols
    if len(symbols) == 1 and dim == Expr.symbol(name := next(iter(symbols))):
        return name
    return str(dim)


def attribute_from_ir(attribute: ir.Attr, where: str) -> Attribute:
    """An attribute of a node that is not a graph. InputError if the dialect cannot hold it."""
    kind = attribute.type.name.lower()
    if attribute.is_ref():
        return ReferenceAttr((attribute.ref_attr_name or "", kind))
    value: Any = attribute.value
    match attribute.type:
        case ir.AttributeType.INT:
            return int_attr(value)
        case ir.AttributeType.FLOAT:
            return float_attr(value)
        case ir.AttributeType.STRING:
            return StringAttr(value) if isinstance(value, str) else BytesAttr(value)
        case ir.AttributeType.INTS:
            return ints_attr(value)
        case ir.AttributeType.FLOATS:
            return floats_attr(value)
        case ir.AttributeType.STRINGS:
            return strings_attr(value)
        case ir.AttributeType.TENSOR:
            return tensor_attr(value.numpy())
        case ir.AttributeType.TENSORS:
            return ArrayAttr([tensor_attr(tensor.numpy()) for tensor in value])
        case ir.AttributeType.TYPE_PROTO:
            return _type_attribute(value)
        case ir.AttributeType.TYPE_PROTOS:
            return ArrayAttr([_type_attribute(item) for item in value])
        case _:
            raise InputError(f"attribute {attribute.name!r} of kind {kind} cannot be represented", where=where)


def _type_attribute(value: ir.TypeAndShape) -> Attribute:
    return type_from_ir(value.type, None if value.shape is None else [dim_of(dim) for dim in value.shape])


def attribute_to_ir(name: str, attribute: Attribute) -> ir.Attr:
    """The ONNX attribute that an attribute of the dialect stands for, but for graphs and weights."""
    if isinstance(attribute, ReferenceAttr):
        reference, kind = attribute.data
        return ir.RefAttr(name, reference, ir.AttributeType[kind.upper()])
    value = python_value(attribute)
    if isinstance(attribute, IntegerAttr):
        return ir.AttrInt64(name, value)
    if isinstance(attribute, FloatAttr):
        return ir.AttrFloat32(name, value)
    if isinstance(attribute, StringAttr | BytesAttr):
        return ir.Attr(name, ir.AttributeType.STRING, value)
    if isinstance(attribute, DenseArrayBase):
        return ir.AttrFloat32s(name, value) if attribute.elt_type.name == "f32" else ir.AttrInt64s(name, value)
    if isinstance(attribute, DenseIntOrFPElementsAttr | StringsAttr | RawAttr):
        return ir.AttrTensor(name, inline_tensor("", tensor_value(attribute)))
    if isinstance(attribute, TypeAttribute):
        return ir.AttrTypeProto(name, ir.TypeAndShape(*_type_and_shape(attribute)))
    if isinstance(attribute, ArrayAttr):
        return _list_to_ir(name, attribute.data)
    raise InputError(f"attribute {name!r} is {attribute}, which ONNX has no attribute for")


def _list_to_ir(name: str, items: tuple[Attribute, ...]) -> ir.Attr:
    if items and isinstance(items[0], TypeAttribute):
        return ir.AttrTypeProtos(name, [ir.TypeAndShape(*_type_and_shape(item)) for item in items])
    if items and isinstance(items[0], FloatAttr):
        return ir.AttrFloat32s(name, [python_value(item) for item in items])
    if items and not isinstance(items[0], StringAttr | BytesAttr):
        return ir.AttrTensors(name, [inline_tensor("", tensor_value(item)) for item in items])
    return ir.AttrStrings(name, [python_value(item) for item in items])


def _type_and_shape(attribute: Attribute) -> tuple[ir.TypeProtocol, ir.Shape | None]:
    type_, shape = type_to_ir(attribute)
    if type_ is None:
        raise InputError(f"{attribute} is not an ONNX type")
    return type_, shape
