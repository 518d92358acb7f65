"""Values of ONNX attributes as attributes of the IR, and back as Python values.

| kind   | in the IR                  | in Python     |
|--------|----------------------------|---------------|
| int    | `2 : i64`                  | `int`         |
| float  | `0.5 : f32`                | `float`       |
| string | `"SAME_UPPER"`             | `str`, or `bytes` if it is not UTF-8 |
| ints   | `array<i64: 2, 2>`         | `list[int]`   |
| floats | `array<f32: 0.5>`          | `list[float]` |
| strings| `["Relu"]`                 | `list[str]`   |
| tensor | `dense<…> : tensor<…>`, `#onnx.raw<…>`, `#onnx.strings<…>`, `#onnx.weight<…>` | `np.ndarray` |
| type   | the type itself            | the type      |

xDSL 0.74 does not read everything back that it prints: a string that is not ASCII comes back as bytes, and infinite or
large whole floats in `dense<…>` and `array<f32: …>` as other numbers. Bytes are therefore taken for strings here, and
such floats are kept as `#onnx.raw<"hex", …>` and `[0x7F800000 : f32]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, cast

import numpy as np
from xdsl.dialects.builtin import (
    ArrayAttr,
    BytesAttr,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    DictionaryAttr,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
    TensorType,
    f32,
    i64,
)
from xdsl.ir import Attribute, Data, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition, param_def
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from gimlet.dialects.onnx.schema import AttributeKind
from gimlet.dialects.onnx.types import STRING, dtype_of, element_by_dtype, tensor_type
from gimlet.runtime.errors import InputError

MOST_DIMENSIONS = 64
"""Of numpy's arrays, which every constant is at some point."""


@irdl_attr_definition
class StringsAttr(ParametrizedAttribute):
    """A tensor of strings: `#onnx.strings<["a", "b"], tensor<2x!onnx.string>>`."""

    name = "onnx.strings"
    values: ArrayAttr[Attribute] = param_def()
    type: TensorType[Attribute] = param_def()

    def verify(self) -> None:
        if any(kind_of(value) != "string" for value in self.values):
            raise VerifyException(f"onnx.strings holds strings, not {self.values}")
        wanted = int(np.prod(self.type.get_shape()))
        if len(self.values) != wanted:
            raise VerifyException(f"{self.type} holds {wanted} strings, not {len(self.values)}")


@irdl_attr_definition
class RawAttr(ParametrizedAttribute):
    """A tensor as its bytes, little-endian: `#onnx.raw<"0000807F", tensor<f32>>`."""

    name = "onnx.raw"
    hex: StringAttr = param_def()
    type: TensorType[Attribute] = param_def()

    def verify(self) -> None:
        try:
            count = len(bytes.fromhex(self.hex.data))
        except ValueError as error:
            raise VerifyException(f"onnx.raw holds hexadecimal digits: {error}") from error
        wanted = int(np.prod(self.type.get_shape())) * dtype_of(self.type).itemsize
        if count != wanted:
            raise VerifyException(f"{self.type} holds {wanted} bytes, not {count}")


@irdl_attr_definition
class WeightAttr(ParametrizedAttribute):
    """A tensor whose bytes are in the weight store: `#onnx.weight<"table", tensor<9000x16xf32>>`."""

    name = "onnx.weight"
    key: StringAttr = param_def()
    type: TensorType[Attribute] = param_def()


@irdl_attr_definition
class SparseAttr(ParametrizedAttribute):
    """A sparse tensor: the values that are not zero, their indices as ONNX gives them, and the dense type.

    `#onnx.sparse_tensor<dense<[1.0, 2.0]> : tensor<2xf32>, dense<[3, 7]> : tensor<2xi64>, tensor<3x3xf32>>`
    """

    name = "onnx.sparse_tensor"
    values: Attribute = param_def()
    indices: Attribute = param_def()
    type: TensorType[Attribute] = param_def()

    def verify(self) -> None:
        if kind_of(self.values) != "tensor" or kind_of(self.indices) != "tensor":
            raise VerifyException("the values and indices of onnx.sparse_tensor are tensors")
        values, indices = _type_of(self.values), _type_of(self.indices)
        if values.element_type != self.type.element_type or indices.element_type != i64:
            raise VerifyException(
                f"{self.type} has values of its element type and indices of i64, not {values} and {indices}"
            )
        count = values.get_shape()
        if len(count) != 1 or indices.get_shape() not in (count, (*count, len(self.type.get_shape()))):
            raise VerifyException(f"{self.type} has one index for each value, not {indices} for {values}")
        if any(size < 0 for size in self.type.get_shape()):
            raise VerifyException(f"a sparse tensor has fixed dimensions, not {self.type}")
        check_rank(self.type)


