"""What an op costs on the host's processor: the work of its kernel (`features`) times fitted seconds for each kind.

    seconds of one core = Σ amount · figure · (reference's rate / this processor's rate)

The figures are in `host_figures.toml`. They were fitted by `benchmarks/host_costs.py` to segments of real networks and
to single ops, on one core of the machine that the file names, and hold for the kernels of the ONNX Runtime that it
names. Another processor's come from its own rates, as `gimlet-calibrate` measures them: operations scale with
`peak.fp32`, functions with `peak.vector`, bytes with the bandwidth of the level of memory that they come from; what a
launch takes is taken as it is.

Work is shared by `options.cores`, but for the first `SERIAL_S` of an op, below which ONNX Runtime's cost model keeps it
on one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gimlet.targets.api import HardwareKind
from gimlet.targets.onnxruntime.amounts import Features

FIGURES = Path(__file__).parent / "host_figures.toml"
SERIAL_S = 1.5e-5
SEGMENT = "segment"
"""The figure of a launch, which is not an op's."""

_COMPUTE = (".flops", ".passes")
_VECTOR = (".values",)
_BYTES = (".bytes", ".weights", ".packed", ".runs")


@dataclass(frozen=True)
class HostFigures:
    """Seconds for each kind of work on a core of the reference machine, and that machine's rates."""

    seconds: Mapping[str, float]
    peak: float
    vector: float
    cache: float
    dram: float


@cache
def host_figures() -> HostFigures:
    """The shipped figures."""
    data = tomllib.loads(FIGURES.read_text(encoding="utf-8"))
    reference = data["reference"]
    rates = (
        reference["peak_fp32"],
        reference["peak_vector"],
        reference["cache_bandwidth"],
        reference["dram_bandwidth"],
    )
    return HostFigures(data["seconds"], *rates)


def describes_processor(kind: HardwareKind) -> bool:
    """Whether a kind has the rates that this model scales with."""
    return "fp32" in kind.peak and "vector" in kind.peak and "cores" in kind.options and bool(kind.memory)


def host_seconds(work: Features, kind: HardwareKind) -> float:
    """Seconds of an op's work on a processor that `describes_processor`."""
    figures = host_figures()
    cores = max(int(kind.options["cores"]), 1)
    one = sum(
        amount * figures.seconds.get(name, 0.0) * _slowness(name, figures, kind, cores) for name, amount in work.items()
    )
    serial = min(one, SERIAL_S)
    return serial + (one - serial) / cores


def _slowness(name: str, figures: HostFigures, kind: HardwareKind, cores: int) -> float:
    """How many times longer a core of this processor takes than one of the reference's."""
    if name.startswith("dram."):
        return figures.dram / kind.memory[-1].bandwidth * cores
    if name.endswith(_COMPUTE):
        return figures.peak / (kind.peak["fp32"] / cores)
    if name.endswith(_VECTOR):
        return figures.vector / (kind.peak["vector"] / cores)
    if name.endswith(_BYTES) or name == "weights":
        return figures.cache / kind.memory[0].bandwidth
    return 1.0
