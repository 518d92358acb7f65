"""Predicted against measured times on the host: `python benchmarks/host_costs.py`

Prints, for every model, the error of segments and of the whole model, predicted from figures that were fitted without
it and what shares the first part of its name: to the segments of all other models and to single kernels. No segment of
the model under test was timed for its prediction. Then the error by what dominates a segment.

The measurements are in benchmarks/data/host_costs.json: for each segment the seconds of several passes, of which the
least counts, and how much of each kind of work it has (`gimlet.targets.onnxruntime.features`). `--measure` takes them
again, for all models or those named (`kernels` and `unseen` for single kernels), on one core: the times are of the
thread's own processor time, which neighbours on the machine change little. `--measure-new` takes those of single
kernels that have none, `--recount` counts the work of all segments anew. `--write` fits the figures to everything but
the unseen kernels and writes them to targets/onnxruntime/host_figures.toml. `--kernels` prints the shipped figures
against single kernels: those that they were fitted to, and those that they were not.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from gimlet.compiler.compile import Compilation
from gimlet.compiler.costs.detach import detach
from gimlet.compiler.costs.measured import cut, stretches
from gimlet.compiler.costs.provider import model_costs
from gimlet.compiler.costs.timer import Effort, SegmentTimer, Timing
from gimlet.compiler.hardware.host import processor
from gimlet.compiler.placement.reading.graph import ModuleGraph, read_graph
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.work import is_weight
from gimlet.passes.entry import is_constant
from gimlet.targets import registry
from gimlet.targets.api import bytes_of
from gimlet.targets.onnxruntime.amounts import WAITED
from gimlet.targets.onnxruntime.features import features
from gimlet.targets.onnxruntime.host_model import FIGURES, SEGMENT, host_figures

DATA = Path(__file__).parent / "data" / "host_costs.json"
KERNELS, UNSEEN = "kernels", "unseen"
PASSES = 2
REFERENCE = {"peak_fp32": 1.14e11, "peak_vector": 3.16e10, "cache_bandwidth": 6.84e10, "dram_bandwidth": 2.65e10}
"""Rates of one core of the machine that the measurements are from, by gimlet-calibrate bound to it."""
FIXED = {WAITED: 1 / REFERENCE["dram_bandwidth"]}
"""Figures that are not fitted: few networks say how fast a core reads main memory, and that is measured by itself."""
OUTLIER = 0.15
"""Relative error from which a network's segment counts less in a fit: what a neighbour disturbed is not what it costs.

A single kernel always counts in full: it is short, so that one of many runs is undisturbed, and of its class there may
be a few only, which are off together as long as others decide.
"""
KERNEL_WEIGHT = 0.5
"""How much a single kernel counts in a fit: alone in a loop it finds its data in caches that a network's ops share."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """A segment: its model, whether it is all of it, seconds of each pass, its work, and where it is."""

    model: str
    name: str
    whole: bool
    seconds: tuple[float, ...]
    work: Mapping[str, float] = field(default_factory=dict[str, float])
    units: tuple[int, ...] = ()
    """The first unit of the model's graph that is in it, and the one behind the last; none where it is all of it."""

    @property
    def least(self) -> float:
        return min(self.seconds)


def work_of_segment(graph: ModuleGraph, units: Sequence[int]) -> dict[str, float]:
    """The work of units as one segment, alone as they are timed."""
    segment = detach([op for unit in units for op in graph.units[unit].ops], "cpu", "fp32")
    ops = [op for op in segment.op.body.block.ops if isinstance(op, OnnxOp) and not is_constant(op)]
    weights = {value for op in ops for value in op.operands if is_weight(value)}
    resident = float(sum(bytes_of(value.type, graph.sizes) for value in weights))
    found = Counter({SEGMENT: 1.0})
    for op in ops:
        found.update(features(op, graph.sizes, resident))
    return {name: float(f"{amount:.6g}") for name, amount in found.items()}