@irdl_attr_definition
class ReferenceAttr(Data[tuple[str, str]]):
    """In the body of a function, the value of the function's attribute: `#onnx.ref<"alpha", "float">`."""

    name = "onnx.ref"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> tuple[str, str]:
        with parser.in_angle_brackets():
            name = decode_text(parser.parse_str_literal())
            parser.parse_punctuation(",")
            return name, parser.parse_str_literal()

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_list(map(encode_text, self.data), printer.print_string_literal)


def _type_of(tensor: Attribute) -> TensorType[Attribute]:
    if not isinstance(tensor, DenseIntOrFPElementsAttr | StringsAttr | RawAttr | WeightAttr):
        raise TypeError("a tensor attribute has a type")
    return cast(TensorType[Attribute], tensor.type)


InlineTensor: TypeAlias = DenseIntOrFPElementsAttr | StringsAttr | RawAttr
_LEAST_AWKWARD = 1e6


def _awkward(values: np.ndarray[Any, Any]) -> bool:
    """Whether xDSL would print one of these floats in a form that it misreads, or take −0 and 0 for equal."""
    if values.dtype.kind == "c":
        return bool(values.size)
    wide = values.astype(np.float64)
    large = (wide == np.rint(wide)) & (np.abs(wide) >= _LEAST_AWKWARD)
    # Zeros of both signs count as equal, and are printed as one.
    return bool(np.any(~np.isfinite(wide) | large | (np.signbit(wide) & (wide == 0))))


def tensor_attr(array: np.ndarray[Any, Any]) -> InlineTensor:
    """A small tensor as an attribute. InputError if ONNX has no such element type."""
    element = element_by_dtype(array.dtype)
    type_ = tensor_type(element.type, array.shape)
    if not isinstance(type_, TensorType):
        raise TypeError("an array has a rank")
    if element.type == STRING:
        texts = [v.decode() if isinstance(v, bytes) else str(v) for v in array.ravel().tolist()]
        return StringsAttr(ArrayAttr([StringAttr(text) for text in texts]), type_)
    if not isinstance(element.type, IntegerType) and _awkward(array):
        return RawAttr(StringAttr(np.ascontiguousarray(array).tobytes().hex().upper()), type_)
    if element.dtype == np.bool_:
        array = -array.astype(np.int8)
    elif element.bits < 8 and isinstance(element.type, IntegerType):
        array = array.astype(np.int8)
    return DenseIntOrFPElementsAttr(type_, BytesAttr(np.ascontiguousarray(array).tobytes()))  # pyright: ignore[reportArgumentType]


def tensor_value(attribute: Attribute) -> np.ndarray[Any, Any]:
    """The array that a tensor attribute holds, read-only. InputError for one whose bytes are in the weight store."""
    if isinstance(attribute, StringsAttr):
        texts = [text_of(text) for text in attribute.values]
        return np.array(texts, dtype=np.object_).reshape(attribute.type.get_shape())
    if isinstance(attribute, RawAttr):
        raw = np.frombuffer(bytes.fromhex(attribute.hex.data), dtype=dtype_of(attribute.type))
        return raw.reshape(attribute.type.get_shape())
    if not isinstance(attribute, DenseIntOrFPElementsAttr):
        raise InputError(f"{attribute} is not a tensor that the text holds")
    dtype = dtype_of(attribute.type)
    data = attribute.data.data
    if dtype == np.bool_:
        array = np.frombuffer(data, dtype=np.uint8) != 0
    elif isinstance(attribute.type.element_type, IntegerType) and dtype.itemsize == 1:
        array = np.frombuffer(data, dtype=np.int8).astype(dtype)
    else:
        array = np.frombuffer(data, dtype=dtype)
    return array.reshape(attribute.get_shape())


@lru_cache(maxsize=4096)
def int_attr(value: int) -> IntegerAttr:
    """An ONNX attribute of kind int."""
    return IntegerAttr(value, i64)


def float_attr(value: float) -> FloatAttr:
    """An ONNX attribute of kind float, rounded to float32."""
    return FloatAttr(float(np.float32(value)), f32)


def ints_attr(values: Sequence[int]) -> DenseArrayBase:
    """An ONNX attribute of kind ints."""
    return DenseArrayBase.from_list(i64, list(values))


def floats_attr(values: Sequence[float]) -> DenseArrayBase | ArrayAttr[FloatAttr]:
    """An ONNX attribute of kind floats, rounded to float32."""
    rounded = np.array(values, dtype=np.float32)
    if _awkward(rounded):
        return ArrayAttr([float_attr(value) for value in rounded.tolist()])
    return DenseArrayBase.from_list(f32, rounded.tolist())


def strings_attr(values: Sequence[str]) -> ArrayAttr[StringAttr]:
    """An ONNX attribute of kind strings."""
    return ArrayAttr([StringAttr(value) for value in values])


def text_of(attribute: Attribute | None) -> str:
    """The text of a string attribute, "" for anything else."""
    if isinstance(attribute, BytesAttr):
        return attribute.data.decode(errors="replace")
    return attribute.data if isinstance(attribute, StringAttr) else ""


