"""The search where devices in use are paid for by the second: each fleet for itself.

What is quickest uses many devices, and each of them draws idle power, or is paid for, over the whole latency. Moves of
single ops neither empty a device nor make a new one pay. So each fleet (`bounds/fleets.py`) that the limits leave is
filled and annealed alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

from gimlet.compiler.placement.bounds.bills import BILLS, is_affordable, least_bill
from gimlet.compiler.placement.bounds.fleets import Fleet, Floors, fleets
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.model.segments import Found, carve, judge
from gimlet.compiler.placement.search.heuristics import best_of, fastest_places, single_places
from gimlet.compiler.placement.search.memory_cuts import memory_cuts
from gimlet.compiler.placement.search.stages import stage_cuts
from gimlet.compiler.placement.search.timeline import annealed_schedule

_FEW = 4
_STEPS = 500
"""Fleets, and moves of each annealing, where there is no time limit."""
_MOST_STEPS = 100_000_000
_ROUNDS = 3
_CLOSE = 1e-4
_LEFT = 4
"""One in so many fleets, the best, is searched further in the next round."""


def fleet_search(
    problem: Problem, best: Found, seed: int, seconds: float | None, floors: Floors | None = None
) -> Found:
    """The best placement of any fleet, or `best`; that where nothing is paid by the second.

    A fleet's placement is made quick first, whatever it costs, and then annealed for what is asked: all fleets for a
    third of the `seconds`, then ever fewer of them. Fleets whose `floors` leave no room below `best` are left out.
    Without a time the fleets that are least by their bounds take a number of moves each.
    """
    rules = problem.rules
    if rules.objective not in BILLS and rules.bounds.keys().isdisjoint(BILLS):
        return best
    until = float("inf") if seconds is None else perf_counter() + seconds
    known = float("inf") if best.excess else best.schedule.figure(rules.objective)
    open_fleets = [fleet for fleet in fleets(problem, until) if not floors or floors.of(fleet) < known * (1 - _CLOSE)]
    usable = sorted((fleet for fleet in open_fleets if is_affordable(fleet)), key=_least)
    runs = [_Run(problem, fleet, seed) for fleet in (usable[:_FEW] if seconds is None else usable)]
    steps = _STEPS if seconds is None else _MOST_STEPS
    for turn in range(_ROUNDS if seconds is not None else 1):
        for number, run in enumerate(runs):
            left = (until - perf_counter()) / (_ROUNDS - turn)
            if left <= 0:
                break
            run.improve(steps, left / (len(runs) - number))
        # What was not begun is ranked last.
        runs.sort(key=lambda run: run.rank())
        runs = runs[: -(-len(runs) // _LEFT)]
    found = (judge(problem, run.found.placement) for run in runs[:1] if run.found is not None)
    return min([best, *found], key=lambda one: one.rank(rules.objective))


class _Run:
    """The search on the devices of one fleet."""

    def __init__(self, problem: Problem, fleet: Fleet, seed: int) -> None:
        self.quick, self.seed = fleet.narrowed, seed
        self.asked = problem.with_rules(replace(problem.rules, pins=self.quick.rules.pins))
        self.found: Found | None = None

    def rank(self) -> tuple[float, ...]:
        return (float("inf"),) if self.found is None else self.found.rank(self.asked.rules.objective)

    def improve(self, steps: int, seconds: float) -> None:
        """Anneals what was found, half of the first time for a start that is quick."""
        if self.found is None:
            until = perf_counter() + seconds / 2
            start = best_of(self.quick, dict.fromkeys(_fills(self.quick, until)))
            start = annealed_schedule(self.quick, start, self.seed, steps, max(until - perf_counter(), 0.01))
            starts = [judge(self.asked, start.placement)]
            if "throughput" in (self.asked.rules.objective, *self.asked.rules.bounds):
                starts += [carve(self.asked, cut) for cut in stage_cuts(self.asked, until)]
            self.found = min(starts, key=lambda one: one.rank(self.asked.rules.objective))
            seconds /= 2
        self.found = annealed_schedule(self.asked, self.found, self.seed, steps, seconds)
        self.seed += 1


def _least(fleet: Fleet) -> float:
    """What a fleet takes at least of the objective, where that is paid by the second; else how many devices it has."""
    objective = fleet.problem.rules.objective
    return least_bill(fleet, objective) if objective in BILLS else float(len(fleet.certain))


def _fills(problem: Problem, until: float) -> Iterator[tuple[int, ...]]:
    yield fastest_places(problem)
    yield from single_places(problem)
    yield from memory_cuts(problem, until)
