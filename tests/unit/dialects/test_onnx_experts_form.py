"""Mixtures of experts in a wrong layout are refused by the input that does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import gimlet
from gimlet.runtime.errors import InputError

TOKENS, HIDDEN, EXPERTS, INSIDE = 6, 8, 4, 16
SHAPES = {
    "input": [TOKENS, HIDDEN],
    "router": [TOKENS, EXPERTS],
    "fc1": [EXPERTS, INSIDE, HIDDEN],
    "bias1": [EXPERTS, INSIDE],
    "fc2": [EXPERTS, HIDDEN, INSIDE],
    "bias2": [EXPERTS, HIDDEN],
}
QUANTISED = {
    "input": [TOKENS, HIDDEN],
    "router": [TOKENS, EXPERTS],
    "fc1": [EXPERTS, INSIDE, HIDDEN // 2],
    "scales1": [EXPERTS, INSIDE],
    "bias1": [EXPERTS, INSIDE],
    "fc2": [EXPERTS, HIDDEN, INSIDE // 2],
    "scales2": [EXPERTS, HIDDEN],
    "bias2": [EXPERTS, HIDDEN],
}


def model_of(op_type: str, shapes: dict[str, list[int]], attributes: dict[str, object]) -> onnx.ModelProto:
    """A mixture called `mixture` of those shapes: all but the first two are weights."""
    types = {
        name: TensorProto.UINT8 if op_type == "QMoE" and name in ("fc1", "fc2") else TensorProto.FLOAT
        for name in shapes
    }
    names = list(shapes)
    inputs = [helper.make_tensor_value_info(name, types[name], shapes[name]) for name in names[:2]]
    weights = [
        onnx.numpy_helper.from_array(np.ones(shapes[name], helper.tensor_dtype_to_np_dtype(types[name])), name)
        for name in names[2:]
    ]
    node = helper.make_node(op_type, names, ["y"], name="mixture", domain="com.microsoft", **attributes)
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")], weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def refusal(tmp_path: Path, op_type: str, shapes: dict[str, list[int]], **attributes: object) -> str:
    model = tmp_path / "m.onnx"
    onnx.save(model_of(op_type, shapes, {"k": 2, "activation_type": "relu", **attributes}), model)
    with pytest.raises(InputError) as caught:
        gimlet.compile(model, output=tmp_path / "m.gimlet")
    assert "mixture" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changed", "shape", "said"),
    [
        ("input", [HIDDEN], "input 0 (input) has 1 dimensions, not 2 or 3"),
        ("router", [TOKENS], "input 1 (router_probs) has 1 dimensions, not 2"),
        ("router", [TOKENS + 1, EXPERTS], "dimension 0 of router_probs is 7, and input has 6 there"),
        ("fc1", [EXPERTS, HIDDEN, INSIDE], "dimension 2 of fc1_experts_weights is 16, and input has 8 there"),
        ("fc1", [EXPERTS, INSIDE], "input 2 (fc1_experts_weights) has 2 dimensions, not 3"),
        ("fc1", [EXPERTS + 1, INSIDE, HIDDEN], "dimension 0 of fc1_experts_weights is 5, and router_probs has 4 there"),
        ("bias1", [EXPERTS, HIDDEN], "dimension 1 of fc1_experts_bias is 8, and fc1_experts_weights has 16 there"),
        ("fc2", [EXPERTS, HIDDEN, HIDDEN], "fc1_experts_weights give 16 values, and fc2_experts_weights take 8"),
    ],
)
def test_a_wrong_layout_is_refused_by_its_input(changed: str, shape: list[int], said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path, "MoE", {**SHAPES, changed: shape})


def test_a_gate_doubles_what_the_first_product_gives(tmp_path: Path) -> None:
    said = refusal(tmp_path, "MoE", SHAPES, activation_type="swiglu", swiglu_fusion=1)
    assert "take 16: with a gate among them, they are twice as many" in said


@pytest.mark.parametrize("chosen", [0, -1, EXPERTS + 1])
def test_a_token_is_sent_to_some_of_the_experts(chosen: int, tmp_path: Path) -> None:
    assert f"a token is sent to {chosen} experts, of 4" in refusal(tmp_path, "MoE", SHAPES, k=chosen)


def test_quantised_experts_have_scales_and_bits(tmp_path: Path) -> None:
    assert "expert_weight_bits is 0, not 2, 4, 8" in refusal(tmp_path, "QMoE", QUANTISED, expert_weight_bits=0)
    empty = {**QUANTISED, "scales1": [EXPERTS, 0]}
    assert "input 3 (fc1_scales) is empty" in refusal(tmp_path, "QMoE", empty, expert_weight_bits=4)


def test_the_right_layouts_compile(tmp_path: Path) -> None:
    for op_type, shapes, attributes in (("MoE", SHAPES, {}), ("QMoE", QUANTISED, {"expert_weight_bits": 4})):
        model = tmp_path / f"{op_type}.onnx"
        onnx.save(model_of(op_type, shapes, {"k": 2, "activation_type": "relu", **attributes}), model)
        assert gimlet.compile(model, output=tmp_path / f"{op_type}.gimlet").manifest.segments


def test_sizes_among_the_attributes_are_positive(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 32])]
    weights = [
        onnx.numpy_helper.from_array(np.ones([8, 1, 16], np.uint8), "w"),
        onnx.numpy_helper.from_array(np.ones([8], np.float32), "scales"),
    ]
    attributes = {"K": -1, "N": 8, "bits": 4, "block_size": 32}
    node = helper.make_node("MatMulNBits", ["x", "w", "scales"], ["y"], "product", domain="com.microsoft", **attributes)
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")], weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "m.onnx")
    with pytest.raises(InputError, match="attribute K is -1, and has to be 1 or more"):
        gimlet.compile(tmp_path / "m.onnx", output=tmp_path / "m.gimlet")
