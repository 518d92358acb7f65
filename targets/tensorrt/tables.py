"""Measured times of kernels from the PyPI package aiconfigurator-core (Apache-2.0), as a device's file names its part.

A kind with `options.tables = "b200_sxm"` has tables in the package's `systems/data/b200_sxm`. Times between measured
sizes are interpolated in the logarithms of sizes and times, one dimension after the other, from the quickest kernel
that was measured for each; beyond the last size they go on as between the last two. There is no time where heads,
widths or numbers of experts were not measured: those do not interpolate.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from math import exp, log
from pathlib import Path
from typing import Any

from gimlet.runtime.errors import MissingError
from gimlet.targets.tensorrt.llm_kernels import Decode, Experts, Kernel, Prefill, Product

PACKAGE = "aiconfigurator_core"
_MILLISECOND = 1e-3
_FORMATS = {"bf16": "bfloat16", "fp16": "bfloat16", "fp8": "fp8", "fp4": "nvfp4"}
Key = tuple[Any, ...]
Grid = dict[Key, dict[tuple[int, ...], float]]


@lru_cache(maxsize=4096)
def table_seconds(kernel: Kernel, part: str) -> float | None:
    """The measured time of a kernel on a part, or None where the tables have nothing near it.

    MissingError where the package, or pyarrow to read it with, is not installed.
    """
    if isinstance(kernel, Prefill) and (not kernel.causal or kernel.past):
        return None
    grid = table(part, kernel.name)
    key, sizes = _address(kernel)
    points = grid.get(key)
    return None if points is None else interpolated(points, sizes)


def interpolated(points: Mapping[tuple[int, ...], float], sizes: Sequence[int]) -> float | None:
    """The time at `sizes` from times at measured sizes, None where a neighbour that is needed was not measured."""
    if not sizes:
        return points.get(())
    known = sorted({key[0] for key in points})
    below, above = _around(known, sizes[0])
    found: list[tuple[int, float]] = []
    for size in dict.fromkeys((below, above)):
        inner = {key[1:]: seconds for key, seconds in points.items() if key[0] == size}
        seconds = interpolated(inner, sizes[1:])
        if seconds is not None:
            found.append((size, seconds))
    return _between(found, sizes[0])


def _around(known: Sequence[int], size: int) -> tuple[int, int]:
    """The measured sizes on both sides of one; the two next to the end for one beyond it."""
    index = bisect_left(known, size)
    if index < len(known) and known[index] == size:
        return size, size
    low = min(max(index - 1, 0), max(len(known) - 2, 0))
    return known[low], known[min(low + 1, len(known) - 1)]


def _between(found: Sequence[tuple[int, float]], size: int) -> float | None:
    if not found:
        return None
    if len(found) == 1:
        return found[0][1] if found[0][0] == size else None
    (x0, y0), (x1, y1) = found
    slope = (log(y1) - log(y0)) / (log(x1) - log(x0))
    if not x0 <= size <= x1:
        slope = max(slope, 0.0)
    return exp(log(y0) + slope * (log(size) - log(x0)))


def _address(kernel: Kernel) -> tuple[Key, tuple[int, ...]]:
    """What has to be equal, and what may lie between measured sizes."""
    match kernel:
        case Product():
            return (_FORMATS.get(kernel.fmt),), (kernel.n, kernel.k, kernel.m)
        case Prefill():
            key = (_FORMATS.get(kernel.fmt), kernel.heads, kernel.kv_heads, kernel.size, kernel.window)
            return key, (kernel.batch, kernel.length)
        case Decode():
            key = (_FORMATS.get(kernel.fmt), kernel.heads, kernel.kv_heads, kernel.size, kernel.window)
            return key, (kernel.batch, kernel.positions)
        case Experts():
            key = (_FORMATS.get(kernel.fmt), kernel.hidden, kernel.inner, kernel.chosen, kernel.experts)
            return key, (kernel.tokens,)


_SOURCES: Mapping[str, tuple[str, str]] = {
    "product": ("gemm", "gemm_perf"),
    "prefill": ("attention", "context_attention_perf"),
    "decode": ("attention", "generation_attention_perf"),
    "experts": ("moe", "moe_perf"),
}
"""The folder and the file of each kernel's table."""


@lru_cache(maxsize=16)
def table(part: str, kernel: str) -> Grid:
    """Seconds by what has to be equal and by sizes, as `_address` has them, of a part's measured kernels."""
    found: Grid = {}
    for row in rows(part, kernel):
        address = _row(kernel, row)
        if address is None:
            continue
        key, sizes = address
        points = found.setdefault(key, {})
        seconds = float(row["latency"]) * _MILLISECOND
        points[sizes] = min(points.get(sizes, seconds), seconds)
    return found


def _row(kernel: str, row: Mapping[str, Any]) -> tuple[Key, tuple[int, ...]] | None:
    """Where a row of a table belongs; None for what no kernel here is: caches in another format, uneven experts."""
    if kernel == "product":
        return (row["gemm_dtype"],), (row["n"], row["k"], row["m"])
    if kernel == "experts":
        if row["moe_ep_size"] != 1 or row["distribution"] != "balanced" or row["kernel_source"].endswith("nongated"):
            return None
        inner = row["inter_size"] // row["moe_tp_size"]
        return (row["moe_dtype"], row["hidden_size"], inner, row["topk"], row["num_experts"]), (row["num_tokens"],)
    cache = row["kv_cache_dtype"]
    if kernel == "prefill" and row["attn_dtype"] != cache:
        return None
    key = (cache, row["num_heads"], row["num_key_value_heads"], row["head_dim"], row["window_size"])
    return key, (row["batch_size"], row["isl"] if kernel == "prefill" else row["step"] + 1)


def rows(part: str, kernel: str) -> list[dict[str, Any]]:
    """The rows of the largest table of a part for a kernel, none where it has none. Errors as `table_seconds`."""
    folder, file = _SOURCES[kernel]
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None or find_spec("pyarrow") is None:
        raise MissingError(
            "tables of measured kernels need aiconfigurator-core and pyarrow",
            hint="pip install 'gimlet-compiler[tables]'",
        )
    from pyarrow import parquet

    paths = Path(spec.origin).parent.glob(f"systems/data/{part}/{folder}/trtllm/*/{file}.parquet")
    sized = sorted(paths, key=lambda path: (path.stat().st_size, str(path)))
    return parquet.read_table(sized[-1]).to_pylist() if sized else []
