"""Products of 8-bit integers on the SRAM machine: bit for bit what ONNX Runtime makes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import DEVICE, Runner, emit, model_of, reference, segment_of

from gimlet.compiler.hardware import load_kind
from gimlet.runtime.sram.program import Matmul
from gimlet.targets.api import Device, Reason

F, I32 = TensorProto.FLOAT, TensorProto.INT32
TYPE = {np.dtype(np.int8): TensorProto.INT8, np.dtype(np.uint8): TensorProto.UINT8}
PARTS = [Device("sram0", load_kind(name)) for name in ("d-matrix/corsair", "groq/lpu-v1", "tenstorrent/blackhole-p150")]
SIZES = st.sampled_from([1, 2, 3, 7, 31, 33, 64, 65, 130])


def integers(rng, dtype, *shape):
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


def weights_of(rng, dtype, *shape):
    """Those of 8 bits with a sign have 7: ONNX Runtime's sums of products with unsigned ones saturate on some CPUs."""
    return integers(rng, dtype, *shape) >> (1 if dtype is np.int8 else 0)


def node(op_type, inputs, output="y", **attributes):
    return helper.make_node(op_type, list(inputs), [output], **attributes)


def compare(model, on=DEVICE, fmt="fp32", **inputs):
    """Every result is the one of ONNX Runtime. Returns the program."""
    runner = Runner(segment_of(model, fmt=fmt), fmt, on)
    for found, expected in zip(runner(**inputs), reference(model, **inputs), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    return runner.executor.program


def multiplied(program):
    """The element types that matrix instructions multiply."""
    return {
        next(tile.dtype for tile in kernel.tiles if tile.name == each.rhs)
        for kernel in program.kernels
        for each in kernel.statements()
        if isinstance(each, Matmul)
    }


@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_matmul_integer(data):
    draw, rng = data.draw, np.random.default_rng(data.draw(st.integers(0, 99)))
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    m, k, n, weights = draw(SIZES), draw(SIZES), draw(SIZES), draw(st.booleans())
    left, right = draw(st.sampled_from([(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)]))
    x, w = integers(rng, left, *batch, m, k), weights_of(rng, right, *([] if weights else batch), k, n)
    kept = {"w": w} if weights else {}
    zeros = draw(st.sampled_from(["", "x", "xw", "xw each"]))
    kept |= {"xz": integers(rng, left, 1)[0]} if zeros else {}
    kept |= {"wz": integers(rng, right, *([n] if "each" in zeros and weights else []))} if "w" in zeros else {}
    given = {"x": x} if weights else {"x": x, "w": w}
    names = ["x", "w", "xz" if zeros else "", *(["wz"] if "w" in zeros else [])]
    model = model_of([node("MatMulInteger", names)], {a: (TYPE[b.dtype], b.shape) for a, b in given.items()}, "y", kept)
    compare(model, draw(st.sampled_from(PARTS)), draw(st.sampled_from(["fp32", "bf16", "mxint8"])), **given)


def scales(n, left, right, to, rng, each):
    """The scales and zero points of a QLinear product with `n` outputs."""
    return {
        "xs": np.float32(0.021),
        "xz": integers(rng, left, 1)[0],
        "ws": rng.uniform(0.001, 0.01, n if each else ()).astype(np.float32),
        "wz": np.zeros(n, right) if each else np.asarray(integers(rng, right, 1)[0]),
        "ys": np.float32(0.37),
        "yz": integers(rng, to, 1)[0],
    }


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize(("left", "right"), [(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)])
def test_qlinear_matmul(left, right, each):
    rng = np.random.default_rng(1)
    x, w = integers(rng, left, 3, 5, 130), weights_of(rng, right, 130, 70)
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    kept = {"w": w, **scales(70, left, right, left, rng, each and right is np.int8)}
    model = model_of([node("QLinearMatMul", names)], {"x": (TYPE[x.dtype], x.shape)}, "y", kept)
    for on in PARTS:
        assert multiplied(compare(model, on, x=x)) == {"i8"}


@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_convolutions(data):
    draw, rng = data.draw, np.random.default_rng(data.draw(st.integers(0, 99)))
    op_type = draw(st.sampled_from(["QLinearConv", "ConvInteger"]))
    groups, inputs = draw(st.sampled_from([(1, 1), (1, 5), (1, 33), (2, 3), (4, 1), (3, 1)]))
    outputs, spatial = groups * draw(st.sampled_from([1, 2, 5])), [draw(st.integers(5, 9)) for _ in range(2)]
    kernel = [draw(st.sampled_from([1, 2, 3])) for _ in range(2)]
    right = draw(st.sampled_from([np.int8, np.uint8])) if op_type == "QLinearConv" else np.uint8
    x = integers(rng, np.uint8, 2, groups * inputs, *spatial)
    kept = {"w": weights_of(rng, right, outputs, inputs, *kernel)}
    kept |= scales(outputs, np.uint8, right, np.uint8, rng, right is np.int8)
    names = ["x", "w", "xz", "wz"]
    if op_type == "QLinearConv":
        kept["b"] = rng.integers(-9999, 9999, outputs).astype(np.int32)
        names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    kept = {name: kept[name] for name in names if name != "x"}
    how = {"strides": [draw(st.integers(1, 2)), 1], "pads": [draw(st.integers(0, 1)) for _ in range(4)]}
    model = model_of([node(op_type, names, group=groups, **how)], {"x": (TYPE[x.dtype], x.shape)}, "y", kept)
    compare(model, draw(st.sampled_from(PARTS)), x=x)


@pytest.mark.parametrize("shape", [(7,), (3, 5, 129), (1, 20000)])
@pytest.mark.parametrize("shift", [0.0, 3.0, -30.0])
def test_dynamic_scales(shape, shift):
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32) + np.float32(shift)
    nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])]
    compare(model_of(nodes, {"x": (F, shape)}, ["y", "s", "z"]), x=x)
    compare(model_of(nodes, {"x": (F, shape)}, ["y", "s", "z"]), x=np.zeros(shape, np.float32))


