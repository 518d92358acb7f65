"""Small random networks on SRAM parts of several kinds: mixed element types, odd sizes, all formats.

What the emulator makes is compared with onnx's reference evaluator, and the cycles with the bound on them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import Runner, device, model_of, segment_of

from gimlet.compiler.checking.half_evaluator import HalfEvaluator
from gimlet.compiler.hardware import load_kind
from gimlet.dialects.onnx import OnnxOp
from gimlet.targets.api import Device
from gimlet.targets.one_op import is_constant
from gimlet.targets.sram.bound import bound_of
from gimlet.targets.sram.target import machine_of

F, I64 = TensorProto.FLOAT, TensorProto.INT64
HALVES = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
KINDS = {"f32": F, **HALVES}
PARTS = {
    "corsair": device(),
    "lpu": Device("sram0", load_kind("groq/lpu-v1")),
    "blackhole": Device("sram0", load_kind("tenstorrent/blackhole-p150")),
    "two cores": device(chiplets=1, cores=2),
    "one core a chiplet": device(chiplets=2, cores=2, sram_bytes_per_core=1 << 18),
}
SIZES = (1, 2, 3, 5, 7, 11, 13, 17, 31, 33, 65, 67)
ERROR = {"fp32": 1e-5, "bf16": 0.03, "mxint8": 0.05}
"""Relative (L2). Operands of products, and of a network of several: each may add its part."""
HALF_ERROR, STEP_ERROR = 0.02, 0.03
UNARY = ("Relu", "Sigmoid", "Tanh", "Erf", "Abs", "Neg", "Softplus", "Gelu", "HardSwish", "Identity")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")


@dataclass
class Network:
    """A network as it grows: `values` are names with element type and shape."""

    draw: Callable[[Any], Any]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    kept: dict[str, np.ndarray] = field(default_factory=dict)
    values: list[tuple[str, str, tuple[int, ...]]] = field(default_factory=list)
    halves: bool = False
    rounds: bool = False
    """Whether numbers are rounded to integers: then small differences may become steps."""

    def __post_init__(self):
        self.rng = np.random.default_rng(self.draw(st.integers(0, 1 << 16)))

    def weight(self, *shape: int, kind: str = "f32", scale: float = 1.0) -> str:
        name = f"w{len(self.kept)}"
        values = (self.rng.standard_normal(shape) * scale).astype(np.float32)
        self.kept[name] = values.astype(helper.tensor_dtype_to_np_dtype(KINDS[kind]))
        return name

    def constant(self, values: Any) -> str:
        name = f"c{len(self.kept)}"
        self.kept[name] = np.asarray(values)
        return name

    def add(self, op_type: str, inputs: list[str], kind: str, shape: tuple[int, ...], **attributes: Any):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
        self.values.append((name, kind, tuple(shape)))
        self.halves |= kind in HALVES
        return name

    def pick(self) -> tuple[str, str, tuple[int, ...]]:
        """One of the last values of floats: the last one most of all."""
        floats = [each for each in self.values if each[1] in KINDS]
        return floats[-1 - min(len(floats) - 1, self.draw(st.sampled_from([0, 0, 0, 1, 2])))]


def unary(net: Network):
    name, kind, shape = net.pick()
    net.add(net.draw(st.sampled_from(UNARY)), [name], kind, shape)


def binary(net: Network):
    name, kind, shape = net.pick()
    same = [other for other, own, size in net.values if own == kind and size == shape]
    ones = tuple(net.draw(st.sampled_from([1, size])) for size in shape)[net.draw(st.integers(0, len(shape) - 1)) :]
    other = net.draw(st.sampled_from([*same, None])) or net.weight(*ones, kind=kind)
    net.add(net.draw(st.sampled_from(BINARY)), [name, other], kind, shape)


def cast(net: Network):
    name, _, shape = net.pick()
    kind = net.draw(st.sampled_from(list(KINDS)))
    net.add("Cast", [name], kind, shape, to=KINDS[kind])


def product(net: Network):
    name, kind, shape = net.pick()
    columns = net.draw(st.sampled_from(SIZES))
    weight = net.weight(shape[-1], columns, kind=kind, scale=shape[-1] ** -0.5)
    made = (*shape[:-1], columns)
    if len(shape) == 2 and net.draw(st.booleans()):
        net.add("Gemm", [name, weight, net.weight(columns, kind=kind)], kind, made)
    else:
        net.add("MatMul", [name, weight], kind, made)


def scores(net: Network):
    """The value by itself transposed, as attention multiplies computed operands."""
    name, kind, shape = net.pick()
    if len(shape) < 2:
        return
    order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    turned = net.add("Transpose", [name], kind, tuple(shape[axis] for axis in order), perm=order)
    made = net.add("MatMul", [name, turned], kind, (*shape[:-1], shape[-2]))
    net.add("Softmax", [made], kind, (*shape[:-1], shape[-2]), axis=-1)


def convolution(net: Network):
    name, kind, shape = net.pick()
    if kind != "f32" or len(shape) not in (3, 4):
        return
    spatial = shape[2:]
    groups = net.draw(st.sampled_from([1, 1, shape[1]]))
    outputs = groups * net.draw(st.sampled_from([1, 2, 7]))
    kernel = tuple(net.draw(st.integers(1, min(3, size))) for size in spatial)
    strides = [net.draw(st.integers(1, 2)) for _ in spatial]
    pads = [net.draw(st.integers(0, size - 1)) for size in (*kernel, *kernel)]
    count = len(spatial)
    made = [(size + pads[i] + pads[i + count] - kernel[i]) // strides[i] + 1 for i, size in enumerate(spatial)]
    inputs = shape[1] // groups
    weight = net.weight(outputs, inputs, *kernel, scale=(inputs * np.prod(kernel)) ** -0.5)
    net.add(
        "Conv", [name, weight, net.weight(outputs)], kind, (shape[0], outputs, *made),
        group=groups, strides=strides, pads=pads,
    )  # fmt: skip


def reduction(net: Network):
    name, kind, shape = net.pick()
    axis, keep = net.draw(st.integers(0, len(shape) - 1)), net.draw(st.sampled_from([1, 1, 0]))
    keep = keep if len(shape) > 1 else 1
    made = tuple(1 if each == axis else size for each, size in enumerate(shape) if keep or each != axis)
    op_type = net.draw(st.sampled_from(["ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum"]))
    net.add(op_type, [name, net.constant([axis])], kind, made, keepdims=keep)


def normalization(net: Network):
    name, kind, shape = net.pick()
    if shape[-1] < 5:
        return
    if net.draw(st.booleans()):
        weights = [net.weight(shape[-1], kind=kind), net.weight(shape[-1], kind=kind)]
        net.add("LayerNormalization", [name, *weights], kind, shape)
    else:
        net.add("Softmax", [name], kind, shape, axis=net.draw(st.integers(0, len(shape) - 1)))


def reshape(net: Network):
    name, kind, shape = net.pick()
    which = net.draw(st.sampled_from(["flat", "turn", "cut", "join", "repeat", "look up"]))
    axis = net.draw(st.integers(0, len(shape) - 1))
    if which == "flat":
        made = (int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))) if axis else (1, int(np.prod(shape)))
        net.add("Reshape", [name, net.constant(list(made))], kind, made)
    elif which == "turn":
        order = net.draw(st.permutations(range(len(shape))))
        net.add("Transpose", [name], kind, tuple(shape[each] for each in order), perm=list(order))
    elif which == "cut" and shape[axis] > 2:
        step = net.draw(st.sampled_from([1, 2, -1]))
        begin, end = (1, shape[axis] - 1) if step > 0 else (shape[axis] - 1, 0)
        made = list(shape)
        made[axis] = len(range(begin, end, step))
        names = [name, *(net.constant([each]) for each in (begin, end, axis, step))]
        net.add("Slice", names, kind, tuple(made))
    elif which == "join":
        made = list(shape)
        made[axis] *= 2
        net.add("Concat", [name, name], kind, tuple(made), axis=axis)
    elif which == "look up":
        index = net.rng.integers(-shape[axis], shape[axis], 5)
        made = (*shape[:axis], 5, *shape[axis + 1 :])
        net.add("Gather", [name, net.constant(index)], kind, made, axis=axis)
    elif which == "repeat" and shape[axis] == 1:
        made = (*shape[:axis], 3, *shape[axis + 1 :])
        net.add("Expand", [name, net.constant(list(made))], kind, made)


def index_math(net: Network):
    """Numbers that Shape, Range and arithmetic on int64 make, added to a value."""
    name, kind, shape = net.pick()
    sizes = net.add("Shape", [name], "i64", (len(shape),))
    last = net.add("Gather", [sizes, net.constant(len(shape) - 1)], "i64", ())
    zero, one = net.constant(0), net.constant(1)
    places = net.add("Range", [zero, last, one], "i64", (shape[-1],))
    odd = net.add("Mod", [places, net.constant(net.draw(st.integers(2, 5)))], "i64", (shape[-1],))
    real = net.add("Cast", [odd], kind, (shape[-1],), to=KINDS[kind])
    net.add("Add", [name, real], kind, shape)


def mask(net: Network):
    name, kind, shape = net.pick()
    zero = net.constant(np.zeros((), helper.tensor_dtype_to_np_dtype(KINDS[kind])))
    above = net.add("Greater", [name, zero], "i1", shape)
    net.add("Where", [above, name, zero], kind, shape)


def quantized(net: Network):
    """A layer of a quantized model: its scale is given, or found as it runs."""
    name, kind, shape = net.pick()
    if kind != "f32":
        return
    net.rounds = True
    columns, size = net.draw(st.sampled_from(SIZES)), len(net.nodes)
    made, signed = (*shape[:-1], columns), net.draw(st.booleans())
    weight = net.constant(net.rng.integers(-64, 64, (shape[-1], columns)).astype(np.int8))
    if net.draw(st.booleans()):
        scale, zero, q = f"s{size}", f"z{size}", f"q{size}"
        net.nodes.append(helper.make_node("DynamicQuantizeLinear", [name], [q, scale, zero]))
        sums = net.add("MatMulInteger", [q, weight, zero], "i32", made)
        real = net.add("Cast", [sums], kind, made, to=F)
        net.add("Mul", [net.add("Mul", [real, scale], kind, made), net.constant(np.float32(0.02))], kind, made)
        return
    scale = net.constant(np.float32(net.draw(st.sampled_from([0.02, 0.1]))))
    zero = net.constant(np.int8(5) if signed else np.uint8(117))
    scales = net.constant(net.rng.uniform(0.01, 0.02, columns).astype(np.float32))
    integers = net.add("QuantizeLinear", [name, scale, zero], "i8", shape)
    left = net.add("DequantizeLinear", [integers, scale, zero], kind, shape)
    right = net.add("DequantizeLinear", [weight, scales], "w", (shape[-1], columns), axis=1)
    net.add("MatMul", [left, right], kind, made)


STEPS = (quantized, unary, unary, binary, cast, product, product, scores, convolution, reduction, normalization,
         reshape, reshape, index_math, mask)  # fmt: skip


def network(draw: Callable[[Any], Any]):
    """A model, its inputs, and how much more of an error its element types explain."""
    rank = draw(st.integers(2, 4))
    shape = tuple(draw(st.sampled_from(SIZES[:7] if axis < rank - 1 else SIZES)) for axis in range(rank))
    net = Network(draw)
    net.values.append(("x", "f32", shape))
    for _ in range(draw(st.integers(1, 7))):
        draw(st.sampled_from(STEPS))(net)
    name, kind, made = net.values[-1]
    if name == "x" or kind != "f32":
        net.add("Cast", [name], "f32", made, to=F)
    x = net.rng.standard_normal(shape).astype(np.float32)
    model = model_of(net.nodes, {"x": (F, shape)}, [net.values[-1][0]], net.kept, opset=22)
    return model, {"x": x}, HALF_ERROR * net.halves + STEP_ERROR * net.rounds


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    norm = np.linalg.norm(expected.astype(np.float64))
    return float(np.linalg.norm(found.astype(np.float64) - expected)) / max(1e-3 * expected.size**0.5, float(norm))


@pytest.mark.parametrize("part", PARTS)
@given(data=st.data(), fmt=st.sampled_from(list(ERROR)))
@settings(max_examples=4, deadline=None)
def test_networks(part: str, data: st.DataObject, fmt: str):
    model, inputs, more = network(data.draw)
    with np.errstate(all="ignore"):
        (expected,) = HalfEvaluator(model).run(None, dict(inputs))
    segment = segment_of(model, fmt=fmt)
    ops = [op for op in segment.op.body.block.ops if isinstance(op, OnnxOp) and not is_constant(op)]
    results = list(segment.op.results_yielded)
    runner = Runner(segment, fmt, PARTS[part])
    (found,) = runner(**inputs)
    assert found.shape == expected.shape
    assert difference(found, np.asarray(expected)) <= ERROR[fmt] + more
    least = bound_of(ops, results, machine_of(PARTS[part].kind), fmt, {}).cycles
    assert runner.artifact.facts["cycles"] >= least
