"""Synthetic models of any size: layers like a transformer's as exporters write them, with weights and computed shapes.

`transformer(ops)` has about `ops` nodes in layers of 80. A layer normalises by hand, projects to queries, keys and
values, splits heads by computed shapes (Shape, Gather, Concat, Reshape), attends under a mask, gates a feed-forward,
adds residuals, reads the first layer's embedding again (a long edge), and has an If now and then.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

WIDTH, HEADS, INNER = 64, 4, 128
_BRANCH_EVERY = 8


def transformer(ops: int, *, distinct_weights: bool = True) -> ir.Model:
    """At least `ops` nodes over dynamic `batch` and `length`. Without distinct weights all layers share theirs."""
    graph = _Graph(distinct_weights)
    tokens = graph.input("tokens", ir.DataType.INT64, ["batch", "length"])
    mask = graph.input("mask", ir.DataType.INT64, ["batch", "length"])
    table = graph.weight("table", (1000, WIDTH))
    embedded = graph.node("Gather", table, tokens)
    bias = _attention_bias(graph, mask)
    hidden = embedded
    while len(graph.nodes) < ops:
        hidden = _layer(graph, hidden, embedded, bias)
    return graph.model(hidden)


class _Graph:
    """Nodes in the making, each with one output."""

    def __init__(self, distinct_weights: bool) -> None:
        self.inputs: list[ir.Value] = []
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self.distinct_weights = distinct_weights
        self.layer = 0

    def input(self, name: str, dtype: ir.DataType, shape: list[str]) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def weight(self, name: str, shape: tuple[int, ...]) -> ir.Value:
        name = f"layer{self.layer}.{name}" if self.distinct_weights else name
        if name not in self.initializers:
            seed = len(self.initializers)
            array = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) / 8
            self.constant(name, array)
        return self.initializers[name]

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        if name not in self.initializers:
            tensor = ir.Tensor(array, name=name)
            self.initializers[name] = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
            )
        return self.initializers[name]

    def ints(self, *numbers: int) -> ir.Value:
        return self.constant("_".join(["ints", *map(str, numbers)]).replace("-", "m"), np.array(numbers, np.int64))

    def scalar(self, number: float) -> ir.Value:
        return self.constant(f"scalar_{number}", np.array(number, np.float32))

    def node(self, op_type: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        node = ir.node(op_type, inputs, attributes=attributes)  # pyright: ignore[reportArgumentType]
        node.name = f"layer{self.layer}/{op_type}_{len(self.nodes)}"
        node.outputs[0].name = f"v{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]

    def model(self, output: ir.Value) -> ir.Model:
        output.type = ir.TensorType(ir.DataType.FLOAT)
        output.shape = ir.Shape(["batch", "length", WIDTH])
        graph = ir.Graph(
            self.inputs,
            [output],
            nodes=self.nodes,
            initializers=list(self.initializers.values()),
            opset_imports={"": 17},
            name="synthetic",
        )
        return ir.Model(graph, ir_version=9)


def _attention_bias(graph: _Graph, mask: ir.Value) -> ir.Value:
    spread = graph.node("Unsqueeze", mask, graph.ints(1, 2))
    kept = graph.node("Cast", spread, to=ir.DataType.FLOAT.value)
    return graph.node("Mul", graph.node("Sub", graph.scalar(1.0), kept), graph.scalar(-1e9))


def _normalised(graph: _Graph, value: ir.Value, name: str) -> ir.Value:
    mean = graph.node("ReduceMean", value, axes=[-1])
    centred = graph.node("Sub", value, mean)
    variance = graph.node("ReduceMean", graph.node("Mul", centred, centred), axes=[-1])
    deviation = graph.node("Sqrt", graph.node("Add", variance, graph.scalar(1e-5)))
    scaled = graph.node("Mul", graph.node("Div", centred, deviation), graph.weight(f"{name}.scale", (WIDTH,)))
    return graph.node("Add", scaled, graph.weight(f"{name}.shift", (WIDTH,)))


def _linear(graph: _Graph, value: ir.Value, name: str, inner: int, outer: int) -> ir.Value:
    product = graph.node("MatMul", value, graph.weight(f"{name}.weight", (inner, outer)))
    return graph.node("Add", product, graph.weight(f"{name}.bias", (outer,)))


def _dimension(graph: _Graph, value: ir.Value, axis: int) -> ir.Value:
    size = graph.node("Gather", graph.node("Shape", value), graph.constant(f"index{axis}", np.array(axis)))
    return graph.node("Unsqueeze", size, graph.ints(0))


def _heads(graph: _Graph, value: ir.Value, perm: list[int]) -> ir.Value:
    sizes = (_dimension(graph, value, 0), _dimension(graph, value, 1), graph.ints(HEADS), graph.ints(WIDTH // HEADS))
    split = graph.node("Reshape", value, graph.node("Concat", *sizes, axis=0))
    return graph.node("Transpose", split, perm=perm)


def _attention(graph: _Graph, value: ir.Value, bias: ir.Value) -> ir.Value:
    query, key, values = (_linear(graph, value, name, WIDTH, WIDTH) for name in ("query", "key", "value"))
    query, values = _heads(graph, query, [0, 2, 1, 3]), _heads(graph, values, [0, 2, 1, 3])
    scores = graph.node("MatMul", query, _heads(graph, key, [0, 2, 3, 1]))
    scores = graph.node("Add", graph.node("Div", scores, graph.scalar(4.0)), bias)
    read = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), values)
    merged = graph.node("Transpose", read, perm=[0, 2, 1, 3])
    sizes = (_dimension(graph, value, 0), _dimension(graph, value, 1), graph.ints(WIDTH))
    return _linear(graph, graph.node("Reshape", merged, graph.node("Concat", *sizes, axis=0)), "output", WIDTH, WIDTH)


def _branch(graph: _Graph, value: ir.Value) -> ir.Value:
    """An If on the length, which both branches keep in shape."""
    condition = graph.node("Greater", _dimension(graph, value, 1), graph.ints(16))
    branches: dict[str, ir.Graph] = {}
    for name, op_type in (("then_branch", "Relu"), ("else_branch", "Tanh")):
        node = ir.node(op_type, [value])
        node.name = node.outputs[0].name = f"{name}_{len(graph.nodes)}"
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        branches[name] = ir.Graph([], node.outputs, nodes=[node], name=f"{name}_{len(graph.nodes)}")
    return graph.node("If", graph.node("Squeeze", condition, graph.ints(0)), **branches)


def _layer(graph: _Graph, hidden: ir.Value, embedded: ir.Value, bias: ir.Value) -> ir.Value:
    graph.layer += 1
    attended = graph.node("Add", hidden, _attention(graph, _normalised(graph, hidden, "norm1"), bias))
    inner = _normalised(graph, attended, "norm2")
    gate = _linear(graph, inner, "gate", WIDTH, INNER)
    gated = graph.node(
        "Mul", graph.node("Mul", gate, graph.node("Sigmoid", gate)), _linear(graph, inner, "up", WIDTH, INNER)
    )
    hidden = graph.node("Add", attended, _linear(graph, gated, "down", INNER, WIDTH))
    if graph.layer % _BRANCH_EVERY == 0:
        hidden = _branch(graph, hidden)
    return graph.node("Add", hidden, embedded)
