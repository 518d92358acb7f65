"""infer-shapes on attentions that give what they cache: what it finds is what comes out of ONNX Runtime's kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from tests.unit.dialects.onnx_cases import imported

from gimlet.dialects.onnx import OnnxOp, shape_of, value_name
from gimlet.passes.infer_shapes import InferShapesPass

Shape = Sequence[int | str] | None
MICROSOFT = "com.microsoft"
FLAT, PAST = ("b", "n", 32), ("b", 4, "past", 8)
ALL = ("y", "k", "v", "s")
HEADS = {"num_heads": 4}
SIZES = {"b": 2, "n": 3, "past": 5, "m": 6}
ONNX_HEADS = {"q_num_heads": 4, "kv_num_heads": 2}
SOME = ("b", "m", 16)

CASES: list[tuple[str, str, list[Shape], Mapping[str, int], Sequence[str], list[str]]] = [
    ("MultiHeadAttention", MICROSOFT, [FLAT, FLAT, FLAT], HEADS, ALL, ["b,n,32", "b,4,n,8", "b,4,n,8", "b,4,n,n"]),
    (
        "MultiHeadAttention",
        MICROSOFT,
        [FLAT, FLAT, FLAT, None, None, None, PAST, PAST],
        HEADS,
        ALL,
        ["b,n,32", "b,4,n + past,8", "b,4,n + past,8", "b,4,n,n + past"],
    ),
    ("MultiHeadAttention", MICROSOFT, [FLAT, ("b", 4, "m", 8), ("b", 4, "m", 8)], HEADS, ALL[:1], ["b,n,32"]),
    (
        "MultiHeadAttention",
        MICROSOFT,
        [FLAT, ("b", "m", 32), ("b", "m", 16)],
        HEADS,
        ALL[:3],
        ["b,n,16", "b,4,m,8", "b,4,m,4"],
    ),
    ("Attention", "", [FLAT, SOME, SOME], ONNX_HEADS, ALL, ["b,n,32", "b,2,m,8", "b,2,m,8", "b,4,n,m"]),
]


def model_of(
    op_type: str, domain: str, shapes: Sequence[Shape], attributes: Mapping[str, int], outputs: Sequence[str]
) -> onnx.ModelProto:
    names = [f"x{index}" if shape is not None else "" for index, shape in enumerate(shapes)]
    node = helper.make_node(op_type, names, list(outputs), domain=domain, **attributes)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
        for name, shape in zip(names, shapes, strict=True)
        if shape is not None
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(helper.make_graph([node], "g", inputs, results), opset_imports=opsets, ir_version=10)


def inferred(model: onnx.ModelProto) -> dict[str, str]:
    module, ctx = imported(model)
    InferShapesPass().apply(ctx, module)
    results = [value for op in module.walk() if isinstance(op, OnnxOp) for value in op.results]
    return {value_name(value): ",".join(str(dim) for dim in shape_of(value) or ()) for value in results}


@pytest.mark.parametrize(("op_type", "domain", "shapes", "attributes", "outputs", "expected"), CASES)
def test_what_is_cached_and_the_scores(
    op_type: str,
    domain: str,
    shapes: list[Shape],
    attributes: Mapping[str, int],
    outputs: Sequence[str],
    expected: list[str],
):
    model = model_of(op_type, domain, shapes, attributes, outputs)
    assert list(inferred(model).values()) == expected
    given = {
        f"x{index}": np.ones([SIZES.get(str(dim), dim) for dim in shape], np.float32)  # type: ignore[misc]
        for index, shape in enumerate(shapes)
        if shape is not None
    }
    made = InferenceSession(model.SerializeToString()).run(None, given)
    for array, shape in zip(made, expected, strict=True):
        assert list(array.shape) == [eval(dim, {}, SIZES) for dim in shape.split(",")]


@pytest.mark.parametrize(("past", "total", "length"), [(9, 5, 9), (4, 5, 5), (4, 3, 4)])
def test_a_past_with_room_is_no_longer_afterwards(past: int, total: int, length: int):
    cache = (1, 2, past, 8)
    shapes: list[Any] = [(1, 1, 32), (1, 1, 16), (1, 1, 16), cache, cache]
    heads = {"num_heads": 4, "kv_num_heads": 2}
    model = model_of("GroupQueryAttention", MICROSOFT, shapes, heads, ALL[:3])
    model.graph.node[0].input.extend(["filled", "total"])
    constants = {"filled": np.array([total - 1], np.int32), "total": np.array(total, np.int32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    assert inferred(model)["k"] == f"1,2,{length},8"
    given = {f"x{index}": np.ones(shape, np.float32) for index, shape in enumerate(shapes)}
    assert InferenceSession(model.SerializeToString()).run(None, given)[1].shape == (1, 2, length, 8)


def test_shapes_that_do_not_fit_are_left_to_the_operator():
    """A rule that reads dimensions which are not there would end the inference of everything behind."""
    assert inferred(model_of("MultiHeadAttention", MICROSOFT, [("b", 32)], HEADS, ALL[:1]))["y"] == "b,32"
    assert inferred(model_of("Attention", "", [FLAT, (2,), SOME], ONNX_HEADS, ALL[:2]))["k"] == "2"
