"""Simulated annealing of a pipeline: the moves of `balance.py`, one at a time, also such that make it a little worse.

Evening out goes downhill and starts again from the best: it does not leave a placement in which each device has nine
of the long ops and should have eight, the ninth of each being elsewhere. Here a move that lengthens the period by a
part d is made with probability exp(-d / t), and t falls from 0.2% to 0.02% on the way. The period is smoothed: the 24th
root of the sum of the loads' 24th powers, which a move that helps the second busiest device lowers as well.

Where memories are nearly full no single move fits, and only an exchange helps. So a move may leave a device with more
than it has room for, at a price, as a part of the period for a part of the memory. The price rises while some device
has too much and falls while none has, so that the search goes to and fro across that border; what is kept is within it.

A step takes 50 to 500 microseconds, as nodes have more values and devices stream more weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random
from time import perf_counter

from gimlet.compiler.placement.model.problem import Placement, Problem
from gimlet.compiler.placement.model.segments import Found, judge
from gimlet.compiler.placement.search.balance import POWER, Balance, Change, Loads

_HOT, _COLD = 2e-3, 2e-4
_CHANGES = 0.08
"""How many of the steps concern whole segments, or make new ones."""
_KINDS = 10
"""Of such changes, out of which come exchanges (2), wholes (1), joins (1), stretches (2) and splits (4)."""
_TIDIED = 200
"""After so many moves sums are added up again, segments without nodes are left out, and the price of memory changes."""
_DEARER = 1.5
"""By what the price of memory that a device does not have changes."""
_CLOCKED = 16
"""The clock is read once in so many steps."""


def annealed(
    problem: Problem, start: Found, seed: int, steps: int, seconds: float = math.inf, hot: float = _HOT
) -> Found:
    """`start`, or a placement with a shorter period, after so many steps or `seconds` of wall time.

    `hot` is the first temperature, as a part of the period. Where rules limit figures, shares or segments, of which
    moves know nothing, it is left at `start`.
    """
    rules = problem.rules
    limited = rules.max_segments is not None or rules.loss_budget is not None or rules.min_share or rules.bounds
    if limited or len(set(start.placement.segment)) < 2:
        return start
    found = judge(problem, Annealing(problem, start.placement, Random(seed)).anneal(steps, seconds, hot))
    objective = rules.objective
    return min(start, found, key=lambda candidate: candidate.rank(objective))


class Annealing(Balance):
    """One run. Loads are counted in units of the first period."""

    may_cut = False
    """Whether a segment is also cut in two on its own place, which no period gains by."""

    def __init__(self, problem: Problem, placement: Placement, random: Random) -> None:
        super().__init__(problem, placement)
        self.random = random
        self.unit = self.figure() or 1.0
        self.sum = self._sum(self.load)
        """Of the powers of all loads."""
        self.price = 1.0
        """Of a part of a memory that is missing, in parts of the period."""

    def anneal(self, steps: int, seconds: float, hot: float) -> Placement:
        began, done, moves = perf_counter(), 0.0, 0
        best = self._state()
        for step in range(steps):
            if step % _CLOCKED == 0:
                done = max(step / steps, (perf_counter() - began) / seconds)
            if done > 1:
                break
            if not self._step(hot * (_COLD / hot) ** done):
                continue
            moves += 1
            if moves % _TIDIED == 0:
                self._tidy()
            if self.figure() < best.figure * (1 - 1e-9) and not self._missing(self.load):
                best = self._state()
        self._restore(best)
        return self.placement()

    def _step(self, temperature: float) -> bool:
        """Makes a move at random, if its cost is not too high; whether it did."""
        if self.random.random() < _CHANGES:
            change = self._any_change()
            loads = self._loads_after(change) if change else {}
            if change is None or not self._accepts(loads, temperature):
                return False
            self._apply(change)
            self._keep(loads)
            return True
        nodes = self._any_nodes()
        goals = list(self._goals(nodes)) if nodes else []
        if not goals:
            return False
        goal = self.random.choice(goals)
        loads = self._try(nodes, goal)
        if not self._accepts(loads, temperature):
            return False
        self._move(nodes, goal)
        self._keep(loads)
        return True

    def _any_nodes(self) -> tuple[int, ...]:
        """A unit, alone or with all before or after it in its segment, as far as that is not too much."""
        unit = self.random.choice(self.units)
        home = self.segment[unit[0]]
        if any(self.segment[node] != home for node in unit):
            return ()
        graph = self.random.choice((None, self.problem.predecessors, self.problem.successors))
        return unit if graph is None else self._reached(unit, graph) or unit

    def _accepts(self, loads: Loads, temperature: float) -> bool:
        """Whether to make a move that leads to these loads; their powers count from then on."""
        before = {key: self.load.get(key, 0.0) for key in loads}
        after = max(self.sum - self._sum(before) + self._sum(loads), 0.0)
        worse = after ** (1 / POWER) - self.sum ** (1 / POWER) + self._too_much(before, loads)
        if worse > 0 and self.random.random() >= math.exp(-worse / temperature):
            return False
        self.sum = after
        return True

    def figure(self) -> float:
        return max(load for key, load in self.load.items() if not isinstance(key, tuple))

    def _sum(self, loads: Loads) -> float:
        return sum((max(load, 0.0) / self.unit) ** POWER for key, load in loads.items() if not isinstance(key, tuple))

    def _too_much(self, before: Loads, after: Loads) -> float:
        """What is paid for memory that is missing after a move and was not before."""
        return self.price * (self._missing(after) - self._missing(before))

    def _missing(self, loads: Loads) -> float:
        """The parts of their memories that devices have too much by, in all."""
        limits = self.residency.limits
        return sum(
            load / max(limits[key[1]], 1)
            for key, load in loads.items()
            if isinstance(key, tuple) and key[0] == "missing"
        )

    def _count_missing(self, into: Loads) -> None:
        """Adds the bytes that devices have too much by now and did not; more than at the start."""
        for device in self.residency.limits:
            key = "missing", device, device
            missing = float(max(self.residency.excess(device) - self.full[device], 0))
            if missing != self.load.get(key, 0.0):
                into[key] = missing - self.load.get(key, 0.0)

    def _count_memory(self, into: Loads) -> None:
        for device in self.streamed:
            if device in into:
                into[device] += self.residency.streaming_s(device) - self.streamed[device]
        self._count_missing(into)

    def _any_change(self) -> Change | None:
        """Two segments that change places, one that goes elsewhere, two that become one, or new ones."""
        kind = self.random.randrange(_KINDS)
        used = [number for number, count in self.count.items() if count]
        if kind < 2:
            return self._exchange(used)
        if kind < 3:
            return self._one_of(self._wholes(self.random.choice(used)))
        if kind < 4:
            return self._one_of(self._joins(self.random.choice(used)))
        if kind < 6:
            return self._stretch(self.random.choice(used))
        return self._one_of(self._splits(self.random.choice(self.units)))

    def _stretch(self, home: int) -> Change | None:
        """Consecutive nodes of a segment as one of their own, and those after them as another where they were.

        The last ones may stay on their place: what comes before them can then send its values earlier.
        """
        nodes = [node for node, number in enumerate(self.segment) if number == home]
        numbers = self._numbers_after(home)
        if len(nodes) < 2 or not numbers or not self.fixed.isdisjoint(nodes):
            return None
        begin = self.random.randrange(1, len(nodes))
        end = self.random.choice((len(nodes), self.random.randint(begin + 1, len(nodes))))
        own = [self.place_of[home]] if end == len(nodes) and self.may_cut else []
        places = [*self._elsewhere(tuple(nodes[begin:end]), home), *own]
        if not places:
            return None
        middle, last = numbers
        moved = dict.fromkeys(nodes[begin:end], middle) | dict.fromkeys(nodes[end:], last)
        there = {middle: self.random.choice(places), last: self.place_of[home]}
        return Change(home, moved, {n: there[n] for n in set(moved.values())}, tuple(moved))

    def _one_of(self, changes: Iterable[Change]) -> Change | None:
        options = list(changes)
        return self.random.choice(options) if options else None

    def _exchange(self, used: list[int]) -> Change | None:
        """Each of two segments on the other's place, where both may be there."""
        left, right = self.random.choice(used), self.random.choice(used)
        goals = {left: self.place_of[right], right: self.place_of[left]}
        nodes = tuple(node for node, home in enumerate(self.segment) if home in goals)
        allowed = self.problem.allowed
        if len(set(goals.values())) < 2 or not self.fixed.isdisjoint(nodes):
            return None
        if any(goals[self.segment[node]] not in allowed[node] for node in nodes):
            return None
        return Change(left, {}, goals, nodes)

    def _tidy(self) -> None:
        self.sum = self._sum(self.load)
        self.price *= _DEARER if self._missing(self.load) else 1 / _DEARER
        for number in [number for number, count in self.count.items() if not count]:
            del self.count[number], self.place_of[number]
