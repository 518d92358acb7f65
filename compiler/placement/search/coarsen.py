"""Coarsening: groups of nodes that are placed as one, so that the solver sees tens of nodes instead of hundreds.

What goes together, in this order: a producer and the consumer that a framework fuses into it; a cheap node and the
neighbour whose value it would cost more to move than the node could gain; then, until there are few enough, the edges
whose ends lose least by being together. Two groups merge only where at least one place takes both, and only where the
graph of groups stays without a cycle.

What that costs: a placement of groups is a placement of the nodes, so nothing is claimed that cannot run, but a better
one may cut through a group. The solver's lower bound is therefore taken on the nodes, not on the groups, which puts
the loss into the reported gap; and the answer is refined on the nodes afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

from gimlet.compiler.placement.model.problem import Fusion, Node, Option, Placement, Problem, Value, Weight
from gimlet.compiler.placement.model.segments import renumber


@dataclass(frozen=True)
class Coarse:
    """A smaller problem, and the nodes of each of its groups."""

    problem: Problem
    groups: tuple[tuple[int, ...], ...]
    group_of: tuple[int, ...]

    def expand(self, placement: Placement) -> Placement:
        """The placement of groups as one of nodes."""
        return Placement(
            tuple(placement.place[group] for group in self.group_of),
            renumber(placement.segment[group] for group in self.group_of),
        )


class _Groups:
    """Groups of nodes as a directed acyclic graph that edges are contracted in."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        count = len(problem.nodes)
        self.parent = list(range(count))
        self.members: dict[int, list[int]] = {node: [node] for node in range(count)}
        self.successors = [set(nodes) for nodes in problem.successors]
        self.predecessors = [set(nodes) for nodes in problem.predecessors]
        # A topological order of the groups, with holes where groups have gone, and each group's position in it.
        self.order: list[int | None] = list(range(count))
        self.rank = list(range(count))
        # For each pair that must be apart, 1 and 2 for its sides: a group may be on one of them.
        self.sides: list[dict[int, int]] = [{} for _ in range(count)]
        for number, pair in enumerate(problem.rules.apart):
            for side, nodes in enumerate(pair, 1):
                for node in nodes:
                    self.sides[node][number] = side
        self.cost: list[dict[int, float]] = [
            {place: problem.nodes[node].options[place].seconds for place in problem.allowed[node]}
            for node in range(count)
        ]

    def find(self, node: int) -> int:
        while self.parent[node] != node:
            self.parent[node] = self.parent[self.parent[node]]
            node = self.parent[node]
        return node

    def common(self, left: int, right: int) -> set[int]:
        """The places that take both groups; none where they must be apart."""
        first, second = self.sides[left], self.sides[right]
        if any(first[number] != second[number] for number in first.keys() & second.keys()):
            return set()
        return self.cost[left].keys() & self.cost[right].keys()

    def has_detour(self, source: int, destination: int, limit: int = 2000) -> bool:
        """Whether another path than the edge itself leads from one group to the other (or it is too long to tell)."""
        stack = [group for group in self.successors[source] if group != destination]
        seen = set(stack)
        goal = self.rank[destination]
        while stack:
            group = stack.pop()
            if len(seen) > limit:
                return True
            for following in self.successors[group]:
                if following == destination:
                    return True
                if following not in seen and self.rank[following] <= goal:
                    seen.add(following)
                    stack.append(following)
        return False

    def merge(self, left: int, right: int) -> int:
        """Merges two groups joined by an edge from left to right that has no detour."""
        self._reorder(left, right)
        kept, gone = (left, right) if len(self.members[left]) >= len(self.members[right]) else (right, left)
        common = self.common(kept, gone)
        self.cost[kept] = {place: self.cost[kept][place] + self.cost[gone][place] for place in common}
        self.sides[kept] = self.sides[kept] | self.sides[gone]
        self.members[kept] += self.members.pop(gone)
        for graph, reverse in ((self.successors, self.predecessors), (self.predecessors, self.successors)):
            for other in graph[gone]:
                reverse[other].discard(gone)
                if other != kept:
                    reverse[other].add(kept)
            graph[kept] |= graph[gone]
            graph[kept] -= {kept, gone}
            graph[gone] = set()
        self.parent[gone] = kept
        self.order[self.rank[gone]] = None
        return kept

    def _reorder(self, left: int, right: int) -> None:
        """Puts both groups next to each other in the order: what follows `left` goes behind them, the rest before.

        Nothing that follows `left` leads to `right`, so what was between them stays in order.
        """
        first, last = self.rank[left], self.rank[right]
        following = {left}
        before: list[int] = []
        behind: list[int] = []
        for position in range(first + 1, last):
            group = self.order[position]
            if group is None:
                continue
            if following.isdisjoint(self.predecessors[group]):
                before.append(group)
            else:
                following.add(group)
                behind.append(group)
        placed = [*before, left, right, *behind]
        for position, group in enumerate(placed, first):
            self.order[position] = group
            self.rank[group] = position
        for position in range(first + len(placed), last + 1):
            self.order[position] = None


