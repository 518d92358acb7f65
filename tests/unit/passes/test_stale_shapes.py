"""Sizes that a model states and that its inputs do not have any more: set aside, and said."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.unit.dialects.onnx_cases import context, imported, model_of

import gimlet
from gimlet.compiler.frontends import load
from gimlet.dialects.onnx import OnnxOp, shape_of, value_name
from gimlet.passes.stale_shapes import forget_stale_shapes

WEIGHT = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4), "w")


def product(rows: int | str, between: int | str | None, output: int | str) -> onnx.ModelProto:
    """Two operators on `rows` x 3, with the rows that the model states for the value in between and the output."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        for name, dims in (("x", [rows, 3]), ("y", [output, 4]))
    )
    graph = helper.make_graph(nodes, "g", [x], [y], [WEIGHT])
    if between is not None:
        graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [between, 4]))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def stated(module) -> dict[str, list[str]]:
    ops = [op for op in module.walk() if isinstance(op, OnnxOp) and op.operands]
    return {value_name(value): [str(dim) for dim in shape_of(value) or ()] for op in ops for value in op.results}


@pytest.mark.parametrize(
    ("between", "output", "taken"),
    [
        (1, "n", ["h[0] = 1, which is n"]),
        (None, 1, ["y[0] = 1, which is n"]),
        (1, 1, ["h[0] = 1, which is n", "y[0] = 1, which is n"]),
        ("n", "n", []),
    ],
)
def test_a_size_of_the_export_is_set_aside_where_the_input_is_dynamic(between, output, taken):
    module, _ = imported(product("n", between, output))
    assert forget_stale_shapes(module) == taken
    module.verify()
    assert stated(module)["y"] == ["n", "4"]


def test_sizes_of_a_model_without_dynamic_dimensions_stay():
    module, _ = imported(product(1, 1, 1))
    assert forget_stale_shapes(module) == []
    assert stated(module) == {"h": ["1", "4"], "y": ["1", "4"]}


def test_a_size_that_holds_for_large_inputs_stays():
    """Whoever exported it knows that there are at least 32 rows."""
    cut = helper.make_node("Slice", ["x", "start", "end"], ["y"])
    weights = {"start": np.array([0]), "end": np.array([32])}
    module, _ = imported(model_of([cut], {"x": ["n", 3]}, {"y": [32, 3]}, weights=weights))
    assert forget_stale_shapes(module) == []
    assert stated(module)["y"] == ["32", "3"]


def test_a_size_that_data_decides_stays():
    made = helper.make_node("Reshape", ["x", "shape"], ["y"])
    model = model_of([made], {"x": ["n", 3]}, {"y": [6, None]})
    model.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [2]))
    module, _ = imported(model)
    assert forget_stale_shapes(module) == []
    assert stated(module)["y"][0] == "6"


@pytest.mark.parametrize(
    ("output", "taken"),
    [("n", ["z[0] = n, which is m + n"]), ("total", []), (7, ["z[0] = 7, which is m + n"])],
)
def test_a_dimension_by_the_name_of_another_is_set_aside(output, taken):
    both = helper.make_node("Concat", ["x", "y"], ["z"], axis=0)
    module, _ = imported(model_of([both], {"x": ["n", 3], "y": ["m", 3]}, {"z": [output, 3]}))
    assert forget_stale_shapes(module) == taken


@pytest.mark.parametrize("output", ["n", "m"])
def test_of_two_dimensions_that_are_added_the_model_says_which(output):
    """A dimension of 1 is spread over the other."""
    both = helper.make_node("Add", ["x", "y"], ["z"])
    module, _ = imported(model_of([both], {"x": ["n", 3], "y": ["m", 3]}, {"z": [output, 3]}))
    assert forget_stale_shapes(module) == []
    assert stated(module)["z"] == [output, "3"]


def test_a_name_at_an_output_that_its_size_contradicts_is_set_aside_once_dimensions_are_fixed(tmp_path):
    """What Squeeze leaves is known when the batch is; the model calls it by the batch's name."""
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]), helper.make_node("Squeeze", ["t"], ["y"])]
    model = model_of(nodes, {"x": ["batch", 4]}, {"y": ["batch"]})
    gimlet.compile(model, output=tmp_path / "m.gimlet", bind={"batch": 1})
    found = gimlet.load(tmp_path / "m.gimlet")(x=np.ones((1, 4), np.float32))["y"]
    assert found.shape == (4,)


def test_a_bundle_of_such_a_model_takes_every_batch_and_says_what_was_set_aside(tmp_path):
    model = product("n", 1, 1)
    lines: list[str] = []
    load(model, say=lines.append, ctx=context())
    assert lines == [
        "the model states a size that does not follow from its inputs: h[0] = 1, which is n (and 1 more); "
        "it is set aside"
    ]
    gimlet.compile(model, output=tmp_path / "m.gimlet", bind={"n": "1:1:8"})
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    np.testing.assert_allclose(
        gimlet.load(tmp_path / "m.gimlet")(x=x)["y"], x @ numpy_helper.to_array(WEIGHT), rtol=1e-6
    )
