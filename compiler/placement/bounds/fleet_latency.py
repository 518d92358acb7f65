"""A lower bound on latency where energy or cost has a limit: the least of any fleet that keeps it.

What a fleet (`fleets.py`) takes by the second is certain, so a limit rules out those that are too dear over their
least latency. For the fleet that is lowest so far a linear program says how quick it is with nodes in parts, within its
memories and limits, and all other bounds how quick its own devices are. Then come prices: for any `m` >= 0 the latency
is at least the latency + `m` * (bill - limit), which `charged_bound` bounds as a bill of its own. What the last
multiplier's placement takes leads to the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

from gimlet.compiler.placement.bounds.bills import BILLS, TOLERANCE, billed, is_affordable, keep_bounds, rate_of
from gimlet.compiler.placement.bounds.fleets import Fleet, Floors, fleets
from gimlet.compiler.placement.bounds.period_program import PeriodProgram
from gimlet.compiler.placement.bounds.price_bound import charged_bound
from gimlet.compiler.placement.model.problem import Objective, Problem
from gimlet.compiler.placement.model.segments import carve

_STEPS = 8
_WIDER = 4.0
"""What a multiplier that leaves a bill above its limit is made larger by."""


def fleet_latency(
    problem: Problem, best_known: float, until: float = float("inf"), floors: Floors | None = None
) -> float:
    """Seconds; none where energy and cost have no limit. It ends after `until` (of `time.perf_counter`).

    `floors` are what is known of its fleets.
    """
    if problem.rules.bounds.keys().isdisjoint(BILLS):
        return 0.0
    searches = [_Search(fleet, floors.of(fleet) if floors else 0.0) for fleet in fleets(problem, until)]
    while True:
        weakest = min(searches, key=lambda search: search.value)
        if weakest.value >= best_known * (1 - 1e-9) or perf_counter() > until or not weakest.improve(until):
            return weakest.value


class _Search:
    """One fleet: the bound on its latency so far, and ways to improve it."""

    def __init__(self, fleet: Fleet, known_s: float) -> None:
        self.fleet = fleet
        self.bounds = fleet.problem.rules.bounds
        self.rates: dict[Objective, float] = {
            figure: rate_of(fleet.problem, fleet.certain, figure) for figure in BILLS if figure in self.bounds
        }
        self.value = max(known_s, fleet.usable.latency.seconds) if is_affordable(fleet) else float("inf")
        """Seconds, infinite where the limits rule the fleet out."""
        self.ways = self._ways()
        self.until = float("inf")

    def improve(self, until: float) -> bool:
        """One more way to bound the fleet; False where there is none left."""
        self.until = until
        value = next(self.ways, None)
        self.value = max(self.value, value or 0.0)
        return value is not None

    def _ways(self) -> Iterator[float]:
        yield self._in_parts()
        yield self.fleet.own_latency_s(self.until)
        if self.value < float("inf"):
            yield self._in_parts()
        for figure, rate in self.rates.items():
            yield from self._charged(figure, rate)

    def _in_parts(self) -> float:
        """The bound of the linear program; no bound where it is not solved in time."""
        program = PeriodProgram(self.fleet.problem, self.fleet.classes, self.fleet.launching, float("inf"))
        if not program.can:
            return float("inf")
        latency = keep_bounds(program, self.fleet, self.value)
        return program.least_of([(program.scale, latency)], self.until) or 0.0

    def _charged(self, figure: Objective, rate: float) -> Iterator[float]:
        """Bounds by ever better multipliers of one bill."""
        problem, constant = billed(self.fleet.problem, figure)
        limit = self.bounds[figure] * (1 + TOLERANCE)
        least, most = 0.0, float("inf")
        multiplier = self.fleet.usable.latency.seconds / limit if limit > 0 else 0.0
        for _ in range(_STEPS if multiplier else 0):
            found = charged_bound(problem, rate + 1 / multiplier, self.until)
            yield multiplier * (found.seconds + constant - limit)
            # Too small a multiplier leads to placements above the limit.
            if carve(self.fleet.problem, found.place).schedule.figure(figure) > limit:
                least = multiplier
            else:
                most = multiplier
            multiplier = (least + most) / 2 if most < float("inf") else multiplier * _WIDER
