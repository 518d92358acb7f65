"""The cycle model is never below a bound that knows shapes and figures only, and near it where the machine is busy."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import model_of, segment_of

from gimlet.compiler.hardware import load_kind
from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram.bound import Bound, bound_of, tight_bound_of
from gimlet.targets.sram.bound_convolution import least_of
from gimlet.targets.sram.codegen import generate
from gimlet.targets.sram.target import machine_of, work_of_ops

F = TensorProto.FLOAT
MACHINE = Machine()
SMALL = Machine(chiplets=2, cores=16, sram_bytes_per_core=1 << 18)
STEPS = ("MatMul", "Gemm", "Relu", "Softmax", "Add", "Transpose")


def zeros(*shape: int) -> np.ndarray:
    """Weights of a shape, without the memory."""
    return np.broadcast_to(np.float32(0), shape)


def graph(rows: int, width: int, steps: list[tuple[str, int]]):
    """A chain of ops on a matrix; the number of a step is the width of a product's result."""
    nodes, weights, value = [], {}, "x"
    for index, (kind, size) in enumerate(steps):
        inputs = [value]
        if kind in ("MatMul", "Gemm"):
            weights[f"w{index}"] = zeros(width, size)
            inputs.append(f"w{index}")
            width = size
        elif kind == "Add":
            weights[f"w{index}"] = zeros(width)
            inputs.append(f"w{index}")
        elif kind == "Transpose":
            rows, width = width, rows
        nodes.append(helper.make_node(kind, inputs, [f"y{index}"]))
        value = f"y{index}"
    return nodes, weights, value


def timed(nodes, weights, result: str, rows: int, width: int, machine: Machine, fmt: str):
    segment = segment_of(model_of(nodes, {"x": (F, [rows, width])}, [result], weights))
    kinds = {node.op_type for node in nodes}
    ops = [op for op in segment.op.body.block.ops if isinstance(op, OnnxOp) and op.op_type in kinds]
    work = replace(work_of_ops(ops, {}, 1.0), keeps_views=False)
    timing = generate(work, machine, fmt).timing
    results = [value for _, value in work.outputs]
    return timing, bound_of(ops, results, machine, fmt, {}), tight_bound_of(ops, results, machine, fmt, {})


@given(
    rows=st.integers(1, 400),
    width=st.integers(1, 400),
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 700)), min_size=1, max_size=4),
    machine=st.sampled_from([MACHINE, SMALL]),
    fmt=st.sampled_from(["fp32", "bf16", "mxint8"]),
)
@example(rows=103, width=193, steps=[("MatMul", 193)], machine=SMALL, fmt="fp32")
@settings(max_examples=30, deadline=None)
def test_no_program_beats_the_bound(rows, width, steps, machine, fmt):
    timing, bound, tight = timed(*graph(rows, width, steps), rows, width, machine, fmt)
    assert timing.cycles >= bound.cycles > 0
    assert timing.cycles >= tight
    assert tight == 0 or tight >= bound.cycles


@given(
    rows=st.sampled_from([1, 8, 64, 512]),
    widths=st.lists(st.sampled_from([64, 512, 2048, 4096]), min_size=2, max_size=4),
    machine=st.sampled_from([MACHINE, SMALL, replace(MACHINE, array_tiles=2)]),
    fmt=st.sampled_from(["fp32", "bf16", "mxint8"]),
)
@settings(max_examples=12, deadline=None)
def test_no_chain_of_products_beats_the_bounds(rows, widths, machine, fmt):
    chain = graph(rows, widths[0], [("MatMul", size) for size in widths[1:]])
    timing, bound, tight = timed(*chain, rows, widths[0], machine, fmt)
    assert timing.cycles >= tight > bound.cycles


@given(
    width=st.sampled_from([192, 256, 320]),
    count=st.integers(4, 10),
    fmt=st.sampled_from(["fp32", "bf16", "mxint8"]),
    latency=st.sampled_from([115e-9, 1e-6]),
)
@example(width=192, count=8, fmt="fp32", latency=1e-6)
@settings(max_examples=2, deadline=None)
def test_no_row_through_chiplets_in_turn_beats_the_bounds(width, count, fmt, latency):
    """What each has of the products crosses to the next alone."""
    machine = replace(SMALL, chiplets=4, die_latency_s=latency, lpddr_bytes_per_s=1e10)
    timing, bound, tight = timed(*graph(1, width, [("MatMul", width)] * count), 1, width, machine, fmt)
    assert timing.cycles >= tight > bound.cycles


