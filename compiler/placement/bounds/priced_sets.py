"""The dearest set of nodes that one device can do within a period, where nodes, seconds, bytes and ops have prices.

Nodes are decided one by one in their order: elsewhere, or on one of the device's places. What a set takes of a device's
period is counted in cells, and there is a table of the most that sets of so many cells are worth. Everything else that
a set takes has a price (`Prices`): what its nodes add to the latency along one path through the graph, bytes over the
device's links and in its memory, and prices of its ops. Each is counted at most as high as a placement has it:

- a node of the path that is not on the place of the one before it begins a segment, and waits for a transfer where that
  one is on another device;
- nodes beside the path need no launch, and are no part of the latency;
- a value enters the device where a reader of it is there and its producer is not, and leaves it where it is the other
  way round; of values that are open at once the largest few are followed;
- fusion saves of every op what it could at most.

Seconds are rounded down to cells: along a stretch of the path as a whole, which costs it less than one cell too many,
so its launch is one cell shorter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.bounds.period_program import shared_links
from gimlet.compiler.placement.model.problem import Problem

Floats = NDArray[np.float64]
LATENCY, INWARD, OUTWARD, HELD, BILL = range(5)
"""What a set takes: seconds of the path's latency, of links in and out, bytes of memory, and then of each bill."""
_MOST_OPEN = 3
_IN, _OUT, _DONE = range(3)
"""A value whose producer is on the device, or is elsewhere, and one that has crossed or cannot."""
_Row = tuple[int, tuple[int, ...]]
"""The place of the last node of the path, by its number from 1 or 0, and how each open value is."""


@dataclass(frozen=True)
class PricedSet:
    """Nodes that a device takes, the cells that they take at least, and their amounts."""

    nodes: frozenset[int]
    cells: int
    amounts: tuple[float, ...]


@dataclass
class _Stage:
    """One node: moves from row to row, those that take it being `on` a place, `begun` where a segment begins."""

    node: int
    rows: int
    source: list[int] = field(default_factory=list[int])
    target: list[int] = field(default_factory=list[int])
    on: list[int] = field(default_factory=list[int])
    begun: list[bool] = field(default_factory=list[bool])
    amounts: list[tuple[float, ...]] = field(default_factory=list[tuple[float, ...]])


