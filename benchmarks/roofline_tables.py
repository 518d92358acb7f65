"""The roofline against measured matrix products: python benchmarks/roofline_tables.py [--fit]

Reads the tables of the PyPI package aiconfigurator-core (0.12.0, Apache-2.0; with pandas and pyarrow), predicts every
product with the shipped kind, and prints the median error for each GPU and format, over all products and by what
bounds them. `--fit` searches again for the figures that `[fraction]` and `overhead.kernel_s` of the kinds are rounded
from: least median error on a random half of the products, and the error that they leave on the other half.

This is the roofline alone, one figure a kind for all ops: products in fp8 and fp4 include the kernel that quantises
their input, and short ones are predicted too fast. `gpu_kernels.py` judges the kinds that have figures for it.
"""

from __future__ import annotations

import argparse
import importlib.util
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gimlet.compiler.hardware import load_kind
from gimlet.dialects.onnx.work import Volume, Work
from gimlet.runtime.expr import Expr
from gimlet.targets.api import Device, HardwareKind
from gimlet.targets.roofline import FORMAT_BITS, roofline

TABLES = {
    "nvidia/a100": "a100_sxm/gemm/trtllm/1.0.0",
    "nvidia/l40s": "l40s/gemm/trtllm/1.3.0rc20",
    "nvidia/rtx-pro-6000": "rtx_pro_6000_server/gemm/trtllm/1.3.0rc20",
    "nvidia/h100": "h100_sxm/gemm/trtllm/1.3.0rc20",
    "nvidia/h200": "h200_sxm/gemm/trtllm/1.3.0rc20",
    "nvidia/b200": "b200_sxm/gemm/trtllm/1.3.0rc20",
}
FORMATS = {"bf16": "bfloat16", "fp8": "fp8", "fp4": "nvfp4"}
SAMPLE = 4000
RESULT_BITS = 16
"""Products of any format are measured with results in bf16."""


def table(folder: str) -> pd.DataFrame:
    spec = importlib.util.find_spec("aiconfigurator_core")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install aiconfigurator-core==0.12.0 pandas pyarrow")
    return pd.read_parquet(Path(spec.origin).parent / "systems" / "data" / folder / "gemm_perf.parquet")


def work(m: int, n: int, k: int) -> Work:
    """A product [m, k] × [k, n] whose operands have the device's format and whose result is in bf16."""
    result = Expr.const(m * n * RESULT_BITS // 8)
    values = Volume(Expr.const(m * k + k * n), Expr.const(0), Expr.const(k * n), Expr.const(k * n))
    flops, read, weights = (Expr.const(value) for value in (2 * m * n * k, 4 * (m * k + k * n), 4 * k * n))
    return Work(flops, read, result, weights, "matrix", values=values, fixed=Volume(written=result))


def errors(rows: pd.DataFrame, kind: HardwareKind, fmt: str) -> None:
    sample = rows.sample(min(SAMPLE, len(rows)), random_state=0)
    device = Device("gpu", kind)
    predicted = np.array(
        [roofline(work(*row), device, fmt, {}).seconds for row in sample[["m", "n", "k"]].to_numpy().tolist()]
    )
    measured = sample["latency"].to_numpy() * 1e-3
    off = np.abs(predicted / measured - 1)
    short = measured < 3 * kind.kernel_overhead_s
    intense = (2 * sample.m * sample.n * sample.k / kind.peak[fmt]).to_numpy() > 0.5 * measured * kind.compute_fraction
    groups = {"all": np.ones(len(off), bool), "short": short, "compute": intense & ~short, "memory": ~intense & ~short}
    cells = (f"{name} {np.median(off[where]):5.1%} ({where.sum()})" for name, where in groups.items() if where.any())
    print(f"{kind.name:20} {fmt:5} median error  {'  '.join(cells)}")


def fit(rows: pd.DataFrame, kind: HardwareKind, fmt: str) -> None:
    size = FORMAT_BITS[fmt] / 8
    compute = (2.0 * rows.m * rows.n * rows.k / kind.peak[fmt]).to_numpy()
    moved = rows.n * rows.k * size + rows.m * rows.k * size + rows.m * rows.n * RESULT_BITS / 8
    memory = (moved / kind.memory[-1].bandwidth).to_numpy()
    measured = rows.latency.to_numpy() * 1e-3
    half = np.random.default_rng(0).random(len(rows)) < 0.5

    def error(figures: tuple[float, float, float], where: Any) -> float:
        c, m, overhead = figures
        predicted = np.maximum(compute[where] / c, memory[where] / m) + overhead
        return float(np.median(np.abs(predicted / measured[where] - 1)))

    grid = product(
        np.arange(0.3, 0.96, 0.02), np.arange(0.4, 0.96, 0.03), np.array([0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 14]) * 1e-6
    )
    best = min(grid, key=lambda figures: error(figures, half))
    print(
        f"{kind.name:20} {fmt:5} compute {best[0]:.2f}  memory {best[1]:.2f}  kernel {best[2] * 1e6:.0f} µs"
        f"  {error(best, half):.1%} on one half, {error(best, ~half):.1%} on the other"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="search the fitted figures again (minutes)")
    again = parser.parse_args().fit
    for name, folder in TABLES.items():
        kind, rows = load_kind(name), table(folder)
        for fmt, spelled in FORMATS.items():
            chosen = rows[rows.gemm_dtype == spelled]
            if len(chosen) and fmt in kind.peak:
                (fit if again else errors)(chosen, kind, fmt)


if __name__ == "__main__":
    main()
