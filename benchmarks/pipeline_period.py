"""Pipelined throughput, predicted and run: `python benchmarks/pipeline_period.py [MODEL …]`.

Two cores of this machine are two devices (`gimlet-calibrate --cores 1`), with a copy in main memory as the link between
them. Each model is placed for throughput on one of them and on both, by the model of the host's costs, and run by
`gimlet-run --inflight`: one request at a time on one core, three on both. Runs alternate; figures are medians over
`--rounds`. Printed for each: segments, the period that placement predicted and the one that was run, in milliseconds,
their ratio, and how much quicker both cores are than one, as predicted and as run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from host_models import MODELS

from gimlet.compiler.api import start
from gimlet.compiler.bounds import parse_bindings
from gimlet.compiler.hardware import load_topology
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.progress import Progress

NAMES = ("ppocr4-rec", "ppocr4-det", "ppocr4-cls", "minilm", "smollm2-decode", "nudenet")
DEVICE = '[[device]]\nname = "{}"\nkind = "core.toml"\n'
LINK = '[[link]]\nbetween = ["core0", "core1"]\nkind = "copy.toml"\n'
COPY = """schema = 1
title = "a copy in main memory"
latency_s = 2e-6
bandwidth = {:.3g}
[sources]
latency_s = "docs/runtime.md: what a further segment costs"
bandwidth = "numpy.copyto of 16 MiB, measured now"
"""
LINE = "{:<16}{:>9}{:>11}{:>9}{:>7}{:>16}{:>10}"
REQUESTS = {"one": 1, "both": 3}


def copy_rate() -> float:
    """Bytes per second of a copy within main memory."""
    source = np.ones(1 << 24, np.uint8)
    target = source.copy()
    seconds: list[float] = []
    for _ in range(50):
        begin = perf_counter()
        np.copyto(target, source)
        seconds.append(perf_counter() - begin)
    return source.nbytes / statistics.median(seconds)


def describe_machine(folder: Path) -> None:
    """The kind, the link and both topologies, in `folder`."""
    subprocess.run([_command("gimlet-calibrate"), "--cores", "1", "-o", folder / "core.toml"], check=True)
    (folder / "copy.toml").write_text(COPY.format(copy_rate()))
    (folder / "one.toml").write_text(DEVICE.format("core0"))
    (folder / "both.toml").write_text(DEVICE.format("core0") + DEVICE.format("core1") + LINK)


def compile_for(name: str, cores: str, folder: Path, seconds: float) -> Path:
    """The bundle of a model at batch 1 on one core or on both."""
    model = MODELS[name]
    bind = model.bind.replace("x[0]=6", "x[0]=1")
    options = CompileOptions(
        load_topology(str(folder / f"{cores}.toml")),
        bindings=parse_bindings([bind] if bind else []),
        objective="throughput",
        time_limit_s=seconds,
    )
    path = folder / f"{name}-{cores}.gimlet"
    start(model.load(), options, Progress(quiet=True)).emit(path, force=False)
    return path


def run(bundle: Path, requests: int, repeat: int) -> dict[str, float]:
    """The latency part of what `gimlet-run --json` prints."""
    command = [
        _command("gimlet-run"),
        bundle,
        "--random",
        "--repeat",
        str(repeat),
        "--inflight",
        str(requests),
        "--json",
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["latency"]


def _command(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def main() -> None:
    """Prints a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=NAMES, metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=60, help="runs in a round")
    parser.add_argument("--time-limit", type=float, default=20, help="seconds for each placement")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        describe_machine(folder)
        print(
            f"{'model':<16}{'segments':>9}{'predicted':>11}{'run':>9}{'ratio':>7}{'gain predicted':>16}{'gain run':>10}"
        )
        for name in arguments.models:
            bundles = {cores: compile_for(name, cores, folder, arguments.time_limit) for cores in REQUESTS}
            periods: dict[str, list[float]] = {cores: [] for cores in REQUESTS}
            predicted: dict[str, float] = {}
            for _ in range(arguments.rounds):
                for cores, bundle in bundles.items():
                    found = run(bundle, REQUESTS[cores], arguments.repeat)
                    periods[cores].append(found["period_s"])
                    predicted[cores] = found["predicted_period_s"]
            one, both = (statistics.median(periods[cores]) for cores in REQUESTS)
            segments = len(json.loads((bundles["both"] / "manifest.json").read_text())["segments"])
            figures = (predicted["both"] * 1e3, both * 1e3, both / predicted["both"])
            gains = (predicted["one"] / predicted["both"], one / both)
            print(LINE.format(name, segments, *(f"{figure:.2f}" for figure in (*figures, *gains))), flush=True)


if __name__ == "__main__":
    main()
