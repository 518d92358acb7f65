"""Types and attributes of `onnx_ir` in the dialect, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.serde import (
    deserialize_type_proto_for_shape,
    deserialize_type_proto_for_type,
    serialize_shape_into,
    serialize_type_into,
)
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
from gimlet.dialects.onnx.proto import disguise, is_disguised, type_of
from gimlet.dialects.onnx.symbolic import parse_symbolic
from gimlet.dialects.onnx.types import (
    ANY,
    UNKNOWN_DIM,
    Dim,
    MapType,
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

# Names that exporters make up, as good as none: Paddle's, tf2onnx's and PyTorch's.
_GENERATED_NAME = re.compile(r"(p2o\.)?DynamicDimension\.\d+|unk__\d+|s\d+")
# In `seq-len`, unlike in `seq - 1` and `seq-1`, the hyphen is a part of the name.
_HYPHENATED = re.compile(r"\w-[A-Za-z_]")


def is_made_up(name: str) -> bool:
    """Whether an exporter made the name of a dimension up: `TypeReader` calls it after an input that has it."""
    return _GENERATED_NAME.fullmatch(name) is not None


def dim_of(dim: int | ir.SymbolicDim) -> Expr | int | None:
    """A dimension of `onnx_ir`; None for one that is not known.

    A name that reads as an expression, such as `past_sequence_length + 1` or `floor(width/2)`, is one.
    """
    if isinstance(dim, int):
        return dim if dim >= 0 else None
    # A text that is not ASCII does not survive printing and parsing (see `attributes`).
    name = dim.value and dim.value.encode("ascii", "backslashreplace").decode()
    if not name or name == UNKNOWN_DIM:
        return None
    for parse in (Expr.parse, _parse_rational):
        with suppress(InputError):
            expr = parse(name)
            if not expr.is_constant and not _HYPHENATED.search(name):
                return expr
    return Expr.symbol(name.replace("`", "'"))


def _parse_rational(text: str) -> Expr:
    names = {name: Expr.symbol(name) for name in re.findall(r"[A-Za-z_]\w*(?!\w*\()", text)}
    return parse_symbolic(text, names)


class TypeReader:
    """Reads the types of a model's values.

    Dimensions of inputs that have no name, or one that an exporter made up, are called `x_d0`, after the first input
    that has them. A name that spells an expression over dimensions of no input (`past + 1` alone) is only a name.
    """

    def __init__(self, inputs: Iterable[ir.Value]) -> None:
        self._renamed: dict[str, Expr] = {}
        taken: set[str] = set()
        for value in inputs:
            for axis, dim in enumerate(value.shape or ()):
                if isinstance(dim, ir.SymbolicDim) and isinstance(named := dim_of(dim), Expr):
                    name = symbol_of(named)
                    if name is not None and is_made_up(name):
                        self._renamed.setdefault(name, Expr.symbol(f"{value.name}_d{axis}"))
                    elif name is not None:
                        taken.add(name)
        self._symbols = taken | set(self._renamed)

    def type_of(self, value: ir.Value) -> Attribute:
        """The type of a value, `!onnx.any` if the model does not say."""
        return type_from_ir(value.type, None if value.shape is None else [self._dim(dim) for dim in value.shape])

    def input_type(self, value: ir.Value) -> Attribute:
        """The type of an input, with a name for every dynamic dimension."""
        if value.shape is None:
            return self.type_of(value)
        dims = [self._dim(dim) for dim in value.shape]
        named = [Expr.symbol(f"{value.name}_d{axis}") if dim is None else dim for axis, dim in enumerate(dims)]
        return type_from_ir(value.type, named)

    def _dim(self, dim: int | ir.SymbolicDim) -> Expr | int | None:
        found = dim_of(dim)
        if not isinstance(found, Expr):
            return found
        if not found.symbols <= self._symbols and symbol_of(found) is None and isinstance(dim, ir.SymbolicDim):
            return Expr.symbol((dim.value or UNKNOWN_DIM).replace("`", "'"))
        return found.substitute(self._renamed)


def type_from_ir(type_: ir.TypeProtocol | None, dims: Sequence[Dim] | None) -> Attribute:
    """A type of `onnx_ir`, whose shape is kept beside it."""
    if isinstance(type_, ir.SequenceType):
        return SeqType(type_from_ir(type_.elem_type, dims))
    if isinstance(type_, ir.OptionalType):
        return OptionalType(type_from_ir(type_.elem_type, dims))
    # An inference that knows only that it is a sequence says so with an element type of None.
    if type_ is None or type_.dtype is None or int(type_.dtype) == 0:  # pyright: ignore[reportUnnecessaryComparison]
        return ANY
    if is_disguised(type_.denotation):
        return type_from_proto(type_of(type_.denotation or ""))
    tensor = tensor_type(element_by_code(int(type_.dtype)).type, dims)
    return SparseType(tensor) if isinstance(type_, ir.SparseTensorType) else tensor


def type_from_proto(proto: onnx.TypeProto) -> Attribute:
    """The type that a protobuf spells, maps included. InputError for a key that is no element type."""
    if proto.HasField("map_type"):
        return MapType(element_by_code(proto.map_type.key_type).type, type_from_proto(proto.map_type.value_type))
    if proto.HasField("sequence_type"):
        return SeqType(type_from_proto(proto.sequence_type.elem_type))
    if proto.HasField("optional_type"):
        return OptionalType(type_from_proto(proto.optional_type.elem_type))
    dims = deserialize_type_proto_for_shape(proto)
    return type_from_ir(deserialize_type_proto_for_type(proto), None if dims is None else [dim_of(dim) for dim in dims])


def type_to_proto(type_: Attribute) -> onnx.TypeProto:
    """A type as a protobuf, maps included. InputError for one that ONNX does not have."""
    found = onnx.TypeProto()
    if isinstance(type_, SeqType):
        found.sequence_type.elem_type.CopyFrom(type_to_proto(type_.element))
        return found
    if isinstance(type_, OptionalType):
        found.optional_type.elem_type.CopyFrom(type_to_proto(type_.element))
        return found
    if isinstance(type_, MapType):
        key = element_of(type_.key)
        if key is None:
            raise InputError(f"{type_.key} is no key of an ONNX map")
        found.map_type.key_type = key.code
        found.map_type.value_type.CopyFrom(type_to_proto(type_.value))
        return found
    spelled, shape = _type_and_shape(type_)
    serialize_type_into(found, spelled)
    if shape is not None:
        serialize_shape_into(found, shape)
    return found


def type_to_ir(type_: Attribute) -> tuple[ir.TypeProtocol | None, ir.Shape | None]:
    """A type as `onnx_ir` has it: the type, and the shape of the innermost tensor."""
    if isinstance(type_, SeqType | OptionalType):
        inner, shape = type_to_ir(type_.element)
        if inner is None:
            return None, None
        return (ir.SequenceType if isinstance(type_, SeqType) else ir.OptionalType)(inner), shape
    if isinstance(type_, MapType):
        return ir.TensorType(ir.DataType.STRING, denotation=disguise(type_to_proto(type_))), None
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
    return symbol_of(dim) or str(dim)


def symbol_of(expr: Expr) -> str | None:
    """The name of the dimension that an expression is, None if it is anything else."""
    symbols = expr.symbols
    return name if len(symbols) == 1 and expr == Expr.symbol(name := next(iter(symbols))) else None


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
