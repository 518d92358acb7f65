"""The shortest way through a public problem's joints: a lower bound for latency, and a split that often meets it.

Dynamic programming from joint to joint over (subgraphs begun, where the work is): the CPU has done the joint, or a
subgraph holds it. A subgraph that goes from cut `a` to cut `b` takes

    accelerator time of what lies between them + what it fetches + what it gives away,

of which the first is a difference of two sums, and the others depend on one cut each, but for values that pass over
joints. So the best beginning for an end is the least of those whose bytes still fit: a running minimum over beginnings
in the order of their bytes. What several subgraphs do inside one block, between two cuts, is bounded and not solved;
a split comes with the bound where the way does not use that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gimlet.compiler.placement.public.joint_blocks import Block, Bools, Floats, Indices, Row
from gimlet.compiler.placement.public.joint_grid import Grid

# Sums of some hundred figures in another order differ by less.
_ROUNDING = 1e-9
# With more cuts in a block subgraphs are not counted.
_COUNTED = 1_000


@dataclass(frozen=True)
class JointPath:
    """No split takes less than `bound`. `runs` are the subgraphs of the way, each as positions of nodes in the problem.

    Where all lie between cuts, or where what helps inside blocks is as the bound has it, they are a split that takes as
    long, but for nodes at the sides.
    """

    bound: float
    runs: tuple[tuple[int, ...], ...]


def joint_path(
    row: Row,
    subgraphs: int,
    *,
    helped: bool,
    at_most: float = float("inf"),
    until: float = float("inf"),
    price: float = 0.0,
) -> JointPath | None:
    """The shortest way with at most `subgraphs` subgraphs of the problem's capacity each; None where there is none
    shorter than `at_most`.

    Subgraphs are counted only where a way without counting them needs too many, and not where a block has many cuts:
    there the way may have more. With a `price` they are not counted, and each one costs that much: the bound is then
    for ways of so many subgraphs, the prices of which are given back. Without `helped` no subgraph lies inside a block,
    and the time is no bound.
    TimeoutError when `time.perf_counter()` passes `until`.
    """
    if price:
        paid = price * subgraphs
        found = _Ways(row, None, helped, at_most + paid, until, price).solve()
        return None if found is None else JointPath(found.bound - paid, found.runs)
    free = _Ways(row, None, helped, at_most, until).solve()
    cuts = max(len(block.holds) for block in row.blocks)
    if free is None or len(free.runs) <= subgraphs or cuts > _COUNTED:
        return free
    return _Ways(row, subgraphs, helped, at_most, until).solve()


@dataclass
class _Cuts:
    """What the cuts of a block are to a subgraph that ends there, and to one that begins there.

    `done` and `used` are accelerator time and bytes of everything up to the cut.
    """

    done: Floats
    used: Floats
    fetched: Floats
    given: Floats
    may_end: Bools
    may_begin: Bools


@dataclass(frozen=True)
class _Beginnings:
    """Beginnings of subgraphs: in front of which joint, the number, the bytes up to it, and by subgraphs begun before
    it, the time of the beginning and `value`: what a subgraph from here adds the accelerator time up to its end to.
    """

    joint: Indices
    number: Indices
    used: Floats
    time: Floats
    value: Floats

    def chosen(self, which: Bools) -> _Beginnings:
        return _Beginnings(
            self.joint[which], self.number[which], self.used[which], self.time[:, which], self.value[:, which]
        )

    def joined(self, other: _Beginnings) -> _Beginnings:
        return _Beginnings(
            np.concatenate([self.joint, other.joint]),
            np.concatenate([self.number, other.number]),
            np.concatenate([self.used, other.used]),
            np.concatenate([self.time, other.time], axis=1),
            np.concatenate([self.value, other.value], axis=1),
        )


@dataclass(frozen=True)
class _Far:
    """A value that is used behind the joint after it: made in or before block `made`.

    `read` are the events at which a subgraph that came by fetches it: the joint that it must hold, and the last
    beginning (in front of which joint) from which it is sure to.
    """

    node: int
    made: int
    read: tuple[tuple[int, int], ...]


class _Ways:
    """The tables, by subgraphs begun (rows) and cut (columns)."""

    def __init__(
        self, row: Row, subgraphs: int | None, helped: bool, at_most: float, until: float, price: float = 0.0
    ) -> None:
        self.row, self.problem, self.helped, self.price = row, row.problem, helped, price
        self.at_most, self.until = at_most, until
        # Where subgraphs are not counted, there is one row, and beginning one stays in it.
        self.step = 0 if subgraphs is None else 1
        self.rows = 1 if subgraphs is None else subgraphs + 1
        self.block_of: dict[int, int] = dict(zip(row.joints, range(len(row.joints)), strict=True))
        self.is_joint = frozenset(row.joints)
        for index, block in enumerate(row.blocks):
            self.block_of.update(dict.fromkeys(block.nodes, index))
        self.far = [found for node in self.block_of if (found := self._far(node)).read]
        # How the least values came about: by block.
        self.ended_from: list[Indices] = []
        self.left_from: list[tuple[Indices, Bools]] = []
        self.beginning_of: list[tuple[int, int]] = []

    def _event(self, node: int) -> int:
        """The joint that a subgraph must hold in order to hold this node for sure, if it began earlier."""
        return self.block_of[node] + (node not in self.is_joint)

    def _far(self, node: int) -> _Far:
        made = self.block_of[node]
        events: dict[int, int] = {}
        for after in self.problem.successors[node]:
            if after in self.block_of and self._event(after) > made + 1:
                event = self._event(after)
                events[event] = max(events.get(event, 0), event if after in self.is_joint else event - 1)
        return _Far(node, made, tuple(sorted(events.items())))

    def solve(self) -> JointPath | None:
        first = self.problem.nodes[self.row.joints[0]]
        on_cpu = np.full(self.rows, np.inf)
        on_cpu[0] = first.cpu
        self.beginning_of.append((-1, 0))
        value = np.full((self.rows, 1), np.inf)
        value[0] = 0.0
        beginnings = _Beginnings(np.zeros(1, int), np.zeros(1, int), np.zeros(1), value.copy(), value)
        done = used = 0.0
        ended = np.full((self.rows, 1), np.inf)
        for index, (joint, block) in enumerate(zip(self.row.joints, self.row.blocks, strict=True)):
            cuts = self._cuts(index, done, used)
            self._fetch(index, beginnings)
            if not self.problem.nodes[joint].on_accelerator:
                beginnings = beginnings.chosen(np.zeros(len(beginnings.joint), dtype=bool))
            ended = self._ended(index, beginnings, cuts)
            if index == len(self.row.joints) - 1:
                break
            left = self._left(block, np.concatenate([on_cpu[:, None], ended], axis=1))
            on_cpu = left[:, -1] + self.problem.nodes[self.row.joints[index + 1]].cpu
            if not all(self.problem.nodes[node].on_accelerator for node in block.nodes):
                beginnings = beginnings.chosen(np.zeros(len(beginnings.joint), dtype=bool))
            numbers = len(self.beginning_of) + np.arange(len(cuts.done))
            self.beginning_of.extend((index, cut) for cut in range(len(cuts.done)))
            new = _Beginnings(
                np.full(len(numbers), index + 1),
                numbers,
                cuts.used,
                left[:, :-1],
                left[:, :-1] - cuts.done + cuts.fetched,
            ).chosen(cuts.may_begin)
            beginnings = beginnings.joined(new)
            done += sum(self.problem.nodes[node].accelerator for node in (joint, *block.nodes))
            used += sum(self.problem.nodes[node].size for node in (joint, *block.nodes))
            least = used - self.problem.capacity * (1 + _ROUNDING)
            beginnings = beginnings.chosen((beginnings.used >= least) & np.isfinite(beginnings.value).any(axis=0))
        return self._path(on_cpu, ended)

    def _cuts(self, index: int, done: float, used: float) -> _Cuts:
        """The cuts of a block, where everything before its joint takes `done` and `used`."""
        joint, block = self.row.joints[index], self.row.blocks[index]
        nodes = [self.problem.nodes[node] for node in block.nodes]
        holds = block.holds
        works = np.array([node.accelerator for node in nodes])
        sizes = np.array([node.size for node in nodes])
        supported = np.array([node.on_accelerator for node in nodes], dtype=bool)
        column = {node: place for place, node in enumerate(block.nodes)}
        fetched, given = np.zeros(len(holds)), np.zeros(len(holds))
        for node in (joint, *block.nodes):
            held = np.ones(len(holds), dtype=bool) if node == joint else holds[:, column[node]]
            readers = [after for after in self.problem.successors[node] if after in self.block_of]
            inside = [column[after] for after in readers if after in column]
            behind = (~holds[:, inside]).any(axis=1)
            next_reads = any(self.block_of[after] == index + 1 and after in self.is_joint for after in readers)
            later_reads = any(self.block_of[after] > index for after in readers)
            fetched += self.problem.cost[node] * (held & (behind | next_reads))
            given += self.problem.cost[node] * (held & (behind | later_reads))
        for far in self.far:
            inside = [column[after] for after in self.problem.successors[far.node] if after in column]
            if far.made < index and inside and (index + 1, index + 1) not in far.read:
                fetched += self.problem.cost[far.node] * (~holds[:, inside]).any(axis=1)
        figures = self.problem.nodes[joint]
        return _Cuts(
            done + figures.accelerator + np.where(holds, works, 0.0).sum(axis=1),
            used + figures.size + np.where(holds, sizes, 0.0).sum(axis=1),
            fetched,
            given,
            np.all(supported | ~holds, axis=1),
            np.all(supported | holds, axis=1),
        )

    def _fetch(self, index: int, beginnings: _Beginnings) -> None:
        """A subgraph that reaches this joint fetches what it is the first to read of far values made before it, and
        waits for what is released late."""
        for far in self.far:
            earlier = far.made + 1
            for event, last in far.read:
                if event == index:
                    paying = (beginnings.joint > earlier) & (beginnings.joint <= last)
                    beginnings.value[:, paying] += self.problem.cost[far.node]
                earlier = max(earlier, event)
        for node, release in self.row.release.items():
            if self._event(node) == index:
                surely = beginnings.joint <= (index if node in self.is_joint else index - 1)
                late = np.maximum(release - beginnings.time, 0.0) * surely
                beginnings.value[:] += late
                beginnings.time[:] += late

    def _ended(self, index: int, beginnings: _Beginnings, cuts: _Cuts) -> Floats:
        """When a subgraph that ends at each cut of the block has ended, by how many have begun."""
        found = np.full((self.rows, len(cuts.done)), np.inf)
        origin = np.zeros(found.shape, dtype=np.int64)
        least = cuts.used - self.problem.capacity * (1 + _ROUNDING)
        for members, given in self._by_age(index, beginnings):
            chosen = beginnings.chosen(members)
            order = np.argsort(-chosen.used, kind="stable")
            value = chosen.value[:, order]
            running = np.minimum.accumulate(value, axis=1)
            which = np.maximum.accumulate(np.where(value == running, np.arange(len(order)), 0), axis=1)
            fitting = np.searchsorted(-chosen.used[order], -least, side="right") - 1
            there = np.flatnonzero(fitting >= 0)
            before, after = slice(self.rows - self.step), slice(self.step, None)
            done = running[before, fitting[there]] + (cuts.done + cuts.given + given)[there] + self.price
            better = done < found[after, there]
            found[after, there] = np.where(better, done, found[after, there])
            came = chosen.number[order][which[before, fitting[there]]]
            origin[after, there] = np.where(better, came, origin[after, there])
        found[:, ~cuts.may_end] = np.inf
        self.ended_from.append(origin)
        return found

    def _by_age(self, index: int, beginnings: _Beginnings) -> Iterator[tuple[Bools, Floats]]:
        """Beginnings that hold the same far values, and by cut what those give away that are read behind it."""
        block = self.row.blocks[index]
        column = {node: place for place, node in enumerate(block.nodes)}
        bill = np.zeros(len(block.holds))
        until = np.iinfo(np.int64).max
        for far in sorted((far for far in self.far if far.made < index), key=lambda far: -far.made):
            readers = [after for after in self.problem.successors[far.node] if after in self.block_of]
            inside = [column[after] for after in readers if after in column]
            behind = (~block.holds[:, inside]).any(axis=1)
            behind |= any(self.block_of[after] > index for after in readers)
            if not behind.any():
                continue
            yield (beginnings.joint > far.made) & (beginnings.joint <= until), bill.copy()
            bill += self.problem.cost[far.node] * behind
            until = far.made
        yield beginnings.joint <= until, bill

    def _left(self, block: Block, ready: Floats) -> Floats:
        """When everything between a cut and those before is done, by subgraphs begun; the last column: all of it."""
        found = np.full(ready.shape, np.inf)
        origin = np.zeros(found.shape, dtype=np.int64)
        unsolved = np.zeros(found.shape, dtype=bool)
        grid = Grid(block)
        # With help comes at least one subgraph more.
        choices = [(0, False)]
        if self.helped and any((part.helped < part.alone).any() for part in block.parts):
            choices.append((self.step, True))
        for more, helped in choices:
            for before, after in self._range(more):
                done, row = grid.times(ready[before], helped=helped, at_most=self.at_most, until=self.until)
                done += self.price * helped
                better = done < found[after]
                found[after] = np.where(better, done, found[after])
                origin[after] = np.where(better, row, origin[after])
                unsolved[after] = np.where(better, helped, unsolved[after])
        self.left_from.append((origin, unsolved))
        return found

    def _range(self, more: int) -> list[tuple[int, int]]:
        """Numbers of subgraphs begun, before and after `more` of them."""
        return [(begun, begun + more) for begun in range(self.rows - more)]

    def _path(self, on_cpu: Floats, ended: Floats) -> JointPath | None:
        bound = min(float(on_cpu.min()), float(ended[:, -1].min()))
        if not np.isfinite(bound):
            return None
        last = len(self.row.joints) - 1
        if on_cpu.min() <= ended[:, -1].min():
            runs = self._joint_runs(last, int(on_cpu.argmin()))
        else:
            runs = self._cut_runs(last, int(ended[:, -1].argmin()), ended.shape[1] - 1)
        return JointPath(bound * (1 - _ROUNDING), runs)

    def _joint_runs(self, index: int, begun: int) -> tuple[tuple[int, ...], ...]:
        """The subgraphs of the best way in which the CPU does this joint."""
        return () if index == 0 else self._left_runs(index - 1, begun, -1)

    def _left_runs(self, index: int, begun: int, column: int) -> tuple[tuple[int, ...], ...]:
        origin, unsolved = self.left_from[index]
        row = int(origin[begun, column])
        helpers: list[list[int]] = []
        if unsolved[begun, column]:
            block = self.row.blocks[index]
            helpers = block.helpers(self.problem, row, column % (len(block.holds) + 1))
            begun -= self.step
        before = self._joint_runs(index, begun) if row == 0 else self._cut_runs(index, begun, row - 1)
        return (*before, *(tuple(sorted(self.row.kept[node] for node in nodes)) for nodes in helpers))

    def _cut_runs(self, index: int, begun: int, cut: int) -> tuple[tuple[int, ...], ...]:
        """The subgraphs of the best way in which one ends at this cut."""
        start, first = self.beginning_of[int(self.ended_from[index][begun, cut])]
        before = self._left_runs(start, begun - self.step, first) if start >= 0 else ()
        nodes = [self.row.joints[index], *self._held(index, cut, True)]
        for block in range(start + 1, index):
            nodes += [self.row.joints[block], *self.row.blocks[block].nodes]
        nodes += self._held(start, first, False) if start >= 0 else []
        return (*before, tuple(sorted(self.row.kept[node] for node in nodes)))

    def _held(self, index: int, cut: int, which: bool) -> list[int]:
        """Nodes of a block that are in the cut, or those that are not."""
        block = self.row.blocks[index]
        return [node for node, held in zip(block.nodes, block.holds[cut], strict=True) if held == which]