def coarsen(problem: Problem, limit: int = 48) -> Coarse:
    """Groups of `problem`'s nodes, at most `limit` where what may go together allows that."""
    groups = _Groups(problem)
    for fusion in problem.fusions:
        _join(groups, fusion.producer, fusion.consumer, keep_places=True)
    _glue(groups)
    _reduce(groups, limit)
    return _build(problem, list(groups.members.values()))


def identity(problem: Problem) -> Coarse:
    """Every node a group of its own."""
    count = len(problem.nodes)
    return Coarse(problem, tuple((node,) for node in range(count)), tuple(range(count)))


def _join(groups: _Groups, source: int, destination: int, keep_places: bool) -> bool:
    left, right = groups.find(source), groups.find(destination)
    if left == right:
        return True
    common = groups.common(left, right)
    if not common or (keep_places and not (common == groups.cost[left].keys() == groups.cost[right].keys())):
        return False
    if right not in groups.successors[left] or groups.has_detour(left, right):
        return False
    groups.merge(left, right)
    return True


def _edge_seconds(problem: Problem) -> dict[tuple[int, int], float]:
    """For each edge, the least seconds that any two different devices need for its values."""
    ends = sorted({place.device for place in problem.places})
    pairs = [(a, b) for a in ends for b in ends if a != b]
    seconds: dict[tuple[int, int], float] = {}
    for value in problem.values:
        if value.producer is None:
            continue
        cheapest = min((problem.transfer_s(a, b, value.size_bytes) for a, b in pairs), default=0.0)
        for consumer in set(value.consumers):
            edge = value.producer, consumer
            seconds[edge] = seconds.get(edge, 0.0) + cheapest
    return seconds


def _glue(groups: _Groups) -> None:
    """Joins a node to its neighbour where moving the value between them costs more than the node gains anywhere."""
    seconds = _edge_seconds(groups.problem)
    order = sorted(seconds, key=lambda edge: (-seconds[edge], edge))
    for source, destination in order:
        left, right = groups.find(source), groups.find(destination)
        if left == right:
            continue
        cost = seconds[source, destination]
        if any(
            _spread(groups.cost[small]) <= cost and groups.cost[small].keys() >= groups.cost[large].keys()
            for small, large in ((left, right), (right, left))
        ):
            _join(groups, source, destination, keep_places=False)


def _spread(cost: Mapping[int, float]) -> float:
    """What a group could gain by another place at most."""
    return max(cost.values()) - min(cost.values())


def _reduce(groups: _Groups, limit: int) -> None:
    """Contracts edges until `limit` groups are left: first those that lose least."""
    seconds = _edge_seconds(groups.problem)
    for strict in (True, False):
        # An edge beside a longer path cannot be contracted before that path is: go round until nothing merges.
        while len(groups.members) > limit and _contract(groups, seconds, limit, strict):
            pass


def _contract(groups: _Groups, edges: Iterable[tuple[int, int]], limit: int, strict: bool) -> bool:
    """Contracts edges once, the cheapest first. Whether any was."""
    merged = False
    heap: list[tuple[float, int, int]] = []
    for source, destination in edges:
        left, right = groups.find(source), groups.find(destination)
        if left != right:
            heap.append((_loss(groups, left, right, strict), source, destination))
    heapify(heap)
    while heap and len(groups.members) > limit:
        loss, source, destination = heappop(heap)
        left, right = groups.find(source), groups.find(destination)
        if left == right or loss == float("inf"):
            continue
        now = _loss(groups, left, right, strict)
        if now > loss * (1 + 1e-9):
            heappush(heap, (now, source, destination))
        else:
            merged |= _join(groups, source, destination, keep_places=strict)
    return merged


def _loss(groups: _Groups, left: int, right: int, strict: bool) -> float:
    """What a merge may lose: the smaller group's seconds, and what a place that only one of them takes was worth."""
    first, second = groups.cost[left], groups.cost[right]
    common = first.keys() & second.keys()
    if not common or (strict and first.keys() != second.keys()):
        return float("inf")
    lost = sum(min(cost[p] for p in common) - min(cost.values()) for cost in (first, second))
    return min(min(first.values()), min(second.values())) + 10 * lost


def _build(problem: Problem, members: Iterable[Sequence[int]]) -> Coarse:
    """The problem of the groups, numbered in a topological order."""
    unordered = [sorted(group) for group in members]
    owner = {node: index for index, group in enumerate(unordered) for node in group}
    order = _topological(problem, unordered, owner)
    groups = tuple(tuple(unordered[index]) for index in order)
    group_of = [0] * len(problem.nodes)
    for index, group in enumerate(groups):
        for node in group:
            group_of[node] = index
    rules = problem.rules
    together = {tuple(sorted({group_of[node] for node in nodes})) for nodes in rules.together}
    inside: list[list[Fusion]] = [[] for _ in groups]
    for fusion in problem.fusions:
        if group_of[fusion.producer] == group_of[fusion.consumer]:
            inside[group_of[fusion.producer]].append(fusion)
    nodes = tuple(_group_node(problem, group, fused) for group, fused in zip(groups, inside, strict=True))
    coarse = Problem(
        devices=problem.devices,
        places=problem.places,
        nodes=nodes,
        values=_group_values(problem, group_of),
        routes=problem.routes,
        weights=tuple(_group_weight(weight, group_of) for weight in problem.weights),
        fusions=_group_fusions(problem, group_of, nodes),
        host=problem.host,
        rules=replace(
            rules,
            pins={},
            together=tuple(sorted(group for group in together if len(group) > 1)),
            apart=tuple(
                (tuple(sorted({group_of[n] for n in left})), tuple(sorted({group_of[n] for n in right})))
                for left, right in rules.apart
            ),
        ),
    )
    return Coarse(coarse, groups, tuple(group_of))


