"""Patterns with one thing changed at random: whatever the fusions make of them computes what the model did."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, RuntimeException
from tests.unit.passes.fusion_cases import FUSIONS, Writer, imported
from tests.unit.passes.test_fuse_rotary_forms import rotation

from gimlet.compiler.pipeline import FUSE, run_passes
from gimlet.dialects.onnx.exporter import export_module

_INVALID = (Fail, InvalidArgument, InvalidGraph, RuntimeException)
Pattern = Callable[[Writer], tuple[str, dict[str, Sequence[int]]]]


def norm(write: Writer) -> tuple[str, dict[str, Sequence[int]]]:
    centred = write("Sub", "x", write("ReduceMean", "x", [-1]))
    root = write("Sqrt", write("Add", write("ReduceMean", write("Pow", centred, 2.0), [-1]), 1e-5))
    return write("Add", write("Mul", write("Div", centred, root), "s"), "b"), {"x": (2, 8, 8), "s": (8,), "b": (8,)}


def rms(write: Writer) -> tuple[str, dict[str, Sequence[int]]]:
    root = write("Sqrt", write("Add", write("ReduceMean", write("Mul", "x", "x"), [-1]), 1e-5))
    return write("Mul", "s", write("Mul", "x", write("Reciprocal", root))), {"x": (2, 8, 8), "s": (8,)}


def bare(write: Writer) -> tuple[str, dict[str, Sequence[int]]]:
    root = write("Sqrt", write("Add", write("ReduceMean", write("Mul", "x", "x"), [-1]), 1e-5))
    return write("Div", "x", root), {"x": (2, 8, 8)}


def folded(write: Writer) -> tuple[str, dict[str, Sequence[int]]]:
    mean = write("ReduceMean", "x", [-1])
    centred = write("Sub", "x", mean)
    root = write("Sqrt", write("Add", write("ReduceMean", write("Mul", centred, centred), [-1]), 1e-5))
    factor = write("Mul", write("Reciprocal", root), "s")
    shift = write("Sub", "b", write("Mul", mean, factor))
    return write("Add", write("Mul", "x", factor), shift), {"x": (2, 8, 8), "s": (8,), "b": (8,)}


def gelu(write: Writer) -> tuple[str, dict[str, Sequence[int]]]:
    curve = write("Add", write("Erf", write("Div", "x", 2**0.5)), 1.0)
    return write("Mul", write("Mul", "x", curve), 0.5), {"x": (4, 4), "z": (4, 4)}


def tanh_gelu(write: Writer) -> tuple[str, dict[str, Sequence[int]]]:
    cubic = write("Add", "x", write("Mul", 0.044715, write("Pow", "x", 3.0)))
    curve = write("Add", 1.0, write("Tanh", write("Mul", cubic, 0.7978845608)))
    return write("Mul", 0.5, write("Mul", "x", curve)), {"x": (4, 4), "z": (4, 4)}


def swish(write: Writer) -> tuple[str, dict[str, Sequence[int]]]:
    return write("Mul", "x", write("Sigmoid", write("Mul", "x", 1.7))), {"x": (4, 4), "z": (4, 4)}


def attention(write: Writer) -> tuple[str, dict[str, Sequence[int]]]:
    scores = write("Div", write("MatMul", "q", write("Transpose", "k", perm=[0, 1, 3, 2])), 2.0)
    scores = write("Mul", write("Tanh", write("Div", scores, 3.0)), 3.0)
    weights = write("Softmax", write("Add", scores, "m"), axis=-1)
    return write("MatMul", weights, "v"), {"q": (4, 4, 4, 4), "k": (4, 4, 4, 4), "v": (4, 4, 4, 4), "m": (4, 1, 4, 4)}


def chosen(write: Writer) -> tuple[str, dict[str, Sequence[int]]]:
    scores = write("Mul", write("MatMul", "q", write("Transpose", "k", perm=[0, 1, 3, 2])), 0.5)
    masked = write("Where", write("Greater", "m", 0.1), -3e38, scores)
    shapes = {"q": (4, 4, 4, 4), "k": (4, 1, 4, 4), "v": (4, 1, 4, 4), "m": (4, 1, 4, 4)}
    return write("MatMul", write("Softmax", masked, axis=-1), "v"), shapes


def halves(write: Writer) -> tuple[str, dict[str, Sequence[int]]]:
    return rotation(write, 8, 1, pairs=False, repeated=True), {"x": (4, 4, 4, 8), "angles": (4, 4, 4)}


def neighbours(write: Writer) -> tuple[str, dict[str, Sequence[int]]]:
    return rotation(write, 8, 2, pairs=True, repeated=True), {"x": (4, 4, 4, 8), "angles": (4, 4, 4)}


def joined(write: Writer) -> tuple[str, dict[str, Sequence[int]]]:
    return rotation(write, 8, 1, pairs=False, repeated=False), {"x": (4, 4, 4, 8), "angles": (4, 4, 4)}


PATTERNS: Sequence[Pattern] = (
    norm,
    rms,
    bare,
    folded,
    gelu,
    tanh_gelu,
    swish,
    attention,
    chosen,
    halves,
    neighbours,
    joined,
)
"""Their dimensions are often equal, so that many changes leave a model that runs."""


def mutated(model: onnx.ModelProto, chance: random.Random) -> onnx.ModelProto:
    """The model with one or two changes: of operands, attributes, constants, shapes of inputs, readers or outputs."""
    for _ in range(chance.randint(1, 2)):
        graph, node = model.graph, chance.choice(model.graph.node)
        change = chance.choice([_operand, _attribute, _constant, _not_constant, _shape, _output, _reader, _swap])
        change(graph, node, chance)
    return model


def _operand(graph: onnx.GraphProto, node: onnx.NodeProto, chance: random.Random) -> None:
    """Another value in the place of one."""
    before = [name for other in graph.node[: list(graph.node).index(node)] for name in other.output]
    names = [*before, *(value.name for value in graph.input)]
    node.input[chance.randrange(len(node.input))] = chance.choice(names)


def _attribute(graph: onnx.GraphProto, node: onnx.NodeProto, chance: random.Random) -> None:
    for attribute in node.attribute:
        if attribute.name == "axis":
            attribute.i = chance.choice([-3, -2, -1, 0, 1, 2, 3])
        if attribute.name == "perm":
            perm = list(attribute.ints)
            chance.shuffle(perm)
            attribute.ints[:] = perm


def _constant(graph: onnx.GraphProto, node: onnx.NodeProto, chance: random.Random) -> None:
    if not graph.initializer:
        return
    tensor = chance.choice(graph.initializer)
    array = numpy_helper.to_array(tensor).copy()
    with np.errstate(over="ignore"):
        changed = (
            array * np.float32(chance.choice([0.9, 1.02, -1.0, 2.0]))
            if array.dtype.kind == "f"
            else array + chance.choice([-1, 1])
        )
        tensor.CopyFrom(numpy_helper.from_array(changed.astype(array.dtype), tensor.name))


def _not_constant(graph: onnx.GraphProto, node: onnx.NodeProto, chance: random.Random) -> None:
    """A number becomes an input of the model."""
    numbers = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    if numbers:
        tensor = chance.choice(numbers)
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        graph.initializer.remove(tensor)


def _shape(graph: onnx.GraphProto, node: onnx.NodeProto, chance: random.Random) -> None:
    """One dimension of an input is 1, or is not there."""
    dims = chance.choice(graph.input).type.tensor_type.shape.dim
    if dims and chance.random() < 0.7:
        chance.choice(dims).dim_value = 1
    elif dims:
        del dims[0]


def _output(graph: onnx.GraphProto, node: onnx.NodeProto, chance: random.Random) -> None:
    if all(value.name != node.output[0] for value in graph.output):
        graph.output.append(helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))


def _reader(graph: onnx.GraphProto, node: onnx.NodeProto, chance: random.Random) -> None:
    """An inner value is read by one more operation."""
    name = f"read{len(graph.node)}"
    graph.node.append(helper.make_node("Neg", [node.output[0]], [name]))
    graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))


def _swap(graph: onnx.GraphProto, node: onnx.NodeProto, chance: random.Random) -> None:
    node.input[:] = list(reversed(node.input))


def outputs_of(model: onnx.ModelProto) -> list[np.ndarray] | None:
    """What ONNX Runtime computes without its own fusions; None for a model that it refuses."""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    generator = np.random.default_rng(0)
    given = {
        value.name: generator.standard_normal([d.dim_value for d in value.type.tensor_type.shape.dim]).astype(
            np.float32
        )
        for value in model.graph.input
    }
    try:
        return InferenceSession(model.SerializeToString(), options).run(None, given)
    except _INVALID:
        return None


def check(seed: int) -> bool:
    """Whether the changed model of a seed runs; if so, it must compute the same with large operators, and in parts."""
    chance = random.Random(seed)
    write = Writer()
    result, shapes = chance.choice(PATTERNS)(write)
    model = mutated(write.model(shapes, result), chance)
    wanted = outputs_of(model)
    if wanted is None or not all(np.isfinite(array).all() for array in wanted):
        return False
    for passes in ((*FUSIONS, "dce"), (*FUSE, "restore-parts", "dce")):
        module, ctx = imported(model)
        run_passes(module, ctx, passes)
        found = outputs_of(ir.to_proto(export_module(module, ctx)))
        assert found is not None, "the model no longer runs"
        for mine, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(
                mine, theirs, rtol=1e-3, atol=1e-4 * max(float(np.abs(theirs).max(initial=0)), 1)
            )
    return True


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 32))
@example(seed=1299)  # a negative scale, which Attention's kernels refuse
def test_a_near_miss_computes_what_it_did(seed: int):
    check(seed)


def test_most_changes_leave_a_model_that_runs():
    assert sum(check(seed) for seed in range(24)) >= 12


@pytest.mark.full
def test_thousands_of_near_misses():
    assert sum(check(seed) for seed in range(1000, 4000)) >= 1500
