"""The heaviest set of nodes that one device can do within a period, for any weights of the nodes.

The set is sought along a path through the graph (`spine.py`), by dynamic programming over how much of the period is
taken. No set that a device has in a placement of at most that period is left out, because all that is charged is paid:

- a launch for each stretch of the path that is on the device, since no segment has two of them; and one launch at least
  where there is anything;
- in a stretch from joint to joint all nodes beside the path, which its segment has to hold; others are taken or left,
  and are charged without a launch;
- a node less all that fusion saves there, except with the node before it on the path where a stretch begins;
- of streamed weights the price of their bytes, or streaming them where that is less, on a period that is longer by the
  price of all fast memory: a weight that is kept takes its bytes of it.

Seconds are counted in whole cells, rounded down: of a stretch as a whole, which costs it less than two cells too many,
so its launch is two cells shorter. What a launch of less than two cells could not pay for is rounded node by node.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.bounds.spine import Spine
from gimlet.compiler.placement.model.problem import Problem

Weights = NDArray[np.float64]
CELLS = 2000
"""In a period that is tried."""
_MARGIN = 1e-7
"""By how much the nodes must outweigh the devices' sets, as a part of their weight."""
_SLACK = 1e-6
"""Cells by which sums of floating-point numbers may be off."""
_READY, _AWAY = 0, 1
"""Rows: one launch is paid and nothing on the path taken yet; the last node of the path is elsewhere."""


def _whole(number: int) -> int:
    """The row of a segment on the device's place `number` that holds the last joint."""
    return 2 + 2 * number


def _entered(number: int) -> int:
    """The row of a segment that began after the last joint."""
    return 3 + 2 * number


@dataclass(frozen=True)
class Prices:
    """What a linear program says each node is worth, and by device the seconds that a byte of fast memory is."""

    nodes: Sequence[float]
    fast_byte_s: Mapping[int, float]


@dataclass(frozen=True)
class _Move:
    """From a row to a row, so many cells later; `takes` says that the stage's nodes are taken."""

    source: int
    target: int
    cells: int
    takes: bool = False


@dataclass(frozen=True)
class _Stage:
    """Nodes that are decided together: rows in `left` do not stay as they are, and moves lead to them."""

    nodes: tuple[int, ...]
    left: tuple[int, ...]
    moves: tuple[_Move, ...]


@dataclass(frozen=True)
class NodeSet:
    """A set of nodes, and the cells that it takes at least."""

    nodes: frozenset[int]
    cells: int


