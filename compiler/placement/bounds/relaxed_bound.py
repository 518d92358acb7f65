"""The latency bound with shares and capacities, by Lagrangian relaxation.

A rule such as "20% of the FLOPs on cpu" is a sum over nodes that must reach an amount; so is a capacity, with the sign
turned, and so is a loss budget, in squares. Each gets a multiplier: what is missing costs, what is there pays. For any
multipliers (none negative) the least latency plus these charges is a lower bound on the latency of every placement that
keeps the rules. The multipliers climb by subgradient steps; the placements that come up on the way miss the rules by
little and are good places to start from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from gimlet.compiler.placement.bounds.latency_bound import LatencyBound, LatencyRelaxation
from gimlet.compiler.placement.bounds.share_path import share_path
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.model.streaming import places_on

_STEPS = 24
_BUDGET = 4_000
_LARGEST_BLOCK = 24


@dataclass(frozen=True)
class Resource:
    """A rule: the sum of `amount[node][place]` over all nodes must be at least `least`. Amounts are in parts of one."""

    amount: list[list[float]]
    least: float

    def missing(self, place: Sequence[int]) -> float:
        """What a placement lacks; negative where it has more than it must."""
        return self.least - sum(self.amount[node][chosen] for node, chosen in enumerate(place))


def resources(problem: Problem) -> list[Resource]:
    """Shares of FLOPs, and the capacities and the loss budget that not every placement keeps."""
    places = range(len(problem.places))
    found: list[Resource] = []
    total = max(problem.total_flops, 1.0)
    for device, share in sorted(problem.rules.min_share.items()):
        on = [place for place in places if problem.device_of[place] == device]
        found.append(
            Resource([[node.flops / total if p in on else 0.0 for p in places] for node in problem.nodes], share)
        )
    for device, spec in enumerate(problem.devices):
        capacity = spec.memory_bytes
        on = places_on(problem, device)
        if capacity is None or not on or not capacity:
            continue
        amount = [[0.0 for _ in places] for _ in problem.nodes]
        for weight in problem.weights:
            # Counted at its first user only: a weight that several use is there once.
            for place in on:
                amount[weight.users[0]][place] -= weight.size_bytes.get(place, 0) / capacity
        if sum(min(row) for row in amount) < -1.0:
            found.append(Resource(amount, -1.0))
    budget = problem.rules.loss_budget
    if budget:
        lost = [
            [-((node.options[p].loss / budget) ** 2) if p in allowed else 0.0 for p in places]
            for node, allowed in zip(problem.nodes, problem.allowed, strict=True)
        ]
        if sum(min(row, default=0.0) for row in lost) < -1.0:
            found.append(Resource(lost, -1.0))
    return found


def relaxed_bound(
    problem: Problem, relaxation: LatencyRelaxation, start: LatencyBound, best_known: float
) -> tuple[LatencyBound, list[tuple[int, ...]]]:
    """The best bound over multipliers, and the placements seen. `best_known` sets the length of the steps.

    Multipliers are sought with as little left out as leaves no block larger than a search is quick for: charges are
    exact there, and weak in a block that is only bounded.
    """
    rules = resources(problem)
    if not rules or not problem.nodes:
        return start, []
    seen: dict[tuple[int, ...], None] = {}
    choice = next(c for c in range(len(relaxation.choices)) if relaxation.largest_block(c) <= _LARGEST_BLOCK)
    found = _ascend(problem, relaxation, rules, choice, best_known, seen)
    way = share_path(relaxation, choice) if any(problem.rules.min_share.values()) else None
    if way is not None:
        seen[way] = None
    return LatencyBound(max(found.seconds, start.seconds), start.place, start.choice), list(seen)


def _ascend(
    problem: Problem,
    relaxation: LatencyRelaxation,
    rules: Sequence[Resource],
    choice: int,
    best_known: float,
    seen: dict[tuple[int, ...], None],
) -> LatencyBound:
    """Subgradient steps from multipliers of zero; notes the placements seen."""
    places = range(len(problem.places))
    multipliers = [0.0] * len(rules)
    best = found = relaxation.bound(None, choice, _BUDGET)
    pace, stalled = 1.0, 0
    for _ in range(_STEPS):
        if perf_counter() > relaxation.until:
            break
        missing = [rule.missing(found.place) for rule in rules]
        norm = sum(m * m for m in missing)
        if not norm or all(m <= 0 and not u for m, u in zip(missing, multipliers, strict=True)):
            break
        goal = best_known if best_known < float("inf") else 2 * best.seconds
        step = pace * max(goal - found.seconds, 0.01 * abs(goal)) / norm
        multipliers = [max(u + step * m, 0.0) for u, m in zip(multipliers, missing, strict=True)]
        priced = list(zip(multipliers, rules, strict=True))
        charge = [
            [-sum(u * rule.amount[n][p] for u, rule in priced) for p in places] for n in range(len(problem.nodes))
        ]
        plain = relaxation.bound(charge, choice, _BUDGET)
        found = LatencyBound(plain.seconds + sum(u * rule.least for u, rule in priced), plain.place, choice)
        seen[found.place] = None
        if found.seconds > best.seconds * (1 + 1e-4):
            best, stalled = found, 0
        else:
            stalled += 1
            if stalled >= 3:
                pace, stalled = pace / 2, 0
    return best
