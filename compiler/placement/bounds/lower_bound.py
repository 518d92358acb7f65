"""Lower bounds on each objective over every placement of the nodes, whatever the number of segments.

Latency: `least_latency`, with limits on energy and cost `fleet_latency`, on the period `timed_latency`, on the period
and where memories are small `holding_bound`. Throughput: `period_bound`, with a limit on latency `timed_bound`. Energy
and cost: `bill_bound`. Of few ops `set_bound` says what these three are within a period.
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

from gimlet.compiler.placement.bounds.bill_bound import bill_bound
from gimlet.compiler.placement.bounds.company_branches import company_cases
from gimlet.compiler.placement.bounds.fleet_latency import fleet_latency
from gimlet.compiler.placement.bounds.fleets import Floors
from gimlet.compiler.placement.bounds.holding_bound import holding_bound
from gimlet.compiler.placement.bounds.latency_bound import LatencyRelaxation
from gimlet.compiler.placement.bounds.least_latency import Bound, halfway, least_latency, together_bound
from gimlet.compiler.placement.bounds.period_bound import period_bound
from gimlet.compiler.placement.bounds.set_bound import set_bound
from gimlet.compiler.placement.bounds.timed_bound import timed_bound
from gimlet.compiler.placement.bounds.timed_latency import timed_latency
from gimlet.compiler.placement.model.problem import Problem
from gimlet.runtime.errors import InfeasibleError

_CLOSE = 1e-4


def lower_bound(
    problem: Problem, best_known: float = float("inf"), until: float = float("inf"), floors: Floors | None = None
) -> Bound:
    """A bound on the problem's objective. `best_known` is the objective of some placement, if there is one.

    `floors` are what is known of its fleets.

    After `until` (of `time.perf_counter`) it is no longer improved. InfeasibleError where no placement is possible.
    """
    found = _lower_bound(problem, best_known, until, floors or Floors())
    cases = company_cases(problem) if found.value < best_known * (1 - _CLOSE) else []
    if len(cases) < 2:
        return found
    value, suggestions = min(best_known, found.reached), dict.fromkeys(found.suggestions)
    for number, case in enumerate(cases):
        now = perf_counter()
        if now > until:
            return replace(found, suggestions=tuple(suggestions))
        try:
            each = _lower_bound(case, best_known, now + (until - now) / (len(cases) - number), Floors())
        except InfeasibleError:
            continue
        value = min(value, each.value)
        suggestions |= dict.fromkeys(each.suggestions)
    return replace(found, value=max(found.value, value), suggestions=tuple(suggestions))


def _lower_bound(problem: Problem, best_known: float, until: float, floors: Floors) -> Bound:
    """The bound of one problem, where ops that share a device may be in parts on several."""
    match problem.rules.objective:
        case "throughput":
            sets = set_bound(problem, best_known, halfway(until), floors)
            timed = timed_bound(problem, best_known, halfway(until))
            period = max(sets, timed.seconds, together_bound(problem))
            if period < best_known * (1 - _CLOSE):
                period = max(period, period_bound(problem, best_known, until))
            return Bound(min(period, best_known), (LatencyRelaxation(problem, until).bound().place, *timed.places))
        case "energy" | "cost":
            sets = set_bound(problem, best_known, halfway(until), floors)
            bill = bill_bound(problem, best_known, until, floors)
            return Bound(min(max(sets, bill.value), best_known), bill.places)
        case "latency":
            limited = min(fleet_latency(problem, best_known, halfway(until), floors), best_known)
            limited = max(limited, holding_bound(problem, best_known, halfway(until)))
            found = least_latency(problem, best_known, until)
            limited = max(limited, min(timed_latency(problem, found.value, until), best_known))
            return replace(found, value=max(found.value, limited))
