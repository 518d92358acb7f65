"""Tiles of elementwise kernels whose items lie where their rows do.

A tensor of more rows than chiplets is dealt in whole rows, of which the last chiplet may have fewer; items are dealt in
equal runs. Both cut at the same rows where a first range of a kernel's grid is over the chiplets' rows and a second one
cuts these, so that nothing that is read or written crosses between chiplets. Where columns are dealt an item has such
that divide those of a chiplet.
"""

from __future__ import annotations

from math import ceil

from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.formats import MX_BLOCK

_WORSE, _FREE = 1.25, 1024
"""How much more than an equal part of all elements a core may have, and how many: what takes less than two links do."""
_LATE = 512
"""The elements that a core makes while constants of a second item are on their way."""


def aligned_steps(
    dealing: Dealing, rows: int, columns: int, limits: tuple[int, int], dtype: str, constants: bool = False
) -> tuple[int, int] | None:
    """The rows and columns of an item's tile of a tensor [rows, columns]; None where none is balanced.

    Each chiplet cuts its own rows. A tile has from `limits[0]` to `limits[1]` elements, if it may; in mxint8 whole
    blocks that share an exponent. Where items read `constants`, those of a core's second item are in the queue behind
    the rows of its first one, and come from other chiplets after these.
    """
    each = dealing.run(rows)
    if ceil(rows / each) != dealing.parts:
        return None
    least, most = limits
    found: list[tuple[int, int, int, int]] = []
    for step in {ceil(each / pieces) for pieces in range(1, each + 1)}:
        pieces = ceil(each / step)
        fewest = ceil(columns / max(1, most // step))
        rounds = ceil(fewest * pieces / dealing.group)
        wanted = max(fewest, min(rounds * dealing.group // pieces, columns * step // least))
        width = ceil(columns / max(1, wanted))
        width = ceil(width / MX_BLOCK) * MX_BLOCK if dtype == "mxint8" else width
        across = ceil(columns / width)
        if step * width <= most:
            # The first tile is loaded and the last one stored while nothing is computed. What a tile takes by itself
            # is as much as its least elements do.
            rounds = ceil(pieces * across / dealing.group)
            late = _LATE if constants and rounds > 1 else 0
            found.append(((rounds + 1) * max(step * width, least) + late, -step, width, rounds))
    if not found:
        return None
    _, negative, width, rounds = min(found)
    equal = max(least, ceil(rows * columns / dealing.cores))
    return (-negative, width) if rounds * -negative * width <= max(_WORSE * equal, equal + _FREE) else None


def cut_alike(dealing: Dealing, rows: int, step: int) -> bool:
    """Whether items of `step` rows are where their rows are though all rows are cut at once."""
    return dealing.parts == 1 or (rows % dealing.parts == 0 and dealing.run(rows) % step == 0)


def aligned_columns(dealing: Dealing, rows: int, columns: int, step: int, budget: int, block: int) -> int:
    """The columns of an item, in whole blocks, that divide those of a chiplet; `step` where none is.

    Of those the ones that leave the core with most to do least, an item having about `budget` elements in whole rows.
    """
    each = dealing.run(columns)
    if columns % dealing.parts:
        return step
    found: list[tuple[int, int]] = []
    for size in (size for size in range(block, min(each, 2 * step) + 1, block) if each % size == 0):
        high = min(rows, max(1, budget // size))
        rounds = ceil(each // size * ceil(rows / high) / dealing.group)
        found.append((rounds * high * size, -size))
    return -min(found)[1] if found else step
