"""The shortest time in which one block can be done, given the places of the joints at its two ends.

Used by `latency_bound`. Times count from the end of the first joint to the end of the last. Index -1 as an end is the
host itself, where inputs come from and outputs go to: it has no launch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from time import perf_counter

from gimlet.compiler.placement.bounds.atomic_bound import Steps, atomic_bound
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem

_INFINITE = float("inf")
_LARGEST = 100
_MOST = 40_000


@dataclass(frozen=True)
class Ends:
    """The places of the first and the last joint; -1 is the host."""

    first: int
    last: int


@dataclass(frozen=True)
class Block:
    """Nodes between two joints, and bytes along edges. None where there is no edge.

    `sources[i]` is from the first joint to inner node `i`, `sinks[i]` from it to the last joint, `edges[i]` lists
    (inner predecessor, bytes), `direct` is from joint to joint.
    """

    inner: tuple[int, ...]
    last: int
    sources: tuple[int | None, ...]
    sinks: tuple[int | None, ...]
    edges: tuple[tuple[tuple[int, int], ...], ...]
    direct: int | None


@dataclass
class BlockTable:
    """Seconds of node by place, transfers, and the blocks solved so far: equal layers are solved once.

    `charge` is a price of node by place (of either sign) that is added to the seconds of a block once, whatever its
    schedule: the multipliers of `relaxed_bound`. `budget` is how many branches all
    searches may still follow together, at most `_MOST` each, and none after `until` (of `time.perf_counter`).
    """

    seconds: list[list[float]]
    problem: Problem
    charge: list[list[float]]
    budget: int
    until: float = _INFINITE
    solved: dict[object, tuple[float, tuple[int, ...]]] = field(
        default_factory=dict[object, tuple[float, tuple[int, ...]]]
    )

    @cached_property
    def alike(self) -> list[list[tuple[int, ...]]]:
        """Classes of devices that may be exchanged under these charges, each device as its places."""
        problem = self.problem
        columns = list(zip(*self.charge, strict=True))
        found: list[list[tuple[int, ...]]] = []
        for members in device_classes(problem):
            places = [tuple(p for p, owner in enumerate(problem.device_of) if owner == d) for d in members]
            charged = [[columns[place] for place in own] for own in places]
            if len(members) > 1 and all(other == charged[0] for other in charged):
                found.append(places)
        return found

    def exchange(self, ends: Ends) -> list[int]:
        """For each place the one that stands for it, devices that are alike exchanged so that equal ends look equal."""
        stands = list(range(len(self.problem.places)))
        for members in self.alike:
            used = [own for place in (ends.first, ends.last) for own in members if place in own]
            order = list(dict.fromkeys([*used, *members]))
            for own, other in zip(order, members, strict=True):
                for place, instead in zip(own, other, strict=True):
                    stands[place] = instead
        return stands

    @cached_property
    def steps(self) -> Steps:
        """What steps between places take, as arrays."""
        return Steps(self.problem)

    def device(self, place: int) -> int:
        return self.problem.host if place < 0 else self.problem.device_of[place]

    def hop(self, source: int, destination: int, size_bytes: int | None) -> float:
        """Seconds from the end of a node on one place to the start of a follower on another. None: only an order."""
        if source == destination:
            return 0.0
        left, right = self.device(source), self.device(destination)
        launch = 0.0 if destination < 0 else self.problem.launch_s[destination]
        return launch + (0.0 if size_bytes is None else self.problem.transfer_s(left, right, size_bytes))


def solve_block(table: BlockTable, block: Block, ends: Ends) -> tuple[float, tuple[int, ...]]:
    """A lower bound on the block's seconds, the last joint included, and places of the inner nodes that suggest it."""
    own = 0.0
    if block.last >= 0:
        own = table.seconds[block.last][ends.last] + table.charge[block.last][ends.last]
    if not block.inner:
        if block.direct is None:
            # An order without a value (through nodes that were left out): the second joint is launched after the first.
            return own + (table.hop(ends.first, ends.last, None) if block.last >= 0 else 0.0), ()
        return own + table.hop(ends.first, ends.last, block.direct), ()
    exchange = table.exchange(ends)
    ends = Ends(*(place if place < 0 else exchange[place] for place in (ends.first, ends.last)))
    rows = tuple(tuple(table.seconds[node]) for node in block.inner)
    charges = tuple(tuple(table.charge[node]) for node in block.inner)
    key = rows, charges, block.sources, block.sinks, block.edges, block.direct, ends
    found = table.solved.get(key)
    if found is None:
        found = table.solved[key] = _solved(table, block, ends)
    seconds, places = found
    return own + seconds, tuple(exchange.index(place) for place in places)


