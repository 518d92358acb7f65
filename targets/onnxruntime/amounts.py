"""Amounts of work that several kernels have in common: products, bytes moved, weights. `features` has the kernels."""

from __future__ import annotations

from collections import Counter
from math import exp, prod

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.types import element_of
from gimlet.targets.onnxruntime.layout import Sizes, count, is_known, shape

Features = dict[str, float]
NEAR_BYTES = 1 << 20
"""What a second-level cache holds, about."""
CACHE_BYTES = 24 << 20
"""What the last level of cache holds of one op's values, about."""
KEPT_BYTES = 20 << 20
"""What it keeps of bytes that are read again and again in the same order."""
WAITED = "dram.waited.weights"
"""Bytes of weights from main memory that a product of few rows waits for; one of many computes meanwhile."""
_BUSY_ROWS = 8
"""Rows that take as long to compute as their weights take to be read from main memory, about."""
_PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul"})
ROWS = 12
"""Rows of the largest product kernel with AVX-512 (MLAS)."""
COLUMNS = 16
FILTERS = 64
"""Filters that one pass of a convolution in blocks of channels computes."""


def product(m: int, k: int, n: int, batch: int = 1, *, constant: bool) -> Features:
    """A product [batch, m, k] × [k, n], or × [batch, k, n] where the right side is not a constant.

    One column is computed as one row of the product turned around, unless the right side was packed before.
    """
    if n == 1 and not constant:
        m, n = n, m
    columns = padded_to(n, COLUMNS)
    found = {
        "gemm.flops": 2.0 * batch * m * columns * k,
        "gemm.passes": 1.0 * batch * -(-m // ROWS) * columns * k,
        "gemm.calls": float(batch),
        **moves("gemm", 4.0 * batch * (m * k + m * n)),
    }
    if not constant:
        found |= moves("gemm.right", 4.0 * k * n * batch)
        found["gemm.packed"] = 4.0 * k * n * batch if m > 1 else 0.0
    return found


def moves(kernel: str, amount: float) -> Features:
    """Bytes that a kernel moves, also as those that leave the caches."""
    return {
        f"{kernel}.bytes": amount,
        "cache.bytes": amount if amount > NEAR_BYTES else 0.0,
        "dram.bytes": amount if amount > CACHE_BYTES else 0.0,
    }


def missed(amount: float) -> float:
    """Bytes that each pass over `amount` of them, in the same order, finds no more in the last level of cache.

    Misses of a pass replace lines at random: of what one pass leaves, the share h = exp(−(1 − h) · amount / size)
    is there when its turn comes again. All of it where it fits.
    """
    if amount <= KEPT_BYTES:
        return 0.0
    share = 0.0
    for _ in range(60):
        share = exp((share - 1.0) * amount / KEPT_BYTES)
    return amount * (1.0 - share)


def added(*parts: Features) -> Features:
    """The sum of amounts."""
    found: Counter[str] = Counter()
    for part in parts:
        found.update(part)
    return dict(found)


def bytes_of(op: OnnxOp, sizes: Sizes) -> tuple[float, float]:
    """Bytes read that are no weights, and bytes written."""
    read = sum(size_of(value, sizes) for value in op.inputs if value is not None and not is_known(value))
    return read, sum(size_of(value, sizes) for value in op.outputs if value is not None)


def size_of(value: SSAValue, sizes: Sizes) -> float:
    """Bytes of a value; none where it is no tensor."""
    element = element_of(value.type)
    return 0.0 if element is None else count(value, sizes) * element.bits / 8


def results_of(op: OnnxOp, sizes: Sizes) -> float:
    """Elements of an op's first result."""
    return float(count(op.results[0], sizes))


def weights_of(op: OnnxOp, own: float, sizes: Sizes, resident_bytes: float | None) -> Features:
    """The `own` bytes of the weights that an op reads, of `resident_bytes` that are read in turn with them."""
    if op.op_type in ("Gather", "GatherND", "GatherElements", "MoE"):
        return {}
    held = own if resident_bytes is None else resident_bytes
    found = {
        "weights": own,
        "cache.weights": own if held > NEAR_BYTES else 0.0,
        "dram.weights": own if held > CACHE_BYTES else 0.0,
    }
    if held <= CACHE_BYTES or op.op_type not in _PRODUCTS:
        return found
    waited = max(0.0, 1.0 - _rows(op, sizes) / _BUSY_ROWS) * missed(held) / held
    return {**{name: amount * (1.0 - waited) for name, amount in found.items()}, WAITED: own * waited}


def _rows(op: OnnxOp, sizes: Sizes) -> float:
    dims = shape(op.results[0], sizes) or (1,)
    return prod(dims) / max(dims[-1], 1)


def padded_to(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple
