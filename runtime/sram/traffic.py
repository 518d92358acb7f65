"""What a transfer of a kernel costs: the bytes that it moves where, how long they take, and how long until they arrive.

A DMA transfer moves what a core's port takes, and no more than its share of what all cores use together: LPDDR, and the
links between chiplets. A load that several items share is read once and delivered to each; it crosses once to each
chiplet that they are on. What lies on the chiplet of the items that use it crosses no link.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from gimlet.runtime.sram.binding import BoundAccess, BoundKernel
from gimlet.runtime.sram.dealing import Array, Dealing
from gimlet.runtime.sram.program import EVERYWHERE, Gather, Program, Scatter, Store, Tensor, Transfer


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


def route(transfer: Transfer, access: BoundAccess, kernel: BoundKernel, program: Program) -> Route:
    """How the elements of an access travel."""
    machine, tensor = program.machine, program.tensor(access.tensor)
    space, ends = tensor.space, {tensor.chiplet, kernel.kernel.chiplet}
    readers = 1 if isinstance(transfer, Store | Scatter) else _readers(access, kernel)
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
        away = _away(access, kernel, program, places) if known else (places - 1) / places
        links[level] = away * (_places_reading(access, kernel, program, cores) if readers > 1 else 1) / readers
        latency += beyond[level] if away else 0
    return Route(space, readers, links[0], links[1], latency, ends != {EVERYWHERE})


def moved(size: float, route: Route, adds: bool) -> Traffic:
    """The bytes of a transfer of `size` bytes. What is added is read before it is written."""
    if route.space == "lpddr":
        return Traffic(sram=size, lpddr=size * (2 if adds else 1) / route.readers)
    sram = size * (2 if adds else 1) + size / route.readers
    return Traffic(sram=sram, die=size * route.die, card=size * route.card)


def _readers(access: BoundAccess, kernel: BoundKernel) -> int:
    """How many items read the same elements."""
    return prod(kernel.counts[each.name] for each in kernel.grid if each.name not in access.moves)


def _places_reading(access: BoundAccess, kernel: BoundKernel, program: Program, size: int) -> int:
    """On how many places of `size` cores (chiplets, cards) the items are that read the same elements as the first."""
    items = np.zeros(1, np.int64)
    for each in kernel.grid:
        steps = np.arange(1 if each.name in access.moves else kernel.counts[each.name])
        items = (items[:, None] * kernel.counts[each.name] + steps).reshape(-1)
    cores = program.dealing_on(kernel.kernel.chiplet).cores_of(items, kernel.items, kernel.kernel.first)
    return len(np.unique(cores // size))


def _away(access: BoundAccess, kernel: BoundKernel, program: Program, places: int) -> float:
    """The part of the elements that is in another place (chiplet, card) than the item that uses them."""
    dealing, tensor = program.dealing, program.tensor(access.tensor)
    if dealing.parts % places:
        return (places - 1) / places
    groups, on = dealing.parts // places, kernel.kernel.chiplet
    here = np.full(kernel.items, on) if on != EVERYWHERE else dealing.groups(np.arange(kernel.items), kernel.items)
    here = here // groups
    if tensor.chiplet != EVERYWHERE:
        return float(np.mean(here != tensor.chiplet // groups))
    low, high = _reach(access, kernel)
    low, high, elements = _dealt(low.reshape(-1), high.reshape(-1), prod(access.shape), tensor, dealing)
    first = dealing.groups(low, elements) // groups
    last = dealing.groups(high, elements) // groups
    inside = (first <= here) & (here <= last)
    # What spreads over several places is taken to be spread evenly.
    return float(np.mean(1.0 - inside / (last - first + 1)))


def _dealt(low: Array, high: Array, elements: int, tensor: Tensor, dealing: Dealing) -> tuple[Array, Array, int]:
    """The first and last of what is dealt, rows, columns or elements, and how many there are."""
    width = tensor.width
    if not width:
        row = tensor.unit(elements, dealing.parts)
        return low // row, high // row, elements // row
    wraps = high % width - low % width != (high - low) % width
    return np.where(wraps, 0, low % width), np.where(wraps, width - 1, high % width), width


def _reach(access: BoundAccess, kernel: BoundKernel) -> tuple[Array, Array]:
    """The first and last element that each item may use, in all steps of its loops; a dimension for each range."""
    counts = [kernel.counts[each.name] for each in kernel.grid]
    steps = {each.name: np.arange(count) for each, count in zip(kernel.grid, counts, strict=True)}
    first = last = np.zeros([1] * len(counts), np.int64)
    for dim, (base, size, stride) in enumerate(zip(access.base, access.shape, access.strides, strict=True)):
        low = high = np.full([1] * len(counts), base, np.int64)
        for axis in (axis for group in access.axes for axis in group if axis.dim == dim):
            counter = axis.size if isinstance(axis.size, int) else axis.size.evaluate(kernel.largest)
            reach = axis.step * (counter - 1)
            low, high = low + min(0, reach), high + max(0, reach)
        for name, move in access.moves.items():
            if name in steps:
                behind = len(counts) - list(steps).index(name) - 1
                along = move[dim] * steps[name].reshape([-1] + [1] * behind)
                low, high = low + along, high + along
            else:
                reach = move[dim] * (kernel.counts[name] - 1)
                low, high = low + min(0, reach), high + max(0, reach)
        # The last tile of a row that is not full ends with it.
        low, high = np.clip(low, 0, max(0, size - 1)), np.clip(high, 0, max(0, size - 1))
        first, last = first + low * stride, last + high * stride
    return np.broadcast_to(first, counts), np.broadcast_to(last, counts)
