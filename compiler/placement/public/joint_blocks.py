"""A public problem as a row of blocks between joints.

Terms: a *joint* is a node that comes before or after every other node; a *block* is what lies between two joints that
follow each other; a *cut* of a block is an ideal of it: nodes with all that they need.

A subgraph that holds two joints holds everything between them, since it is convex. What it holds besides is the end of
the block before its first joint and the beginning of the block after its last one. So one cut says where a subgraph
begins or ends, and times add up from joint to joint.

Most graphs have inputs, constants and unused outputs at their sides, which come before or after some nodes only. They
are left out here: what is kept are the nodes between the first and the last node of the path that takes the CPU
longest. A split of all nodes is a split of these, and no slower for it, so a bound for these holds for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.public.public_format import PublicNode, PublicProblem
from gimlet.compiler.placement.public.public_start import Units

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]

# A block with more cuts than this is taken for empty: its nodes cost nothing.
MOST_CUTS = 20_000
# And one with a part of more ideals than this: there is a table from each to each.
_MOST_IDEALS = 3_000


@dataclass(frozen=True)
class _Part:
    """Nodes of a block that hang together: their ideals as bits, and the time between two of them.

    `alone[b, a]` is what the nodes of ideal `a` that are not in `b` take on CPUs, infinite where `a` does not hold `b`;
    `helped[b, a]` is a bound for it where other subgraphs take some of these nodes.
    """

    nodes: tuple[int, ...]
    ideals: tuple[int, ...]
    alone: Floats
    helped: Floats


@dataclass(frozen=True)
class Block:
    """What lies behind a joint, up to the next one: its nodes and cuts.

    `holds[cut, n]` says that the cut holds `nodes[n]`. `place[part, cut]` is which ideal of each part the cut is.
    """

    nodes: tuple[int, ...]
    holds: Bools
    parts: tuple[_Part, ...]
    place: Indices

    def helpers(self, problem: PublicProblem, row: int, column: int) -> list[list[int]]:
        """Subgraphs that may help between two cuts. Row 0 is the joint before the block, row c + 1 is cut c, and the
        last column the joint behind it."""
        found: list[list[int]] = []
        for part, place in zip(self.parts, self.place, strict=True):
            first = 0 if row == 0 else int(place[row - 1])
            last = len(part.ideals) - 1 if column == len(self.holds) else int(place[column])
            if part.helped[first, last] < part.alone[first, last]:
                found += helping_subgraphs(problem, _members(part.ideals[last] & ~part.ideals[first]))
        return found


@dataclass(frozen=True)
class Row:
    """Joints in their order, and the block behind each (that of the last one is empty).

    `problem` has the nodes between the first and the last joint only; `kept` are their places in the whole one. Where
    there is no CPU, nodes take it forever.
    """

    problem: PublicProblem
    kept: tuple[int, ...]
    joints: tuple[int, ...]
    blocks: tuple[Block, ...]
    release: Mapping[int, float]


def kept_nodes(problem: PublicProblem) -> tuple[int, ...]:
    """Nodes between the ends of the path that takes the CPU longest."""
    longest: list[float] = []
    first: list[int] = []
    for node, figures in enumerate(problem.nodes):
        source = max(problem.predecessors[node], key=lambda source: longest[source], default=None)
        longest.append(figures.cpu + (0.0 if source is None else longest[source]))
        first.append(node if source is None else first[source])
    last = max(range(len(longest)), key=lambda node: (longest[node], node))
    begin = first[last]
    while problem.successors[last]:
        last = max(problem.successors[last])
    return _members((all_after(problem)[begin] | 1 << begin) & (_all_before(problem)[last] | 1 << last))


def row_of(
    problem: PublicProblem,
    units: Units,
    kept: Sequence[int],
    release: Mapping[int, float] | None = None,
    most_cuts: int = MOST_CUTS,
) -> Row:
    """The joints and blocks of what is kept of a problem, which has at least one node.

    `release` says before when a subgraph with a node cannot begin. Blocks with more than `most_cuts` cuts are empty.
    """
    number = {node: index for index, node in enumerate(kept)}
    inner = replace(
        problem,
        nodes=tuple(_whole(problem, units, node, number) for node in kept),
        edges=tuple((number[a], number[b]) for a, b in problem.edges if a in number and b in number),
        cost=tuple(problem.cost[node] for node in kept),
    )
    members = [[number[node] for node in nodes if node in number] for nodes in units.members]
    whole = [sum(1 << node for node in nodes) for nodes in members if len(nodes) > 1]
    before, after = _all_before(inner), all_after(inner)
    everything = (1 << len(kept)) - 1
    joints = tuple(node for node in range(len(kept)) if before[node] | after[node] | 1 << node == everything)
    blocks: list[Block] = []
    for joint, following in zip(joints, [*joints[1:], None], strict=True):
        inside = 0 if following is None else after[joint] & before[following]
        blocks.append(_block(inner, _members(inside), before[joint] | 1 << joint, whole, most_cuts))
    return Row(
        inner, tuple(kept), joints, tuple(blocks), {number[node]: time for node, time in (release or {}).items()}
    )


def _whole(problem: PublicProblem, units: Units, node: int, kept: Mapping[int, int]) -> PublicNode:
    """A node with what goes where it goes: the first of a unit that is kept has the weight of those that are not.

    Where there is no CPU, it takes a node forever.
    """
    members = units.members[units.unit_of[node]]
    figures = problem.nodes[node]
    if node == next(member for member in members if member in kept):
        others = [problem.nodes[member] for member in members if member not in kept]
        figures = replace(
            figures,
            accelerator=figures.accelerator + sum(other.accelerator for other in others),
            size=figures.size + sum(other.size for other in others),
            on_accelerator=figures.on_accelerator and all(other.on_accelerator for other in others),
        )
    return figures if problem.cpus else replace(figures, cpu=float("inf"))


def _members(bits: int) -> tuple[int, ...]:
    return tuple(node for node in range(bits.bit_length()) if bits >> node & 1)


def _all_before(problem: PublicProblem) -> list[int]:
    """For each node all that comes before it, as bits."""
    found: list[int] = []
    for sources in problem.predecessors:
        found.append(reduce(int.__or__, (found[source] | 1 << source for source in sources), 0))
    return found


def all_after(problem: PublicProblem) -> list[int]:
    """For each node all that comes after it, as bits."""
    found = [0] * len(problem.nodes)
    for node in reversed(range(len(found))):
        found[node] = reduce(int.__or__, (found[after] | 1 << after for after in problem.successors[node]), 0)
    return found


def _block(problem: PublicProblem, nodes: tuple[int, ...], earlier: int, whole: Sequence[int], most: int) -> Block:
    """A block; `earlier` are the nodes before it, `whole` the sets of nodes that no cut may divide."""
    groups = _groups(problem, nodes, whole)
    ideals = [_ideals(problem, group, min(most, _MOST_IDEALS)) for group in groups]
    if any(found is None for found in ideals) or prod(len(found or ()) for found in ideals) > most:
        groups, ideals, nodes = [], [], ()
    parts = tuple(_part(problem, group, found or []) for group, found in zip(groups, ideals, strict=True))
    place: list[tuple[int, ...]] = []
    cuts: list[int] = []
    for choice in product(*(range(len(part.ideals)) for part in parts)):
        cut = reduce(int.__or__, (part.ideals[index] for part, index in zip(parts, choice, strict=True)), 0)
        if not any(_divides(earlier | cut, bits) for bits in whole):
            cuts.append(cut)
            place.append(choice)
    holds = np.array([[bool(cut >> node & 1) for node in nodes] for cut in cuts], dtype=bool)
    return Block(
        nodes,
        holds.reshape(len(cuts), len(nodes)),
        parts,
        np.array(place, dtype=np.int64).reshape(len(cuts), len(parts)).T,
    )


def _divides(ideal: int, bits: int) -> bool:
    return bool(ideal & bits) and bool(bits & ~ideal)


def _groups(problem: PublicProblem, nodes: Sequence[int], whole: Sequence[int]) -> list[list[int]]:
    """The nodes in groups that neither edges nor sets that must stay whole connect."""
    inside = sum(1 << node for node in nodes)
    ties = [1 << node | sum(1 << after for after in problem.successors[node]) for node in nodes]
    groups: list[int] = []
    for tie in (bits & inside for bits in [*ties, *whole]):
        if not tie:
            continue
        apart = [group for group in groups if not group & tie]
        groups = [*apart, reduce(int.__or__, (group for group in groups if group & tie), tie)]
    return [[node for node in nodes if group >> node & 1] for group in groups]


def _ideals(problem: PublicProblem, nodes: Sequence[int], most: int) -> list[int] | None:
    """All ideals of these nodes, from the empty one to the whole; None where they are too many."""
    inside = sum(1 << node for node in nodes)
    needs = {node: sum(1 << source for source in problem.predecessors[node]) & inside for node in nodes}
    found = {0}
    waiting = [0]
    while waiting:
        ideal = waiting.pop()
        for node in nodes:
            larger = ideal | 1 << node
            if needs[node] & ~ideal or larger in found:
                continue
            found.add(larger)
            waiting.append(larger)
        if len(found) > most:
            return None
    return sorted(found, key=lambda ideal: (ideal.bit_count(), ideal))


def _part(problem: PublicProblem, nodes: Sequence[int], ideals: Sequence[int]) -> _Part:
    holds = np.array([[bool(ideal >> node & 1) for node in nodes] for ideal in ideals], dtype=bool)
    leaving = _leaving(problem, nodes, holds)
    on_cpu = _on_cpu(problem, nodes, holds)
    alone = _last(on_cpu, on_cpu, holds, leaving)
    helped = np.minimum(_last(*_helped(problem, nodes, holds), holds, leaving), alone)
    apart = np.array([[bool(b & ~a) for a in ideals] for b in ideals], dtype=bool)
    return _Part(tuple(nodes), tuple(ideals), np.where(apart, np.inf, alone), np.where(apart, np.inf, helped))


def _leaving(problem: PublicProblem, nodes: Sequence[int], holds: Bools) -> Bools:
    """For each ideal which nodes have a reader that it does not hold."""
    column = {node: index for index, node in enumerate(nodes)}
    found = np.zeros(holds.shape, dtype=bool)
    for index, node in enumerate(nodes):
        for after in problem.successors[node]:
            found[:, index] |= ~holds[:, column[after]] if after in column else True
    return found


def _last(inside: Floats, given: Floats, holds: Bools, leaving: Bools) -> Floats:
    """For each pair of ideals the last finish of what is in the second; what is in the first has finished at 0.

    Finishes are `given` for nodes whose readers are not all in the second ideal, else `inside`.
    """
    found = np.zeros((len(holds), len(holds)))
    for node in range(holds.shape[1]):
        finish = np.where(leaving[:, node], given[:, node, None], inside[:, node, None])
        np.maximum(found, np.where(holds[:, node] & ~holds[:, node, None], finish, 0.0), out=found)
    return found


def _on_cpu(problem: PublicProblem, nodes: Sequence[int], holds: Bools) -> Floats:
    """When each node has finished on a CPU, for each ideal that has finished at 0."""
    column = {node: index for index, node in enumerate(nodes)}
    found = np.zeros(holds.shape)
    for index, node in enumerate(nodes):
        inside = [found[:, column[source]] for source in problem.predecessors[node] if source in column]
        start = np.max(inside, axis=0) if inside else 0.0
        found[:, index] = np.where(holds[:, index], 0.0, start + problem.nodes[node].cpu)
    return found


def _helped(problem: PublicProblem, nodes: Sequence[int], holds: Bools) -> tuple[Floats, Floats]:
    """A bound for the same where subgraphs within the block may hold nodes; and with what they then give away.

    A subgraph waits for what it fetches, and takes at least the time of what it fetches on a path, of the path's nodes
    and of what it gives away there.
    """
    column = {node: index for index, node in enumerate(nodes)}
    on_cpu, on_accelerator = np.zeros(holds.shape), np.zeros(holds.shape)
    for index, node in enumerate(nodes):
        start, entry = np.zeros(len(holds)), np.zeros(len(holds))
        for source in problem.predecessors[node]:
            cost = problem.cost[source]
            if source not in column:
                entry = np.maximum(entry, cost)
                continue
            there = column[source]
            held = holds[:, there]
            given = np.where(held, 0.0, np.minimum(on_cpu[:, there], on_accelerator[:, there] + cost))
            start = np.maximum(start, given)
            fetched = np.minimum(on_accelerator[:, there], on_cpu[:, there] + cost)
            entry = np.maximum(entry, np.where(held, cost, fetched))
        on_cpu[:, index] = start + problem.nodes[node].cpu
        on_accelerator[:, index] = entry + _accelerator(problem, node)
    costs = np.array([problem.cost[node] for node in nodes])
    return np.minimum(on_cpu, on_accelerator), np.minimum(on_cpu, on_accelerator + costs)


def _accelerator(problem: PublicProblem, node: int) -> float:
    figures = problem.nodes[node]
    return figures.accelerator if figures.on_accelerator else float("inf")


def helping_subgraphs(problem: PublicProblem, nodes: Sequence[int]) -> list[list[int]]:
    """Subgraphs of these nodes, as the bound of `_helped` would have them. Where ways part, they need not fit."""
    on_cpu: dict[int, float] = {}
    on_accelerator: dict[int, float] = {}
    stays: dict[tuple[int, int], bool] = {}
    for node in nodes:
        start = entry = 0.0
        for source in problem.predecessors[node]:
            cost = problem.cost[source]
            cpu, accelerator = on_cpu.get(source, 0.0), on_accelerator.get(source, float("inf"))
            start = max(start, min(cpu, accelerator + cost))
            entry = max(entry, min(accelerator, cpu + cost))
            stays[source, node] = accelerator < cpu + cost
        on_cpu[node] = start + problem.nodes[node].cpu
        on_accelerator[node] = entry + _accelerator(problem, node)
    chosen: dict[int, bool] = {}
    group: dict[int, list[int]] = {}
    for node in reversed(nodes):
        readers = [after for after in problem.successors[node] if after in chosen]
        together = [after for after in readers if chosen[after] and stays[node, after]]
        given = on_accelerator[node] + problem.cost[node] < on_cpu[node]
        chosen[node] = bool(together) or (given and not any(chosen[after] for after in readers))
        if chosen[node]:
            joined = [group[after] for after in together]
            merged = [node]
            for members in {id(members): members for members in joined}.values():
                merged += members
            group |= dict.fromkeys(merged, merged)
    return list({id(members): members for members in group.values()}.values())
