"""From a place for each node to segments: as few atomic launches as a sweep over the graph finds, in a valid order.

The sweep stays on one place while any node there is ready, then moves on. Its runs are segments, and the order of the
runs is a topological order of the graph of segments, so that graph cannot have a cycle. Which place comes next is a
policy; a sweep over the reversed graph puts each node as late as possible instead of as early. `carve` tries all
policies and keeps the placement whose schedule is best, so it needs no proof of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gimlet.compiler.placement.model.problem import Objective, Placement, Problem
from gimlet.compiler.placement.model.schedule import Schedule, simulate, violations

Policy = Callable[[Problem, dict[int, list[int]]], int]


def _first(problem: Problem, ready: dict[int, list[int]]) -> int:
    """The place of the ready node that comes first in the graph."""
    del problem
    return min(ready, key=lambda place: min(ready[place]))


def _last(problem: Problem, ready: dict[int, list[int]]) -> int:
    """The place whose first ready node comes last in the graph: the side branch waits least."""
    del problem
    return max(ready, key=lambda place: min(ready[place]))


def _heaviest(problem: Problem, ready: dict[int, list[int]]) -> int:
    """The place with the most seconds ready."""
    return max(ready, key=lambda place: (sum(problem.nodes[n].options[place].seconds for n in ready[place]), -place))


POLICIES: tuple[Policy, ...] = (_first, _last, _heaviest)


def sweep(problem: Problem, place: Sequence[int], policy: Policy, late: bool = False) -> tuple[int, ...]:
    """The segment of each node, by one sweep. `late` sweeps from the outputs."""
    before, after = problem.predecessors, problem.successors
    if late:
        before, after = after, before
    waiting = [len(sources) for sources in before]
    ready: dict[int, list[int]] = {}
    for node, count in enumerate(waiting):
        if not count:
            ready.setdefault(place[node], []).append(node)
    segment = [0] * len(place)
    number = 0
    while ready:
        current = policy(problem, ready)
        stack = ready.pop(current)
        while stack:
            node = stack.pop()
            segment[node] = number
            for following in after[node]:
                waiting[following] -= 1
                if waiting[following]:
                    continue
                if place[following] == current:
                    stack.append(following)
                else:
                    ready.setdefault(place[following], []).append(following)
        number += 1
    return tuple(number - 1 - found for found in segment) if late else tuple(segment)


@dataclass(frozen=True)
class Found:
    """A placement with its schedule and how far it is from keeping the rules (0: it keeps them)."""

    placement: Placement
    schedule: Schedule
    excess: float

    def rank(self, objective: Objective) -> tuple[float, float, int, float, float]:
        """What is better, when two are compared: the rules, the objective, fewer segments, latency, busy time."""
        schedule = self.schedule
        return (
            _rounded(self.excess),
            _rounded(schedule.figure(objective)),
            len(schedule.launches),
            _rounded(schedule.latency_s),
            _rounded(sum(schedule.device_busy_s.values())),
        )


def judge(problem: Problem, placement: Placement) -> Found:
    """Simulates a placement and checks it against the rules. Memory is counted where it could be short."""
    schedule = simulate(problem, placement, with_memory=problem.memory_can_bind)
    return Found(placement, schedule, sum(amount for amount, _ in violations(problem, placement, schedule)))


def carve(problem: Problem, place: Sequence[int], policies: Sequence[Policy] = POLICIES) -> Found:
    """The best placement with these places that the sweeps find."""
    segments = {sweep(problem, place, policy, late): None for late in (False, True) for policy in policies}
    found = [judge(problem, Placement(tuple(place), segment)) for segment in segments]
    return min(found, key=lambda candidate: candidate.rank(problem.rules.objective))


def renumber(segments: Iterable[int]) -> tuple[int, ...]:
    """Segment numbers without gaps, in the same order."""
    listed = list(segments)
    position = {number: index for index, number in enumerate(sorted(set(listed)))}
    return tuple(position[number] for number in listed)


def _rounded(figure: float) -> float:
    """Without the last digits, in which sums of the same numbers in another order differ."""
    return float(f"{figure:.10g}")
