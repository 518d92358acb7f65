"""The least largest load of a contiguous split, exactly, by dynamic programming over ideals.

An *ideal* is a set of units with all that they need. Devices in an order in which data flows forward do, one after
another, what lies between an ideal and a larger one, and each such row of ideals is a contiguous split. So the best
for the units of an ideal, on so many accelerators and CPUs, is the best over all smaller ideals of what is there with
one device less, and the load of what lies between. This is the first algorithm of the authors of the format (Tarnawski
et al., "Efficient Algorithms for Device Placement of DNN Graph Operators", section 5).

Units that nothing orders (backward nodes of no forward one) would double the ideals each. They are left out, which
makes no load larger, so what is found is a bound; then each goes where it costs least.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.public.public_format import PublicProblem, PublicSplit, max_load, memory
from gimlet.compiler.placement.public.public_start import Units

Floats = NDArray[np.float64]

# There is a table from each ideal to each.
_MOST_IDEALS = 3_000
# Sums of some thousand figures in another order differ by less.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class IdealAnswer:
    """No contiguous split has a largest load below `bound`; `split` is one of that, or nearly, if nothing is in the way
    of what was left out."""

    bound: float
    split: PublicSplit | None


def solve_ideals(problem: PublicProblem, units: Units, at_most: float, until: float) -> IdealAnswer | None:
    """The answer among splits of at most this load; `units` are contiguous ones, of the forward pass.

    None where there are too many ideals, or `time.perf_counter()` passes `until`. An infinite bound: no such split.
    """
    ordered = sorted({unit for edge in units.edges for unit in edge})
    ideals = _ideals(units, ordered, until)
    if not ordered or ideals is None:
        return None
    held = np.array([[ideal >> unit & 1 for unit in ordered] for ideal in ideals], dtype=np.int16)
    loads = _loads(problem, units, ordered, held, at_most * (1 + _ROUNDING), until)
    if loads is None:
        return None
    bound, steps = _least(problem, loads, len(ordered))
    if bound == float("inf"):
        return IdealAnswer(bound, None)
    device = {ordered[place]: to for before, after, to in steps for place in np.flatnonzero(held[after] - held[before])}
    return IdealAnswer(bound * (1 - _ROUNDING), _with_free(problem, units, device))


def _ideals(units: Units, ordered: Sequence[int], until: float) -> list[int] | None:
    """All ideals as bits, smaller ones first; None where they are too many, or time is up."""
    # Of as many units in a row there is one more: what is not in order only adds to them.
    if len(ordered) >= _MOST_IDEALS:
        return None
    needs = dict.fromkeys(ordered, 0)
    for source, destination in units.edges:
        needs[destination] |= 1 << source
    found = {0}
    waiting = [0]
    while waiting:
        ideal = waiting.pop()
        for unit in ordered:
            larger = ideal | 1 << unit
            if larger in found or needs[unit] & ~ideal:
                continue
            found.add(larger)
            waiting.append(larger)
        if len(found) > _MOST_IDEALS or time.perf_counter() > until:
            return None
    return sorted(found, key=lambda ideal: (ideal.bit_count(), ideal))


def _loads(
    problem: PublicProblem,
    units: Units,
    ordered: Sequence[int],
    held: NDArray[np.int16],
    at_most: float,
    until: float,
) -> tuple[Floats, Floats] | None:
    """From each ideal (row) to each: the load of what lies between on an accelerator and on a CPU, infinite where it
    does not fit, where the second does not hold the first, and beyond `at_most`. None where time is up."""
    nodes = [[problem.nodes[node] for node in units.members[unit]] for unit in ordered]
    figures = [
        [sum(node.accelerator for node in members) for members in nodes],
        [sum(node.cpu for node in members) for members in nodes],
        [sum(node.size for node in members) for members in nodes],
        [sum(not node.on_accelerator for node in members) for members in nodes],
    ]
    work, cpu, size, refused = np.array(figures, dtype=float) @ held.T
    ends, costs = _values(problem, units, ordered)
    has = held @ ends.T
    count = ends.sum(axis=1)
    on_accelerator, on_cpu = np.full((2, len(held), len(held)), np.inf)
    for index in range(len(held)):
        if time.perf_counter() > until:
            return None
        inside = np.flatnonzero(~(held & (1 - held[index])).any(axis=1))
        on_cpu[inside, index] = cpu[index] - cpu[inside]
        fits = size[index] - size[inside] <= problem.capacity * (1 + _ROUNDING)
        fits &= (work[index] - work[inside] <= at_most) & (refused[inside] == refused[index])
        begin = inside[fits]
        between = has[index] - has[begin]
        moved = ((between > 0) & (between < count)) @ costs
        on_accelerator[begin, index] = work[index] - work[begin] + moved
        on_accelerator[index, index] = 0.0
    return np.where(on_accelerator <= at_most, on_accelerator, np.inf), np.where(on_cpu <= at_most, on_cpu, np.inf)


def _values(problem: PublicProblem, units: Units, ordered: Sequence[int]) -> tuple[NDArray[np.int16], Floats]:
    """Which of the ordered units make or read each value (rows), and its cost; values with the same ends are one."""
    place = {unit: number for number, unit in enumerate(ordered)}
    costs: dict[frozenset[int], float] = {}
    for node, cost in enumerate(problem.cost):
        touched = {units.unit_of[other] for other in (node, *problem.successors[node])}
        ends = frozenset(place[unit] for unit in touched if unit in place)
        if cost and len(ends) > 1:
            costs[ends] = costs.get(ends, 0.0) + cost
    table = np.zeros((len(costs), len(ordered)), dtype=np.int16)
    for row, ends in enumerate(costs):
        table[row, list(ends)] = 1
    return table, np.array(list(costs.values()))


def _least(
    problem: PublicProblem, loads: tuple[Floats, Floats], units: int
) -> tuple[float, list[tuple[int, int, int]]]:
    """The least largest load, and its steps: from which ideal to which, on which device."""
    last = len(loads[0]) - 1
    best = {(0, 0): np.where(np.arange(last + 1) == 0, 0.0, np.inf)}
    came: dict[tuple[int, int], list[tuple[NDArray[np.int64], NDArray[np.bool_], tuple[int, int], bool]]] = {}
    for a, c in product(range(min(problem.accelerators, units) + 1), range(min(problem.cpus, units) + 1)):
        for before, on_cpu in (((a - 1, c), False), ((a, c - 1), True)):
            if before not in best:
                continue
            table = np.maximum(best[before][:, None], loads[on_cpu])
            origin, value = table.argmin(axis=0), table.min(axis=0)
            better = value < best.get((a, c), np.inf)
            best[a, c] = np.where(better, value, best.get((a, c), np.inf))
            came.setdefault((a, c), []).append((origin, better, before, on_cpu))
    used = max(best)
    found = float(best[used][last])
    steps: list[tuple[int, int, int]] = []
    while found < float("inf") and used != (0, 0):
        origin, _, before, on_cpu = next(way for way in reversed(came[used]) if way[1][last])
        if origin[last] != last:
            steps.append((int(origin[last]), last, problem.accelerators + before[1] if on_cpu else before[0]))
        used, last = before, int(origin[last])
    return found, steps


def _with_free(problem: PublicProblem, units: Units, device: dict[int, int]) -> PublicSplit | None:
    """The split with each unit that was left out where it costs least; None where one fits nowhere.

    Those that have no place yet are with the first CPU, or the first accelerator where there is none.
    """
    free = [unit for unit in range(len(units.members)) if unit not in device]
    place = device | dict.fromkeys(free, problem.accelerators if problem.cpus else 0)
    for unit in free:
        nodes = [problem.nodes[node] for node in units.members[unit]]
        accelerators = problem.accelerators if all(node.on_accelerator for node in nodes) else 0
        choices = [*range(accelerators), *range(problem.accelerators, problem.accelerators + problem.cpus)]
        splits = [_split(units, {**place, unit: to}) for to in choices]
        found = [
            (max_load(problem, split), to)
            for split, to in zip(splits, choices, strict=True)
            if max(memory(problem, split), default=0.0) <= problem.capacity
        ]
        if not found:
            return None
        place[unit] = min(found)[1]
    split = _split(units, place)
    return split if max(memory(problem, split), default=0.0) <= problem.capacity else None


def _split(units: Units, place: dict[int, int]) -> PublicSplit:
    where = tuple(place[unit] for unit in units.unit_of)
    return PublicSplit(where, where)
