"""Whether whole ops can give every device its least share of FLOPs at all, and what shares they could give.

A few large ops make shares impossible that add up to less than one: where one op has 65% of the FLOPs, two other
devices cannot have 20% each. That is a covering problem without any times, which CP-SAT decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ortools.sat.python import cp_model

from gimlet.compiler.placement.model.problem import Problem

_UNITS = 10**9
_FINE = 10_000
_WORK = 2.0


@dataclass(frozen=True)
class Cover:
    """`most` is a proven upper bound on the part of every share that can be had, 1 being all of it.

    `place` gives places that keep the shares, or come near; None where none were found.
    """

    most: float
    place: tuple[int, ...] | None


def share_cover(problem: Problem) -> Cover:
    """The largest part of all shares that whole ops can give, at most 1, and the places for that."""
    shares = {device: share for device, share in sorted(problem.rules.min_share.items()) if share > 0}
    if not shares:
        return Cover(1.0, None)
    greedy = _greedy(problem, shares)
    if greedy is not None:
        return Cover(1.0, greedy)
    model = cp_model.CpModel()
    at = [
        {device: model.new_bool_var("") for device in sorted({problem.device_of[p] for p in allowed})}
        for allowed in problem.allowed
    ]
    part = model.new_int_var(0, _FINE, "part")
    total = max(problem.total_flops, 1.0)
    for literals in at:
        model.add_exactly_one(literals.values())
    for device, share in shares.items():
        # Rounded in favour of the shares, so that what is not possible here is not possible.
        given: list[Any] = [
            int(node.flops / total * _UNITS + 1) * literals[device]
            for node, literals in zip(problem.nodes, at, strict=True)
            if node.flops and device in literals
        ]
        model.add(sum(given) >= int(share * _UNITS / _FINE) * part)
    for group in problem.rules.together:
        for node in group[1:]:
            for device in at[group[0]].keys() | at[node].keys():
                model.add(at[group[0]].get(device, 0) == at[node].get(device, 0))
    model.maximize(part)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_deterministic_time = _WORK
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Cover(1.0, None)
    chosen = [next(device for device, literal in literals.items() if solver.value(literal)) for literals in at]
    # The bound of a whole number comes as a float, which may be a little below it.
    return Cover(math.floor(solver.best_objective_bound + 1e-3) / _FINE, _fastest(problem, chosen))


def _greedy(problem: Problem, shares: dict[int, float]) -> tuple[int, ...] | None:
    """Places found by giving the largest op to whoever lacks most; None where that does not keep the shares."""
    if problem.rules.together:
        return None
    lacking = {device: share * problem.total_flops for device, share in shares.items()}
    chosen = [problem.device_of[allowed[0]] for allowed in problem.allowed]
    for node in sorted(range(len(problem.nodes)), key=lambda n: -problem.nodes[n].flops):
        devices = {problem.device_of[place] for place in problem.allowed[node]}
        takers = [device for device in sorted(devices & lacking.keys()) if lacking[device] > 0]
        if takers:
            chosen[node] = max(takers, key=lambda device: lacking[device])
            lacking[chosen[node]] -= problem.nodes[node].flops
    return None if any(left > 0 for left in lacking.values()) else _fastest(problem, chosen)


def _fastest(problem: Problem, devices: list[int]) -> tuple[int, ...]:
    return tuple(
        min(
            (place for place in problem.allowed[node] if problem.device_of[place] == device),
            key=lambda place: (problem.nodes[node].options[place].seconds, place),
        )
        for node, device in enumerate(devices)
    )
