"""Units of a public problem, and a first split: the best cuts of a topological order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.public.public_format import (
    PublicObjective,
    PublicProblem,
    PublicSplit,
    latency,
    max_load,
)

# Runs begin and end at so many places of the order at most: a table of all of them is kept, for each device.
_MOST_PLACES = 600
_MOST_CPUS = 4


@dataclass(frozen=True)
class Units:
    """Nodes that share a device: positions in the problem by unit, in an order in which data flows forward."""

    members: tuple[tuple[int, ...], ...]
    unit_of: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]


def units_of(problem: PublicProblem, *, contiguous: bool, forward: bool = False) -> Units:
    """Colour classes. Where devices are ordered, units on a cycle share a device too, and become one.

    With `forward` the order is that of the forward pass: only edges within it count.
    """
    owner = list(range(len(problem.nodes)))
    first: dict[int, int] = {}
    for index, node in enumerate(problem.nodes):
        if node.colour is not None:
            owner[index] = first.setdefault(node.colour, index)
    counted = problem.forward_edges if forward else problem.edges
    edges = {(owner[a], owner[b]) for a, b in counted if owner[a] != owner[b]}
    if contiguous:
        joined = _joined(len(owner), edges)
        owner = [joined[unit] for unit in owner]
        edges = {(joined[a], joined[b]) for a, b in edges if joined[a] != joined[b]}
    order = _ordered(sorted(set(owner)), edges)
    if forward:
        order = _beside_neighbours(order, edges, {(owner[a], owner[b]) for a, b in problem.edges})
    number = {unit: position for position, unit in enumerate(order)}
    members: list[list[int]] = [[] for _ in order]
    for node, unit in enumerate(owner):
        members[number[unit]].append(node)
    return Units(
        tuple(tuple(nodes) for nodes in members),
        tuple(number[unit] for unit in owner),
        tuple(sorted((number[a], number[b]) for a, b in edges)),
    )


def _joined(count: int, edges: set[tuple[int, int]]) -> list[int]:
    """For each of so many units one of those that lie on a cycle with it: itself, if none does.

    Kosaraju's algorithm: units in the order in which a search forward leaves them, the last one first; what a search
    backward from one of them reaches, and no earlier one did, lies on cycles with it.
    """
    after: list[list[int]] = [[] for _ in range(count)]
    before: list[list[int]] = [[] for _ in range(count)]
    for a, b in sorted(edges):
        after[a].append(b)
        before[b].append(a)
    left: list[int] = []
    seen = [False] * count
    for root in range(count):
        stack = [] if seen[root] else [(root, iter(after[root]))]
        seen[root] = True
        while stack:
            unit, waiting = stack[-1]
            following = next((other for other in waiting if not seen[other]), None)
            if following is None:
                left.append(unit)
                stack.pop()
                continue
            seen[following] = True
            stack.append((following, iter(after[following])))
    joined = [-1] * count
    for root in reversed(left):
        reached = [root] if joined[root] < 0 else []
        for unit in reached:
            if joined[unit] < 0:
                joined[unit] = root
                reached += before[unit]
    return joined


def _ordered(units: list[int], edges: set[tuple[int, int]]) -> list[int]:
    """Units in a topological order; where there is a cycle (no order is needed then) in that of their first nodes."""
    waiting = dict.fromkeys(units, 0)
    after: dict[int, list[int]] = {unit: [] for unit in units}
    for a, b in edges:
        waiting[b] += 1
        after[a].append(b)
    ready = sorted((unit for unit in units if not waiting[unit]), reverse=True)
    order: list[int] = []
    while ready:
        unit = ready.pop()
        order.append(unit)
        for following in sorted(after[unit], reverse=True):
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)
    return order if len(order) == len(units) else units


def _beside_neighbours(order: list[int], ordered: set[tuple[int, int]], edges: set[tuple[int, int]]) -> list[int]:
    """The order with units that may be anywhere in it (backward nodes of no forward one) after a neighbour's place."""
    bound = {unit for edge in ordered for unit in edge}
    place = {unit: float(position) for position, unit in enumerate(order) if unit in bound}
    near: dict[int, list[int]] = {unit: [] for unit in order}
    for a, b in sorted(edges):
        near[a].append(b)
        near[b].append(a)
    waiting = [unit for unit in order if unit not in place]
    while waiting:
        ready = [unit for unit in waiting if any(other in place for other in near[unit])]
        found = {unit: max(place[other] for other in near[unit] if other in place) + 0.5 for unit in ready}
        place |= found or {unit: float(len(order)) for unit in waiting}
        waiting = [unit for unit in waiting if unit not in place]
    return sorted(order, key=lambda unit: place[unit])


def contiguous_start(problem: PublicProblem, units: Units, objective: PublicObjective) -> PublicSplit | None:
    """The best way to cut the units' order into runs, one for each device that is used; None where that does not fit.

    Runs are chosen by their load alone. For latency all runs on the CPU are on one, which has enough cores.
    """
    runs = _runs(problem, units, objective)
    found = [] if runs is None else [_split(problem, units, runs, objective)]
    if problem.cpus:
        on_cpu = (problem.accelerators,) * len(problem.nodes)
        found.append(PublicSplit(on_cpu, on_cpu))
    figure = max_load if objective == "throughput" else latency
    return min(found, key=lambda split: figure(problem, split), default=None)


