"""A lower bound on the period, and on energy and cost within a period, by the sets of nodes that each device can do.

What a device does in a placement is a set of nodes with its launches, within the period, over its links and in its
memory. For every fleet (`fleets.py`) that limits on energy and cost leave a linear program covers the nodes with such
sets (`set_program.py`); what sets add to the latency of the heaviest path, and take of energy and cost, is summed up
over all devices. So a limit on latency, energy or cost and one on the period are kept by the same sets, where other
bounds know one of them. The least of all fleets counts; for a period those fleets that are out of reach are left out
until a shorter one is tried.

Left out are shares, the budget for losses, the cap on segments, ops that are together or apart, what is streamed, and
what nodes beside the path launch. Problems with groups of devices, or with many nodes, have no such bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter

import numpy as np

from gimlet.compiler.placement.bounds.bills import (
    BILLS,
    TOLERANCE,
    billed,
    draws_less_idle,
    is_affordable,
    least_bill,
    rate_of,
)
from gimlet.compiler.placement.bounds.fleets import Fleet, Floors, every_fleet, fleets
from gimlet.compiler.placement.bounds.priced_sets import BILL, LATENCY, PricedSets, Table
from gimlet.compiler.placement.bounds.set_program import Bill, Limit, SetProgram
from gimlet.compiler.placement.bounds.spine import heaviest_path
from gimlet.compiler.placement.model.problem import Objective, Problem

_MOST_NODES = 150
_CELLS = 500
_WORK = 20_000
"""So many nodes are looked at where no time limit ends the search."""
_FLEET_S = 0.1
"""What a fleet takes: where there is less time for each nothing is begun, since the least of all fleets counts."""
_ROUNDS = 16
"""So many sets of each class are sought for the weakest fleet before it is another's turn."""
_FIRST = 0.9999
"""The period that is tried first, as a part of the best known."""
_NEAR = 1e-3
"""Between periods so close, as a part, no other is tried."""


def set_bound(problem: Problem, best_known: float, until: float = float("inf"), floors: Floors | None = None) -> float:
    """The bound, at most `best_known`, which is the objective of a placement; 0 where there is nothing to say.

    `floors` are what is known of its fleets. After `until` (of `time.perf_counter`) it is no longer improved.
    """
    rules = problem.rules
    asked = (rules.objective, *rules.bounds)
    figures: list[Objective] = [figure for figure in BILLS if figure in asked]
    fits = 0 < len(problem.nodes) <= _MOST_NODES and not any(spec.members for spec in problem.devices)
    if not fits or "throughput" not in asked or rules.objective == "latency" or not 0 < best_known < float("inf"):
        return 0.0
    if "energy" in figures and not draws_less_idle(problem):
        return 0.0
    search = _Search(problem, figures, best_known, until, floors or Floors())
    if len(search.programs) > max((until - perf_counter()) / _FLEET_S, 1):
        return 0.0
    found = search.least_period() if rules.objective == "throughput" else search.least_bill(rules.objective)
    return min(max(found, 0.0), best_known)


