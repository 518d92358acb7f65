"""A lower bound on cost where ops and transfers have prices of their own.

The idea: time that is charged `w` dollars a second makes a latency problem in dollars. A path through a schedule passes
each batch once, so with the price of its bytes added to every batch, the longest path is at most the latency's charge
plus the prices of all transfers; ops' prices are charges of the latency bound. Its bound is thus one on
`w` * latency + prices, for any `w`.

What devices in use cost a second is charged for certain. A bound on latency adds a multiplier: for any `m` >= 0, cost
is at least cost + m * (latency - limit). It is sought as in constrained shortest paths (Handler and Zang, "A Dual
Algorithm for the Constrained Shortest Path Problem", 1980): between a placement that is too slow and one that is fast
enough, the multiplier that makes them equal, until nothing is better than both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter

from gimlet.compiler.placement.bounds.latency_bound import LatencyBound, LatencyRelaxation
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.model.segments import carve

_STEPS = 8


@dataclass(frozen=True)
class PriceBound:
    """No placement costs less than `usd`. `places` are placements that came up on the way."""

    usd: float
    places: tuple[tuple[int, ...], ...]


def price_bound(
    problem: Problem, usd_per_s: float, fastest: tuple[int, ...], until: float = float("inf")
) -> PriceBound:
    """The bound where every placement pays `usd_per_s` over its latency. `fastest` is a quick placement."""
    cheapest = charged_bound(problem, usd_per_s, until)
    best, places = cheapest.seconds, [cheapest.place, fastest]
    limit = problem.rules.bounds.get("latency", float("inf")) * (1 + 1e-9)
    slow, quick = _figures(problem, cheapest.place), _figures(problem, fastest)
    for _ in range(_STEPS):
        if not quick[0] <= limit < slow[0] or quick[1] <= slow[1] or perf_counter() > until:
            break
        multiplier = (quick[1] - slow[1]) / (slow[0] - quick[0])
        found = charged_bound(problem, usd_per_s + multiplier, until)
        best = max(best, found.seconds - multiplier * limit)
        if found.place in places:
            break
        places.append(found.place)
        figures = _figures(problem, found.place)
        slow, quick = (slow, figures) if figures[0] <= limit else (figures, quick)
    return PriceBound(best, tuple(places))


def charged_bound(problem: Problem, usd_per_s: float, until: float = float("inf")) -> LatencyBound:
    """A lower bound on `usd_per_s` times the latency, plus the prices of ops and transfers; `seconds` are dollars."""
    charge = [
        [node.options[place].usd if place in node.options else 0.0 for place in range(len(problem.places))]
        for node in problem.nodes
    ]
    return LatencyRelaxation(_in_dollars(problem, usd_per_s), until).bound(charge)


def _in_dollars(problem: Problem, usd_per_s: float) -> Problem:
    """The problem with each second as `usd_per_s`, and the price of bytes in the routes' speed."""
    return replace(
        problem,
        places=tuple(
            replace(place, launch_s=usd_per_s * launch)
            for place, launch in zip(problem.places, problem.launch_s, strict=True)
        ),
        nodes=tuple(
            replace(
                node,
                options={p: replace(option, seconds=usd_per_s * option.seconds) for p, option in node.options.items()},
            )
            for node in problem.nodes
        ),
        routes={
            ends: replace(
                route,
                latency_s=usd_per_s * route.latency_s,
                seconds_per_byte=usd_per_s * route.seconds_per_byte + route.usd_per_byte,
            )
            for ends, route in problem.routes.items()
        },
        fusions=tuple(
            replace(fusion, seconds={place: usd_per_s * seconds for place, seconds in fusion.seconds.items()})
            for fusion in problem.fusions
        ),
    )


def _figures(problem: Problem, place: tuple[int, ...]) -> tuple[float, float]:
    """Latency and cost of a placement."""
    schedule = carve(problem, place).schedule
    return schedule.latency_s, schedule.figure("cost")
