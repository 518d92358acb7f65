"""Good placements and a bound, from what a path through the graph takes on each fleet (`path_model.py`).

What devices take by the second depends on which of them are in use, so where energy or cost is asked for or limited
every fleet (`bounds/fleets.py`) has a model of its own; else there is one. The fleet that is least so far is solved
next: most are ruled out in a short time, and those that leave room below the best placement get a part of what time is
left. Each placement that a model finds on its way is judged by its schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np
from ortools.sat.python import cp_model

from gimlet.compiler.placement.bounds.bills import BILLS, draws_less_idle, is_affordable, least_bill
from gimlet.compiler.placement.bounds.fleets import Fleet, Floors, every_fleet, fleets
from gimlet.compiler.placement.bounds.spine import heaviest_path
from gimlet.compiler.placement.exact.path_model import PathModel
from gimlet.compiler.placement.model.problem import OBJECTIVES, Objective, Placement, Problem
from gimlet.compiler.placement.model.segments import Found, carve, judge

_MOST_NODES, _MOST_CHOICES = 150, 3_000
_ON_PATH = 0.5
"""The part of all nodes, each as long as it takes at least, that the heaviest path has, or it says too little."""
_CLOSE = 1e-4
_FIRST = 1 / 4
"""The part of the time for one round of all fleets."""
_NEXT = 1 / 3
"""The part of what is left then for the next fleet."""
_LEAST_S, _LEAST_WORK = 0.2, 1e-3
"""The least that a fleet is solved for, and of CP-SAT's own time."""


def has_paths(problem: Problem) -> bool:
    """Whether the model says something of a problem: of not too many nodes, most of them along a path.

    It knows nothing of groups of devices, shares, caps on segments, loss budgets, and ops that are together or apart.
    """
    rules = problem.rules
    ruled = rules.min_share or rules.together or rules.apart or rules.max_segments is not None or rules.loss_budget
    if ruled or not 0 < sum(map(len, problem.allowed)) <= _MOST_CHOICES or any(d.members for d in problem.devices):
        return False
    least = problem.fused_seconds.min(axis=1)
    if len(problem.nodes) > _MOST_NODES or float(least[heaviest_path(problem)].sum()) < _ON_PATH * float(least.sum()):
        return False
    saved = np.zeros_like(problem.seconds)
    for fusion in problem.fusions:
        for place, seconds in fusion.seconds.items():
            saved[fusion.consumer, place] += seconds
    if (saved > problem.seconds).any():
        return False
    asked = (rules.objective, *rules.bounds)
    return "energy" not in asked or draws_less_idle(problem)


def solve_paths(
    problem: Problem, start: Found, floor: float, until: float, work: float, seed: int = 0
) -> tuple[Found, float, Floors]:
    """`start` or a better placement, what none is below, `floor` being known, and the same of each fleet.

    It ends at `until` (of `time.perf_counter`), or after `work` of CP-SAT's own time.
    """
    objective = problem.rules.objective
    billed = not {objective, *problem.rules.bounds}.isdisjoint(BILLS)
    every = fleets(problem, until) if billed else [every_fleet(problem, until)]
    search = _Search(problem, start, [fleet for fleet in every if is_affordable(fleet)], until, work, seed)
    for run in search.runs:
        run.bound = max(run.bound, floor)
    search.run()
    floors = Floors()
    for run in search.runs:
        floors.note(run.fleet, run.bound)
    return search.best, search.bound, floors


@dataclass
class _Run:
    """A fleet, what no placement of it is below, and the last places that its model had."""

    fleet: Fleet
    bound: float
    place: tuple[int, ...] | None = None
    done: bool = False
    tries: int = 0


class _Search:
    def __init__(
        self, problem: Problem, start: Found, usable: list[Fleet], until: float, work: float, seed: int
    ) -> None:
        self.problem, self.best, self.until, self.left, self.seed = problem, start, until, work, seed
        self.objective: Objective = problem.rules.objective
        self.path = heaviest_path(problem)
        billed = self.objective in BILLS
        self.runs = [_Run(fleet, max(least_bill(fleet, self.objective), 0.0) if billed else 0.0) for fleet in usable]

    @property
    def known(self) -> float:
        """The objective of the best placement."""
        return float("inf") if self.best.excess else self.best.schedule.figure(self.objective)

    @property
    def bound(self) -> float:
        return min([self.known, *(run.bound for run in self.runs)])

    def run(self) -> None:
        """Solves the weakest fleet: a short time first, then a part of what is left, and again after the others."""
        began, work = perf_counter(), self.left
        first = _FIRST / max(len(self.runs), 1)
        while self._has_time():
            runs = [run for run in self.runs if self._leaves_room(run)]
            if not runs:
                break
            weakest = min(runs, key=lambda run: (max(run.tries - 1, 0), run.bound))
            if not weakest.tries and len(runs) > 1:
                self._solve(weakest, max((self.until - began) * first, _LEAST_S), work * first)
                continue
            share = 1.0 if len(runs) == 1 else _NEXT
            self._solve(weakest, max((self.until - perf_counter()) * share, _LEAST_S), self.left * share)

    def _has_time(self) -> bool:
        return perf_counter() < self.until and self.left > _LEAST_WORK

    def _leaves_room(self, run: _Run) -> bool:
        return not run.done and run.bound < self.known * (1 - _CLOSE)

    def _solve(self, run: _Run, seconds: float, work: float) -> None:
        figures: dict[Objective, float] = {
            figure: self.best.schedule.figure(figure) for figure in OBJECTIVES if self._has(figure)
        }
        model = PathModel(self.problem, run.fleet, self.path, figures)
        known = self.known
        if known < float("inf"):
            model.keep(self.objective, known)
        if run.bound > 0:
            model.above(run.bound)
        model.hint(run.place or self.best.placement.place)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = self.seed
        solver.parameters.linearization_level = 2
        solver.parameters.cp_model_probing_level = 0
        solver.parameters.max_deterministic_time = work
        if self.until < float("inf"):
            solver.parameters.max_time_in_seconds = seconds
        status = solver.solve(model.model, _Judged(self, model, run))
        self.left -= float(solver.response_proto.deterministic_time) + 1e-3
        run.tries += 1
        run.done = status in (cp_model.OPTIMAL, cp_model.INFEASIBLE)
        if status == cp_model.INFEASIBLE:
            run.bound = max(run.bound, known)
        elif status in (cp_model.OPTIMAL, cp_model.FEASIBLE, cp_model.UNKNOWN):
            # Numbers are whole, and so is the least of them.
            run.bound = max(run.bound, solver.best_objective_bound * model.units[self.objective] * (1 - 1e-9))

    def _has(self, figure: Objective) -> bool:
        return figure not in BILLS or figure in (self.objective, *self.problem.rules.bounds)

    def judge(self, run: _Run, place: tuple[int, ...], placement: Placement | None) -> None:
        """Keeps a placement that is better."""
        run.place = place
        found = [carve(self.problem, place)]
        if placement is not None:
            found.append(judge(self.problem, placement))
        self.best = min([self.best, *found], key=lambda one: one.rank(self.objective))


class _Judged(cp_model.CpSolverSolutionCallback):
    """Judges what is found on the way."""

    def __init__(self, search: _Search, model: PathModel, run: _Run) -> None:
        super().__init__()
        self.search, self.path_model, self.fleet_run = search, model, run

    def on_solution_callback(self) -> None:
        """Called by the solver for every better solution of its model."""
        self.search.judge(self.fleet_run, *self.path_model.read(self.boolean_value))
