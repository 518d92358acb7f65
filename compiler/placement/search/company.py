"""Brings a choice of places to keep ops on one device that must share it, and ops apart that may not share one.

Ops that share a device move as one, to the device on which they take least. Of two sides on a device, the side leaves
it that loses less elsewhere. Only the ops' own seconds count: the caller judges the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gimlet.compiler.placement.model.problem import Problem


def keep_company(problem: Problem, place: Sequence[int]) -> tuple[int, ...]:
    """Places that keep these rules where that is found; `place` itself where there are none."""
    rules = problem.rules
    if not (rules.together or rules.apart):
        return tuple(place)
    return _Company(problem, place).run()


class _Company:
    """Ops that move as one, and the device that each of them is on."""

    def __init__(self, problem: Problem, place: Sequence[int]) -> None:
        self.problem, self.place = problem, list(place)
        self.members = _joined(len(place), problem.rules.together)
        unit_of = {node: unit for unit, nodes in self.members.items() for node in nodes}
        self.sides = [tuple({unit_of[node] for node in side} for side in pair) for pair in problem.rules.apart]
        ruled = {unit for pair in self.sides for side in pair for unit in side}
        ruled |= {unit for unit, nodes in self.members.items() if len(nodes) > 1}
        self.costs = {unit: self._costs(self.members[unit]) for unit in sorted(ruled)}
        self.on: dict[int, int] = {}
        for unit in self.costs:
            nodes = self.members[unit]
            now = {problem.device_of[self.place[node]] for node in nodes}
            if len(now) == 1:
                self.on[unit] = now.pop()
            elif self.costs[unit]:
                self._move(unit, min(self.costs[unit], key=self.costs[unit].__getitem__))

    def run(self) -> tuple[int, ...]:
        for left, right in self.sides:
            for device in sorted(self._used(left) & self._used(right)):
                moves = [
                    self._leaving(side, device, self._used(other)) for side, other in ((left, right), (right, left))
                ]
                possible = [move for move in moves if move is not None]
                for unit, target in min(possible, key=self._loss, default={}).items():
                    self._move(unit, target)
        return tuple(self.place)

    def _used(self, units: Iterable[int]) -> set[int]:
        return {self.on[unit] for unit in units if unit in self.on}

    def _leaving(self, units: Iterable[int], device: int, taken: set[int]) -> dict[int, int] | None:
        """Where those of the units go that are on a device, to none that is taken; None where one cannot go."""
        found: dict[int, int] = {}
        for unit in units:
            if self.on.get(unit) == device:
                free = {other: cost for other, cost in self.costs[unit].items() if other not in taken | {device}}
                if not free:
                    return None
                found[unit] = min(free, key=free.__getitem__)
        return found

    def _loss(self, moves: Mapping[int, int]) -> float:
        return sum(self.costs[unit][target] - self.costs[unit][self.on[unit]] for unit, target in moves.items())

    def _costs(self, nodes: Sequence[int]) -> dict[int, float]:
        """Seconds of nodes on each device that takes all of them, each on its quickest place there."""
        totals: dict[int, float] = {}
        for device in sorted(set(self.problem.device_of)):
            here = [place for place, on in enumerate(self.problem.device_of) if on == device]
            totals[device] = float(self.problem.seconds[np.ix_(nodes, here)].min(axis=1).sum())
        return {device: total for device, total in totals.items() if total < float("inf")}

    def _move(self, unit: int, device: int) -> None:
        """To one of the devices that `costs` has for the unit."""
        self.on[unit] = device
        here = [place for place, on in enumerate(self.problem.device_of) if on == device]
        for node in self.members[unit]:
            self.place[node] = min(here, key=lambda place: float(self.problem.seconds[node, place]))


def _joined(count: int, groups: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """All nodes, by the first of those that groups join."""
    owner = list(range(count))
    for group in groups:
        first = min(owner[node] for node in group)
        joined = {owner[node] for node in group}
        owner = [first if own in joined else own for own in owner]
    members: dict[int, list[int]] = {}
    for node, own in enumerate(owner):
        members.setdefault(own, []).append(node)
    return members
