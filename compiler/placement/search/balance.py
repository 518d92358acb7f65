"""Evens out the load of a pipeline: moves nodes between segments while the busiest devices and links get less to do.

What is lowered is the sum of a high power of all loads, so that not only the busiest one counts: a move that helps the
second busiest opens the next move. Loads are kept up to date with each move, which takes microseconds where a whole
schedule takes milliseconds. What moves is a node, or nodes that one kernel runs, alone or with all that must come
before (or after) them in their segment. They move into a segment that their neighbours allow (none of their sources
later, none of their consumers earlier), so segments keep an order in which they can run; a segment may empty, which
saves its launch. Where none of that helps, a segment moves to another place as a whole, is joined with the next one on
its place and what is between them, or is split: some nodes become a segment of their own elsewhere, between what came
before them and what follows. That pays for its launches where one device is far better at an op than the one around it.
Where no move helps, a few at random are made and the search goes
on from there, a number of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from time import perf_counter

from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Placement, Problem
from gimlet.compiler.placement.model.segments import Found, judge, renumber
from gimlet.compiler.placement.search.residency import Residency

Key = int | str | tuple[str, int, int]
Loads = dict[Key, float]
POWER = 24
"""Of the loads in the sum that is lowered."""
_SWEEPS = 30
_MOST_MOVED = 24
_SPACING = 3**20


def balanced(problem: Problem, start: Found, kicks: int = 0, seed: int = 0, seconds: float | None = None) -> Found:
    """`start`, or a placement with a shorter period that moves of nodes lead to.

    `kicks` is how often to go on, as long as `seconds` of wall time have not passed.
    """
    if len(set(start.placement.segment)) < 2:
        return start
    found = judge(problem, Balance(problem, start.placement).run(kicks, Random(seed), seconds))
    objective = problem.rules.objective
    return min(start, found, key=lambda candidate: candidate.rank(objective))


@dataclass(frozen=True)
class State:
    """What a search can go back to."""

    figure: float
    place: list[int]
    segment: list[int]
    place_of: dict[int, int]
    count: dict[int, int]
    load: Loads


@dataclass(frozen=True)
class Change:
    """Nodes of segment `home` with a new segment, segments with a new place, and all nodes that either concerns.

    `dropped` are segments that are none any more.
    """

    home: int
    segment: Mapping[int, int]
    place_of: Mapping[int, int]
    around: tuple[int, ...]
    dropped: frozenset[int] = frozenset()


class Balance:
    """Loads of devices (by index) and of link directions (by name) under the current placement."""

    most_moved = _MOST_MOVED

    def __init__(self, problem: Problem, placement: Placement) -> None:
        self.problem = problem
        self.place, self.segment = list(placement.place), [number * _SPACING for number in placement.segment]
        self.place_of = dict(zip(self.segment, placement.place, strict=True))
        self.count = {number: self.segment.count(number) for number in self.place_of}
        self.fusions: list[list[int]] = [[] for _ in problem.nodes]
        for index, fusion in enumerate(problem.fusions):
            for node in (fusion.producer, fusion.consumer):
                self.fusions[node].append(index)
        self.fixed = {node for group in (*problem.rules.together, *chain(*problem.rules.apart)) for node in group}
        self.classes = device_classes(problem)
        self.until = float("inf")
        self.units = [*dict.fromkeys((*_kernels(problem), *((node,) for node in range(len(problem.nodes)))))]
        self.residency = Residency(problem, placement.place)
        self.full = {device: self.residency.excess(device) for device in range(len(problem.devices))}
        """Bytes too many that were there at the start: no move adds to them."""
        self.streamed = {device: self.residency.streaming_s(device) for device in problem.streaming}
        self.load: Loads = {**self.streamed}
        for number in self.place_of:
            self._launch(number, 1.0, self.load)
        self._count(range(len(self.place)), range(len(problem.fusions)), range(len(problem.values)), 1.0, self.load)

    def run(self, kicks: int, random: Random, seconds: float | None = None) -> Placement:
        self.until = float("inf") if seconds is None else perf_counter() + seconds
        self._settle()
        best = self._state()
        for _ in range(kicks):
            if perf_counter() > self.until:
                break
            self._kick(random)
            self._settle_nodes()
            if self.figure() <= best.figure:
                self._settle()
                best = self._state()
            else:
                self._restore(best)
        self._restore(best)
        return self.placement()

    def placement(self) -> Placement:
        """Where the nodes are now, segments without gaps in their numbers."""
        return Placement(tuple(self.place), renumber(self.segment))

    def figure(self) -> float:
        """The load of the busiest device or link."""
        return max(self.load.values())

    def _settle(self) -> None:
        for _ in range(_SWEEPS):
            self._settle_nodes()
            if not self._sweep_segments():
                return

    def _settle_nodes(self) -> None:
        for _ in range(_SWEEPS):
            if not self._sweep():
                return

    def _sweep_segments(self) -> bool:
        """Moves segments as a whole, and splits them, while that helps."""
        improved = False
        for number in sorted(self.place_of):
            if self.count[number] and self._best_change(chain(self._wholes(number), self._joins(number))):
                improved = True
        if self.problem.rules.max_segments is not None:
            return improved
        for unit in self.units:
            if perf_counter() > self.until:
                return False
            if self._best_change(self._splits(unit)):
                improved = True
        return improved

    def _best_change(self, changes: Iterable[Change]) -> bool:
        """Makes the change that helps most, if one does."""
        best: tuple[float, Change, Loads] | None = None
        for change in changes:
            loads = self._loads_after(change)
            gain = self._gain(loads)
            if gain > 1e-9 and (best is None or gain > best[0]):
                best = gain, change, loads
        if best is None:
            return False
        self._apply(best[1])
        self._keep(best[2])
        return True

    def _wholes(self, number: int) -> Iterator[Change]:
        """The segment on each other place that takes all of it."""
        nodes = tuple(node for node, home in enumerate(self.segment) if home == number)
        if not self.fixed.isdisjoint(nodes):
            return
        for place in self._elsewhere(nodes, number):
            yield Change(number, {}, {number: place}, nodes)

    def _joins(self, number: int) -> Iterator[Change]:
        """The segment and the next one of its place as one, with what leads from the one to the other."""
        place = self.place_of[number]
        later = [n for n, count in self.count.items() if count and n > number and self.place_of[n] == place]
        if not later:
            return
        last = min(later)
        first_nodes = [node for node, home in enumerate(self.segment) if home == number]
        last_nodes = [node for node, home in enumerate(self.segment) if home == last]
        behind = self._between(first_nodes, self.problem.successors, number, last)
        ahead = self._between(last_nodes, self.problem.predecessors, number, last)
        moved = dict.fromkeys((*first_nodes, *behind), last)
        # What only comes behind the first one would come before it.
        if behind - ahead or not self.fixed.isdisjoint(moved):
            return
        if all(place in self.problem.allowed[node] for node in behind):
            homes = {self.segment[node] for node in behind}
            yield Change(number, moved, {home: self.place_of[home] for home in homes}, tuple(moved))

    def _between(self, nodes: Iterable[int], graph: Sequence[tuple[int, ...]], low: int, high: int) -> set[int]:
        """What the graph leads to from the nodes through segments between two."""
        found: set[int] = set()
        stack = list(nodes)
        while stack:
            for node in graph[stack.pop()]:
                if node not in found and low < self.segment[node] < high:
                    found.add(node)
                    stack.append(node)
        return found

    def _elsewhere(self, nodes: tuple[int, ...], home: int) -> list[int]:
        """Places other than a segment's that take all the nodes, of devices that are alike the one with least to do."""
        common = set(self.problem.allowed[nodes[0]]).intersection(*(self.problem.allowed[n] for n in nodes))
        free = {min(members, key=lambda device: self.load.get(device, 0.0)) for members in self.classes}
        return [p for p in sorted(common) if self.problem.device_of[p] in free and p != self.place_of[home]]

    def _splits(self, unit: tuple[int, ...]) -> Iterator[Change]:
        """The unit as a segment of its own on each other place, and what follows it in its segment as another."""
        home = self.segment[unit[0]]
        if any(self.segment[node] != home for node in unit) or not self.fixed.isdisjoint(unit):
            return
        behind = self._behind(unit, home)
        in_the_middle = bool(behind) and len(unit) + len(behind) < self.count[home]
        if in_the_middle and self._seconds(unit) <= self.problem.launch_s[self.place_of[home]]:
            return
        numbers = self._numbers_after(home)
        if not numbers:
            return
        middle, last = numbers
        moved = dict.fromkeys(unit, middle) | dict.fromkeys(behind, last)
        for place in self._elsewhere(unit, home):
            yield Change(home, moved, {middle: place, last: self.place_of[home]}, tuple(moved))

    def _numbers_after(self, home: int) -> tuple[int, int] | None:
        """Two numbers for new segments between one and the next, where there are such."""
        after = min((number for number in self.place_of if number > home), default=home + _SPACING)
        middle, last = home + (after - home) // 3, home + 2 * (after - home) // 3
        return (middle, last) if home < middle < last < after else None

    def _seconds(self, unit: tuple[int, ...]) -> float:
        return sum(self.problem.nodes[node].options[self.place[node]].seconds for node in unit)

    def _behind(self, unit: tuple[int, ...], home: int) -> set[int]:
        """Nodes of the segment that come after a node of the unit, in any way within the segment."""
        found: set[int] = set()
        stack = list(unit)
        while stack:
            for node in self.problem.successors[stack.pop()]:
                if node not in found and self.segment[node] == home and node not in unit:
                    found.add(node)
                    stack.append(node)
        return found

    def _loads_after(self, change: Change) -> Loads:
        """The loads that differ after a change, with their new amounts."""
        changed: Loads = {}
        self._count_around(change, -1.0, changed)
        before = self._apply(change)
        self._count_around(change, 1.0, changed)
        self._count_memory(changed)
        self._apply(before)
        return {key: self.load.get(key, 0.0) + amount for key, amount in changed.items() if amount}

    def _count_around(self, change: Change, sign: float, into: Loads) -> None:
        """Adds (or takes off) all that a change could alter: its nodes, and the launches of their segments."""
        problem = self.problem
        fusions = {index for node in change.around for index in self.fusions[node]}
        values = {i for node in change.around for i in (*problem.inputs_of[node], *problem.outputs_of[node])}
        self._count(change.around, fusions, values, sign, into)
        for number in {change.home, *change.place_of, *change.segment.values(), *change.dropped}:
            if self.count.get(number, 0):
                self._launch(number, sign, into)

    def _apply(self, change: Change) -> Change:
        """Makes a change; returns the one that takes it back."""
        back = Change(
            change.home,
            {node: self.segment[node] for node in change.segment},
            {number: self.place_of[number] for number in change.place_of if number in self.place_of},
            change.around,
            frozenset(change.place_of.keys() - self.place_of.keys()),
        )
        self.place_of.update(change.place_of)
        for number in change.place_of:
            self.count.setdefault(number, 0)
        for node, number in change.segment.items():
            self.count[self.segment[node]] -= 1
            self.count[number] += 1
            self.segment[node] = number
        for node in change.around:
            self._put(node, self.place_of[self.segment[node]])
        for number in change.dropped:
            del self.place_of[number], self.count[number]
        return back

    def _state(self) -> State:
        return State(self.figure(), [*self.place], [*self.segment], {**self.place_of}, {**self.count}, {**self.load})

    def _restore(self, state: State) -> None:
        self.place, self.segment = [*state.place], [*state.segment]
        self.place_of, self.count, self.load = {**state.place_of}, {**state.count}, {**state.load}
        self.residency = Residency(self.problem, self.place)
        self._keep({})

    def _kick(self, random: Random) -> None:
        """Some moves at random, whatever they cost."""
        for _ in range(random.randint(2, 6)):
            options = list(self._moving(random.choice(self.units)))
            nodes = random.choice(options) if options else ()
            goals = list(self._goals(nodes)) if nodes else []
            if goals:
                goal = random.choice(goals)
                changed = self._try(nodes, goal)
                if float("inf") not in changed.values():
                    self._move(nodes, goal)
                    self._keep(changed)

    def _sweep(self) -> bool:
        improved = False
        for unit in self.units:
            if perf_counter() > self.until:
                return False
            best: tuple[float, tuple[int, ...], int, Loads] | None = None
            for nodes in self._moving(unit):
                for goal in self._goals(nodes):
                    changed = self._try(nodes, goal)
                    gain = self._gain(changed)
                    if gain > 1e-9 and (best is None or gain > best[0]):
                        best = gain, nodes, goal, changed
            if best is not None:
                self._move(best[1], best[2])
                self._keep(best[3])
                improved = True
        return improved

    def _moving(self, unit: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """The unit alone, and with what comes before or after it in its segment, where that is not much."""
        home = self.segment[unit[0]]
        if any(self.segment[node] != home for node in unit):
            return
        yield unit
        for graph in (self.problem.predecessors, self.problem.successors):
            found = self._reached(unit, graph)
            if len(found) > len(unit):
                yield found

    def _reached(self, unit: tuple[int, ...], graph: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The unit with all that the graph leads to from it within its segment; nothing where that is much."""
        home = self.segment[unit[0]]
        found = set(unit)
        stack = list(unit)
        while stack:
            for node in graph[stack.pop()]:
                if node not in found and self.segment[node] == home:
                    found.add(node)
                    stack.append(node)
            if len(found) > self.most_moved:
                return ()
        return tuple(sorted(found))

    def _goals(self, nodes: tuple[int, ...]) -> Iterator[int]:
        """Segments that the nodes may be in: of neighbours, and all between them."""
        if not self.fixed.isdisjoint(nodes):
            return
        inside = set(nodes)
        problem = self.problem
        before = [n for node in nodes for n in problem.predecessors[node] if n not in inside]
        behind = [n for node in nodes for n in problem.successors[node] if n not in inside]
        low = max((self.segment[n] for n in before), default=-1)
        high = min((self.segment[n] for n in behind), default=1 << 60)
        for goal, place in self.place_of.items():
            if not low <= goal <= high or goal == self.segment[nodes[0]]:
                continue
            if all(place in problem.allowed[node] for node in nodes):
                yield goal

    def _try(self, nodes: tuple[int, ...], goal: int) -> Loads:
        """The loads that change where the nodes move, with their new amounts."""
        problem, home = self.problem, self.segment[nodes[0]]
        changed: Loads = {}
        fusions = {index for node in nodes for index in self.fusions[node]}
        values = {i for node in nodes for i in (*problem.inputs_of[node], *problem.outputs_of[node])}
        self._count(nodes, fusions, values, -1.0, changed)
        if not self.count[goal]:
            self._launch(goal, 1.0, changed)
        self._move(nodes, goal)
        self._count(nodes, fusions, values, 1.0, changed)
        if not self.count[home]:
            self._launch(home, -1.0, changed)
        self._count_memory(changed)
        self._move(nodes, home)
        return {key: self.load.get(key, 0.0) + amount for key, amount in changed.items() if amount}

    def _gain(self, changed: Loads) -> float:
        """How much less the sum of powers is with the changed loads, in parts of the largest load's power."""
        largest = max(self.load.values())
        before = sum(_power(self.load.get(key, 0.0) / largest) for key in changed)
        return before - sum(_power(amount / largest) for amount in changed.values())

    def _move(self, nodes: tuple[int, ...], goal: int) -> None:
        self.count[self.segment[nodes[0]]] -= len(nodes)
        self.count[goal] += len(nodes)
        for node in nodes:
            self.segment[node] = goal
            self._put(node, self.place_of[goal])

    def _put(self, node: int, place: int) -> None:
        self.residency.move(node, self.place[node], place)
        self.place[node] = place

    def _keep(self, changed: Loads) -> None:
        """The loads after a move that is made."""
        self.load.update(changed)
        for device in self.streamed:
            self.streamed[device] = self.residency.streaming_s(device)

    def _count_memory(self, into: Loads) -> None:
        """Adds what the devices in `into` stream now and did not; a device whose memory is full has no end of load."""
        for device in [key for key in into if isinstance(key, int)]:
            if device in self.streamed:
                into[device] += self.residency.streaming_s(device) - self.streamed[device]
            if self.residency.excess(device) > self.full[device]:
                into[device] = float("inf")

    def _launch(self, number: int, sign: float, into: Loads) -> None:
        place = self.place_of[number]
        device = self.problem.device_of[place]
        into[device] = into.get(device, 0.0) + sign * self.problem.launch_s[place]

    def _count(
        self,
        nodes: Iterable[int],
        fusions: Iterable[int],
        values: Iterable[int],
        sign: float,
        into: Loads,
    ) -> None:
        """Adds (or takes off) what nodes, fusions and values load."""
        for node in nodes:
            place = self.place[node]
            device = self.problem.device_of[place]
            into[device] = into.get(device, 0.0) + sign * self.problem.nodes[node].options[place].seconds
        for index in fusions:
            self._fusion(index, sign, into)
        for index in values:
            self._value(index, sign, into)

    def _fusion(self, index: int, sign: float, into: Loads) -> None:
        fusion = self.problem.fusions[index]
        if self.segment[fusion.producer] == self.segment[fusion.consumer]:
            place = self.place[fusion.producer]
            device = self.problem.device_of[place]
            into[device] = into.get(device, 0.0) - sign * fusion.seconds.get(place, 0.0)

    def _value(self, index: int, sign: float, into: Loads) -> None:
        problem, value = self.problem, self.problem.values[index]
        source = problem.host if value.producer is None else problem.device_of[self.place[value.producer]]
        reached = {problem.device_of[self.place[consumer]] for consumer in value.consumers}
        if value.is_output:
            reached.add(problem.host)
        for device in reached - {source}:
            for link, seconds_per_byte in problem.routes[source, device].links:
                into[link] = into.get(link, 0.0) + sign * seconds_per_byte * value.size_bytes


def _power(ratio: float) -> float:
    """A term of the sum; no more than what a billion gives, which a float holds."""
    return min(max(ratio, 0.0), 1e9) ** POWER


def _kernels(problem: Problem) -> list[tuple[int, ...]]:
    """Nodes that fusions join, where there are several."""
    owner = list(range(len(problem.nodes)))
    for fusion in problem.fusions:
        # A consumer fuses into one producer, so a chain of them ends at the first.
        owner[fusion.consumer] = owner[fusion.producer]
    members: dict[int, list[int]] = {}
    for node, first in enumerate(owner):
        members.setdefault(first, []).append(node)
    return [tuple(nodes) for nodes in members.values() if 1 < len(nodes) <= _MOST_MOVED]
