"""The model of collectives against the NCCL tables of aiconfigurator-core: python benchmarks/collectives.py [--fit]

For each kind of link, collective and number of GPUs: the median and the 90th percentile of |model / table - 1| on the
sizes that the link's figures were *not* fitted to (every second one, from 256 bytes to 512 MiB), in two formats; for
H200, whose figures are H100's, on all. `--fit` fits the six figures of a link again to the other half and prints them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
from scipy.optimize import least_squares

from gimlet.compiler.hardware import load_link
from gimlet.compiler.placement.reading.collectives import Collectives
from gimlet.targets.api import CollectiveFigures, CollectiveProtocol

CASES = (("nvlink5", "b200_sxm", True), ("nvlink4", "h100_sxm", True), ("nvlink4", "h200_sxm", False))
"""A kind of link, the table, and whether the link's figures were fitted to a half of it."""
START = (6e-6, 1e-6, 130e9, 4e-6, 650e9, 1300e9)
_BYTES = {"half": 2, "int8": 1}


@dataclass(frozen=True)
class Point:
    """A measured collective of a value of `size_bytes`."""

    name: str
    count: int
    size_bytes: int
    seconds: float

    def error(self, figures: CollectiveFigures) -> float:
        model = Collectives(self.count, "ring", 0.0, 0.0, figures)
        seconds = model.all_gather_s if self.name == "all_gather" else model.all_reduce_s
        return seconds(self.size_bytes) / self.seconds - 1


def points(system: str) -> list[Point]:
    spec = find_spec("aiconfigurator_core")
    if spec is None or spec.origin is None:
        raise SystemExit("aiconfigurator-core is not installed: pip install 'gimlet-compiler[tables]'")
    path = Path(spec.origin).parent / f"systems/data/{system}/comm/nccl/2.29.2/nccl_perf.parquet"
    return [
        Point(row["op_name"], row["num_gpus"], row["message_size"] * _BYTES[row["nccl_dtype"]], row["latency"] * 1e-3)
        for row in parquet.read_table(path).to_pylist()
        if row["op_name"] in ("all_gather", "all_reduce")
    ]


def halves(found: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    """Points to fit to, and those to test on: sizes in turns."""
    sizes = sorted({point.size_bytes for point in found})
    return (
        [point for point in found if sizes.index(point.size_bytes) % 2 == 0],
        [point for point in found if sizes.index(point.size_bytes) % 2 == 1],
    )


def fitted(train: Sequence[Point]) -> CollectiveFigures:
    """The figures of least error in logarithms, without giving much weight to single points that are far off."""

    def figures(logs: Sequence[float]) -> CollectiveFigures:
        launch, step, bandwidth, long_step, full_bandwidth, own = map(float, np.exp(logs))
        return CollectiveFigures(
            launch, (CollectiveProtocol(step, bandwidth), CollectiveProtocol(long_step, full_bandwidth, own))
        )

    def residuals(logs: Sequence[float]) -> list[float]:
        tried = figures(logs)
        return [float(np.log1p(point.error(tried))) for point in train]

    starts = [np.log(START) + np.log([1, 1, 1, factor, 1, 1]) for factor in (1, 2, 4)]
    found = [least_squares(residuals, start, loss="soft_l1", f_scale=0.1) for start in starts]
    return figures(min(found, key=lambda each: each.cost).x)


def main() -> None:
    """Prints one line a table, collective and number of GPUs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="print the figures that fit the other half best")
    flags = parser.parse_args()
    if flags.fit:
        for kind, system, own in CASES:
            if own:
                print(kind, fitted(halves(points(system))[0]))
    print("| table | link | collective | GPUs | median error | 90% within |")
    print("|---|---|---|---|---|---|")
    for kind, system, own in CASES:
        figures = load_link(kind).collective_figures
        if figures is None:
            raise SystemExit(f"{kind} says nothing of collectives")
        tested = halves(points(system))[1] if own else points(system)
        for name in ("all_gather", "all_reduce"):
            for count in (2, 4, 8):
                errors = [abs(p.error(figures)) for p in tested if (p.name, p.count) == (name, count)]
                middle, most = np.quantile(errors, (0.5, 0.9))
                print(f"| {system} | {kind} | {name} | {count} | {middle:.0%} | {most:.0%} |")


if __name__ == "__main__":
    main()