def encode_text(text: str) -> str:
    """A text in ASCII, with `\\u00fc` for ü: another does not survive printing and parsing (see `attributes`)."""
    return text if text.isascii() and "\\" not in text else text.encode("unicode_escape").decode()


def decode_text(text: str) -> str:
    """The text that `encode_text` spells; one that is spelled otherwise is taken as it is."""
    if "\\" not in text:
        return text
    try:
        return text.encode("ascii").decode("unicode_escape")
    except UnicodeError:
        return text


def texts_of(attribute: Attribute | None) -> dict[str, str]:
    """The entries of a dictionary of strings as `text_dict` made it, none for anything else."""
    if not isinstance(attribute, DictionaryAttr):
        return {}
    return {decode_text(name): text_of(text) for name, text in attribute.data.items()}


def text_dict(texts: Mapping[str, str]) -> DictionaryAttr:
    """Texts by name as an attribute."""
    return DictionaryAttr({encode_text(name): StringAttr(text) for name, text in texts.items()})


_BUILDERS: dict[AttributeKind, Callable[[Any], Attribute]] = {
    "int": lambda value: int_attr(int(value)),
    "float": float_attr,
    "string": StringAttr,
    "ints": ints_attr,
    "floats": floats_attr,
    "strings": strings_attr,
    "tensor": lambda value: tensor_attr(np.asarray(value)),
}


def attribute_of(value: Any, kind: AttributeKind | None = None) -> Attribute:
    """A Python value as an attribute of `kind`, which is guessed where the schema does not say."""
    if isinstance(value, Attribute):
        return value
    build = _BUILDERS.get(kind or _guess_kind(value))
    if build is None:
        raise InputError(f"{value!r} cannot be an attribute of kind {kind}")
    return build(value)


def _guess_kind(value: Any) -> AttributeKind:
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "string"
    if isinstance(value, np.ndarray):
        return "tensor"
    items = list(value)
    if any(isinstance(item, str) for item in items):
        return "strings"
    return "floats" if any(isinstance(item, float) for item in items) else "ints"


def python_value(attribute: Attribute) -> Any:
    """The Python value of an ONNX attribute; the attribute itself where Python has nothing for it."""
    if isinstance(attribute, IntegerAttr):
        return attribute.value.data
    if isinstance(attribute, FloatAttr):
        return attribute.value.data
    if isinstance(attribute, StringAttr):
        return attribute.data
    if isinstance(attribute, BytesAttr):
        return _text_or_bytes(attribute.data)
    if isinstance(attribute, DenseArrayBase):
        return list(attribute.get_values())
    if isinstance(attribute, ArrayAttr):
        return [python_value(item) for item in attribute]
    if isinstance(attribute, DenseIntOrFPElementsAttr | StringsAttr | RawAttr):
        return tensor_value(attribute)
    return attribute


def _text_or_bytes(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def check_rank(type_: Attribute) -> None:
    """VerifyException for the type of a constant with more dimensions than numpy's arrays have."""
    rank = len(type_.get_shape()) if isinstance(type_, TensorType) else 0
    if rank > MOST_DIMENSIONS:
        raise VerifyException(f"a constant has at most {MOST_DIMENSIONS} dimensions, not {rank}")


def kind_of(attribute: Attribute) -> AttributeKind | None:
    """The ONNX kind of an attribute, None if it has none. An empty list of strings is `strings`."""
    if isinstance(attribute, IntegerAttr):
        return "int" if attribute.type == i64 else None
    if isinstance(attribute, FloatAttr):
        return "float" if attribute.type == f32 else None
    if isinstance(attribute, StringAttr | BytesAttr):
        return "string"
    if isinstance(attribute, DenseArrayBase):
        return "ints" if attribute.elt_type == i64 else "floats" if attribute.elt_type == f32 else None
    if isinstance(attribute, DenseIntOrFPElementsAttr | StringsAttr | RawAttr | WeightAttr):
        return "tensor"
    if isinstance(attribute, SparseAttr):
        return "sparse_tensor"
    if isinstance(attribute, TypeAttribute):
        return "type_proto"
    if isinstance(attribute, ArrayAttr):
        return _kind_of_list([kind_of(item) for item in attribute])
    return None


def _kind_of_list(kinds: list[AttributeKind | None]) -> AttributeKind | None:
    plural: dict[AttributeKind | None, AttributeKind] = {
        "float": "floats",
        "string": "strings",
        "tensor": "tensors",
        "sparse_tensor": "sparse_tensors",
        "type_proto": "type_protos",
    }
    if not kinds:
        return "strings"
    return plural.get(kinds[0]) if len(set(kinds)) == 1 else None


ATTRIBUTES = (StringsAttr, RawAttr, WeightAttr, SparseAttr, ReferenceAttr)
