"""The kernels that language models spend their time in, by their sizes: what they have to do, and how long it takes.

`kernel_of(op, sizes, fmt)` finds which one an op is. `model_seconds` predicts it from the figures that a device's file
has in `options.kernels`, fitted to measured tables by `benchmarks/gpu_kernels.py`:

    product, prefill    max(flops / (compute · peak), bytes / (memory · bandwidth)) + items · item_s + kernel_s
    decode, experts         flops / (compute · peak) + bytes / (memory · bandwidth) + items · item_s + kernel_s

Items are what neither roof counts: bytes that are read and written to bring a product's input into 8 or 4 bits; the
scores of a prefill, whose exponentials have units of their own; sequences times heads of a decode; rows of experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.types import dims_of
from gimlet.dialects.onnx.work import is_weight
from gimlet.targets.api import HardwareKind
from gimlet.targets.roofline import FORMAT_BITS

PAGE = 64
"""Positions of a page of a cache: a decode reads whole pages."""
_RESULT_BYTES = 2


@dataclass(frozen=True)
class Load:
    """Operations, bytes moved, and items (see the module)."""

    flops: float
    bytes_moved: float
    items: float = 0.0


@dataclass(frozen=True)
class Product:
    """A product [m, k] × [k, n] with weights in `fmt` and results in bf16."""

    name: ClassVar[str] = "product"
    fmt: str
    m: int
    n: int
    k: int

    def load(self) -> Load:
        each = FORMAT_BITS[self.fmt] / 8
        moved = (self.n * self.k + self.m * self.k) * each + self.m * self.n * _RESULT_BYTES
        quantised = (_RESULT_BYTES + each) * self.m * self.k if each < _RESULT_BYTES else 0.0
        return Load(2.0 * self.m * self.n * self.k, moved, quantised)


@dataclass(frozen=True)
class Prefill:
    """Attention of `length` new positions over themselves, and over `past` others; `window` 0 is none.

    Without `causal` each sees all positions, and a mask of `mask_bytes` is read; `past` is then negative where there
    are fewer keys than queries.
    """

    name: ClassVar[str] = "prefill"
    fmt: str
    batch: int
    length: int
    heads: int
    kv_heads: int
    size: int
    window: int = 0
    causal: bool = True
    past: int = 0
    mask_bytes: int = 0

    def load(self) -> Load:
        width = min(self.window or self.length, self.length)
        seen = width * (width + 1) / 2 + (self.length - width) * width if self.causal else self.length * self.length
        scores = self.batch * self.heads * (seen + self.length * self.past)
        rows = self.length * (self.heads + self.kv_heads) + self.past * self.kv_heads
        moved = self.batch * rows * self.size * 2 * FORMAT_BITS[self.fmt] / 8 + self.mask_bytes
        return Load(4.0 * scores * self.size, moved, scores)


@dataclass(frozen=True)
class Decode:
    """Attention of one new position over `positions`, itself counted; `fmt` is that of the cache."""

    name: ClassVar[str] = "decode"
    fmt: str
    batch: int
    positions: int
    heads: int
    kv_heads: int
    size: int
    window: int = 0

    def load(self) -> Load:
        seen = min(self.window or self.positions, self.positions)
        seen = -(-seen // PAGE) * PAGE
        cache = 2.0 * self.batch * self.kv_heads * seen * self.size * FORMAT_BITS[self.fmt] / 8
        moved = cache + 2.0 * self.batch * self.heads * self.size * _RESULT_BYTES
        return Load(4.0 * self.batch * self.heads * seen * self.size, moved, self.batch * self.heads)


@dataclass(frozen=True)
class Experts:
    """Gated experts: each of `tokens` goes to `chosen` of `experts`, which are evenly liked."""

    name: ClassVar[str] = "experts"
    fmt: str
    tokens: int
    hidden: int
    inner: int
    chosen: int
    experts: int

    def load(self) -> Load:
        rows = self.tokens * self.chosen
        each = 3.0 * self.hidden * self.inner
        touched = self.experts * (1 - (1 - self.chosen / self.experts) ** self.tokens)
        bytes_each = FORMAT_BITS[self.fmt] / 8
        moved = touched * each * bytes_each + rows * (2 * self.hidden * _RESULT_BYTES + 3 * self.inner * bytes_each)
        return Load(2.0 * rows * each, moved, rows)


Kernel = Product | Prefill | Decode | Experts
_SUMMED = (Decode, Experts)


def model_seconds(kernel: Kernel, kind: HardwareKind) -> float | None:
    """The predicted time; None where the kind has no figures for the kernel in its format."""
    figures = figures_of(kernel, kind)
    peak = kind.peak.get(_computed_in(kernel))
    if figures is None or peak is None:
        return None
    load = kernel.load()
    compute = load.flops / (figures["compute"] * peak)
    memory = load.bytes_moved / (figures["memory"] * kind.memory[-1].bandwidth)
    roof = compute + memory if isinstance(kernel, _SUMMED) else max(compute, memory)
    return roof + load.items * figures["item_s"] + figures["kernel_s"]


def figures_of(kernel: Kernel, kind: HardwareKind) -> Mapping[str, float] | None:
    """`compute`, `memory`, `item_s` and `kernel_s` of a kernel on a kind, by the kernel's name and format."""
    tables: Mapping[str, Any] = kind.options.get("kernels", {})
    # Both halves run at one rate, and the tables have only one of them.
    fmt = "bf16" if kernel.fmt == "fp16" else kernel.fmt
    found = tables.get(f"{kernel.name}_{fmt}")
    return found if isinstance(found, Mapping) else None


