"""Units of a public problem, and a first split: the best cuts of a topological order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gimlet.compiler.placement.public.public_format import (
    PublicObjective,
    PublicProblem,
    PublicSplit,
    latency,
    max_load,
)


@dataclass(frozen=True)
class Units:
    """Nodes that share a device: positions in the problem by unit, in an order in which data flows forward."""

    members: tuple[tuple[int, ...], ...]
    unit_of: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]


def units_of(problem: PublicProblem, *, contiguous: bool) -> Units:
    """Colour classes. Where devices are ordered, units on a cycle share a device too, and become one."""
    owner = list(range(len(problem.nodes)))
    first: dict[int, int] = {}
    for index, node in enumerate(problem.nodes):
        if node.colour is not None:
            owner[index] = first.setdefault(node.colour, index)
    while contiguous:
        reach = _reachable(problem, owner)
        joined = False
        for a in sorted(set(owner)):
            for b in sorted(set(owner)):
                if a < b and reach[a] >> b & 1 and reach[b] >> a & 1:
                    owner = [a if o == b else o for o in owner]
                    joined = True
        if not joined:
            break
    edges = {(owner[a], owner[b]) for a, b in problem.edges if owner[a] != owner[b]}
    order = _ordered(sorted(set(owner)), edges)
    number = {unit: position for position, unit in enumerate(order)}
    members: list[list[int]] = [[] for _ in order]
    for node, unit in enumerate(owner):
        members[number[unit]].append(node)
    return Units(
        tuple(tuple(nodes) for nodes in members),
        tuple(number[unit] for unit in owner),
        tuple(sorted((number[a], number[b]) for a, b in edges)),
    )


def _reachable(problem: PublicProblem, owner: Sequence[int]) -> dict[int, int]:
    """For each unit the units it leads to, as bits; to a fixed point, since there may be cycles."""
    reach = dict.fromkeys(set(owner), 0)
    edges = {(owner[a], owner[b]) for a, b in problem.edges if owner[a] != owner[b]}
    changed = True
    while changed:
        changed = False
        for a, b in edges:
            more = reach[a] | 1 << b | reach[b]
            changed |= more != reach[a]
            reach[a] = more
    return reach


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


def contiguous_start(problem: PublicProblem, units: Units, objective: PublicObjective) -> PublicSplit | None:
    """The best way to cut the units' order into runs, one for each accelerator; None where that does not fit.

    Nodes that no accelerator takes are on the CPU. Runs are chosen by their load alone.
    """
    order = [unit for unit, nodes in enumerate(units.members) if all(problem.nodes[n].on_accelerator for n in nodes)]
    if problem.cpus == 0 and len(order) < len(units.members):
        return None
    best = _cuts(problem, units, order)
    if best is None:
        return None
    device = [problem.accelerators] * len(problem.nodes)
    for number, (first, last) in enumerate(best):
        for unit in order[first:last]:
            for node in units.members[unit]:
                device[node] = number
    split = PublicSplit(tuple(device), tuple(device))
    everything = PublicSplit((problem.accelerators,) * len(device), (problem.accelerators,) * len(device))
    figure = max_load if objective == "throughput" else latency
    if len(order) < len(units.members) and problem.cpus:
        return everything
    return min([split, *([everything] if problem.cpus else [])], key=lambda found: figure(problem, found))


def _cuts(problem: PublicProblem, units: Units, order: Sequence[int]) -> list[tuple[int, int]] | None:
    """Runs [first, last) of `order` with the least largest load."""
    loads = _run_loads(problem, units, order)
    count = len(order)
    best = [[float("inf")] * (count + 1) for _ in range(problem.accelerators + 1)]
    parent = [[-1] * (count + 1) for _ in range(problem.accelerators + 1)]
    best[0][0] = 0.0
    for devices in range(1, problem.accelerators + 1):
        for last in range(count + 1):
            best[devices][last], parent[devices][last] = best[devices - 1][last], last
            for first in range(last):
                value = max(best[devices - 1][first], loads[first][last])
                if value < best[devices][last]:
                    best[devices][last], parent[devices][last] = value, first
    if best[-1][count] == float("inf"):
        return None
    runs: list[tuple[int, int]] = []
    last = count
    for devices in range(problem.accelerators, 0, -1):
        first = parent[devices][last]
        if first < last:
            runs.append((first, last))
        last = first
    return runs[::-1]


def _run_loads(problem: PublicProblem, units: Units, order: Sequence[int]) -> list[list[float]]:
    """Load of each run of the order; infinite where it does not fit an accelerator."""
    count = len(order)
    loads = [[0.0] * (count + 1) for _ in range(count)]
    for first in range(count):
        inside: set[int] = set()
        work = size = 0.0
        moving: dict[int, float] = {}
        for last in range(first + 1, count + 1):
            added = units.members[order[last - 1]]
            inside.update(added)
            work += sum(problem.nodes[node].accelerator for node in added)
            size += sum(problem.nodes[node].size for node in added)
            touched = {*added, *(s for node in added for s in problem.predecessors[node])}
            for node in touched:
                crossing = any((after in inside) != (node in inside) for after in problem.successors[node])
                moving[node] = problem.cost[node] if crossing else 0.0
            loads[first][last] = work + sum(moving.values()) if size <= problem.capacity else float("inf")
    return loads
