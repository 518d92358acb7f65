"""The least of any price that a placement pays whose latency keeps a limit: a path of segments with its time on a grid.

The graph is seen as a path with other nodes beside it (`spine.py`). The segments that have the path's nodes follow each
other, so what they take and what moves them apart adds up to no more than the latency. A segment that holds two joints
of the path holds all nodes between them as well: they count in its time, and at its place's price. Elsewhere nodes
beside the path take no time, and their least price. Dynamic programming over the path, with the time that has passed
in cells, gives the least price within each time.

Unlike a linear program, it splits no detour: a way to another device and back takes its launches and transfers whole,
or is not taken. Times are rounded down: a segment's by two cells at most, however many nodes it has. The cost is
proportional to nodes on the path, cells and the square of places: 20 to 60 ms for 150 to 300 nodes, measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.bounds.input_batches import input_bytes
from gimlet.compiler.placement.bounds.latency_bound import complete
from gimlet.compiler.placement.bounds.spine import Spine, heaviest_path
from gimlet.compiler.placement.model.problem import Problem

Floats = NDArray[np.float64]
_CELLS = 1000
_FRESH, _WHOLE = 0, 1
"""Whether a segment has begun after the last joint of the path, or holds that."""


@dataclass(frozen=True)
class Way:
    """A path that is quick enough: its price, the node's places that it counts, launches by place, and a placement."""

    price: float
    counted: NDArray[np.int64]
    launches: NDArray[np.int64]
    place: tuple[int, ...]


