"""Models whose shapes depend on data: the sizes have limits, and what finds nothing is not taken for something."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import gimlet
from gimlet.runtime.errors import InfeasibleError, UsageError

RACK = Path(__file__).resolve().parents[2] / "examples" / "topologies" / "rack.toml"


def detector() -> onnx.ModelProto:
    """Boxes that non-maximum suppression keeps, squared, and whether there are none."""
    nodes = [
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["selected"]),
        helper.make_node("Gather", ["selected", "column"], ["index"], axis=1),
        helper.make_node("Squeeze", ["boxes", "zero"], ["rows"]),
        helper.make_node("Gather", ["rows", "index"], ["kept"], axis=0),
        helper.make_node("Mul", ["kept", "kept"], ["squares"]),
        helper.make_node("Shape", ["selected"], ["count"], end=1),
        helper.make_node("Equal", ["count", "zero"], ["nothing"]),
    ]
    constants: dict[str, Any] = {"most": np.int64(5), "overlap": np.float32(0.5), "least": np.float32(0)}
    constants |= {"column": np.int64(2), "zero": np.array([0])}
    inputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, "n", 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, "n"]),
    ]
    outputs = [
        helper.make_tensor_value_info("squares", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("nothing", TensorProto.BOOL, [1]),
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_the_number_of_boxes_has_a_limit_and_may_be_none(tmp_path: Path):
    bundle = gimlet.compile(detector(), output=tmp_path / "m.gimlet", bind={"n": "1:8:100"})
    limit = bundle.manifest.dims["selected_d0"]
    assert (limit.minimum, limit.optimum, limit.maximum) == (0, 15, 15)
    generator = np.random.default_rng(0)
    with gimlet.load(bundle.path) as program:
        for size in (1, 8, 100):
            boxes = generator.random((1, size, 4), np.float32)
            scores = generator.random((1, 3, size), np.float32) + 0.1
            found = program(boxes=boxes, scores=scores)
            assert 1 <= len(found["squares"]) <= 15
            assert not found["nothing"]
            found = program(boxes=boxes, scores=-scores)
            assert found["squares"].shape == (0, 4)
            assert found["nothing"]


def test_a_limit_can_be_narrowed_and_not_fixed(tmp_path: Path):
    def dims(**bind: str | int) -> Any:
        return gimlet.compile(
            detector(), output=tmp_path / "m.gimlet", bind={"n": "1:8:100", **bind}, force=True
        ).manifest.dims

    assert dims(selected_d0="0:4:50")["selected_d0"].optimum == 4
    assert dims(selected_d0="0:4:50")["selected_d0"].maximum == 15
    with pytest.raises(UsageError, match="selected_d0 depends on data, so its size cannot be fixed"):
        dims(selected_d0=4)
    with pytest.raises(UsageError, match="the model has no dimension 'selected_d9'"):
        dims(selected_d9="1:2:3")


def prefix() -> onnx.ModelProto:
    """The sum of `x` spread over as many elements as `x` has, and the first `count` of these."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], name="total"),
        helper.make_node("Shape", ["x"], ["shape"], name="length"),
        helper.make_node("Expand", ["sum", "shape"], ["spread"], name="spreads"),
        helper.make_node("Slice", ["spread", "zero", "count", "zero"], ["first"], name="cuts"),
        helper.make_node("Neg", ["first"], ["y"], name="turns"),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("count", TensorProto.INT64, [1]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(np.array([0]), "zero")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_program_gets_the_sizes_that_none_of_its_inputs_has(tmp_path: Path):
    """The accelerator's segment reads one element and makes n; what comes after the cut has a length from its input."""
    pins = {"total|length|cuts": "cpu", "spreads|turns": "sram0"}
    bundle = gimlet.compile(prefix(), output=tmp_path / "m.gimlet", bind={"n": "1:8:64"}, topology=RACK, pins=pins)
    with gimlet.load(bundle.path, emulate_missing=True) as program:
        assert {running.executor for running in program.running} == {"onnxruntime", "sram"}
        for size, count in ((8, 3), (5, 5), (64, 1)):
            x = np.arange(size, dtype=np.float32)
            np.testing.assert_allclose(program(x=x, count=np.array([count]))["y"], np.full(count, -x.sum()))


def test_a_program_is_not_made_where_its_own_data_decide_a_size(tmp_path: Path):
    with pytest.raises(InfeasibleError, match="its shape depends on data: first_d0 is not known before it has run"):
        gimlet.compile(
            prefix(), output=tmp_path / "m.gimlet", bind={"n": "1:8:64"}, topology=RACK, pins={"cuts": "sram0"}
        )
