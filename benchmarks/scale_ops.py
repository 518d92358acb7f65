"""How the compiler's own phases scale with the number of ops: a synthetic model of 1,000, 10,000 and 100,000 nodes.

    python benchmarks/scale_ops.py [--ops 1000 10000 100000] [--repeat 1] [--text] [--plot scale.svg]

Each size is a process of its own. Prints the CPU seconds of each phase, microseconds an op at the largest size, and
the exponent e of seconds ~ ops^e, fitted to the two largest sizes: 1 is linear. CPU time, because a busy machine
stretches the wall clock. `--text` adds that the annotated module is printed and parsed; `--plot` needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from synthetic_graph import transformer

from gimlet.compiler.api import start
from gimlet.compiler.hardware import default_topology
from gimlet.compiler.instruments import module_text
from gimlet.compiler.options import CompileOptions, default_cache
from gimlet.compiler.progress import Progress
from gimlet.compiler.sources import open_source
from gimlet.targets.api import DimBound

BINDINGS = {"batch": DimBound(1, 1, 8), "length": DimBound(1, 128, 512)}
_LEAST_SECONDS = 0.05


def measure(ops: int, text: bool) -> dict[str, float]:
    """CPU seconds by phase for one model of `ops` nodes, with its peak memory in MB."""
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        before = time.process_time()
        result = work()
        seconds[name] = time.process_time() - before
        return result

    source = open_source(transformer(ops))
    options = CompileOptions(topology=default_topology(), bindings=BINDINGS, cache=default_cache())
    # What is loaded once a process is not part of any phase.
    start(open_source(transformer(100)), options, Progress(quiet=True)).run_to("annotate")
    compilation = timed("import", lambda: start(source, options, Progress(quiet=True)))
    for phase in ("normalize", "annotate"):
        timed(phase, lambda phase=phase: compilation.run_to(phase))
    if text:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "module.mlir"
            path.write_text(timed("print", lambda: module_text(compilation.module)))
            timed("parse", lambda: start(open_source(path), options, Progress(quiet=True)))
    seconds["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return seconds


def in_own_process(ops: int, text: bool) -> dict[str, float]:
    """`measure` in a fresh interpreter."""
    command = [sys.executable, __file__, "--one", str(ops), *(["--text"] if text else [])]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def exponent(sizes: list[int], values: list[float]) -> float | None:
    """e of values ~ sizes^e over the two largest sizes; None where the times are too short to tell."""
    if len(sizes) < 2 or values[-2] < _LEAST_SECONDS:
        return None
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


def plot(sizes: list[int], rows: dict[str, list[float]], path: Path) -> None:
    """Seconds over ops, both logarithmic, with a linear line to compare."""
    try:
        pyplot: Any = import_module("matplotlib.pyplot")
    except ModuleNotFoundError:
        raise SystemExit("--plot needs matplotlib: pip install -r requirements/benchmarks.txt") from None
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, values in rows.items():
        axes.loglog(sizes, values, marker="o", label=name)
    total = [sum(values) for values in zip(*rows.values(), strict=True)]
    axes.loglog(sizes, [total[0] * size / sizes[0] for size in sizes], "k:", label="linear")
    axes.set_xlabel("ops")
    axes.set_ylabel("CPU seconds")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Prints the table, and draws it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--text", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.text)))
        return
    sizes = sorted(arguments.ops)
    runs = [[in_own_process(size, arguments.text) for _ in range(arguments.repeat)] for size in sizes]
    rows = {name: [min(run[name] for run in of_size) for of_size in runs] for name in runs[0][0]}
    print(f"{'phase':<10}" + "".join(f"{size:>10,}" for size in sizes) + f"{'µs/op':>8}{'exponent':>10}")
    for name, values in rows.items():
        cells = "".join(f"{value:>10.2f}" for value in values)
        found = None if name == "peak MB" else exponent(sizes, values)
        per_op = "" if name == "peak MB" else f"{values[-1] / sizes[-1] * 1e6:.0f}"
        print(f"{name:<10}{cells}{per_op:>8}{'' if found is None else f'{found:.2f}':>10}")
    if arguments.plot:
        plot(sizes, {name: values for name, values in rows.items() if name != "peak MB"}, arguments.plot)


if __name__ == "__main__":
    main()
