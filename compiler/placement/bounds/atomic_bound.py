"""What a block of nodes between two joints takes at least because segments are atomic.

All nodes of a block are descendants of its first joint and ancestors of its last. With the segments of the two joints
given, there are three cases, and the least of them is a bound:

- *one*: both joints are in one segment. The block's nodes are in it as well, or the graph of segments had a cycle, so
  nothing of the block runs beside anything else of it;
- *two*: the joints are in two segments, and so are all nodes: these two run one after the other, and what is between
  them crosses a cut of the block;
- *more*: some node is in a third segment, which starts after the first has ended and ends before the last starts. On
  every path the first segment's nodes come before all that, and the last one's after it.

So whoever wants branches to run side by side pays two launches on the longest path. A host at either end has no
segment: there are then only the first case and the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from ortools.graph.python import max_flow

from gimlet.compiler.placement.model.problem import Problem

if TYPE_CHECKING:
    from gimlet.compiler.placement.bounds.block_bound import Block, BlockTable, Ends

Case = Literal["first", "last", "between"]
_INFINITE = float("inf")
_CUT_UNITS = 10**10
_MOST_UNITS = 10**13


class Steps:
    """Seconds between places of a problem as arrays, by (from, to): a launch, a route's latency, seconds a byte.

    The last row and column are the host itself, which has no launch.
    """

    def __init__(self, problem: Problem) -> None:
        devices = [*problem.device_of, problem.host]
        count = len(devices)
        self.launch = np.array([*problem.launch_s, 0.0])
        self.latency = np.zeros((count, count))
        self.rate = np.zeros((count, count))
        for source, left in enumerate(devices):
            for destination, right in enumerate(devices):
                if left != right:
                    route = problem.routes[left, right]
                    self.latency[source, destination] = route.latency_s
                    self.rate[source, destination] = route.seconds_per_byte
        nearest = self.latency.copy()
        for middle in range(count):
            np.minimum(nearest, nearest[:, middle, None] + nearest[None, middle, :], out=nearest)
        self.nearest: NDArray[np.float64] = nearest
        through = nearest[:, None, :-1] + self.launch[None, None, :-1] + nearest[:-1, :].T[None, :, :]
        self.detour: NDArray[np.float64] = through.min(axis=2)
        """The least time from one place to another by way of one more segment, the last launch not included."""


def atomic_bound(table: BlockTable, block: Block, ends: Ends) -> tuple[float, bool]:
    """Least seconds of the block, the last joint not included, and whether that is the case of one segment."""
    if ends.first < 0 and ends.last < 0:
        return sum(_least_charge(table, node) for node in block.inner), False
    one = one_segment(table, block, ends)
    rest = min(two_segments(table, block, ends), more_segments(table, block, ends))
    return min(one, rest), one <= rest


def one_segment(table: BlockTable, block: Block, ends: Ends) -> float:
    place = max(ends.first, ends.last)
    if ends.first != ends.last and min(ends.first, ends.last) >= 0:
        return _INFINITE
    total = sum(table.seconds[node][place] + table.charge[node][place] for node in block.inner)
    if ends.first < 0:
        total += max(table.hop(-1, place, size) for size in (*block.sources, block.direct))
    if ends.last < 0:
        total += max(table.hop(place, -1, size) for size in (*block.sinks, block.direct))
    return total


def two_segments(table: BlockTable, block: Block, ends: Ends, where: Mapping[int, Case] | None = None) -> float:
    """The least where all is in the two joints' segments, the last joint not included.

    `where` says of some inner nodes whether they are in the `first` or the `last`.
    """
    if ends.first == ends.last or min(ends.first, ends.last) < 0:
        return _INFINITE
    both = (ends.first, ends.last)
    steps = table.steps
    apart = float(steps.nearest[both] + steps.launch[ends.last])
    return apart + _least_cut(table, block, ends, float(steps.rate[both]), where or {})


def _least_cut(
    table: BlockTable, block: Block, ends: Ends, seconds_per_byte: float, where: Mapping[int, Case]
) -> float:
    """The least seconds of nodes and of bytes between two segments, charges included, over all cuts of the block.

    A cut of a network: on the source's side is the first segment, which what comes before its nodes is in as well. A
    producer sends at least its smallest edge where any consumer is in the last segment.
    """
    costs = [[table.seconds[n][p] + table.charge[n][p] for p in (ends.first, ends.last)] for n in block.inner]
    for index, case in where.items():
        costs[index][case == "first"] = _INFINITE
    finite = [abs(cost) for row in costs for cost in row if cost < _INFINITE]
    unit = max(sum(finite), 1e-30) / _CUT_UNITS
    if any(min(row) == _INFINITE for row in costs):
        return _INFINITE
    lift = [min(min(row), 0.0) for row in costs]
    flow = max_flow.SimpleMaxFlow()
    count = len(block.inner)
    source, sink = count, count + 1
    sent: dict[int, list[tuple[int, int]]] = {}
    for index, (here, there) in enumerate(costs):
        flow.add_arc_with_capacity(index, sink, _units(here - lift[index], unit))
        flow.add_arc_with_capacity(source, index, _units(there - lift[index], unit))
        entry = block.sources[index]
        if entry:
            sent.setdefault(source, []).append((index, entry))
        for before, size in block.edges[index]:
            flow.add_arc_with_capacity(index, before, _MOST_UNITS)
            if size:
                sent.setdefault(before, []).append((index, size))
        given = block.sinks[index]
        if given:
            sent.setdefault(index, []).append((sink, given))
    for number, (producer, edges) in enumerate(sent.items()):
        outlet = count + 2 + number
        flow.add_arc_with_capacity(producer, outlet, _units(min(e for _, e in edges) * seconds_per_byte, unit))
        for consumer, _ in edges:
            flow.add_arc_with_capacity(outlet, consumer, _MOST_UNITS)
    if flow.solve(source, sink) != flow.OPTIMAL:
        return sum(min(row) for row in costs)
    if flow.optimal_flow() >= _MOST_UNITS:
        return _INFINITE
    return flow.optimal_flow() * unit + sum(lift)


def _units(seconds: float, unit: float) -> int:
    return _MOST_UNITS if seconds == _INFINITE else min(int(seconds / unit), _MOST_UNITS)


def more_segments(table: BlockTable, block: Block, ends: Ends, where: Mapping[int, Case] | None = None) -> float:
    """The least where some node is in a third segment, the last joint not included.

    `where` says of some inner nodes which of the three cases they are in: `first`, `last` or `between`.

    The longest path, each node in the first joint's segment, in the last one's, or on a place between them.

    Columns are places between, then the first segment, then the last.
    """
    steps = table.steps
    places = len(table.problem.places)
    first, last = ends.first, ends.last
    host = places
    column = np.array([*range(places), first if first >= 0 else host, last if last >= 0 else host])
    order = np.broadcast_to(steps.launch[column], (places + 2, places + 2)).copy()
    np.fill_diagonal(order, 0.0)
    # Nothing goes back: into the first segment, or out of the last.
    order[:-2, -2] = order[-1, :-1] = _INFINITE
    latency = steps.latency[np.ix_(column, column)]
    rate = steps.rate[np.ix_(column, column)]
    least = np.zeros_like(order)
    if last >= 0:
        known = first >= 0 or all(
            size is not None for size, sources in zip(block.sources, block.edges, strict=True) if not sources
        )
        detour = steps.detour[column[-2], column[-1]] if known else float(steps.launch[:-1].min())
        least[-2, -1] = detour + steps.launch[last]
    closed = [index for index, end in ((places, first), (places + 1, last)) if end < 0]
    seconds = np.array([table.seconds[node] for node in block.inner])
    own = np.concatenate([seconds, seconds[:, column[-2:] % places]], axis=1)
    own[:, closed] = _INFINITE
    for index, case in (where or {}).items():
        kept = {"first": slice(places, places + 1), "last": slice(places + 1, None), "between": slice(places)}[case]
        allowed = own[index, kept].copy()
        own[index] = _INFINITE
        own[index, kept] = allowed

    def reached(ended: NDArray[np.float64], size_bytes: int | None) -> NDArray[np.float64]:
        """When a follower can start in each column, of a node that has ended in each column."""
        step = order if size_bytes is None else order + latency + rate * size_bytes
        return (ended[:, None] + np.maximum(step, least)).min(axis=0)

    ended: list[NDArray[np.float64]] = []
    longest = 0.0
    start = np.full(places + 2, _INFINITE)
    start[-2] = 0.0
    for index, sources in enumerate(block.edges):
        ready = np.zeros(places + 2)
        entry = block.sources[index]
        if entry is not None or not sources:
            ready = reached(start, entry)
        for before, size in sources:
            ready = np.maximum(ready, reached(ended[before], size))
        ended.append(ready + own[index])
        longest = max(longest, float(reached(ended[-1], block.sinks[index])[-1]))
    return longest + sum(_least_charge(table, node) for node in block.inner)


def _least_charge(table: BlockTable, node: int) -> float:
    return min(table.charge[node][place] for place in table.problem.allowed[node])