def measured(name: str, compiled: Compilation, *, whole_only: bool = False) -> Iterator[Row]:
    """The segments of a model: its pieces, and all of it."""
    target, device = registry.load("onnxruntime"), compiled.options.topology.devices[0]
    graph = graph_of(compiled)
    everything = range(len(graph.units))
    model = model_costs(graph, everything, target, device, "fp32")
    segments = (
        []
        if whole_only
        else [piece for stretch in stretches(everything) for piece in cut(graph, stretch, model, target)]
    )
    segments.append(list(everything))
    times: list[list[float]] = [[] for _ in segments]
    for _ in range(PASSES):
        with tempfile.TemporaryDirectory() as cache:
            effort = Effort(seconds=0.1, least=7)
            timer = SegmentTimer(
                compiled.module, compiled.ctx, compiled.bounds, graph.sizes, Path(cache), effort, time.thread_time
            )
            for index, units in enumerate(segments):
                found = timer.time([op for unit in units for op in graph.units[unit].ops], target, device, "fp32")
                if isinstance(found, Timing):
                    times[index].append(found.seconds)
    for index, (units, seconds) in enumerate(zip(segments, times, strict=True)):
        if seconds:
            whole = index == len(segments) - 1 and not whole_only
            place = () if whole or whole_only else (units[0], units[-1] + 1)
            yield Row(name, f"{name}/{index}", whole, tuple(seconds), work_of_segment(graph, units), place)


def on_one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def single_kernels() -> Iterator[tuple[str, str, Callable[[], Compilation]]]:
    """Each single kernel: whether it is fitted to (`KERNELS`) or not (`UNSEEN`), its name, and what compiles it."""
    from host_kernels import kernels, unseen

    from gimlet.compiler.api import start
    from gimlet.compiler.hardware import default_topology
    from gimlet.compiler.options import CompileOptions
    from gimlet.compiler.progress import Progress
    from gimlet.compiler.sources import open_source

    def compilation(model: ModelProto) -> Compilation:
        compiled = start(open_source(model), CompileOptions(default_topology()), Progress(quiet=True))
        compiled.run_to("annotate")
        return compiled

    for kind, models in ((KERNELS, kernels()), (UNSEEN, unseen())):
        for name, model in models:
            yield kind, name, partial(compilation, model)


def measured_kernel(kind: str, name: str, compiled: Compilation) -> list[Row]:
    return [Row(kind, name, False, row.seconds, row.work) for row in measured(name, compiled, whole_only=True)]


def measure(names: Sequence[str]) -> None:
    """Measures models, and single kernels, on one core, and saves each when it is done."""
    from host_models import MODELS, compilation

    on_one_core()
    for name in names or [KERNELS, UNSEEN, *MODELS]:
        if name in (KERNELS, UNSEEN):
            wanted = (item for item in single_kernels() if item[0] == name)
            found = [row for kind, kernel, made in wanted for row in measured_kernel(kind, kernel, made())]
        else:
            found = list(measured(name, compilation(name)))
        save([*(row for row in load() if row.model != name), *found])
        print(f"{name}: {len(found)} segments", flush=True)


def measure_new() -> None:
    """Measures the single kernels that have no times yet, and leaves out those that are no more."""
    on_one_core()
    rows = load()
    before = {(row.model, row.name): row for row in rows}
    others = [row for row in rows if row.model not in (KERNELS, UNSEEN)]
    found: list[Row] = []
    wanted = list(single_kernels())
    for index, (kind, name, compilation_of) in enumerate(wanted):
        row = before.get((kind, name))
        found += measured_kernel(kind, name, compilation_of()) if row is None else [row]
        if row is None and index % 20 == 0:
            left = (before.get((kind, name)) for kind, name, _ in wanted[index + 1 :])
            save([*others, *found, *(row for row in left if row)])
    save([*others, *found])


