"""Simulated annealing of a public problem's throughput without contiguity: a start for CP-SAT.

A step moves a unit, or some neighbours of it that are on the same device, to the device of another neighbour or to any.
What is made small is the sum of the loads' eighth powers, so that a move which helps the second busiest device counts
as well. Loads are in units of the busiest one's at the last time it was a tenth less. A move that makes the sum larger
by d is made with probability exp(-d / t), and t falls on the way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from time import perf_counter

from gimlet.compiler.placement.public.public_format import PublicProblem, PublicSplit, max_load
from gimlet.compiler.placement.public.public_start import Units

_POWER = 8
_HOT, _COLD = 0.3, 1e-3
_TOGETHER = 0.6
"""How many of the first steps move several units; none of the last ones does."""
_GROUPS = (2, 3, 4, 8, 16, 32)
_NEAR, _ALONG = 0.8, 0.7
"""How often a goal is a neighbour's device, and how often a neighbour comes along."""
_CLOCKED = 64
"""The clock is read once in so many steps."""


def annealed(
    problem: PublicProblem, units: Units, start: PublicSplit, *, steps: int, until: float = math.inf, seed: int = 0
) -> PublicSplit:
    """`start`, or a split with a smaller largest load, after so many steps or at `until` (`time.perf_counter`)."""
    found = _Annealing(problem, units, start, Random(seed)).anneal(steps, until)
    return min(start, found, key=lambda split: max_load(problem, split))


class _Annealing:
    """Units on devices (accelerators first), with their loads and bytes kept up to date."""

    def __init__(self, problem: PublicProblem, units: Units, start: PublicSplit, random: Random) -> None:
        self.problem, self.units, self.random = problem, units, random
        self.together = _TOGETHER
        self.devices = problem.accelerators + problem.cpus
        nodes = problem.nodes
        self.work = [(sum(nodes[n].accelerator for n in m), sum(nodes[n].cpu for n in m)) for m in units.members]
        self.size = [sum(nodes[n].size for n in members) for members in units.members]
        self.supported = [all(nodes[n].on_accelerator for n in members) for members in units.members]
        self.values = self._values()
        self.values_of: list[list[int]] = [[] for _ in units.members]
        for index, (producer, readers, _) in enumerate(self.values):
            for unit in (producer, *readers):
                self.values_of[unit].append(index)
        self.near = [
            sorted({other for i in mine for other in (self.values[i][0], *self.values[i][1])} - {unit})
            for unit, mine in enumerate(self.values_of)
        ]
        self.device = [start.device[members[0]] for members in units.members]
        self.load = [0.0] * self.devices
        self.used = [0.0] * self.devices
        for unit, device in enumerate(self.device):
            self.load[device] += self._seconds(unit, device)
            self.used[device] += self.size[unit]
        for index, (_, _, cost) in enumerate(self.values):
            for device in self._paying(index):
                self.load[device] += cost

    def _values(self) -> list[tuple[int, tuple[int, ...], float]]:
        """Producer, readers in other units and cost of what is moved; values with the same ends are one."""
        found: dict[tuple[int, tuple[int, ...]], float] = {}
        for node, cost in enumerate(self.problem.cost):
            unit = self.units.unit_of[node]
            readers = {self.units.unit_of[after] for after in self.problem.successors[node]} - {unit}
            if cost and readers:
                key = (unit, tuple(sorted(readers)))
                found[key] = found.get(key, 0.0) + cost
        return [(producer, readers, cost) for (producer, readers), cost in found.items()]

    def _seconds(self, unit: int, device: int) -> float:
        return self.work[unit][device >= self.problem.accelerators]

    def _paying(self, value: int) -> list[int]:
        """The accelerators that fetch or give away a value."""
        producer, readers, _ = self.values[value]
        here = self.device[producer]
        reached = {self.device[reader] for reader in readers}
        reached.discard(here)
        if not reached:
            return []
        return [device for device in (here, *reached) if device < self.problem.accelerators]

    def anneal(self, steps: int, until: float) -> PublicSplit:
        began = perf_counter()
        best, least = list(self.device), max(self.load)
        scale, temperature = least or 1.0, _HOT
        for step in range(steps):
            if step % _CLOCKED == 0:
                now = perf_counter()
                done = max(step / steps, (now - began) / max(until - began, 1e-9))
                temperature = _HOT * (_COLD / _HOT) ** done
                self.together = _TOGETHER * (1 - done)
                if now > until:
                    break
            if not self._step(temperature, scale):
                continue
            largest = max(self.load)
            if largest < least * (1 - 1e-9):
                best, least = list(self.device), largest
            scale = largest if largest < 0.9 * scale else scale
        where = tuple(best[unit] for unit in self.units.unit_of)
        return PublicSplit(where, where)

    def _step(self, temperature: float, scale: float) -> bool:
        """Makes a move at random, if its cost is not too high; whether it did."""
        random = self.random
        unit = random.randrange(len(self.device))
        home = self.device[unit]
        other = random.choice(self.near[unit]) if self.near[unit] and random.random() < _NEAR else None
        goal = random.randrange(self.devices) if other is None or self.device[other] == home else self.device[other]
        if goal == home:
            return False
        group = self._group(unit) if random.random() < self.together else [unit]
        size = sum(self.size[member] for member in group)
        if goal < self.problem.accelerators and not (
            self.used[goal] + size <= self.problem.capacity and all(self.supported[member] for member in group)
        ):
            return False
        change = self._moved(group, goal)
        worse = sum(
            (max(self.load[device] + more, 0.0) / scale) ** _POWER - (self.load[device] / scale) ** _POWER
            for device, more in change.items()
        )
        if worse > 0 and random.random() >= math.exp(-worse / temperature):
            for member in group:
                self.device[member] = home
            return False
        self.used[home] -= size
        self.used[goal] += size
        for device, more in change.items():
            self.load[device] = max(self.load[device] + more, 0.0)
        return True

    def _group(self, unit: int) -> list[int]:
        """A unit and some of those around it on the same device, nearest first."""
        size = self.random.choice(_GROUPS)
        group, seen = [unit], {unit}
        for member in group:
            for other in self.near[member]:
                if other in seen or self.device[other] != self.device[unit] or self.random.random() >= _ALONG:
                    continue
                seen.add(other)
                group.append(other)
            if len(group) >= size:
                break
        return group[:size]

    def _moved(self, group: Sequence[int], goal: int) -> Mapping[int, float]:
        """Moves units of one device to another; by how much that changes the loads."""
        home = self.device[group[0]]
        change = {
            home: -sum(self._seconds(member, home) for member in group),
            goal: sum(self._seconds(member, goal) for member in group),
        }
        touched = {value for member in group for value in self.values_of[member]}
        self._count(touched, change, -1.0)
        for member in group:
            self.device[member] = goal
        self._count(touched, change, 1.0)
        return change

    def _count(self, values: set[int], change: dict[int, float], sign: float) -> None:
        for value in values:
            for device in self._paying(value):
                change[device] = change.get(device, 0.0) + sign * self.values[value][2]
