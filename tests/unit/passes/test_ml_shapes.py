"""infer-shapes on the operators of ai.onnx.ml: what it finds is what comes out of them."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from tests.unit.dialects.onnx_cases import imported

from gimlet.dialects.onnx import OnnxOp, shape_of
from gimlet.passes.infer_shapes import InferShapesPass

TREE = {
    "nodes_falsenodeids": [2, 0, 0],
    "nodes_featureids": [0, 0, 0],
    "nodes_hitrates": [1.0] * 3,
    "nodes_missing_value_tracks_true": [0] * 3,
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_nodeids": [0, 1, 2],
    "nodes_treeids": [0] * 3,
    "nodes_truenodeids": [1, 0, 0],
    "nodes_values": [0.5, 0.0, 0.0],
}
CLASSES = {
    "class_ids": [0, 2],
    "class_nodeids": [1, 2],
    "class_treeids": [0, 0],
    "class_weights": [1.0, 1.0],
    "post_transform": "NONE",
}
TARGETS = {"target_ids": [0, 1], "target_nodeids": [1, 2], "target_treeids": [0, 0], "target_weights": [1.0, 2.0]}
LINEAR = {"coefficients": [1.0] * 12, "intercepts": [0.0] * 3}
SUPPORT = {
    "coefficients": [1.0, -1.0],
    "kernel_params": [0.5, 0.0, 3.0],
    "kernel_type": "RBF",
    "n_supports": 2,
    "rho": [0.1],
    "support_vectors": [0.0] * 8,
}
X, INDICES = np.ones((5, 4), np.float32), np.array([[0], [2], [1]])

CASES: list[tuple[str, int, list[np.ndarray], dict[str, Any]]] = [
    ("TreeEnsembleClassifier", 1, [X], {**TREE, **CLASSES, "classlabels_int64s": [3, 4, 5]}),
    ("TreeEnsembleClassifier", 3, [X], {**TREE, **CLASSES, "classlabels_strings": ["a", "b", "c"]}),
    ("TreeEnsembleRegressor", 1, [X], {**TREE, **TARGETS, "n_targets": 2}),
    ("LinearClassifier", 1, [X], {**LINEAR, "classlabels_ints": [3, 4, 5]}),
    ("LinearClassifier", 1, [X], {**LINEAR, "classlabels_strings": ["a", "b", "c"]}),
    ("LinearRegressor", 1, [X], {**LINEAR, "targets": 3}),
    ("SVMRegressor", 1, [X], SUPPORT),
    ("ArrayFeatureExtractor", 1, [np.arange(4, dtype=np.float32), INDICES], {}),
    ("ArrayFeatureExtractor", 1, [X, INDICES], {}),
]


def model_of(op_type: str, version: int, arrays: list[np.ndarray], attributes: dict[str, Any], rows: int | str):
    """A model of one operator on inputs whose first dimension is `rows`."""
    outputs = ["y", "scores"] if op_type.endswith("Classifier") else ["y"]
    names = [f"x{index}" for index in range(len(arrays))]
    inputs = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            [rows if array is arrays[-1] else len(array), *array.shape[1:]],
        )
        for name, array in zip(names, arrays, strict=True)
    ]
    node = helper.make_node(op_type, names, outputs, domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name=name) for name in outputs])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), dict(zip(names, arrays, strict=True))


@pytest.mark.parametrize("rows", ["fixed", "n"])
@pytest.mark.parametrize(
    ("op_type", "version", "arrays", "attributes"),
    CASES,
    ids=[f"{case[0]}-{index}" for index, case in enumerate(CASES)],
)
def test_shapes_are_those_that_come_out(op_type, version, arrays, attributes, rows):
    count = len(arrays[-1])
    model, feeds = model_of(op_type, version, arrays, attributes, count if rows == "fixed" else rows)
    made = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    module, ctx = imported(model)
    InferShapesPass().apply(ctx, module)
    op = next(op for op in module.walk() if isinstance(op, OnnxOp))
    for result, array in zip(op.results, made, strict=True):
        assert [dim and dim.evaluate({"n": count}) for dim in shape_of(result) or ()] == list(array.shape)


def test_scores_of_two_classes_may_be_one_column_or_two():
    """Kernels give as many as the weights that they were trained with say, so the size is left open."""
    attributes = {**LINEAR, "coefficients": [1.0] * 4, "intercepts": [0.0], "classlabels_ints": [0, 1]}
    model, _ = model_of("LinearClassifier", 1, [X], attributes, "n")
    module, ctx = imported(model)
    InferShapesPass().apply(ctx, module)
    _, scores = next(op for op in module.walk() if isinstance(op, OnnxOp)).results
    assert [dim and str(dim) for dim in shape_of(scores) or ()] == ["n", None]
    assert str(scores.type).startswith("tensor<?x?xf32")
