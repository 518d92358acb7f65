"""What the cycle model says of Llama 3 on many cards, beside the vendor's projections: python benchmarks/sram_llama.py

d-Matrix projects Llama-3-8B at about 1 ms a token and 60,000 tokens/s on 8 cards, and Llama-3-70B at 2 ms a token and
30,000 tokens/s on 64 cards. There is no split over cards in the code generator, so one card's share of one layer is
compiled (weights without values, heads and columns over 8 cards), timed, and put together by hand here: layers in
sequence, two all-reduces a layer over the 512 GB/s between cards, 64 cards as 8 stages of 8. No figure is tuned.

What is assumed beyond the hardware file: the cards of a stage exchange in a ring, each step of which takes the latency
of a die to die link, since none is published for cards; keys and values are bf16, in SRAM as the program has them, or
(`lpddr`) read once a step from there in addition; a pipeline is full. The output layer is left out. `in waits` is the
part of a layer that its kernels' barriers and first loads take: what a dependent kernel waits for, not bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from gimlet.compiler.hardware import load_kind
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.importer import import_model
from gimlet.runtime.sram.cycles import Timing
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram.codegen import generate
from gimlet.targets.sram.target import machine_of, work_of_ops

FLOAT = ir.DataType.FLOAT
SPLIT = 8
"""Cards that share a layer."""


@dataclass(frozen=True)
class Llama:
    name: str
    layers: int
    hidden: int
    heads: int
    key_heads: int
    feed_forward: int
    cards: int
    projected_s: float
    projected_tokens_per_s: float
    size: int = 128


MODELS = (
    Llama("Llama-3-8B", 32, 4096, 32, 8, 14336, 8, 1e-3, 60e3),
    Llama("Llama-3-70B", 80, 8192, 64, 8, 28672, 64, 2e-3, 30e3),
)
BATCHES, PAST = (1, 8, 32, 64), 1024


class Builder:
    """A graph of values whose shapes are given, weights without values."""

    def __init__(self) -> None:
        self.inputs: list[ir.Value] = []
        self.weights: list[ir.Value] = []
        self.nodes: list[ir.Node] = []

    def input(self, name: str, *shape: int) -> ir.Value:
        self.inputs.append(ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(FLOAT)))
        return self.inputs[-1]

    def weight(self, *shape: int) -> ir.Value:
        tensor = ir.LazyTensor(lambda: ir.tensor(np.zeros(shape, np.float32)), FLOAT, ir.Shape(shape))
        name = f"w{len(self.weights)}"
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(FLOAT), const_value=tensor)
        self.weights.append(value)
        return value

    def apply(self, op: str, inputs: list[ir.Value | None], *shape: int, **attributes: int | float) -> ir.Value:
        made = [ir.AttrFloat32(k, v) if isinstance(v, float) else ir.AttrInt64(k, v) for k, v in attributes.items()]
        node = ir.Node("", op, inputs, made, num_outputs=1, name=f"{op}_{len(self.nodes)}")
        value = node.outputs[0]
        value.name, value.shape, value.type = f"v{len(self.nodes)}", ir.Shape(shape), ir.TensorType(FLOAT)
        self.nodes.append(node)
        return value

    def model(self, result: ir.Value) -> ir.Model:
        graph = ir.Graph(self.inputs, [result], nodes=self.nodes, initializers=self.weights, opset_imports={"": 23})
        return ir.Model(graph, ir_version=10)


def layer(model: Llama, batch: int) -> ir.Model:
    """One card's share of a decode step of one layer, up to what the cards have to add up."""
    build, hidden = Builder(), model.hidden
    heads, key_heads, wide = model.heads // SPLIT, model.key_heads // SPLIT, model.feed_forward // SPLIT
    width, narrow = heads * model.size, key_heads * model.size
    x = build.input("x", batch, 1, hidden)
    keys, values = (build.input(name, batch, key_heads, PAST, model.size) for name in ("keys", "values"))
    turn = [build.input(name, batch, 1, model.size // 2) for name in ("cosine", "sine")]
    inside = build.apply("RMSNormalization", [x, build.weight(hidden)], batch, 1, hidden, axis=-1, epsilon=1e-5)
    query = build.apply("MatMul", [inside, build.weight(hidden, width)], batch, 1, width)
    key = build.apply("MatMul", [inside, build.weight(hidden, narrow)], batch, 1, narrow)
    value = build.apply("MatMul", [inside, build.weight(hidden, narrow)], batch, 1, narrow)
    query = build.apply("RotaryEmbedding", [query, *turn], batch, 1, width, num_heads=heads)
    key = build.apply("RotaryEmbedding", [key, *turn], batch, 1, narrow, num_heads=key_heads)
    attended = build.apply(
        "Attention", [query, key, value, None, keys, values], batch, 1, width,
        q_num_heads=heads, kv_num_heads=key_heads,
    )  # fmt: skip
    out = build.apply("MatMul", [attended, build.weight(width, hidden)], batch, 1, hidden)
    x = build.apply("Add", [x, out], batch, 1, hidden)
    inside = build.apply("RMSNormalization", [x, build.weight(hidden)], batch, 1, hidden, axis=-1, epsilon=1e-5)
    gate = build.apply("MatMul", [inside, build.weight(hidden, wide)], batch, 1, wide)
    up = build.apply("MatMul", [inside, build.weight(hidden, wide)], batch, 1, wide)
    opened = build.apply("Mul", [gate, build.apply("Sigmoid", [gate], batch, 1, wide)], batch, 1, wide)
    both = build.apply("Mul", [opened, up], batch, 1, wide)
    down = build.apply("MatMul", [both, build.weight(wide, hidden)], batch, 1, hidden)
    return build.model(build.apply("Add", [x, down], batch, 1, hidden))


def timed(model: Llama, batch: int, machine: Machine) -> Timing:
    module = import_model(layer(model, batch), GimletContext())
    ops = [op for op in module.walk() if isinstance(op, OnnxOp) and op.operands]
    return generate(replace(work_of_ops(ops, {}, mx_budget=1.0), keeps_views=False), machine, "mxint8").timing


def reduce_s(model: Llama, batch: int, machine: Machine, card_bytes_per_s: float) -> float:
    """A ring's all-reduce of the hidden state in bf16: 2(N−1) steps of an N-th each."""
    steps = 2 * (SPLIT - 1)
    return steps * (batch * model.hidden * 2 / SPLIT / card_bytes_per_s + machine.die_latency_s)


def resident_bytes(model: Llama, cache_bytes: int) -> float:
    """What one card holds: its share of the layers' weights in MXINT8, and the cache of each of its layers."""
    attention = model.hidden * model.size * 2 * (model.heads + model.key_heads)
    weights = model.layers * (attention + 3 * model.hidden * model.feed_forward) * 33 / 32
    return weights / model.cards + cache_bytes * model.layers * SPLIT / model.cards


def main() -> None:
    kind = load_kind("d-matrix/corsair")
    machine = machine_of(kind)
    between = float(str(kind.options["card_bytes_per_s"]))
    waiting = machine.semaphore_cycles + 2 * machine.network_latency_cycles + machine.die_latency_cycles
    for model in MODELS:
        projected = f"{model.projected_s * 1e3:.0f} ms a token, {model.projected_tokens_per_s:,.0f} tokens/s"
        print(f"{model.name} on {model.cards} cards, {PAST} tokens before; the vendor projects {projected}")
        print(
            f"{'batch':>6}{'KV':>7}{'layer µs':>10}{'in waits':>10}{'reduce µs':>11}{'ms a token':>12}{'tokens/s':>11}"
        )
        stages = model.cards // SPLIT
        for batch in BATCHES:
            timing = timed(model, batch, machine)
            exchange = 2 * reduce_s(model, batch, machine, between)
            cache = batch * PAST * model.key_heads // SPLIT * model.size * 2 * 2
            waits = len(timing.kernels) * waiting / timing.cycles
            for place, extra in (("sram", 0.0), ("lpddr", cache / machine.lpddr_bytes_per_s)):
                alone = timing.seconds + extra
                token = model.layers * (alone + exchange)
                shares = f"{alone * 1e6:10.1f}{waits:10.0%}{exchange * 1e6:11.1f}"
                full = place == "sram" and resident_bytes(model, cache) > machine.sram_bytes
                note = "  weights and KV do not fit SRAM" if full else ""
                print(f"{batch:7}{place:>7}{shares}{token * 1e3:12.2f}{stages * batch / token:11,.0f}{note}")


if __name__ == "__main__":
    main()