def _computed_in(kernel: Kernel) -> str:
    """A decode computes in bf16, whatever its cache is in."""
    return "bf16" if isinstance(kernel, Decode) else kernel.fmt


def kernel_of(op: OnnxOp, sizes: Mapping[str, int], fmt: str) -> Kernel | None:
    """The kernel that computes an op in `fmt`; None for any other op, or where a size is not known."""
    found = _KERNELS.get(op.op_type)
    return None if found is None else found(op, sizes, fmt)


def _shape(value: SSAValue | None, sizes: Mapping[str, int]) -> tuple[int, ...]:
    dims = None if value is None else dims_of(value)
    if dims is None or any(not dim.symbols <= sizes.keys() for dim in dims):
        return ()
    return tuple(dim.evaluate(sizes) for dim in dims)


def _product(op: OnnxOp, sizes: Mapping[str, int], fmt: str) -> Kernel | None:
    a, b, y = (_shape(value, sizes) for value in (op.input_at(0), op.input_at(1), op.results[0]))
    right = op.input_at(1)
    if len(a) < 2 or len(b) != 2 or not y or right is None or not is_weight(right):
        return None
    k = a[-2] if op.op_type == "Gemm" and op.attr("transA", 0) else a[-1]
    return Product(fmt, prod(y[:-1]), y[-1], k) if prod(y) and k else None


def _attention(op: OnnxOp, sizes: Mapping[str, int], fmt: str) -> Kernel | None:
    """The default domain's Attention in four dimensions: a decode of one position, else a prefill.

    A mask that the model makes is data: every score is computed, and the mask is read in the scores' format.
    """
    q, k = _shape(op.input_at(0), sizes), _shape(op.input_at(1), sizes)
    past = _shape(op.input_at(4), sizes)
    if len(q) != 4 or len(k) != 4 or not prod(q) or not prod(k):
        return None
    positions = k[2] + (past[2] if len(past) == 4 else 0)
    if q[2] == 1:
        return Decode(fmt, q[0], positions, q[1], k[1], q[3])
    causal, mask = bool(op.attr("is_causal", 0)), _shape(op.input_at(3), sizes)
    if causal and positions < q[2]:
        return None
    mask_bytes = round(prod(mask) * FORMAT_BITS[fmt] / 8) if mask else 0
    return Prefill(fmt, q[0], q[2], q[1], k[1], q[3], 0, causal and not mask, positions - q[2], mask_bytes)


def _experts(op: OnnxOp, sizes: Mapping[str, int], fmt: str) -> Kernel | None:
    """com.microsoft's MoE with three weights: tokens [rows, hidden], first weights [experts, inner, hidden]."""
    x, w = _shape(op.input_at(0), sizes), _shape(op.input_at(2), sizes)
    if not x or len(w) != 3 or op.input_at(6) is None:
        return None
    inner = next((size for size in w[1:] if size != x[-1]), x[-1])
    return Experts(fmt, prod(x[:-1]), x[-1], inner, int(op.attr("k", 1)), w[0])


_KERNELS = {"MatMul": _product, "Gemm": _product, "Attention": _attention, "MoE": _experts}
