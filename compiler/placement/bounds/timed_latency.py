"""A lower bound on latency where the period has a limit: how quick a placement is that is so busy at most.

`timed_bound` says for a latency how short the period can be. A latency for which that is above the limit is out of
reach; the longest such latency is sought by bisection.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from time import perf_counter

from gimlet.compiler.placement.bounds.timed_bound import timed_bound
from gimlet.compiler.placement.model.problem import Problem

_STEPS = 6
_LONGEST = 4.0
"""So many times the least latency that is known is the most that is tried."""
_JUST = 1e-3
_BEYOND = 1e-3
"""A period counts as too long by such a part."""


def timed_latency(problem: Problem, known_s: float, until: float = float("inf")) -> float:
    """Seconds, at least `known_s`, which is a bound; that where the period has no limit.

    It ends after `until` (of `time.perf_counter`).
    """
    limit = problem.rules.bounds.get("throughput", float("inf"))
    if not 0 < limit < float("inf") or not 0 < known_s < float("inf"):
        return known_s

    def is_out_of_reach(seconds: float) -> bool:
        rules = replace(problem.rules, objective="throughput", bounds={"latency": seconds})
        beyond = limit * (1 + _BEYOND)
        return timed_bound(problem.with_rules(rules), beyond * (1 + _BEYOND), until).seconds > beyond

    low, high = known_s, known_s * _LONGEST
    middle = known_s * (1 + _JUST)
    for _ in range(_STEPS):
        if perf_counter() > until or low * (1 + _JUST) > high:
            break
        if is_out_of_reach(middle):
            low = middle
        elif low == known_s:
            break
        else:
            high = middle
        middle = sqrt(low * high)
    return low