class PricedSets:
    """The sets of one device, whatever the period; `billed` has for each bill a problem, with its prices."""

    def __init__(self, problem: Problem, path: Sequence[int], device: int, billed: Sequence[Problem] = ()) -> None:
        self.problem, self.device, self.path = problem, device, tuple(path)
        self.places = [place for place, on in enumerate(problem.device_of) if on == device]
        self.billed = billed
        self.before = dict(zip(path[1:], path, strict=False))
        self.on_path = frozenset(path)
        self.rates = [
            min(shared_links(problem, [device], inward=inward).values(), default=0.0) for inward in (True, False)
        ]
        self.held = self._held()
        self.stages = list(self._stages())

    def _held(self) -> dict[tuple[int, int], float]:
        """Bytes of weights by node and place, of which users share the bytes of each weight."""
        found: dict[tuple[int, int], float] = {}
        if self.problem.devices[self.device].memory_bytes is None:
            return found
        for weight in self.problem.weights:
            for place in self.places:
                for user in weight.users:
                    size = weight.size_bytes.get(place, 0) / len(weight.users)
                    found[user, place] = found.get((user, place), 0.0) + size
        return found

    def _arrival_s(self, node: int) -> float:
        """What a node of the path waits at least for what comes from another device, after the one before it."""
        problem, before = self.problem, self.before.get(node)
        values = [problem.values[value] for value in problem.inputs_of[node]]
        sizes = [value.size_bytes for value in values if value.producer == before]
        # What a segment sends to a device goes together, inputs not always.
        size = max(sizes, default=0) if before is None else sum(sizes)
        sources = [problem.host] if before is None else sorted({d for d in problem.device_of if d != self.device})
        if before is None and (self.device == problem.host or not any(value.producer is None for value in values)):
            return 0.0
        return min((problem.transfer_s(source, self.device, size) for source in sources), default=0.0)

    def _return_s(self, node: int) -> float:
        """What an output of the path's last node takes to the host."""
        problem = self.problem
        sizes = [
            problem.values[value].size_bytes for value in problem.outputs_of[node] if problem.values[value].is_output
        ]
        if not sizes or node != self.path[-1] or self.device == problem.host:
            return 0.0
        return problem.transfer_s(self.device, problem.host, sum(sizes))

    def _stages(self) -> Iterator[_Stage]:
        """The moves of every node, from the rows that are possible before it."""
        problem = self.problem
        last = {number: max(value.consumers, default=-1) for number, value in enumerate(problem.values)}
        followed = {number for number in last if any(self.rates) and self.device != problem.host}
        open_values: tuple[int, ...] = ()
        rows: dict[_Row, int] = {(0, ()): 0}
        for node in range(len(problem.nodes)):
            inputs = problem.inputs_of[node]
            new = [v for v in inputs if problem.values[v].producer is None and v in followed and v not in open_values]
            ends = [v for v in open_values if last[v] == node]
            born = [v for v in problem.outputs_of[node] if v in followed and last[v] > node]
            after = [v for v in (*open_values, *new, *born) if last[v] > node]
            after = sorted(sorted(after, key=lambda v: -problem.values[v].size_bytes)[:_MOST_OPEN])
            stage, reached = _Stage(node, len(rows)), dict[_Row, int]()
            for (at, states), row in rows.items():
                known = dict(zip(open_values, states, strict=True)) | dict.fromkeys(new, _OUT)
                for number in (0, *self._numbers(node)):
                    self._move(stage, reached, row, at, number, known, after)
            followed -= {v for v in (*open_values, *new, *born) if v not in after and v not in ends}
            rows, open_values = reached, tuple(after)
            yield stage
        self.rows = len(rows)

    def _numbers(self, node: int) -> list[int]:
        """The places that take a node, from 1; beside the path they are all one."""
        found = [number for number, place in enumerate(self.places, 1) if place in self.problem.allowed[node]]
        return found if node in self.on_path else found[:1]

    def _move(
        self,
        stage: _Stage,
        reached: dict[_Row, int],
        row: int,
        at: int,
        number: int,
        known: dict[int, int],
        after: Sequence[int],
    ) -> None:
        """Adds what becomes of a row where the stage's node is on the place of a number, or elsewhere (0)."""
        problem, node = self.problem, stage.node
        states, moved = dict(known), [0.0, 0.0]
        for value in problem.inputs_of[node]:
            crossed = _OUT if number else _IN
            if states.get(value) == crossed:
                moved[_IN if crossed == _OUT else _OUT] += problem.values[value].size_bytes
                states[value] = _DONE
        for value in problem.outputs_of[node]:
            states[value] = _IN if number else _OUT
            if number and problem.values[value].is_output and self.device != problem.host:
                moved[1] += problem.values[value].size_bytes
                states[value] = _DONE
        on_path = node in self.on_path
        begun = bool(number) and on_path and number != at
        target = reached.setdefault((number if on_path else at, tuple(states[v] for v in after)), len(reached))
        latency = self._arrival_s(node) if begun and not at else 0.0
        place = self.places[number - 1] if number else -1
        amounts = [latency, moved[0] * self.rates[0], moved[1] * self.rates[1], 0.0, *(0.0 for _ in self.billed)]
        if number and on_path:
            amounts[LATENCY] += (
                self.seconds(node, number) + (problem.launch_s[place] if begun else 0.0) + self._return_s(node)
            )
        if number:
            among = [place] if on_path else [p for p in self.places if p in problem.allowed[node]]
            amounts[HELD] = min(self.held.get((node, p), 0.0) for p in among)
            for bill, billed in enumerate(self.billed, BILL):
                amounts[bill] = min(billed.nodes[node].options[p].usd for p in among)
        stage.source.append(row)
        stage.target.append(target)
        stage.on.append(number)
        stage.begun.append(begun)
        stage.amounts.append(tuple(amounts))

    def seconds(self, node: int, number: int) -> float:
        """What a node takes at least on a place; on any where it is beside the path."""
        row = self.problem.fused_seconds[node]
        return float(row[self.places[number - 1]] if node in self.on_path else min(row[p] for p in self.places))


