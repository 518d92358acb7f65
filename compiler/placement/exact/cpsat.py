"""Runs CP-SAT on the slot model, from a placement that is known, under limits of work or time."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from ortools.sat.python import cp_model

from gimlet.compiler.placement.exact.slot_hint import complete_hint
from gimlet.compiler.placement.exact.slot_model import FACTOR, HORIZON, TICKS, SlotModel
from gimlet.compiler.placement.model.problem import Objective, Placement, Problem
from gimlet.compiler.placement.model.schedule import simulate, violations


@dataclass(frozen=True)
class Limits:
    """When the solver stops. `work` is CP-SAT's deterministic time, about a second on one idle core, and reproducible.

    `seconds` is wall time and makes the answer depend on the machine; None is no such limit.
    """

    work: float = 2.0
    seconds: float | None = None
    seed: int = 0
    gap: float = 1e-4


@dataclass(frozen=True)
class Answer:
    """What CP-SAT found: `placement` is None where nothing was.

    `bound` is for at most `slots` segments, or, where it is `complete`, for every placement of the problem's nodes.
    """

    placement: Placement | None
    objective: float
    bound: float
    status: str
    slots: int
    complete: bool = False


def solve_slots(
    problem: Problem,
    start: Placement | None,
    scales: dict[Objective, float],
    least_latency: float,
    rounds: int,
    limits: Limits,
) -> Answer:
    """Solves the problem from `start` on. `scales` are values of the objectives that set the resolution.

    Times, FLOPs and bytes are rounded, so a limit that a placement just keeps could be out of reach: limits are looser
    by as much as rounding can be off. Where the answer then breaks one, it is sought again with none of that;
    what is proven is that of the looser problem. Both together take no longer than `limits.seconds`.
    """
    began = time.perf_counter()
    answer = _solve(problem, start, scales, least_latency, rounds, limits, loose=True)
    if answer.placement is None or not violations(problem, answer.placement, simulate(problem, answer.placement)):
        return answer
    if limits.seconds is not None:
        limits = replace(limits, seconds=max(limits.seconds - (time.perf_counter() - began), 0.01))
    strict = _solve(problem, start, scales, least_latency, rounds, limits, loose=False)
    return replace(strict, bound=answer.bound, status="unknown" if strict.placement is None else strict.status)


def _solve(
    problem: Problem,
    start: Placement | None,
    scales: dict[Objective, float],
    least_latency: float,
    rounds: int,
    limits: Limits,
    *,
    loose: bool,
) -> Answer:
    count = len(problem.nodes)
    reference = start or Placement((0,) * count, (0,) * count)
    slots = SlotModel(problem, rounds, reference, scales, loose=loose)
    model, objective, bounds = slots.model, problem.rules.objective, problem.rules.bounds
    asked: set[Objective] = {objective, *bounds}
    figures: dict[Objective, Any] = {}
    if asked & {"latency", "energy", "cost"}:
        figures["latency"] = slots.add_latency(least_latency)
    if "throughput" in asked:
        figures["throughput"] = slots.add_period()
    if "energy" in asked:
        figures["energy"] = slots.add_energy(figures["latency"])
    if "cost" in asked:
        figures["cost"] = slots.add_cost(figures["latency"])
    for name, bound in bounds.items():
        most = int(bound / (scales[name] / TICKS / FACTOR[name])) + (slots.roundings * FACTOR[name] if loose else 0)
        model.add(figures[name] <= min(most, HORIZON * FACTOR[name]))
    model.minimize(figures[objective])
    if start is not None:
        for variable, value in complete_hint(slots, start):
            model.add_hint(variable, value)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = limits.seed
    solver.parameters.max_deterministic_time = limits.work
    solver.parameters.relative_gap_limit = limits.gap
    solver.parameters.cp_model_probing_level = 0
    if limits.seconds is not None:
        solver.parameters.max_time_in_seconds = max(limits.seconds, 0.01)
    status = solver.solve(model)
    unit = scales[objective] / TICKS / FACTOR[objective]
    name = {cp_model.OPTIMAL: "optimal", cp_model.FEASIBLE: "feasible", cp_model.INFEASIBLE: "infeasible"}.get(
        status, "unknown"
    )
    if name not in ("optimal", "feasible"):
        return Answer(None, float("inf"), 0.0, name, len(slots.slots))
    error = 0.5 * slots.roundings * unit * FACTOR[objective]
    bound = max(solver.best_objective_bound * unit - error, 0.0)
    # A placement of k segments fits into k rounds, whatever their order.
    complete = slots.rounds >= min(count, problem.rules.max_segments or count)
    return Answer(slots.read(solver), solver.objective_value * unit, bound, name, len(slots.slots), complete)
