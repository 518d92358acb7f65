"""Small networks on the SRAM machine: one program at several sizes, in every number format, against ONNX Runtime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import Runner, device, model_of, reference, relative_error, segment_of

F = TensorProto.FLOAT
RNG = np.random.default_rng(0)
node = helper.make_node


def weight(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def conv_net() -> onnx.ModelProto:
    """What a mobile network is made of: dense, depthwise and pointwise convolutions, a gate, pooling, a classifier."""
    nodes = [
        node("Conv", ["x", "stem", "stem_bias"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("HardSwish", ["a"], ["b"]),
        node("Conv", ["b", "depthwise"], ["c"], pads=[2, 2, 2, 2], group=32),
        node("Relu", ["c"], ["d"]),
        node("Conv", ["d", "pointwise"], ["e"]),
        node("GlobalAveragePool", ["e"], ["pooled"]),
        node("Conv", ["pooled", "squeeze"], ["s1"]),
        node("Relu", ["s1"], ["s2"]),
        node("Conv", ["s2", "excite"], ["s3"]),
        node("HardSigmoid", ["s3"], ["s4"], alpha=0.2, beta=0.5),
        node("Mul", ["e", "s4"], ["g"]),
        node("Conv", ["g", "deep"], ["h"], pads=[1, 1, 1, 1]),
        node("Add", ["h", "g"], ["i"]),
        node("MaxPool", ["i"], ["j"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", ["j"], ["k"], perm=[0, 3, 1, 2]),
        node("ReduceMean", ["k"], ["l"], axes=[3], keepdims=0),
        node("MatMul", ["l", "head"], ["m"]),
        node("Add", ["m", "head_bias"], ["n"]),
        node("Softmax", ["n"], ["y"], axis=-1),
    ]
    weights = {
        "stem": weight(32, 3, 3, 3),
        "stem_bias": weight(32),
        "depthwise": weight(32, 1, 5, 5),
        "pointwise": weight(160, 32, 1, 1),
        "squeeze": weight(16, 160, 1, 1),
        "excite": weight(160, 16, 1, 1),
        "deep": weight(160, 160, 3, 3),
        "head": weight(160, 20),
        "head_bias": weight(20),
    }
    return model_of(nodes, {"x": (F, ["batch", 3, 16, "width"])}, ["y"], weights)


def transformer_block(width: int = 192, heads: int = 6) -> onnx.ModelProto:
    """A block with a causal mask made from its input's shape, as exporters write it."""
    size = width // heads
    nodes = [
        node("LayerNormalization", ["x", "scale1", "bias1"], ["n1"]),
        node("MatMul", ["n1", "wqkv"], ["qkv"]),
        node("Split", ["qkv", "thirds"], ["q", "k", "v"], axis=2),
    ]
    for name in "qkv":
        nodes += [
            node("Reshape", [name, "heads"], [f"{name}1"]),
            node("Transpose", [f"{name}1"], [f"{name}2"], perm=[0, 2, 1, 3] if name != "k" else [0, 2, 3, 1]),
        ]
    nodes += [
        node("MatMul", ["q2", "k2"], ["s"]),
        node("Mul", ["s", "factor"], ["scaled"]),
        node("Shape", ["x"], ["dims"]),
        node("Gather", ["dims", "one"], ["length"]),
        node("Range", ["zero", "length", "one"], ["positions"]),
        node("Unsqueeze", ["positions", "axis1"], ["rows"]),
        node("LessOrEqual", ["positions", "rows"], ["seen"]),
        node("Where", ["seen", "scaled", "minus"], ["masked"]),
        node("Softmax", ["masked"], ["p"], axis=-1),
        node("MatMul", ["p", "v2"], ["o"]),
        node("Transpose", ["o"], ["o1"], perm=[0, 2, 1, 3]),
        node("Reshape", ["o1", "joined"], ["o2"]),
        node("MatMul", ["o2", "wo"], ["o3"]),
        node("Add", ["o3", "x"], ["r"]),
        node("LayerNormalization", ["r", "scale2", "bias2"], ["n2"]),
        node("MatMul", ["n2", "w1"], ["f1"]),
        node("Add", ["f1", "b1"], ["f2"]),
        node("Gelu", ["f2"], ["f3"]),
        node("MatMul", ["f3", "w2"], ["f4"]),
        node("Add", ["f4", "r"], ["y"]),
    ]
    weights = {
        "scale1": np.ones(width, np.float32),
        "bias1": weight(width),
        "scale2": np.ones(width, np.float32),
        "bias2": weight(width),
        "wqkv": weight(3 * width, width).T,
        "wo": weight(width, width).T,
        "w1": weight(4 * width, width).T,
        "b1": weight(4 * width),
        "w2": weight(width, 4 * width).T,
        "thirds": np.array([width] * 3, np.int64),
        "heads": np.array([0, 0, heads, size], np.int64),
        "joined": np.array([0, 0, width], np.int64),
        "factor": np.array(1 / np.sqrt(size), np.float32),
        "minus": np.array(-1e9, np.float32),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "axis1": np.array([1], np.int64),
    }
    return model_of(nodes, {"x": (F, ["batch", "seq", width])}, ["y"], weights, opset=20)


