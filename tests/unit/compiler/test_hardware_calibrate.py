"""Calibration: run on a machine whose figures are known, it finds them."""

import os
from collections.abc import Mapping, Sequence
from datetime import date
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gimlet.compiler.hardware import calibrate as module
from gimlet.compiler.hardware import load_kind
from gimlet.compiler.hardware.calibrate import Calibration, calibrate, render
from gimlet.compiler.progress import Progress
from gimlet.dialects.onnx.work import ELEMENT_FLOPS
from gimlet.runtime.errors import UsageError

KERNEL, SEGMENT, CACHE = 5e-7, 4e-6, 1 << 25
PRODUCTS, INTEGERS, CONVOLUTIONS, VECTOR, DEPTHWISE = 1e11, 4e11, 6e10, 2e10, 5e9
NEAR, MAIN = 8e10, 2e10


def known_machine(
    chain: Sequence[tuple[str, tuple[str, ...], dict[str, Any]]],
    shape: tuple[int, ...],
    weights: Mapping[str, np.ndarray[Any, Any]],
    dtype: Any = None,
) -> float:
    """The time of a run on a machine with the figures above."""
    name, _, attributes = chain[0]
    if name == "Abs":
        return (SEGMENT if len(chain) == 1 else 0) + KERNEL * len(chain)
    if name == "MatMul" and shape[0] == 1:
        return KERNEL + 4 * weights["w"].size / (MAIN * 0.5)
    if name in ("MatMul", "MatMulInteger"):
        rate = PRODUCTS if name == "MatMul" else INTEGERS
        if shape[0] < 256:
            rate *= 0.5
        return KERNEL + 2 * shape[0] * weights["w"].size / rate
    if name == "Conv":
        rate = CONVOLUTIONS if attributes["group"] == 1 else DEPTHWISE
        return KERNEL + 2 * weights["w"].size * prod(shape[2:]) / rate
    if name == "Add":
        moved = 12 * shape[0]
        return KERNEL + moved / (NEAR if moved <= CACHE else MAIN)
    return KERNEL + ELEMENT_FLOPS[name] * shape[0] / VECTOR


@pytest.fixture(scope="module")
def found() -> Calibration:
    """Its arrays are as large as on a real machine, and take seconds to fill."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_timed", known_machine)
        patch.setattr(module, "_last_cache", lambda: CACHE)
        return calibrate(Progress(quiet=True), {"power.load_w": 50.0})


def test_it_finds_the_figures_of_the_machine(found: Calibration):
    assert found.overhead == pytest.approx({"kernel_s": KERNEL, "segment_s": SEGMENT})
    assert found.peak == pytest.approx({"fp32": PRODUCTS, "int8": INTEGERS, "vector": VECTOR})
    assert found.fraction == pytest.approx(
        {"compute": 0.5, "conv": CONVOLUTIONS / PRODUCTS, "depthwise": DEPTHWISE / VECTOR, "memory": 0.5}
    )
    assert [name for name, _, _ in found.memory] == ["cache", "dram"]
    assert [bandwidth for _, _, bandwidth in found.memory] == pytest.approx([NEAR, MAIN])


def test_what_it_writes_is_a_kind(found: Calibration, tmp_path: Path):
    text = render(found, date(2026, 11, 23))
    assert text == render(found, date(2026, 11, 23))
    (tmp_path / "cpu.toml").write_text(text)
    kind = load_kind("cpu.toml", base=tmp_path)
    assert (kind.name, kind.targets) == ("host", ("onnxruntime", "openvino"))
    assert kind.peak == pytest.approx(found.peak)
    assert kind.fractions == pytest.approx({"conv": 0.6, "depthwise": 0.25})
    assert (kind.compute_fraction, kind.memory_fraction) == (0.5, 0.5)
    assert (kind.load_w, kind.idle_w, kind.price_usd) == (50.0, None, None)
    assert kind.sources["peak.fp32"].startswith("measured by gimlet-calibrate on ")
    assert kind.sources["peak.fp32"].endswith(", 2026-11-23")
    assert kind.sources["power.load_w"] == "given to gimlet-calibrate by the user"


def test_a_machine_that_hides_its_caches_has_main_memory_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_timed", known_machine)
    monkeypatch.setattr(module, "_last_cache", lambda: None)
    assert [name for name, _, _ in calibrate(Progress(quiet=True)).memory] == ["dram"]


@pytest.mark.parametrize(
    ("chain", "shape", "weights", "dtype"),
    [
        ([("Abs", ("x",), {})] * 3, (1,), {}, np.float32),
        ([("MatMul", ("x", "w"), {})], (2, 3), {"w": (3, 4)}, np.float32),
        ([("MatMulInteger", ("x", "w"), {})], (2, 3), {"w": (3, 4)}, np.uint8),
        ([("Conv", ("x", "w"), {"pads": [1] * 4, "group": 2})], (1, 2, 4, 4), {"w": (2, 1, 3, 3)}, np.float32),
        ([("Erf", ("x",), {})], (8,), {}, np.float32),
    ],
)
def test_every_measured_op_runs(
    monkeypatch: pytest.MonkeyPatch,
    chain: Any,
    shape: tuple[int, ...],
    weights: Mapping[str, tuple[int, ...]],
    dtype: Any,
):
    """On this machine, once: the model is valid and the time is one."""
    kind = np.int8 if dtype == np.uint8 else np.float32
    runs: list[float] = []
    monkeypatch.setattr(module, "_quartile", lambda run: runs.append(1.0) or run() or 1.0)
    arrays = {name: np.ones(size, kind) for name, size in weights.items()}
    assert module._timed(chain, shape, arrays, np.dtype(dtype)) == 1.0
    assert runs == [1.0]


def test_the_first_quartile_of_at_least_five_runs(monkeypatch: pytest.MonkeyPatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(ticks)))
    runs: list[int] = []
    assert module._quartile(lambda: runs.append(1), seconds=0.0) == 1.0
    assert len(runs) == 6


def test_a_part_of_the_machine_is_measured_on_that_part(monkeypatch: pytest.MonkeyPatch):
    seen: set[int] = set()

    def timed(*arguments: Any) -> float:
        seen.add(len(os.sched_getaffinity(0)))
        return known_machine(*arguments)

    before = os.sched_getaffinity(0)
    monkeypatch.setattr(module, "_timed", timed)
    found = calibrate(Progress(quiet=True), threads=1)
    assert seen == {1}
    assert os.sched_getaffinity(0) == before
    assert (found.cores, found.threads) == (1, 1)
    text = render(found)
    assert "cores = 1\nthreads = 1\n" in text
    assert ", 1 core, onnxruntime" in text


def test_more_cores_than_there_are_are_refused():
    with pytest.raises(UsageError, match="1000000 cores are asked for"):
        calibrate(Progress(quiet=True), threads=1_000_000)
