"""What the runtime adds to ONNX Runtime: `python benchmarks/runtime_overhead.py [--pairs 300]`.

Every comparison alternates between the two sides in one process, so that a busy machine hurts both, and prints the
median of the ratios (or differences) of neighbouring runs. Targets: a one-segment bundle at most 1.03 times a plain
session; a one-op model at most 25 µs more; each further segment on the CPU at most 15 µs; one on another device at
most 80 µs. `--only values` is about models of one op whose outputs are of open size, texts, a sequence, or 32 of 40 kB.
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
from typing import Any

import numpy as np
import onnxruntime
from handmade import chain, whole_model
from onnx import TensorProto, helper

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


def _value_models() -> dict[str, tuple[Any, dict[str, np.ndarray]]]:
    """Models of one op for each kind of value, and their inputs."""
    tensor, float32 = helper.make_tensor_value_info, TensorProto.FLOAT
    rows = np.eye(8, 16, dtype=np.float32)
    texts = np.array([f"text {index}" for index in range(4096)], dtype=object)
    wide = {f"x{index}": np.ones((1, 10_000), np.float32) for index in range(32)}
    x, open_ints = tensor("x", float32, [8, 16]), tensor("y", TensorProto.INT64, [2, None])
    text = [tensor(name, TensorProto.STRING, [len(texts)]) for name in "xy"]
    parts = helper.make_tensor_sequence_value_info("y", float32, [1, 16])
    large = {name: tensor(name, float32, [1, 10_000]) for index in range(32) for name in (f"x{index}", f"y{index}")}
    relus = [helper.make_node("Relu", [f"x{index}"], [f"y{index}"]) for index in range(32)]
    graphs = {
        "open_size": ([helper.make_node("NonZero", ["x"], ["y"])], [x], [open_ints], {"x": rows}),
        "texts_4096": ([helper.make_node("StringConcat", ["x", "x"], ["y"])], text[:1], text[1:], {"x": texts}),
        "sequence_of_8": ([helper.make_node("SplitToSequence", ["x"], ["y"])], [x], [parts], {"x": rows}),
        "large_32": (relus, [large[name] for name in wide], [large[f"y{index}"] for index in range(32)], wide),
    }
    return {
        name: (helper.make_model(helper.make_graph(nodes, name, inputs, outputs), ir_version=10), given)
        for name, (nodes, inputs, outputs, given) in graphs.items()
    }


def measure_values(folder: Path, pairs: int) -> dict[str, float]:
    """Microseconds that outputs add which are no small arrays of a known size."""
    found: dict[str, float] = {}
    for name, (model, inputs) in _value_models().items():
        model.opset_import[0].version = 20
        gimlet.compile(model, output=folder / f"{name}.gimlet")
        program = gimlet.load(folder / f"{name}.gimlet")
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found[f"{name}_adds_us"] = _added(partial(program, **inputs), partial(session.run, None, inputs), pairs)
    return found


def _added(first: Callable[[], object], second: Callable[[], object], pairs: int) -> float:
    return statistics.median(ours - plain for ours, plain in alternate(first, second, pairs)) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=300, help="pairs of runs for each model")
    parser.add_argument("--only", choices=["models", "steps", "values"])
    options = parser.parse_args()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.only in (None, "steps"):
            found |= measure_steps(Path(folder), max(options.pairs, 300) * 10)
        if options.only in (None, "values"):
            found |= measure_values(Path(folder), options.pairs)
        if options.only in (None, "models"):
            found |= measure_models(Path(folder), options.pairs)
    print(json.dumps({name: round(value, 4) for name, value in found.items()}, indent=2))


if __name__ == "__main__":
    main()
