"""A lower bound on latency where memory binds: a linear program with all memories, for one block of each kind.

Nodes of a path run one after another, and nothing overtakes a joint. So the joints of the heaviest path cut the graph
into *blocks* (`spine.py`), and a request takes as long as all of them: each as long as every path through it, with a
launch and the latency of a link for each change of device, and as long as its nodes keep a device busy. Every node is
split over the places, weights are where their users are, and what a fast memory has no room for is streamed.

Blocks that cost alike, as layers do, are one block that counts several times: each row of the program holds for the
mean over them because it holds for each. So the program is small, whatever the depth of a model. What lies between a
block and the one before it is counted as far as blocks of both kinds follow each other.

`stream_bound` follows one way exactly and merges labels where there are many; this one splits nodes, whatever their
number. It says more where many devices fill up, and what a byte of each memory is worth (`memory_prices.py`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from ortools.linear_solver import pywraplp

from gimlet.compiler.placement.bounds.linear import solved
from gimlet.compiler.placement.bounds.period_program import SHORTFALL, keep_company
from gimlet.compiler.placement.bounds.spine import Spine, heaviest_path
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem, Weight

_MOST_PATHS = 24


@dataclass(frozen=True)
class MemoryBound:
    """No placement is quicker than `seconds`; infinite where memories have no room for all nodes.

    `byte_s` is what a byte of a device's memory is worth, in seconds of latency, by the first device of a class, and
    `fast_byte_s` a byte of fast memory, for memories that some placement could fill.
    """

    seconds: float
    byte_s: Mapping[int, float] = field(default_factory=dict[int, float])
    fast_byte_s: Mapping[int, float] = field(default_factory=dict[int, float])


def memory_blocks(problem: Problem, until: float = float("inf")) -> MemoryBound:
    """The bound; of 0 where it is not found by `until` (of `time.perf_counter`), or where nothing limits placements:
    neither memory nor ops that share a device, or may not.
    """
    rules = problem.rules
    if not problem.nodes or not (problem.memory_can_bind or problem.streaming or rules.together or rules.apart):
        return MemoryBound(0.0)
    return _Program(problem, _kinds_of(problem)).solve(until)


@dataclass(frozen=True)
class _Block:
    """Nodes between two joints, the later one included, in topological order. Without a joint no time is counted."""

    nodes: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...] = ()
    """Paths from after the joint before to this block's joint, as nodes."""
    joint: int | None = None


@dataclass
class _Kind:
    """Blocks that cost alike: the first of them, how many there are, and how many of them follow another kind."""

    block: _Block
    count: int = 0
    after: dict[int, int] = field(default_factory=dict[int, int])


def _blocks(problem: Problem) -> list[_Block]:
    """The blocks along the heaviest path, and after them each node that no block has by itself."""
    spine = Spine(problem, heaviest_path(problem))
    blocks: list[_Block] = []
    begin = 0
    for index, is_joint in enumerate(spine.joint):
        if is_joint:
            nodes = tuple(sorted((*spine.path[begin : index + 1], *spine.beside[index])))
            blocks.append(_Block(nodes, tuple(_paths(problem, nodes, spine.path[index])), spine.path[index]))
            begin = index + 1
    return [*blocks, *(_Block((node,)) for node in spine.apart)]


def _paths(problem: Problem, nodes: Sequence[int], joint: int) -> Iterable[tuple[int, ...]]:
    """The heaviest path to the joint through each node, every node where it is fastest; the heaviest first."""
    inside = set(nodes)
    least = {node: float(problem.seconds[node].min()) + 1e-30 for node in nodes}
    ways: dict[int, tuple[float, tuple[int, ...]]] = {}
    for node in nodes:
        before = max((ways[each] for each in problem.predecessors[node] if each in inside), default=(0.0, ()))
        ways[node] = before[0] + least[node], (*before[1], node)
    ends: dict[int, tuple[float, tuple[int, ...]]] = {joint: (0.0, ())}
    for node in reversed(nodes):
        following = [each for each in problem.successors[node] if each in ends and each in inside]
        if node != joint and following:
            ends[node] = max((ends[each][0] + least[each], (each, *ends[each][1])) for each in following)
    through = {(*ways[node][1], *ends[node][1]): ways[node][0] + ends[node][0] for node in nodes if node in ends}
    return sorted(through, key=lambda path: -through[path])[:_MOST_PATHS]


