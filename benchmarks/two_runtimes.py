"""A bundle that chose between ONNX Runtime and OpenVINO, against each of them: `python benchmarks/two_runtimes.py`.

Every model is compiled with measured costs, batch 1, all dimensions fixed, and then runs in turns with a plain session
of ONNX Runtime and a plain compiled model of OpenVINO, each with all cores and with one, in one process and in an order
that changes from round to round: what always follows ONNX Runtime's spinning threads is up to 1.2 times slower. Of each
peer the better counts. Else they have their defaults for latency (OpenVINO: PERFORMANCE_HINT=LATENCY, float32) and read
the same arrays. They are given the whole model as the compiler normalised it: folded, with the same dimensions fixed.

Ratios are medians of the ratios of neighbouring runs. `to best` is the bundle's time by the better peer's (at most 1.03
wanted), `to ort` ONNX Runtime's time by the bundle's (a geometric mean of at least 1.15 wanted). `agree` is the largest
difference of an output from ONNX Runtime's, relative to the output's largest value.

`--inflight N` keeps N requests in flight, on N threads: the bundles are compiled for throughput, OpenVINO has
PERFORMANCE_HINT=THROUGHPUT and a request for each thread, ONNX Runtime one session. Times are from one request's end
to the next one's. `--minutes M` ends after about so many: each model gets its share of what is left, its compile first,
and at least 10 rounds; those for which nothing is left are named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, perf_counter_ns, sleep
from typing import Any

import numpy as np
import onnxruntime
import openvino
from host_models import MODELS

import gimlet
from gimlet.compiler.api import start
from gimlet.compiler.bounds import parse_bindings
from gimlet.compiler.compile import Compilation
from gimlet.compiler.costs.in_flight import InFlight
from gimlet.compiler.hardware import default_topology
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.progress import Progress
from gimlet.runtime.bundle import open_bundle
from gimlet.runtime.program import Program
from gimlet.runtime.random_inputs import random_array

NAMES = (
    *("ppocr4-det", "ppocr4-rec", "ppocr4-cls", "minilm", "smollm2-prefill", "smollm2-decode"),
    *("ppocr6-det", "ppocr6-rec", "nudenet", "magika", "basic-pitch", "silero-vad"),
)
Run = Callable[[], object]
Arrays = Mapping[str, np.ndarray]


@dataclass
class Row:
    """One model: milliseconds of each (medians), what the bundle is, and the ratios."""

    model: str
    ort_ms: float
    openvino_ms: float
    bundle_ms: float
    chosen: str
    to_best: float
    to_ort: float
    pairs: int
    agree: float


def compiled(name: str, path: Path, **options: Any) -> Compilation:
    """A bundle of a model at batch 1."""
    model = MODELS[name]
    bind = model.bind.replace("x[0]=6", "x[0]=1").replace("sequence_length=50", "sequence_length=1")
    chosen = CompileOptions(default_topology(), bindings=parse_bindings([bind] if bind else []), **options)
    compilation = start(model.load(), chosen, Progress(quiet=True))
    compilation.emit(path, force=True)
    return compilation


def plain_model(bundle: Path) -> Path:
    """The whole model as ONNX, where both libraries find its weights: beside the bundle's weights folder."""
    target = bundle / "whole.onnx"
    (segment,) = open_bundle(bundle).manifest.segments
    assert segment.portable is not None
    target.write_bytes((bundle / segment.portable.files[0]).read_bytes())
    return target


def onnxruntime_runner(path: Path, inputs: Arrays, threads: int) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, dict(inputs))


def openvino_runners(path: Path, inputs: Arrays, threads: int, inflight: int) -> list[Run]:
    """A run for each request in flight."""
    hint = "LATENCY" if inflight == 1 else "THROUGHPUT"
    settings: dict[str, Any] = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "f32"}
    if inflight > 1:
        settings["PERFORMANCE_HINT_NUM_REQUESTS"] = inflight
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled_model = openvino.Core().compile_model(path, "CPU", settings)
    given = {port: inputs[port.get_any_name()] for port in compiled_model.inputs}
    requests = [compiled_model.create_infer_request() for _ in range(inflight)]
    return [partial(request.infer, given, share_inputs=True, share_outputs=True) for request in requests]


def in_turns(runs: list[Run], pairs: int, end: float) -> list[list[int]]:
    """Nanoseconds of each, run one after the other in rounds: at most `pairs` of them, and at least 10 until `end`.

    A runtime's threads spin for milliseconds after a run, on cores that the next one wants: each waits until they
    rest, then runs twice, and the second run counts.
    """
    for _ in range(5):
        for run in runs:
            run()
    times: list[list[int]] = [[] for _ in runs]
    shuffle = random.Random(0)
    while len(times[0]) < pairs and (len(times[0]) < 10 or perf_counter() < end):
        order = list(zip(times, runs, strict=True))
        shuffle.shuffle(order)
        for own, run in order:
            sleep(0.01)
            run()
            begin = perf_counter_ns()
            run()
            own.append(perf_counter_ns() - begin)
    return times


