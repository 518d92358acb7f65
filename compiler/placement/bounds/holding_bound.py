"""A lower bound on latency where devices can hold only so much: their memories, or a limit on the period.

Every placement gives each device a set of nodes, and takes at least what these sets add along a path (`holdings.py`).
So for any worth of the nodes the latency is at least what all nodes are worth, less, for each device, the most that a
set which it can hold is worth beyond the seconds that it adds. Sets are whole: nodes are not split, memories of devices
that are alike are not one large memory, and each stretch pays for its launch.

The best worth is sought by cutting planes: a linear program takes what the sets so far allow, at first stretches of
the path, and between its answer and the best worth so far the next sets are sought. Where both memory and the period
limit a device, each alone does, and half of both together: a set that keeps both keeps these. The program has sets of
one of them at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from ortools.linear_solver import pywraplp

from gimlet.compiler.placement.bounds.holdings import Floats, Holding, Holdings, Resource
from gimlet.compiler.placement.bounds.linear import solved
from gimlet.compiler.placement.bounds.spine import Spine, heaviest_path
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem

_MOST_NODES = 200
"""Programs of more nodes take too many rounds."""
_NEAR = 3e-4
_SMOOTHED = 0.5
_ROUNDS = 400
_SHORTFALL = 1e-9


def holding_bound(problem: Problem, best_known: float = float("inf"), until: float = float("inf")) -> float:
    """Seconds, at most `best_known`; 0 where neither memories nor a limit on the period can bind.

    It ends after `until` (of `time.perf_counter`).
    """
    if not 0 < len(problem.nodes) <= _MOST_NODES:
        return 0.0
    classes = [members for members in device_classes(problem) if set(members) & set(problem.device_of)]
    resources = [_resources(problem, members[0]) for members in classes]
    if not any(resources):
        return 0.0
    spine = Spine(problem, heaviest_path(problem))
    ways = [
        [Holdings(problem, spine, members[0], resource) for resource in limits or [None]]
        for members, limits in zip(classes, resources, strict=True)
    ]
    return min(_Search(problem, [len(members) for members in classes], ways, best_known, until).run(), best_known)


def _resources(problem: Problem, device: int) -> list[Resource]:
    """What can bind on a device: its memory, its part of a limit on the period, and both."""
    places = [place for place, on in enumerate(problem.device_of) if on == device]
    shape = len(problem.nodes), len(problem.places)
    found: list[Resource] = []
    rooms = [problem.devices[unit].memory_bytes for unit in problem.units[device]]
    room = min((room for room in rooms if room is not None), default=None)
    if room:
        nodes = np.zeros(shape)
        for weight in problem.weights:
            for user in weight.users:
                # All users together have it at most once, wherever some of them are.
                for place in places:
                    nodes[user, place] += weight.size_bytes.get(place, 0) / len(weight.users) / room
        found.append(Resource(nodes, np.zeros(shape[1])))
    limit = problem.rules.bounds.get("throughput", float("inf"))
    if 0 < limit < float("inf"):
        taken = np.where(np.isfinite(problem.fused_seconds), problem.fused_seconds, 0.0)
        # Where fusion would save more than a node takes, the node counts as nothing and the period as longer.
        saved = np.zeros(shape)
        for fusion in problem.fusions:
            for place, seconds in fusion.seconds.items():
                saved[fusion.consumer, place] += seconds
        limit += float(np.maximum(saved - problem.seconds, 0.0)[:, places].sum())
        found.append(Resource(taken / limit, np.array(problem.launch_s) / limit))
    found = [one for one in found if one.nodes[:, places].max(axis=1).sum() + one.launches[places].max() > 1]
    if len(found) > 1:
        memory, period = found
        found.append(Resource((memory.nodes + period.nodes) / 2, (memory.launches + period.launches) / 2))
    return found


class _Search:
    """The worth of nodes, `counts` being how many devices a class has, and `ways` its sets by each resource."""

    def __init__(
        self,
        problem: Problem,
        counts: Sequence[int],
        ways: Sequence[Sequence[Holdings]],
        best_known: float,
        until: float,
    ) -> None:
        self.counts, self.ways, self.best_known, self.until = counts, ways, best_known, until
        self.least = problem.fused_seconds.min(axis=1)
        seconds = np.where(np.isfinite(problem.fused_seconds), problem.fused_seconds, 0.0)
        most = float(seconds.max(axis=1).sum()) + sum(problem.launch_s)
        self.scale = (best_known if best_known < float("inf") else most) or 1.0
        self.nodes = len(problem.nodes)
        self.best, self.found = 0.0, self.least

    def _begin(self, turn: int) -> None:
        """A new program, with sets by one resource of each class; at first stretches that keep all."""
        self.turn = turn
        self.solver: Any = pywraplp.Solver.CreateSolver("GLOP")
        self.worth = [self.solver.NumVar(-1, 1, "") for _ in range(self.nodes)]
        self.most = [self.solver.NumVar(0, self.solver.infinity(), "") for _ in self.counts]
        paid = [count * most for count, most in zip(self.counts, self.most, strict=True)]
        self.solver.Maximize(self.solver.Sum(self.worth) - self.solver.Sum(paid))
        for number, ways in enumerate(self.ways):
            others = [set(way.stretches()) for way in ways[1:]]
            for holding in ways[0].stretches():
                if all(holding in other for other in others):
                    self._add(number, holding)

    def run(self) -> float:
        """The bound in seconds: each resource has its turn, half of both first."""
        for turn in reversed(range(max(len(ways) for ways in self.ways))):
            self._begin(turn)
            self._improve()
            if self._is_done():
                break
        return self.best * (1 - _SHORTFALL)

    def _is_done(self) -> bool:
        return self.best >= self.best_known * (1 - _NEAR) or perf_counter() > self.until

    def _improve(self) -> None:
        """Rounds of the program until it says no more than the best worth."""
        worth = self.found
        for _ in range(_ROUNDS):
            value = self._value(worth)
            if value > self.best:
                self.best, self.found = value, worth
            if self._is_done() or solved(self.solver, self.until) != pywraplp.Solver.OPTIMAL:
                break
            if float(self.solver.Objective().Value()) * self.scale <= self.best * (1 + _NEAR):
                break
            wanted = np.array([variable.solution_value() for variable in self.worth]) * self.scale
            worth = (1 - _SMOOTHED) * wanted + _SMOOTHED * self.found

    def _value(self, worth: Floats) -> float:
        """The bound for a worth of the nodes. The sets that it comes from are added to the program."""
        value = float(worth.sum())
        for number, ways in enumerate(self.ways):
            found = [way.most(worth) for way in ways]
            value -= self.counts[number] * max(min(most for most, _ in found), 0.0)
            self._add(number, found[min(self.turn, len(found) - 1)][1])
        return value

    def _add(self, number: int, holding: Holding) -> None:
        if holding.nodes:
            worth = self.solver.Sum([self.worth[node] for node in sorted(holding.nodes)])
            self.solver.Add(self.most[number] >= worth - holding.seconds / self.scale)