def _kinds_of(problem: Problem) -> list[_Kind]:
    """The blocks of a problem by kind."""
    weights: list[list[int]] = [[] for _ in problem.nodes]
    for number, weight in enumerate(problem.weights):
        for user in weight.users:
            weights[user].append(number)
    company: list[list[int]] = [[] for _ in problem.nodes]
    groups: list[tuple[Sequence[int], ...]] = [*((group,) for group in problem.rules.together), *problem.rules.apart]
    for number, sides in enumerate(groups):
        for node in {node for side in sides for node in side}:
            company[node].append(number)
    seconds = _least_seconds(problem)
    kinds: dict[Hashable, int] = {}
    found: list[_Kind] = []
    before: int | None = None
    for block in _blocks(problem):
        own = {node: index for index, node in enumerate(block.nodes)}
        key = (
            tuple(tuple(sorted(seconds[node].items())) for node in block.nodes),
            tuple(problem.nodes[node].flops for node in block.nodes),
            tuple(tuple(own[each] for each in path) for path in block.paths),
            tuple(_company(groups[n], n, own) for n in sorted({n for node in own for n in company[node]})),
            tuple(_figures(problem.weights[w], w, own) for w in sorted({w for node in own for w in weights[node]})),
        )
        number = kinds.setdefault(key, len(found))
        if number == len(found):
            found.append(_Kind(block))
        found[number].count += 1
        if before is not None and block.joint is not None:
            found[number].after[before] = found[number].after.get(before, 0) + 1
        before = number
    return found


def _least_seconds(problem: Problem) -> list[dict[int, float]]:
    """What each node takes on each place that it may have, at the least: fusion saves all that it can."""
    return [
        {place: float(problem.fused_seconds[node, place]) for place in places}
        for node, places in enumerate(problem.allowed)
    ]


def _figures(weight: Weight, number: int, own: Mapping[int, int]) -> Hashable:
    """What a weight is to a block; one that others use as well is itself."""
    if not own.keys() >= set(weight.users):
        return number, tuple(own[user] for user in weight.users if user in own)
    streams = tuple((p, tuple((own[u], s) for u, s in users.items())) for p, users in weight.stream_s.items())
    return tuple(own[user] for user in weight.users), tuple(sorted(weight.size_bytes.items())), streams


def _company(sides: Sequence[Sequence[int]], number: int, own: Mapping[int, int]) -> Hashable:
    """What ops that share a device, or may not, are to a block; those that others belong to as well are themselves."""
    inside = all(node in own for side in sides for node in side)
    return -1 if inside else number, tuple(tuple(own[node] for node in side if node in own) for side in sides)


