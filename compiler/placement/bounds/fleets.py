"""Fleets: which devices are in use, for bounds on what devices take by the second, idle power and prices.

A fleet is a set of classes of devices and how many of each class are in use: what those take over the latency is then
certain, and what they have no room or time for rules the fleet out. Devices of a class can be exchanged for each other,
so a fleet has the first of each. With many devices a fleet is a range of numbers: as many as the least of them are
certain, and as many as the most are open. Where there are too many even so, or groups of devices, whose members cannot
be exchanged alone, classes count as a whole, and at last all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import product
from math import prod
from time import perf_counter

from gimlet.compiler.placement.bounds.holding_bound import holding_bound
from gimlet.compiler.placement.bounds.latency_bound import LatencyBound, latency_bound
from gimlet.compiler.placement.bounds.least_latency import least_latency
from gimlet.compiler.placement.bounds.timed_latency import timed_latency
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Objective, Problem
from gimlet.runtime.errors import InfeasibleError

Range = tuple[int, int]
_NONE: Range = (0, 0)
_MOST = 48
_MOST_SETS = 16
_BUDGET = 10_000
"""What searches in blocks may take for the least latency."""
_PARTS = 8
"""The time that is left is for so many fleets at least."""


@dataclass(frozen=True)
class Usable:
    """The problem where nodes may be on some classes alone; searches end at `until` (of `time.perf_counter`).

    `taken` keeps what all its ops take at least of a bill, once that was asked for (`bills.py`).
    """

    problem: Problem
    until: float
    taken: dict[Objective, float] = field(default_factory=dict[Objective, float])

    @cached_property
    def latency(self) -> LatencyBound:
        """The bound on its latency."""
        return latency_bound(self.problem, _BUDGET, self.until)


@dataclass(frozen=True)
class Fleet:
    """Devices in use: `classes` may be, the host's first, and of each of `launching` some are.

    `certain` are as many devices as are in use at least, with the host.
    """

    usable: Usable
    classes: tuple[list[int], ...]
    launching: tuple[list[int], ...]
    certain: frozenset[int]

    @property
    def problem(self) -> Problem:
        """The problem on the classes of the fleet."""
        return self.usable.problem

    @cached_property
    def narrowed(self) -> Problem:
        """The problem where nodes may be on the fleet's devices alone, for the least latency within no other limit."""
        rules = self.problem.rules
        places = frozenset(place for place, device in enumerate(self.problem.device_of) if device in self.open)
        pins = {node: frozenset(allowed) & places for node, allowed in enumerate(self.problem.allowed)}
        return self.problem.with_rules(replace(rules, objective="latency", bounds={}, pins=pins))

    def own_latency_s(self, until: float) -> float:
        """What all bounds together say of the latency on the fleet's devices, infinite where nothing can be placed.

        A part of the time until `until` is enough.
        """
        now = perf_counter()
        soon = now + (until - now) / _PARTS
        try:
            least_s = least_latency(self.narrowed, until=soon).value
        except InfeasibleError:
            return float("inf")
        limited = self.narrowed.with_rules(replace(self.narrowed.rules, bounds=self.problem.rules.bounds))
        return max(timed_latency(limited, least_s, soon), holding_bound(limited, until=soon))

    @property
    def open(self) -> frozenset[int]:
        """The devices that may be in use."""
        return frozenset[int]().union(*self.classes)


class Floors:
    """What is known that no placement of a fleet is below, in units of the objective."""

    def __init__(self) -> None:
        self.known: dict[tuple[frozenset[int], frozenset[int]], float] = {}

    def of(self, fleet: Fleet) -> float:
        """What is known of a fleet, 0 where that is nothing."""
        return self.known.get((fleet.certain, fleet.open), 0.0)

    def note(self, fleet: Fleet, value: float) -> None:
        """Notes what no placement of a fleet is below."""
        self.known[fleet.certain, fleet.open] = max(self.of(fleet), value)


def every_fleet(problem: Problem, until: float = float("inf")) -> Fleet:
    """One fleet for all placements: all devices may be in use, and the host is."""
    hosts, others = _classes(problem)
    return Fleet(Usable(problem, until), (hosts, *others), (), frozenset({problem.host}))


def fleets(problem: Problem, until: float = float("inf"), *, counted: bool = True) -> list[Fleet]:
    """The fleets that take every node, one of which each placement is of; as sets of classes where not `counted`."""
    hosts, others = _classes(problem)

    @cache
    def usable(chosen: tuple[int, ...]) -> Usable | None:
        devices = {problem.host}.union(*(others[number] for number in chosen))
        places = frozenset(index for index, place in enumerate(problem.places) if place.device in devices)
        pins = {node: frozenset(allowed) & places for node, allowed in enumerate(problem.allowed)}
        if not all(pins.values()):
            return None
        return Usable(problem.with_rules(replace(problem.rules, pins=pins)), until)

    ranges = _ranges([len(members) for members in others], counted and not any(d.members for d in problem.devices))
    if ranges is None:
        return [every_fleet(problem, until)]
    found: list[Fleet] = []
    for numbers in ranges:
        chosen = tuple(number for number, (_, most) in enumerate(numbers) if most)
        narrowed = usable(chosen)
        if narrowed is None:
            continue
        launching = tuple(others[number][: numbers[number][1]] for number in chosen)
        least = [member for number in chosen for member in others[number][: numbers[number][0]]]
        # Of a group in use all members are.
        certain = frozenset({problem.host}).union(*(problem.units[member] for member in least))
        found.append(Fleet(narrowed, (hosts, *launching), launching, certain))
    return found


def _classes(problem: Problem) -> tuple[list[int], list[list[int]]]:
    """The class of the host, and the others."""
    every = device_classes(problem)
    [hosts] = (members for members in every if problem.host in members)
    return hosts, [members for members in every if members is not hosts]


def _ranges(sizes: Sequence[int], counted: bool) -> Iterator[tuple[Range, ...]] | None:
    """For each fleet how many devices of each class it has, the least and the most; None where there are too many."""
    cuts: list[tuple[Callable[[int], list[Range]], int]] = [(_numbers, _MOST), (_doubling, _MOST)] if counted else []
    for cut, most in [*cuts, (_whole, _MOST_SETS)]:
        options = [[_NONE, *cut(size)] for size in sizes]
        if prod(len(each) for each in options) <= most:
            return product(*options)
    return None


def _whole(size: int) -> list[Range]:
    return [(1, size)]


def _numbers(size: int) -> list[Range]:
    return [(number, number) for number in range(1, size + 1)]


def _doubling(size: int) -> list[Range]:
    """1, 2 to 3, 4 to 7 devices, and so on."""
    found: list[Range] = []
    while not found or found[-1][1] < size:
        first = found[-1][1] + 1 if found else 1
        found.append((first, min(2 * first - 1, size)))
    return found