class _Search:
    """The programs of all fleets. Devices of a class have the same tables in each."""

    def __init__(
        self, problem: Problem, figures: Sequence[Objective], best_known: float, until: float, floors: Floors
    ) -> None:
        self.problem, self.figures, self.best_known, self.until = problem, figures, best_known, until
        self.path = heaviest_path(problem)
        self.bills = [billed(problem, figure) for figure in figures]
        self.calls = _WORK // len(problem.nodes) if until == float("inf") else _WORK * 1000
        self.sets: dict[int, PricedSets] = {}
        every = [every_fleet(problem, until)] if not figures else fleets(problem, until)
        self.programs: list[SetProgram] = []
        self.proven: list[float] = []
        """What no placement of each program's fleet is below."""
        for fleet in every:
            known = floors.of(fleet)
            if problem.rules.objective in BILLS:
                known = max(known, least_bill(fleet, problem.rules.objective))
            for program in self._programs(fleet) if known < best_known else ():
                self.programs.append(program)
                self.proven.append(known)

    def _programs(self, fleet: Fleet) -> Iterator[SetProgram]:
        """The fleet's program; none where limits rule it out."""
        objective, limits = self.problem.rules.objective, self._limits(fleet)
        if limits is None:
            return
        bill = None
        if objective in self.figures:
            rate, number = rate_of(self.problem, fleet.certain, objective), self.figures.index(objective)
            bill = Bill(BILL + number, rate, fleet.usable.latency.seconds, self.best_known)
        sets = [self._sets(members[0]) for members in fleet.classes]
        yield SetProgram(sets, [len(members) for members in fleet.classes], limits, bill)

    def _limits(self, fleet: Fleet) -> list[Limit] | None:
        """The limits on latency and bills; None where one leaves nothing."""
        bounds = self.problem.rules.bounds
        found: list[Limit] = []

        def limit(most: float, parts: Mapping[int, float]) -> None:
            row = np.zeros(BILL + len(self.bills))
            for number, part in parts.items():
                row[number] = part / most
            found.append(Limit(row))

        if 0 < bounds.get("latency", float("inf")) < float("inf"):
            limit(bounds["latency"] * (1 + TOLERANCE), {LATENCY: 1.0})
        if not self.figures:
            return found
        if not is_affordable(fleet):
            return None
        for number, (figure, (_, constant)) in enumerate(zip(self.figures, self.bills, strict=True), BILL):
            if not bounds.get(figure, float("inf")) < float("inf"):
                continue
            # The latency is at least what the path takes, and what is known of the fleet: either may be paid for.
            rate, left = rate_of(self.problem, fleet.certain, figure), bounds[figure] * (1 + TOLERANCE) - constant
            least = left - rate * fleet.usable.latency.seconds
            if least <= 0:
                continue
            limit(left, {LATENCY: rate, number: 1.0})
            limit(least, {number: 1.0})
        return found

    def _sets(self, device: int) -> PricedSets:
        if device not in self.sets:
            self.sets[device] = PricedSets(self.problem, self.path, device, [problem for problem, _ in self.bills])
        return self.sets[device]

    def _tables(self, period_s: float) -> dict[int, Table]:
        return {device: Table(sets, period_s, _CELLS) for device, sets in self.sets.items()}

    def _has_time(self) -> bool:
        return perf_counter() < self.until and self._called() < self.calls

    def _called(self) -> int:
        return sum(program.calls for program in self.programs)

    def least_bill(self, figure: Objective) -> float:
        """The least bill of any fleet within the limit on the period."""
        _, constant = self.bills[self.figures.index(figure)]
        period_s = self.problem.rules.bounds["throughput"] * (1 + TOLERANCE)
        tables = self._tables(period_s)
        ended = set[int]()
        while self.programs and self._has_time():
            weakest = min(range(len(self.programs)), key=lambda number: self.proven[number])
            program = self.programs[weakest]
            if weakest in ended or self.proven[weakest] >= self.best_known:
                break
            own = [tables[sets.device] for sets in program.sets]
            most = min(program.calls + _ROUNDS * len(own), program.calls + self.calls - self._called())
            value = program.least(own, period_s, self.best_known - constant, self.until, most) + constant
            self.proven[weakest] = max(self.proven[weakest], value)
            if program.calls < most:
                ended.add(weakest)
        return min([self.best_known, *self.proven])

    def least_period(self) -> float:
        """The longest period that is out of reach for all fleets."""
        proven = dict(enumerate(self.proven))
        high, period_s = self.best_known, _FIRST * self.best_known
        if not proven:
            # No fleet keeps the limits, so there is nothing to be below.
            return high
        low = min(proven.values())
        while high - low > _NEAR * self.best_known and self._has_time():
            tables = self._tables(period_s)
            for number in sorted(proven, key=lambda number: proven[number]):
                program = self.programs[number]
                if proven[number] >= period_s:
                    continue
                own = [tables[sets.device] for sets in program.sets]
                left = self.calls - sum(other.calls for other in self.programs if other is not program)
                proven[number] = max(proven[number], program.missed(own, period_s, self.until, left))
                if proven[number] < period_s:
                    high = period_s
                    break
            low = min(proven.values())
            period_s = (low + high) / 2
        return low
