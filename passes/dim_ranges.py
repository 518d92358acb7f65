"""The ranges of dimensions that a module records: `onnx.dim_bounds = {"width" = array<i64: 32, 320, 2048>}`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from xdsl.dialects.builtin import DenseArrayBase, DictionaryAttr, ModuleOp, i64

from gimlet.runtime.expr import Expr

BOUNDS = "onnx.dim_bounds"
Range = tuple[int, int, int]
"""The least size, the one that costs are taken at, and the largest."""

_MOST_CORNERS = 1 << 8


def read_ranges(module: ModuleOp) -> dict[str, Range]:
    """The ranges that are well formed."""
    bounds = module.attributes.get(BOUNDS)
    found: dict[str, Range] = {}
    for name, value in bounds.data.items() if isinstance(bounds, DictionaryAttr) else ():
        if isinstance(value, DenseArrayBase) and len(value) == 3:
            low, best, high = (int(size) for size in value.get_values())
            if 0 <= low <= best <= high:
                found[name] = (low, best, high)
    return found


def write_ranges(module: ModuleOp, ranges: Mapping[str, Range]) -> None:
    """Records the ranges, in the order of the names."""
    if not ranges:
        module.attributes.pop(BOUNDS, None)
        return
    module.attributes[BOUNDS] = DictionaryAttr(
        {name: DenseArrayBase.from_list(i64, list(sizes)) for name, sizes in sorted(ranges.items())}
    )


def largest(expr: Expr, ranges: Mapping[str, Range]) -> int | None:
    """The largest value of an expression over the corners of the box that ranges span; None where one is open.

    Exact for what is monotone in each symbol, as limits of dimensions are.
    """
    symbols = sorted(expr.symbols)
    if not ranges.keys() >= set(symbols) or 1 << len(symbols) > _MOST_CORNERS:
        return None
    corners = product(*((ranges[name][0], ranges[name][2]) for name in symbols))
    return max(expr.evaluate(dict(zip(symbols, corner, strict=True))) for corner in corners)
