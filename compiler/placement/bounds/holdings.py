"""What one device can hold of a problem at most: the nodes worth most, less what they add to the latency.

Nodes have any worth. The set is sought along a path through the graph (`spine.py`), by dynamic programming over how
much of a *resource* is taken, the device's memory or its seconds of a limit on the period. What a set adds to the
latency is what its segments take of the path:

- for each stretch of the path that is on the device a launch, and what comes there from another device;
- the nodes of the path, less all that fusion saves; in a stretch from joint to joint also the nodes beside the path,
  which its segment has to hold. Other nodes add nothing, and take of the resource all the same;
- the way to the host, where the last node of the path gives an output.

The segments that have a path's nodes follow each other. So what the sets of all devices add is no more than the
latency. A resource is counted in whole cells, rounded down node by node; there are as many cells as lose least by that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.bounds.input_batches import input_bytes
from gimlet.compiler.placement.bounds.spine import Spine
from gimlet.compiler.placement.model.problem import Problem

Floats = NDArray[np.float64]
_CELLS = range(500, 2501)
_SLACK = 1e-7
"""Cells by which a product of floating-point numbers may be off."""
_AWAY = 0
"""The row where the last node of the path is elsewhere."""


@dataclass(frozen=True)
class Resource:
    """What nodes take of a device, by node and place, and launches by place: in parts of all that it has."""

    nodes: Floats
    launches: Floats


@dataclass(frozen=True)
class Holding:
    """Nodes that a device can have, and the seconds that they add to the latency."""

    nodes: frozenset[int]
    seconds: float


@dataclass(frozen=True)
class _Move:
    """From a row to a row, with nodes that are taken, what that costs in cells, and in seconds."""

    source: int
    target: int
    cells: int = 0
    seconds: float = 0.0
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Stage:
    """Moves of which each row makes one; where it is `open`, a row may also stay as it is."""

    moves: tuple[_Move, ...]
    open: bool = False


class Holdings:
    """Sets that a device can hold within one resource; any set where that is None."""

    def __init__(self, problem: Problem, spine: Spine, device: int, resource: Resource | None) -> None:
        self.problem, self.spine, self.device = problem, spine, device
        self.places = [place for place, on in enumerate(problem.device_of) if on == device]
        self.seconds: Floats = problem.fused_seconds
        self.cells = np.zeros((len(problem.nodes), len(problem.places)), dtype=np.int64)
        self.launches = np.zeros(len(problem.places), dtype=np.int64)
        self.size = 1
        if resource is not None:
            nodes = np.minimum(resource.nodes, 2.0)
            count = _finest(np.concatenate([nodes[:, self.places].ravel(), resource.launches[self.places]]))
            self.cells = np.floor(nodes * count + _SLACK).astype(np.int64)
            self.launches = np.floor(np.minimum(resource.launches, 2.0) * count + _SLACK).astype(np.int64)
            self.size = count + 1
        self.stages = list(self._stages())

    def _arrivals(self) -> list[float]:
        """Seconds for what comes to each node of the path where the one before it is on another device."""
        problem, path = self.problem, self.spine.path
        first = input_bytes(problem).get(path[0])
        found = [0.0 if first is None else problem.transfer_s(problem.host, self.device, first)]
        for before, node in pairwise(path):
            sent = (problem.values[index] for index in problem.outputs_of[before])
            size = sum(value.size_bytes for value in sent if node in value.consumers)
            sources = {problem.device_of[place] for place in problem.allowed[before]} - {self.device}
            ways = (problem.transfer_s(source, self.device, size) for source in sources)
            found.append(min(ways, default=float("inf")))
        return found

    def _leaving_s(self) -> float:
        """Seconds for the outputs of the path's last node."""
        given = [self.problem.values[v] for v in self.problem.outputs_of[self.spine.path[-1]]]
        sizes = [value.size_bytes for value in given if value.is_output]
        return self.problem.transfer_s(self.device, self.problem.host, sum(sizes)) if sizes else 0.0

    def _stages(self) -> Iterator[_Stage]:
        spine, numbers = self.spine, range(len(self.places))
        arrivals = self._arrivals()
        others = (_AWAY, *(_entered(number) for number in numbers))
        for index in range(len(spine.path)):
            plain = spine.joint[index] and not spine.beside[index]
            yield self._step(index, arrivals[index], plain=plain)
            if plain or not spine.joint[index]:
                continue
            inner = spine.beside[index]
            held = tuple(self._held(number, inner) for number in numbers if self._takes(number, inner))
            yield _Stage((*held, *(_Move(row, row) for row in others)))
            yield from (stage for one in inner for stage in self._option(one, others))
            merged = tuple(_Move(_entered(number), _whole(number)) for number in numbers)
            yield _Stage((_Move(_AWAY, _AWAY), *(_Move(_whole(n), _whole(n)) for n in numbers), *merged))
        every = tuple(range(1 + 2 * len(self.places)))
        yield from (stage for one in spine.apart for stage in self._option(one, every))

    def _takes(self, number: int, nodes: Sequence[int]) -> bool:
        return all(self.places[number] in self.problem.allowed[node] for node in nodes)

    def _held(self, number: int, nodes: tuple[int, ...]) -> _Move:
        """Nodes beside the path that a segment has to hold."""
        place, row = self.places[number], _whole(number)
        chosen = list(nodes)
        return _Move(row, row, int(self.cells[chosen, place].sum()), float(self.seconds[chosen, place].sum()), nodes)

    def _step(self, index: int, arrival_s: float, *, plain: bool) -> _Stage:
        """The next node of the path: elsewhere, in the segment of the node before it, or the first of a segment."""
        node = self.spine.path[index]
        rows = range(1 + 2 * len(self.places))
        moves = [_Move(row, _AWAY) for row in rows]
        leaving_s = self._leaving_s() if index == len(self.spine.path) - 1 else 0.0
        for number, place in enumerate(self.places):
            if not self._takes(number, (node,)):
                continue
            goal = _whole(number) if plain else _entered(number)
            own = float(self.seconds[node, place]) + leaving_s
            taken, launch = int(self.cells[node, place]), int(self.launches[place])
            begun_s = own + self.problem.launch_s[place]
            moves.append(_Move(_AWAY, goal, taken + launch, begun_s + arrival_s, (node,)))
            same = (_whole(number), _entered(number))
            moves.append(_Move(same[0], same[0], taken, own, (node,)))
            moves.append(_Move(same[1], goal, taken, own, (node,)))
            # To stay in a segment is never worse than to begin another on its place, but for what it has to hold.
            again = [row for row in rows if row != _AWAY and (row not in same or (row == same[0] and not plain))]
            moves += [_Move(row, goal, taken + launch, begun_s, (node,)) for row in again]
        return _Stage(tuple(moves))

    def _option(self, node: int, rows: Sequence[int]) -> list[_Stage]:
        """A node that may be taken whatever is on the path, where any place takes it."""
        cells = [int(self.cells[node, place]) for place in self.places if place in self.problem.allowed[node]]
        return [_Stage(tuple(_Move(row, row, min(cells), 0.0, (node,)) for row in rows), open=True)] if cells else []

    def stretches(self) -> Iterator[Holding]:
        """Stretches of the path from each joint on with what is beside them, each twice as long as the one before."""
        spine, path = self.spine, self.spine.path
        arrivals = self._arrivals()
        for number, place in enumerate(self.places):
            for begin in (index for index in range(len(path)) if spine.joint[index]):
                taken, cells = list[int](), int(self.launches[place])
                seconds = self.problem.launch_s[place] + arrivals[begin]
                wanted = 1
                for index in range(begin, len(path)):
                    more = (path[index], *(spine.beside[index] if index > begin else ()))
                    cells += int(self.cells[list(more), place].sum())
                    if cells >= self.size or not self._takes(number, more):
                        break
                    taken += more
                    seconds += float(self.seconds[list(more), place].sum())
                    if spine.joint[index] and len(taken) >= wanted:
                        leaving_s = self._leaving_s() if index == len(path) - 1 else 0.0
                        if seconds + leaving_s < float("inf"):
                            yield Holding(frozenset(taken), seconds + leaving_s)
                        wanted = 2 * len(taken)

    def most(self, worth: Floats) -> tuple[float, Holding]:
        """The most that a set is worth beyond the seconds that it adds, and the set."""
        table = np.full((1 + 2 * len(self.places), self.size), -np.inf)
        table[_AWAY, 0] = 0.0
        passed: list[tuple[_Stage, list[float], Floats]] = []
        for stage in self.stages:
            gains = [float(worth[list(move.nodes)].sum()) - move.seconds if move.nodes else 0.0 for move in stage.moves]
            passed.append((stage, gains, table))
            after = table.copy() if stage.open else np.full_like(table, -np.inf)
            for move, gain in zip(stage.moves, gains, strict=True):
                if move.cells < self.size and gain > -np.inf:
                    goal = after[move.target, move.cells :]
                    np.maximum(goal, table[move.source, : self.size - move.cells] + gain, out=goal)
            table = after
        return float(table.max()), self._read(passed, table)

    def _read(self, passed: Sequence[tuple[_Stage, list[float], Floats]], table: Floats) -> Holding:
        """The set behind the largest value: the moves back to the start."""
        row, cell = (int(number) for number in np.unravel_index(int(table.argmax()), table.shape))
        value = float(table[row, cell])
        taken, seconds = set[int](), 0.0
        for stage, gains, before in reversed(passed):
            if stage.open and before[row, cell] == value:
                continue
            for move, gain in zip(stage.moves, gains, strict=True):
                start = cell - move.cells
                if move.target == row and start >= 0 and before[move.source, start] + gain == value:
                    taken.update(move.nodes)
                    seconds += move.seconds
                    row, cell, value = move.source, start, float(before[move.source, start])
                    break
        return Holding(frozenset(taken), seconds)


def _whole(number: int) -> int:
    """The row of a segment on the device's place `number` that holds the last joint."""
    return 1 + 2 * number


def _entered(number: int) -> int:
    """The row of a segment that began after the last joint."""
    return 2 + 2 * number


def _finest(amounts: Floats) -> int:
    """The number of cells in a whole for which rounding down loses least of all amounts."""
    sizes, counts = np.unique(amounts[(amounts > 0) & (amounts <= 1)], return_counts=True)
    if not len(sizes):
        return 1
    cells = np.array(_CELLS)
    exact = np.outer(cells, sizes)
    lost = ((exact - np.floor(exact + _SLACK)) @ counts) / cells
    return int(cells[lost <= lost.min() + _SLACK][0])
