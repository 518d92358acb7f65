"""Which sets of nodes a fleet's devices can do, each node in one of them: a linear program, and prices of the nodes.

A set of a device (`priced_sets.py`) is a column: every node is in one, a class has no more of them than devices, and
what all sets take together is within the limits (`Limit`); of links and memory within what a class has. Sets may be in
parts, so the program is a bound. It is solved from its dual side: any prices of nodes and limits are a bound, with the
sets of each class that are dearest by them. Those sets join the program, which says what prices are next; half of the
step to them is made, because the program's own jump about.

Two things are asked. For the period: by how much all limits would have to be wider, where more than one says that the
period is too short (`missed`). For a bill: the least that sets, and the latency at the fleet's rate, take (`least`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from ortools.linear_solver import pywraplp

from gimlet.compiler.placement.bounds.linear import solved
from gimlet.compiler.placement.bounds.priced_sets import (
    BILL,
    HELD,
    INWARD,
    LATENCY,
    OUTWARD,
    Floats,
    PricedSet,
    PricedSets,
    Table,
)

_SMOOTHED = 0.5
_MARGIN = 1e-7
_LARGEST = 1e3
"""What a node is worth at most, where all limits together are worth 1."""


@dataclass(frozen=True)
class Limit:
    """What all sets of a fleet may take: `parts` are what an amount is of it."""

    parts: Floats


@dataclass(frozen=True)
class Bill:
    """A bill that is least: its amount by number, what the devices take by the second, and the least latency."""

    amount: int
    rate: float
    least_s: float
    most: float


@dataclass(frozen=True)
class _Column:
    number: int
    nodes: tuple[int, ...]
    seconds: float
    amounts: Floats


@dataclass(frozen=True)
class _Prices:
    """Of nodes, of limits, by class of links and memory, and of a second of the latency."""

    worth: Floats
    limits: Floats
    own: Floats
    second: float

    def towards(self, other: _Prices) -> _Prices:
        """Prices between these and others."""

        def mix(left: Any, right: Any) -> Any:
            return (1 - _SMOOTHED) * left + _SMOOTHED * right

        limits, own = mix(self.limits, other.limits), mix(self.own, other.own)
        return _Prices(mix(self.worth, other.worth), limits, own, mix(self.second, other.second))


class SetProgram:
    """The program of one fleet. Its columns and best prices are kept from one period to the next."""

    def __init__(
        self, sets: Sequence[PricedSets], sizes: Sequence[int], limits: Sequence[Limit], bill: Bill | None = None
    ) -> None:
        self.sets, self.limits, self.bill = sets, limits, bill
        self.sizes = np.array([float(size) for size in sizes])
        self.problem = sets[0].problem
        self.amounts = BILL + len(sets[0].billed)
        self.columns: list[_Column] = []
        self.longest_s = 0.0
        """The longest period so far: nodes that are not alone in a column have none within it."""
        self.best: _Prices | None = None
        self.calls = 0
        """How often a table was looked through."""
        self.unit = np.ones((len(sets), 3))
        self.solver: Any = None

    def missed(self, tables: Sequence[Table], period_s: float, until: float, calls: int) -> float:
        """A period up to `period_s` that no placement of the fleet is below; that itself if it can be shown."""
        proven = 0.0
        for prices, found in self._rounds(tables, period_s, until, calls):
            if found is None:
                return period_s
            proven = max(proven, self._too_short(prices, [most for most, _ in found]) * period_s)
            if proven >= period_s:
                break
        return proven

    def least(self, tables: Sequence[Table], period_s: float, enough: float, until: float, calls: int) -> float:
        """What the bill is at least within a period; it ends where that is `enough`. Infinite for no placement."""
        proven = -float("inf")
        for prices, found in self._rounds(tables, period_s, until, calls):
            if found is None:
                return float("inf")
            proven = max(proven, self._value(prices, [most for most, _ in found]))
            if proven >= enough:
                break
        return proven

    def _rounds(self, tables: Sequence[Table], period_s: float, until: float, calls: int) -> Any:
        """Prices and the dearest sets by them, each time better ones; None for a node that no set has."""
        self._begin(tables, period_s)
        within = (column.nodes for column in self.columns if column.seconds <= period_s)
        if len(set[int]().union(*within)) < len(self.problem.nodes):
            yield self.best, None
            return
        highest, prices = -float("inf"), self.best
        last = self._solve()
        prices = prices or last
        while last is not None and prices is not None and perf_counter() < until and self.calls < calls:
            self.calls += len(tables)
            found = [table.most(prices.worth, self._of_amounts(prices, number)) for number, table in enumerate(tables)]
            yield prices, found
            value = self._value(prices, [most for most, _ in found])
            if value > highest:
                highest, self.best = value, prices
            columns = [self._column(number, one, tables[number], period_s) for number, (_, one) in enumerate(found)]
            columns = [column for column in columns if self._is_dearer(column, last)]
            if not columns and prices is last:
                return
            self.columns += columns
            for column in columns:
                self._add(column)
            if columns:
                last = self._solve()
                if last is None or (self.bill is None and self.solver.Objective().Value() <= 1 + 1e-9):
                    return
            prices = last.towards(self.best) if columns and self.best is not None else last

    def _begin(self, tables: Sequence[Table], period_s: float) -> None:
        """The program with those columns that the period allows, and with every node alone."""
        solver = self.solver = pywraplp.Solver.CreateSolver("GLOP")
        count, end = len(self.problem.nodes), solver.infinity()
        most = _LARGEST if self.bill is None else self.bill.most
        memory = [self.problem.devices[one.device].memory_bytes for one in self.sets]
        self.unit = np.array([[period_s, period_s, float(held or 1)] for held in memory])
        self.worth = [solver.NumVar(-most, most, "") for _ in range(count)]
        self.heaviest = [solver.NumVar(0, end, "") for _ in self.sets]
        self.limited = [solver.NumVar(0, end, "") for _ in self.limits]
        self.own = [
            [solver.NumVar(0, end if used else 0, "") for used in (*one.rates, held)]
            for one, held in zip(self.sets, memory, strict=True)
        ]
        self.second = solver.NumVar(0, 0.0 if self.bill is None else self.bill.rate, "")
        sums = [size * variable for size, variable in zip(self.sizes, self.heaviest, strict=True)]
        sums += [size * variable for size, row in zip(self.sizes, self.own, strict=True) for variable in row]
        total = solver.Sum([*sums, *self.limited])
        if self.bill is None:
            solver.Add(total <= 1)
            solver.Maximize(solver.Sum(self.worth))
        else:
            solver.Maximize(solver.Sum(self.worth) - total - self.bill.least_s * self.second)
        if period_s > self.longest_s:
            self.longest_s = period_s
            alone = [(n, table.alone(node)) for node in range(count) for n, table in enumerate(tables)]
            self.columns += [self._column(n, one, tables[n], period_s) for n, one in alone if one is not None]
        for column in self.columns:
            if column.seconds <= period_s:
                self._add(column)

    def _column(self, number: int, one: PricedSet, table: Table, period_s: float) -> _Column:
        seconds = one.cells / (table.size - 1) * period_s
        return _Column(number, tuple(sorted(one.nodes)), seconds, np.array(one.amounts))

    def _add(self, column: _Column) -> None:
        amounts = column.amounts
        terms = [self.worth[node] for node in column.nodes]
        terms += [-float(one.parts @ amounts) * price for one, price in zip(self.limits, self.limited, strict=True)]
        parts = amounts[[INWARD, OUTWARD, HELD]] / self.unit[column.number]
        terms += [-float(part) * price for part, price in zip(parts, self.own[column.number], strict=True) if part]
        terms.append(-float(amounts[LATENCY]) * self.second)
        limit = 0.0 if self.bill is None else float(amounts[self.bill.amount])
        self.solver.Add(self.solver.Sum(terms) - self.heaviest[column.number] <= limit)

    def _solve(self) -> _Prices | None:
        if solved(self.solver) != pywraplp.Solver.OPTIMAL:
            return None

        def values(variables: Sequence[Any]) -> Floats:
            return np.array([float(variable.solution_value()) for variable in variables])

        self.found = values(self.heaviest)
        own = np.array([np.clip(values(row), 0.0, None) for row in self.own])
        second = 0.0 if self.bill is None else min(max(float(self.second.solution_value()), 0.0), self.bill.rate)
        return _Prices(values(self.worth), np.clip(values(self.limited), 0.0, None), own, second)

    def _of_amounts(self, prices: _Prices, number: int) -> Floats:
        """What a set of a class pays for each amount."""
        found = np.zeros(self.amounts)
        for one, price in zip(self.limits, prices.limits, strict=True):
            found += price * one.parts
        found[[INWARD, OUTWARD, HELD]] += prices.own[number] / self.unit[number]
        found[LATENCY] += prices.second
        if self.bill is not None:
            found[self.bill.amount] += 1.0
        return found

    def _is_dearer(self, column: _Column, last: _Prices) -> bool:
        """Whether the program does not know yet that a set is worth so much."""
        worth = float(last.worth[list(column.nodes)].sum())
        gain = worth - float(self._of_amounts(last, column.number) @ column.amounts) - self.found[column.number]
        return gain > _MARGIN * max(float(np.abs(last.worth).max()), 1e-30)

    def _value(self, prices: _Prices, most: Sequence[Floats]) -> float:
        """The bound that prices are: by how much limits must be wider, or of the bill."""
        taken = sum(size * float(best[-1]) for size, best in zip(self.sizes, most, strict=True))
        limited = float(prices.limits.sum()) + float(self.sizes @ prices.own.sum(axis=1))
        worth = float(prices.worth.sum())
        if self.bill is None:
            return worth / max(taken + limited, 1e-300)
        idle = (self.bill.rate - prices.second) * self.bill.least_s
        terms = (worth, taken, limited, idle)
        return worth - taken - limited + idle - _MARGIN * 1e-2 * sum(map(abs, terms))

    def _too_short(self, prices: _Prices, most: Sequence[Floats]) -> float:
        """The part of the period up to which the nodes are worth more than all that there is within it."""
        cells = len(most[0]) - 1
        links = float(self.sizes @ prices.own[:, :2].sum(axis=1))
        rest = float(prices.limits.sum()) + float(self.sizes @ prices.own[:, 2])
        there = rest + links * np.arange(cells + 1) / cells
        for size, best in zip(self.sizes, most, strict=True):
            there = there + size * np.maximum(best, 0.0)
        enough = np.nonzero(there >= float(prices.worth.sum()) * (1 - _MARGIN) - _MARGIN)[0]
        return 1.0 if not len(enough) else max(int(enough[0]) - 1, 0) / cells
