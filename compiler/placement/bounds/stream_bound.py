"""A lower bound on latency where a device's memory limits what is on it: fast memory that weights are streamed beside,
and all of its memory.

Terms: a *rate* is a price in seconds for a byte of fast memory. At a rate, a node's *charge* on a place is what
streaming its weights takes there, but of each weight at most the rate times its bytes. A device's *allowance* is the
rate times its fast memory.

The idea: the way through the joints (`latency_bound`), with labels. A label is a time and what has been taken of each
device's allowance and memory so far. A step takes the seconds of its block without charges, and of an allowance what
charges add to them; what an allowance does not have is time. A joint takes the bytes of its weights, and where memory
does not have them there is no way; launches are counted in the same way where they are limited. So a way pays for what
it has on a device itself: a multiplier alone (`relaxed_bound`) lets a little of a way with everything on it count
beside another with nothing.

Why it holds, for any placement and rate:

- Of a weight let a part f be streamed, which takes its users f u seconds; u is at most U, that of all its possible
  users. The charge is m u with m = min(1, rate bytes / U), and (m - f) u <= m (1 - f) u <= rate bytes (1 - f): users
  are charged too much by the rate times the bytes that are kept, at most. For any nodes of a device that adds up to
  its allowance at most, because no more than its fast memory is kept.
- A schedule stays one where nodes of a step are made longer and everything after them starts as much later. So a step
  takes at least its block's bound without charges, and its bound with charges less what it is charged too much.
- Over all steps that is the sum without charges, and for each device what charges add beyond its allowance.

Only one device is charged at a step, that of the joint at its end or else at its beginning, and bytes are counted for
joints alone, each weight at the first joint that uses it. Devices that are alike are told apart by what has been taken
from them, so of those with nothing taken only the first is tried. A label is dropped where it cannot lead below what
is known to be reached, by the way back without charges and with parts of them. Where labels become too many,
neighbours are merged into one that is below both; when time is up, few are too many.

Cost, measured at load 3: 0.2 to 4 s a rate for 507 nodes, seven devices and 180 joints; the less is known to be
reached, the longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.bounds.block_bound import Block, BlockTable, Ends, solve_block
from gimlet.compiler.placement.bounds.latency_bound import Joints, LatencyRelaxation, Relaxation, complete
from gimlet.compiler.placement.bounds.stream_ledger import HOST, Floats, Integers, Key, Ledger, rates_of
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.model.segments import carve

_BUDGET = 20_000
_LARGEST_BLOCK = 24
_MOST_LABELS = 256
_FEW_LABELS = 8
"""So many where time is up."""
_PARTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
_CHUNK = 64
_FACTORS = (0.5, 2.0)
_NEAR = 1e-3
_INFINITE = float("inf")


@dataclass(frozen=True)
class StreamBound:
    """No placement is quicker than `seconds`, and one takes `reached_s`. `places` are those that came up on the way."""

    seconds: float
    reached_s: float
    places: tuple[tuple[int, ...], ...] = ()


def stream_bound(
    problem: Problem, relaxation: LatencyRelaxation, best_known: float = _INFINITE, until: float = _INFINITE
) -> StreamBound:
    """The best bound over several rates, at most `best_known`. Of the rules, pins and the cap on segments are used.

    Where neither memory nor a cap can bind nothing is searched. It ends after `until` (of `time.perf_counter`).
    """
    limited = problem.streaming or problem.memory_can_bind or problem.rules.max_segments is not None
    if not problem.nodes or not limited:
        return StreamBound(0.0, best_known)
    return _Climb(problem, relaxation, best_known, until).run()


class _Climb:
    """One rate after another. What a way leads to is judged: what is known to be reached shortens the next search."""

    def __init__(self, problem: Problem, relaxation: LatencyRelaxation, known: float, until: float) -> None:
        self.problem, self.known, self.until = problem, known, until
        choices = range(len(relaxation.choices))
        self.joints = relaxation.joints(next(c for c in choices if relaxation.largest_block(c) <= _LARGEST_BLOCK))
        self.found: dict[float, float] = {}
        self.seen: dict[tuple[int, ...], None] = {}

    def run(self) -> StreamBound:
        rates = rates_of(self.problem)
        for rate in rates:
            self._try(rate)
        for factor in _FACTORS:
            middle = max(self.found, key=lambda rate: self.found[rate])
            if 0 < middle * factor <= rates[-1]:
                self._try(middle * factor)
        return StreamBound(min(self._best(), self.known), self.known, tuple(self.seen))

    def _best(self) -> float:
        return max(self.found.values(), default=0.0)

    def _try(self, rate: float) -> None:
        late = bool(self.found) and perf_counter() > self.until
        if rate in self.found or late or self._best() >= self.known * (1 - _NEAR):
            return
        labels = _Labels(Ledger(self.problem, rate), self.joints, self.known, self.until)
        self.found[rate] = labels.run()
        for place in labels.suggestions():
            self.seen[place] = None
            judged = carve(self.problem, place)
            if not judged.excess:
                self.known = min(self.known, judged.schedule.latency_s)


@dataclass(frozen=True)
class _Way:
    """A step from place to place: its seconds without charges, and what it takes of an allowance.

    `same` says that it stays on the device. The column is -1 where nothing is taken. `counted` are columns and amounts
    of what there must be enough of.
    """

    start: Key
    end: Key
    ends: Ends
    same: bool
    seconds: float
    taken_s: float
    time_column: int
    counted: tuple[tuple[int, float], ...]
    inner: tuple[int, ...]


@dataclass
class _Some:
    """Labels at one place: seconds, what has been taken, and (way, row, position) of where they come from."""

    seconds: Floats
    taken: Floats
    origin: Integers


class _Labels:
    """The way through the joints at one rate."""

    def __init__(self, ledger: Ledger, joints: Joints, known: float, until: float) -> None:
        self.ledger, self.joints, self.known, self.until = ledger, joints, known, until
        self.problem = ledger.problem
        self.trail: list[tuple[list[_Way], dict[Key, _Some]]] = []

    @cached_property
    def keys(self) -> list[Key]:
        ledger = self.ledger
        return [Key(kind, n) for kind in range(len(ledger.classes)) for n in range(len(ledger.places(kind)))]

    @cached_property
    def bytes_of(self) -> dict[int, list[int]]:
        """For each joint the weights that it is the first joint to use."""
        found: dict[int, list[int]] = {}
        joints = set(self.joints.nodes)
        for number, weight in enumerate(self.problem.weights):
            user = next((user for user in weight.users if user in joints), None)
            if user is not None:
                found.setdefault(user, []).append(number)
        return found

    @cached_property
    def steps(self) -> list[list[_Way]]:
        """The ways of each step."""
        ledger, problem = self.ledger, self.problem
        tables = {-1: self._table(problem)}
        for kind, members in enumerate(ledger.classes):
            if ledger.streams(members[0]):
                tables[kind] = self._table(ledger.charged(members[0]))
        return [list(self._ways(step, tables)) for step in range(len(self.joints.inner))]

    def _table(self, problem: Problem) -> BlockTable:
        zero = [[0.0] * len(problem.places) for _ in problem.nodes]
        return BlockTable(Relaxation(problem).seconds, problem, zero, _BUDGET, self.until)

    def _ways(self, step: int, tables: dict[int, BlockTable]) -> Iterator[_Way]:
        joints, ledger = self.joints, self.ledger
        block = joints.block(step)
        open_ends = set(joints.ends(step))
        before = set(joints.ends(step - 1)) if step else {-1}
        for start in self.keys if step else [HOST]:
            for end in self.keys if step < len(joints.nodes) else [HOST]:
                for same in (True, False) if start.kind == end.kind >= 0 else (False,):
                    ends = self._ends(start, end, same)
                    if ends is None or ends.first not in before or ends.last not in open_ends:
                        continue
                    seconds, inner = solve_block(tables[-1], block, ends)
                    if seconds == _INFINITE:
                        continue
                    charged = next((key.kind for key in (end, start) if key.kind in tables and key.kind >= 0), -1)
                    taken_s = 0.0
                    if charged >= 0:
                        slow, inner = solve_block(tables[charged], block, ends)
                        taken_s = max(slow - seconds, 0.0)
                    counted = (*self._bytes(end, block.last), *self._launches(block, ends))
                    time_column = ledger.first[charged] if charged >= 0 else -1
                    yield _Way(start, end, ends, same, seconds, taken_s, time_column, counted, inner)

    def _ends(self, start: Key, end: Key, same: bool) -> Ends | None:
        """The places of a step. The last is on the first member of its class; None where there is no second member."""
        ledger = self.ledger
        first = last = -1
        if end is not HOST:
            last = ledger.places(end.kind)[end.place]
        if start is not HOST:
            member = int(start.kind == end.kind and not same)
            if member >= len(ledger.classes[start.kind]):
                return None
            first = ledger.places(start.kind, member)[start.place]
        return Ends(first, last)

    def _bytes(self, end: Key, joint: int) -> Iterator[tuple[int, float]]:
        """The column of a device's memory and what a joint takes of it."""
        ledger = self.ledger
        weights = self.bytes_of.get(joint, ())
        if end is HOST or not weights:
            return
        first, width = ledger.first[end.kind], ledger.width[end.kind]
        place = ledger.places(end.kind)[end.place]
        for column in range(first, first + width):
            if not ledger.is_time[column]:
                yield column, float(sum(self.problem.weights[w].size_bytes.get(place, 0) for w in weights))

    def _launches(self, block: Block, ends: Ends) -> Iterator[tuple[int, float]]:
        """The column of launches and how many more there are: along joints segments only follow on each other.

        A node that neither end's place takes is in a segment between theirs.
        """
        if self.ledger.segments < 0:
            return
        near = {ends.first, ends.last}
        between = any(near.isdisjoint(self.problem.allowed[node]) for node in block.inner)
        yield self.ledger.segments, float(between + (ends.last >= 0 and (between or ends.first != ends.last)))

    def run(self) -> float:
        """The bound in seconds; infinite where no way below what is known is left."""
        back = self._back()
        columns = len(self.ledger.limit)
        labels = {HOST: _Some(np.zeros(1), np.zeros((1, columns)), np.full((1, 3), -1))}
        for number, ways in enumerate(self.steps):
            following: dict[Key, list[_Some]] = {}
            for index, way in enumerate(ways):
                if way.end not in back[number + 1]:
                    continue
                for some in self._taken(labels.get(way.start), index, way, back[number + 1][way.end]):
                    following.setdefault(way.end, []).append(some)
            most = _MOST_LABELS if perf_counter() <= self.until else _FEW_LABELS
            labels = {end: _fewer(found, most) for end, found in following.items()}
            self.trail.append((ways, labels))
        left = labels.get(HOST)
        return _INFINITE if left is None else float(left.seconds.min())

    def _back(self) -> list[dict[Key, Floats]]:
        """The least seconds from each place to the end, with each of `_PARTS` of charges."""
        parts = np.array(_PARTS)
        back: list[dict[Key, Floats]] = [{HOST: np.zeros(len(parts))}]
        for ways in reversed(self.steps):
            here: dict[Key, Floats] = {}
            for way in ways:
                if way.end in back[-1]:
                    total = back[-1][way.end] + way.seconds + parts * way.taken_s
                    here[way.start] = np.minimum(here.get(way.start, total), total)
            back.append(here)
        return back[::-1]

    def _taken(self, labels: _Some | None, index: int, way: _Way, back: Floats) -> Iterator[_Some]:
        """What becomes of labels on a way, for each member of the class that it may lead to."""
        if labels is None:
            return
        for position, rows in self._members(labels, way):
            taken = labels.taken[rows]
            if position:
                taken = taken[:, self.ledger.swapped(way.end.kind, position)]
            seconds = labels.seconds[rows] + way.seconds
            if way.time_column >= 0 and way.taken_s:
                column = taken[:, way.time_column] + way.taken_s
                limit = self.ledger.limit[way.time_column]
                seconds = seconds + np.maximum(column - limit, 0.0)
                taken[:, way.time_column] = np.minimum(column, limit)
            kept = np.ones(len(seconds), dtype=bool)
            for column, amount in way.counted:
                taken[:, column] += amount
                kept &= taken[:, column] <= self.ledger.limit[column] * (1 + 1e-9)
            kept &= self._least(seconds, taken, back) < self.known * (1 - 1e-9)
            if kept.any():
                origin = np.stack([np.full_like(rows, index), rows, np.full_like(rows, position)], axis=1)
                yield _Some(seconds[kept], taken[kept], origin[kept])

    def _members(self, labels: _Some, way: _Way) -> Iterator[tuple[int, Integers]]:
        """Positions of the member that a way may lead to, and the labels for which it may."""
        ledger, every = self.ledger, np.arange(len(labels.seconds))
        kind = way.end.kind
        if way.same or kind < 0 or (way.start.kind != kind and not ledger.width[kind]):
            yield 0, every
            return
        if not ledger.width[kind]:
            yield 1, every
            return
        leaves = way.start.kind == kind
        all_used = np.ones(len(every), dtype=bool)
        for position in range(len(ledger.classes[kind])):
            if position == 0 and leaves:
                continue
            unused = ledger.untouched(labels.taken, kind, position)
            rows = every[~unused | all_used]
            if len(rows):
                yield position, rows
            all_used &= ~unused

    def _least(self, seconds: Floats, taken: Floats, back: Floats) -> Floats:
        """The least that a label can still lead to."""
        is_time = self.ledger.is_time
        left = (self.ledger.limit[is_time] - taken[:, is_time]).sum(axis=1)
        parts = np.array(_PARTS)
        return seconds + (back[None, :] - left[:, None] * parts[None, :]).max(axis=1)

    def suggestions(self) -> list[tuple[int, ...]]:
        """The placement of the best way, where there is one."""
        if not self.trail or HOST not in self.trail[-1][1]:
            return []
        row = int(self.trail[-1][1][HOST].seconds.argmin())
        key, path = HOST, list[tuple[_Way, int]]()
        for ways, labels in reversed(self.trail):
            index, row, position = (int(number) for number in labels[key].origin[row])
            path.append((ways[index], position))
            key = ways[index].start
        place = [-1] * len(self.problem.nodes)
        members = [list(range(len(found))) for found in self.ledger.classes]
        for step, (way, position) in enumerate(reversed(path)):
            kind = way.end.kind
            if kind >= 0:
                order = members[kind]
                order[0], order[position] = order[position], order[0]
            nodes = [*self.joints.inner[step], *self.joints.nodes[step : step + 1]]
            chosen_here = [*way.inner, *([way.ends.last] if kind >= 0 else ())]
            for node, chosen in zip(nodes, chosen_here, strict=True):
                place[node] = self._actual(chosen, members, way, position)
        return [complete(self.problem, place)]

    def _actual(self, place: int, members: Sequence[Sequence[int]], way: _Way, position: int) -> int:
        """The place of a member of a class in use where a step's own places begin with the first members."""
        ledger, device = self.ledger, self.problem.device_of[place]
        kind = next(n for n, found in enumerate(ledger.classes) if device in found)
        member = ledger.classes[kind].index(device)
        order = list(members[kind])
        if kind == way.start.kind == way.end.kind and not way.same:
            # The second member is the one that is left.
            order[1], order[position] = order[position], order[1]
        return ledger.places(kind, order[member])[ledger.places(kind, member).index(place)]


