"""A lower bound on energy and on cost: what devices in use take for every second, and what ops take besides.

The idea: a placement uses some number of devices of each class (`fleets.py`). In each such fleet they take their idle
power (or their price) over the whole latency, and each op what it takes beyond that: the joules of its run less the
idle power that its device does not draw meanwhile, or its own price. `price_bound` bounds the two together, with the
transfers that changes of device bring; a joule is a dollar there. The bound is the least of all fleets, and the fleet
that is lowest so far is looked at further.

What the fleet's memories have room for is in a linear program (`period_program.py`): nodes are in parts, and the
latency is at least the bound on it and what the devices of a class are busy for. What a fusion saves counts there only
as far as both of its ops are on one place, so where idle power is not known, and nothing else binds, it is the least
energy. It is solved again with what `least_latency` says of the fleet's own devices and their memories.

Where a fleet has devices that stream weights, `price_bound` is asked again with a price for each byte of fast memory
(`streaming.py`): weights then cost what streaming them takes, or their bytes where that is less, and all that fast
memories can save of it is taken off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter

from gimlet.compiler.placement.bounds.bills import billed, keep_bounds, least_bill, rate_of, taken_by
from gimlet.compiler.placement.bounds.fleets import Fleet, Floors, fleets
from gimlet.compiler.placement.bounds.period_program import PeriodProgram
from gimlet.compiler.placement.bounds.price_bound import price_bound
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.model.schedule import load_w
from gimlet.compiler.placement.model.streaming import (
    all_kept_s,
    dearest_byte,
    fast_bytes_priced,
    priced_streaming,
)

_LADDERS = ((1 / 16, 1 / 64, 1 / 4, 1 / 256, 1.0), (0.5, 2.0), (0.7, 1.4), (0.85, 1.2))
"""Prices of a byte to try, as parts of the dearest one, and then of the best so far."""


@dataclass(frozen=True)
class Bill:
    """No placement takes less than `value`, in joules or dollars. `places` came up on the way."""

    value: float
    places: tuple[tuple[int, ...], ...]


def bill_bound(
    problem: Problem, best_known: float = float("inf"), until: float = float("inf"), floors: Floors | None = None
) -> Bill:
    """The bound on the objective of `problem`, energy or cost. After `until` (of `time.perf_counter`) it ends.

    `floors` are what is known of its fleets.
    """
    searches = [_Search(fleet, floors.of(fleet) if floors else 0.0) for fleet in _fleets(problem, until)]
    while True:
        weakest = min(searches, key=lambda search: search.value)
        if weakest.value >= best_known * (1 - 1e-9) or perf_counter() > until or not weakest.improve(until):
            break
    ranked = sorted(searches, key=lambda search: search.value)
    return Bill(max(weakest.value, 0.0), tuple(dict.fromkeys(place for each in ranked for place in each.places)))


class _Search:
    """One fleet: its bound so far, and the prices of fast memory that were not tried yet."""

    def __init__(self, fleet: Fleet, known: float) -> None:
        self.fleet = fleet
        self.rate = rate_of(fleet.problem, fleet.certain, fleet.problem.rules.objective)
        self.value = max(known, least_bill(fleet, fleet.problem.rules.objective))
        self.places = [fleet.usable.latency.place]
        self.found: dict[float, float] = {}
        """The bound by the part of the dearest byte's price."""
        self.until = float("inf")
        self.least_s = fleet.usable.latency.seconds
        self.ways = self._ways()

    def improve(self, until: float) -> bool:
        """One more way to bound the fleet; False where there is none left."""
        self.until = until
        value = next(self.ways, None)
        self.value = max(self.value, value or 0.0)
        return value is not None

    def _ways(self) -> Iterator[float]:
        """Bounds by the linear program, by prices, and by the program with all that is known of the fleet's latency."""
        yield self._program(self.until)
        for part in self._prices():
            self.found[part] = self._bound(part, self.until)
            yield self.found[part]
        if self.fleet.launching:
            known = self.least_s
            # This takes the longest by far.
            self.least_s = max(known, self.fleet.own_latency_s(self.until))
            if self.least_s > known:
                yield self._program(self.until) if self.least_s < float("inf") else self.least_s

    def _program(self, until: float) -> float:
        """The bound of the linear program; no bound where it is not solved in time."""
        fleet = self.fleet
        program = PeriodProgram(fleet.problem, fleet.classes, fleet.launching, float("inf"))
        if not program.can:
            return float("inf")
        latency = keep_bounds(program, fleet, self.least_s)
        taken = taken_by(program, fleet.problem.rules.objective)
        found = program.least_of([(self.rate * program.scale, latency), *taken], until)
        if found is None or found == float("inf"):
            return found or 0.0
        self.places.append(tuple(program.largest_parts()))
        return found

    def _prices(self) -> Iterator[float]:
        yield 0.0
        if self.fleet.open.isdisjoint(self.fleet.problem.streaming):
            return
        for ladder in _LADDERS:
            middle = max((part for part in self.found if part), key=lambda part: self.found[part], default=1.0)
            yield from [middle * step for step in ladder if middle * step <= 1]

    def _bound(self, part: float, until: float) -> float:
        """The bound where a byte of fast memory has a price, a part of what the dearest one saves."""
        problem, saved = self.fleet.problem, 0.0
        if part:
            price = part * dearest_byte(problem)
            kept = all_kept_s(priced_streaming(problem, price), self.fleet.open)
            slow, _ = fast_bytes_priced(problem, price)
            bounds = {key: limit + kept for key, limit in problem.rules.bounds.items() if key == "latency"}
            problem = slow.with_rules(replace(slow.rules, bounds=bounds))
            saved = kept * (self.rate + self._most_load(self.fleet.problem))
        priced, constant = billed(problem, problem.rules.objective)
        found = price_bound(priced, self.rate, self.fleet.usable.latency.place, until)
        self.places += [place for place in found.places if place not in self.places]
        return found.usd + constant - saved

    def _most_load(self, problem: Problem) -> float:
        if problem.rules.objective != "energy":
            return 0.0
        return max(load_w(problem, device) for device in self.fleet.open & set(problem.streaming))


def _fleets(problem: Problem, until: float) -> list[Fleet]:
    """Fleets, without those that are too slow for a bound on latency."""
    found = fleets(problem, until)
    limit = problem.rules.bounds.get("latency", float("inf")) * (1 + 1e-9)
    return [fleet for fleet in found if fleet.usable.latency.seconds <= limit] or found
