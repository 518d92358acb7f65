"""A split of a whole public problem from the subgraphs of its joints: what lies at the sides goes where it is used."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from gimlet.compiler.placement.public.public_format import PublicProblem, PublicSplit, latency, memory
from gimlet.compiler.placement.public.public_start import Units

_CPU = -1


def split_of(
    problem: PublicProblem, units: Units, kept: Sequence[int], runs: Sequence[Sequence[int]]
) -> PublicSplit | None:
    """The split in which subgraph number n is `runs[n]`, each on an accelerator of its own, other `kept` nodes on CPUs.

    A unit without a kept node joins the subgraph of its neighbours where all are in the same one; else it goes to the
    best place, unit by unit. None where a unit would be divided, where subgraphs would wait for each other, or where
    the accelerators are too few or too small.
    """
    run_of = {node: number for number, nodes in enumerate(runs) for node in nodes}
    place: dict[int, int] = {}
    for node in kept:
        run = run_of.get(node, _CPU)
        if place.setdefault(units.unit_of[node], run) != run:
            return None
    sides = _Sides(problem, units)
    sides.join_neighbours(place)
    return sides.improved(place) if len(runs) <= problem.accelerators else None


class _Sides:
    """Units by their places: the number of a subgraph, or the CPU."""

    def __init__(self, problem: PublicProblem, units: Units) -> None:
        self.problem, self.units = problem, units
        self.near: list[set[int]] = [set() for _ in units.members]
        for source, destination in units.edges:
            self.near[source].add(destination)
            self.near[destination].add(source)
        self.free: list[int] = []

    def _may_be_on_accelerator(self, unit: int) -> bool:
        return all(self.problem.nodes[node].on_accelerator for node in self.units.members[unit])

    def join_neighbours(self, place: dict[int, int]) -> None:
        """Places what has no place yet, from what is placed outwards."""
        self.free = [unit for unit in range(len(self.units.members)) if unit not in place]
        waiting = list(self.free)
        while waiting:
            ready = [unit for unit in waiting if any(other in place for other in self.near[unit])] or waiting
            for unit in ready:
                there = {place[other] for other in self.near[unit] if other in place}
                together = len(there) == 1 and self._may_be_on_accelerator(unit)
                place[unit] = there.pop() if together else _CPU
            waiting = [unit for unit in waiting if unit not in place]

    def improved(self, place: dict[int, int]) -> PublicSplit | None:
        """Moves one unit at a time to a neighbour's place, or to the CPU, while that is quicker."""
        best = self._split(place)
        least = float("inf") if best is None else latency(self.problem, best)
        moved = True
        while moved:
            moved = False
            for unit in self.free:
                choices = {place[other] for other in self.near[unit]} | {_CPU}
                for choice in sorted(choices - {place[unit]}):
                    found = self._split({**place, unit: choice})
                    if found is None or (value := latency(self.problem, found)) >= least:
                        continue
                    best, least, place, moved = found, value, {**place, unit: choice}, True
        return best

    def _split(self, place: dict[int, int]) -> PublicSplit | None:
        problem = self.problem
        if any(run != _CPU and not self._may_be_on_accelerator(unit) for unit, run in place.items()):
            return None
        if (_CPU in place.values() and not problem.cpus) or not self._flows_forward(place):
            return None
        where = [place[unit] for unit in self.units.unit_of]
        split = PublicSplit(tuple(problem.accelerators if run == _CPU else run for run in where), tuple(where))
        return split if max(memory(problem, split), default=0.0) <= problem.capacity else None

    def _flows_forward(self, place: dict[int, int]) -> bool:
        count = len(self.units.members)
        name = {unit: unit if run == _CPU else count + run for unit, run in place.items()}
        order: TopologicalSorter[int] = TopologicalSorter()
        for source, destination in self.units.edges:
            if name[source] != name[destination]:
                order.add(name[destination], name[source])
        try:
            order.prepare()
        except CycleError:
            return False
        return True
