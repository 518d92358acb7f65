"""Operators of com.microsoft on 8-bit integers: what they are written out as gives what ONNX Runtime's kernels do.

On the host in ONNX's operators, and on the SRAM accelerator. A result may be one step off where it is between two as
good as exactly, and at most a few of a hundred are (contrib_quantized.py says which operators may do so).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from tests.unit.passes.test_write_out_operators import MICROSOFT, operators, run, written_out
from tests.unit.targets.sram_models import Runner, segment_of
from tests.unit.targets.test_sram_integers import multiplied

from gimlet.dialects.onnx.exporter import export_module

RANDOM = np.random.default_rng(0)
Array = np.ndarray[Any, Any]


def ui8(*shape: int) -> Array:
    return RANDOM.integers(0, 256, shape).astype(np.uint8)


def i8(*shape: int) -> Array:
    return RANDOM.integers(-128, 128, shape).astype(np.int8)


def weights(*shape: int) -> Array:
    """Of 7 bits: ONNX Runtime's sums of products with unsigned integers saturate on some CPUs."""
    return i8(*shape) >> 1


def f32(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def scales(n: int) -> Array:
    return RANDOM.uniform(0.01, 0.03, n).astype(np.float32)


def scale(value: float) -> Array:
    return np.array(value, np.float32)


def u(value: int) -> Array:
    return np.array(value, np.uint8)


def s(value: int) -> Array:
    return np.array(value, np.int8)


@dataclass(frozen=True)
class Case:
    """An operator, its inputs, which of those are given in each run (the others are constants), and its attributes."""

    op_type: str
    arrays: Sequence[Array | None]
    given: Sequence[int] = (0,)
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    outputs: Sequence[str] = ("y",)
    between: float = 0.0
    """The share of results that may be a step off, or the largest relative difference of floats."""
    oldest: int = 11

    def label(self) -> str:
        types = "".join("-" if each is None else each.dtype.kind for each in self.arrays)
        return " ".join([self.op_type, types, *(f"{name}={value}" for name, value in self.attributes.items())])


BOTH, IMAGE, POOL = (0, 3), (2, 5, 9, 8), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
UNSIGNED = [scale(0.05), u(117), scale(1 / 256), u(0)]
PAIR = [ui8(4, 33, 7), scale(0.021), u(117), ui8(4, 33, 7), scale(0.034), u(3), scale(0.05), u(99)]
SIGNED = [i8(4, 33, 7), scale(0.021), s(-7), i8(33, 1), scale(0.034), s(3), scale(0.05), s(9)]
MEAN = [scale(0.05), u(117), scale(0.03), u(30)]
HALVES = [scale(0.25), u(1), scale(0.5), u(3)]
ROWS = [ui8(7, 33), scale(0.05), u(117)]
HEADS = {"num_heads": 4}
TABLES = [ui8(20, 16), ui8(9, 16), ui8(2, 16), ui8(16), ui8(16)]
SIZES = [*map(scale, (0.02, 0.01, 0.01, 0.03, 0.01)), *map(u, (120, 100, 90, 110, 130))]
IDS, KINDS, MASK = (RANDOM.integers(0, top, (2, 5)).astype(np.int32) for top in (20, 2, 2))

CASES = [
    Case("QLinearAdd", PAIR, BOTH, between=0.01),
    Case("QLinearAdd", SIGNED, BOTH, between=0.01),
    Case("QLinearAdd", [ui8(9), *HALVES[:2], ui8(9), *HALVES[:2], *HALVES[2:]], BOTH),
    Case("QLinearMul", PAIR, BOTH),
    Case("QLinearMul", SIGNED, BOTH),
    Case("QLinearMul", [ui8(9), *HALVES[:2], ui8(9), *HALVES[:2], *HALVES[2:]], BOTH),
    Case("QLinearSigmoid", [ui8(4, 99), *UNSIGNED]),
    Case("QLinearLeakyRelu", [i8(4, 99), scale(0.05), s(-9), scale(0.04), s(-20)], attributes={"alpha": 0.1}),
    Case("QLinearWhere", [np.tile([True, False], (4, 5)), ui8(4, 10), *MEAN[:2], ui8(4, 10), *MEAN], (0, 1, 4)),
    Case("QLinearConcat", [*MEAN[2:], ui8(2, 3), *MEAN[2:], ui8(2, 9), *MEAN[:2]], (2, 5), {"axis": 1}),
    Case("QLinearGlobalAveragePool", [ui8(*IMAGE), *MEAN], attributes={"channels_last": 0}),
    Case("QLinearGlobalAveragePool", [ui8(2, 9, 8, 5), *MEAN], attributes={"channels_last": 1}),
    Case("QLinearGlobalAveragePool", [ui8(9, 3, 4, 4), *HALVES], attributes={"channels_last": 0}),
    Case("QLinearAveragePool", [ui8(*IMAGE), *MEAN], attributes=POOL, between=0.01),
    Case(
        "QLinearAveragePool",
        [ui8(2, 9, 8, 5), *MEAN],
        attributes=POOL | {"channels_last": 1, "count_include_pad": 1},
        between=0.02,
    ),
    Case("QLinearSoftmax", [ui8(7, 33), *UNSIGNED], attributes={"axis": -1, "opset": 13}),
    Case("QLinearSoftmax", [ui8(3, 7, 5), *UNSIGNED], attributes={"axis": 1, "opset": 13}),
    Case("QLinearSoftmax", [ui8(3, 7, 5), *UNSIGNED], attributes={"axis": 1, "opset": 12}),
    Case(
        "QLinearSoftmax",
        [i8(7, 33), scale(0.05), s(17), scale(1 / 256), s(-128)],
        attributes={"axis": -1, "opset": 13},
    ),
    Case(
        "QGemm",
        [*ROWS, ui8(9, 33), scale(0.02), u(100), RANDOM.integers(-9999, 9999, 9).astype(np.int32), scale(0.5), u(0)],
        attributes={"transB": 1},
    ),
    Case(
        "QGemm",
        [i8(33, 7), scale(0.05), s(17), weights(33, 9), scales(9), np.zeros(9, np.int8), None, scale(0.5), s(3)],
        attributes={"transA": 1, "alpha": 0.5},
    ),
    Case("QGemm", [*ROWS, weights(33, 9), scale(0.02), s(10)]),
    Case("DynamicQuantizeMatMul", [f32(3, 5, 33), weights(33, 9), scales(9), np.zeros(9, np.int8), f32(9)]),
    Case("DynamicQuantizeMatMul", [f32(3, 5, 33), ui8(33, 9), scale(0.01)]),
    Case(
        "MatMulIntegerToFloat",
        [ui8(3, 5, 33), weights(33, 9), scale(0.02), scales(9), u(100), np.zeros(9, np.int8), f32(9)],
    ),
    Case("MatMulIntegerToFloat", [ui8(3, 5, 33), ui8(33, 9), scale(0.02), scale(0.01)]),
    Case(
        "QAttention",
        [ui8(2, 3, 32), weights(32, 96), f32(96), scale(0.02), scale(0.01), np.ones((2, 3), np.int32), u(120), s(0)],
        (0, 5),
        HEADS,
        between=2e-6,
        oldest=13,
    ),
    Case(
        "QAttention",
        [ui8(2, 3, 32), weights(32, 96), f32(96), scale(0.02), scales(96), None, u(120), None, f32(2, 2, 4, 5, 8)],
        (0, 8),
        HEADS | {"unidirectional": 1},
        ("y", "present"),
        between=2e-6,
        oldest=17,
    ),
    Case(
        "QEmbedLayerNormalization",
        [IDS, KINDS, *TABLES, MASK, *SIZES],
        (0, 1, 7),
        {"epsilon": 1e-6},
        ("y", "mask"),
        between=2e-6,
        oldest=17,
    ),
]


def model_of(case: Case, opset: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model of the operator alone, and what to feed it."""
    named = {f"x{index}": array for index, array in enumerate(case.arrays) if array is not None}
    feeds = {name: array for name, array in named.items() if int(name[1:]) in case.given}
    names = ["" if array is None else f"x{index}" for index, array in enumerate(case.arrays)]
    node = helper.make_node(case.op_type, names, case.outputs, "op", domain=MICROSOFT, **case.attributes)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    kept = [numpy_helper.from_array(array, name) for name, array in named.items() if name not in feeds]
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name=name) for name in case.outputs], kept)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9), feeds


def compare(found: Sequence[Array], expected: Sequence[Array], between: float) -> None:
    for mine, wanted in zip(found, expected, strict=True):
        assert (mine.dtype, mine.shape) == (wanted.dtype, wanted.shape)
        if mine.dtype == np.float32:
            np.testing.assert_allclose(mine, wanted, rtol=between, atol=between)
            continue
        apart = np.abs(mine.astype(np.int64) - wanted)
        assert apart.max() <= (1 if between else 0)
        assert (apart > 0).mean() <= between


@pytest.mark.parametrize("case", CASES, ids=Case.label)
def test_it_computes_what_the_kernel_does(case: Case):
    for opset in (case.oldest, 21):
        model, feeds = model_of(case, opset)
        expected = run(model, feeds)
        module, ctx = written_out(model)
        assert case.op_type not in operators(module)
        compare(run(ir.to_proto(export_module(module, ctx)), feeds), expected, case.between)
    runner = Runner(segment_of(ir.to_proto(export_module(module, ctx))), "fp32")
    compare(runner(**feeds), expected, case.between)
    if "MatMul" in case.op_type or case.op_type in ("QGemm", "QAttention"):
        assert "i8" in multiplied(runner.executor.program)


def test_an_operator_that_reads_one_value_twice():
    """As where an activation is added to itself, or scales are shared."""
    case = CASES[0]
    model, feeds = model_of(case, 17)
    model.graph.node[0].input[3:6] = model.graph.node[0].input[:3]
    del feeds["x3"], model.graph.input[1]
    module, ctx = written_out(model)
    assert case.op_type not in operators(module)
    compare(run(ir.to_proto(export_module(module, ctx)), feeds), run(model, feeds), case.between)


@pytest.mark.parametrize(
    ("op_type", "zeros", "arrays"),
    [
        ("QLinearLeakyRelu", (2, 4), [i8(99), scale(0.05), s(0), scale(0.04), s(0)]),
        ("QLinearMul", (2, 5, 7), [i8(99), scale(0.05), s(0), i8(99), scale(0.05), s(0), scale(0.04), s(0)]),
    ],
)
def test_a_zero_point_that_is_left_out_is_zero(op_type: str, zeros: Sequence[int], arrays: Sequence[Array]):
    """ONNX Runtime's kernels end the process there."""
    model, feeds = model_of(Case(op_type, arrays, BOTH if len(arrays) > 5 else (0,)), 17)
    expected = run(model, feeds)
    for index in zeros:
        model.graph.node[0].input[index] = ""
    module, ctx = written_out(model)
    compare(run(ir.to_proto(export_module(module, ctx)), feeds), expected, 0.0)
