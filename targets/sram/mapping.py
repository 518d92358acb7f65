"""How a matrix product is spread over the cores: of a few dozen mappings, the one that takes the machine least time.

A mapping says how many rows an instruction streams, into how many groups the depth is cut (items of different groups
add their parts of the same result), and whether weights stay where they are used. The time of each is worked out from
the figures that the cycle model charges, without its queues: the busiest unit of a core, and what all cores share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from gimlet.runtime.sram.formats import stored_bytes
from gimlet.runtime.sram.machine import Machine

_ROWS = (256, 128, 64, 32, 16, 8)
_MOST_COPIES = 8
_COPIES_SHARE = 8
"""The part of a core's SRAM that the copies of one tile may take beyond the second: one in so many."""


@dataclass(frozen=True)
class Sizes:
    """A product at the sizes that code is tuned for; `lhs` and `held` are the element types loaded and multiplied."""

    batch: int
    rows: int
    depth: int
    columns: int
    lhs: str
    held: str
    weights: bool
    fused: bool
    """Whether vector work waits for the result: then parts that are added up cost one more kernel."""


@dataclass(frozen=True)
class Mapping:
    """`rows` an instruction, `splits` groups of `tiles` tiles along the depth, weights `resident` or loaded.

    `copies` of a loaded tile are what hides the latency of a load.
    """

    rows: int
    splits: int
    tiles: int
    resident: bool
    copies: int = 2


@dataclass(frozen=True)
class Steps:
    """The largest tile of a matrix instruction: rows, depth and columns."""

    rows: int
    depth: int
    columns: int


def largest_steps(machine: Machine) -> Steps:
    """What one matrix instruction takes, for the operand that the machine holds."""
    rows, columns, stream = machine.matrix_rows, machine.matrix_columns, machine.matrix_stream
    if machine.dataflow == "lhs":
        return Steps(columns, rows, stream)
    if machine.dataflow == "accumulator":
        return Steps(rows, stream, columns)
    return Steps(stream, rows, columns)