class DeviceSets:
    """Sets that a device can do within `period_s`, in `cells` of equal length; `price` is seconds a fast byte."""

    def __init__(
        self, problem: Problem, spine: Spine, device: int, period_s: float, cells: int, price: float = 0.0
    ) -> None:
        self.problem, self.spine = problem, spine
        self.places = [place for place, on in enumerate(problem.device_of) if on == device]
        self.cell_s = period_s / cells
        self.streams = device in problem.streaming
        self.price = price if self.streams else 0.0
        self.charge = self._charges()
        self.saved, self.with_former = self._savings()
        room = float(problem.devices[device].fast_bytes or 0) if self.streams else 0.0
        # Where fusion would save more than a node takes, the node counts as nothing and the period as longer.
        over = [max(s - problem.nodes[n].options[p].seconds, 0.0) for (n, p), s in self.saved.items()]
        self.spare_s = self.price * room + sum(over)
        self.size = self._budget(period_s) + 1
        launches = [int(problem.launch_s[place] / self.cell_s) for place in self.places]
        self.prompt = [launch < 2 for launch in launches]
        self.launches = [launch if launch < 2 else launch - 2 for launch in launches]
        self.first = min(self.launches, default=0)
        self.stages = self._stages()

    def _budget(self, period_s: float) -> int:
        return int((period_s + self.spare_s) / self.cell_s + _SLACK)

    def _charges(self) -> dict[tuple[int, int], float]:
        """Seconds by node and place for streamed weights, each user of a weight with its part of the price."""
        found: dict[tuple[int, int], float] = {}
        for weight in self.problem.weights if self.streams else ():
            for place in self.places:
                dearest = self.price * weight.size_bytes.get(place, 0) / max(len(weight.users), 1)
                for user in weight.users:
                    seconds = min(weight.streaming_s(user, place), dearest)
                    found[user, place] = found.get((user, place), 0.0) + seconds
        return found

    def _savings(self) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]]:
        """What fusion saves of a consumer by place: in all, and with the node before it on the path."""
        former = dict(pairwise(self.spine.path))
        saved: dict[tuple[int, int], float] = {}
        with_former: dict[tuple[int, int], float] = {}
        for fusion in self.problem.fusions:
            for place in self.places:
                node, seconds = fusion.consumer, fusion.seconds.get(place, 0.0)
                if not seconds or place not in self.problem.allowed[node]:
                    continue
                saved[node, place] = saved.get((node, place), 0.0) + seconds
                if former.get(fusion.producer) == node:
                    with_former[node, place] = with_former.get((node, place), 0.0) + seconds
        return saved, with_former

    def _seconds(self, node: int, place: int) -> float:
        """What a node takes at least; infinite where it may not be."""
        least = float(self.problem.seconds[node, place]) - self.saved.get((node, place), 0.0)
        return max(least, 0.0) + self.charge.get((node, place), 0.0)

    def _cells(self, seconds: Sequence[float], *, prompt: bool) -> list[int | None]:
        """Cells of consecutive amounts; None where an amount is infinite."""
        finite = [0.0 if amount == float("inf") else amount / self.cell_s for amount in seconds]
        ends = [int(amount) for amount in accumulate(finite, initial=0.0)]
        rounded = [int(amount) for amount in finite] if prompt else [end - start for start, end in pairwise(ends)]
        return [None if amount == float("inf") else r for amount, r in zip(seconds, rounded, strict=True)]

    def _stages(self) -> list[_Stage]:
        spine = self.spine
        rows = range(len(self.places))
        alone: list[list[int | None]] = []
        together: list[list[int | None]] = []
        for number, place in enumerate(self.places):
            prompt = self.prompt[number]
            alone.append(self._cells([self._seconds(node, place) for node in spine.path], prompt=prompt))
            sums = [sum(self._seconds(node, place) for node in nodes) for nodes in spine.beside]
            together.append(self._cells(sums, prompt=prompt))
        stages: list[_Stage] = []
        for index, node in enumerate(spine.path):
            plain = spine.joint[index] and not spine.beside[index]
            at_joint = index == 0 or spine.joint[index - 1]
            before = tuple(row for n in rows for row in ((_whole(n),) if at_joint else (_whole(n), _entered(n))))
            stages.append(self._step(node, [cells[index] for cells in alone], before, plain=plain))
            if plain or not spine.joint[index]:
                continue
            wholes = tuple(_whole(number) for number in rows)
            held = [(_whole(number), together[number][index]) for number in rows]
            moves = tuple(_Move(row, row, cells, takes=True) for row, cells in held if cells is not None)
            stages.append(_Stage(spine.beside[index], wholes, moves))
            others = (_READY, _AWAY, *(_entered(number) for number in rows))
            stages += [stage for one in spine.beside[index] for stage in self._option(one, others)]
            merged = tuple(_Move(_entered(number), _whole(number), 0) for number in rows)
            stages.append(_Stage((), tuple(_entered(number) for number in rows), merged))
        every = tuple(range(2 + 2 * len(self.places)))
        return [*stages, *(stage for one in spine.apart for stage in self._option(one, every))]

    def stretches(self, every: int) -> list[NodeSet]:
        """Sets that are one stretch of the path with what is beside it, as long as it may be, from many beginnings."""
        spine = self.spine
        joints = [index for index in range(len(spine.path)) if spine.joint[index]]
        never_s = 2 * self.size * self.cell_s
        found: list[NodeSet] = []
        for number, place in enumerate(self.places):
            more = [
                min(sum(self._seconds(one, place) for one in (node, *beside)), never_s)
                for node, beside in zip(spine.path, spine.beside, strict=True)
            ]
            until = [0.0, *accumulate(more)]
            ends = [until[joint + 1] for joint in joints]
            longest_s = (self.size - 1 - self.launches[number]) * self.cell_s
            for begin in joints[::every]:
                last = bisect_right(ends, until[begin] + longest_s) - 1
                if last < 0 or joints[last] < begin:
                    continue
                end = joints[last] + 1
                inside = {*spine.path[begin:end], *(one for beside in spine.beside[begin + 1 : end] for one in beside)}
                cells = int((until[end] - until[begin]) / self.cell_s) + self.launches[number]
                found.append(NodeSet(frozenset(inside), cells))
        return found

    def _step(self, node: int, cells: Sequence[int | None], before: Sequence[int], *, plain: bool) -> _Stage:
        """The next node of the path: elsewhere, in the segment of the node before it, or the first of a segment.

        `before` are the rows that the node before it can be in on this device.
        """
        moves = [_Move(row, _AWAY, 0) for row in before]
        for number, place in enumerate(self.places):
            more = cells[number]
            if more is None:
                continue
            whole, entered = _whole(number), _entered(number)
            goal = whole if plain else entered
            same = [row for row in (whole, entered) if row in before]
            moves += [_Move(row, whole if row == whole else goal, more, takes=True) for row in same]
            shared = self.with_former.get((node, place), 0.0)
            least = float(self.problem.seconds[node, place]) - self.saved.get((node, place), 0.0)
            begun = more + int((max(least + shared, 0.0) - max(least, 0.0)) / self.cell_s)
            moves.append(_Move(_READY, goal, begun + self.launches[number] - self.first, takes=True))
            # To stay in the segment is never longer than to begin another on the same place.
            others = [row for row in (_AWAY, *before) if row not in same or (row == whole and not plain)]
            moves += [_Move(row, goal, begun + self.launches[number], takes=True) for row in others]
        return _Stage((node,), tuple(range(2, 2 + 2 * len(self.places))), tuple(moves))

    def _option(self, node: int, rows: Sequence[int]) -> list[_Stage]:
        """A node that may be taken whatever is on the path, where any place takes it."""
        least = min((self._seconds(node, place) for place in self.places), default=float("inf"))
        if least == float("inf"):
            return []
        cells = int(least / self.cell_s)
        return [_Stage((node,), (), tuple(_Move(row, row, cells, takes=True) for row in rows))]

    def most(self, weights: Weights) -> tuple[Weights, NodeSet]:
        """The most weight within each number of cells, and the set that has the most of all."""
        table = np.full((2 + 2 * len(self.places), self.size), -np.inf)
        if self.first < self.size:
            table[_READY, self.first :] = 0.0
        passed: list[tuple[_Stage, float, NDArray[np.float64]]] = []
        for stage in self.stages:
            gain = float(sum(weights[node] for node in stage.nodes))
            if gain <= 0 and not stage.left:
                continue
            passed.append((stage, gain, table))
            table = self._after(stage, gain, table)
        best = np.maximum.accumulate(np.maximum(table.max(axis=0), 0.0))
        return best, self._read(passed, table, float(best[-1]))

    def _after(self, stage: _Stage, gain: float, before: NDArray[np.float64]) -> NDArray[np.float64]:
        table = before.copy()
        if stage.left:
            table[list(stage.left)] = -np.inf
        for move in stage.moves:
            if move.cells >= self.size:
                continue
            source = before[move.source, : self.size - move.cells]
            goal = table[move.target, move.cells :]
            np.maximum(goal, source + gain if move.takes else source, out=goal)
        return table

    def _read(
        self, passed: Sequence[tuple[_Stage, float, NDArray[np.float64]]], table: NDArray[np.float64], most: float
    ) -> NodeSet:
        """The set behind the largest value: the moves back to the start."""
        if most <= 0:
            return NodeSet(frozenset(), 0)
        cell = int(np.argmax(table.max(axis=0) >= most))
        row, value, used = int(np.argmax(table[:, cell])), most, cell
        taken: set[int] = set()
        for stage, gain, before in reversed(passed):
            if row not in stage.left and before[row, cell] == value:
                continue
            for move in stage.moves:
                start = cell - move.cells
                if move.target != row or start < 0:
                    continue
                earlier = float(before[move.source, start])
                if (earlier + gain if move.takes else earlier) == value:
                    taken.update(stage.nodes if move.takes else ())
                    row, cell, value = move.source, start, earlier
                    break
        return NodeSet(frozenset(taken), used)

    def within(self, best: Weights, period_s: float) -> float:
        """The most weight of what `most` found that a shorter period allows."""
        return float(best[min(self._budget(period_s), len(best) - 1)])


def missed_period(
    classes: Sequence[Sequence[int]],
    sets: Sequence[DeviceSets],
    best: Sequence[Weights],
    weights: Weights,
    period_s: float,
) -> float:
    """The longest period, in cells of `period_s`, for which nodes of these weights are too much for the devices.

    `best` is by class what `most` found; all `period_s` where even that is too short.
    """
    enough = float(weights.sum()) * (1 - _MARGIN)

    def possible(cells: int) -> bool:
        within = period_s if cells == CELLS else cells * period_s / CELLS
        return sum(len(m) * s.within(b, within) for m, s, b in zip(classes, sets, best, strict=True)) >= enough

    if not possible(CELLS):
        return period_s
    low, high = 0, CELLS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if possible(middle) else (middle, high)
    return low * period_s / CELLS
