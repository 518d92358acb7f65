"""Large operators, one a model, in the shapes of common language models and encoders: `large_kernels()`.

Beside `host_kernels`, for the operators that ONNX Runtime has a kernel of its own for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

Shape = Sequence[int]
Named = tuple[str, ModelProto]
FLOAT = TensorProto.FLOAT


def large_kernels() -> Iterator[Named]:
    yield from _attentions()
    yield from _normalizations()
    yield from _rotations()
    yield from _quantised_products()
    yield from _experts()


def _model(
    op: str,
    inputs: Sequence[tuple[str, Shape] | None],
    weights: Sequence[TensorProto] = (),
    outputs: int = 1,
    domain: str = "",
    **attributes: Any,
) -> ModelProto:
    """One node: the inputs in order, None for one that is left out, then the weights."""
    names = ["" if item is None else item[0] for item in inputs] + [weight.name for weight in weights]
    results = ["y", "present_k", "present_v"][:outputs]
    graph = helper.make_graph(
        [helper.make_node(op, names, results, domain=domain, **attributes)],
        "kernel",
        [helper.make_tensor_value_info(item[0], FLOAT, item[1]) for item in inputs if item is not None],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in results],
        weights,
    )
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _weight(name: str, *shape: int) -> TensorProto:
    values = np.random.default_rng(0).standard_normal(shape) * 0.1
    return numpy_helper.from_array(values.astype(np.float32), name)


def _numbers(text: str) -> Iterator[list[int]]:
    for item in text.split():
        yield [int(number) for number in item.split(",")]


_ATTENTIONS = (
    "9,3,64,1,63 9,3,64,1,255 9,3,64,1,1023 9,9,64,1,255 14,2,64,1,500 16,16,64,1,127 32,8,64,1,1023 8,1,256,1,400 "
    "9,3,64,16,0 9,3,64,64,0 9,3,64,256,0 12,12,64,128,0 12,12,32,128,0 6,6,64,197,0 16,16,80,64,0 8,8,40,256,0 "
    "3,3,32,784,0 9,3,64,32,96 14,2,64,128,128 32,8,64,32,480"
)
"""Heads, heads of keys, size of a head, new positions, past positions."""


def _attentions() -> Iterator[Named]:
    for heads, keyed, size, new, past in _numbers(_ATTENTIONS):
        name = f"Attention {heads}/{keyed}x{size} {new}+{past}"
        query: tuple[str, Shape] = ("q", (1, heads, new, size))
        every = new + past
        keys = [(what, (1, keyed, every, size)) for what in "kv"]
        mask = ("m", (1, 1, new, every))
        yield name, _model("Attention", [query, *keys])
        yield f"{name}, mask", _model("Attention", [query, *keys, mask])
        flat = [("q", (1, new, heads * size)), *((what, (1, every, keyed * size)) for what in "kv")]
        if new == 1 or not past:
            yield f"{name}, side by side", _model("Attention", flat, q_num_heads=heads, kv_num_heads=keyed)
        if past:
            fresh = [(what, (1, keyed, new, size)) for what in "kv"]
            old = [(f"past_{what}", (1, keyed, past, size)) for what in "kv"]
            yield f"{name}, past", _model("Attention", [query, *fresh, mask, *old], outputs=3)


def _normalizations() -> Iterator[Named]:
    for rows, size in _numbers("1,576 16,576 64,576 256,576 1,2048 32,2048 128,1024 576,64 9,64 1,4096"):
        scale = _weight("w", size)
        yield f"RMSNormalization {rows}x{size}", _model("RMSNormalization", [("x", (1, rows, size))], [scale])


def _rotations() -> Iterator[Named]:
    for heads, new, size in _numbers("9,1,64 3,1,64 9,16,64 9,64,64 9,256,64 32,1,128 32,64,128 8,128,256 14,32,64"):
        caches = [(name, (1, new, size // 2)) for name in ("cos", "sin")]
        yield (
            f"RotaryEmbedding {heads}x{new}x{size}",
            _model("RotaryEmbedding", [("x", (1, heads, new, size)), *caches]),
        )
        flat = ("x", (1, new, heads * size))
        model = _model("RotaryEmbedding", [flat, *caches], num_heads=heads)
        yield f"RotaryEmbedding {heads}x{new}x{size}, side by side", model


_QUANTISED = (
    "1,576,576 1,576,1536 1,1536,576 1,576,49152 1,2048,2048 1,2048,8192 16,576,1536 64,576,1536 64,2048,2048 "
    "128,1024,4096 4,1024,1024 256,384,384"
)
_SMALL = "1,576,576 1,576,1536 1,2048,2048 16,576,1536 64,576,1536 4,1024,1024 256,384,384"


def _quantised_products() -> Iterator[Named]:
    for bits, level in ((4, 0), (4, 4), (8, 0), (8, 4)):
        for m, k, n in _numbers(_QUANTISED if bits == 4 or level else _SMALL):
            packed = np.random.default_rng(0).integers(0, 255, (n, k // 32, 32 * bits // 8), np.uint8)
            scales = np.full((n, k // 32), 0.01, np.float32)
            weights = [numpy_helper.from_array(packed, "w"), numpy_helper.from_array(scales, "s")]
            settings = {"K": k, "N": n, "bits": bits, "block_size": 32, "accuracy_level": level}
            model = _model("MatMulNBits", [("x", (1, m, k))], weights, domain="com.microsoft", **settings)
            yield f"MatMulNBits {bits}/{level} {m}x{k}x{n}", model


def _experts() -> Iterator[Named]:
    for tokens, experts, chosen, size, inner in _numbers(
        "1,8,2,256,512 1,32,4,256,256 16,8,2,256,512 64,8,2,256,512 128,32,4,128,256 1,8,2,576,1536"
    ):
        weights = [_weight("w1", experts, inner, size), _weight("w2", experts, size, inner)]
        names: list[tuple[str, Shape] | None] = [("x", (tokens, size)), ("r", (tokens, experts))]
        graph = _model("MoE", names, (), domain="com.microsoft", k=chosen, activation_type="silu")
        graph.graph.node[0].input.extend(["w1", "", "w2"])
        graph.graph.initializer.extend(weights)
        yield f"MoE {tokens} of {chosen}/{experts} {size}x{inner}", graph
