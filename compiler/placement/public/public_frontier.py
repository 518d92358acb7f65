"""The sets of units that one device can do: the least load of a set of each weight, for any weights.

The load of a set is its units' work and the cost of each value of which it has some ends and not all: an accelerator
pays for what it fetches and for what it gives away. (For a CPU there are no such values.) Sets are sought by dynamic
programming over the units in some order. A *state* is what has to be known of the units that were decided: of each
value with ends on both sides whether the set has none of them so far, all, or some (which has been paid). For each
state and each whole weight there is the least load, exactly: weights are rounded and not loads, since any weights will
do.

There are few states where the graph is narrow, as most are in a good order. Where there would be too many, the cheapest
value is left out from there on: it costs nothing more, so loads are then too small and no set is missed. States that no
set within the largest load of interest can be in are left out as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Value = tuple[tuple[int, ...], float]
"""The units at the ends of a value, and what moving it costs."""

MOST_STATES = 64
_NONE, _ALL, _SOME = 0, 1, 2
_FOLLOWED = 12
"""Values with more ends do not say which unit comes next in an order."""
_SLACK = 1e-9


def narrow_order(count: int, values: Sequence[Value]) -> list[int]:
    """Units so that few values have ends on both sides of any place: next is the one after which there are fewest."""
    ends: list[list[int]] = [[] for _ in range(count)]
    for number, (units, _) in enumerate(values):
        for unit in units:
            ends[unit].append(number)
    left = [len(units) for units, _ in values]
    order: list[int] = []
    waiting, near = dict.fromkeys(range(count)), dict[int, None]()

    def opened(unit: int) -> tuple[int, int]:
        begun = sum(left[number] == len(values[number][0]) for number in ends[unit])
        return begun - sum(left[number] == 1 for number in ends[unit]), unit

    while waiting:
        unit = min(near or [next(iter(waiting))], key=opened)
        order.append(unit)
        waiting.pop(unit)
        near.pop(unit, None)
        for number in ends[unit]:
            left[number] -= 1
            units = values[number][0]
            near.update((other, None) for other in units if other in waiting and len(units) <= _FOLLOWED)
    return order


@dataclass(frozen=True)
class _Step:
    """The next unit: rows that follow from states of before, and what each adds to the load; the unit is taken from row
    `taken` on. `rows[k, state]` are rows that lead to a state, the same ones again where it has fewer than others."""

    unit: int
    taken: int
    source: Integers
    load: Floats
    rows: Integers


@dataclass(frozen=True)
class Loads:
    """By weight the least load of a set; the last is of sets of that weight or more. And how it came about."""

    least: Floats
    weights: Integers
    tables: Sequence[Floats]

    def most(self, load: float) -> int:
        """The largest weight within a load."""
        return int(np.flatnonzero(self.least <= load * (1 + _SLACK))[-1])


class Frontier:
    """Sets of a load up to `limit`; `work` is infinite for a unit that the device does not take."""

    def __init__(
        self,
        work: Sequence[float],
        values: Sequence[Value],
        order: Sequence[int],
        limit: float,
        states: int = MOST_STATES,
    ) -> None:
        self.limit = limit * (1 + _SLACK)
        self.steps: list[_Step] = []
        self.left_out = 0.0
        self.states = 0
        position = {unit: place for place, unit in enumerate(order)}
        spans = [sorted(position[unit] for unit in units) for units, _ in values]
        at: list[list[int]] = [[] for _ in order]
        for number, span in enumerate(spans):
            for place in span:
                at[place].append(number)
        open_values: list[int] = []
        known: list[tuple[int, ...]] = [()]
        least = np.zeros(1)
        gone: set[int] = set()
        for place, unit in enumerate(order):
            here = [number for number in at[place] if number not in gone]
            begun = [number for number in here if spans[number][0] == place]
            column = {number: index for index, number in enumerate(open_values)}
            touched = [(column[number], values[number][1]) for number in here if number in column]
            rows: list[tuple[int, int, float, tuple[int, ...]]] = []
            for taken in (_NONE, _ALL) if work[unit] < float("inf") else (_NONE,):
                for source, state in enumerate(known):
                    after, load = _decided(state, touched, taken)
                    load += work[unit] if taken else 0.0
                    if least[source] + load <= self.limit:
                        rows.append((taken, source, load, (*after, *[taken] * len(begun))))
            following = [*open_values, *begun]
            kept = [index for index, number in enumerate(following) if spans[number][-1] > place]
            while len({tuple(row[3][index] for index in kept) for row in rows}) > states:
                cheapest = min(kept, key=lambda index: values[following[index]][1])
                kept.remove(cheapest)
                gone.add(following[cheapest])
                self.left_out += values[following[cheapest]][1]
            open_values = [following[index] for index in kept]
            goals: dict[tuple[int, ...], int] = {}
            goal = [goals.setdefault(tuple(row[3][index] for index in kept), len(goals)) for row in rows]
            known = list(goals)
            self.states += len(known)
            least = self._add(unit, rows, goal, least)

    def _add(
        self, unit: int, rows: Sequence[tuple[int, int, float, tuple[int, ...]]], goal: Sequence[int], least: Floats
    ) -> Floats:
        """Writes down a step; the least load of each state after it."""
        leading: list[list[int]] = [[] for _ in range(max(goal) + 1)]
        for row, state in enumerate(goal):
            leading[state].append(row)
        most = max(len(few) for few in leading)
        step = _Step(
            unit,
            sum(row[0] == _NONE for row in rows),
            np.array([row[1] for row in rows], dtype=np.int64),
            np.array([row[2] for row in rows]),
            np.array([few + few[:1] * (most - len(few)) for few in leading], dtype=np.int64).T,
        )
        self.steps.append(step)
        return (least[step.source] + step.load)[step.rows].min(axis=0)

    def loads(self, weights: Integers, width: int, allowed: NDArray[np.bool_] | None = None) -> Loads:
        """The least loads of sets of `allowed` units by weight up to `width`."""
        table = np.full((1, width + 1), np.inf)
        table[0, 0] = 0.0
        tables = [table]
        for step in self.steps:
            rows = table[step.source]
            rows += step.load[:, None]
            weight = min(int(weights[step.unit]), width)
            if allowed is not None and not allowed[step.unit]:
                rows[step.taken :] = np.inf
            elif weight:
                heaviest = rows[step.taken :, width - weight :].min(axis=1)
                rows[step.taken :, weight:] = rows[step.taken :, : width + 1 - weight].copy()
                rows[step.taken :, width] = heaviest
                rows[step.taken :, :weight] = np.inf
            table = rows[step.rows[0]]
            for more in step.rows[1:]:
                np.minimum(table, rows[more], out=table)
            tables.append(table)
        return Loads(table.min(axis=0), weights, tables)

    def units(self, loads: Loads, weight: int) -> list[int]:
        """The units of the set of least load that has this weight."""
        width = len(loads.least) - 1
        found: list[int] = []
        state = int(np.argmin(loads.tables[-1][:, weight]))
        for number in reversed(range(len(self.steps))):
            step, before = self.steps[number], loads.tables[number]
            load = loads.tables[number + 1][state, weight]
            for row in step.rows[:, state]:
                taken = row >= step.taken
                gain = min(int(loads.weights[step.unit]), width) if taken else 0
                start = max(weight - gain, 0) if weight < width or not gain else width - gain
                stop = weight - gain + 1 if weight < width or not gain else width + 1
                same = before[step.source[row], start:stop] + step.load[row] == load
                if stop > start and same.any():
                    found += [step.unit] if taken else []
                    state, weight = int(step.source[row]), start + int(np.argmax(same))
                    break
        return found


def _decided(state: Sequence[int], touched: Sequence[tuple[int, float]], taken: int) -> tuple[list[int], float]:
    """A state after a unit was decided, and what is to be paid for values of which the set now has some ends."""
    after, load = list(state), 0.0
    for index, cost in touched:
        if after[index] not in (taken, _SOME):
            after[index] = _SOME
            load += cost
    return after, load