def _fewer(found: Sequence[_Some], most: int) -> _Some:
    """The labels that none other is below in everything, at most `most`."""
    seconds = np.concatenate([some.seconds for some in found])
    taken = np.concatenate([some.taken for some in found])
    origin = np.concatenate([some.origin for some in found])
    order = np.lexsort((taken.sum(axis=1), seconds))
    seconds, taken, origin = seconds[order], taken[order], origin[order]
    kept = _undominated(seconds, taken)
    seconds, taken, origin = seconds[kept], taken[kept], origin[kept]
    if len(seconds) <= most:
        return _Some(seconds, taken, origin)
    starts = np.linspace(0, len(seconds), most, endpoint=False).astype(np.int64)
    return _Some(seconds[starts], np.minimum.reduceat(taken, starts, axis=0), origin[starts])


def _undominated(seconds: Floats, taken: Floats) -> NDArray[np.bool_]:
    """Which rows no earlier row is below or equal to in everything. Rows are in the order of their seconds."""
    kept = np.zeros(len(seconds), dtype=bool)
    for start in range(0, len(seconds), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(seconds)))
        earlier = taken[:start][kept[:start]]
        rows = rows[~np.any(np.all(earlier[None] <= taken[rows, None], axis=2), axis=1)]
        own = taken[rows]
        below = np.all(own[None] <= own[:, None], axis=2) & np.tri(len(rows), k=-1, dtype=bool)
        kept[rows[~np.any(below, axis=1)]] = True
    return kept
