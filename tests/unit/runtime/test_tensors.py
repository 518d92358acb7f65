"""Names of element types and shapes over dimensions."""

import sys

import numpy as np
import onnx
import pytest
import torch

from gimlet.runtime.errors import InputError, MissingError
from gimlet.runtime.expr import Expr
from gimlet.runtime.tensors import (
    EXTENDED_TYPES,
    NUMPY_TYPES,
    STRING,
    TensorSpec,
    as_array,
    nbytes,
    numpy_type,
    onnx_type,
    symbol_of,
    type_name,
    type_of_onnx,
)


@pytest.mark.parametrize("name", [*NUMPY_TYPES, *EXTENDED_TYPES, STRING])
def test_a_type_is_found_by_its_name_and_its_onnx_number(name: str):
    dtype = numpy_type(name)
    assert type_name(dtype) == name
    assert type_of_onnx(onnx_type(name)) == dtype


@pytest.mark.parametrize("name", [*NUMPY_TYPES, *EXTENDED_TYPES])
def test_numbers_are_those_of_onnx(name: str):
    assert onnx.helper.tensor_dtype_to_np_dtype(onnx_type(name)) == numpy_type(name)


def test_other_types_are_refused():
    with pytest.raises(InputError, match="'float33' is not an element type"):
        numpy_type("float33")
    with pytest.raises(InputError, match="is not the type of a tensor"):
        type_name(np.dtype("datetime64[s]"))
    with pytest.raises(InputError, match="ONNX's element type 99 is unknown"):
        type_of_onnx(99)


def test_a_type_that_numpy_lacks_names_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingError, match="numpy has no bfloat16 by itself") as caught:
        numpy_type.__wrapped__("bfloat16")
    assert caught.value.hint == "pip install ml-dtypes"


def test_a_shape_is_resolved_where_its_dimensions_are_known():
    spec = TensorSpec("x", "float32", (Expr.parse("n"), Expr.parse("2*n + ceildiv(w, 4)"), Expr.const(3)))
    assert spec.resolve({"n": 2, "w": 9}) == (2, 7, 3)
    assert spec.resolve({"n": 2}) is None
    assert TensorSpec("x", "float32", (None,)).resolve({}) is None
    assert TensorSpec("x", "float32", None).resolve({}) is None
    assert str(TensorSpec("x", "float32", (None, Expr.const(3)))) == "x: float32[?, 3]"
    assert str(TensorSpec("x", "float32", None)) == "x: float32[?]"


def test_a_dimension_is_a_symbol_only_by_itself():
    assert symbol_of(Expr.symbol("past + 1")) == "past + 1"
    assert [symbol_of(dim) for dim in (Expr.parse("2*n"), Expr.parse("n + m"), Expr.const(3), None)] == [None] * 4


def test_bytes_are_those_of_numpy_s_layout():
    assert nbytes(np.dtype("float32"), (2, 3)) == 24
    assert nbytes(np.dtype("int8"), ()) == 1


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float16", "int64"])
def test_a_tensor_of_pytorch_is_an_array_in_its_own_memory(name: str):
    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, name)).T
    array = as_array(tensor)
    assert (array.dtype, array.shape) == (numpy_type(name), (3, 2))
    assert array.astype(np.float32).tolist() == [[0, 3], [1, 4], [2, 5]]
    array[0, 0] = 1
    assert tensor[0, 0].item() == 1
