"""A lower bound on the period of a pipeline: no device may have more than a period's worth of any weights of the nodes.

Take any weights of the nodes, none negative. In a placement with period P each node is on some device, and what is on
a device takes it at most P, so its weight is at most the heaviest set's that such a device can do within P
(`device_sets.py`). Where the heaviest sets of all devices weigh less than all nodes together, no placement has that
period. Devices are whole here, and so are nodes: each pays its own launches, and what does not fill it is lost.

The weights are sought for one period at a time. A linear program chooses them such that the sets found so far weigh
least beside all nodes; then the heaviest sets under those weights join it. Where the sets weigh as much as the nodes
whatever the weights, the period is out of reach and a shorter one is tried. Weights are taken halfway between the
program's and the best so far, because the program's own jump about. Nodes that are alike, as those of every layer are,
share one weight, and so do small neighbours, in the proportions that a linear program for the whole gives them: that
takes a fraction of the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ortools.linear_solver import pywraplp

from gimlet.compiler.placement.bounds.device_sets import (
    CELLS,
    DeviceSets,
    NodeSet,
    Prices,
    Weights,
    missed_period,
)
from gimlet.compiler.placement.bounds.linear import solved
from gimlet.compiler.placement.bounds.spine import Spine, heaviest_path
from gimlet.compiler.placement.model.alike import alike_nodes
from gimlet.compiler.placement.model.problem import Problem

_FIRST = 0.992
"""The period that is tried first, as a part of the best known."""
_NEAR = 1e-3
"""Between periods so close, as a part, no other is tried."""
_WORK = 150_000
"""So many nodes are looked at by class where no time limit ends the search."""
_SMOOTHED = 0.5
_GROUPS = 100
"""Of neighbours that share a weight, about: each is worth one part in so many, or is a single node."""
_EVENLY = 1e-3
"""The part of all weight that is dealt out evenly at first, so that no node is worth nothing."""
_EVERY = 4
"""Of so many joints one begins a stretch of the path among the first sets."""


@dataclass(frozen=True)
class _Cut:
    """A set that a device of a class can do within `seconds`."""

    number: int
    nodes: frozenset[int]
    seconds: float


def cover_bound(
    problem: Problem,
    classes: Sequence[Sequence[int]],
    prices: Prices,
    least: float,
    best_known: float,
    until: float = float("inf"),
) -> float:
    """`least`, or a longer period that no placement is below; `best_known` is that of some placement.

    `classes` are all devices, those of a class being alike. After `until` (of `time.perf_counter`) it ends.
    """
    if not problem.nodes or not 0 < best_known < float("inf"):
        return least
    search = _Search(problem, classes, prices, until)
    low, high, period = least, best_known, max(_FIRST * best_known, (least + best_known) / 2)
    while high - low > _NEAR * best_known and search.has_time():
        low = max(low, search.try_period(period))
        if low < period:
            high = period
        period = (low + high) / 2
    return low


class _Search:
    """Weights for one period after another; sets and the best weights are kept."""

    def __init__(self, problem: Problem, classes: Sequence[Sequence[int]], prices: Prices, until: float) -> None:
        self.problem, self.classes, self.prices, self.until = problem, classes, prices, until
        self.spine = Spine(problem, heaviest_path(problem))
        worth = np.clip(np.array(prices.nodes, dtype=float), 0.0, None)
        worth = worth / (float(worth.sum()) or 1.0) + _EVENLY / len(worth)
        self.best: Weights = worth / worth.sum()
        self.group = self._groups(self.best)
        self.parts: Weights = self.best / np.bincount(self.group, weights=self.best)[self.group]
        self.cuts: list[_Cut] = []
        self.work = _WORK

    def _groups(self, weights: Weights) -> NDArray[np.int64]:
        """The number of each node's group: alike nodes that are worth much together; of the others neighbours on the
        path, and beside it, that are not.
        """
        group = np.full(len(weights), -1, dtype=np.int64)
        number = 0
        for nodes in alike_nodes(self.problem):
            if len(nodes) > 1 and float(weights[nodes].sum()) > 1 / _GROUPS:
                group[nodes] = number
                number += 1
        spine, held = self.spine, 0.0
        order = [n for node, beside in zip(spine.path, spine.beside, strict=True) for n in (*beside, node)]
        for node in (*order, *spine.apart):
            if group[node] >= 0:
                continue
            if held and held + weights[node] > 1 / _GROUPS:
                number, held = number + 1, 0.0
            group[node] = number
            held += float(weights[node])
        return np.unique(group, return_inverse=True)[1]

    def has_time(self) -> bool:
        return self.work > 0 if self.until == float("inf") else perf_counter() < self.until

    def try_period(self, period_s: float) -> float:
        """A period up to `period_s` that no placement is below: `period_s` itself if that can be shown."""
        sets = [
            DeviceSets(
                self.problem, self.spine, members[0], period_s, CELLS, self.prices.fast_byte_s.get(members[0], 0.0)
            )
            for members in self.classes
        ]
        program = self._program(sets, period_s)
        proven, lightest, weights = 0.0, float("inf"), self.best
        while self.has_time():
            self.work -= len(self.problem.nodes)
            heaviest = [one.most(weights) for one in sets]
            found = sum(len(m) * float(best[-1]) for m, (best, _) in zip(self.classes, heaviest, strict=True))
            proven = max(proven, missed_period(self.classes, sets, [best for best, _ in heaviest], weights, period_s))
            if proven >= period_s:
                return period_s
            if found < lightest:
                lightest, self.best = found, weights
            cuts = [self._cut(number, one, sets[number]) for number, (_, one) in enumerate(heaviest)]
            cuts = [cut for cut in cuts if program.weight(cut) > program.most[cut.number] + 1e-9]
            for cut in cuts:
                self.cuts.append(cut)
                program.add(cut)
            if (not cuts and weights is program.weights) or (cuts and program.solve() >= 1):
                break
            weights = (1 - _SMOOTHED) * program.weights + _SMOOTHED * self.best if cuts else program.weights
        return proven

    def _program(self, sets: Sequence[DeviceSets], period_s: float) -> _Program:
        """The program with the sets of before that this period allows, or with stretches of the path."""
        if not self.cuts:
            stretches = [(n, one) for n, owner in enumerate(sets) for one in owner.stretches(_EVERY)]
            self.cuts = [self._cut(number, one, sets[number]) for number, one in stretches]
        program = _Program(self.classes, self.parts, self.group)
        self.cuts = [cut for cut in self.cuts if cut.seconds <= period_s + sets[cut.number].spare_s]
        for cut in self.cuts:
            program.add(cut)
        program.solve()
        return program

    def _cut(self, number: int, one: NodeSet, sets: DeviceSets) -> _Cut:
        return _Cut(number, one.nodes, one.cells * sets.cell_s)


class _Program:
    """Weights of groups that add up to one, and for each class the weight of the heaviest of its sets so far."""

    def __init__(self, classes: Sequence[Sequence[int]], parts: Weights, group: NDArray[np.int64]) -> None:
        self.solver: Any = pywraplp.Solver.CreateSolver("GLOP")
        end = self.solver.infinity()
        self.parts, self.group, self.count = parts, group, int(group.max()) + 1
        self.groups = [self.solver.NumVar(0, end, "") for _ in range(self.count)]
        self.heaviest = [self.solver.NumVar(0, end, "") for _ in classes]
        self.solver.Add(self.solver.Sum(self.groups) == 1)
        self.solver.Minimize(self.solver.Sum([len(m) * h for m, h in zip(classes, self.heaviest, strict=True)]))
        self.weights: Weights = np.zeros(len(parts))
        self.most = [0.0] * len(classes)

    def add(self, cut: _Cut) -> None:
        nodes = sorted(cut.nodes)
        row = np.bincount(self.group[nodes], weights=self.parts[nodes], minlength=self.count)
        terms = [float(part) * self.groups[index] for index, part in enumerate(row) if part]
        self.solver.Add(self.heaviest[cut.number] >= self.solver.Sum(terms))

    def weight(self, cut: _Cut) -> float:
        return float(sum(self.weights[node] for node in cut.nodes))

    def solve(self) -> float:
        """What the sets weigh together at least; 1 where that was not found out."""
        if solved(self.solver) != pywraplp.Solver.OPTIMAL:
            return 1.0
        groups = np.array([variable.solution_value() for variable in self.groups])
        self.weights = groups[self.group] * self.parts
        self.most = [variable.solution_value() for variable in self.heaviest]
        return float(self.solver.Objective().Value())
