"""Types of the onnx dialect, and what they are in numpy and in ONNX's own spelling.

Tensors are the builtin `tensor<…>`. Where a dimension is dynamic, the encoding says what it is:
`tensor<?x3x48x?xf32, #onnx.dims<"batch", "", "", "floordiv(width, 8)">>`, one text per dimension, empty for a static
one and `?` for one that is not known. Signed ONNX integers are signless here, unsigned ones are `ui8`, `ui16`, ….
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from xdsl.dialects import builtin
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ComplexType,
    IntegerType,
    NoneAttr,
    Signedness,
    TensorType,
    UnrankedTensorType,
)
from xdsl.ir import Attribute, Data, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import irdl_attr_definition, param_def
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr

UNKNOWN_DIM = "?"
LARGEST_DIM = (1 << 63) - 1
Dim: TypeAlias = int | str | Expr | None
AnyTensor: TypeAlias = TensorType[Attribute] | UnrankedTensorType[Attribute]


@irdl_attr_definition
class DimsAttr(Data[tuple[str, ...]]):
    """What the dimensions of a tensor are: the text of an `Expr`, "" for a static one, "?" for an unknown one."""

    name = "onnx.dims"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> tuple[str, ...]:
        texts = parser.parse_comma_separated_list(parser.Delimiter.ANGLE, lambda: _parse_text(parser))
        return tuple(_parse_dim(text, parser) for text in texts)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_list(self.data, printer.print_string_literal)


def _parse_text(parser: AttrParser) -> str:
    """A text, which xDSL takes for bytes where it is not ASCII: a dimension has the name that the model gives it."""
    data = parser.parse_optional_bytes_literal()
    return parser.parse_str_literal() if data is None else data.decode(errors="replace")


def _parse_dim(text: str, parser: AttrParser) -> str:
    """The canonical text of a dimension, so that equal types are equal however they were spelled."""
    if text in ("", UNKNOWN_DIM):
        return text
    try:
        return str(Expr.parse(text))
    except InputError as error:
        parser.raise_error(error.message)


@irdl_attr_definition
class StringType(ParametrizedAttribute, TypeAttribute):
    """The element type of tensors of strings."""

    name = "onnx.string"


@irdl_attr_definition
class AnyType(ParametrizedAttribute, TypeAttribute):
    """The type of a value that no shape inference has looked at yet."""

    name = "onnx.any"


@irdl_attr_definition
class SeqType(ParametrizedAttribute, TypeAttribute):
    """A list of values of one type: `!onnx.seq<tensor<*xf32>>`."""

    name = "onnx.seq"
    element: Attribute = param_def()


@irdl_attr_definition
class OptionalType(ParametrizedAttribute, TypeAttribute):
    """A value or nothing: `!onnx.optional<tensor<4xf32>>`."""

    name = "onnx.optional"
    element: Attribute = param_def()


@irdl_attr_definition
class MapType(ParametrizedAttribute, TypeAttribute):
    """A dictionary: `!onnx.map<i64, tensor<f32>>`."""

    name = "onnx.map"
    key: Attribute = param_def()
    value: Attribute = param_def()


@irdl_attr_definition
class SparseType(ParametrizedAttribute, TypeAttribute):
    """A sparse tensor: `!onnx.sparse<tensor<10x10xf32>>`."""

    name = "onnx.sparse"
    tensor: Attribute = param_def()

    def verify(self) -> None:
        if not isinstance(self.tensor, TensorType | UnrankedTensorType):
            raise VerifyException(f"onnx.sparse holds a tensor type, not {self.tensor}")


STRING = StringType()
ANY = AnyType()


@dataclass(frozen=True)
class Element:
    """An element type: `onnx` is its spelling in `tensor(…)`, `code` its number in ONNX's TensorProto.DataType."""

    onnx: str
    code: int
    type: Attribute
    dtype: np.dtype[Any]
    bits: int


def _unsigned(width: int) -> IntegerType[Any, Any]:
    return IntegerType(width, Signedness.UNSIGNED)


