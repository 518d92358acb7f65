"""QMoE, experts of 4 and 8 bits, on this machine: it computes with the numbers that the bits stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import gimlet

EXPERTS, WIDTH, INNER, CHOSEN = 4, 32, 64, 2


def _unpacked(weights: NDArray[np.uint8], scales: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Symmetric: the middle of the unsigned numbers stands for 0. Of two in a byte the lower is first."""
    if bits == 4:
        weights = np.stack([weights & 15, weights >> 4], -1).reshape(*weights.shape[:-1], -1)
    return (weights.astype(np.float32) - 2 ** (bits - 1)) * scales[..., None]


def _experts(
    x: NDArray[np.float32], logits: NDArray[np.float32], weights: list[NDArray[np.float32]]
) -> NDArray[np.float32]:
    result = np.zeros_like(x)
    for row, token in enumerate(x):
        best = np.argsort(-logits[row])[:CHOSEN]
        shares = np.exp(logits[row, best])
        for expert, share in zip(best, shares / shares.sum(), strict=True):
            inner = weights[0][expert] @ token
            result[row] += share * (weights[1][expert] @ (inner / (1 + np.exp(-inner))))
    return result


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_experts(bits: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pack = 8 // bits
    packed = [
        rng.integers(0, 256, shape, dtype=np.uint8)
        for shape in ((EXPERTS, INNER, WIDTH // pack), (EXPERTS, WIDTH, INNER // pack))
    ]
    scales = [rng.random(weights.shape[:2], np.float32) * 2.0**-bits for weights in packed]
    node = helper.make_node(
        "QMoE",
        ["x", "logits", "w1", "s1", "", "w2", "s2"],
        ["y"],
        domain="com.microsoft",
        k=CHOSEN,
        expert_weight_bits=bits,
        activation_type="silu",
        normalize_routing_weights=1,
    )
    floats = lambda name, width: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", width])  # noqa: E731
    arrays = {"w1": packed[0], "s1": scales[0], "w2": packed[1], "s2": scales[1]}
    graph = helper.make_graph(
        [node],
        "experts",
        [floats("x", WIDTH), floats("logits", EXPERTS)],
        [floats("y", WIDTH)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    bundle = gimlet.compile(model, bind={"n": "1:5:16"}, output=tmp_path / "m.gimlet")
    x, logits = rng.random((5, WIDTH), np.float32), rng.random((5, EXPERTS), np.float32)
    expected = _experts(x, logits, [_unpacked(*pair, bits) for pair in zip(packed, scales, strict=True)])
    with gimlet.load(bundle.path) as program:
        found = program(x=x, logits=logits)["y"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
