"""Types, attributes and their text."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.unit.dialects.onnx_cases import context
from xdsl.dialects.builtin import ArrayAttr, TensorType, UnrankedTensorType, f32, i64
from xdsl.parser import Parser
from xdsl.utils.exceptions import ParseError, VerifyException

from gimlet.dialects.onnx import dims_of, dtype_of, element_bits, onnx_type, shape_of, tensor_attr, tensor_type
from gimlet.dialects.onnx.attributes import (
    StringsAttr,
    attribute_of,
    floats_attr,
    kind_of,
    python_value,
    tensor_value,
)
from gimlet.dialects.onnx.types import ANY, ELEMENTS, element_by_code, element_by_dtype, verify_dims
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr

FINITE = st.floats(allow_nan=False, width=32)


def reparsed(attribute: object) -> object:
    return Parser(context(), str(attribute)).parse_attribute()


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda element: element.onnx)
def test_every_element_type(element):
    type_ = tensor_type(element.type, [2, "n"])
    assert reparsed(type_) == type_
    assert onnx_type(type_) == f"tensor({element.onnx})"
    assert element_bits(type_) == element.bits
    assert dtype_of(type_) == element.dtype
    assert element_by_code(element.code) is element
    assert element_by_dtype(element.dtype) is element


@pytest.mark.parametrize("element", [e for e in ELEMENTS if e.bits], ids=lambda element: element.onnx)
def test_tensors_of_every_element_type_survive_text(element):
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(element.dtype)
    attribute = tensor_attr(array)
    again = tensor_value(reparsed(attribute))
    assert again.dtype == element.dtype
    assert again.shape == (2, 3)
    assert again.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", [np.int8, ml_dtypes.int4, ml_dtypes.int2, np.int64])
def test_negative_integers_survive_text(dtype: type):
    array = np.array([-2, -1, 0, 1]).astype(dtype)
    assert tensor_value(reparsed(tensor_attr(array))).tolist() == array.tolist()


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=12), elements=st.floats(width=32)))
def test_float_tensors_survive_text(array: np.ndarray):
    assert tensor_value(reparsed(tensor_attr(array))).tobytes() == array.tobytes()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 10484697.0, 1e-40, 3.4e38, -0.0])
def test_floats_that_xdsl_misreads_are_kept_as_bytes(value: float):
    for array in (
        np.array(value, np.float32),
        np.array([value, 0.0], np.float32),
        np.full(200, value, np.float32),
        np.array([value, 1.5], np.float64),
    ):
        assert tensor_value(reparsed(tensor_attr(array))).tobytes() == array.tobytes()


@pytest.mark.parametrize("values", [[0.0, -0.0], [-0.0, 0.0], [1.0, -0.0]])
def test_the_sign_of_zero_survives_text(values: list[float]):
    array = np.array(values, np.float32)
    assert tensor_value(reparsed(tensor_attr(array))).tobytes() == array.tobytes()


@given(st.lists(FINITE))
def test_lists_of_floats_survive_text(values: list[float]):
    attribute = floats_attr(values)
    assert kind_of(attribute) in ("floats", "strings" if not values else "floats")
    assert python_value(reparsed(attribute)) == values


@given(st.text())
def test_texts_survive_text(text: str):
    assert python_value(reparsed(attribute_of(text))) == text


def test_strings():
    attribute = tensor_attr(np.array([["a", "é"], ["", 'x"y']], dtype=object))
    assert isinstance(attribute, StringsAttr)
    assert tensor_value(reparsed(attribute)).tolist() == [["a", "é"], ["", 'x"y']]
    with pytest.raises(VerifyException, match=r"holds 3 strings, not 1"):
        StringsAttr(attribute_of(["a"]), tensor_type(attribute.type.element_type, [3]))
    with pytest.raises(VerifyException, match=r"onnx.strings holds strings, not \[1 : i64\]"):
        StringsAttr(ArrayAttr([attribute_of(1)]), tensor_type(attribute.type.element_type, [1]))


def test_bytes_that_are_no_tensor():
    with pytest.raises(VerifyException, match=r"tensor<2xf32> holds 8 bytes, not 4"):
        Parser(context(), '#onnx.raw<"00000000", tensor<2xf32>>').parse_attribute()
    with pytest.raises(VerifyException, match=r"onnx.raw holds hexadecimal digits"):
        Parser(context(), '#onnx.raw<"zz", tensor<2xf32>>').parse_attribute()


@pytest.mark.parametrize(
    ("value", "kind"),
    [(3, "int"), (0.5, "float"), ("a", "string"), ([1, 2], "ints"), ([0.5], "floats"), (["a"], "strings")],
)
def test_kinds(value: object, kind: str):
    attribute = attribute_of(value)
    assert kind_of(attribute) == kind
    assert python_value(attribute) == value


def test_an_attribute_of_no_kind():
    with pytest.raises(InputError, match="cannot be an attribute of kind graph"):
        attribute_of(3, "graph")


def test_dimensions():
    type_ = tensor_type(f32, ["batch", 3, "width // 8 * 8", None])
    assert str(type_) == 'tensor<?x3x?x?xf32, #onnx.dims<"batch", "", "8*floordiv(width, 8)", "?">>'
    assert shape_of(type_) == (Expr.parse("batch"), Expr.const(3), Expr.parse("8*floordiv(width, 8)"), None)
    assert dims_of(type_) is None
    assert dims_of(tensor_type(f32, ["n", 4])) == (Expr.parse("n"), Expr.const(4))
    assert tensor_type(f32, ["2*n - 2*n + 3"]) == tensor_type(f32, [3])
    assert shape_of(UnrankedTensorType(f32)) is None
    assert shape_of(TensorType(f32, [4, -(2**63)])) == (Expr.const(4), None)
    assert tensor_type(np.float32, [4]) == TensorType(f32, [4])


def test_equal_dimensions_make_equal_types():
    texts = ['tensor<?xf32, #onnx.dims<"2*n + 1">>', 'tensor<?xf32, #onnx.dims<"1 + n*2">>']
    assert len({Parser(context(), text).parse_type() for text in texts}) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('tensor<?x?xf32, #onnx.dims<"n">>', "has 2 dimensions, but #onnx.dims names 1"),
        ('tensor<4x?xf32, #onnx.dims<"n", "m">>', "because the dimension is static at position 0, not 'n'"),
        ('tensor<?x4xf32, #onnx.dims<"", "">>', "say what the dynamic dimension is at position 0"),
        ("tensor<9223372036854775808xf32>", "more than ONNX has numbers for"),
        ('!onnx.seq<!onnx.map<i64, tensor<?x?xf32, #onnx.dims<"n">>>>', "has 2 dimensions, but #onnx.dims names 1"),
    ],
)
def test_dimensions_that_do_not_fit(text: str, message: str):
    with pytest.raises(VerifyException, match=message):
        verify_dims(Parser(context(), text).parse_type())


@pytest.mark.parametrize("dim", [2**63, "9223372036854775808", "4*4611686018427387904"])
def test_a_dimension_beyond_all_numbers(dim: int | str):
    with pytest.raises(InputError, match=r"a dimension of \d+ elements is more than ONNX has numbers for"):
        tensor_type(np.float32, [dim])


def test_a_dimension_that_is_no_expression():
    with pytest.raises(ParseError, match=r"unexpected character in expression 'n \? 2'"):
        Parser(context(), 'tensor<?xf32, #onnx.dims<"n ? 2">>').parse_type()


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("!onnx.seq<tensor<*xf32>>", "seq(tensor(float))"),
        ("!onnx.optional<!onnx.seq<tensor<4xi64>>>", "optional(seq(tensor(int64)))"),
        ("!onnx.map<i64, tensor<f32>>", "map(int64, float)"),
        ("!onnx.seq<!onnx.map<!onnx.string, tensor<f32>>>", "seq(map(string, float))"),
        ("!onnx.sparse<tensor<4x4xf64>>", "sparse_tensor(double)"),
        ("!onnx.any", None),
        ("tensor<4xindex>", None),
    ],
)
def test_spelling_of_types(text: str, spelled: str | None):
    type_ = Parser(context(), text).parse_type()
    assert str(type_) == text
    assert onnx_type(type_) == spelled


def test_what_has_no_element_type():
    with pytest.raises(InputError, match="run infer-shapes first"):
        dtype_of(ANY)
    with pytest.raises(InputError, match="element type 99"):
        element_by_code(99)
    with pytest.raises(InputError, match="datetime64"):
        element_by_dtype(np.datetime64)
    with pytest.raises(VerifyException, match=r"onnx\.sparse holds a tensor type"):
        Parser(context(), "!onnx.sparse<i64>").parse_type()


def test_strings_have_no_size():
    assert element_bits(tensor_type(np.dtype(object), [4])) == 0
    assert element_bits(i64) == 64
