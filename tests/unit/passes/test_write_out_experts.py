"""Mixtures of experts that are written out compute what ONNX Runtime's operator does, for whatever it knows."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.onnx_suite.stages import exported, imported, run_onnxruntime

from gimlet.compiler.pipeline import run_passes
from gimlet.passes.dim_ranges import write_ranges
from gimlet.passes.write_out_experts import WriteOutExpertsPass

TOKENS, HIDDEN, EXPERTS, INNER = 5, 8, 4, 6
BY_HAND = {
    "relu": lambda v: np.maximum(v, 0),
    "gelu": lambda v: 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3))),
}


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape) * 100 + shape[0]).standard_normal(shape).astype(np.float32)


def mixture(
    *,
    fused: bool = False,
    bias: bool = True,
    dims: Any = ("n", HIDDEN),
    tokens: Any = "n",
    experts: int = EXPERTS,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one MoE. `fused` is whether the first weight has the gates beside what they gate."""
    width = 2 * INNER if fused else INNER
    weights = {"w1": values(experts, width, HIDDEN), "w2": values(experts, HIDDEN, INNER)}
    if bias:
        weights |= {"b1": values(experts, width), "b2": values(experts, HIDDEN)}
    names = ["x", "router", "w1", "b1" if bias else "", "w2", "b2" if bias else ""]
    node = helper.make_node("MoE", names, ["y"], "moe", domain="com.microsoft", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, dims),
            helper.make_tensor_value_info("router", TensorProto.FLOAT, [tokens, experts]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def written_out(model: onnx.ModelProto, **most: int) -> onnx.ModelProto:
    """The model written out, where named dimensions have 1 to `most`."""
    module, ctx = imported(model)
    write_ranges(module, {name: (1, 1, size) for name, size in most.items()})
    run_passes(module, ctx, ["infer-shapes", WriteOutExpertsPass()])
    return exported(module, ctx)


FEEDS = {"x": 3 * values(TOKENS, HIDDEN), "router": values(TOKENS, EXPERTS)}


OPTIONS = pytest.mark.parametrize(
    "options",
    [
        {"activation_type": "relu", "k": 1},
        {"activation_type": "relu", "k": 2, "bias": False},
        {"activation_type": "gelu", "k": 2, "normalize_routing_weights": 1},
        {"activation_type": "silu", "k": 3, "normalize_routing_weights": 1},
        {"activation_type": "identity", "k": 4},
        {"activation_type": "swiglu", "fused": True, "swiglu_fusion": 1, "k": 2},
        {
            "activation_type": "swiglu",
            "fused": True,
            "swiglu_fusion": 1,
            "k": 2,
            "activation_alpha": 1.702,
            "activation_beta": 1.0,
            "swiglu_limit": 2.0,
            "normalize_routing_weights": 1,
        },
    ],
    ids=lambda options: f"{options['activation_type']}-{len(options)}",
)


@OPTIONS
def test_written_out_it_computes_the_same(options: dict[str, Any]):
    model = mixture(**options)
    again = written_out(model)
    assert "MoE" not in {node.op_type for node in again.graph.node}
    expected = run_onnxruntime(model, FEEDS)["y"]
    found = run_onnxruntime(again, FEEDS)["y"]
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()


MANY = 24


@OPTIONS
def test_few_tokens_gather_the_experts_that_they_chose(options: dict[str, Any]):
    model = mixture(experts=MANY, **options)
    again = written_out(model, n=2)
    gathered = [node for node in again.graph.node if node.op_type == "Gather"]
    assert len(gathered) == (4 if options.get("bias", True) else 2)
    assert "ScatterElements" not in {node.op_type for node in again.graph.node}
    for tokens in (1, 2):
        feeds = {"x": 3 * values(tokens, HIDDEN), "router": values(tokens, MANY)}
        expected, found = run_onnxruntime(model, feeds)["y"], run_onnxruntime(again, feeds)["y"]
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("tokens", "most", "gathers"),
    [(4, {}, True), (5, {}, False), ("n", {"n": 4}, True), ("n", {"n": 5}, False), ("n", {}, False)],
)
def test_as_many_tokens_gather_as_reads_less(tokens: int | str, most: dict[str, int], *, gathers: bool):
    model = mixture(experts=MANY, tokens=tokens, dims=(tokens, HIDDEN), activation_type="relu", k=2)
    found = {node.op_type for node in written_out(model, **most).graph.node}
    assert ("Gather" in found) is gathers
    assert ("ScatterElements" in found) is not gathers


def test_few_tokens_of_a_batch_of_sequences_keep_their_shape():
    model = mixture(dims=("b", "s", HIDDEN), tokens=2, experts=MANY, activation_type="relu", k=2)
    feeds = {"x": values(2, 1, HIDDEN), "router": values(2, MANY)}
    expected, found = run_onnxruntime(model, feeds)["y"], run_onnxruntime(written_out(model), feeds)["y"]
    assert found.shape == expected.shape == (2, 1, HIDDEN)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_batch_of_sequences_keeps_its_shape():
    model = mixture(dims=("b", "s", HIDDEN), activation_type="relu", k=2)
    feeds = {"x": values(2, 3, HIDDEN), "router": values(6, EXPERTS)}
    expected = run_onnxruntime(model, feeds)["y"]
    found = run_onnxruntime(written_out(model), feeds)["y"]
    assert found.shape == expected.shape == (2, 3, HIDDEN)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fusion", [1, 2])
def test_a_gated_gelu_is_written_out_though_the_cpu_has_no_kernel(fusion: int):
    model = mixture(fused=True, bias=False, activation_type="geglu", swiglu_fusion=fusion, k=EXPERTS)
    found = run_onnxruntime(written_out(model), FEEDS)["y"]
    weights = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    inner = np.einsum("th,eih->eti", FEEDS["x"].astype(np.float64), weights["w1"])
    gate, up = (inner[..., ::2], inner[..., 1::2]) if fusion == 1 else np.split(inner, 2, axis=-1)
    outputs = np.einsum("eti,ehi->eth", BY_HAND["gelu"](gate) * up, weights["w2"])
    chances = np.exp(FEEDS["router"].astype(np.float64))
    expected = np.einsum("eth,te->th", outputs, chances / chances.sum(-1, keepdims=True))
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()


def test_what_is_left_alone():
    for model in (mixture(use_sparse_mixer=1, k=2), mixture(k=2, dims=None)):
        assert "MoE" in {node.op_type for node in written_out(model).graph.node}
    old = mixture(k=2)
    old.opset_import[0].version = 12
    assert "MoE" in {node.op_type for node in written_out(old).graph.node}
