"""A lower bound on the latency of every placement, and the placement that the bound suggests.

Terms: node *a* is *comparable* with *b* when one is an ancestor of the other. A *joint* is a node that is comparable
with all others: everything before it has ended when it starts, and everything after it starts when it has ended. The
nodes between two consecutive joints are a *block*.

The idea: at a joint the schedule falls into two parts, so the latency is at least the sum over blocks of the shortest
time in which a block can be done, given the places of its two joints; a shortest path over the places of joints then
gives the bound. Within a block, which is empty or small in most models, branch and bound tries all places against two
things that hold in every schedule: values travel along edges, and a device does one thing at a time. Where a block is
too large for that, the longest path and the work spread over all devices bound it instead. Blocks of any size are
bounded by what atomic segments imply as well (`atomic_bound`).

Side branches that span much of the graph (the mask of a transformer, an early output) would leave no joints. They are
left out, which keeps the bound valid; several amounts of leaving out are tried and the best bound is kept.

What is not counted, so what would make the gap large: segments that must be launched twice, values that cross a joint,
memory, and shares between devices. Cost, measured: 0.1 to 0.8 s for 400 to 1,900 ops and three places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from gimlet.compiler.placement.bounds.block_bound import Block, BlockTable, Ends, solve_block
from gimlet.compiler.placement.bounds.input_batches import input_bytes
from gimlet.compiler.placement.model.problem import Problem

_SPANS = (10**9, 64, 16, 4, 0)
_BUDGET = 100_000


@dataclass(frozen=True)
class LatencyBound:
    """`seconds` is a proven lower bound; `place` is a placement of all nodes that comes from it (feasible or not).

    `choice` is the amount of leaving out that gave it.
    """

    seconds: float
    place: tuple[int, ...]
    choice: int = 0


@dataclass
class Relaxation:
    """The problem seen as edges with bytes: what the bounds of this file work on.

    `seconds[n][p]` has what fusion could save already taken off, infinite where not allowed.
    """

    problem: Problem
    seconds: list[list[float]] = field(default_factory=list[list[float]])
    edges: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    input_bytes: dict[int, int] = field(default_factory=dict[int, int])
    output_bytes: dict[int, int] = field(default_factory=dict[int, int])

    def __post_init__(self) -> None:
        problem = self.problem
        self.input_bytes = input_bytes(problem)
        self.seconds = problem.fused_seconds.tolist()
        for value in problem.values:
            for consumer in set(value.consumers):
                if value.producer is not None:
                    edge = value.producer, consumer
                    self.edges[edge] = self.edges.get(edge, 0) + value.size_bytes
            if value.is_output and value.producer is not None:
                self.output_bytes[value.producer] = self.output_bytes.get(value.producer, 0) + value.size_bytes


@dataclass(frozen=True)
class Joints:
    """The joints among the nodes that were kept, in order; `inner[i]` are the nodes just before joint `i`.

    The last of `inner` is what follows the last joint.
    """

    relaxation: Relaxation
    nodes: tuple[int, ...]
    inner: tuple[tuple[int, ...], ...]
    left_out: tuple[int, ...]

    def block(self, step: int) -> Block:
        """The block that ends with joint `step`, or with the end of everything."""
        first = self.nodes[step - 1] if step else -1
        last = self.nodes[step] if step < len(self.nodes) else -1
        return _block(self.relaxation, first, self.inner[step], last)

    def ends(self, step: int) -> list[int]:
        """Places where joint `step` may be; -1, the host, is after the last."""
        if step == len(self.nodes):
            return [-1]
        return [place for place, s in enumerate(self.relaxation.seconds[self.nodes[step]]) if s < float("inf")]


def latency_bound(problem: Problem, budget: int = _BUDGET, until: float = float("inf")) -> LatencyBound:
    """The best bound over all amounts of leaving out. Rules other than pins are not used."""
    return LatencyRelaxation(problem, until).bound(budget=budget)


class LatencyRelaxation:
    """The bound of one problem, to be taken again with other charges. Searches end at `until` (`perf_counter`)."""

    def __init__(self, problem: Problem, until: float = float("inf")) -> None:
        self.problem, self.until = problem, until
        self.relaxation = Relaxation(problem)
        self.ancestors, self.descendants = closures(problem)
        spans = self._spans(self._spine()) if problem.nodes else []
        kept = {limit: tuple(n for n, span in enumerate(spans) if span <= limit) for limit in _SPANS}
        self.choices = list(dict.fromkeys(kept.values()))

    def bound(
        self,
        charge: list[list[float]] | None = None,
        choice: int | None = None,
        budget: int = _BUDGET,
        enough: float = float("inf"),
    ) -> LatencyBound:
        """A lower bound on latency plus charges: `charge[node][place]` is paid where the node is on the place.

        `choice` is one amount of leaving out; by default all are tried, until one gives `enough`. `budget` limits the
        searches, all together.
        """
        if not self.problem.nodes:
            return LatencyBound(0.0, ())
        charges = charge or [[0.0] * len(self.problem.places) for _ in self.problem.nodes]
        table = BlockTable(self.relaxation.seconds, self.problem, charges, budget, self.until)
        best: LatencyBound | None = None
        for number in range(len(self.choices)):
            if choice is not None and number != choice:
                continue
            found = self._bound(table, number)
            if best is None or found.seconds > best.seconds + 1e-12 * abs(best.seconds):
                best = LatencyBound(found.seconds, found.place, number)
            if best.seconds >= enough * (1 - 1e-9) or perf_counter() > self.until:
                break
        return best or LatencyBound(0.0, ())

    def largest_block(self, choice: int) -> int:
        """How many nodes the largest block has with one amount of leaving out."""
        return max(len(inner) for inner in self.joints(choice).inner)

    def joints(self, choice: int) -> Joints:
        """The joints with one amount of leaving out."""
        kept = self.choices[choice]
        ancestors, descendants = self.ancestors, self.descendants
        mask = sum(1 << node for node in kept)
        joints = [n for n in kept if not mask & ~(ancestors[n] | descendants[n] | 1 << n)]
        joint_mask = sum(1 << node for node in joints)
        groups: list[list[int]] = [[] for _ in range(len(joints) + 1)]
        for node in kept:
            if not joint_mask >> node & 1:
                groups[(ancestors[node] & joint_mask).bit_count()].append(node)
        left_out = sorted(set(range(len(self.problem.nodes))) - set(kept))
        return Joints(self.relaxation, tuple(joints), tuple(tuple(group) for group in groups), tuple(left_out))

    def _spine(self) -> list[int]:
        """The heaviest path, by each node's fastest place."""
        weight = [min(row) for row in self.relaxation.seconds]
        ends: list[float] = []
        parents: list[int] = []
        for node, sources in enumerate(self.problem.predecessors):
            parent = max(sources, key=lambda source: (ends[source], -source), default=-1)
            ends.append(weight[node] + (ends[parent] if parent >= 0 else 0.0))
            parents.append(parent)
        node = max(range(len(ends)), key=lambda n: (ends[n], -n))
        path: list[int] = []
        while node >= 0:
            path.append(node)
            node = parents[node]
        return path[::-1]

    def _spans(self, spine: Sequence[int]) -> list[int]:
        """For each node, how many nodes of the spine it is not comparable with."""
        mask = sum(1 << node for node in spine)
        return [
            (mask & ~(self.ancestors[node] | self.descendants[node] | 1 << node)).bit_count()
            for node in range(len(self.problem.nodes))
        ]

    def _bound(self, table: BlockTable, choice: int) -> LatencyBound:
        """The bound with one amount of leaving out; of what is left out only the least charge counts."""
        problem, joints = self.problem, self.joints(choice)
        reached: dict[int, float] = {-1: 0.0}
        trail: list[dict[int, tuple[int, tuple[int, ...]]]] = []
        for step in range(len(joints.inner)):
            block = joints.block(step)
            following: dict[int, float] = {}
            steps: dict[int, tuple[int, tuple[int, ...]]] = {}
            for end in joints.ends(step):
                for start, time in reached.items():
                    seconds, places = solve_block(table, block, Ends(start, end))
                    if time + seconds < following.get(end, float("inf")):
                        following[end] = time + seconds
                        steps[end] = start, places
            reached = following
            trail.append(steps)
        place = [-1] * len(problem.nodes)
        end = -1
        for step in reversed(range(len(joints.inner))):
            start, places = trail[step][end]
            for node, chosen in zip(joints.inner[step], places, strict=True):
                place[node] = chosen
            if step:
                place[joints.nodes[step - 1]] = start
            end = start
        rest = sum(min(table.charge[n][p] for p in problem.allowed[n]) for n in joints.left_out)
        return LatencyBound(reached[-1] + rest, complete(problem, place))