CONV_BOUNDS = {"batch": (1, 1, 3), "width": (8, 64, 200)}
BLOCK_BOUNDS = {"batch": (1, 1, 4), "seq": (1, 32, 128)}
ALL_MX = device(mx_error_budget=1.0)


@pytest.mark.parametrize(("fmt", "limit"), [("fp32", 1e-5), ("bf16", 1e-2), ("mxint8", 3e-2)])
def test_a_convolutional_network_at_several_sizes(fmt, limit):
    model = conv_net()
    runner = Runner(segment_of(model, CONV_BOUNDS), fmt)
    for batch, width in ((1, 64), (3, 37), (1, 200), (2, 8)):
        x = RNG.standard_normal((batch, 3, 16, width)).astype(np.float32)
        (found,), (expected,) = runner(x=x), reference(model, x=x)
        assert found.shape == expected.shape
        assert relative_error(found, expected) <= limit


@pytest.mark.parametrize(("fmt", "limit"), [("fp32", 1e-5), ("bf16", 1e-2), ("mxint8", 3e-2)])
def test_a_transformer_block_at_several_sizes(fmt, limit):
    model = transformer_block()
    runner = Runner(segment_of(model, BLOCK_BOUNDS), fmt)
    for batch, seq in ((1, 32), (4, 7), (1, 128), (2, 1)):
        x = RNG.standard_normal((batch, seq, 192)).astype(np.float32)
        (found,), (expected,) = runner(x=x), reference(model, x=x)
        assert found.shape == expected.shape
        assert relative_error(found, expected) <= limit


@pytest.mark.parametrize("model", [conv_net(), transformer_block()], ids=["conv", "block"])
def test_everything_in_mxint8(model):
    """Without a budget every product with enough depth is in MXINT8: coarser, and still the same function."""
    bounds = CONV_BOUNDS if model.graph.node[0].op_type == "Conv" else BLOCK_BOUNDS
    runner = Runner(segment_of(model, bounds), "mxint8", ALL_MX)
    assert runner.artifact.facts["products"]["mxint8"] > 0.8
    shape = (1, 3, 16, 64) if bounds is CONV_BOUNDS else (2, 32, 192)
    x = RNG.standard_normal(shape).astype(np.float32)
    error = relative_error(runner(x=x)[0], reference(model, x=x)[0])
    assert 1e-3 < error <= 8e-2


def test_formats_differ_in_what_they_say():
    """Rounding is really done: bf16 is coarser than f32, and each error is of the size that its format has."""
    model = transformer_block()
    x = RNG.standard_normal((2, 32, 192)).astype(np.float32)
    expected = reference(model, x=x)[0]
    errors = [
        relative_error(Runner(segment_of(model, BLOCK_BOUNDS), fmt, on)(x=x)[0], expected)
        for fmt, on in (("fp32", device()), ("bf16", device()), ("mxint8", ALL_MX))
    ]
    assert errors[0] < 1e-5
    assert 1e-4 < errors[1] < errors[2]


def test_the_programs_of_one_chiplet_and_of_all_agree():
    model = conv_net()
    x = RNG.standard_normal((1, 3, 16, 64)).astype(np.float32)
    found = [
        Runner(segment_of(model, CONV_BOUNDS), "fp32", device(cores=cores, chiplets=1))(x=x)[0] for cores in (1, 7, 64)
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-4, atol=1e-7)


def test_little_memory_spills_to_lpddr_and_changes_no_number():
    model = transformer_block()
    x = RNG.standard_normal((1, 32, 192)).astype(np.float32)
    small = device(sram_bytes_per_core=1 << 18, cores=8, chiplets=1)
    plenty, spilled = (Runner(segment_of(model, BLOCK_BOUNDS), "fp32", on) for on in (device(), small))
    assert plenty.artifact.facts["lpddr_bytes"] == 0
    assert spilled.artifact.facts["lpddr_bytes"] > 0
    np.testing.assert_allclose(spilled(x=x)[0], plenty(x=x)[0], rtol=1e-4, atol=1e-5)
    assert spilled.executor.timing({"x": x}).cycles > plenty.executor.timing({"x": x}).cycles
