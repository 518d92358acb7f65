"""A lower bound on energy and on cost: what devices in use take for every second, and what ops take besides.

The idea: a placement uses some classes of devices. For each set of classes, one device of each takes its idle power (or
its price) over the whole latency, and each op what it takes beyond that: the joules of its run less the idle power that
its device does not draw meanwhile, or its own price. `price_bound` bounds the two together, with the transfers that
changes of device bring; a joule is a dollar there. The bound is the least of all sets, and the set that is lowest so
far is looked at further. With many classes there is one set, in which only the host is in use for certain.

What the set's memories have room for is in a linear program (`period_program.py`): nodes are in parts, and the latency
is at least the bound on it and what the devices of a class are busy for. What a fusion saves counts there only as far
as both of its ops are on one place, so where idle power is not known, and nothing else binds, it is the least energy.

Where a set has devices that stream weights, `price_bound` is asked again with a price for each byte of fast memory
(`streaming.py`): weights then cost what streaming them takes, or their bytes where that is less, and all that fast
memories can save of it is taken off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from time import perf_counter

from gimlet.compiler.placement.bounds.bills import per_second, price_of, saved_by, taken_by
from gimlet.compiler.placement.bounds.latency_bound import LatencyBound, latency_bound
from gimlet.compiler.placement.bounds.period_program import PeriodProgram
from gimlet.compiler.placement.bounds.price_bound import price_bound
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Node, Problem
from gimlet.compiler.placement.model.schedule import load_w
from gimlet.compiler.placement.model.streaming import (
    all_kept_s,
    dearest_byte,
    fast_bytes_priced,
    priced_streaming,
)

_MOST_SETS = 16
_LADDERS = ((1 / 16, 1 / 64, 1 / 4, 1 / 256, 1.0), (0.5, 2.0), (0.7, 1.4), (0.85, 1.2))
"""Prices of a byte to try, as parts of the dearest one, and then of the best so far."""


@dataclass(frozen=True)
class Bill:
    """No placement takes less than `value`, in joules or dollars. `places` came up on the way."""

    value: float
    places: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Case:
    """A set of classes: `certain` are devices in use, one of each class, `open` all that nodes may be on."""

    certain: frozenset[int]
    open: frozenset[int]
    problem: Problem
    latency: LatencyBound
    classes: tuple[list[int], ...]
    launching: tuple[list[int], ...]
    """The classes of `classes` that are in use for certain, besides the host's."""


def bill_bound(problem: Problem, best_known: float = float("inf"), until: float = float("inf")) -> Bill:
    """The bound on the objective of `problem`, energy or cost. After `until` (of `time.perf_counter`) it ends."""
    searches = [_Search(case) for case in _cases(problem, until)]
    while True:
        weakest = min(searches, key=lambda search: search.value)
        if weakest.value >= best_known * (1 - 1e-9) or perf_counter() > until or not weakest.improve(until):
            break
    ranked = sorted(searches, key=lambda search: search.value)
    return Bill(max(weakest.value, 0.0), tuple(dict.fromkeys(place for each in ranked for place in each.places)))