def closures(problem: Problem) -> tuple[list[int], list[int]]:
    """Ancestors and descendants of each node, itself not included, as bit sets."""
    ancestors = [0] * len(problem.nodes)
    for node, sources in enumerate(problem.predecessors):
        for source in sources:
            ancestors[node] |= ancestors[source] | 1 << source
    descendants = [0] * len(problem.nodes)
    for node in reversed(range(len(problem.nodes))):
        for following in problem.successors[node]:
            descendants[node] |= descendants[following] | 1 << following
    return ancestors, descendants


def _block(relaxation: Relaxation, first: int, inner: tuple[int, ...], last: int) -> Block:
    number = {node: index for index, node in enumerate(inner)}
    problem = relaxation.problem
    sources = [relaxation.input_bytes.get(n) if first < 0 else relaxation.edges.get((first, n)) for n in inner]
    sinks = [relaxation.output_bytes.get(n) if last < 0 else relaxation.edges.get((n, last)) for n in inner]
    edges = tuple(
        tuple((number[p], relaxation.edges[p, node]) for p in problem.predecessors[node] if p in number)
        for node in inner
    )
    direct = None
    if first >= 0 and last >= 0:
        direct = relaxation.edges.get((first, last))
    elif first >= 0:
        direct = relaxation.output_bytes.get(first)
    elif last >= 0:
        direct = relaxation.input_bytes.get(last)
    return Block(inner, last, tuple(sources), tuple(sinks), edges, direct)


def complete(problem: Problem, place: list[int]) -> tuple[int, ...]:
    """Gives the nodes that were left out the place of a neighbour that they may share, else their fastest."""
    for node in [*range(len(place)), *reversed(range(len(place)))]:
        if place[node] >= 0:
            continue
        near = [place[n] for n in (*problem.successors[node], *problem.predecessors[node]) if place[n] >= 0]
        usable = [p for p in near if p in problem.allowed[node]]
        if usable:
            place[node] = max(sorted(set(usable)), key=usable.count)
    return tuple(
        chosen if chosen >= 0 else min(problem.allowed[node], key=lambda p: problem.nodes[node].options[p].seconds)
        for node, chosen in enumerate(place)
    )
