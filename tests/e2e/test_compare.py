"""gimlet-compare finds the segment and the op whose numbers part; gimlet-diff finds what changed between bundles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.e2e.models import chain

import gimlet
from gimlet.tools import gimlet_compare, gimlet_diff


@pytest.fixture
def bundles(tmp_path: Path) -> tuple[Path, Path]:
    """A right bundle and one whose third weight is 1% off."""
    paths = []
    for name, third in (("right", 1.0), ("wrong", 1.01)):
        model = chain(tmp_path / f"{name}.onnx", third)
        paths.append(gimlet.compile(str(model), bind={"n": "1:4:16"}, output=tmp_path / f"{name}.gimlet").path)
    return paths[0], paths[1]


def run(main, capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    streams = capsys.readouterr()
    return int(stop.value.code or 0), streams.out + streams.err


def test_equal_numbers_pass(bundles: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    right, _ = bundles
    code, text = run(gimlet_compare.main, capsys, right, "--ref", right.with_suffix(".onnx"), "--json")
    assert code == 0
    assert json.loads(text)["ok"] is True


def test_the_first_op_that_parts_is_named(bundles: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    right, wrong = bundles
    model = right.with_suffix(".onnx")
    code, text = run(gimlet_compare.main, capsys, wrong, "--ref", model, "--bisect", "--json")
    assert code == 4
    found = json.loads(text)
    assert [segment["ok"] for segment in found["segments"]] == [False]
    assert next(op for op in found["ops"] if not op["ok"])["value"] == "c"
    code, text = run(gimlet_compare.main, capsys, wrong, "--ref", model, "--bisect")
    assert code == 4
    assert "first op that parts: onnx.MatMul 'product2'" in text


def test_a_diff_names_the_weights_and_fails_where_it_is_told_to(
    bundles: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    right, wrong = bundles
    code, text = run(gimlet_diff.main, capsys, right, wrong, "--fail-on", "placement,cost:5%")
    assert code == 0
    assert "weights: weights/weights.bin" in text
    code, text = run(gimlet_diff.main, capsys, right, wrong, "--fail-on", "weights")
    assert code == 4
    assert "not allowed to change: weights" in text
    code, text = run(gimlet_diff.main, capsys, right, right)
    assert (code, text.strip()) == (0, "no difference")


def two_inputs(path: Path) -> Path:
    """Adds two inputs of as many rows."""
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 2]) for name in ("a", "b", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", infos[:2], infos[2:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_inputs_are_made_up_in_the_sizes_of_those_that_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = two_inputs(tmp_path / "m.onnx")
    bundle = gimlet.compile(str(model), bind={"n": "1:2:4"}, output=tmp_path / "m.gimlet").path
    np.save(tmp_path / "a.npy", np.ones((3, 2), np.float32))
    code, text = run(gimlet_compare.main, capsys, bundle, "--ref", model, "--input", f"a={tmp_path / 'a.npy'}")
    assert code == 0, text
    code, text = run(gimlet_compare.main, capsys, bundle, "--ref", model, "--input", f"c={tmp_path / 'a.npy'}")
    assert (code, "--input c: there is no such input" in text) == (2, True), text


def test_the_values_of_a_quantized_model_of_an_early_opset_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths: list[Path] = []
    for name, factor in (("right", 1), ("wrong", 2)):
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="/quantize"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="/back"),
            helper.make_node("Mul", ["d", "f"], ["y"], name="/mul"),
        ]
        constants = {"s": np.float32(0.1), "z": np.uint8(128), "f": np.full(4, factor, np.float32)}
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4])],
            [onnx.numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
        )
        paths.append(tmp_path / f"{name}.onnx")
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), paths[-1])
    bundle = gimlet.compile(str(paths[1]), output=tmp_path / "m.gimlet").path
    code, text = run(gimlet_compare.main, capsys, bundle, "--ref", paths[0], "--bisect")
    assert (code, "first op that parts: onnx.Mul '/mul'" in text) == (4, True)
    code, _ = run(gimlet_compare.main, capsys, bundle, "--ref", paths[1])
    assert code == 0
