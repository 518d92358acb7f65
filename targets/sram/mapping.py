"""How a matrix product is spread over the cores: of all mappings, the one that takes the machine least time.

A mapping says how many rows an instruction streams, into how many groups the depth is cut (items of different groups
add their parts of the same result), whether weights stay where they are used, and then how many copies of them there
are, each of which has a part of the rows. The time of each is worked out from the figures that the cycle model charges,
without its queues: the unit of a core that has most to do, or what all cores share, and what comes before and after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from heapq import nsmallest
from math import ceil

from gimlet.dialects.sram.tiles import Mapping
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.formats import stored_bytes
from gimlet.runtime.sram.machine import Machine

_ROWS = (256, 128, 64, 32, 16, 8, 4)
_EQUAL_PARTS = (1, 2, 3, 4, 6, 8)
_ACCUMULATORS = (2, 3, 4, 6, 8)
_MOST_GROUPS = 16
"""Groups of the depth up to which every number is tried; beyond, powers of two."""
_MOST_COPIES = 8
_ROUNDS = 4
"""How many blocks of a product a core may have for the sake of more copies: beyond, the rest of a round is little."""
_COPIES_SHARE = 8
"""The part of a core's SRAM that the copies of one tile may take beyond the second: one in so many."""
QUANTIZE_PASSES = 3
_DOT_PASSES = 2


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
    fixed: bool = False
    """Whether the number of rows is the same in every run: then weights may be in several copies."""
    by_columns: bool = False
    """Whether chiplets share the columns of what it reads and makes, not the rows (layout.py)."""
    made: str = ""
    """The element type that the result is stored in, where that is not the one of its sums."""
    separate: bool = False
    """Whether `columns` are those of several groups, each of which has rows of its own."""

    @property
    def deals_columns(self) -> bool:
        """Whether each chiplet may make any of the columns that it has of what weights make."""
        few = self.batch == 1 and (self.by_columns or self.rows == 1)
        return few and self.weights and not self.separate and self.made != "mxint8"


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


@lru_cache(maxsize=4096)
def choose(machine: Machine, dealing: Dealing, sizes: Sizes, room: int, spare: int) -> Mapping:
    """The mapping that is the fastest in closed form."""
    return best(machine, dealing, sizes, room, spare)[0]