@dataclass(frozen=True)
class _Run:
    """Units from `first` on, before `last`, on an accelerator or on a CPU."""

    first: int
    last: int
    on_cpu: bool


def _split(problem: PublicProblem, units: Units, runs: Sequence[_Run], objective: PublicObjective) -> PublicSplit:
    device = [0] * len(problem.nodes)
    accelerator, cpu = 0, problem.accelerators
    for run in runs:
        for unit in range(run.first, run.last):
            for node in units.members[unit]:
                device[node] = cpu if run.on_cpu else accelerator
        accelerator += not run.on_cpu
        cpu += run.on_cpu and objective == "throughput"
    return PublicSplit(tuple(device), tuple(device))


def _runs(problem: PublicProblem, units: Units, objective: PublicObjective) -> list[_Run] | None:
    """Runs with the least largest load; None where no cutting fits.

    Devices used are (accelerators, CPUs); what they can do is found from what one device less can do.
    """
    count = len(units.members)
    places = np.unique(np.linspace(0, count, min(count, _MOST_PLACES) + 1).astype(np.int64))
    loads = _run_loads(problem, units, places)
    most = count if objective == "latency" else problem.cpus
    cpus = min(most, count, _MOST_CPUS) if problem.cpus else 0
    best = {(0, 0): np.where(places == 0, 0.0, np.inf)}
    came: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.bool_]]] = {}
    for a, c in product(range(min(problem.accelerators, count) + 1), range(cpus + 1)):
        for before, on_cpu in (((a - 1, c), False), ((a, c - 1), True)):
            if before not in best:
                continue
            table = np.maximum(best[before][:, None], loads[on_cpu])
            origin, value = table.argmin(axis=0), table.min(axis=0)
            if (a, c) in best:
                better = value < best[a, c]
                value = np.where(better, value, best[a, c])
                origin = np.where(better, origin, came[a, c][0])
                kind = np.where(better, on_cpu, came[a, c][1])
            else:
                kind = np.full(len(places), on_cpu)
            best[a, c], came[a, c] = value, (origin, kind)
    (a, c), last = max(best), len(places) - 1
    if not np.isfinite(best[a, c][last]):
        return None
    runs: list[_Run] = []
    while (a, c) != (0, 0):
        origin, on_cpu = int(came[a, c][0][last]), bool(came[a, c][1][last])
        if origin < last:
            runs.append(_Run(int(places[origin]), int(places[last]), on_cpu))
        a, c, last = a - (not on_cpu), c - on_cpu, origin
    return runs[::-1]


def _run_loads(
    problem: PublicProblem, units: Units, places: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Load of each run between two places (rows: where it begins) on an accelerator and on a CPU; infinite where it
    does not fit or ends before it begins.

    A value is moved unless the run has all units that make or read it, or none.
    """
    count = len(places)
    sums = np.zeros((4, count))
    segment = np.searchsorted(places, np.arange(len(units.members)), side="right") - 1
    for unit, members in enumerate(units.members):
        nodes = [problem.nodes[node] for node in members]
        sums[0, segment[unit] + 1] += sum(node.accelerator for node in nodes)
        sums[1, segment[unit] + 1] += sum(node.cpu for node in nodes)
        sums[2, segment[unit] + 1] += sum(node.size for node in nodes)
        sums[3, segment[unit] + 1] += sum(not node.on_accelerator for node in nodes)
    work, cpu, size, refused = sums.cumsum(axis=1)
    # Values that a run has all of, or nothing of: the last place where such a run begins and the first where it ends,
    # or the first and the last.
    all_of, none_of, total = np.zeros((count, count)), np.zeros((count, count)), 0.0
    for node, cost in enumerate(problem.cost):
        ends = sorted({int(segment[units.unit_of[other]]) for other in (node, *problem.successors[node])})
        if not cost or len(ends) < 2:
            continue
        total += cost
        all_of[ends[0], ends[-1] + 1] += cost
        for before, after in pairwise([-1, *ends, count - 1]):
            none_of[before + 1, after] += cost
    all_of = all_of[::-1].cumsum(axis=0)[::-1].cumsum(axis=1)
    none_of = none_of.cumsum(axis=0)[:, ::-1].cumsum(axis=1)[:, ::-1]
    ordered = np.arange(count)[:, None] <= np.arange(count)
    fits = (size - size[:, None] <= problem.capacity) & (refused == refused[:, None])
    on_accelerator = work - work[:, None] + np.maximum(total - all_of - none_of, 0.0)
    empty = np.eye(count, dtype=bool)
    return (
        np.where(empty, 0.0, np.where(ordered & fits, on_accelerator, np.inf)),
        np.where(ordered, cpu - cpu[:, None], np.inf),
    )