def test_a_layer_that_is_quantized_as_it_runs():
    """What quantize_dynamic of ONNX Runtime writes, with a second product of the same input, and of any size."""
    rng = np.random.default_rng(3)
    kept = {"w": weights_of(rng, np.int8, 65, 9), "v": integers(rng, np.uint8, 65, 4), "vz": np.uint8(117)}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z"], "a"),
        node("MatMulInteger", ["q", "v", "z", "vz"], "b"),
        node("Cast", ["a"], "c", to=F),
        node("Mul", ["c", "s"], "y"),
    ]
    model = model_of(nodes, {"x": (F, ["n", 65])}, ["y", "b"], kept)
    runner = Runner(segment_of(model, {"n": (1, 4, 9)}), "fp32")
    for n in (1, 4, 9):
        x = rng.standard_normal((n, 65)).astype(np.float32)
        for found, expected in zip(runner(x=x), reference(model, x=x), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_convolution_whose_padding_is_computed():
    rng = np.random.default_rng(4)
    x, kept = rng.standard_normal((1, 3, 6, 7)).astype(np.float32), {"w": integers(rng, np.uint8, 4, 3, 3, 2)}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("ConvInteger", ["q", "w", "z", "wz"], pads=[1, 0, 2, 1]),
    ]
    compare(model_of(nodes, {"x": (F, x.shape)}, ["y"], {**kept, "wz": np.uint8(99)}), x=x)


def dequantized(op_type, x, w, *, axis, zero, bias=None, turned=False, **attributes):
    """A product of two dequantized values as a model: of an input, with a scale for each output of the weights."""
    outputs, rng = w.shape[axis], np.random.default_rng(5)
    kept = {"w": w, "s": np.float32(0.03), "z": np.asarray(zero), "ws": rng.uniform(0.001, 0.01, outputs)}
    kept["ws"], kept["wz"] = kept["ws"].astype(np.float32), np.zeros(outputs, w.dtype)
    nodes = [
        node("QuantizeLinear", "xsz", "q"),
        node("DequantizeLinear", "qsz", "a"),
        node("DequantizeLinear", ["w", "ws", "wz"], "v", axis=axis),
    ]
    nodes += [node("Transpose", "v", "t", perm=[1, 0])] if turned else []
    if bias is not None:
        kept["b"] = bias
    names = ["a", "t" if turned else "v", *(["b"] if bias is not None else [])]
    return model_of([*nodes, node(op_type, names, **attributes)], {"x": (F, x.shape)}, "y", kept, opset=19)