@lru_cache(maxsize=4096)
def best(
    machine: Machine, dealing: Dealing, sizes: Sizes, room: int, spare: int, count: int = 1
) -> tuple[Mapping, ...]:
    """The fastest mappings whose tiles fit, of equal ones the simplest. Where none fits, that with the smallest tiles.

    `room` is what a core has left for weights, `spare` how much of it may be more copies of these.
    """
    candidates = list(_candidates(machine, dealing, sizes, room, spare))
    fitting = [each for each in candidates if _tile_bytes(machine, sizes, each) <= machine.sram_bytes_per_core // 2]
    if not fitting:
        return (min(candidates, key=lambda each: _tile_bytes(machine, sizes, each)),)
    return tuple(nsmallest(count, fitting, key=lambda each: cycles(machine, dealing, sizes, each)))


def weight_bytes(sizes: Sizes) -> int:
    """One copy of a product's weights."""
    return stored_bytes(sizes.held, (sizes.columns, sizes.depth))


def _candidates(machine: Machine, dealing: Dealing, sizes: Sizes, room: int, spare: int) -> Iterator[Mapping]:
    most = largest_steps(machine)
    depth_tiles, wide = ceil(sizes.depth / most.depth), column_tiles(dealing, sizes, most.columns)
    tile = stored_bytes(sizes.held, (min(most.columns, sizes.columns), min(most.depth, sizes.depth)))
    for tiles in _groups(depth_tiles):
        splits = ceil(depth_tiles / tiles)
        if splits > 1 and machine.dataflow != "rhs":
            continue
        for replicas in replicas_of(machine, dealing, sizes, wide * splits):
            rows = -(-sizes.rows // max(1, replicas))
            block = ceil(wide * splits * replicas / dealing.cores) * tiles * tile
            more = (replicas - 1) * weight_bytes(sizes) / dealing.cores
            if replicas and (not sizes.weights or block > room or more > spare):
                continue
            for step in _steps(min(rows, most.rows), rows):
                copies = _copies(machine, sizes, step, most)
                plain = Mapping(step, splits, tiles, replicas > 0, max(1, replicas), copies=copies)
                yield plain
                yield from _variants(machine, dealing, sizes, plain)


def _groups(tiles: int) -> Iterator[int]:
    """Tiles of the depth that a group may have: those of few groups of any number, and of powers of two."""
    groups = {*range(1, min(tiles, _MOST_GROUPS) + 1), *(1 << power for power in range(tiles.bit_length() + 1))}
    yield from dict.fromkeys(ceil(tiles / count) for count in sorted(groups))


def _steps(most: int, rows: int) -> Iterator[int]:
    """Rows that an instruction may stream: powers of two, and equal parts of all `rows`, not fewer than those."""
    equal = (max(_ROWS[-1], -(-rows // parts)) for parts in _EQUAL_PARTS)
    yield from dict.fromkeys(min(step, most) for step in (most, *_ROWS, *equal))


def replicas_of(machine: Machine, dealing: Dealing, sizes: Sizes, blocks: int) -> Iterator[int]:
    """Numbers of copies of weights to try: none resident (0), one, as many for each chiplet, or what fills all cores.

    Of as many for each chiplet twice as many as before, the most, and such that parts of the rows end where those of a
    chiplet do. What fills the cores once or more often may be any number: then parts of rows lie on two chiplets.
    """
    yield 0
    yield 1
    most = min(sizes.rows, max(dealing.cores // blocks, dealing.parts)) // dealing.parts
    ends = -(-sizes.rows // dealing.parts)
    tried = {1 << power for power in range(most.bit_length())}
    tried |= {each for each in range(1, most + 1) if ends % each == 0} | set(range(max(1, most - 1), most + 1))
    tried |= {min(ends, rounds * dealing.group // blocks) for rounds in range(1, _ROUNDS + 1)}
    tried = {-(-ends // -(-ends // each)) for each in tried if each}
    full = (min(sizes.rows, rounds * dealing.cores // blocks) for rounds in range(1, _ROUNDS + 1))
    filling = {-(-sizes.rows // -(-sizes.rows // each)) for each in full if each > 1}
    for each in sorted({each * dealing.parts for each in tried} | filling):
        if has_copies(machine, dealing, sizes, blocks, each):
            yield each


def has_copies(machine: Machine, dealing: Dealing, sizes: Sizes, blocks: int, copies: int) -> bool:
    """Whether weights may be in so many copies, each with a part of the rows, all parts but the last equal."""
    if copies <= 1:
        return copies >= 0
    if not (sizes.fixed and sizes.weights and machine.dataflow == "rhs") or not 1 < copies <= sizes.rows:
        return False
    if copies * blocks > max(_ROUNDS * dealing.cores, dealing.parts * blocks):
        return False
    return -(-sizes.rows // -(-sizes.rows // copies)) == copies or rows_of_chiplet(dealing, sizes.rows, copies) > 0


def rows_of_chiplet(dealing: Dealing, rows: int, copies: int) -> int:
    """The rows that each chiplet cuts for itself, so that none crosses; 0 where all are cut alike.

    As many copies of weights on each chiplet share its rows equally. 1,500 rows are 188 for seven of eight chiplets;
    cut alike into 40 parts of 38, the parts of a chiplet would be 190. The last of five has 36 instead.
    """
    each, chunk = dealing.run(rows), -(-rows // copies)
    pieces, rest = divmod(copies, dealing.parts)
    if copies <= 1 or rest or dealing.parts == 1 or -(-rows // each) != dealing.parts or pieces * chunk == each:
        return 0
    return each if -(-each // chunk) == pieces else 0


def columns_of_chiplet(dealing: Dealing, sizes: Sizes, width: int) -> int:
    """The columns that each chiplet cuts into tiles of `width` for itself; 0 where all are cut alike.

    Then a chiplet makes the columns that it has, and no result crosses. 1,237 columns are 155 for seven of eight
    chiplets: tiles of 52, 52 and 51, and not 20 of 64 for all, every other one of which would be on two chiplets.
    """
    run = dealing.run(sizes.columns)
    return run if run % width and _ends_with_chiplets(dealing, sizes, width) else 0


def width_for_chiplets(dealing: Dealing, sizes: Sizes, most: int) -> int:
    """The width of tiles that end where the columns of a chiplet do; 0 where those are no narrower than `most`."""
    run = dealing.run(sizes.columns)
    width = ceil(run / ceil(run / most))
    return width if width < most and _ends_with_chiplets(dealing, sizes, width) else 0


def _ends_with_chiplets(dealing: Dealing, sizes: Sizes, width: int) -> bool:
    """Whether every chiplet has as many tiles, those of one equal but for the last."""
    run = dealing.run(sizes.columns)
    tiles, last = ceil(run / width), sizes.columns - (dealing.parts - 1) * run
    dealt = sizes.deals_columns and dealing.parts > 1 and last > 0
    return dealt and ceil(run / tiles) == width and ceil(last / width) == tiles


def column_tiles(dealing: Dealing, sizes: Sizes, width: int) -> int:
    """How many tiles of columns a product has."""
    kept = columns_of_chiplet(dealing, sizes, width)
    return dealing.parts * ceil(kept / width) if kept else ceil(sizes.columns / width)


def has_accumulators(dealing: Dealing, sizes: Sizes, mapping: Mapping) -> bool:
    """Whether every block of rows that an item works on at once has rows for all accumulators, the last the rest."""
    if mapping.accumulators == 1:
        return True
    if not sizes.fixed or mapping.tiles == 1:
        return False
    least = min(blocks_of(dealing, sizes, mapping))
    return least > (mapping.accumulators - 1) * mapping.rows


def blocks_of(dealing: Dealing, sizes: Sizes, mapping: Mapping) -> set[int]:
    """How many rows the blocks have that items work on at once, of a number of rows that is the same in every run."""
    kept = 0 if sizes.by_columns else rows_of_chiplet(dealing, sizes.rows, mapping.replicas)
    parts = _cut(sizes.rows, kept or sizes.rows)
    parts = {part for rows in parts for part in _cut(rows, mapping.chunk(sizes.rows))}
    return {block for rows in parts for block in _cut(rows, mapping.rows * mapping.accumulators)}


def _cut(rows: int, step: int) -> set[int]:
    """The sizes of the pieces of so many rows, all of `step` but the last."""
    return {size for size in (min(rows, step), rows % step) if size}


def _variants(machine: Machine, dealing: Dealing, sizes: Sizes, plain: Mapping) -> Iterator[Mapping]:
    """The mapping with several accumulators, or with a part of the columns on the vector unit."""
    for count in _ACCUMULATORS if sizes.fixed and plain.tiles > 1 else ():
        if (count - 1) * plain.rows >= plain.chunk(sizes.rows):
            break
        several = replace(plain, accumulators=count)
        if has_accumulators(dealing, sizes, several):
            yield several
    columns = largest_steps(machine).columns
    if not plain.resident or machine.array_tiles > 1 or not has_whole_tiles(machine, dealing, sizes, columns):
        return
    hold = stored_bytes(sizes.held, (columns, min(machine.matrix_rows, sizes.depth))) / machine.sram_bytes_per_cycle
    share = round(columns * plain.rows * machine.row_cycles[sizes.held] / hold)
    if sizes.fixed and sizes.rows == 1 and 0 < share < columns // 2:
        yield replace(plain, vector_columns=share)


def has_whole_tiles(machine: Machine, dealing: Dealing, sizes: Sizes, width: int) -> bool:
    """Whether all tiles of columns are of the same width."""
    return machine.dataflow == "rhs" and not (sizes.columns % width or columns_of_chiplet(dealing, sizes, width))


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
    return held + mapping.accumulators * (lhs + converted + results)


@dataclass(frozen=True)
class _Way:
    """How long bytes take that move between tensors and tiles."""

    machine: Machine
    dealing: Dealing
    active: int

    @property
    def levels(self) -> list[tuple[int, int, float, int]]:
        """Chiplets and cards: how many cores each has, how many there are, their link's bytes a cycle and latency."""
        machine, cores = self.machine, self.dealing.cores
        found = [
            (machine.cores_per_chiplet, machine.die_bytes_per_cycle, machine.die_latency_cycles),
            (machine.cores_per_card, machine.card_bytes_per_cycle, machine.card_latency_cycles),
        ]
        return [(size, ceil(cores / size), link, latency) for size, link, latency in found if cores > size]

    def cycles(self, size: float, runs: _Runs, readers: int = 1, apart: int = 1) -> float:
        """Cycles of a transfer of one of `runs`. `readers` items share it, whose numbers are `apart`."""
        longest = size / self.machine.network_bytes_per_cycle
        for cores, places, link, _ in self.levels:
            reached = min(places, readers, ceil(readers * apart / cores))
            crossing = size * runs.away(places) * reached / readers
            longest = max(longest, self.active * crossing / (link * places))
        return longest

    def latency(self, runs: _Runs) -> float:
        """How long the last byte is under way."""
        beyond = sum(latency for _, places, _, latency in self.levels if runs.away(places))
        return float(self.machine.network_latency_cycles + beyond)


@dataclass(frozen=True)
class _Runs:
    """`count` rows or columns that are dealt to chiplets, of which items use `step` each; 0: any of them."""

    count: int
    step: int

    def away(self, places: int) -> float:
        """The part of what items use that is in another of so many places than they are."""
        return _away(self.count, self.step, places)


@lru_cache(maxsize=4096)
def _away(count: int, step: int, places: int) -> float:
    if not step:
        return 1 - 1 / places
    runs, each = ceil(count / step), ceil(count / places)
    found = 0.0
    for run in range(runs):
        first, last = run * step // each, (min((run + 1) * step, count) - 1) // each
        low, high = run * places / runs, (run + 1) * places / runs
        here = max(0.0, min(high, last + 1) - max(low, first)) / (high - low)
        found += 1 - here / (last - first + 1)
    return found / runs


def cycles(machine: Machine, dealing: Dealing, sizes: Sizes, mapping: Mapping) -> float:
    """The time of a mapping: the first load, the busiest unit of a core or what all cores share, the last store."""
    most = largest_steps(machine)
    depth, width = min(most.depth, sizes.depth), min(most.columns, sizes.columns)
    port, bandwidth = machine.network_bytes_per_cycle, machine.sram_bytes_per_cycle
    wide = column_tiles(dealing, sizes, most.columns)
    step = mapping.rows * mapping.accumulators
    chunks = mapping.replicas if mapping.resident else ceil(sizes.rows / step)
    blocks = ceil(mapping.chunk(sizes.rows) / step) if mapping.resident else 1
    items = sizes.batch * chunks * wide * mapping.splits
    rounds = ceil(items / dealing.cores)
    way = _Way(machine, dealing, min(items, dealing.cores))
    # Of a few rows the columns are dealt, as the items of column tiles are.
    few = sizes.by_columns or (sizes.rows <= dealing.parts and chunks == 1)
    kept = 0 if sizes.by_columns else rows_of_chiplet(dealing, sizes.rows, chunks)
    by_rows = _Runs(sizes.rows, kept or -(-sizes.rows // chunks))
    of_chiplet = columns_of_chiplet(dealing, sizes, most.columns) or most.columns
    into, outof = (_Runs(0, 0), _Runs(sizes.columns, of_chiplet)) if few else (by_rows, by_rows)
    if sizes.batch > 1:
        into = outof = _Runs(sizes.batch, 1 if sizes.batch >= dealing.parts else 0)

    lhs, streamed = stored_bytes(sizes.lhs, (mapping.rows, depth)), stored_bytes(sizes.held, (mapping.rows, depth))
    whole = stored_bytes(sizes.held, (width, depth))
    held = whole * (width - mapping.vector_columns) / width
    out = 4 * mapping.rows * width
    arriving = way.cycles(lhs, into, wide, mapping.splits * (chunks if sizes.by_columns else 1))
    leaving = way.cycles(out, outof)
    loaded = (
        0.0
        if mapping.resident
        else way.cycles(
            whole,
            _Runs(0, 0) if sizes.weights else into,
            (sizes.batch if sizes.weights else 1) * chunks,
            mapping.splits * (1 if sizes.by_columns else wide),
        )
    )

    hold = max(held / bandwidth, machine.array_hold_cycles)
    stream = max(mapping.rows * machine.row_cycles[sizes.held], streamed / bandwidth) + machine.array_drain_cycles
    stream *= mapping.accumulators
    product = max(hold, stream) if machine.array_tiles > 1 else hold + stream
    matrix = rounds * (hold + blocks * stream if mapping.stays_held else blocks * mapping.tiles * product)
    once = rounds * blocks * mapping.accumulators
    converts = sizes.lhs != sizes.held
    passes = QUANTIZE_PASSES if sizes.held == "mxint8" else 1
    elements = mapping.rows * depth
    converting = max((lhs + streamed) / bandwidth, passes * elements / machine.vector_lanes) if converts else 0.0
    dots = mapping.rows * depth * mapping.vector_columns * _DOT_PASSES / machine.vector_lanes
    vector = once * mapping.tiles * (converting + max(dots, (whole - held) / bandwidth))
    copied = lhs * (1 + 1 / wide) + (lhs + streamed if converts else 0) + streamed
    sram = once * (mapping.tiles * copied + out * (3 if mapping.splits > 1 else 2))
    holds = rounds if mapping.stays_held else rounds * blocks * mapping.tiles
    sram += holds * whole * (1 if mapping.resident else 2 + 1 / chunks)
    units = (
        matrix,
        vector,
        once * mapping.tiles * arriving + rounds * blocks * mapping.tiles * loaded,
        once * leaving,
    )
    before = way.latency(into) + arriving + converting
    before = max(0.0, before - hold) if mapping.resident else before + loaded
    total = max(before + max(units), sram / bandwidth) + leaving + way.latency(outof)
    if mapping.splits > 1 and sizes.fused:
        result = 8.0 * sizes.batch * sizes.rows * sizes.columns / dealing.cores
        total += 2 * machine.network_latency_cycles + machine.semaphore_cycles + result / port
    return total