def recount() -> None:
    """Counts the work of all segments anew, whose times stay: for when the model of kernels has changed.

    Where the compiler now makes other ops of a network, a segment of it is no longer there: it keeps its count.
    """
    from host_models import compilation

    of_kernels = {(kind, name): compilation_of for kind, name, compilation_of in single_kernels()}
    graphs: dict[str, ModuleGraph] = {}
    rows: list[Row] = []
    for row in load():
        if row.model not in (KERNELS, UNSEEN) and not row.whole and not row.units:
            rows.append(row)
            continue
        if row.model in (KERNELS, UNSEEN):
            graph = graph_of(of_kernels[row.model, row.name]())
        else:
            if row.model not in graphs:
                graphs = {row.model: graph_of(compilation(row.model))}
            graph = graphs[row.model]
        units = range(*row.units) if row.units else range(len(graph.units))
        work = work_of_segment(graph, units) if units.stop <= len(graph.units) else {}
        if row.units and any(work.get(name, 0.0) != amount for name, amount in row.work.items() if _is_product(name)):
            print(f"{row.name}: no longer one segment, counted as before")
            work = row.work
        rows.append(replace(row, work=work))
    save(rows)


def _is_product(name: str) -> bool:
    return name.endswith((".flops", ".passes"))


def graph_of(compiled: Compilation) -> ModuleGraph:
    return read_graph(compiled.module, {dim: bound.optimum for dim, bound in compiled.bounds.items()})


def load() -> list[Row]:
    rows = json.loads(DATA.read_text()) if DATA.is_file() else []
    return [Row(**{**row, "seconds": tuple(row["seconds"]), "units": tuple(row.get("units", ()))}) for row in rows]


def save(rows: Sequence[Row]) -> None:
    lines = [json.dumps(asdict(row), sort_keys=True) for row in rows]
    DATA.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def fit(rows: Sequence[Row], names: Sequence[str]) -> Vector:
    """Seconds for each kind of work, none negative, with the least relative errors; segments' large ones count less."""
    amounts = np.array([[row.work.get(name, 0.0) for name in names] for row in rows])
    seconds = np.array([row.least for row in rows])
    fixed = np.array([FIXED.get(name, 0.0) for name in names])
    left, amounts = np.maximum(1 - amounts @ fixed / seconds, 0.0), amounts * (fixed == 0)
    largest = np.maximum(amounts.max(axis=0), 1e-300)
    single = np.array([row.model == KERNELS for row in rows])
    kind = np.where(single, KERNEL_WEIGHT, 1.0)
    scaled, weight = amounts / largest / seconds[:, None], kind
    found = np.zeros(len(names))
    for _ in range(4):
        found = _not_negative(scaled * weight[:, None], left * weight, found)
        error = np.where(single, 0.0, np.abs(scaled @ found - left))
        weight = kind * np.sqrt(np.minimum(1.0, OUTLIER / np.maximum(error, 1e-9)))
    return found / largest + fixed


def _not_negative(a: Vector, b: Vector, start: Vector, ridge: float = 1e-6) -> Vector:
    """Least squares with x ≥ 0 by coordinate descent on the normal equations."""
    gram, x = a.T @ a + ridge * np.eye(a.shape[1]), start.copy()
    gradient = gram @ x - a.T @ b
    for _ in range(1500):
        largest = 0.0
        for index in range(len(x)):
            value = max(0.0, x[index] - gradient[index] / gram[index, index])
            change = value - x[index]
            if change:
                gradient += gram[:, index] * change
                x[index] = value
                largest = max(largest, abs(change) * gram[index, index] ** 0.5)
        if largest < 1e-6:
            break
    return x


def predicted(rows: Sequence[Row], figures: Mapping[str, float]) -> Vector:
    return np.array([sum(amount * figures.get(name, 0.0) for name, amount in row.work.items()) for row in rows])


