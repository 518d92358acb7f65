"""The model of language models' kernels against measured tables: python benchmarks/gpu_kernels.py [--fit]

For B200 and H100 (TensorRT-LLM's kernels in aiconfigurator-core 0.12.0): matrix products by format, causal prefill and
decode attention by the format of keys and values, gated experts by format. Each table is halved at random; the median
error is printed for both halves with the figures that the device's file has, which `--fit` found on the first half.
Experts are those of one device (no expert parallelism), evenly liked. `--fit` prints what goes into the file's
`[options.kernels]`.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.hardware import load_kind
from gimlet.targets.api import HardwareKind
from gimlet.targets.tensorrt.llm_kernels import Decode, Experts, Kernel, Prefill, Product, model_seconds
from gimlet.targets.tensorrt.tables import table

KINDS = ("nvidia/b200", "nvidia/h100")
FORMATS = {"bfloat16": "bf16", "fp8": "fp8", "nvfp4": "fp4"}
SAMPLE = 6000
FIGURES = ("compute", "memory", "item_s", "kernel_s")
START = {"product": 1e-14, "prefill": 1e-14, "decode": 1e-9, "experts": 8e-9}
CAP = 0.7
"""Logarithmic error from which a point counts no more in a fit."""

Vector = NDArray[np.float64]


def points(kind: HardwareKind, name: str) -> dict[str, list[tuple[Kernel, float]]]:
    """A sample of a table by format: kernels, and their measured seconds."""
    makers: dict[str, Callable[[str, Any, Any], Kernel]] = {
        "product": lambda fmt, key, s: Product(fmt, s[2], s[0], s[1]),
        "prefill": lambda fmt, key, s: Prefill(fmt, s[0], s[1], *key[1:]),
        "decode": lambda fmt, key, s: Decode(fmt, s[0], s[1], *key[1:]),
        "experts": lambda fmt, key, s: Experts(fmt, s[0], *key[1:]),
    }
    found: dict[str, list[tuple[Kernel, float]]] = {}
    for key, sizes in table(str(kind.options["tables"]), name).items():
        fmt = FORMATS.get(key[0])
        if fmt is not None and (fmt in kind.peak):
            found.setdefault(fmt, []).extend((makers[name](fmt, key, size), seconds) for size, seconds in sizes.items())
    return {fmt: random.Random(0).sample(rows, min(SAMPLE, len(rows))) for fmt, rows in found.items()}


def with_figures(kind: HardwareKind, kernel: Kernel, figures: Vector) -> HardwareKind:
    given = dict(zip(FIGURES, (float(figure) for figure in figures), strict=True))
    return replace(kind, options={**kind.options, "kernels": {f"{kernel.name}_{kernel.fmt}": given}})


def errors(rows: list[tuple[Kernel, float]], kind: HardwareKind) -> Vector:
    return np.array([(model_seconds(kernel, kind) or float("nan")) / seconds for kernel, seconds in rows])


def fit(rows: list[tuple[Kernel, float]], kind: HardwareKind) -> Vector:
    """Coordinate search in the logarithms of the four figures."""

    def loss(figures: Vector) -> float:
        logs = np.abs(np.log(errors(rows, with_figures(kind, rows[0][0], figures))))
        return float(np.minimum(logs, CAP).mean())

    figures = np.array([0.6, 0.7, START[rows[0][0].name], 1e-5])
    best, steps = loss(figures), np.full(len(figures), 0.4)
    for round_ in range(160):
        index = round_ % len(figures)
        for sign in (1, -1):
            tried = figures.copy()
            tried[index] *= np.exp(sign * steps[index])
            if index < 2 and tried[index] > 1:
                continue
            value = loss(tried)
            if value < best:
                figures, best = tried, value
                steps[index] *= 1.2
                break
        else:
            steps[index] *= 0.6
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="search the figures again, and print them (minutes)")
    again = parser.parse_args().fit
    for name in KINDS:
        kind = load_kind(name)
        for kernel in ("product", "prefill", "decode", "experts"):
            for fmt, rows in points(kind, kernel).items():
                half, other = rows[: len(rows) // 2], rows[len(rows) // 2 :]
                used = kind
                if again:
                    figures = fit(random.Random(1).sample(half, min(1500, len(half))), kind)
                    used = with_figures(kind, rows[0][0], figures)
                    text = ", ".join(f"{key} = {value:.3g}" for key, value in zip(FIGURES, figures, strict=True))
                    print(f"{kernel}_{fmt} = {{ {text} }}")
                first, second = (median(np.abs(errors(part, used) - 1).tolist()) for part in (half, other))
                told = f"{first:.1%} on the half fitted to, {second:.1%} on the other"
                print(f"# {name:12} {kernel:8} {fmt:5} {len(rows):5} points: {told}")


if __name__ == "__main__":
    main()
