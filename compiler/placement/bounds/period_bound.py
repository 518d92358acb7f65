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

One program for each set of classes in use. Rows are added as solutions break them (`period_program.py`), always to the
program with the least value: so there is a bound after a small part of the time, and one that no more rows could raise
is not solved again. Before rows are added, long ops that are alike are counted (`counting_bound.py`). What is left of
the time is for devices and nodes as a whole (`cover_bound.py`), which begins with what the last program says that nodes
are worth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, combinations
from time import perf_counter

from gimlet.compiler.placement.bounds.bills import keep_bounds
from gimlet.compiler.placement.bounds.counting_bound import Counted, counting_bound
from gimlet.compiler.placement.bounds.cover_bound import cover_bound
from gimlet.compiler.placement.bounds.period_program import PeriodProgram
from gimlet.compiler.placement.bounds.work_bound import work_bound
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem
from gimlet.runtime.errors import InfeasibleError

_MOST_SETS = 16
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
    others = [members for members in classes if problem.host not in members]
    hosts = [members for members in classes if problem.host in members]
    in_use = 2 ** len(others) <= _MOST_SETS
    sets: Iterable[tuple[list[int], ...]] = [tuple(others)]
    if in_use:
        sets = chain.from_iterable(combinations(others, size) for size in range(len(others) + 1))
    programs: list[PeriodProgram] = []
    for chosen in sets:
        if perf_counter() > until:
            # The bound is the least of all programs, so some of them are worth nothing.
            return floor
        certain = chosen if in_use else ()
        programs.append(PeriodProgram(problem, [*hosts, *chosen], certain, best_known))
        keep_bounds(programs[-1], certain, until)
    least = [0.0] * len(programs)
    solved = [False] * len(programs)
    counted: Counted | None = None
    soon = until
    while True:
        weakest = min(range(len(programs)), key=lambda number: (least[number], -number))
        prices = programs[weakest].prices
        if solved[weakest] and prices is not None and counted is None:
            counted = counting_bound(problem, classes, prices, best_known, until)
            soon = perf_counter() + _ROWS * (until - perf_counter())
        enough = max(least[weakest], counted.value if counted else 0.0) >= best_known
        if enough or (solved[weakest] and not programs[weakest].tighten()):
            break
        period = programs[weakest].solve(soon)
        if period is None:
            break
        least[weakest], solved[weakest] = max(least[weakest], period), True
    found = max(min(least), floor, counted.value if counted else 0.0)
    if found == float("inf") and best_known == float("inf"):
        raise InfeasibleError("no placement keeps the shares of the FLOPs and the limits on other figures")
    prices = programs[weakest].prices
    if found < best_known * (1 - _NEAR) and prices is not None and perf_counter() < until:
        if counted is not None and counted.value > min(least):
            prices = replace(prices, fast_byte_s=counted.fast_byte_s)
        return cover_bound(problem, classes, prices, found, best_known, until)
    return found