def _elements() -> tuple[Element, ...]:
    rows: list[tuple[str, int, Attribute, Any, int]] = [
        ("float", 1, builtin.f32, np.float32, 32),
        ("uint8", 2, _unsigned(8), np.uint8, 8),
        ("int8", 3, builtin.i8, np.int8, 8),
        ("uint16", 4, _unsigned(16), np.uint16, 16),
        ("int16", 5, builtin.i16, np.int16, 16),
        ("int32", 6, builtin.i32, np.int32, 32),
        ("int64", 7, builtin.i64, np.int64, 64),
        ("string", 8, STRING, np.object_, 0),
        ("bool", 9, builtin.i1, np.bool_, 8),
        ("float16", 10, builtin.f16, np.float16, 16),
        ("double", 11, builtin.f64, np.float64, 64),
        ("uint32", 12, _unsigned(32), np.uint32, 32),
        ("uint64", 13, _unsigned(64), np.uint64, 64),
        ("complex64", 14, ComplexType(builtin.f32), np.complex64, 64),
        ("complex128", 15, ComplexType(builtin.f64), np.complex128, 128),
        ("bfloat16", 16, builtin.bf16, ml_dtypes.bfloat16, 16),
        ("float8e4m3fn", 17, builtin.f8E4M3FN, ml_dtypes.float8_e4m3fn, 8),
        ("float8e4m3fnuz", 18, builtin.f8E4M3FNUZ, ml_dtypes.float8_e4m3fnuz, 8),
        ("float8e5m2", 19, builtin.f8E5M2, ml_dtypes.float8_e5m2, 8),
        ("float8e5m2fnuz", 20, builtin.f8E5M2FNUZ, ml_dtypes.float8_e5m2fnuz, 8),
        ("uint4", 21, _unsigned(4), ml_dtypes.uint4, 4),
        ("int4", 22, IntegerType(4), ml_dtypes.int4, 4),
        ("float4e2m1", 23, builtin.f4E2M1FN, ml_dtypes.float4_e2m1fn, 4),
        ("float8e8m0", 24, builtin.f8E8M0FNU, ml_dtypes.float8_e8m0fnu, 8),
        ("uint2", 25, _unsigned(2), ml_dtypes.uint2, 2),
        ("int2", 26, IntegerType(2), ml_dtypes.int2, 2),
        ("float6e2m3", 27, builtin.f6E2M3FN, ml_dtypes.float6_e2m3fn, 6),
        ("float6e3m2", 28, builtin.f6E3M2FN, ml_dtypes.float6_e3m2fn, 6),
    ]
    return tuple(Element(name, code, type_, np.dtype(dtype), bits) for name, code, type_, dtype, bits in rows)


ELEMENTS = _elements()
_BY_TYPE = {element.type: element for element in ELEMENTS}
_BY_CODE = {element.code: element for element in ELEMENTS}
_BY_DTYPE = {element.dtype: element for element in ELEMENTS}
_BY_NAME = {element.onnx: element for element in ELEMENTS}


def element_of(type_: Attribute) -> Element | None:
    """The element type of a tensor type, or what `type_` itself is as one; None if it has none."""
    if isinstance(type_, TensorType | UnrankedTensorType):
        type_ = type_.element_type
    elif isinstance(type_, SparseType):
        return element_of(type_.tensor)
    return _BY_TYPE.get(type_)


def _known_element(type_: Attribute) -> Element:
    element = element_of(type_)
    if element is None:
        raise InputError(f"{type_} has no ONNX element type", hint="run infer-shapes first")
    return element


def element_bits(type_: Attribute) -> int:
    """The bits that one element takes in memory: 8 for booleans, 0 for strings, whose size depends on the value."""
    return _known_element(type_).bits


def dtype_of(type_: Attribute) -> np.dtype[Any]:
    """The numpy type of a tensor's elements, from ml_dtypes where numpy has none."""
    return _known_element(type_).dtype


def element_by_code(code: int) -> Element:
    """The element type with a number in ONNX's TensorProto.DataType. InputError if it is not known."""
    if code not in _BY_CODE:
        raise InputError(f"element type {code} is not in ONNX's list", hint="the model needs a newer gimlet")
    return _BY_CODE[code]


def element_by_dtype(dtype: Any) -> Element:
    """The element type of a numpy type. InputError if ONNX has none."""
    dtype = np.dtype(dtype)
    if dtype.kind in "US":
        return _BY_NAME["string"]
    if dtype not in _BY_DTYPE:
        raise InputError(f"numpy's {dtype} has no ONNX element type")
    return _BY_DTYPE[dtype]


@lru_cache(maxsize=65536)
def _tensor_type(element: Attribute, dims: tuple[int | str, ...]) -> TensorType[Attribute]:
    shape = [dim if isinstance(dim, int) else DYNAMIC_INDEX for dim in dims]
    texts = tuple("" if isinstance(dim, int) else dim for dim in dims)
    return TensorType(element, shape, DimsAttr(texts) if any(texts) else NoneAttr())


