"""What no split's largest load is below, by weights of the units.

Take any weights of the units, none negative. In a split of largest load T each unit is on some device, and what is on a
device is a set of load T at most, so it weighs at most what the heaviest such set does (`public_frontier.py`). Where
the heaviest sets of all devices weigh less than all units together, no split has that load. Units and devices are whole
here, and each device pays for its own transfers. Memory is not counted.

The weights are sought for one load T at a time, by a linear program over the sets found so far: weights of which no
device has much. Then the heaviest sets under those weights join it. Where the sets weigh as much as the units whatever
the weights, T is out of reach of this bound, and a smaller one is tried. (By duality the units can then be shared out
over sets of load T. That is the linear program of cutting stock; sets are found by dynamic programming as there.)
Neighbours in the order share a weight, in the proportions of their work, and weights are taken halfway between the
program's and the best so far: that takes a fraction of the steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ortools.linear_solver import pywraplp

from gimlet.compiler.placement.bounds.linear import solved
from gimlet.compiler.placement.public.public_bound import unit_times
from gimlet.compiler.placement.public.public_format import PublicProblem
from gimlet.compiler.placement.public.public_frontier import Frontier, Integers, Loads, Value, narrow_order
from gimlet.compiler.placement.public.public_start import Units

_ROUNDING = 1e-9
_NEAR = 1e-4
"""Between loads so close, as a part, no other is tried."""
_GROUPS = 150
_EVENLY = 1e-3
_SMOOTHED = 0.5
_WEIGHT = 400
"""The whole weight of all units is this much a device, and tables are so many times as wide at first."""
_WIDE = 1.4
_MOST_CELLS = 16_000_000
"""Of all tables of one device: 8 bytes each."""
_WORK, _LEAST_WORK = 400_000_000, 1_000_000
"""So many cells are computed where no time limit ends the search; a search for sets counts as some at least."""
_FULL = 1e-4
"""A value of the program that is so close to another is as good; units are shared out where it is so close to 1."""
_BEGINNINGS = 150
_SATURATED = 3
"""So often in turn a table must be too narrow before it is made wider: one may be by chance."""


def values_of(problem: PublicProblem, units: Units) -> list[Value]:
    """What is moved between units, values with the same ends as one."""
    found: dict[tuple[int, ...], float] = {}
    for node, cost in enumerate(problem.cost):
        ends = {units.unit_of[node], *(units.unit_of[after] for after in problem.successors[node])}
        if cost and len(ends) > 1:
            key = tuple(sorted(ends))
            found[key] = found.get(key, 0.0) + cost
    return list(found.items())


@dataclass(frozen=True)
class Kind:
    """Equal devices: how many, the first of them, and the sets that one can do."""

    count: int
    first: int
    frontier: Frontier


@dataclass(frozen=True)
class UnitSet:
    """Units that a device of a kind can do within `load`."""

    kind: int
    units: Integers
    load: float


@dataclass
class Cover:
    """The search for a problem whose best known split has the largest load `limit`. It ends at `until`
    (`time.perf_counter`), or where that is infinite after so much work."""

    problem: PublicProblem
    units: Units
    limit: float
    until: float
    sets: list[UnitSet] = field(default_factory=list[UnitSet])

    def __post_init__(self) -> None:
        problem, count = self.problem, len(self.units.members)
        on_accelerator, on_cpu = unit_times(problem, self.units)
        values = self.values = values_of(problem, self.units)
        self.values_at: list[list[int]] = [[] for _ in range(count)]
        for value, (ends, _) in enumerate(values):
            for unit in ends:
                self.values_at[unit].append(value)
        self.near: list[list[int]] = [[] for _ in range(count)]
        for ends, _ in values:
            for unit in ends:
                self.near[unit] += [other for other in ends if other != unit]
        orders = [list(range(count)), narrow_order(count, values)]
        made = [Frontier(on_accelerator.tolist(), values, order, self.limit) for order in orders]
        number = min((0, 1), key=lambda index: (made[index].left_out, made[index].states))
        self.order = orders[number]
        kinds = [Kind(problem.accelerators, 0, made[number])] if problem.accelerators else []
        if problem.cpus:
            alone = Frontier(on_cpu.tolist(), (), self.order, self.limit)
            kinds.append(Kind(problem.cpus, problem.accelerators, alone))
        self.kinds = kinds
        self.reached = self.limit
        self.cells = max(kind.frontier.states for kind in kinds)
        self.total = _WEIGHT * sum(kind.count for kind in kinds)
        self.widest = max(min(self.total, _MOST_CELLS // self.cells), 2)
        self.width = min(int(_WIDE * _WEIGHT), self.widest)
        self.narrow = self.work = 0
        self.seconds = (on_accelerator.tolist(), on_cpu.tolist())
        least = np.minimum(on_accelerator, on_cpu)
        worth = least / (float(least.sum()) or 1.0) + _EVENLY / count
        self.worth = worth / worth.sum()
        self.best = self.worth

    def has_time(self) -> bool:
        return self.work < _WORK if self.until == float("inf") else perf_counter() < self.until

    def bound(self, least: float) -> float:
        """`least`, or a larger load that no split is below."""
        low, high = least, self.limit
        while high - low > _NEAR * self.limit and self.has_time():
            load = (low + high) / 2
            low = max(low, self._try(load))
            high = high if low >= load else load
        self.reached = high
        return min(low, self.limit)

    def _try(self, load: float) -> float:
        """A load that no split is below: `load` or more if that can be shown."""
        everything = np.ones(len(self.worth), dtype=bool)
        self.width = min(int(_WIDE * _WEIGHT), self.widest)
        program = Program([kind.count for kind in self.kinds], self.parts(everything))
        for one in (*self.sets, *self._stretches(load)):
            program.add(one, load)
        program.solve()
        proven, lightest, weights = 0.0, float("inf"), self.best
        while self.has_time() and proven < load:
            found = self._heaviest(weights, load, everything)
            proven = max(proven, self._proven(found))
            heavy = self._together([loads.most(load) for loads in found], found)
            if heavy < lightest:
                lightest, self.best = heavy, weights
            sets = self._sets(found, load)
            self.sets += sets
            for one in sets:
                program.add(one, load)
            value = program.solve()
            if value >= 1 - _FULL or lightest < value + _FULL:
                break
            weights = (1 - _SMOOTHED) * program.weights + _SMOOTHED * self.best
        return proven

    def _stretches(self, load: float) -> Iterator[UnitSet]:
        """For an accelerator units that follow each other in the order, from many beginnings, as many as may be."""
        if not self.problem.accelerators:
            return
        count, work = len(self.order), self.seconds[0]
        for begin in range(0, count, max(count // _BEGINNINGS, 1)):
            inside: dict[int, int] = {}
            done = moved = best = 0.0
            longest = 0
            for length, unit in enumerate(self.order[begin:], start=1):
                done += work[unit]
                if done > load:
                    break
                for value in self.values_at[unit]:
                    ends, cost = self.values[value]
                    inside[value] = inside.get(value, 0) + 1
                    moved += cost if inside[value] == 1 else 0.0
                    moved -= cost if inside[value] == len(ends) else 0.0
                if done + moved <= load:
                    longest, best = length, done + moved
            units = np.array(sorted(self.order[begin : begin + longest]), dtype=np.int64)
            yield UnitSet(0, units, max(best, 0.0))

    def rest(self, one: UnitSet, left: NDArray[np.bool_]) -> UnitSet:
        """What is left of a set, with its load."""
        if left[one.units].all():
            return one
        units = one.units[left[one.units]]
        work = self.seconds[one.kind if self.problem.accelerators else 1]
        load = sum(work[unit] for unit in units)
        if self.kinds[one.kind].first < self.problem.accelerators:
            inside = Counter(value for unit in units for value in self.values_at[unit])
            load += sum(self.values[v][1] for v, count in inside.items() if count < len(self.values[v][0]))
        return UnitSet(one.kind, units, load)

    def parts(self, allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
        """By group the part of its weight that each unit has: neighbours that are not worth much share a weight."""
        parts: list[NDArray[np.float64]] = []
        held = 1.0
        worth = np.where(allowed, self.worth, 0.0)
        worth = worth / worth.sum()
        for unit in self.order:
            if not allowed[unit]:
                continue
            if held + worth[unit] > 1 / _GROUPS:
                parts.append(np.zeros(len(worth)))
                held = 0.0
            parts[-1][unit] = worth[unit]
            held += float(worth[unit])
        return np.array([part / part.sum() for part in parts])

    def sought(self, weights: NDArray[np.float64], load: float, allowed: NDArray[np.bool_]) -> list[UnitSet]:
        """For each kind the heaviest set of `allowed` units within a load."""
        return self._sets(self._heaviest(weights, load, allowed), load)

    def _sets(self, found: Sequence[Loads], load: float) -> list[UnitSet]:
        sets: list[UnitSet] = []
        for number, (kind, loads) in enumerate(zip(self.kinds, found, strict=True)):
            weight = loads.most(load)
            units = np.array(sorted(kind.frontier.units(loads, weight)), dtype=np.int64)
            sets.append(UnitSet(number, units, float(loads.least[weight])))
        return sets

    def _heaviest(self, weights: NDArray[np.float64], load: float, allowed: NDArray[np.bool_]) -> list[Loads]:
        """By kind the least loads by weight. The tables become wider where what is within `load` does not fit them."""
        order = self.order
        ends = np.rint(np.cumsum(weights[order]) * (self.total / weights.sum())).astype(np.int64)
        whole = np.zeros(len(weights), dtype=np.int64)
        whole[order] = np.diff(ends, prepend=0)
        found = [kind.frontier.loads(whole, self.width, allowed) for kind in self.kinds]
        self.work += max(self.cells * self.width, _LEAST_WORK)
        narrow = any(loads.least[-1] <= load for loads in found)
        self.narrow = self.narrow + 1 if narrow else 0
        if self.narrow == _SATURATED:
            self.width, self.narrow = min(2 * self.width, self.widest), 0
        return found

    def _proven(self, found: Sequence[Loads]) -> float:
        """The least load at which the devices' heaviest sets weigh as much as all units."""

        def enough(load: float) -> bool:
            return self._together([loads.most(load) for loads in found], found) >= 1

        loads = np.unique(np.concatenate([one.least[np.isfinite(one.least)] for one in found]))
        loads = loads[loads <= self.limit]
        low, high = 0, len(loads)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(float(loads[middle])) else (middle + 1, high)
        return (self.limit if low == len(loads) else float(loads[low])) * (1 - _ROUNDING)

    def _together(self, most: Sequence[int], found: Sequence[Loads]) -> float:
        """What all devices' sets weigh as a part of all units' weight, at most: the last column is that or more."""
        total, width = int(found[0].weights.sum()), len(found[0].least) - 1
        heavy = [total if weight >= width else weight for weight in most]
        return sum(kind.count * weight for kind, weight in zip(self.kinds, heavy, strict=True)) / total


