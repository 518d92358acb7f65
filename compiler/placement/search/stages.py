"""The best way to cut a topological order into the stages of a pipeline, each on a device of its own.

Devices that are alike are interchangeable, so a state is how many of each class are used. For a period, each state
keeps how far along the order it gets; the least period for which some state gets to the end is found by bisection.
A stage has no more weights than its device's memory, and those that it streams make it longer. What it takes from the
host and from stages before it, and what it gives to the host, must go over its links within the period as well.
Exact for a chain whose cuts are cheap; elsewhere a start that the caller judges.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from time import perf_counter

import numpy as np

from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.search.carried import Carried, Row
from gimlet.compiler.placement.search.stretches import Stretches

_ROUNDS = 40
_NEAR = 24
"""How far before the last possible cut cheaper ones are sought."""
_LESS = 0.7
"""The part of the bytes over a cut that a cheaper one has at most."""
_KEPT = 4
"""Stages that are kept for each state, the farthest ones."""


@dataclass(frozen=True)
class _Stage:
    """The last stage of a state: the state before it, where it starts and ends, and its class and place."""

    before: tuple[int, ...] | None
    start: int
    end: int
    number: int
    place: int


def stage_cuts(problem: Problem, until: float = float("inf")) -> list[tuple[int, ...]]:
    """Places of the nodes for the best cuts of some topological orders; none where no cut of them is possible.

    The search ends after `until` (of `time.perf_counter`).
    """
    found: dict[tuple[int, ...], None] = {}
    for order in orders(problem):
        places = _Cuts(problem, order, until).run()
        if places:
            found[places] = None
    return list(found)


def orders(problem: Problem) -> list[list[int]]:
    """The numbering itself, and the order that finishes a branch before it starts the next one."""
    waiting = [len(sources) for sources in problem.predecessors]
    stack = [node for node, count in enumerate(waiting) if not count][::-1]
    deep: list[int] = []
    while stack:
        node = stack.pop()
        deep.append(node)
        for following in reversed(problem.successors[node]):
            waiting[following] -= 1
            if not waiting[following]:
                stack.append(following)
    plain = list(range(len(problem.nodes)))
    return [plain] if deep == plain else [plain, deep]


class _Cuts:
    """The search on one order."""

    def __init__(self, problem: Problem, order: Sequence[int], until: float = float("inf")) -> None:
        self.problem, self.order, self.until = problem, order, until
        self.classes = device_classes(problem)
        self.places = [
            [p for p, device in enumerate(problem.device_of) if device == members[0]] for members in self.classes
        ]
        rank = {node: index for index, node in enumerate(order)}
        fused: dict[tuple[int, int], float] = {}
        for fusion in problem.fusions:
            if rank[fusion.producer] < rank[fusion.consumer]:
                for place, seconds in fusion.seconds.items():
                    key = fusion.consumer, place
                    fused[key] = fused.get(key, 0.0) + seconds
        used = {place for places in self.places for place in places}
        # Seconds before each position, and the positions of nodes that the place does not take.
        self.before: dict[int, list[float]] = {}
        self.refused = {p: [i for i, n in enumerate(order) if p not in problem.allowed[n]] for p in used}
        for place in used:
            row = [problem.nodes[n].options[place].seconds if place in problem.allowed[n] else 0.0 for n in order]
            less = [fused.get((n, place), 0.0) if place in problem.allowed[n] else 0.0 for n in order]
            self.before[place] = [0.0, *accumulate(s - f for s, f in zip(row, less, strict=True))]
        stretches = {place: Stretches(problem, order, place) for place in used}
        self.stretches = {place: found for place, found in stretches.items() if found.matters}
        self.carried = Carried(problem, order)

    def run(self) -> tuple[int, ...]:
        low, high = 0.0, float(self.problem.seconds.min(axis=1).sum()) + max(self.problem.launch_s, default=0.0)
        best: tuple[int, ...] = ()
        for _ in range(6):
            best = self._reach(high)
            if best:
                break
            high *= 4
        for _ in range(_ROUNDS if best else 0):
            middle = (low + high) / 2
            found = self._reach(middle)
            if found:
                best, high = found, middle
            else:
                low = middle
        return best

    def _reach(self, period: float) -> tuple[int, ...]:
        """Places for stages of at most `period`, if there are such."""
        goal = len(self.order)
        start = (0,) * len(self.classes)
        states: dict[tuple[int, ...], list[_Stage]] = {start: [_Stage(None, 0, 0, -1, -1)]}
        waiting = [start]
        while waiting:
            following: dict[tuple[int, ...], None] = {}
            if perf_counter() > self.until:
                return ()
            for state in waiting:
                for last in states[state]:
                    for number, members in enumerate(self.classes):
                        if state[number] == len(members):
                            continue
                        after = (*state[:number], state[number] + 1, *state[number + 1 :])
                        for place in self.places[number]:
                            found = self._extend(state, last, number, place, period)
                            known = states.setdefault(after, [])
                            known += [stage for stage in found if not any(self._serves(old, stage) for old in known)]
                            following[after] = None
                            if any(stage.end == goal for stage in found):
                                stage = next(stage for stage in found if stage.end == goal)
                                return self._read(states, stage)
            for state in following:
                states[state] = sorted(states[state], key=lambda stage: -stage.end)[:_KEPT]
            waiting = list(following)
        return ()

    def _extend(self, state: tuple[int, ...], last: _Stage, number: int, place: int, period: float) -> list[_Stage]:
        """Stages on `place` that follow `last`: as long as the period allows, and to the cheapest cut near there."""
        begin = last.end
        before = self.before[place]
        limit = bisect_right(before, before[begin] + period - self.problem.launch_s[place]) - 1
        wall = bisect_right(self.refused[place], begin - 1)
        if wall < len(self.refused[place]):
            limit = min(limit, self.refused[place][wall])
        if limit > begin:
            limit = self._within_links(last, place, limit, period)
        if place in self.stretches:
            limit = self._within_memory(place, begin, limit, period)
        if limit <= begin:
            return []
        return [_Stage(state, begin, end, number, place) for end in self._ends(begin, limit)]

    def _ends(self, begin: int, limit: int) -> list[int]:
        """`limit`, and cuts near before it over which less and less goes."""
        alive, found = self.carried.alive, [limit]
        for position in range(limit - 1, max(begin, limit - _NEAR - 1), -1):
            if alive[position] < alive[found[-1]] * _LESS:
                found.append(position)
        return found

    def _serves(self, old: _Stage, new: _Stage) -> bool:
        """Whether an old stage of a state gets as far as a new one, with as little over its cut."""
        return old.end >= new.end and self.carried.alive[old.end] <= self.carried.alive[new.end]

    def _within_memory(self, place: int, begin: int, limit: int, period: float) -> int:
        """How far before `limit` a stage gets whose device holds its weights and streams some of them."""
        before, stretch = self.before[place], self.stretches[place]
        left = period - self.problem.launch_s[place] + before[begin]
        ends = range(begin + 1, limit + 1)
        return begin + bisect_right(ends, left, key=lambda end: before[end] + stretch.seconds(begin, end))

    def _within_links(self, last: _Stage, place: int, limit: int, period: float) -> int:
        """How far before `limit` a stage gets whose values go over its links, with what the one before it sends.

        What was made before it is taken to come from the stage before it.
        """
        routes, host, begin = self.problem.routes, self.problem.host, last.end
        source, device = self._neighbours(last.place, place)
        outputs = self.carried.outputs
        rows = [row[: limit - begin + 1] for row in self.carried.entering(begin)]
        loads: dict[str, Row] = {}

        def carry(origin: int, goal: int, row: Row) -> None:
            for link, rate in routes[origin, goal].links if origin != goal else ():
                loads[link] = loads.get(link, 0.0) + rate * row

        carry(host, device, rows[0])
        carry(device, host, outputs[begin : limit + 1] - outputs[begin])
        carry(source, device, rows[1])
        carry(source, host, np.full(len(rows[0]), outputs[begin] - outputs[last.start]))
        if not loads:
            return limit
        busiest = np.maximum.reduce(list(loads.values()))
        return begin + int(np.searchsorted(busiest, period, side="right")) - 1

    def _neighbours(self, left: int, right: int) -> tuple[int, int]:
        """The devices of two stages that follow each other; the host is before the first one."""
        source = self.problem.host if left < 0 else self.problem.device_of[left]
        device = self.problem.device_of[right]
        # Two of one class; a state has no more of them than there are.
        return source, self._members(right)[-1] if source == device else device

    def _members(self, place: int) -> list[int]:
        device = self.problem.device_of[place]
        return next(members for members in self.classes if device in members)

    def _read(self, states: dict[tuple[int, ...], list[_Stage]], stage: _Stage) -> tuple[int, ...]:
        """The places of all nodes: the stages back to the first, each on the next device of its class."""
        chosen = [-1] * len(self.order)
        current: _Stage | None = stage
        left = [len(members) for members in self.classes]
        while current is not None and current.before is not None:
            left[current.number] -= 1
            device = self.classes[current.number][left[current.number]]
            offset = self.places[current.number].index(current.place)
            place = [p for p, found in enumerate(self.problem.device_of) if found == device][offset]
            for position in range(current.start, current.end):
                chosen[self.order[position]] = place
            begin = current.start
            current = next((s for s in states[current.before] if s.end == begin), None)
        return tuple(chosen)