CASES = {
    "MatMul": ("MatMul", (2, 9, 70), (70, 66), {"axis": 1}),
    "turned": ("MatMul", (9, 70), (66, 70), {"axis": 0, "turned": True}),
    "Gemm": ("Gemm", (9, 70), (66, 70), {"axis": 0, "transB": 1, "beta": 0.5}),
    "Conv": ("Conv", (1, 5, 7, 6), (8, 5, 3, 3), {"axis": 0, "pads": [1, 1, 1, 1]}),
    "depthwise": ("Conv", (1, 5, 7, 6), (5, 1, 3, 3), {"axis": 0, "pads": [1, 1, 1, 1], "group": 5}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fmt", ["fp32", "bf16", "mxint8"])
def test_dequantized_operands_are_multiplied_as_integers(case, fmt):
    """In every format: to float64 they are as near as one rounding, and the array multiplies i8."""
    op_type, shape, weights, how = CASES[case]
    rng = np.random.default_rng(6)
    x, w = rng.standard_normal(shape).astype(np.float32), weights_of(rng, np.int8, *weights)
    bias = None if op_type == "MatMul" else rng.standard_normal(how.get("axis") or weights[0]).astype(np.float32)
    model = dequantized(op_type, x, w, zero=np.uint8(121), bias=bias, **how)
    runner = Runner(segment_of(model, fmt=fmt), fmt)
    found, expected = runner(x=x)[0], reference(model, x=x)[0]
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
    if case != "depthwise":  # Those are on the vector unit.
        assert multiplied(runner.executor.program) == {"i8"}
        assert runner.artifact.facts["products"] == {"i8": 1.0}


def test_two_computed_operands_that_are_dequantized():
    """As attention of a quantized model multiplies: one scale each, zero points that are not zero."""
    rng = np.random.default_rng(7)
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 5, 40), (2, 1, 40, 7)))
    kept = {"s": np.float32(0.03), "z": np.uint8(121), "t": np.float32(0.02), "o": np.int8(-9)}
    nodes = [node("QuantizeLinear", "xsz", "q"), node("DequantizeLinear", "qsz", "a")]
    nodes += [node("QuantizeLinear", "yto", "r"), node("DequantizeLinear", "rto", "b"), node("MatMul", "ab", "c")]
    model = model_of(nodes, {"x": (F, x.shape), "y": (F, y.shape)}, "c", kept, opset=19)
    runner = Runner(segment_of(model), "fp32")
    np.testing.assert_allclose(runner(x=x, y=y)[0], reference(model, x=x, y=y)[0], rtol=2e-6, atol=2e-6)
    assert multiplied(runner.executor.program) == {"i8"}


def refusal(model, on=DEVICE):
    found = emit(segment_of(model), "fp32", None, on)
    assert isinstance(found, Reason)
    return found.message


def test_what_is_not_multiplied_as_integers_says_so():
    x, w = np.zeros((3, 4), np.uint8), np.zeros((4, 5), np.int8)
    model = model_of([node("MatMulInteger", "xw")], {"x": (TYPE[x.dtype], x.shape)}, "y", {"w": w})
    cycles = {name: each for name, each in DEVICE.kind.options["row_cycles"].items() if name != "i8"}
    floats = Device("sram0", replace(DEVICE.kind, options={**DEVICE.kind.options, "row_cycles": cycles}))
    assert refusal(model, floats) == "MatMulInteger multiplies 8-bit integers, the matrix unit does not"
    spatial, kinds = (1, 3, 5, 5), {"x": (TensorProto.UINT8, (1, 3, 5, 5)), "w": (TensorProto.UINT8, (4, 3, 3, 3))}
    model = model_of([node("ConvInteger", "xw")], kinds, "y")
    assert refusal(model) == "the weights of ConvInteger are computed, they must be constant"
    kept = {"w": np.zeros((4, 3, 3, 3), np.uint8)}
    inputs = {"x": (TensorProto.UINT8, spatial), "z": (TensorProto.UINT8, ())}
    model = model_of([node("ConvInteger", "xwz", auto_pad="SAME_UPPER")], inputs, "y", kept)
    assert refusal(model) == "ConvInteger pads as auto_pad says by a zero point that is computed"
    inputs = {"x": (TensorProto.UINT8, (3, 4)), "xz": (TensorProto.UINT8, ()), "z": (TensorProto.INT8, ())}
    model = model_of([node("MatMulInteger", ["x", "w", "xz", "z"])], inputs, "y", {"w": w})
    assert refusal(model) == "the zero point of constant integers is computed"
