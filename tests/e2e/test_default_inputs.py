"""Inputs with initializers: a caller may give them, and a bundle knows what they are otherwise."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import gimlet
from gimlet.runtime.errors import InputError, UsageError

X = np.arange(4, dtype=np.float32)
SCALE = np.full(4, 3, np.float32)


def scaled(ir_version: int = 8, default: np.ndarray = SCALE, declared: Any = (4,)) -> onnx.ModelProto:
    """`y = x * scale + shift`, where the last two have defaults."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y", "shift")]
    scale = helper.make_tensor_value_info("scale", helper.np_dtype_to_tensor_dtype(default.dtype), declared)
    nodes = [helper.make_node("Mul", ["x", "scale"], ["m"]), helper.make_node("Add", ["m", "shift"], ["y"])]
    initializers = [numpy_helper.from_array(default, "scale"), numpy_helper.from_array(X, "shift")]
    graph = helper.make_graph(nodes, "g", [ports[0], scale, ports[2]], [ports[1]], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir_version)


def run(model: onnx.ModelProto, folder: Path, inputs: dict[str, Any], **options: Any) -> np.ndarray:
    with gimlet.load(gimlet.compile(model, output=folder / "m.gimlet", **options).path) as program:
        return program.run(inputs)["y"]


def test_what_is_not_given_has_its_default(tmp_path: Path):
    bundle = gimlet.compile(scaled(), output=tmp_path / "m.gimlet")
    with gimlet.load(bundle.path, verify_hashes=True) as program:
        assert [spec.name for spec in program.inputs] == ["x", "scale", "shift"]
        assert np.array_equal(program(x=X)["y"], 4 * X)
        assert np.array_equal(program(x=X, scale=2 * SCALE)["y"], 7 * X)
        assert np.array_equal(program(x=X)["y"], 4 * X)
        with pytest.raises(InputError, match="input 'x': is missing"):
            program(scale=SCALE)


def test_a_default_is_stored_packed(tmp_path: Path):
    default = np.array([1, -2, 3, 4, -5], helper.tensor_dtype_to_np_dtype(TensorProto.INT4))
    x, y = (helper.make_tensor_value_info(name, TensorProto.INT4, [5]) for name in ("x", "y"))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y], [numpy_helper.from_array(default, "x")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert np.array_equal(run(model, tmp_path, {}).astype(int), default.astype(int))


def test_an_old_model_lists_its_weights_and_they_are_constants(tmp_path: Path):
    model = scaled(ir_version=3)
    assert np.array_equal(run(model, tmp_path, {"x": X}), 4 * X)
    with pytest.raises(InputError, match="input 'scale': there is no such input"):
        run(model, tmp_path, {"x": X, "scale": SCALE}, force=True)


def test_which_inputs_stay_inputs_can_be_said(tmp_path: Path):
    model = scaled(ir_version=3)
    given = {"x": X, "scale": 2 * SCALE}
    assert np.array_equal(run(model, tmp_path, given, overridable="scale|other"), 7 * X)
    with pytest.raises(InputError, match="there is no such input"):
        run(model, tmp_path, {"x": X, "shift": X}, overridable="scale", force=True)
    with pytest.raises(UsageError, match=r"--overridable: '\(' is not a regular expression"):
        run(model, tmp_path, given, overridable="(", force=True)


@pytest.mark.parametrize("declared", [(3,), (2, 2)])
def test_a_default_that_does_not_fit_its_input(declared: Any, tmp_path: Path):
    with pytest.raises(InputError, match=r"input 'scale': its default is a float32 of shape \[4\]"):
        run(scaled(declared=declared), tmp_path, {"x": X})