def test_the_bound_of_one_product_by_hand():
    nodes, weights, result = graph(128, 256, [("MatMul", 512)])
    _, bound, tight = timed(nodes, weights, result, 128, 256, SMALL, "mxint8")
    macs, weight_bytes, result_bytes = 128 * 256 * 512, 256 * 512 * 33 / 32, 128 * 512 * 4
    assert bound == Bound(
        compute=pytest.approx(macs * 8 / (16 * 64 * 64)),
        sram=pytest.approx((weight_bytes + result_bytes) / (16 * 61)),
        lpddr=0.0,
    )
    # Every weight goes into an array for 128 rows, which then take 8 cycles for 4,096 multiply-adds each; and two
    # latencies before and behind all multiplying. SMALL has two chiplets, and with one it would take twice as long.
    arrays = macs * (33 / 32 / (128 * 61) + 8 / 4096) / 16 + 60
    assert tight == pytest.approx(max(arrays, macs * 8 / 4096 / 16 + 120), abs=0.5)


def test_a_core_puts_a_tile_in_before_it_multiplies():
    """With 512³ every core of the reference part has 16 rows for one tile, which goes in first."""
    nodes, weights, result = graph(512, 512, [("MatMul", 512)])
    for fmt, size, cycles in (("fp32", 4, 72), ("bf16", 2, 16)):
        _, _, tight = timed(nodes, weights, result, 512, 512, MACHINE, fmt)
        rows = 512**3 / MACHINE.cores / 4096
        expected = 4096 * size / MACHINE.sram_bytes_per_cycle + rows * cycles + MACHINE.network_latency_cycles
        assert tight == pytest.approx(expected)


def test_the_tight_bound_of_a_chain_of_rows_is_its_latencies():
    """A store and a load for each product, the link between chiplets that a row is on, and semaphores between."""
    nodes, weights, result = graph(1, 256, [("MatMul", 256)] * 3)
    _, _, tight = timed(nodes, weights, result, 1, 256, MACHINE, "mxint8")
    own = 2 * MACHINE.network_latency_cycles
    assert tight == 3 * own + 2 * MACHINE.semaphore_cycles
    wide = graph(1, 4096, [("MatMul", 4096)] * 3)
    _, _, tight = timed(*wide, 1, 4096, MACHINE, "mxint8")
    assert tight == 3 * (own + MACHINE.die_latency_cycles) + 2 * MACHINE.semaphore_cycles


def test_no_tight_bound_where_the_array_does_not_hold_weights():
    machine = replace(SMALL, dataflow="lhs")
    assert timed(*graph(8, 64, [("MatMul", 64)]), 8, 64, machine, "fp32")[2] == 0
    assert timed(*graph(8, 64, [("Relu", 64)]), 8, 64, SMALL, "fp32")[2] == 0


def test_weights_that_sram_has_no_room_for_come_from_lpddr():
    tiny = replace(SMALL, sram_bytes_per_core=1 << 17)
    timing, bound, _ = timed(*graph(1, 4096, [("MatMul", 4096)]), 1, 4096, tiny, "fp32")
    assert bound.lpddr == (4096 * 4096 * 4 - 16 * (1 << 17)) / tiny.lpddr_bytes_per_cycle
    assert bound.lpddr > bound.sram
    assert timing.cycles > bound.cycles


@pytest.mark.parametrize(
    ("rows", "sizes", "fmt", "ratio"),
    [
        (1, (4096, 4096), "fp32", 1.15),
        pytest.param(1, (4096, 14336, 4096), "bf16", 1.2, marks=pytest.mark.full),
        (1024, (1024, 1024), "fp32", 1.05),
        (1024, (1024, 1024), "bf16", 1.2),
        (2048, (2048, 2048), "mxint8", 1.15),
        pytest.param(8192, (8192, 8192), "mxint8", 1.05, marks=pytest.mark.full),
    ],
    ids=str,
)
def test_what_keeps_the_machine_busy_is_near_the_bound(rows, sizes, fmt, ratio):
    """benchmarks/sram_bounds.py has the table that these are from, and where the rest goes."""
    chain = graph(rows, sizes[0], [("MatMul", size) for size in sizes[1:]])
    machine = machine_of(load_kind("d-matrix/corsair"))
    timing, bound, _ = timed(*chain, rows, sizes[0], machine, fmt)
    assert bound.cycles <= timing.cycles <= ratio * bound.cycles


