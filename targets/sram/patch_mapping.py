"""How the kernel of a convolution is spread over the cores where its weights stay on them.

As of a matrix product (mapping.py): the depth is cut into groups whose items add their parts, and weights are in as
many copies as there are items of positions. Positions of an item are a block of the result, so that its patches are
loaded from the map where it lies, and no kernel has to copy them first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import nsmallest
from math import ceil, prod

from gimlet.dialects.sram.tiles import Mapping, Patches
from gimlet.runtime.sram.formats import MX_BLOCK, stored_bytes
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram.convolution import Convolution
from gimlet.targets.sram.mapping import Sizes, cycles

_TRIED = 2
_ROUNDS = 2
"""How many items of positions, outputs and depth a core may have."""
_LEAST_BLOCK = 16


def by_patches(convolution: Convolution, room: int, spare: int) -> list[Patches]:
    """The tiles that look best in closed form, for each type that the input may be loaded in.

    `room` is what a core has left for weights, `spare` how much of it may be more copies of these.
    """
    lowering, source = convolution.lowering, convolution.source
    bounds, plain = lowering.bounds, replace(convolution, given=None).tiles()
    if not all(bounds.fixed(size) and bounds.never_empty(size) for size in convolution.shape):
        return []
    candidates = _candidates(convolution, plain, room, spare)
    best = nsmallest(_TRIED, candidates, key=lambda each: _cycles(convolution, each))
    if source.dtype == convolution.dtype or not best:
        return best
    inside = [replace(each, loaded=source.dtype) for each in best]
    # Tiles that items convert are of whole blocks that share an exponent.
    whole = convolution.dtype != "mxint8" or _depth(best[0]) % MX_BLOCK == 0
    return [*best[:1], *inside] if whole else best


def _depth(patches: Patches) -> int:
    return prod(patches.kernel) * patches.channels


def _candidates(convolution: Convolution, plain: Patches, room: int, spare: int) -> Iterator[Patches]:
    builder, weight = convolution.lowering.builder, convolution.weight
    machine, dealing = builder.machine, builder.dealing
    shape = [builder.bounds.best(size) for size in convolution.shape]
    tiles = ceil(weight.shape[0] // convolution.groups / plain.outputs) * convolution.groups
    tile = stored_bytes(convolution.dtype, (plain.outputs, _depth(plain)))
    for cut in range(len(plain.loops) + 1):
        if cut and plain.loops[cut - 1] == 1:
            continue
        each = replace(plain, cut=cut, resident=True)
        blocks, block = tiles * each.splits, prod(plain.loops[cut:]) * tile
        for items in _items(shape[2:]):
            copies = shape[0] * prod(ceil(size / part) for size, part in zip(shape[2:], items, strict=True))
            most = ceil(blocks * copies / dealing.cores)
            if most > _ROUNDS or most * block > room or (copies - 1) * blocks * block / dealing.cores > spare:
                continue
            for positions in _blocks(items, machine):
                yield replace(each, items=items, positions=positions)


def _items(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Blocks of positions: whole in the last dimensions, equal parts of the one before, one in those before that."""
    yield tuple(sizes)
    for axis in range(len(sizes)):
        for part in sorted({ceil(sizes[axis] / count) for count in range(2, sizes[axis] + 1)}, reverse=True):
            yield (*[1] * axis, part, *sizes[axis + 1 :])


def _blocks(items: Sequence[int], machine: Machine) -> Iterator[tuple[int, ...]]:
    """The positions of an instruction: all of an item, or fewer, so that some are multiplied while others come."""
    total = prod(items)
    tried = {min(total, machine.matrix_stream), *(max(_LEAST_BLOCK, ceil(total / parts)) for parts in (2, 4))}
    found = dict[tuple[int, ...], None]()
    for most in sorted(each for each in tried if each <= min(total, machine.matrix_stream)):
        steps, left = list[int](), most
        for size in reversed(items):
            step = ceil(size / ceil(size / max(1, left))) if left < size else size
            steps.insert(0, min(step, max(1, left)))
            left //= steps[0]
        found[tuple(steps)] = None
    yield from found


def _cycles(convolution: Convolution, patches: Patches) -> float:
    """As of the product of rows that has the same tiles (mapping.py)."""
    builder, weight = convolution.lowering.builder, convolution.weight
    rows = prod(builder.bounds.best(size) for size in (convolution.shape[0], *convolution.shape[2:]))
    copies = convolution.copies(patches)
    outputs = weight.shape[0] // convolution.groups
    sizes = Sizes(
        convolution.groups,
        rows,
        prod(weight.shape[1:]),
        outputs,
        convolution.source.dtype,
        patches.dtype,
        True,
        True,
        True,
    )
    tiles = prod(patches.loops[patches.cut :])
    mapping = Mapping(min(prod(patches.positions), rows), patches.splits, tiles, True, min(copies, rows))
    return cycles(builder.machine, builder.dealing, sizes, mapping)