class Table:
    """The sets that take a period at most, in `cells`."""

    def __init__(self, sets: PricedSets, period_s: float, cells: int) -> None:
        self.sets, self.size = sets, cells + 1
        cell_s = period_s / cells * (1 + 1e-9)
        problem = sets.problem
        launches = [int(problem.launch_s[place] / cell_s) for place in sets.places]
        prompt = [launch < 1 for launch in launches]
        done = [0.0] * len(sets.places)
        self.cells: list[NDArray[np.int64]] = []
        for stage in sets.stages:
            taken = [0] * (len(sets.places) + 1)
            for number in range(1, len(sets.places) + 1):
                seconds = sets.seconds(stage.node, number) / cell_s
                if seconds == float("inf") or stage.node not in sets.on_path or prompt[number - 1]:
                    taken[number] = self.size if seconds == float("inf") else int(min(seconds, self.size))
                    continue
                taken[number] = int(done[number - 1] + seconds) - int(done[number - 1])
                done[number - 1] += seconds
            begun = [max(launches[n - 1] - 1, 0) if b else 0 for n, b in zip(stage.on, stage.begun, strict=True)]
            self.cells.append(np.array([taken[n] for n in stage.on]) + np.array(begun))
        self.amounts = [np.array(stage.amounts) for stage in sets.stages]

    def alone(self, node: int) -> PricedSet | None:
        """One node as a set, on the place where it takes least; None where it takes longer than a period."""
        sets = self.sets
        numbers = [number for number, place in enumerate(sets.places, 1) if place in sets.problem.allowed[node]]
        worth = np.full(len(sets.problem.nodes), -1.0)
        worth[node] = 1.0
        found = self.most(worth, np.zeros(BILL + len(sets.billed)))[1] if numbers else None
        return found if found is not None and found.nodes else None

    def most(self, worth: Floats, prices: Floats) -> tuple[Floats, PricedSet]:
        """The most that a set of so many cells at most is worth, and the set that is worth most."""
        table = np.full((1, self.size), -np.inf)
        table[0, 0] = 0.0
        passed: list[tuple[Floats, Floats]] = []
        for number, stage in enumerate(self.sets.stages):
            gain = np.where(np.array(stage.on) > 0, worth[stage.node], 0.0) - self.amounts[number] @ prices
            passed.append((table, gain))
            rows = self.sets.stages[number + 1].rows if number + 1 < len(self.sets.stages) else self.sets.rows
            after = np.full((rows, self.size), -np.inf)
            for move, cells in enumerate(self.cells[number].tolist()):
                if cells < self.size:
                    goal = after[stage.target[move], cells:]
                    np.maximum(goal, table[stage.source[move], : self.size - cells] + gain[move], out=goal)
            table = after
        best = np.maximum.accumulate(table.max(axis=0))
        return best, self._read(passed, table)

    def _read(self, passed: Sequence[tuple[Floats, Floats]], table: Floats) -> PricedSet:
        used = cell = int(table.max(axis=0).argmax())
        row = int(table[:, cell].argmax())
        value = float(table[row, cell])
        taken: set[int] = set()
        amounts = np.zeros(BILL + len(self.sets.billed))
        for number in reversed(range(len(passed))):
            before, gain = passed[number]
            stage = self.sets.stages[number]
            for move, cells in enumerate(self.cells[number].tolist()):
                start = cell - cells
                if stage.target[move] != row or start < 0:
                    continue
                earlier = float(before[stage.source[move], start])
                if earlier + gain[move] == value:
                    taken |= {stage.node} if stage.on[move] else set()
                    amounts += self.amounts[number][move]
                    row, cell, value = stage.source[move], start, earlier
                    break
        return PricedSet(frozenset(taken), used, tuple(amounts.tolist()))
