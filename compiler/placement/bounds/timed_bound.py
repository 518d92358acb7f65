"""A lower bound on the period of a pipeline whose latency is limited, by prices of devices' seconds.

For any prices of the devices' seconds that add up to one, the period is at least what a placement's seconds cost, so
at least the least cost of all placements that are quick enough (`timed_path.py`). The prices are sought by cutting
planes: each path that was found says how much each class of devices has to do in it; a linear program takes the prices
that make the best of these paths dearest, and the next path is sought halfway between them and the best so far.

Prices cannot tell a request that has one of two devices that are alike from half of it on each. But a device is busy
with each of its segments once a period, so none is longer: where paths of shorter segments are too slow, the period is
out of reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from ortools.linear_solver import pywraplp

from gimlet.compiler.placement.bounds.linear import solved
from gimlet.compiler.placement.bounds.timed_path import Floats, TimedPath
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem

_STEPS = 24
_NEAR = 1e-3
_ALONE = 4
"""One in so many paths is sought at the program's own prices."""
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class TimedBound:
    """No placement that is quick enough has a shorter period. `places` came up on the way."""

    seconds: float
    places: tuple[tuple[int, ...], ...]


def timed_bound(problem: Problem, best_known: float, until: float = float("inf")) -> TimedBound:
    """The bound; nothing where latency has no limit. It ends after `until` (of `time.perf_counter`)."""
    limit = problem.rules.bounds.get("latency", float("inf"))
    if not problem.nodes or not 0 < limit < float("inf"):
        return TimedBound(0.0, ())
    search = _Search(problem, limit * (1 + _TOLERANCE))
    search.shorten(best_known)
    for _ in range(_STEPS):
        if search.best >= best_known or perf_counter() > until or not search.step():
            break
    return TimedBound(search.best * (1 - _TOLERANCE), tuple(search.seen))


class _Search:
    """The prices of a second by class of devices."""

    def __init__(self, problem: Problem, limit_s: float) -> None:
        self.problem = problem
        self.limit_s = limit_s
        self.classes = device_classes(problem)
        first = {members[0] for members in self.classes}
        self.path = TimedPath(problem, [p for p, device in enumerate(problem.device_of) if device in first], limit_s)
        # The seconds of a class that one of a place is: of all devices that are busy with it.
        self.share = np.zeros((len(self.classes), len(problem.places)))
        for place, device in enumerate(problem.device_of):
            for unit in problem.units[device]:
                self.share[next(n for n, members in enumerate(self.classes) if unit in members), place] += 1.0
        sizes = np.array([float(len(members)) for members in self.classes])
        self.sizes = sizes
        self.prices = self.centre = np.ones(len(sizes)) / sizes.sum()
        self.best = self.highest = 0.0
        """The bound so far, and what prices have made of it."""
        on = {device: [p for p, own in enumerate(problem.device_of) if own == device] for device in problem.device_of}
        self.members = {
            place: [on[device][number] for device in members]
            for members in self.classes
            for number, place in enumerate(on.get(members[0], ()))
        }
        """Places that are alike, by that of the first device."""
        self.seen: dict[tuple[int, ...], None] = {}
        self.loads: list[Floats] = []
        """What each class has to do in the paths so far, in units of the limit."""

    def shorten(self, best_known: float) -> None:
        """Bisects the longest segment that a path which is quick enough must have."""
        latency, segments = self.path.quickest(best_known)
        if latency > self.limit_s:
            self.best = best_known
            return
        low, high = 0.0, min(best_known, self.limit_s)
        while high - low > _NEAR / 2 * high:
            middle = (low + high) / 2
            latency, found = self.path.quickest(middle)
            low, high = (middle, high) if latency > self.limit_s else (low, middle)
            segments = segments if latency > self.limit_s else found
        self.best = low
        self.seen[self.path.placed(segments, self.members)] = None

    def step(self) -> bool:
        """One path more. False where prices cannot be better."""
        rates = self.prices @ self.share
        seconds = self.path.seconds
        prices = np.full_like(seconds, np.inf)
        np.multiply(seconds, rates, out=prices, where=np.isfinite(seconds))
        way = self.path.least(prices, rates * np.array(self.problem.launch_s))
        if way is None:
            self.best = float("inf")
            return False
        self.seen[way.place] = None
        if way.price > self.highest:
            self.highest, self.centre = way.price, self.prices
        self.best = max(self.best, way.price)
        busy = way.launches * np.array(self.problem.launch_s)
        np.add.at(busy, way.counted, seconds[np.arange(len(seconds)), way.counted])
        self.loads.append(self.share @ busy / self.limit_s)
        most, dearest = self._dearest()
        self.prices = dearest if len(self.loads) % _ALONE == 0 else (dearest + self.centre) / 2
        return most * self.limit_s > self.best * (1 + _NEAR)

    def _dearest(self) -> tuple[float, Floats]:
        """Prices that make the cheapest of all paths so far dearest, and its price."""
        solver: Any = pywraplp.Solver.CreateSolver("GLOP")
        prices = [solver.NumVar(0, 1, "") for _ in self.classes]
        least = solver.NumVar(0, solver.infinity(), "")
        solver.Add(solver.Sum([float(size) * price for size, price in zip(self.sizes, prices, strict=True)]) == 1)
        for load in self.loads:
            solver.Add(least <= solver.Sum([float(part) * price for part, price in zip(load, prices, strict=True)]))
        solver.Maximize(least)
        if solved(solver) != pywraplp.Solver.OPTIMAL:
            return 0.0, self.centre
        found = np.clip(np.array([price.solution_value() for price in prices]), 0.0, None)
        return float(least.solution_value()), found / float(found @ self.sizes)
