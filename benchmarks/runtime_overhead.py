"""What the runtime adds to ONNX Runtime: `python benchmarks/runtime_overhead.py [--pairs 300]`.

Every comparison alternates between the two sides in one process, so that a busy machine hurts both, and prints the
median of the ratios (or differences) of neighbouring runs. Targets: a one-segment bundle at most 1.03 times a plain
session; a one-op model at most 25 µs more; each further segment on the CPU at most 15 µs; one on another device at
most 80 µs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import onnxruntime
from handmade import chain, whole_model

import gimlet

MODELS = {
    "detection": ("ch_PP-OCRv4_det_infer.onnx", (1, 3, 320, 320), [["x_0", "1", "x_2", "x_3"]]),
    "recognition": ("ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 320), [["x_0", "floordiv(x_3, 8)", "6625"]]),
    "direction": ("ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 192), [["x_0", "2"]]),
}


def alternate(first: Callable[[], object], second: Callable[[], object], pairs: int) -> list[tuple[int, int]]:
    """Times of `first` and `second` in ns, run in turns; who begins changes from pair to pair."""
    for _ in range(max(3, pairs // 20)):
        first()
        second()
    times: list[tuple[int, int]] = []
    for index in range(pairs):
        order = (first, second) if index % 2 else (second, first)
        marks = [perf_counter_ns()]
        for run in order:
            run()
            marks.append(perf_counter_ns())
        took = (marks[1] - marks[0], marks[2] - marks[1])
        times.append(took if index % 2 else (took[1], took[0]))
    return times


def models_folder() -> Path:
    spec = find_spec("rapidocr_onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install rapidocr-onnxruntime --no-deps (its model files are measured)")
    return Path(spec.submodule_search_locations[0]) / "models"


def measure_models(folder: Path, pairs: int) -> dict[str, float]:
    """The median ratio of a bundle of one CPU segment to a plain session."""
    found: dict[str, float] = {}
    for name, (file, shape, outputs) in MODELS.items():
        path = models_folder() / file
        program = gimlet.load(whole_model(path, folder / f"{name}.gimlet", output_shapes=outputs))
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        array = np.random.default_rng(0).random(shape, np.float32)
        np.testing.assert_array_equal(next(iter(program(x=array).values())), session.run(None, {"x": array})[0])
        times = alternate(partial(program, x=array), partial(session.run, None, {"x": array}), pairs)
        found[f"{name}_ratio"] = statistics.median(ours / plain for ours, plain in times)
        found[f"{name}_ms"] = statistics.median(plain for _, plain in times) / 1e6
    return found


def measure_steps(folder: Path, pairs: int) -> dict[str, float]:
    """Microseconds that one op, one further segment and one segment on another device add."""
    array = np.ones((1, 16), np.float32)
    one = gimlet.load(chain(["cpu"], folder / "one.gimlet"))
    session = onnxruntime.InferenceSession(folder / "one.gimlet/segments/s0/model.onnx")
    found = {"one_op_adds_us": _added(lambda: one(x=array), lambda: session.run(None, {"v0": array}), pairs)}
    two = gimlet.load(chain(["cpu"] * 2, folder / "two.gimlet"))
    nine = gimlet.load(chain(["cpu"] * 9, folder / "nine.gimlet"))
    found["second_segment_adds_us"] = _added(lambda: two(x=array), lambda: one(x=array), pairs)
    found["each_of_eight_more_adds_us"] = _added(lambda: nine(x=array), lambda: one(x=array), pairs) / 8
    there = gimlet.load(chain(["cpu", "other", "cpu"], folder / "there.gimlet"))
    found["segment_on_other_device_adds_us"] = _added(lambda: there(x=array), lambda: two(x=array), pairs)
    return found


def _added(first: Callable[[], object], second: Callable[[], object], pairs: int) -> float:
    return statistics.median(ours - plain for ours, plain in alternate(first, second, pairs)) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=300, help="pairs of runs for each model")
    parser.add_argument("--only", choices=["models", "steps"])
    options = parser.parse_args()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "models":
            found |= measure_steps(Path(folder), max(options.pairs, 300) * 10)
        if options.only != "steps":
            found |= measure_models(Path(folder), options.pairs)
    print(json.dumps({name: round(value, 4) for name, value in found.items()}, indent=2))


if __name__ == "__main__":
    main()