def test_the_bound_of_dequantized_operands_is_that_of_integers():
    """In fp32 too: the array multiplies 8-bit integers nine times as fast."""
    kept = {"s": np.float32(0.1), "z": np.uint8(128), "w": np.broadcast_to(np.int8(0), (512, 512)), "t": np.float32(1)}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "t"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["y"]),
    ]
    segment = segment_of(model_of(nodes, {"x": (TensorProto.UINT8, [256, 512])}, ["y"], kept, opset=19))
    kinds = {node.op_type for node in nodes}
    ops = [op for op in segment.op.body.block.ops if isinstance(op, OnnxOp) and op.op_type in kinds]
    machine = replace(MACHINE, chiplets=1, cores=2)
    timing = generate(work_of_ops(ops, {}, 1.0), machine, "fp32").timing
    bound = bound_of(ops, list(segment.op.results_yielded), machine, "fp32", {})
    assert bound.compute == 256 * 8 * 8 * 8 / 2
    assert bound.cycles <= timing.cycles < 1.5 * bound.cycles


def convolution_timed(x: tuple[int, ...], w: tuple[int, ...], stride: int, pad: int, machine: Machine, fmt: str):
    rank = len(w) - 2
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[stride] * rank, pads=[pad] * 2 * rank)
    segment = segment_of(model_of([node], {"x": (F, x)}, ["y"], {"w": zeros(*w)}))
    ops = [op for op in segment.op.body.block.ops if isinstance(op, OnnxOp) and op.op_type == "Conv"]
    work = replace(work_of_ops(ops, {}, 1.0), keeps_views=False)
    results = [value for _, value in work.outputs]
    return generate(work, machine, fmt).timing, tight_bound_of(ops, results, machine, fmt, {})


@given(
    channels=st.integers(1, 90),
    outputs=st.integers(1, 90),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=2),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    padded=st.booleans(),
    machine=st.sampled_from([MACHINE, SMALL]),
    fmt=st.sampled_from(["fp32", "bf16", "mxint8"]),
)
@settings(max_examples=15, deadline=None)
@example(5, 2, [570], 1, 1, False, MACHINE, "fp32")
@example(80, 70, [1, 1], 3, 1, True, SMALL, "fp32")
def test_no_convolution_is_below_the_tight_bound(
    channels: int, outputs: int, sizes: list[int], kernel: int, stride: int, padded: bool, machine: Machine, fmt: str
):
    pad = kernel // 2 if padded else 0
    sizes = [max(size, kernel) if not pad else size for size in sizes]
    taps = [kernel] * len(sizes)
    timing, tight = convolution_timed((1, channels, *sizes), (outputs, channels, *taps), stride, pad, machine, fmt)
    assert 0 < tight <= timing.cycles


def test_the_tight_bound_of_a_convolution_is_its_latencies_where_it_is_small():
    """A load, a store, and a way between chiplets: four channels of eight rows are 32 rows on eight chiplets."""
    _, tight = convolution_timed((1, 4, 8, 8), (64, 4, 3, 3), 1, 1, MACHINE, "mxint8")
    alone = 2 * MACHINE.network_latency_cycles
    assert alone < tight <= alone + MACHINE.die_latency_cycles


def test_padding_is_no_work_of_a_bound():
    """Of 3 × 3 on one position only the middle multiplies."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
    segment = segment_of(model_of([node], {"x": (F, (1, 6, 1, 1))}, ["y"], {"w": zeros(8, 6, 3, 3)}))
    (op,) = (op for op in segment.op.body.block.ops if isinstance(op, OnnxOp) and op.op_type == "Conv")
    found = least_of(op, {})
    assert found is not None
    assert (found.multiply_adds, found.input_bytes, found.depth) == (48, 24.0, 54)