def report(rows: Sequence[Row]) -> None:
    rows = [row for row in rows if row.model != UNSEEN]
    names = sorted({name for row in rows for name in row.work})
    models = list(dict.fromkeys(row.model for row in rows if row.model != KERNELS))
    by_class: dict[str, list[float]] = {}
    all_errors: list[float] = []
    whole_errors: list[float] = []
    print(f"{'left out':18} segments  median    p90    whole model, measured and predicted")
    for model in models:
        train = [row for row in rows if row.model == KERNELS or family(row.model) != family(model)]
        figures = dict(zip(names, fit(train, names), strict=True))
        test = [row for row in rows if row.model == model]
        errors = predicted(test, figures) / np.array([row.least for row in test]) - 1
        parts = [abs(error) for row, error in zip(test, errors, strict=True) if not row.whole]
        for row, error in zip(test, errors, strict=True):
            if row.whole:
                whole_errors.append(abs(error))
                text = f"{row.least * 1e3:7.2f} ms {row.least * (1 + error) * 1e3:7.2f} ms {error:+.1%}"
                print(f"{model:18} {len(parts):8} {np.median(parts):7.1%} {np.quantile(parts, 0.9):6.0%}    {text}")
            else:
                by_class.setdefault(_dominant(row, figures), []).append(abs(error))
        all_errors += parts
    print(f"all {len(all_errors)} segments: median {np.median(all_errors):.1%}")
    print(
        f"all {len(whole_errors)} models whole: median {np.median(whole_errors):.1%}, largest {max(whole_errors):.1%}"
    )
    for name, errors in sorted(by_class.items(), key=lambda item: -len(item[1])):
        print(f"  mostly {name:24} {len(errors):4} segments, median {np.median(errors):.1%}")


def report_kernels(rows: Sequence[Row], figures: Mapping[str, float]) -> None:
    """Of the single kernels of each operator: their number, predicted to measured (median, ends), and the error."""
    for kind, title in ((KERNELS, "fitted to"), (UNSEEN, "not fitted to")):
        print(title)
        ratios: dict[str, list[float]] = {}
        kernels = [row for row in rows if row.model == kind]
        for row, seconds in zip(kernels, predicted(kernels, figures), strict=True):
            ratios.setdefault(row.name.split()[0].rstrip(","), []).append(seconds / row.least)
        for name, own in sorted(ratios.items()):
            errors = np.abs(np.array(own) - 1)
            ends = f"{min(own):.2f} to {max(own):.2f}"
            print(f"{name:20} {len(own):4} ratio {np.median(own):.2f} ({ends}), error {np.median(errors):.1%}")


def family(model: str) -> str:
    """What is left out together: the two networks of a language model, the three of an OCR release."""
    return model.partition("-")[0]


def _dominant(row: Row, figures: Mapping[str, float]) -> str:
    """The kernel that takes most of a segment's time."""
    shares: Counter[str] = Counter()
    for name, amount in row.work.items():
        shares[name.rpartition(".")[0] or name] += amount * figures.get(name, 0.0)
    return shares.most_common(1)[0][0]


def write(rows: Sequence[Row]) -> None:
    rows = [row for row in rows if row.model != UNSEEN]
    names = sorted({name for row in rows for name in row.work})
    figures = dict(zip(names, fit(rows, names), strict=True))
    models = len({row.model for row in rows} - {KERNELS})
    source = (
        f"fitted by benchmarks/host_costs.py to {len(rows)} segments of {models} models and single kernels, timed on "
    )
    source += f"one core of {processor()}, onnxruntime {version('onnxruntime')}"
    lines = [
        "# Seconds for one unit of each kind of work of gimlet.targets.onnxruntime.features.",
        f"source = {json.dumps(source)}",
        "",
        "[reference]",
        *(f"{name} = {rate:.3g}" for name, rate in REFERENCE.items()),
        "",
        "[seconds]",
        *(f'"{name}" = {seconds:.4g}' for name, seconds in figures.items()),
    ]
    FIGURES.write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--measure", nargs="*", metavar="NAME", help="measure again: these models, or all and the kernels"
    )
    parser.add_argument("--measure-new", action="store_true", help="measure single kernels that have no times yet")
    parser.add_argument("--recount", action="store_true", help="count all segments' work anew, for changed features")
    parser.add_argument("--write", action="store_true", help="write the figures that fit everything best")
    parser.add_argument("--kernels", action="store_true", help="the shipped figures against the single kernels instead")
    options = parser.parse_args()
    if options.measure is not None:
        measure(options.measure)
    if options.measure_new:
        measure_new()
    if options.recount:
        recount()
    rows = load()
    if options.write:
        write(rows)
    if options.kernels:
        report_kernels(rows, host_figures().seconds)
    else:
        report(rows)


if __name__ == "__main__":
    main()
