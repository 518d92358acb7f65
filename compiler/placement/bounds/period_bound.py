"""A lower bound on the period of a pipeline, by linear programs in which nodes may be split between places.

Devices that are alike are one class: their loads together are at most the period times their number, so the program
does not grow with them and no symmetry is searched. What holds in every placement, and is in the program:

- a class is as busy as its nodes take, less what fusion saves where both nodes are there, and its launches, and streams
  the weights that the fast memories of its devices do not keep;
- each device in use launches something, and a class launches as often as any path through the graph enters it: going
  to and fro between devices for the sake of single ops is paid for;
- a value that a consumer elsewhere needs loads the links that every way out of its class and into the other shares;
- of nodes that take more than the n-th part of the best period known, a device has fewer than n;
- shares of FLOPs, memory, the budget for losses, and the cap on segments;
- limits on latency, energy and cost, with what devices in use take over the least latency (`bills.py`).

First there is a program in which nothing need be in use: what it says holds for all, and by its prices long ops that
are alike are counted (`counting_bound.py`). Then comes one program for each fleet (`fleets.py`), which is a set of
classes in use, and where energy or cost has a limit how many of each. Rows are added as
solutions break them (`period_program.py`), always to the program with the least value: so there is a bound after a
small part of the time, and one that no more rows could raise is not solved again. What is left of the time is for
devices and nodes as a whole (`cover_bound.py`), which begins with what the last program says that nodes are worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

from gimlet.compiler.placement.bounds.bills import BILLS, keep_bounds, latency_left
from gimlet.compiler.placement.bounds.counting_bound import Counted, counting_bound
from gimlet.compiler.placement.bounds.cover_bound import cover_bound
from gimlet.compiler.placement.bounds.device_sets import Prices
from gimlet.compiler.placement.bounds.fleets import Fleet, every_fleet, fleets
from gimlet.compiler.placement.bounds.period_program import PeriodProgram
from gimlet.compiler.placement.bounds.timed_bound import timed_bound
from gimlet.compiler.placement.bounds.work_bound import work_bound
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem
from gimlet.runtime.errors import InfeasibleError

_PARTS = 32
"""The time that is left is for so many fleets at least."""
_ROWS = 0.5
"""The part of the time for rows that solutions break."""
_NEAR = 1e-4
"""A bound so close to the best known, as a part of it, is not improved."""


def period_bound(problem: Problem, best_known: float = float("inf"), until: float = float("inf")) -> float:
    """The least period, or more than `best_known`. InfeasibleError where nothing can keep the shares.

    After `until` (of `time.perf_counter`) it is no longer improved.
    """
    classes = device_classes(problem)
    floor = work_bound(problem, classes, until)
    if perf_counter() > until:
        return floor
    # What holds whatever is in use, before there is a program for each fleet.
    free = _program(every_fleet(problem, until), best_known)
    counted = Counted(0.0, {})
    period = free.solve(until)
    if period is not None:
        floor = max(floor, period)
    if free.prices is not None:
        counted = counting_bound(problem, classes, free.prices, best_known, until)
        floor = max(floor, counted.value)
    known = floor >= best_known * (1 - _NEAR) or period is None
    programs: list[PeriodProgram] = []
    searched: list[Fleet] = []
    for fleet in [] if known else fleets(problem, until, counted=not problem.rules.bounds.keys().isdisjoint(BILLS)):
        if perf_counter() > until:
            # The bound is the least of all programs, so some of them are worth nothing.
            return floor
        programs.append(_program(fleet, best_known))
        searched.append(fleet)
    found, prices = _of_all(programs or [free], searched, floor, best_known, until)
    found = max(found, floor)
    if found == float("inf") and best_known == float("inf"):
        raise InfeasibleError("no placement keeps the shares of the FLOPs and the limits on other figures")
    prices = prices or free.prices
    if found < best_known * (1 - _NEAR) and prices is not None and perf_counter() < until:
        if counted.value >= found:
            prices = replace(prices, fast_byte_s=counted.fast_byte_s)
        return cover_bound(problem, classes, prices, found, best_known, until)
    return found


def _program(fleet: Fleet, best_known: float) -> PeriodProgram:
    program = PeriodProgram(fleet.problem, fleet.classes, fleet.launching, best_known)
    if program.can and fleet.problem.rules.bounds:
        keep_bounds(program, fleet, fleet.usable.latency.seconds)
    return program


def _timed(fleet: Fleet, best_known: float, until: float) -> float:
    """The bound on a fleet's period by the latency that limits on energy and cost leave to it."""
    if fleet.problem.rules.bounds.keys().isdisjoint(BILLS):
        return 0.0
    now, left = perf_counter(), latency_left(fleet)
    if fleet.own_latency_s(until) > left * (1 + 1e-9):
        return float("inf")
    rules = replace(fleet.narrowed.rules, objective="throughput", bounds={"latency": left})
    return timed_bound(fleet.narrowed.with_rules(rules), best_known, now + (until - now) / _PARTS).seconds


def _of_all(
    programs: Sequence[PeriodProgram], searched: Sequence[Fleet], floor: float, best_known: float, until: float
) -> tuple[float, Prices | None]:
    """The least of all programs, the weakest of which gets the rows that its solution breaks, and its prices.

    Of the fleet that is `searched` by the weakest the latency that it has left is looked at once.
    """
    least = [0.0] * len(programs)
    solved = [False] * len(programs)
    waiting = dict(enumerate(searched))
    rows = False
    soon = until
    while True:
        weakest = min(range(len(programs)), key=lambda number: (least[number], -number))
        if solved[weakest] and weakest in waiting and perf_counter() < until:
            least[weakest] = max(least[weakest], _timed(waiting.pop(weakest), best_known, until))
            continue
        if not rows and solved[weakest]:
            rows, soon = True, perf_counter() + _ROWS * (until - perf_counter())
        if max(least[weakest], floor) >= best_known or (solved[weakest] and not programs[weakest].tighten()):
            break
        period = programs[weakest].solve(soon)
        if period is None:
            break
        least[weakest], solved[weakest] = max(least[weakest], period), True
    return least[weakest], programs[weakest].prices