class TimedPath:
    """The path of a problem for placements with a latency of at most `limit_s`.

    `places` are those that the path may be on. Going from a place to another of the same number of a class of devices
    is a new segment there without a transfer, so one device of each class is enough.
    """

    def __init__(self, problem: Problem, places: Sequence[int], limit_s: float) -> None:
        self.problem, self.places = problem, list(places)
        self.spine = Spine(problem, heaviest_path(problem))
        self.cell_s = limit_s / _CELLS
        self.seconds: Floats = problem.fused_seconds
        path, beside = self.spine.path, self.spine.beside
        self.on_path = self.seconds[np.ix_(path, self.places)].T
        self.beside = np.array([self.seconds[np.ix_(nodes, self.places)].sum(axis=0) for nodes in beside]).T
        self.allowed = np.isfinite(self.on_path)
        self.spans = np.isfinite(self.beside)
        alone = np.where(self.allowed, self.on_path, 0.0)
        self.alone_s = alone.cumsum(axis=1)
        self.together_s = (alone + np.where(self.spans, self.beside, 0.0)).cumsum(axis=1)
        self.alone, self.together = self._cells(self.alone_s), self._cells(self.together_s)
        ends = [step if joint else len(path) for step, joint in enumerate(self.spine.joint)]
        self.next_joint = np.minimum.accumulate(np.array(ends)[::-1])[::-1]
        # How many steps so far the place does not take, and how many that have nodes beside them which it does not.
        self.blocked = np.stack([(~self.allowed).cumsum(axis=1), (~self.spans).cumsum(axis=1)], axis=1)
        self.hops_s = self._hops()
        self.hops = self._cells(self.hops_s)
        # What the rounding of a segment may add to it: its beginning, and where it has the first joint.
        self.hops[:-1] -= 2

    def _cells(self, seconds: Floats) -> NDArray[np.int64]:
        return np.floor(np.minimum(seconds / self.cell_s, 4.0 * _CELLS)).astype(np.int64)

    def _hops(self) -> Floats:
        """Seconds by step, place before and place: a transfer and a launch.

        The first row of a step, of the host, counts before the first node; the last step is the way to the host.
        """
        problem, path = self.problem, self.spine.path
        sizes: list[int | None] = [input_bytes(problem).get(path[0])]
        for before, node in pairwise(path):
            sent = (problem.values[index] for index in problem.outputs_of[before])
            sizes.append(sum(value.size_bytes for value in sent if node in value.consumers))
        outputs = [problem.values[v] for v in problem.outputs_of[path[-1]]]
        given = sum(value.size_bytes for value in outputs if value.is_output)
        hops = np.zeros((len(sizes) + 1, len(self.places) + 1, len(self.places)))
        launch = np.array([problem.launch_s[place] for place in self.places])
        for row, source in enumerate([problem.host, *(problem.device_of[place] for place in self.places)]):
            for column, place in enumerate(self.places):
                target = problem.device_of[place]
                for step, size in enumerate(sizes):
                    transfer = 0.0 if size is None else problem.transfer_s(source, target, size)
                    hops[step, row, column] = launch[column] + transfer
        for column, place in enumerate(self.places):
            if any(value.is_output for value in outputs):
                hops[-1, 0, column] = problem.transfer_s(problem.device_of[place], problem.host, given)
        return hops

    def quickest(self, period_s: float) -> tuple[float, list[tuple[int, int, int]]]:
        """The least latency of paths whose segments each take at most so long, and the segments of one.

        A segment is its first and last step of the path, and its place. The latency is infinite where there is none.
        """
        length, count = len(self.spine.path), len(self.places)
        room = period_s - np.array([self.problem.launch_s[place] for place in self.places])
        begun = np.full((length, count), np.inf)
        source = np.zeros((length, count), dtype=np.int64)
        ended = np.full((length, count), np.inf)
        first = np.zeros((length, count), dtype=np.int64)
        begun[0] = self.hops_s[0, 0]
        for step in range(length):
            if step:
                ways = ended[step - 1][:, None] + self.hops_s[step, 1:]
                begun[step], source[step] = ways.min(axis=0), ways.argmin(axis=0)
            for place in range(count):
                taken = self._taken(step, place)
                ends = np.where(taken <= room[place], begun[: step + 1, place] + taken, np.inf)
                first[step, place] = ends.argmin()
                ended[step, place] = ends[first[step, place]]
        last = ended[-1] + self.hops_s[-1, 0]
        place, step, segments = int(last.argmin()), length - 1, list[tuple[int, int, int]]()
        latency = float(last[place])
        while step >= 0 and latency < np.inf:
            begins = int(first[step, place])
            segments.append((begins, step, place))
            step, place = begins - 1, int(source[begins, place])
        return latency, segments[::-1]

    def _taken(self, last: int, place: int) -> Floats:
        """Seconds of a segment on a place to a step of the path from each step before; infinite where it cannot be."""
        firsts = np.arange(last + 1)
        joints = self.next_joint[: last + 1]
        before = np.where(firsts > 0, self.alone_s[place, firsts - 1], 0.0)
        inside = np.minimum(joints, last)
        taken = self.alone_s[place, inside] - before
        taken = taken + np.where(joints <= last, self.together_s[place, last] - self.together_s[place, inside], 0.0)
        blocked = self.blocked[place]
        shut = (blocked[0, last] > np.where(firsts > 0, blocked[0, firsts - 1], 0)) | (
            (joints <= last) & (blocked[1, last] > blocked[1, inside])
        )
        return np.where(shut, np.inf, taken)

    def least(self, prices: Floats, launches: Floats) -> Way | None:
        """The path of the least price, None where none is quick enough.

        `prices` is by node and place of the problem, infinite where not allowed; `launches` by place.
        """
        path, beside = self.spine.path, self.spine.beside
        least = prices.min(axis=1)
        nodes = prices[np.ix_(path, self.places)].T
        spanned = np.array([prices[np.ix_(inner, self.places)].sum(axis=0) for inner in beside]).T
        apart = [float(least[list(inner)].sum()) for inner in beside]
        count = len(self.places)
        here = np.full((count, 2, _CELLS + 1), np.inf)
        trail = np.full((len(path), count, 2, _CELLS + 1), -1, dtype=np.int16)
        for step in range(len(path)):
            joint = self.spine.joint[step]
            after = np.full_like(here, np.inf)
            for place in range(count):
                if not self.allowed[place, step]:
                    continue
                fresh = self._entered(step, place, here, trail) if step else self._begun(place)
                fresh = fresh + launches[self.places[place]] + nodes[place, step] + (apart[step] if joint else 0.0)
                after[place, _WHOLE if joint else _FRESH] = fresh
                for flag in (_FRESH, _WHOLE) if step else ():
                    whole = flag == _WHOLE
                    goal = _WHOLE if joint else flag
                    if whole and joint and not self.spans[place, step]:
                        continue
                    kept = _later(here[place, flag], self._stay(step, place, whole=whole)) + nodes[place, step]
                    if joint:
                        kept = kept + (spanned[place, step] if whole else apart[step])
                    better = kept < after[place, goal]
                    after[place, goal][better] = kept[better]
                    trail[step, place, goal][better] = 2 * count + 2 * place + flag
            here = after
        here = np.stack([_later_pair(here[place], int(self.hops[-1, 0, place])) for place in range(count)])
        found = float(here[:, :, -1].min()) + float(least[list(self.spine.apart)].sum())
        return self._way(found, prices, here, trail) if found < np.inf else None

    def _stay(self, step: int, place: int, *, whole: bool) -> int:
        row = (self.together if whole else self.alone)[place]
        # The nodes beside the path end with the joint, so a fresh segment has none of them.
        return int(row[step] - row[step - 1])

    def _begun(self, place: int) -> Floats:
        start = np.zeros(_CELLS + 1)
        return _later(start, int(self.hops[0, 0, place]) + int(self.alone[place, 0]))

    def _entered(self, step: int, place: int, here: Floats, trail: NDArray[np.int16]) -> Floats:
        """A new segment on `place` from the best place before, for each time; notes which."""
        goal = _WHOLE if self.spine.joint[step] else _FRESH
        own = int(self.alone[place, step] - self.alone[place, step - 1])
        best = np.full(_CELLS + 1, np.inf)
        for before in range(len(self.places)):
            for flag in (_FRESH, _WHOLE):
                moved = _later(here[before, flag], own + int(self.hops[step, 1 + before, place]))
                better = moved < best
                best[better] = moved[better]
                trail[step, place, goal][better] = 2 * before + flag
        return best

    def _way(self, price: float, prices: Floats, ends: Floats, trail: NDArray[np.int16]) -> Way:
        count, chosen = len(self.places), [-1] * len(self.problem.nodes)
        launched = np.zeros(len(self.problem.places), dtype=np.int64)
        place, flag = (int(index) for index in np.unravel_index(int(ends[:, :, -1].argmin()), ends.shape[:2]))
        time = min(_CELLS - int(self.hops[-1, 0, place]), _CELLS)
        for step in reversed(range(len(self.spine.path))):
            chosen[self.spine.path[step]] = self.places[place]
            if not step:
                launched[self.places[place]] += 1
                break
            stays, code = divmod(int(trail[step, place, flag, time]), 2 * count)
            before, came = divmod(code, 2)
            if stays:
                time -= self._stay(step, place, whole=came == _WHOLE)
                for node in self.spine.beside[step] if came == _WHOLE else ():
                    chosen[node] = self.places[place]
            else:
                launched[self.places[place]] += 1
                time -= int(self.alone[place, step] - self.alone[place, step - 1])
                time -= int(self.hops[step, 1 + before, place])
            place, flag, time = before, came, min(time, _CELLS)
        counted = np.where(np.array(chosen) >= 0, chosen, prices.argmin(axis=1))
        return Way(price, counted, launched, complete(self.problem, chosen))

    def placed(self, segments: Sequence[tuple[int, int, int]], members: Mapping[int, Sequence[int]]) -> tuple[int, ...]:
        """A placement with these segments. `members` has the places alike one, of which the least busy takes it."""
        chosen = [-1] * len(self.problem.nodes)
        busy: dict[int, float] = {}
        for first, last, place in segments:
            own = self.places[place]
            goal = min(members[own], key=lambda each: busy.get(each, 0.0))
            busy[goal] = busy.get(goal, 0.0) + self.problem.launch_s[own] + float(self._taken(last, place)[first])
            for step in range(first, last + 1):
                chosen[self.spine.path[step]] = goal
                for node in self.spine.beside[step] if step > self.next_joint[first] else ():
                    chosen[node] = goal
        return complete(self.problem, chosen)


def _later(values: Floats, cells: int) -> Floats:
    """What was reached within each time, so many cells later."""
    if cells <= 0:
        return np.concatenate([values[-cells:], np.full(-cells, values[-1])]) if cells else values
    if cells > _CELLS:
        return np.full_like(values, np.inf)
    return np.concatenate([np.full(cells, np.inf), values[:-cells]])


def _later_pair(values: Floats, cells: int) -> Floats:
    return np.stack([_later(row, cells) for row in values])
