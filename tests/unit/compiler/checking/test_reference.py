"""The reference that bundles are compared with."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from gimlet.compiler.checking.reference import OnnxReference, SessionReference, TorchReference, reference_of
from gimlet.compiler.sources import Source
from gimlet.runtime.errors import InputError


def saved(path: Path, node: onnx.NodeProto, shape: list[int], weights: dict[str, np.ndarray], opset: int = 13) -> Path:
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("shape", [[2, 3, 5], [2, 3, 5, 4], [2, 3, 2, 2, 3]])
def test_the_maximum_is_over_every_spatial_dimension(tmp_path: Path, shape: list[int]) -> None:
    path = saved(tmp_path / "m.onnx", helper.make_node("GlobalMaxPool", ["x"], ["y"]), shape, {})
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (y,) = OnnxReference(path).run({"x": x})
    np.testing.assert_array_equal(y, x.max(axis=tuple(range(2, len(shape))), keepdims=True))


def test_batch_normalization_takes_the_statistics_that_it_is_given(tmp_path: Path) -> None:
    node = helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], epsilon=0.0)
    weights = {"s": 2.0, "b": 1.0, "m": 3.0, "v": 4.0}
    tensors = {name: np.full(3, value, np.float32) for name, value in weights.items()}
    path = saved(tmp_path / "m.onnx", node, [1, 3, 2], tensors, opset=9)
    (y,) = OnnxReference(path).run({"x": np.full((1, 3, 2), 5, np.float32)})
    assert (y == 2 * (5 - 3) / 2 + 1).all()


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("shape", [(1, 5, 2, 3), (3, 2, 1, 1)])
def test_every_channel_is_normalised_by_its_neighbours(tmp_path: Path, shape: tuple[int, ...], size: int) -> None:
    node = helper.make_node("LRN", ["x"], ["y"], size=size, alpha=0.5, beta=0.6, bias=0.7)
    path = saved(tmp_path / "m.onnx", node, list(shape), {})
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.testing.assert_allclose(OnnxReference(path).run({"x": x})[0], SessionReference(path).run({"x": x})[0], rtol=1e-5)


@pytest.mark.parametrize("condition", ["", "c"])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_a_loop_collects_along_a_new_dimension(tmp_path: Path, shape: tuple[int, ...], condition: str) -> None:
    """With a condition it ends before its third turn: what it carries is above 3 then."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["before", "one"], ["after"]),
            helper.make_node("ReduceMax", ["after"], ["most"], keepdims=0),
            helper.make_node("Less", ["most", "three"], ["still"]),
            helper.make_node("Mul", ["after", "x"], ["seen"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, shape),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("seen", TensorProto.FLOAT, shape),
        ],
    )
    weights = {"n": np.array(4), "c": np.array(True), "one": np.float32(1), "three": np.float32(3)}
    node = helper.make_node("Loop", ["n", condition, "x"], ["last", "y"], body=body)
    tensors = {name: np.asarray(value) for name, value in weights.items()}
    path = saved(tmp_path / "m.onnx", node, list(shape), tensors)
    x = np.full(shape, 1.5, np.float32)
    after = [x + 1, x + 2] if condition else [x + 1, x + 2, x + 3, x + 4]
    np.testing.assert_array_equal(OnnxReference(path).run({"x": x})[0], np.stack(after) * x)


def test_where_the_evaluator_fails_a_session_runs_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "m.onnx", helper.make_node("Relu", ["x"], ["y"]), [2], {})
    reference = OnnxReference(path)

    def fail(*_: object, **__: object) -> None:
        raise IndexError("axis 2 is out of bounds")

    monkeypatch.setattr(reference._evaluator, "run", fail)
    (y,) = reference.run({"x": np.array([-1, 2], np.float32)})
    assert list(y) == [0, 2]
    assert reference.name.startswith("onnxruntime, unsplit")
    assert "axis 2 is out of bounds" in reference.name
    assert reference.values({"x": y}, ["y"]) == {}


def test_a_model_that_no_reference_runs_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", helper.make_node("Nothing", ["x"], ["y"], domain="nobody"), [2], {})
    with pytest.raises(InputError, match=r"no reference can run the model: .*onnxruntime does not load the model"):
        reference_of(Source(path, "m", "m.onnx"))


def test_inputs_that_a_session_does_not_take_are_refused(tmp_path: Path) -> None:
    reference = SessionReference(saved(tmp_path / "m.onnx", helper.make_node("Relu", ["x"], ["y"]), [2], {}))
    for inputs in ({}, {"x": np.zeros(3, np.float32)}, {"x": np.zeros(2, np.int64)}):
        with pytest.raises(InputError, match="does not run on these inputs"):
            reference.run(inputs)


