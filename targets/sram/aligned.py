"""Tiles of elementwise kernels whose items lie where their rows do.

A tensor of more rows than chiplets is dealt in whole rows, of which the last chiplet may have fewer; items are dealt in
equal runs. Both cut at the same rows where an item makes r rows and r divides the rows of a chiplet, so that nothing
that is read or written crosses between chiplets.
"""

from __future__ import annotations

from math import ceil

from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.formats import MX_BLOCK

_WORSE, _FREE = 1.25, 1024
"""How much more than an equal part of all elements a core may have, and how many: what takes less than two links do."""


def aligned_steps(
    dealing: Dealing, rows: int, columns: int, limits: tuple[int, int], dtype: str
) -> tuple[int, int] | None:
    """The rows and columns of an item's tile of a tensor [rows, columns]; None where none is aligned and balanced.

    A tile has from `limits[0]` to `limits[1]` elements, if it may; in mxint8 whole blocks that share an exponent.
    """
    each = dealing.run(rows)
    if ceil(rows / each) != dealing.parts:
        return None
    least, most = limits
    found: list[tuple[int, int, tuple[int, int]]] = []
    for step in (step for step in range(1, each + 1) if each % step == 0):
        pieces = each // step
        fewest = ceil(columns / max(1, most // step))
        rounds = ceil(fewest * pieces / dealing.group)
        wanted = max(fewest, min(rounds * dealing.group // pieces, columns * step // least))
        width = ceil(columns / max(1, wanted))
        width = ceil(width / MX_BLOCK) * MX_BLOCK if dtype == "mxint8" else width
        across = ceil(columns / width)
        if dealing.run(ceil(rows / step) * across) == pieces * across and step * width <= most:
            found.append((ceil(pieces * across / dealing.group) * step * width, -step, (step, width)))
    if not found:
        return None
    longest, _, steps = min(found)
    equal = max(least, ceil(rows * columns / dealing.cores))
    return steps if longest <= max(_WORSE * equal, equal + _FREE) else None
