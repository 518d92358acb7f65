"""ONNX Runtime's kernels of large operators against those of their parts: `python benchmarks/large_kernels.py`.

Each operator alone, written out as frameworks export it and as one, on one thread, at sizes of a small decoder (9 heads
of 64, of which 3 have keys and values; 576 wide). Both run in turns, in a random order; the median ratio of CPU times
is that of the whole operator to its parts: above 1, the parts are quicker.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from fusions import quiet
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.exporter import export_module

HEADS, KEY_HEADS, SIZE, WIDTH = 9, 3, 64, 576
FUSIONS = ("fuse-normalization", "fuse-rotary", "fuse-attention", "dce")
Shapes = dict[str, Sequence[int]]


def attention(tokens: int, past: int) -> tuple[list[onnx.NodeProto], Shapes]:
    """Grouped queries with a mask, keys and values repeated."""
    nodes: list[onnx.NodeProto] = []
    for name in "kv":
        nodes += [
            helper.make_node("Unsqueeze", [name, "two"], [f"{name}1"]),
            helper.make_node("Expand", [f"{name}1", "spread"], [f"{name}2"]),
            helper.make_node("Reshape", [f"{name}2", "joined"], [f"{name}3"]),
        ]
    nodes += [
        helper.make_node("Transpose", ["k3"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "t"], ["p"]),
        helper.make_node("Mul", ["p", "scale"], ["s"]),
        helper.make_node("Add", ["s", "m"], ["a"]),
        helper.make_node("Softmax", ["a"], ["w"], axis=-1),
        helper.make_node("MatMul", ["w", "v3"], ["y"]),
    ]
    keys = (1, KEY_HEADS, tokens + past, SIZE)
    shapes: Shapes = {"q": (1, HEADS, tokens, SIZE), "k": keys, "v": keys, "m": (1, 1, tokens, tokens + past)}
    return nodes, shapes


def norm(tokens: int) -> tuple[list[onnx.NodeProto], Shapes]:
    """A root-mean-square norm."""
    nodes = [
        helper.make_node("Pow", ["x", "power"], ["square"]),
        helper.make_node("ReduceMean", ["square", "last"], ["mean"]),
        helper.make_node("Add", ["mean", "epsilon"], ["shifted"]),
        helper.make_node("Sqrt", ["shifted"], ["root"]),
        helper.make_node("Reciprocal", ["root"], ["inverse"]),
        helper.make_node("Mul", ["x", "inverse"], ["normed"]),
        helper.make_node("Mul", ["g", "normed"], ["y"]),
    ]
    return nodes, {"x": (1, tokens, WIDTH), "g": (WIDTH,)}


def rotary(tokens: int) -> tuple[list[onnx.NodeProto], Shapes]:
    """Halves that are turned, by cosines and sines that are given."""
    nodes = [
        helper.make_node("Concat", ["angles", "angles"], ["twice"], axis=-1),
        helper.make_node("Split", ["x"], ["low", "high"], axis=-1, num_outputs=2),
        helper.make_node("Neg", ["high"], ["minus"]),
        helper.make_node("Concat", ["minus", "low"], ["turned"], axis=-1),
        helper.make_node("Mul", ["x", "twice"], ["plain"]),
        helper.make_node("Mul", ["turned", "twice"], ["across"]),
        helper.make_node("Add", ["plain", "across"], ["y"]),
    ]
    return nodes, {"x": (1, HEADS, tokens, SIZE), "angles": (1, 1, tokens, SIZE // 2)}


def model_of(nodes: Sequence[onnx.NodeProto], shapes: Shapes) -> onnx.ModelProto:
    constants = {
        "two": np.array([2]),
        "spread": np.array([1, 1, HEADS // KEY_HEADS, 1, 1]),
        "joined": np.array([0, HEADS, -1, SIZE]),
        "scale": np.array(SIZE**-0.5, np.float32),
        "power": np.array(2.0, np.float32),
        "last": np.array([-1]),
        "epsilon": np.array(1e-5, np.float32),
    }
    used = {name for node in nodes for name in node.input}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    kept = [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used]
    graph = helper.make_graph(list(nodes), "parts", values, [result], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)


def whole(model: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    """The model with the large operator in the place of its parts."""
    ctx = GimletContext()
    module = load(model, ctx=ctx)
    run_passes(module, ctx, [*NORMALIZE, *FUSIONS])
    if not any(isinstance(op, OnnxOp) and op.op_type == kind for op in module.walk()):
        raise LookupError(f"{kind} is not found")
    return ir.to_proto(export_module(module, ctx))


def ratio(parts: onnx.ModelProto, one: onnx.ModelProto, shapes: Shapes, rounds: int) -> tuple[float, float, float]:
    """The median of the whole operator's CPU time to its parts', and the medians of both, in microseconds."""
    generator = np.random.default_rng(0)
    inputs = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    sessions = [InferenceSession(model.SerializeToString(), quiet()) for model in (one, parts)]
    np.testing.assert_allclose(*(session.run(None, inputs)[0] for session in sessions), rtol=1e-3, atol=1e-4)
    taken: list[list[float]] = [[], []]
    for number in range(rounds):
        order = [0, 1]
        random.Random(number).shuffle(order)
        for index in order:
            start = time.thread_time()
            sessions[index].run(None, inputs)
            taken[index].append(time.thread_time() - start)
    found = statistics.median(a / b for a, b in zip(*taken, strict=True))
    return found, *(1e6 * statistics.median(each) for each in taken)


def main() -> None:
    """Prints a line for each operator and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=101)
    rounds = parser.parse_args().rounds
    print("| operator | tokens | keys | whole / parts | whole, µs | parts, µs |\n|---|---|---|---|---|---|")
    cases = [("Attention", tokens, past, attention(tokens, past)) for tokens, past in _SIZES]
    for kind, make in (("RMSNormalization", norm), ("RotaryEmbedding", rotary)):
        cases += [(kind, tokens, 0, make(tokens)) for tokens in (1, 16, 64, 256)]
    for kind, tokens, past, (nodes, shapes) in cases:
        parts = model_of(nodes, shapes)
        found, one, apart = ratio(parts, whole(parts, kind), shapes, rounds)
        print(f"| {kind} | {tokens} | {tokens + past} | {found:.2f} | {one:.0f} | {apart:.0f} |", flush=True)


_SIZES = ((1, 63), (1, 255), (1, 1023), (16, 0), (64, 0), (256, 0))

if __name__ == "__main__":
    main()