class _Program:
    """The linear program, in units of `scale` seconds."""

    def __init__(self, problem: Problem, kinds: Sequence[_Kind]) -> None:
        self.problem, self.kinds = problem, kinds
        self.solver: Any = pywraplp.Solver.CreateSolver("GLOP")
        self.classes = device_classes(problem)
        # A class's places go by those of its first device.
        self.class_of = {members[0]: number for number, members in enumerate(self.classes)}
        self.places = [p for p, device in enumerate(problem.device_of) if device in self.class_of]
        self.seconds = _least_seconds(problem)
        self.scale = max((min(row.values()) for row in self.seconds if row), default=0.0) or 1.0
        self.rows: dict[int, tuple[int, Any]] = {}
        self.fast_rows: dict[int, tuple[int, Any]] = {}
        """Capacity in bytes, and the row for it, by the first device of a class."""
        self.streamed: dict[tuple[int, int], list[Any]] = {}
        """Seconds, in units of the scale, by which streaming makes a node longer on a place."""
        self.at: dict[int, dict[int, Any]] = {
            node: {p: self.solver.NumVar(0, 1, "") for p in self.seconds[node] if p in self.places}
            for kind in kinds
            for node in kind.block.nodes
        }

    def solve(self, until: float) -> MemoryBound:
        """The bound, as `memory_blocks` says it."""
        solver = self.solver
        for shares in self.at.values():
            solver.Add(solver.Sum(list(shares.values())) == 1)
        for number in range(len(self.classes)):
            self._memory(number)
        self._shares()
        self._company()
        solver.Minimize(solver.Sum([self._time(kind) for kind in self.kinds if kind.block.joint is not None]))
        status = solved(solver, until)
        if status != pywraplp.Solver.OPTIMAL:
            return MemoryBound(float("inf") if status == pywraplp.Solver.INFEASIBLE else 0.0)
        least = float(solver.Objective().Value()) * self.scale * (1 - SHORTFALL)
        return MemoryBound(max(least, 0.0), self._worth(self.rows), self._worth(self.fast_rows))

    def _worth(self, rows: Mapping[int, tuple[int, Any]]) -> dict[int, float]:
        """Seconds a byte by device, from rows in parts of a capacity."""
        return {
            device: max(-row.dual_value(), 0.0) * self.scale / max(capacity, 1)
            for device, (capacity, row) in rows.items()
        }

    def _number(self) -> Any:
        """A variable that is not negative."""
        return self.solver.NumVar(0, self.solver.infinity(), "")

    def _members(self, place: int) -> list[int]:
        return self.classes[self.class_of[self.problem.device_of[place]]]

    def _takes(self, node: int, place: int) -> Any:
        """A node's part of its time on a place, with what it streams there."""
        streamed = self.streamed.get((node, place), [])
        return self.solver.Sum([self.seconds[node][place] / self.scale * self.at[node][place], *streamed])

    def _time(self, kind: _Kind) -> Any:
        """What all blocks of a kind take: as long as each path, and as long as a device of each class is busy."""
        time = self._number()
        for path in kind.block.paths:
            terms = [self._takes(node, place) for node in path for place in self.at[node]]
            for before, node in pairwise(path):
                for place, part in self.at[node].items():
                    terms.append(self._entry(place, part - self.at[before].get(place, 0.0)))
            self.solver.Add(time >= kind.count * self.solver.Sum(terms) + self._arrivals(kind, path[0]))
        on_paths = sorted({node for path in kind.block.paths for node in path})
        for members in self.classes:
            terms = [
                self._takes(node, place)
                for node in on_paths
                for place in self.at[node]
                if self.problem.device_of[place] == members[0]
            ]
            self.solver.Add(time * len(members) >= kind.count * self.solver.Sum(terms))
        return time

    def _arrivals(self, kind: _Kind, first: int) -> Any:
        """What all blocks of a kind take to come to a node from where the joints before them are."""
        terms: list[Any] = []
        for before, count in kind.after.items():
            other = self.kinds[before]
            for place, part in self.at[first].items():
                there = self.at[other.block.joint].get(place, 0.0) if other.block.joint is not None else 0.0
                # Means are over all blocks of both kinds: where two do not follow each other, the most is off.
                terms.append(self._entry(place, kind.count * part - (kind.count - count) - other.count * there))
        return self.solver.Sum(terms)

    def _entry(self, place: int, entered: Any) -> Any:
        """What it takes to come to a place as often as a sum says, where that is above zero."""
        entry = self._number()
        self.solver.Add(entry >= entered)
        return (self.problem.launch_s[place] + _arrival_s(self.problem, place)) / self.scale * entry

    def _memory(self, number: int) -> None:
        """The rows for what the devices of a class have room for, fast and in all, and the streamed parts."""
        problem, members = self.problem, self.classes[number]
        spec = problem.devices[members[0]]
        streams = members[0] in problem.streaming and spec.fast_bytes is not None
        if not streams and (spec.memory_bytes is None or not problem.memory_can_bind):
            return
        resident: list[tuple[int, Any]] = []
        kept_fast: list[tuple[int, Any]] = []
        for place in (p for p in self.places if problem.device_of[p] == members[0]):
            for weight, users, count in self._weights(place):
                size = count * weight.size_bytes[place]
                present = self._number()
                for user in users:
                    self.solver.Add(present >= self.at[user][place])
                resident.append((size, present))
                if streams:
                    kept = self.solver.NumVar(0, len(members), "")
                    kept_fast.append((size, kept))
                    for user in users:
                        if seconds := weight.streaming_s(user, place):
                            part = self._number()
                            self.solver.Add(part >= self.at[user][place] - kept)
                            self.streamed.setdefault((user, place), []).append(seconds / self.scale * part)
        for capacity, terms, rows in (
            (spec.memory_bytes, resident, self.rows),
            (spec.fast_bytes if streams else None, kept_fast, self.fast_rows),
        ):
            if capacity is not None:
                held = self.solver.Sum([size / max(capacity, 1) * part for size, part in terms])
                limit = len(members) * (1 + 1e-9 if capacity else 0)
                rows[members[0]] = capacity, self.solver.Add(held <= limit)

    def _weights(self, place: int) -> Iterable[tuple[Weight, list[int], int]]:
        """Weights with bytes on a place, their users in the program's blocks, and how many of the kind there are."""
        kind_of = {node: number for number, kind in enumerate(self.kinds) for node in kind.block.nodes}
        for weight in self.problem.weights:
            here = [user for user in weight.users if user in kind_of and place in self.at[user]]
            if here and weight.size_bytes.get(place):
                blocks = {kind_of.get(user) for user in weight.users}
                # One that several blocks use is there once.
                yield weight, here, self.kinds[kind_of[here[0]]].count if len(blocks) == 1 else 1

    def _shares(self) -> None:
        """The least parts of all FLOPs that devices must have."""
        problem = self.problem
        for device, share in problem.rules.min_share.items():
            if device not in self.class_of:
                continue
            given = [
                kind.count * problem.nodes[node].flops / max(problem.total_flops, 1.0) * part
                for kind in self.kinds
                for node in kind.block.nodes
                for place, part in self.at[node].items()
                if problem.device_of[place] == device
            ]
            members = len(self.classes[self.class_of[device]])
            self.solver.Add(self.solver.Sum(given) >= share * members * (1 - 1e-9))

    def _company(self) -> None:
        """Ops that share a device, and those that may not: as far as they are in blocks of the program."""
        rules = self.problem.rules
        together = tuple(tuple(node for node in group if node in self.at) for group in rules.together)
        apart = tuple(
            (tuple(n for n in left if n in self.at), tuple(n for n in right if n in self.at))
            for left, right in rules.apart
        )
        own = replace(rules, together=tuple(group for group in together if group), apart=apart)
        asked = self.problem.with_rules(own)
        for number, members in enumerate(self.classes):
            keep_company(self.solver, asked, lambda node, number=number: self._on(node, number), len(members))

    def _on(self, node: int, number: int) -> list[Any]:
        """The parts of a node that are on a class."""
        members = self.classes[number]
        return [part for place, part in self.at[node].items() if self.problem.device_of[place] == members[0]]


def _arrival_s(problem: Problem, place: int) -> float:
    """The least latency of a link by which something comes to a place, none where it may have been on the device."""
    device = problem.device_of[place]
    others = [other for number, other in enumerate(problem.device_of) if number != place]
    if device == problem.host or device in others:
        return 0.0
    return min((problem.routes[other, device].latency_s for other in {*others, problem.host}), default=0.0)
