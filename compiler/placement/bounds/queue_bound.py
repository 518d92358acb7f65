"""A lower bound on latency where inputs queue on links, and outputs leave when their segment has ended.

The graph is seen as in `latency_bound`: joints in a row, blocks between them. The joints of a segment follow each
other, and the blocks between them are in it as well, or the graph of segments had a cycle. So for a segment from
joint *a* to joint *b* it is known what it takes at least, which inputs it waits for, and which outputs leave when it
has ended:

- it starts when all its inputs have arrived as one batch, which leaves at time zero at best, or when the inputs of the
  segments right before on its device have left the link;
- joint *a* ends no earlier than the segment before lets it (`block_bound`);
- nothing is done before its outputs are at the host, which leave when those of the segments right before on its device
  have left the link.

A shortest path over segments is a bound on the latency of all placements whose outputs are at the host by a *deadline*:
segments that miss it are left out. Where it is above the deadline, there is no such placement. The deadline is found by
bisection.

A block between two segments has its nodes in one of them, or some in a third, which `more_segments` bounds. In the
first case nodes with inputs or outputs of the model, if they are few, are tried on both sides.

So what is known of a segment has three figures, and labels of about the same queues are merged into one that is below
them. Segments that come back to a device after another's find its links free.

Cost, measured at load 8: 0.5 s a deadline for 300 joints and four kinds of place, 1 s for 1,100. The first deadline is
just above what is known already: mostly nothing is gained, and that is seen at once. Work is limited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from time import perf_counter
from typing import Literal

import numpy as np

from gimlet.compiler.placement.bounds.atomic_bound import Case, more_segments, one_segment, two_segments
from gimlet.compiler.placement.bounds.block_bound import BlockTable, Ends, solve_block
from gimlet.compiler.placement.bounds.latency_bound import LatencyRelaxation, complete
from gimlet.compiler.placement.bounds.queue_labels import (
    Array,
    Change,
    Ended,
    Entry,
    Kept,
    Links,
    Queue,
    Side,
    undominated,
)
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem, Route

_INFINITE = float("inf")
_BUDGET = 2_000
_LARGEST_BLOCK = 100
_MOST_CARRIERS = 4
_DEADLINES = 13
_EXACT = 1e-3
_EFFORT = 40_000
Carrier = Literal["first", "last", "kept", "sent"]
_TWO: tuple[Carrier, ...] = ("first", "last")
_MORE: tuple[Carrier, ...] = ("first", "last", "kept", "sent")
_MOST_THIRD = 2
_CELLS = 4096


def queue_bound(
    relaxation: LatencyRelaxation, free: float, least: float, known: float
) -> tuple[float, list[tuple[int, ...]]]:
    """The bound in seconds, and placements that it suggests.

    It is at least `least` (proven already) and at most `known` (the latency of some placement, or infinite). `free` is
    `latency_bound`: where that and all inputs and outputs on one link are far below `least`, nothing is searched.
    """
    seen: dict[tuple[int, ...], None] = {}
    effort = _EFFORT
    if 2 * free + _carried(relaxation.problem) < least:
        return least, []
    for choice in range(len(relaxation.choices)):
        if relaxation.largest_block(choice) > _LARGEST_BLOCK or not relaxation.joints(choice).nodes:
            continue
        if least >= known or perf_counter() > relaxation.until:
            break
        row = _Row(relaxation, choice, effort)
        least, places = _bisect(row, least, min(known, 4 * least) if least else known)
        effort = row.effort
        seen |= dict.fromkeys(places)
    return least, list(reversed(seen))


def _bisect(row: _Row, low: float, high: float) -> tuple[float, list[tuple[int, ...]]]:
    """The largest deadline that is missed, at least `low`, and places of those that are kept."""
    places: list[tuple[int, ...]] = []
    if high == _INFINITE:
        return low, places
    for number in range(_DEADLINES):
        # Most often nothing is gained, or else nothing is left to gain.
        deadline = (low * (1 + _EXACT), high * (1 - 1e-9))[number] if number < 2 else (low + high) / 2
        found = row.path(deadline) if high - low > _EXACT * high and perf_counter() < row.until else None
        if found is None:
            break
        latency, place = found
        if latency > deadline:
            low = deadline
        else:
            high = deadline
            places.append(place)
    return low, places


def _carried(problem: Problem) -> float:
    """Seconds of all inputs to a device and all outputs from one, on the slowest ways; minus infinity without any."""
    taken = sum(value.size_bytes for value in problem.values if value.producer is None)
    given = sum(value.size_bytes for value in problem.values if value.producer is not None and value.is_output)
    if not taken and not given:
        return -_INFINITE
    devices = {place.device for place in problem.places} - {problem.host}
    there = max((problem.routes[problem.host, device].seconds(taken) for device in devices), default=0.0)
    back = max((problem.routes[device, problem.host].seconds(given) for device in devices), default=0.0)
    return there + back


class _Row:
    """The joints of one amount of leaving out, and paths over segments of them."""

    def __init__(self, relaxation: LatencyRelaxation, choice: int, effort: int) -> None:
        problem = self.problem = relaxation.problem
        self.joints = relaxation.joints(choice)
        self.ancestors, self.until = relaxation.ancestors, relaxation.until
        zero = [[0.0] * len(problem.places) for _ in problem.nodes]
        self.seconds = relaxation.relaxation.seconds
        self.table = BlockTable(self.seconds, problem, zero, _BUDGET, relaxation.until)
        self.blocks = [self.joints.block(step) for step in range(len(self.joints.inner))]
        self.count = len(self.joints.nodes)
        classes = device_classes(problem)
        on = {d: [p for p, owner in enumerate(problem.device_of) if owner == d] for c in classes for d in c}
        self.states = [place for members in classes for place in on[members[0]]]
        owner, host = problem.device_of, problem.host
        self.changes = [
            Change(left, onto, onto, owner[left] == owner[onto] != host) for left in self.states for onto in self.states
        ]
        for members in classes:
            if len(members) > 1:
                own, other = on[members[0]], on[members[1]]
                pairs = list(zip(own, other, strict=True))
                self.changes += [Change(left, onto, state) for left in own for state, onto in pairs]
        self.edges = relaxation.relaxation.edges
        self.bytes_in, self.bytes_out = self._bytes()
        self.sides = [self._sides(step) for step in range(len(self.blocks))]
        self.befores = [list(dict.fromkeys(side.before for side in sides)) for sides in self.sides]
        """What a block may leave in the segment before it: bytes of inputs and outputs."""
        most = max(map(len, self.befores))
        self.after: Array = np.zeros((self.count, most, 2))
        for step in range(self.count):
            for number, before in enumerate(self.befores[step + 1]):
                self.after[step, number] = before
        self.links = {place: self._links(place) for place in self.states}
        self.rows = 1 + self.count * most // _CELLS
        self.effort = effort
        """How much may still be done, in segments' rows of at most `_CELLS` cells: some 100 µs each."""

    def _links(self, place: int) -> Links:
        """The ways between the host and the device of a place."""
        problem, device = self.problem, self.problem.device_of[place]
        if device == problem.host:
            return Links(Route(0.0, 0.0), Route(0.0, 0.0), 0.0)
        return Links(
            problem.routes[problem.host, device], problem.routes[device, problem.host], sum(self.bytes_in.values())
        )

    def _bytes(self) -> tuple[dict[int, int], dict[int, int]]:
        """Bytes of inputs and of outputs by node. An input that several nodes read counts nowhere.

        It may have come with the batch of an earlier segment, also for a node that was left out of the row.
        """
        kept = set(self.joints.nodes).union(*self.joints.inner)
        taken: dict[int, int] = {}
        given: dict[int, int] = {}
        for value in self.problem.values:
            readers = set(value.consumers)
            if value.producer in kept and value.is_output:
                given[value.producer] = given.get(value.producer, 0) + value.size_bytes
            elif value.producer is None and len(readers) == 1 and readers <= kept:
                (reader,) = readers
                taken[reader] = taken.get(reader, 0) + value.size_bytes
        return taken, given

    def _sum(self, nodes: tuple[int, ...]) -> tuple[int, int]:
        return sum(self.bytes_in.get(n, 0) for n in nodes), sum(self.bytes_out.get(n, 0) for n in nodes)

    def _sides(self, step: int) -> list[Side]:
        """How a block may be divided: in two segments, and with a third one."""
        two = (self._side(step, cases, third=False) for cases in self._cases(step, _TWO, _MOST_CARRIERS))
        more = (self._side(step, cases, third=True) for cases in self._cases(step, _MORE, _MOST_THIRD))
        return [*dict.fromkeys(two), *(dict.fromkeys(more) if self.joints.inner[step] else ())]

    def _cases(self, step: int, cases: Sequence[Carrier], most: int) -> Iterator[dict[int, Carrier]]:
        """Where nodes of a block are that have inputs or outputs: those of them that have most."""
        carriers = [n for n in self.joints.inner[step] if n in self.bytes_in or n in self.bytes_out]
        closed = {"first": step == 0, "last": step == self.count}
        usable: list[Carrier] = [case for case in cases if not closed.get(case)]
        few = sorted(carriers, key=self._carried)[-most:] if len(usable) > 1 else carriers
        options: list[list[Carrier]] = [[case for case in usable if case != "sent" or self._sent(step, n)] for n in few]
        for chosen in product(*options):
            found: dict[int, Carrier] = dict(zip(few, chosen, strict=True))
            yield found

    def _side(self, step: int, cases: Mapping[int, Carrier], *, third: bool) -> Side:
        before, after = (tuple(n for n, found in cases.items() if found == case) for case in _TWO)
        sent = sum(self._sent(step, n) for n, found in cases.items() if found == "sent")
        return Side(self._sum(before), self._sum(after), third, sent)

    def _carried(self, node: int) -> int:
        return self.bytes_in.get(node, 0) + self.bytes_out.get(node, 0)

    def _sent(self, step: int, node: int) -> int:
        """The least bytes that cross to a segment with what a node with an input leads to: of the input, or of those.

        0 where it leads to nothing with as much.
        """
        edges = [size for *_, size in self._heavy(step, node)]
        return min([self.bytes_in.get(node, 0), *edges]) if edges else 0

    def _heavy(self, step: int, node: int) -> list[tuple[int, int]]:
        """Where a node leads to in its block, the last joint included, on ways that all carry half of its inputs at
        least: nodes, and bytes on the way to each.
        """
        block = {*self.joints.inner[step], *self.joints.nodes[step : step + 1]}
        found: list[tuple[int, int]] = []
        stack, seen = [node], {node}
        while stack:
            source = stack.pop()
            for following in block.intersection(self.problem.successors[source]):
                size = self.edges[source, following]
                if 2 * size >= self.bytes_in.get(node, 0) > 0:
                    found.append((following, size))
                    stack += [following] if following not in seen else []
                    seen.add(following)
        return found

    def _where(self, step: int, cases: Mapping[int, Carrier], last: int) -> dict[int, Case] | None:
        """The cases of inner nodes, by their numbers in a block; None where there is no such placement."""
        inner = self.joints.inner[step]
        where: dict[int, Case] = {}
        own_way = last >= 0 and self._own_way(self.problem.device_of[last])
        if "sent" in cases.values() and not own_way:
            # It may come another way, so it is counted as kept, of which nothing else is asked then.
            return None
        for node, case in cases.items():
            where[inner.index(node)] = case if case in ("first", "last") else "between"
            for following, _ in self._heavy(step, node) if case == "kept" and own_way else ():
                if following not in inner:
                    return None
                where[inner.index(following)] = "between"
        return where

    def _own_way(self, device: int) -> bool:
        """Whether all that comes to a device crosses the slowest link of the way from the host."""
        problem = self.problem
        if device == problem.host:
            return False
        links = dict(problem.routes[problem.host, device].links)
        slowest = max(links, key=lambda link: links[link], default="")
        return bool(slowest) and all(
            dict(route.links).get(slowest, 0.0) >= links[slowest]
            for (_, destination), route in problem.routes.items()
            if destination == device
        )

    def _step(self, step: int, first: int, last: int) -> tuple[float, ...]:
        """The least seconds from joint to joint, for each way to divide the block between them."""
        block, ends = self.blocks[step], Ends(first, last)
        own = self.seconds[block.last][last] if block.last >= 0 else 0.0
        plain, _ = solve_block(self.table, block, ends)
        found = dict.fromkeys(self.sides[step], _INFINITE)
        for cases in self._cases(step, _TWO, _MOST_CARRIERS):
            side = self._side(step, cases, third=False)
            found[side] = min(found[side], max(plain, own + self._in_two(step, ends, cases)))
        for cases in self._cases(step, _MORE, _MOST_THIRD) if block.inner else ():
            where = self._where(step, cases, last)
            if where is not None:
                side = self._side(step, cases, third=True)
                found[side] = min(found[side], max(plain, own + more_segments(self.table, block, ends, where)))
        return tuple(found.values())

    def _in_two(self, step: int, ends: Ends, cases: Mapping[int, Carrier]) -> float:
        """The least seconds of a block in the segments of its joints, the last joint not included."""
        block, table, last = self.blocks[step], self.table, ends.last
        if ends.first == last:
            return sum(self.seconds[node][last] for node in block.inner) + self.problem.launch_s[last]
        if not block.inner:
            return 0.0
        if min(ends.first, last) < 0:
            return one_segment(table, block, ends)
        return two_segments(table, block, ends, self._where(step, cases, last))

    @cached_property
    def _steps(self) -> list[dict[tuple[int, int], tuple[float, ...]]]:
        """For each step between two joints, by (from, onto)."""
        found: list[dict[tuple[int, int], tuple[float, ...]]] = [{} for _ in self.blocks]
        for step in range(1, self.count):
            first, last = self.joints.nodes[step - 1], self.joints.nodes[step]
            for change in self.changes:
                if max(self.seconds[first][change.left], self.seconds[last][change.onto]) < _INFINITE:
                    found[step][change.left, change.onto] = self._step(step, change.left, change.onto)
        return found

    @cached_property
    def _ends(self) -> tuple[dict[int, tuple[float, ...]], dict[int, tuple[float, ...]]]:
        """By place: the steps to the first joint and from the last one."""
        first, last = self.joints.nodes[0], self.joints.nodes[-1]
        into = {p: self._step(0, -1, p) for p in self.states if self.seconds[first][p] < _INFINITE}
        out = {p: self._step(self.count, p, -1) for p in self.states if self.seconds[last][p] < _INFINITE}
        return into, out

    @cached_property
    def _within(self) -> dict[int, tuple[Array, Array, Array, Array]]:
        """By place, sums up to each joint: seconds, how many may not be there, and bytes of inputs and outputs.

        Each has the joint and the block before it, the first one's block left out.
        """
        found: dict[int, tuple[Array, Array, Array, Array]] = {}
        for place in self.states:
            rows = np.zeros((4, self.count))
            for step, joint in enumerate(self.joints.nodes):
                nodes = (joint, *(self.joints.inner[step] if step else ()))
                seconds = [self.seconds[node][place] for node in nodes]
                rows[0, step] = sum(s for s in seconds if s < _INFINITE)
                rows[1, step] = sum(1 for s in seconds if s == _INFINITE)
                rows[2:, step] = self._sum(nodes)
            found[place] = tuple(np.cumsum(rows, axis=1))
        return found

    @cached_property
    def _rest(self) -> dict[int, Array]:
        """By place and joint: what is left at least when the joint has ended, queues left out."""
        rest = {place: np.full(self.count, _INFINITE) for place in self.states}
        for place, seconds in self._ends[1].items():
            rest[place][-1] = min(seconds)
        for step in range(self.count - 1, 0, -1):
            nodes = self.joints.nodes[step], *self.joints.inner[step]
            for place in self.states:
                within = sum(self.seconds[node][place] for node in nodes)
                rest[place][step - 1] = within + rest[place][step]
            for change, seconds in self._changes(step):
                left = rest[change.left]
                left[step - 1] = min(left[step - 1], min(seconds) + rest[change.state][step])
        return rest

    def path(self, deadline: float) -> tuple[float, tuple[int, ...]] | None:
        """The least latency of placements that are done by the deadline, and places that suggest it.

        Infinite, and no places, where it is seen that none is; None where that takes too much effort.
        """
        width = self.after.shape[1]
        kept = {p: Kept(self.count, width, self.links[p], deadline) for p in self.states}
        entries: list[Entry] = []
        for step in range(self.count):
            for time, entry in self._entries(step, kept):
                if time + self._rest[entry.state][step] > deadline:
                    continue
                self.effort -= self.rows
                if self.effort < 0:
                    return None
                kept[entry.state].add(len(entries), step, self._ended(entry, time, deadline))
                entries.append(entry)
        best, last = _INFINITE, (-1, -1)
        for place, seconds in self._ends[1].items():
            for side, rest in zip(self.sides[self.count], seconds, strict=True):
                column = self.befores[self.count].index(side.before)
                latency = float(kept[place].first[-1, column]) + rest
                if latency < best:
                    best, last = latency, (place, column)
        return best, () if best == _INFINITE else self._places(entries, kept, last)

    def _entries(self, step: int, kept: dict[int, Kept]) -> list[tuple[float, Entry]]:
        """When joint `step` can have ended as the first of a segment, for each place, part of its block, and queue."""
        found: dict[tuple[int, tuple[int, int], int], list[tuple[float, Entry]]] = {}
        for number, side in enumerate(self.sides[step]):
            column = self.befores[step].index(side.before)
            for change, seconds in self._changes(step):
                ways = kept[change.left].before(step, column, change.same_device) if step else [(-1, 0.0, Queue())]
                for part, start, queue in ways:
                    time = start + seconds[number]
                    before = (change.left, column, part) if step else None
                    entry = Entry(step, change, side.after, queue, before, number)
                    if time < _INFINITE:
                        found.setdefault((change.state, side.after, side.sent), []).append((time, entry))
        return [way for ways in found.values() for way in undominated(ways)]

    def _changes(self, step: int) -> Iterator[tuple[Change, tuple[float, ...]]]:
        if step == 0:
            yield from ((Change(-1, place, place), seconds) for place, seconds in self._ends[0].items())
            return
        for change in self.changes:
            seconds = self._steps[step].get((change.left, change.onto))
            if seconds is not None:
                yield change, seconds

    def _ended(self, entry: Entry, time: float, deadline: float) -> Ended:
        """When a segment can have ended whose first joint does at `time`.

        Infinite where its outputs are not at the host by the deadline.
        """
        step, place, links, queue = entry.step, entry.state, self.links[entry.state], entry.queue
        seconds, refused, taken, given = (row[step:] for row in self._within[place])
        joint = self.joints.nodes[step]
        own_in, own_out = self._sum((joint,))
        size_in = (taken - taken[0] + own_in + entry.head[0])[:, None] + self.after[step:, :, 0]
        size_out = (given - given[0] + own_out + entry.head[1])[:, None] + self.after[step:, :, 1]
        # What is counted has one reader, so it is one batch; what others send comes after all inputs.
        sent = self.sides[step][entry.side].sent
        travel = links.inward.latency_s + links.inward.seconds_per_byte * size_in + links.held_in * sent
        arrives = np.where(size_in + sent > 0, queue.inward_s + travel, -self.problem.launch_s[place])
        begins = np.maximum(time, arrives + self.problem.launch_s[place] + self.seconds[joint][place])
        ends = begins + (seconds - seconds[0])[:, None]
        leaves = np.maximum(ends, queue.outward_s)
        late = np.where(
            size_out > 0, leaves + links.outward.latency_s + links.outward.seconds_per_byte * size_out, ends
        )
        ends[(refused - refused[0]) > 0] = _INFINITE
        ends[np.maximum(late, ends + self._rest[place][step:, None]) > deadline] = _INFINITE
        inward = queue.inward_s + links.held_in * (size_in + sent)
        outward = np.where(size_out > 0, leaves + links.held_out * size_out, queue.outward_s)
        return Ended(ends, inward, outward)

    def _places(self, entries: list[Entry], kept: dict[int, Kept], last: tuple[int, int]) -> tuple[int, ...]:
        """Places of all nodes from the segments of a path. Equal devices take turns."""
        segments: list[Entry] = []
        end, at = self.count - 1, (*last, -1)
        while True:
            entry = entries[kept[at[0]].entry(end, at[1], at[2])]
            segments.append(entry)
            if entry.before is None:
                break
            end, at = entry.step - 1, entry.before
        segments.reverse()
        place = [-1] * len(self.problem.nodes)
        here = -1
        for entry, following in zip(segments, [*(s.step for s in segments[1:]), self.count], strict=True):
            here = self._onto(entry, here)
            for step in range(entry.step, following):
                place[self.joints.nodes[step]] = here
                for node in self.joints.inner[step]:
                    place[node] = here
            if entry.before is not None:
                self._divide(entry, place)
        for node in self.joints.inner[self.count]:
            place[node] = here
        return complete(self.problem, [p if p in self.problem.allowed[n] else -1 for n, p in enumerate(place)])

    def _onto(self, entry: Entry, here: int) -> int:
        """The place of a segment after one on `here`: there again, or on the next device of its class."""
        owner = self.problem.device_of
        if entry.change.same_device:
            return next(place for place, s in self._stands.items() if s == entry.state and owner[place] == owner[here])
        others = [place for place, stands in self._stands.items() if stands == entry.state]
        return others[(others.index(here) + 1) % len(others)] if here in others else others[0]

    @cached_property
    def _stands(self) -> dict[int, int]:
        """For each place the one of the first device of its class."""
        on = [
            [p for p, owner in enumerate(self.problem.device_of) if owner == d]
            for d in range(len(self.problem.devices))
        ]
        return {
            place: state
            for members in device_classes(self.problem)
            for device in members
            for state, place in zip(on[members[0]], on[device], strict=True)
        }

    def _divide(self, entry: Entry, place: list[int]) -> None:
        """Moves what a block has in the segment before its last joint's to there: carriers, and what they depend on."""
        step = entry.step
        inner, side = self.joints.inner[step], self.sides[step][entry.side]
        carriers = [n for n in inner if n in self.bytes_in or n in self.bytes_out]
        if side.third or side.before == (0, 0) or len(carriers) > _MOST_CARRIERS:
            return
        left = place[self.joints.nodes[step - 1]]
        for first in product((True, False), repeat=len(carriers)):
            moved = [n for n, here in zip(carriers, first, strict=True) if here]
            if self._sum(tuple(moved)) != side.before:
                continue
            for node in inner:
                if any(node == n or self.ancestors[n] >> node & 1 for n in moved):
                    place[node] = left
            return
