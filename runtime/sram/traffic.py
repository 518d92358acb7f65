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
from gimlet.runtime.sram.dealing import Array
from gimlet.runtime.sram.program import Gather, Load, Program, Store


@dataclass(frozen=True)
class Traffic:
    """Bytes that one core moves for an item: in its own SRAM, and its part of what LPDDR and the chips' links carry."""

    sram: float = 0.0
    lpddr: float = 0.0
    die: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.sram + other.sram, self.lpddr + other.lpddr, self.die + other.die)

    def scaled(self, times: float) -> Traffic:
        return Traffic(self.sram * times, self.lpddr * times, self.die * times)


@dataclass(frozen=True)
class Route:
    """How the bytes of a transfer travel: `crossing` of each byte that a core moves goes over a link between chiplets.

    `readers` items share a load: its bytes are read once where they are. `latency` is from the last byte's departure to
    its arrival.
    """

    space: str
    readers: int
    crossing: float
    latency: float


def route(transfer: Load | Gather | Store, access: BoundAccess, kernel: BoundKernel, program: Program) -> Route:
    """How the elements of an access travel."""
    machine, space = program.machine, program.tensor(access.tensor).space
    readers = 1 if isinstance(transfer, Store) else _readers(access, kernel)
    if space == "lpddr":
        return Route(space, readers, 0.0, float(machine.lpddr_latency_cycles))
    chiplets = -(-program.cores // machine.cores_per_chiplet)
    away = 0.0
    if chiplets > 1:
        away = (chiplets - 1) / chiplets if isinstance(transfer, Gather) else _away(access, kernel, program, chiplets)
    crossing = away * (_chiplets_reading(access, kernel, program) if readers > 1 else 1) / readers
    return Route(space, readers, crossing, machine.network_latency_cycles + (machine.die_latency_cycles if away else 0))


def moved(size: float, route: Route, adds: bool) -> Traffic:
    """The bytes of a transfer of `size` bytes. What is added is read before it is written."""
    if route.space == "lpddr":
        return Traffic(sram=size, lpddr=size * (2 if adds else 1) / route.readers)
    return Traffic(sram=size * (2 if adds else 1) + size / route.readers, die=size * route.crossing)


def _readers(access: BoundAccess, kernel: BoundKernel) -> int:
    """How many items read the same elements."""
    return prod(kernel.counts[each.name] for each in kernel.grid if each.name not in access.moves)


def _chiplets_reading(access: BoundAccess, kernel: BoundKernel, program: Program) -> int:
    """On how many chiplets the items are that read the same elements as the first one."""
    items = np.zeros(1, np.int64)
    for each in kernel.grid:
        steps = np.arange(1 if each.name in access.moves else kernel.counts[each.name])
        items = (items[:, None] * kernel.counts[each.name] + steps).reshape(-1)
    cores = program.dealing.cores_of(items, kernel.items, kernel.kernel.first)
    return len(np.unique(cores // program.machine.cores_per_chiplet))


def _away(access: BoundAccess, kernel: BoundKernel, program: Program, chiplets: int) -> float:
    """The part of the elements that is on another chiplet than the item that uses them."""
    if program.parts != chiplets:
        return (chiplets - 1) / chiplets
    low, high = _reach(access, kernel)
    dealing, elements = program.dealing, prod(access.shape)
    here = dealing.groups(np.arange(kernel.items), kernel.items)
    first, last = dealing.groups(low.reshape(-1), elements), dealing.groups(high.reshape(-1), elements)
    inside = (first <= here) & (here <= last)
    # What spreads over several groups is taken to be spread evenly.
    return float(np.mean(1.0 - inside / (last - first + 1)))


def _reach(access: BoundAccess, kernel: BoundKernel) -> tuple[Array, Array]:
    """The first and last element that each item may use, in all steps of its loops; a dimension for each range."""
    low = high = sum(position * stride for position, stride in zip(access.base, access.strides, strict=True))
    for axis in (axis for group in access.axes for axis in group if axis.dim >= 0):
        size = axis.size if isinstance(axis.size, int) else axis.size.evaluate(kernel.largest)
        reach = axis.step * access.strides[axis.dim] * (size - 1)
        low, high = low + min(0, reach), high + max(0, reach)
    behind = {each.name: len(kernel.grid) - axis - 1 for axis, each in enumerate(kernel.grid)}
    moves = np.zeros([1] * len(behind), np.int64)
    for name, move in access.moves.items():
        distance = sum(each * stride for each, stride in zip(move, access.strides, strict=True))
        if name in behind:
            moves = moves + distance * np.arange(kernel.counts[name]).reshape([-1] + [1] * behind[name])
        else:
            reach = distance * (kernel.counts[name] - 1)
            low, high = low + min(0, reach), high + max(0, reach)
    moves = np.broadcast_to(moves, [kernel.counts[each.name] for each in kernel.grid])
    return moves + low, moves + high