def _topological(problem: Problem, groups: Sequence[Sequence[int]], owner: Mapping[int, int]) -> list[int]:
    waiting = [
        len({owner[p] for node in group for p in problem.predecessors[node]} - {index})
        for index, group in enumerate(groups)
    ]
    ready = [(group[0], index) for index, group in enumerate(groups) if not waiting[index]]
    heapify(ready)
    order: list[int] = []
    while ready:
        _, index = heappop(ready)
        order.append(index)
        for following in {owner[s] for node in groups[index] for s in problem.successors[node]} - {index}:
            waiting[following] -= 1
            if not waiting[following]:
                heappush(ready, (groups[following][0], following))
    return order


def _group_node(problem: Problem, group: Sequence[int], inside: Sequence[Fusion]) -> Node:
    nodes = [problem.nodes[index] for index in group]
    common = set(problem.allowed[group[0]]).intersection(*(problem.allowed[index] for index in group))
    options: dict[int, Option] = {}
    for place in sorted(common):
        parts = [node.options[place] for node in nodes]
        joules = [part.joules for part in parts]
        known = [j for j in joules if j is not None]
        options[place] = Option(
            max(sum(p.seconds for p in parts) - sum(f.seconds.get(place, 0.0) for f in inside), 0.0),
            sum(known) - sum(f.joules.get(place, 0.0) for f in inside) if len(known) == len(joules) else None,
            max(part.activation_bytes for part in parts),
            sum(part.usd for part in parts),
            math.hypot(*(part.loss for part in parts)),
        )
    name = nodes[0].name if len(nodes) == 1 else f"{nodes[0].name} … {nodes[-1].name}"
    return Node(name, nodes[0].op_type, options, flops=sum(node.flops for node in nodes))


def _group_values(problem: Problem, group_of: Sequence[int]) -> tuple[Value, ...]:
    """Values between groups; those with the same ends always travel in one batch and become one."""
    sizes: dict[tuple[int | None, tuple[int, ...], bool], int] = {}
    cast: dict[tuple[int | None, tuple[int, ...], bool], int] = {}
    gather: dict[tuple[int | None, tuple[int, ...], bool], dict[int, float]] = {}
    names: dict[tuple[int | None, tuple[int, ...], bool], str] = {}
    for value in problem.values:
        producer = None if value.producer is None else group_of[value.producer]
        consumers = tuple(sorted({group_of[consumer] for consumer in value.consumers} - {producer}))
        is_output = value.is_output and producer is not None
        if consumers or is_output:
            key = producer, consumers, is_output
            sizes[key] = sizes.get(key, 0) + value.size_bytes
            cast[key] = cast.get(key, 0) + value.cast_bytes
            for place, seconds in value.gather_s.items():
                gather.setdefault(key, {})[place] = gather.get(key, {}).get(place, 0.0) + seconds
            names.setdefault(key, value.name)
    return tuple(
        Value(names[key], size, *key, cast_bytes=cast[key], gather_s=gather.get(key, {})) for key, size in sizes.items()
    )


def _group_weight(weight: Weight, group_of: Sequence[int]) -> Weight:
    streams: dict[int, dict[int, float]] = {}
    for place, by_user in weight.stream_s.items():
        sums = streams.setdefault(place, {})
        for user, seconds in by_user.items():
            sums[group_of[user]] = sums.get(group_of[user], 0.0) + seconds
    users = tuple(sorted({group_of[user] for user in weight.users}))
    return replace(weight, users=users, stream_s=streams)


def _group_fusions(problem: Problem, group_of: Sequence[int], nodes: Sequence[Node]) -> tuple[Fusion, ...]:
    seconds: dict[tuple[int, int], dict[int, float]] = {}
    joules: dict[tuple[int, int], dict[int, float]] = {}
    for fusion in problem.fusions:
        pair = group_of[fusion.producer], group_of[fusion.consumer]
        if pair[0] == pair[1]:
            continue
        for total, part in ((seconds, fusion.seconds), (joules, fusion.joules)):
            sums = total.setdefault(pair, {})
            for place, saved in part.items():
                if all(place in nodes[group].options for group in pair):
                    sums[place] = sums.get(place, 0.0) + saved
    return tuple(Fusion(*pair, seconds[pair], joules[pair]) for pair in sorted(seconds))
