"""Measures this machine and describes it as a kind of device, in the form of the shipped files.

Everything is measured through onnxruntime sessions, because that is what will run:

- `peak.fp32`, `peak.int8`: the fastest of several matrix products with constant weights.
- `fraction.compute`, `fraction.conv`: the median, over shapes of real networks, of what is reached of `peak.fp32`.
- `peak.vector`: operations per second of elementwise functions, each counted as `gimlet.dialects.onnx.work` counts it;
  `fraction.depthwise` is what depthwise convolutions reach of it.
- `memory`: main memory by an addition that is far larger than the caches, the last cache by one that fits in it;
  `fraction.memory` is what a matrix-vector product reaches of main memory's rate.
- `overhead.kernel_s`: the slope over the length of a chain of one-element ops. `overhead.segment_s`: a run of a one-op
  session with bound inputs and outputs, less one kernel.

A time is the first quartile of at least five repetitions: other work on the machine only ever makes a run slower.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from gimlet.compiler.hardware.host import HOST, cores, processor
from gimlet.compiler.progress import Progress
from gimlet.dialects.onnx.work import ELEMENT_FLOPS
from gimlet.runtime.errors import UsageError

Shape = tuple[int, ...]

_SQUARES = (768, 1024, 1536)
_PRODUCTS = ((64, 512, 512), (128, 768, 768), (128, 768, 3072), (197, 384, 1536), (32, 2048, 512))
"""Rows, inner and columns of matrix products in encoders, vision transformers and recognition networks."""
_CONVOLUTIONS = ((64, 64, 56, 3), (64, 128, 28, 1), (128, 128, 28, 3), (512, 128, 14, 1), (32, 64, 56, 3))
"""Channels in, channels out, height and width, and kernel of convolutions in residual and mobile networks."""
_DEPTHWISE = ((96, 56, 3), (192, 28, 5), (384, 14, 3))
_FUNCTIONS = ("Exp", "Sigmoid", "Tanh", "Erf")
_MIB = 1 << 20


@dataclass
class Calibration:
    """What was measured, by TOML table, with what the user knows and no program can measure (power and price)."""

    peak: dict[str, float] = field(default_factory=dict[str, float])
    memory: list[tuple[str, int, float]] = field(default_factory=list[tuple[str, int, float]])
    overhead: dict[str, float] = field(default_factory=dict[str, float])
    fraction: dict[str, float] = field(default_factory=dict[str, float])
    given: dict[str, float] = field(default_factory=dict[str, float])
    cores: int = field(default_factory=cores)
    threads: int | None = None
    """How many threads segments run with, where that is not all cores of the machine."""

    def net(self, seconds: float) -> float:
        """The time of one op without its launch; at least half of what was measured."""
        return max(seconds - self.overhead["kernel_s"], seconds / 2)


def calibrate(progress: Progress, given: Mapping[str, float] | None = None, threads: int | None = None) -> Calibration:
    """Measures this machine, or what `threads` of its cores do, in a few seconds a step.

    `given` maps TOML paths to figures that are known already. UsageError for more threads than there are cores.
    """
    if threads is not None and not 1 <= threads <= cores():
        raise UsageError(f"{threads} cores are asked for, and this process may use {cores()}")
    with _on_cores(threads):
        found = Calibration(given=dict(given or {}), threads=threads)
        for label, measure in _STEPS.items():
            with progress.phase(label):
                measure(found)
    return found


@contextmanager
def _on_cores(count: int | None) -> Generator[None]:
    """Keeps this thread, and the threads that are started meanwhile, on the first cores that the process may use."""
    if count is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _overheads(found: Calibration) -> None:
    short, long = 20, 220
    difference = _timed([("Abs", ("x",), {})] * long, (1,), {}) - _timed([("Abs", ("x",), {})] * short, (1,), {})
    kernel = found.overhead["kernel_s"] = max(difference / (long - short), 1e-7)
    found.overhead["segment_s"] = max(_timed([("Abs", ("x",), {})], (1,), {}) - kernel, 0.0)


def _products(found: Calibration) -> None:
    squares = [2.0 * n**3 / found.net(_product(n, n, n)) for n in _SQUARES]
    real = [2.0 * m * k * n / found.net(_product(m, k, n)) for m, k, n in _PRODUCTS]
    found.peak["fp32"] = max(squares + real)
    found.fraction["compute"] = median(real) / found.peak["fp32"]


def _integer_products(found: Calibration) -> None:
    found.peak["int8"] = max(2.0 * n**3 / found.net(_integer_product(n)) for n in _SQUARES[:2])


def _convolutions(found: Calibration) -> None:
    rates = [
        2.0 * channels * filters * size**2 * kernel**2 / found.net(_convolution(channels, filters, size, kernel, 1))
        for channels, filters, size, kernel in _CONVOLUTIONS
    ]
    found.fraction["conv"] = min(median(rates) / found.peak["fp32"], 1.0)


def _functions(found: Calibration) -> None:
    vector = median(ELEMENT_FLOPS[name] * _MIB / found.net(_elementwise(name, _MIB)) for name in _FUNCTIONS)
    rates = [
        2.0 * channels * size**2 * kernel**2 / found.net(_convolution(channels, channels, size, kernel, channels))
        for channels, size, kernel in _DEPTHWISE
    ]
    found.peak["vector"] = vector
    found.fraction["depthwise"] = min(median(rates) / vector, 1.0)


def _memories(found: Calibration) -> None:
    main = 3 * 64.0 * _MIB / found.net(_addition(16 * _MIB))
    cache = _last_cache()
    if cache is not None:
        elements = cache // (3 * 4 * 2)
        found.memory.append(("cache", cache, max(3.0 * 4 * elements / found.net(_addition(elements)), main)))
    found.memory.append(("dram", _main_memory(), main))
    found.fraction["memory"] = min(4.0 * 6144**2 / found.net(_product(1, 6144, 6144)) / main, 1.0)


_STEPS: Mapping[str, Callable[[Calibration], None]] = {
    "overhead of a kernel and of a segment": _overheads,
    "matrix products, fp32": _products,
    "matrix products, int8": _integer_products,
    "convolutions": _convolutions,
    "elementwise functions, depthwise convolutions": _functions,
    "memory": _memories,
}


def render(found: Calibration, today: date | None = None) -> str:
    """The calibration as the text of a kind file."""
    machine = f"{processor()}, {found.cores} core{'s' if found.cores > 1 else ''}"
    ort = version("onnxruntime")
    source = f"measured by gimlet-calibrate on {machine}, onnxruntime {ort}, {today or date.today()}"
    tables = {"power": {}, "price": {}} | {
        table: {key.partition(".")[2]: value for key, value in found.given.items() if key.startswith(table)}
        for table in ("power", "price")
    }
    lines = [
        "schema = 1",
        f"title = {_text(machine)}",
        f'name = "{HOST}"',
        'targets = ["onnxruntime", "openvino"]',
        *_table("peak", found.peak),
    ]
    for name, capacity, bandwidth in found.memory:
        lines += ["", "[[memory]]", f'name = "{name}"', f"capacity_bytes = {capacity}", f"bandwidth = {bandwidth:.3g}"]
    for name, table in (("power", tables["power"]), ("price", tables["price"]), ("overhead", found.overhead)):
        lines += _table(name, table)
    lines += _table("fraction", found.fraction)
    lines += ["", "[options]", f"cores = {found.cores}"]
    if found.threads is not None:
        lines.append(f"threads = {found.threads}")
    lines += ["", "[sources]"]
    sources = dict.fromkeys(("peak", "memory", "overhead", "fraction", "options"), source)
    sources |= {table: "given to gimlet-calibrate by the user" for table in ("power", "price") if tables[table]}
    return "\n".join([*lines, *(f"{key} = {_text(value)}" for key, value in sources.items())]) + "\n"


def _table(name: str, figures: Mapping[str, float]) -> list[str]:
    return ["", f"[{name}]", *(f"{key} = {value:.3g}" for key, value in figures.items())] if figures else []


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _product(m: int, k: int, n: int) -> float:
    return _timed([("MatMul", ("x", "w"), {})], (m, k), {"w": _values((k, n))})


def _integer_product(n: int) -> float:
    weights = np.random.default_rng(0).integers(-127, 127, (n, n)).astype(np.int8)
    return _timed([("MatMulInteger", ("x", "w"), {})], (n, n), {"w": weights}, np.dtype(np.uint8))


def _convolution(channels: int, filters: int, size: int, kernel: int, group: int) -> float:
    weights = {"w": _values((filters, channels // group, kernel, kernel))}
    attributes = {"pads": [kernel // 2] * 4, "group": group}
    return _timed([("Conv", ("x", "w"), attributes)], (1, channels, size, size), weights)


def _elementwise(name: str, elements: int) -> float:
    return _timed([(name, ("x",), {})], (elements,), {})


def _addition(elements: int) -> float:
    return _timed([("Add", ("x", "w"), {})], (elements,), {"w": _values((elements,))})


def _values(shape: Shape) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _timed(
    chain: Sequence[tuple[str, tuple[str, ...], dict[str, Any]]],
    shape: Shape,
    weights: Mapping[str, np.ndarray[Any, Any]],
    dtype: np.dtype[Any] | None = None,
) -> float:
    """Seconds of one run of a chain of ops over an input of `shape`, with its input and output bound once."""
    import onnxruntime

    dtype = dtype or np.dtype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = cores()
    options.log_severity_level = 3
    model = _model(chain, shape, weights, dtype)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    values = _values(shape) if dtype == np.float32 else np.random.default_rng(1).integers(0, 255, shape).astype(dtype)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(np.abs(values)))
    binding.bind_output("y", "cpu")
    return _quartile(lambda: session.run_with_iobinding(binding))


def _model(
    chain: Sequence[tuple[str, tuple[str, ...], dict[str, Any]]],
    shape: Shape,
    weights: Mapping[str, np.ndarray[Any, Any]],
    dtype: np.dtype[Any],
) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    for index, (name, inputs, attributes) in enumerate(chain):
        previous = "x" if index == 0 else f"t{index - 1}"
        output = "y" if index == len(chain) - 1 else f"t{index}"
        nodes.append(helper.make_node(name, [previous, *inputs[1:]], [output], **attributes))
    result = TensorProto.INT32 if chain[-1][0] == "MatMulInteger" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "calibrate",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(dtype), shape)],
        [helper.make_tensor_value_info("y", result, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def _quartile(run: Callable[[], object], seconds: float = 0.25, least: int = 5) -> float:
    """The first quartile of the times of `run`, repeated for about `seconds`, after one run to warm up."""
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < 2000):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return quantiles(times, n=4)[0]


def _last_cache() -> int | None:
    """Bytes of the largest cache that the first core sees, or None where the system does not say."""
    sizes: list[int] = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(int(text[:-1]) * 1024)
    return max(sizes, default=None)


def _main_memory() -> int:
    """Bytes of main memory, or 8 GiB where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 8 << 30