class Program:
    """Weights of groups that add up to one, and for each kind the weight of the heaviest of its sets so far."""

    def __init__(self, counts: Sequence[int], parts: NDArray[np.float64]) -> None:
        self.solver: Any = pywraplp.Solver.CreateSolver("GLOP")
        self.parts = parts
        self.groups = [self.solver.NumVar(0, 1, "") for _ in parts]
        self.heaviest = [self.solver.NumVar(0, 1, "") for _ in counts]
        self.solver.Add(self.solver.Sum(self.groups) == 1)
        self.solver.Minimize(self.solver.Sum([n * h for n, h in zip(counts, self.heaviest, strict=True)]))
        self.weights = parts.mean(axis=0)
        self.rows: list[tuple[UnitSet, Any]] = []

    def add(self, one: UnitSet, load: float) -> None:
        if one.load > load * (1 + _ROUNDING):
            return
        row = self.parts[:, one.units].sum(axis=1)
        terms = [float(part) * group for part, group in zip(row, self.groups, strict=True) if part]
        self.rows.append((one, self.solver.Add(self.heaviest[one.kind] >= self.solver.Sum(terms))))

    def most_used(self, fits: Callable[[UnitSet], bool]) -> UnitSet | None:
        """The set that has most of a device where units are shared out over sets; of several one of the first kind."""
        fitting = [(round(abs(row.dual_value()), 2) - _FULL * one.kind, one) for one, row in self.rows if fits(one)]
        fitting = [found for found in fitting if len(found[1].units)]
        return max(fitting, key=lambda found: found[0], default=(0.0, None))[1]

    def solve(self) -> float:
        """What the sets weigh together at least; 1 where that was not found out."""
        if solved(self.solver) != pywraplp.Solver.OPTIMAL:
            return 1.0
        self.weights = np.array([group.solution_value() for group in self.groups]) @ self.parts
        return float(self.solver.Objective().Value())