def choose(machine: Machine, cores: int, sizes: Sizes, room: int) -> Mapping:
    """The fastest mapping whose tiles fit, of equal ones the simplest. `room` is what a core has left for weights.

    Where none fits, the one with the smallest tiles.
    """
    candidates = list(_candidates(machine, cores, sizes, room))
    fitting = [each for each in candidates if _tile_bytes(machine, sizes, each) <= machine.sram_bytes_per_core // 2]
    if not fitting:
        return min(candidates, key=lambda each: _tile_bytes(machine, sizes, each))
    return min(fitting, key=lambda each: _cycles(machine, cores, sizes, each))


def converts_tiles(machine: Machine, cores: int, sizes: Sizes, room: int, readers: int) -> bool:
    """Whether tiles of f32 are better converted in every item than once before, which `readers` products share."""
    before = replace(sizes, lhs=sizes.held)
    chosen = [(each, choose(machine, cores, each, room)) for each in (sizes, before)]
    inside, outside = (_cycles(machine, cores, each, mapping) for each, mapping in chosen)
    elements = sizes.batch * sizes.rows * sizes.depth
    moved = 4 * elements + stored_bytes(sizes.held, (elements,))
    chiplets = ceil(cores / machine.cores_per_chiplet)
    crossing = moved * (chiplets - 1) / chiplets / (machine.die_bytes_per_cycle * chiplets)
    shared = max(moved / cores / machine.network_bytes_per_cycle, crossing)
    return inside <= outside + (machine.semaphore_cycles + machine.network_latency_cycles + shared) / readers


def _candidates(machine: Machine, cores: int, sizes: Sizes, room: int) -> Iterator[Mapping]:
    most = largest_steps(machine)
    depth_tiles, column_tiles = ceil(sizes.depth / most.depth), ceil(sizes.columns / most.columns)
    steps = dict.fromkeys(min(step, most.rows, sizes.rows) for step in (most.rows, *_ROWS))
    groups = dict.fromkeys(ceil(depth_tiles / (1 << power)) for power in range(depth_tiles.bit_length() + 1))
    tile = stored_bytes(sizes.held, (min(most.columns, sizes.columns), min(most.depth, sizes.depth)))
    for rows in steps:
        for tiles in groups:
            splits = ceil(depth_tiles / tiles)
            own = ceil(column_tiles * splits / cores) * tiles * tile
            for resident in (True, False) if sizes.weights and own <= room else (False,):
                if splits > 1 and machine.dataflow != "rhs":
                    continue
                yield Mapping(rows, splits, tiles, resident, _copies(machine, sizes, rows, most))


def _copies(machine: Machine, sizes: Sizes, rows: int, most: Steps) -> int:
    """As many as there are products in the time that a load is under way, and one more."""
    latency = machine.network_latency_cycles + machine.die_latency_cycles
    tile = stored_bytes(sizes.held, (min(most.columns, sizes.columns), min(most.depth, sizes.depth)))
    product = rows * machine.row_cycles[sizes.held] + tile / machine.sram_bytes_per_cycle
    moved = stored_bytes(sizes.lhs, (rows, min(most.depth, sizes.depth)))
    room = 2 + machine.sram_bytes_per_core // _COPIES_SHARE // max(moved, tile)
    return min(_MOST_COPIES, 2 + ceil(latency / product), room)


def _tile_bytes(machine: Machine, sizes: Sizes, mapping: Mapping) -> int:
    """The private bytes of the tiles that an item works on: operands, their converted copies, and results."""
    most = largest_steps(machine)
    depth, columns = min(most.depth, sizes.depth), min(most.columns, sizes.columns)
    lhs = mapping.copies * stored_bytes(sizes.lhs, (mapping.rows, depth))
    converted = 0 if sizes.lhs == sizes.held else 2 * stored_bytes(sizes.held, (mapping.rows, depth))
    held = 0 if mapping.resident else mapping.copies * stored_bytes(sizes.held, (columns, depth))
    results = (4 if sizes.fused else 2) * 4 * mapping.rows * columns
    return lhs + converted + held + results


def _cycles(machine: Machine, cores: int, sizes: Sizes, mapping: Mapping) -> float:
    """The time of a mapping by the busiest unit of a core, or by what all cores share."""
    most = largest_steps(machine)
    depth = min(most.depth, sizes.depth)
    column_tiles, blocks = ceil(sizes.columns / most.columns), ceil(sizes.rows / mapping.rows)
    inner, outer = (blocks, 1) if mapping.resident else (1, blocks)
    items = sizes.batch * column_tiles * mapping.splits * outer
    active, rounds = min(items, cores), ceil(items / cores)
    chiplets = ceil(cores / machine.cores_per_chiplet)

    def moving(size: float, readers: int, apart: int) -> float:
        """Cycles of a load that so many items share, whose numbers are `apart`; 1 for a store."""
        reached = min(chiplets, readers, ceil(readers * apart / machine.cores_per_chiplet))
        crossing = size * (chiplets - 1) / chiplets * reached / readers
        shared = active * crossing / (machine.die_bytes_per_cycle * chiplets)
        return max(size / machine.network_bytes_per_cycle, shared)

    lhs = stored_bytes(sizes.lhs, (mapping.rows, depth))
    streamed = stored_bytes(sizes.held, (mapping.rows, depth))
    held = stored_bytes(sizes.held, (min(most.columns, sizes.columns), depth))
    out = 4 * mapping.rows * min(most.columns, sizes.columns)
    hold = max(held / machine.sram_bytes_per_cycle, machine.array_hold_cycles)
    stream = max(mapping.rows * machine.row_cycles[sizes.held], streamed / machine.sram_bytes_per_cycle)
    stream += machine.array_drain_cycles
    product = max(hold, stream) if machine.array_tiles > 1 else hold + stream
    held_readers = sizes.batch * blocks if sizes.weights else blocks
    loaded = 0.0 if mapping.resident else moving(held, held_readers, column_tiles * mapping.splits)
    arriving, leaving = moving(lhs, column_tiles, mapping.splits), moving(out, 1, 1)
    converting = 0 if sizes.lhs == sizes.held else lhs + streamed
    vector = converting / machine.sram_bytes_per_cycle
    units = (mapping.tiles * max(product, vector), mapping.tiles * (arriving + loaded), leaving)
    latency = machine.semaphore_cycles + machine.network_latency_cycles
    latency += machine.die_latency_cycles if chiplets > 1 else 0
    queues = rounds * inner * max(units) + arriving + loaded + leaving + latency
    copied = 2 * lhs + converting + streamed + held * (1 if mapping.resident else 3)
    sram = rounds * inner * (mapping.tiles * copied + out * (3 if mapping.splits > 1 else 2))
    total = max(queues, sram / machine.sram_bytes_per_cycle)
    if mapping.splits > 1 and sizes.fused:
        result = 8.0 * sizes.batch * sizes.rows * sizes.columns / cores
        total += latency + result / machine.network_bytes_per_cycle
    return total
