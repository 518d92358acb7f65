"""What a transfer of a kernel costs: the bytes that it moves where, how long they take, and how long until they arrive.

A DMA transfer moves what a core's port takes, and no more than its share of what all cores use together: LPDDR, and the
links between chiplets. A load that several items share is read once and delivered to each; it crosses once to each
chiplet that they are on. What lies on the chiplet of the items that use it crosses no link.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import cast

import numpy as np

from gimlet.runtime.sram.binding import (
    BoundAccess,
    BoundAxis,
    BoundKernel,
    BoundLoop,
    BoundRange,
    BoundStatement,
    Size,
    Step,
    evaluate,
)
from gimlet.runtime.sram.dealing import Array, Dealing, within
from gimlet.runtime.sram.program import (
    EVERYWHERE,
    REGISTER_PREFIX,
    Gather,
    Iota,
    Load,
    Map,
    Program,
    Reduce,
    Scatter,
    Store,
    Tensor,
    Transfer,
)

Registers = tuple[dict[str, Array], dict[str, Array]]
"""Steps of all ranges by their name, and size registers by theirs."""


@dataclass(frozen=True)
class Traffic:
    """Bytes that one core moves for an item: in its SRAM, and its part of what LPDDR and the links carry.

    `die` are links between chiplets, `card` those between cards.
    """

    sram: float = 0.0
    lpddr: float = 0.0
    die: float = 0.0
    card: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.sram + other.sram, self.lpddr + other.lpddr, self.die + other.die, self.card + other.card)

    def scaled(self, times: float) -> Traffic:
        return Traffic(self.sram * times, self.lpddr * times, self.die * times, self.card * times)


@dataclass(frozen=True)
class Route:
    """How the bytes of a transfer travel: `die` and `card` of each byte that a core moves go over links.

    `readers` items share a load: its bytes are read once where they are. `latency` is from the last byte's departure to
    its arrival. Of what is on one chiplet, or goes there, all that crosses takes the link of that: `one_link`.
    """

    space: str
    readers: int
    die: float
    card: float
    latency: float
    one_link: bool = False


class Routes:
    """How what one kernel transfers travels. Each access is looked at once, what they have in common too."""

    def __init__(self, kernel: BoundKernel, program: Program) -> None:
        self.kernel = kernel
        self.program = program
        self._found: dict[int, Route] = {}

    def of(self, transfer: Transfer, access: BoundAccess) -> Route:
        """How the elements of an access of the kernel travel."""
        if id(access) not in self._found:
            self._found[id(access)] = self._route(transfer, access)
        return self._found[id(access)]

    def _route(self, transfer: Transfer, access: BoundAccess) -> Route:
        kernel, program = self.kernel, self.program
        machine, tensor = program.machine, program.tensor(access.tensor)
        space, ends = tensor.space, {tensor.chiplet, kernel.kernel.chiplet}
        ranges = _ranges(transfer, access, kernel)
        readers = 1 if isinstance(transfer, Store | Scatter) else _readers(ranges, kernel)
        if space == "lpddr":
            return Route(space, readers, 0.0, 0.0, float(machine.lpddr_latency_cycles))
        latency, links = float(machine.network_latency_cycles), [0.0, 0.0]
        beyond = (machine.die_latency_cycles, machine.card_latency_cycles)
        for level, cores in enumerate((machine.cores_per_chiplet, machine.cores_per_card)):
            places = -(-program.cores // cores)
            if places == 1:
                continue
            computed = isinstance(transfer, Gather | Scatter)
            known = not computed or EVERYWHERE not in ends
            away = self._away(access, places) if known else np.full(kernel.items, (places - 1) / places)
            links[level] = _crossing(away, ranges, kernel, program, cores) if readers > 1 else float(np.mean(away))
            latency += beyond[level] if away.any() else 0
        return Route(space, readers, links[0], links[1], latency, ends != {EVERYWHERE})

    def _away(self, access: BoundAccess, places: int) -> Array:
        """The part of each item's elements that is in another place (chiplet, card) than the item."""
        dealing, tensor = self.program.dealing, self.program.tensor(access.tensor)
        if dealing.parts % places:
            return np.full(self.kernel.items, (places - 1) / places)
        groups = dealing.parts // places
        here = self._here // groups
        if tensor.chiplet != EVERYWHERE:
            return np.asarray(here != tensor.chiplet // groups, np.float64)
        low, high = _reach(access, self.kernel, self._ends)
        low, high, elements = _dealt(low.reshape(-1), high.reshape(-1), prod(access.shape), tensor, dealing)
        first = dealing.groups(low, elements) // groups
        last = dealing.groups(high, elements) // groups
        inside = (first <= here) & (here <= last)
        # What spreads over several places is taken to be spread evenly.
        return np.asarray(1.0 - inside / (last - first + 1))

    @cached_property
    def _here(self) -> Array:
        """The group of cores that each item is on."""
        items, on = self.kernel.items, self.kernel.kernel.chiplet
        return np.full(items, on) if on != EVERYWHERE else self.program.dealing.groups(np.arange(items), items)

    @cached_property
    def _ends(self) -> tuple[Registers, Registers]:
        """Registers in the first and in the last step of all loops."""
        return _registers(self.kernel, at_end=False), _registers(self.kernel, at_end=True)


def moved(size: float, route: Route, adds: bool) -> Traffic:
    """The bytes of a transfer of `size` bytes. What is added is read before it is written."""
    if route.space == "lpddr":
        return Traffic(sram=size, lpddr=size * (2 if adds else 1) / route.readers)
    sram = size * (2 if adds else 1) + size / route.readers
    return Traffic(sram=sram, die=size * route.die, card=size * route.card)


def _ranges(transfer: Transfer, access: BoundAccess, kernel: BoundKernel) -> frozenset[str]:
    """The ranges that decide which elements an item moves; of a gather those of its positions too."""
    if not isinstance(transfer, Gather):
        return frozenset(access.moves)
    found, seen, waiting = {*access.moves}, set[str](), [transfer.indices]
    while waiting:
        tile = waiting.pop()
        if tile in seen:
            continue
        seen.add(tile)
        for step in _steps(kernel.body):
            match step.instruction:
                case Load(tile=made) | Gather(tile=made) | Iota(tile=made) if made == tile:
                    found.update((step.access.moves if step.access else step.moves) or ())
                    waiting += [step.instruction.indices] if isinstance(step.instruction, Gather) else []
                case Map(tile=made, operands=operands) if made == tile:
                    waiting += [operand for operand in operands if isinstance(operand, str)]
                case Reduce(tile=made, source=source) if made == tile:
                    waiting.append(source)
                case _:
                    pass
    return frozenset(found)


def _readers(ranges: frozenset[str], kernel: BoundKernel) -> int:
    """How many items read the same elements, where these ranges decide which."""
    return prod(kernel.counts[each.name] for each in kernel.grid if each.name not in ranges)


def _crossing(away: Array, ranges: frozenset[str], kernel: BoundKernel, program: Program, size: int) -> float:
    """The bytes that cross for each byte that an item loads, where what items read alike crosses once to each place.

    `away` is the part of each item's elements that is in another place of `size` cores (chiplet, card), `ranges` decide
    which elements those are.
    """
    if not away.any():
        return 0.0
    what = np.zeros(1, np.int64)
    for each in kernel.grid:
        moves = np.arange(kernel.counts[each.name]) * (each.name in ranges)
        what = (what[:, None] * kernel.counts[each.name] + moves).reshape(-1)
    dealing = program.dealing_on(kernel.kernel.chiplet)
    here = dealing.cores_of(np.arange(kernel.items), kernel.items, kernel.kernel.first) // size
    _, first = np.unique(what * program.cores + here, return_index=True)
    return float(away[first].sum() / kernel.items)


def _dealt(low: Array, high: Array, elements: int, tensor: Tensor, dealing: Dealing) -> tuple[Array, Array, int]:
    """The first and last of what is dealt, rows, columns or elements, and how many there are."""
    width = tensor.width
    if not width:
        row = tensor.unit(elements, dealing.parts)
        return low // row, high // row, elements // row
    wraps = high % width - low % width != (high - low) % width
    return np.where(wraps, 0, low % width), np.where(wraps, width - 1, high % width), width


def _reach(access: BoundAccess, kernel: BoundKernel, ends: Sequence[Registers]) -> tuple[Array, Array]:
    """The first and last element that each item may use, in all steps of its loops; a dimension for each range.

    It is in the first or in the last step of all loops: no access goes forth along one loop and back along another.
    """
    first = last = np.zeros([1] * len(kernel.grid), np.int64)
    for dim, (size, stride) in enumerate(zip(access.shape, access.strides, strict=True)):
        axes = [axis for group in access.axes for axis in group if axis.dim == dim]
        lows, highs = zip(*(_span(access, dim, axes, *registers) for registers in ends), strict=True)
        # The last tile of a row that is not full ends with it.
        low, high = (within(each, 0, max(0, size - 1)) for each in (np.minimum(*lows), np.maximum(*highs)))
        first, last = first + low * stride, last + high * stride
    counts = [kernel.counts[each.name] for each in kernel.grid]
    return np.broadcast_to(first, counts), np.broadcast_to(last, counts)


def _span(
    access: BoundAccess, dim: int, axes: Sequence[BoundAxis], steps: Mapping[str, Array], sizes: Mapping[str, Array]
) -> tuple[Array, Array]:
    """The first and last position along a dimension at one step of all ranges."""
    low = np.asarray(access.base[dim] + sum(move[dim] * steps[name] for name, move in access.moves.items()))
    high = low
    for axis in axes:
        reach = axis.step * (_evaluated(axis.size, sizes) - 1)
        low, high = low + np.minimum(0, reach), high + np.maximum(0, reach)
    return low, high


def _registers(kernel: BoundKernel, at_end: bool) -> Registers:
    """Steps of all ranges by their name and their size registers: every step of the grid, the first or last of loops.

    Arrays have a dimension for each range of the grid.
    """
    steps: dict[str, Array] = {}
    sizes: dict[str, Array] = {}
    ranges = [(each, True) for each in kernel.grid] + [(each, False) for each in _loops(kernel.body)]
    for number, (each, in_grid) in enumerate(ranges):
        extent = _evaluated(each.extent, sizes)
        if in_grid:
            behind = [1] * (len(kernel.grid) - number - 1)
            step = np.arange(kernel.counts[each.name]).reshape([-1, *behind])
        else:
            step = np.maximum(0, -(-extent // each.step) - 1) * at_end
        steps[each.name] = step
        sizes[f"{REGISTER_PREFIX}{each.name}.size"] = within(extent - step * each.step, 1, each.step)
    return steps, sizes


def _steps(body: Sequence[BoundStatement]) -> Iterator[Step]:
    """All instructions, those in loops too."""
    for statement in body:
        if isinstance(statement, BoundLoop):
            yield from _steps(statement.body)
        else:
            yield statement


def _loops(body: Sequence[BoundStatement]) -> Iterator[BoundRange]:
    """The ranges of all loops, the outer ones first."""
    for statement in body:
        if isinstance(statement, BoundLoop):
            yield statement.range
            yield from _loops(statement.body)


def _evaluated(size: Size, registers: Mapping[str, Array]) -> Array:
    """A size at many values of the registers: an expression adds and multiplies arrays as it does integers."""
    return np.asarray(evaluate(size, cast("Mapping[str, int]", registers)), np.int64)
