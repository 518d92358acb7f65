"""The page that says what each target runs."""

import subprocess
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from gimlet.dialects.onnx.schema import schema_table
from gimlet.tools.support_matrix import COLUMNS, PAGE, Answers, node_tests, retyped


@pytest.fixture(scope="module")
def tests() -> dict[str, list[onnx.ModelProto]]:
    found: dict[str, list[onnx.ModelProto]] = {}
    for operator, model in node_tests():
        found.setdefault(operator, []).append(model)
    return found


def types(model):
    return [info.type.tensor_type.elem_type for info in (*model.graph.input, *model.graph.output)]


def schema_of(name):
    return schema_table().newest("", name)


def test_a_cell_tells_all_from_some_from_none():
    answers = Answers()
    for name, taken in (("float", True), ("float", True), ("int8", True), ("int8", False), ("bool", False)):
        answers.asked[name] += 1
        answers.taken[name] += taken
    assert answers.cell() == "f32 (i8)"
    assert Answers().cell() == "–"


@pytest.mark.full
def test_tests_of_most_operators_are_found_with_their_axes_constant(tests):
    assert len(tests) > 150
    assert all(len(model.graph.input) == 1 for model in tests["ReduceSum"] if len(model.graph.node[0].input) == 2)


@pytest.mark.full
def test_types_that_the_schema_ties_change_together(tests):
    half = retyped(tests["Add"][0], schema_of("Add"), "float16")
    assert set(types(half)) == {TensorProto.FLOAT16}
    where = retyped(tests["Equal"][0], schema_of("Equal"), "double")
    assert types(where) == [TensorProto.DOUBLE, TensorProto.DOUBLE, TensorProto.BOOL]
    onnx.checker.check_model(half)


def model_of(op_type, count, kind=TensorProto.FLOAT, shape=()):
    names = ["a", "b", "c"][:count]
    graph = helper.make_graph(
        [helper.make_node(op_type, names, ["y"])],
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name in names],
        [helper.make_tensor_value_info("y", kind, [None] * (op_type == "Range") or shape)],
    )
    return helper.make_model(graph)


@pytest.mark.parametrize(("op_type", "count"), [("Range", 3), ("Add", 2), ("Neg", 1)])
def test_a_model_of_another_type_is_valid(op_type, count):
    model = retyped(model_of(op_type, count), schema_of(op_type), "int32")
    assert set(types(model)) == {TensorProto.INT32}
    onnx.checker.check_model(model)


def test_a_type_that_the_schema_has_not_is_left_out():
    assert retyped(model_of("Sqrt", 1), schema_of("Sqrt"), "int32") is None
    assert retyped(model_of("Sqrt", 1), schema_of("Sqrt"), "bool") is None


@pytest.mark.full
def test_operators_of_shapes_get_theirs_from_another_op(tests):
    model = tests["ConstantOfShape"][0]
    assert [node.op_type for node in model.graph.node] == ["Identity", "ConstantOfShape"]
    onnx.checker.check_model(model)


def test_the_page_has_a_column_for_each_target():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert lines[0] == "| operator | " + " | ".join(name for name, _ in COLUMNS) + " |"
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 2}


@pytest.mark.full
def test_the_page_is_what_the_targets_say_now():
    done = subprocess.run([sys.executable, "-m", "gimlet.tools.support_matrix", "--check"], check=False)
    assert done.returncode == 0