def ratio(first: list[int], second: list[int]) -> float:
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def difference(found: Arrays, wanted: Arrays) -> float:
    """The largest difference of an output, relative to its largest value."""
    worst = 0.0
    for name, reference in wanted.items():
        scale = float(np.abs(reference).max(initial=0.0)) or 1.0
        worst = max(worst, float(np.abs(found[name].astype(np.float64) - reference).max(initial=0.0)) / scale)
    return worst


def describe(program: Program) -> str:
    """The targets of the segments, and the threads that they were given (`all`, where nothing is said), and streams."""
    variants = [segment.variants[0] for segment in program.manifest.segments]
    parts = [
        f"{each.executor}({each.options.get('threads') or 'all'}"
        + (f", {each.options['streams']} streams)" if "streams" in each.options else ")")
        for each in variants
    ]
    return parts[0] if len(parts) == 1 else f"{len(parts)} segments: " + ", ".join(dict.fromkeys(parts))


def measure(name: str, folder: Path, pairs: int, end: float, max_segments: int | None, inflight: int) -> Row:
    """A model's row. Rounds end at `end`, on the clock of `perf_counter`."""
    whole = folder / "whole.gimlet"
    compiled(name, whole, pins=((".", "cpu:onnxruntime"),))
    measured: dict[str, Any] = {"cost_providers": (("cpu", "measured"),), "max_segments": max_segments}
    compiled(name, folder / "chosen.gimlet", objective="latency" if inflight == 1 else "throughput", **measured)
    generator = np.random.default_rng(0)
    with gimlet.load(whole) as reference:
        inputs = {spec.name: random_array(spec, {}, generator) for spec in reference.inputs}
        wanted = reference(**inputs)
    with gimlet.load(folder / "chosen.gimlet", inflight=inflight) as program, InFlight(inflight) as in_flight:
        path = plain_model(whole)
        alternatives = [
            [partial(program, **inputs)] * inflight,
            *([onnxruntime_runner(path, inputs, threads)] * inflight for threads in (0, 1)),
            *(openvino_runners(path, inputs, threads, inflight) for threads in (0, 1)),
        ]
        in_flight.fit(alternatives)
        runs: list[Run] = [partial(in_flight.run, each) for each in alternatives]
        ours, *others = ([round(in_flight.per_request(own)) for own in times] for times in in_turns(runs, pairs, end))
        ort, openvino_times = min(others[:2], key=statistics.median), min(others[2:], key=statistics.median)
        return Row(
            name,
            *(statistics.median(own) / 1e6 for own in (ort, openvino_times, ours)),
            describe(program),
            ratio(ours, min(ort, openvino_times, key=statistics.median)),
            ratio(ort, ours),
            len(ours),
            difference(program(**inputs), wanted),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=NAMES, metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--pairs", type=int, default=300, help="rounds for each model")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end a model after so long")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end all models after so long")
    parser.add_argument("--inflight", type=int, default=1, metavar="N", help="keep N requests in flight")
    parser.add_argument("--max-segments", type=int, help="cut a model in at most so many; 1 compiles much sooner")
    parser.add_argument("--json", action="store_true", help="print one JSON object a model")
    options = parser.parse_args()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "openvino"))
    print(f"{libraries}; {platform.machine()}, {os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}")
    row = "{:<16} {:>8} {:>8} {:>8}  {:>7} {:>7} {:>6} {:>8}  {}"
    print(row.format("model", "ort ms", "ov ms", "ours ms", "to best", "to ort", "pairs", "agree", "chosen"))
    gains: list[float] = []
    last = perf_counter() + options.minutes * 60
    for index, name in enumerate(options.models):
        now = perf_counter()
        if now >= last:
            print(f"{name}: left out, the time is over", flush=True)
            continue
        end = now + min(options.seconds, (last - now) / (len(options.models) - index))
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, Path(folder), options.pairs, end, options.max_segments, options.inflight)
        gains.append(found.to_ort)
        figures = [f"{value:.3f}" for value in (found.ort_ms, found.openvino_ms, found.bundle_ms)]
        ratios = [f"{value:.3f}" for value in (found.to_best, found.to_ort)]
        print(
            json.dumps(asdict(found))
            if options.json
            else row.format(name, *figures, *ratios, found.pairs, f"{found.agree:.0e}", found.chosen),
            flush=True,
        )
    if gains:
        print(f"geometric mean of the gain over onnxruntime: {statistics.geometric_mean(gains):.3f}")
    print(f"load average at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