class _Search:
    """One case: its bound so far, and the prices of fast memory that were not tried yet."""

    def __init__(self, case: _Case) -> None:
        self.case = case
        self.rate = sum(per_second(case.problem, device, case.problem.rules.objective) for device in case.certain)
        billed, constant = _billed(case.problem)
        least = (
            min(node.options[p].usd for p in allowed)
            for node, allowed in zip(billed.nodes, billed.allowed, strict=True)
        )
        self.value = self.rate * case.latency.seconds + sum(least) + constant
        self.places = [case.latency.place]
        self.found: dict[float, float] = {}
        """The bound by the part of the dearest byte's price."""
        self.prices = self._prices()
        self.in_parts = False

    def improve(self, until: float) -> bool:
        """One more way to bound the case; False where there is none left."""
        if not self.in_parts:
            self.in_parts = True
            self.value = max(self.value, self._program(until))
            return True
        part = next(self.prices, None)
        if part is None:
            return False
        self.found[part] = self._bound(part, until)
        self.value = max(self.value, self.found[part])
        return True

    def _program(self, until: float) -> float:
        """The bound of the linear program; no bound where it is not solved in time."""
        case = self.case
        program = PeriodProgram(case.problem, case.classes, case.launching, float("inf"))
        found = program.bill(case.latency.seconds, self.rate, taken_by(program, case.problem.rules.objective), until)
        if found is None or found == float("inf"):
            return found or 0.0
        self.places.append(tuple(program.largest_parts()))
        return found

    def _prices(self) -> Iterator[float]:
        yield 0.0
        if self.case.open.isdisjoint(self.case.problem.streaming):
            return
        for ladder in _LADDERS:
            middle = max((part for part in self.found if part), key=lambda part: self.found[part], default=1.0)
            yield from [middle * step for step in ladder if middle * step <= 1]

    def _bound(self, part: float, until: float) -> float:
        """The bound where a byte of fast memory has a price, a part of what the dearest one saves."""
        problem, saved = self.case.problem, 0.0
        if part:
            price = part * dearest_byte(problem)
            kept = all_kept_s(priced_streaming(problem, price), self.case.open)
            slow, _ = fast_bytes_priced(problem, price)
            bounds = {key: limit + kept for key, limit in problem.rules.bounds.items() if key == "latency"}
            problem = slow.with_rules(replace(slow.rules, bounds=bounds))
            saved = kept * (self.rate + self._most_load(self.case.problem))
        billed, constant = _billed(problem)
        found = price_bound(billed, self.rate, self.case.latency.place, until)
        self.places += [place for place in found.places if place not in self.places]
        return found.usd + constant - saved

    def _most_load(self, problem: Problem) -> float:
        if problem.rules.objective != "energy":
            return 0.0
        return max(load_w(problem, device) for device in self.case.open & set(problem.streaming))


def _billed(problem: Problem) -> tuple[Problem, float]:
    """The problem with what ops take as their prices, none negative, and what all of them are too dear by."""
    if problem.rules.objective != "energy":
        return problem, 0.0
    # Where fusion could save something, the cheaper of both counts.
    saved: dict[tuple[int, int], float] = {}
    for fusion in problem.fusions:
        for place in fusion.seconds.keys() | fusion.joules.keys():
            key = fusion.consumer, place
            saved[key] = saved.get(key, 0.0) - saved_by(problem, fusion, place)
    constant, nodes = 0.0, list[Node]()
    for number, node in enumerate(problem.nodes):
        prices = {p: price_of(problem, node, p, "energy") + min(saved.get((number, p), 0.0), 0.0) for p in node.options}
        least = min(0.0, *prices.values())
        constant += least
        options = {place: replace(option, usd=prices[place] - least) for place, option in node.options.items()}
        nodes.append(replace(node, options=options))
    devices = (replace(spec, usd_per_hour=3600.0 * (spec.idle_w or 0.0)) for spec in problem.devices)
    routes = {ends: replace(route, usd_per_byte=0.0) for ends, route in problem.routes.items()}
    return replace(problem, nodes=tuple(nodes), devices=tuple(devices), routes=routes), constant


def _cases(problem: Problem, until: float) -> list[_Case]:
    """Sets of classes in use (the host always is), without those that are too slow for a bound on latency."""
    cases = list(_sets(problem, until))
    limit = problem.rules.bounds.get("latency", float("inf")) * (1 + 1e-9)
    return [case for case in cases if case.latency.seconds <= limit] or cases


def _sets(problem: Problem, until: float) -> Iterator[_Case]:
    every = device_classes(problem)
    hosts = [members for members in every if problem.host in members]
    classes = [members for members in every if problem.host not in members]
    host = frozenset({problem.host})
    if 2 ** len(classes) > _MOST_SETS:
        yield _Case(host, host.union(*classes), problem, latency_bound(problem, until=until), tuple(every), ())
        return
    for size in range(len(classes) + 1):
        for chosen in combinations(classes, size):
            devices = host.union(*chosen)
            usable = frozenset(index for index, place in enumerate(problem.places) if place.device in devices)
            pins = {node: frozenset(allowed) & usable for node, allowed in enumerate(problem.allowed)}
            if not all(pins.values()):
                continue
            narrowed = problem.with_rules(replace(problem.rules, pins=pins))
            # Of a group in use all members are.
            certain = host.union(*(problem.units[members[0]] for members in chosen))
            latency = latency_bound(narrowed, until=until)
            yield _Case(certain, devices, narrowed, latency, (*hosts, *chosen), chosen)