def _solved(table: BlockTable, block: Block, ends: Ends) -> tuple[float, tuple[int, ...]]:
    least, together = atomic_bound(table, block, ends)
    seconds, places = _Search(table, block, ends).run(least)
    if least >= seconds and together:
        places = (max(ends.first, ends.last),) * len(block.inner)
    return max(seconds, least), places


class _Search:
    """Branch and bound over the places of a block's inner nodes."""

    def __init__(self, table: BlockTable, block: Block, ends: Ends) -> None:
        self.table, self.block, self.ends = table, block, ends
        self.rows = [table.seconds[node] for node in block.inner]
        self.charge = [table.charge[node] for node in block.inner]
        self.places = [[p for p, s in enumerate(row) if s < _INFINITE] for row in self.rows]
        self.count = len(block.inner)
        self.launch = table.problem.launch_s
        least = [min(self.charge[i][p] for p in places) for i, places in enumerate(self.places)]
        self.least_after = [sum(least[i:]) for i in range(self.count + 1)]
        self.floor = 0.0 if block.direct is None else table.hop(ends.first, ends.last, block.direct)
        self.tail = self._tails()
        self.best = _INFINITE
        self.best_places: tuple[int, ...] = ()
        self.budget = min(table.budget, _MOST)
        # The least that a branch could reach that was not followed when the budget had run out.
        self.open = _INFINITE

    def run(self, known: float) -> tuple[float, tuple[int, ...]]:
        """The bound and places that suggest it. `known` is another bound: what is not above it is not refined."""
        for place in sorted({place for places in self.places for place in places}):
            self._offer([place if place in places else self._fastest(i) for i, places in enumerate(self.places)])
        self._offer([self._fastest(i) for i in range(self.count)])
        if self.best <= known:
            return self.best, self.best_places
        if self.count > _LARGEST:
            return self._coarse(), self.best_places
        self.table.budget -= self.budget
        self._descend([], [], {}, 0.0)
        self.table.budget += max(self.budget, 0)
        return (self.best if self.budget > 0 else max(min(self.best, self.open), self._coarse())), self.best_places

    def _fastest(self, index: int) -> int:
        return min(self.places[index], key=lambda place: self.rows[index][place] + self.charge[index][place])

    def _tails(self) -> list[dict[int, float]]:
        """From the end of an inner node on a place to the start of the last joint, along the cheapest longest path."""
        tails: list[dict[int, float]] = [{} for _ in range(self.count)]
        followers: list[list[tuple[int, int]]] = [[] for _ in range(self.count)]
        for index, sources in enumerate(self.block.edges):
            for source, size in sources:
                followers[source].append((index, size))
        for index in reversed(range(self.count)):
            sink = self.block.sinks[index]
            for place in self.places[index]:
                longest = self.table.hop(place, self.ends.last, sink)
                for following, size in followers[index]:
                    longest = max(
                        longest,
                        min(
                            self.table.hop(place, p, size) + self.rows[following][p] + tails[following][p]
                            for p in self.places[following]
                        ),
                    )
                tails[index][place] = longest
        return tails

    def _step(self, index: int, place: int, places: Sequence[int], finish: Sequence[float]) -> tuple[float, float]:
        """When inner node `index` on `place` can have ended, and when its inputs from elsewhere have arrived.

        The second is -1 where there are none, so that the node can be in the first joint's segment.
        """
        source = self.block.sources[index]
        launch = self.launch[place]
        start = self.table.hop(self.ends.first, place, source)
        arrival = -1.0
        if place != self.ends.first and source is not None:
            arrival = start - launch
        for before, size in self.block.edges[index]:
            ready = finish[before] + self.table.hop(places[before], place, size)
            start = max(start, ready)
            if places[before] != place:
                arrival = max(arrival, ready - launch)
        return start + self.rows[index][place], arrival

    def _busy(self, loads: Mapping[int, tuple[float, float]]) -> float:
        """The time until a place has done its nodes, at least.

        On the first joint's place, whatever needs an input from elsewhere needs a launch. On another place there is one
        launch, after all inputs from elsewhere have arrived, or there are two. A device does one thing at a time.
        """
        longest = 0.0
        devices: dict[int, float] = {}
        for place, (work, arrival) in loads.items():
            launch = self.launch[place]
            if place == self.ends.first:
                spent = work + (launch if arrival >= 0 else 0.0)
                longest = max(longest, spent)
            else:
                spent = work + launch
                longest = max(longest, spent + min(max(arrival, 0.0), launch))
            device = self.table.device(place)
            devices[device] = devices.get(device, 0.0) + spent
        return max(longest, *devices.values(), 0.0)

    def _added(
        self, loads: Mapping[int, tuple[float, float]], index: int, place: int, arrival: float
    ) -> dict[int, tuple[float, float]]:
        work, before = loads.get(place, (0.0, -1.0))
        return {**loads, place: (work + self.rows[index][place], max(before, arrival))}

    def _offer(self, places: list[int]) -> None:
        """Makes `places` the incumbent where it is better."""
        finish: list[float] = []
        loads: dict[int, tuple[float, float]] = {}
        value = self.floor
        for index, place in enumerate(places):
            end, arrival = self._step(index, place, places, finish)
            finish.append(end)
            value = max(value, end + self.tail[index][place])
            loads = self._added(loads, index, place, arrival)
        value = max(value, self._busy(loads)) + sum(self.charge[i][place] for i, place in enumerate(places))
        if value < self.best:
            self.best, self.best_places = value, tuple(places)

    def _helps(self, value: float) -> bool:
        return value < self.best - 1e-9 * abs(self.best)

    def _descend(
        self, places: list[int], finish: list[float], loads: Mapping[int, tuple[float, float]], charged: float
    ) -> None:
        index = len(places)
        if index == self.count:
            self._offer(places)
            return
        self.budget -= 1
        if not self.budget % 64 and perf_counter() > self.table.until:
            self.budget = 0
        choices: list[tuple[float, int, float, dict[int, tuple[float, float]]]] = []
        for place in self.places[index]:
            end, arrival = self._step(index, place, places, finish)
            after = self._added(loads, index, place, arrival)
            reach = max(end + self.tail[index][place], self._busy(after), self.floor)
            reach += charged + self.charge[index][place] + self.least_after[index + 1]
            choices.append((reach, place, end, after))
        for reach, place, end, after in sorted(choices, key=lambda choice: choice[:2]):
            if not self._helps(reach):
                continue
            if self.budget <= 0:
                self.open = min(self.open, reach)
            else:
                self._descend([*places, place], [*finish, end], after, charged + self.charge[index][place])

    def _coarse(self) -> float:
        """Where the search was too long: the longest path, and the work spread over all devices at their best."""
        finish: list[dict[int, float]] = []
        longest = self.floor
        for index in range(self.count):
            ends: dict[int, float] = {}
            for place in self.places[index]:
                start = self.table.hop(self.ends.first, place, self.block.sources[index])
                for before, size in self.block.edges[index]:
                    start = max(start, min(end + self.table.hop(p, place, size) for p, end in finish[before].items()))
                ends[place] = start + self.rows[index][place]
            finish.append(ends)
            longest = max(longest, min(end + self.tail[index][place] for place, end in ends.items()))
        every = sorted({place for places in self.places for place in places})
        return max([longest, *(self._spread(place, every) for place in every)]) + self.least_after[0]

    def _spread(self, reference: int, every: Sequence[int]) -> float:
        """The least T with sum over devices of (T - lead) / ratio at least the work, in the seconds of `reference`.

        Only nodes that the reference takes are counted; a device's ratio is its best over those nodes.
        """
        counted = [i for i in range(self.count) if reference in self.places[i] and self.rows[i][reference] > 0]
        work = sum(self.rows[i][reference] for i in counted)
        if not work:
            return 0.0
        rates: dict[int, tuple[float, float]] = {}
        for place in every:
            ratios = [self.rows[i][place] / self.rows[i][reference] for i in counted if place in self.places[i]]
            if not ratios:
                continue
            device = self.table.device(place)
            lead, rate = self.table.hop(self.ends.first, place, None), 1 / max(min(ratios), 1e-12)
            before = rates.get(device, (lead, rate))
            rates[device] = min(before[0], lead), max(before[1], rate)
        steps = sorted(rates.values())
        speed = done = 0.0
        for (lead, rate), (following, _) in pairwise([*steps, (_INFINITE, 0.0)]):
            speed += rate
            if done + speed * (following - lead) >= work:
                return lead + (work - done) / speed
            done += speed * (following - lead)
        return 0.0