def test_inputs_that_a_module_does_not_take_are_refused() -> None:
    reference = TorchReference(Source(torch.nn.Linear(3, 2), "m", "m", (torch.zeros(1, 3),)))
    with pytest.raises(InputError, match="takes 1 inputs, and got 0"):
        reference.run({})
    with pytest.raises(InputError, match="does not run on these inputs: RuntimeError"):
        reference.run({"x": np.zeros((1, 4), np.float32)})


@pytest.mark.parametrize(
    ("axis", "data", "indices"), [(1, (2, 100), (2, 70)), (0, (100, 3), (7, 2)), (-1, (4, 3), (2, 5))]
)
def test_elements_are_gathered_along_any_length(
    tmp_path: Path, axis: int, data: tuple[int, int], indices: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    i = rng.integers(-data[axis], data[axis], indices)
    node = helper.make_node("GatherElements", ["x", "i"], ["y"], axis=axis)
    path = saved(tmp_path / "m.onnx", node, list(data), {"i": i})
    x = rng.standard_normal(data).astype(np.float32)
    (y,) = OnnxReference(path).run({"x": x})
    rows, columns = np.indices(indices)
    np.testing.assert_array_equal(y, x[i, columns] if axis == 0 else x[rows, i])


def test_outputs_and_what_is_inside_are_of_one_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "m.onnx", helper.make_node("Relu", ["x"], ["y"]), [2], {})
    reference = OnnxReference(path)
    calls: list[bool] = []
    evaluate = reference._evaluate
    monkeypatch.setattr(
        reference, "_evaluate", lambda *args, **kwargs: (calls.append(True), evaluate(*args, **kwargs))[1]
    )
    x = np.array([-1, 2], np.float32)
    (y,), known = reference.run_and_see({"x": x}, ["x", "y", "z"])
    assert (y.tolist(), sorted(known), len(calls)) == ([0, 2], ["x", "y"], 1)


INTEGERS = np.random.default_rng(1)


def integers(dtype: type, *shape: int) -> np.ndarray:
    return INTEGERS.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)


def scales(*shape: int) -> np.ndarray:
    return INTEGERS.uniform(0.01, 0.02, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("op", "x", "others", "attributes"),
    [
        ("DequantizeLinear", (np.int8, 3, 4, 5), [scales(4), integers(np.int8, 4)], {"axis": 1}),
        ("DequantizeLinear", (np.uint8, 3, 4), [scales(4)], {"axis": -1}),
        ("DequantizeLinear", (np.int32, 3, 4), [scales()], {}),
        ("MatMulInteger", (np.uint8, 3, 7), [integers(np.uint8, 7, 5), np.uint8(9), np.uint8(7)], {}),
        (
            "ConvInteger",
            (np.uint8, 2, 4, 6, 5),
            [integers(np.uint8, 6, 2, 3, 3), np.uint8(9), np.uint8(7)],
            {"group": 2, "pads": [1, 1, 1, 1]},
        ),
        (
            "QLinearMatMul",
            (np.uint8, 3, 7),
            [scales(), np.uint8(9), integers(np.uint8, 7, 5), scales(), np.uint8(7), np.float32(0.4), np.uint8(3)],
            {},
        ),
        (
            "QLinearConv",
            (np.uint8, 1, 4, 6, 5),
            [
                *(scales(), np.uint8(9), integers(np.int8, 6, 4, 3, 3) >> 1, scales(6), np.zeros(6, np.int8)),
                *(np.float32(0.5), np.uint8(100), integers(np.int8, 6).astype(np.int32)),
            ],
            {"strides": [2, 1], "auto_pad": "SAME_UPPER"},
        ),
    ],
)
def test_integers_of_8_bits_are_evaluated_as_a_session_does(
    tmp_path: Path, op: str, x: tuple[type, int], others: list[np.ndarray], attributes: dict[str, object]
) -> None:
    names = [f"w{index}" for index in range(len(others))]
    dtype, *shape = x
    node = helper.make_node(op, ["x", *names], ["y"], **attributes)
    weights = {name: np.asarray(value) for name, value in zip(names, others, strict=True)}
    path = saved(tmp_path / "m.onnx", node, shape, weights)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    onnx.save(model, path)
    given = {"x": integers(dtype, *shape)}
    reference = reference_of(Source(path, "m", str(path)))
    np.testing.assert_array_equal(reference.run(given)[0], SessionReference(path).run(given)[0])
    assert reference.name == "onnx reference evaluator"