def tensor_type(element: Attribute | Any, dims: Sequence[Dim] | None) -> AnyTensor:
    """A tensor type from its element (an IR type or a numpy one) and dimensions; None for an unknown dimension or rank.

    A text is parsed as an expression. A dimension below 0, as of a window larger than its input, is unknown: no tensor
    has it. InputError for a dimension that ONNX has no number for.
    """
    if not isinstance(element, Attribute):
        element = element_by_dtype(element).type
    if dims is None:
        return UnrankedTensorType(element)
    return _tensor_type(element, tuple(_canonical(dim) for dim in dims))


def _canonical(dim: Dim) -> int | str:
    if dim is None or dim == UNKNOWN_DIM:
        return UNKNOWN_DIM
    if not isinstance(dim, int):
        expression = Expr.of(dim)
        if not expression.is_constant:
            return str(expression)
        dim = expression.as_int()
    if dim < 0:
        return UNKNOWN_DIM
    if dim > LARGEST_DIM:
        raise InputError(f"a dimension of {dim} elements is more than ONNX has numbers for")
    return dim


@lru_cache(maxsize=65536)
def _expressions(shape: tuple[int, ...], texts: tuple[str, ...]) -> tuple[Expr | None, ...]:
    return tuple(
        Expr.const(size) if size >= 0 else None if text in ("", UNKNOWN_DIM) else Expr.parse(text)
        for size, text in zip(shape, texts, strict=True)
    )


def shape_of(value: SSAValue | Attribute) -> tuple[Expr | None, ...] | None:
    """The dimensions of a tensor, None for each that is not known; None for all of it if the rank is not known."""
    type_ = value.type if isinstance(value, SSAValue) else value
    if isinstance(type_, SparseType):
        type_ = type_.tensor
    if not isinstance(type_, TensorType):
        return None
    shape = type_.get_shape()
    encoding = type_.encoding
    return _expressions(shape, encoding.data if isinstance(encoding, DimsAttr) else (UNKNOWN_DIM,) * len(shape))


def dims_of(value: SSAValue | Attribute) -> tuple[Expr, ...] | None:
    """The dimensions of a tensor, or None if the rank or any dimension is not known."""
    shape = shape_of(value)
    if shape is None:
        return None
    dims = tuple(dim for dim in shape if dim is not None)
    return dims if len(dims) == len(shape) else None


def verify_dims(type_: Attribute) -> None:
    """Checks that `#onnx.dims` fit the shapes in a type, and that ONNX can say that. VerifyException if not."""
    while isinstance(type_, SeqType | OptionalType | MapType | SparseType):
        match type_:
            case MapType():
                type_ = type_.value
            case SparseType():
                type_ = type_.tensor
            case _:
                type_ = type_.element
    if isinstance(type_, TensorType) and max(type_.get_shape(), default=0) > LARGEST_DIM:
        raise VerifyException(f"{type_} has a dimension that is more than ONNX has numbers for")
    if not isinstance(type_, TensorType) or not isinstance(type_.encoding, DimsAttr):
        return
    texts = type_.encoding.data
    shape = type_.get_shape()
    if len(texts) != len(shape):
        raise VerifyException(f"{type_} has {len(shape)} dimensions, but #onnx.dims names {len(texts)}")
    for index, (size, text) in enumerate(zip(shape, texts, strict=True)):
        if (size >= 0) == bool(text):
            wanted = 'be "" because the dimension is static' if size >= 0 else "say what the dynamic dimension is"
            raise VerifyException(f"{type_}: #onnx.dims must {wanted} at position {index}, not {text!r}")


def onnx_type(type_: Attribute) -> str | None:
    """ONNX's spelling of a type, as in `seq(tensor(float))`; None for `!onnx.any` and types that ONNX does not have."""
    if isinstance(type_, TensorType | UnrankedTensorType):
        element = _BY_TYPE.get(type_.element_type)
        return element and f"tensor({element.onnx})"
    if isinstance(type_, SparseType):
        element = element_of(type_.tensor)
        return element and f"sparse_tensor({element.onnx})"
    if isinstance(type_, SeqType | OptionalType):
        inner = onnx_type(type_.element)
        return inner and f"{'seq' if isinstance(type_, SeqType) else 'optional'}({inner})"
    if isinstance(type_, MapType):
        key, value = element_of(type_.key), type_.value
        inner = element_of(value) if not isinstance(value, SeqType | MapType) else None
        return f"map({key.onnx}, {inner.onnx if inner else onnx_type(value)})" if key else None
    return None


TYPES = (DimsAttr, StringType, AnyType, SeqType, OptionalType, MapType, SparseType)
