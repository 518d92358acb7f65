"""The roofline: its two sides, the levels of memory, energy, and what must hold for any figures."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.dialects.onnx.work import NOTHING, OpClass, Work
from gimlet.runtime.errors import UsageError
from gimlet.runtime.expr import Expr
from gimlet.targets.api import Cost, Device, HardwareKind, MemoryLevel
from gimlet.targets.roofline import FORMAT_BITS, energy_joules, roofline

KIND = HardwareKind(
    name="part",
    targets=("t",),
    peak={"fp32": 1e12, "bf16": 4e12, "vector": 1e11},
    memory=(MemoryLevel("cache", 10_000, 1e12), MemoryLevel("dram", 1_000_000, 1e10)),
    idle_w=10,
    load_w=100,
    kernel_overhead_s=1e-6,
    compute_fraction=0.5,
    memory_fraction=0.8,
)


def work(flops: int = 0, read: int = 0, written: int = 0, weights: int = 0, op_class: OpClass = "matrix") -> Work:
    return Work(*(Expr.const(value) for value in (flops, read, written, weights)), op_class=op_class)


def cost(of: Work, fmt: str = "fp32", kind: HardwareKind = KIND, sizes: Mapping[str, int] | None = None) -> Cost:
    return roofline(of, Device("d", kind), fmt, sizes or {})


def test_compute_bound():
    assert cost(work(flops=10**9)).seconds == pytest.approx(1e9 / (1e12 * 0.5) + 1e-6)


def test_memory_bound():
    found = cost(work(flops=1, read=60_000, written=40_000))
    assert found.seconds == pytest.approx(100_000 / (1e10 * 0.8) + 1e-6)
    assert (found.activation_bytes, found.weight_bytes) == (100_000, 0)


def test_what_fits_in_the_cache_is_read_from_it():
    assert cost(work(read=5_000, written=5_000)).seconds == pytest.approx(10_000 / (1e12 * 0.8) + 1e-6)


def test_weights_come_from_where_all_of_them_fit():
    op = work(read=8_000, weights=8_000)
    device = Device("d", KIND)
    assert roofline(op, device, "fp32", {}).seconds == pytest.approx(8_000 / (1e12 * 0.8) + 1e-6)
    far = roofline(op, device, "fp32", {}, resident_bytes=500_000)
    assert far.seconds == pytest.approx(8_000 / (1e10 * 0.8) + 1e-6)
    assert far.weight_bytes == 8_000


@pytest.mark.parametrize(
    ("op_class", "rate"), [("matrix", 1e12), ("conv", 1e12), ("vector", 1e11), ("depthwise", 1e11)]
)
def test_only_products_run_on_the_matrix_unit(op_class: OpClass, rate: float):
    assert cost(work(flops=10**9, op_class=op_class)).seconds == pytest.approx(1e9 / (rate * 0.5) + 1e-6)


def test_fractions_by_class_and_format():
    kind = replace(KIND, fractions={"conv": 0.25, "bf16": 0.1})
    assert cost(work(flops=10**9, op_class="conv"), kind=kind).seconds == pytest.approx(4e-3 + 1e-6)
    assert cost(work(flops=10**9), "bf16", kind).seconds == pytest.approx(1e9 / 4e11 + 1e-6)
    assert cost(work(flops=10**9), kind=kind).seconds == pytest.approx(2e-3 + 1e-6)


def test_formats_scale_bytes():
    """Works without a count of values are float32."""
    op = work(read=400_000)
    assert cost(op, "bf16").activation_bytes == 200_000
    assert cost(op, "bf16").seconds == pytest.approx(200_000 / (1e10 * 0.8) + 1e-6)


def test_a_view_costs_nothing():
    assert cost(NOTHING) == Cost(0.0, 0.0)
    assert cost(NOTHING, kind=replace(KIND, load_w=None)) == Cost(0.0, None)


def test_energy_is_load_while_busy_and_idle_while_waiting():
    assert cost(work(flops=10**9)).joules == pytest.approx(100 * 2e-3 + 10 * 1e-6)
    assert cost(work(flops=10**9), kind=replace(KIND, idle_w=None)).joules == pytest.approx(100 * 2e-3)
    assert cost(work(flops=10**9), kind=replace(KIND, load_w=None)).joules is None
    assert energy_joules(KIND, 2.0, 1.0) == 210


def test_a_missing_peak_is_refused_by_its_name():
    with pytest.raises(UsageError, match=r"part has no peak\.fp8 \(it has peaks for bf16, fp32, vector\)"):
        cost(work(flops=1), "fp8")
    alone = replace(KIND, peak={"bf16": 1e12})
    with pytest.raises(UsageError, match=r"peak\.fp32"):
        cost(work(flops=1, op_class="vector"), "fp32", alone)


def test_a_kind_without_a_vector_rate_uses_the_format():
    alone = replace(KIND, peak={"fp32": 1e12})
    assert cost(work(flops=10**9, op_class="vector"), kind=alone).seconds == pytest.approx(2e-3 + 1e-6)


def test_an_unknown_format_is_refused():
    with pytest.raises(UsageError, match=r"unknown number format 'fp12'(.|\n)*known: fp64"):
        cost(work(), "fp12")


def test_symbolic_sizes():
    op = Work(Expr.parse("1000*batch"), Expr.const(0), Expr.const(0), Expr.const(0), "matrix")
    assert cost(op, sizes={"batch": 1000}).seconds == pytest.approx(2e-6 + 1e-6)


AMOUNT = st.integers(0, 10**12)
CLASS = st.sampled_from(["matrix", "conv", "depthwise", "vector", "data"])
FASTER = st.floats(1, 1e3)


@given(flops=AMOUNT, read=AMOUNT, written=AMOUNT, op_class=CLASS, fmt=st.sampled_from(["fp32", "bf16"]), by=FASTER)
def test_better_hardware_is_never_slower(flops: int, read: int, written: int, op_class: OpClass, fmt: str, by: float):
    op = work(flops, read, written, read // 2, op_class)
    before = cost(op, fmt).seconds
    quicker = replace(KIND, memory=tuple(replace(level, bandwidth=level.bandwidth * by) for level in KIND.memory))
    larger = replace(KIND, memory=(replace(KIND.memory[0], capacity_bytes=round(10_000 * by)), KIND.memory[1]))
    stronger = replace(KIND, peak={name: rate * by for name, rate in KIND.peak.items()})
    for kind in (quicker, larger, stronger):
        assert cost(op, fmt, kind).seconds <= before * (1 + 1e-12)


@given(flops=AMOUNT, read=AMOUNT, written=AMOUNT, op_class=CLASS)
def test_a_cost_is_at_least_both_roofs(flops: int, read: int, written: int, op_class: OpClass):
    seconds = cost(work(flops, read, written, 0, op_class)).seconds
    assert seconds >= flops / max(KIND.peak.values())
    assert seconds >= (read + written) / KIND.memory[0].bandwidth
    assert seconds >= KIND.kernel_overhead_s


def test_block_formats_count_their_scales():
    assert FORMAT_BITS["mxint8"] * 32 == 32 * 8 + 8
    assert FORMAT_BITS["mxint4"] * 32 == 32 * 4 + 8
    assert FORMAT_BITS["fp4"] * 16 == 16 * 4 + 8
