"""Sequences, optionals and maps: their types, what a caller may give, and that ONNX Runtime takes and gives them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import gimlet
from gimlet.runtime.errors import InputError
from gimlet.runtime.random_inputs import random_inputs
from gimlet.runtime.structures import Map, Optional, Sequence, Tensor, checked, copied, parse_type

ONES = np.ones(3, np.float32)
FLOATS = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"])
SEQUENCE = helper.make_sequence_type_proto(FLOATS)


def model(nodes: list[onnx.NodeProto], inputs: dict[str, Any], outputs: dict[str, Any]) -> onnx.ModelProto:
    ports = [[helper.make_value_info(name, type_) for name, type_ in part.items()] for part in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", *ports)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def run(model: onnx.ModelProto, folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    with gimlet.load(gimlet.compile(model, output=folder / "m.gimlet", bind={}).path) as program:
        program.run(inputs)
        return program.run(inputs)


def test_types_as_a_manifest_spells_them():
    assert parse_type("optional(seq(float32))") == Optional(Sequence(Tensor("float32")))
    assert parse_type("seq(map(string,float32))") == Sequence(Map("string", "float32"))


@pytest.mark.parametrize("text", ["float31", "seq(float32", "seq()", "map(float32,int64)", "list(int8)", "seq(" * 9])
def test_what_is_no_type(text: str):
    with pytest.raises(InputError, match="is not an element type, nor a sequence, an optional or a map"):
        parse_type(text)


@pytest.mark.parametrize(
    ("type_", "given", "message"),
    [
        ("seq(float32)", ONES, r"input 'x': is a ndarray, and the program takes a list"),
        ("seq(float32)", [ONES, 1.5], r"input 'x\[1\]': has elements of float64, and the program takes float32"),
        ("seq(float32)", [[[1], 2]], r"input 'x\[0\]': is no tensor"),
        ("map(int64,float32)", [1], r"is a list, and the program takes a dict"),
        ("map(int64,float32)", {"a": 1}, r"has the key 'a', and the program takes keys of int64"),
        ("map(int64,float32)", {1: "a"}, r"has values that are no float32"),
        ("map(int64,float32)", {1: [2.0]}, r"has values that are no scalars"),
    ],
)
def test_what_a_caller_may_not_give(type_: str, given: Any, message: str):
    with pytest.raises(InputError, match=message):
        checked(given, parse_type(type_), "x")


def test_a_copy_shares_nothing():
    value = [ONES.copy(), {1: 2}, None]
    other = copied(value)
    other[0][0] = 5
    other[1][1] = 6
    assert value[0][0] == 1
    assert value[1] == {1: 2}


@pytest.mark.parametrize("items", [[], [ONES], [ONES, 2 * ONES[:2]]])
def test_a_sequence_goes_in_and_comes_out(items: list[np.ndarray], tmp_path: Path):
    nodes = [
        helper.make_node("SequenceLength", ["xs"], ["count"]),
        helper.make_node("SequenceInsert", ["xs", "x"], ["ys"]),
    ]
    outputs = {"ys": SEQUENCE, "count": helper.make_tensor_type_proto(TensorProto.INT64, [])}
    built = model(nodes, {"xs": SEQUENCE, "x": helper.make_tensor_type_proto(TensorProto.FLOAT, [2])}, outputs)
    found = run(built, tmp_path, {"xs": items, "x": 7 * ONES[:2]})
    assert found["count"] == len(items)
    assert [array.tolist() for array in found["ys"]] == [array.tolist() for array in [*items, 7 * ONES[:2]]]


@pytest.mark.parametrize("items", [["a"], []])
def test_a_sequence_of_texts(items: list[str], tmp_path: Path):
    texts = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.STRING, None))
    built = model([helper.make_node("Identity", ["xs"], ["ys"])], {"xs": texts}, {"ys": texts})
    found = run(built, tmp_path, {"xs": [np.array([item], object) for item in items]})
    assert [array.tolist() for array in found["ys"]] == [[item] for item in items]


@pytest.mark.parametrize("value", [None, ONES])
@pytest.mark.parametrize("of_sequence", [False, True])
def test_an_optional(value: Any, of_sequence: bool, tmp_path: Path):
    type_ = helper.make_optional_type_proto(SEQUENCE if of_sequence else FLOATS)
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("OptionalHasElement", ["x"], ["has"])]
    built = model(nodes, {"x": type_}, {"y": type_, "has": helper.make_tensor_type_proto(TensorProto.BOOL, [])})
    found = run(built, tmp_path, {"x": [value] if of_sequence and value is not None else value})
    assert found["has"] == (value is not None)
    if value is None:
        assert found["y"] is None
    else:
        assert np.array_equal(found["y"][0] if of_sequence else found["y"], ONES)


def test_maps(tmp_path: Path):
    types = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    nodes = [
        helper.make_node("DictVectorizer", ["x"], ["v"], domain="ai.onnx.ml", string_vocabulary=["a", "b", "c"]),
        helper.make_node("ZipMap", ["v"], ["ys"], domain="ai.onnx.ml", classlabels_strings=["a", "b", "c"]),
    ]
    built = model(nodes, {"x": types}, {"ys": helper.make_sequence_type_proto(types)})
    assert run(built, tmp_path, {"x": {"b": 2.0, "a": 1.0}})["ys"] == [{"a": 1.0, "b": 2.0, "c": 0.0}]


def test_an_input_that_is_an_output_is_copied(tmp_path: Path):
    built = model([helper.make_node("Identity", ["xs"], ["ys"])], {"xs": SEQUENCE}, {"ys": SEQUENCE})
    given = [ONES.copy()]
    found = run(built, tmp_path, {"xs": given})
    found["ys"][0][0] = 9
    assert given[0][0] == 1


def test_random_structures_have_two_elements(tmp_path: Path):
    fixed = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [4]))
    built = model([helper.make_node("Identity", ["xs"], ["ys"])], {"xs": fixed}, {"ys": fixed})
    bundle = gimlet.compile(built, output=tmp_path / "m.gimlet")
    assert [array.shape for array in random_inputs(bundle.manifest)["xs"]] == [(4,), (4,)]
