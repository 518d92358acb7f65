"""A path through the graph with all other nodes beside it: what a segment that holds two nodes of the path must hold.

No other segment can be between two nodes of one segment: it would have to run after and before it. So what a segment
has of a path is one stretch of it, and where it has nodes `a` and `b` of the path it has every node that `a` leads to
and that leads to `b`.
"""

from __future__ import annotations

from collections.abc import Sequence

from gimlet.compiler.placement.model.problem import Problem

_LONGEST = 16
"""So many steps of the path a node beside it may span to be counted where a segment spans them too."""


class Spine:
    """A path, its *joints*, and the other nodes: those `beside` it and those `apart` from it.

    A node beside the path is on a way from one node of it to another, a few steps later. A position that no such way
    passes by is a joint; `beside` has by joint the nodes between it and the joint before.
    """

    def __init__(self, problem: Problem, path: Sequence[int]) -> None:
        self.path = tuple(path)
        position = {node: index for index, node in enumerate(path)}
        count = len(path)
        after: list[int] = []
        for node, sources in enumerate(problem.predecessors):
            latest = max((after[source] for source in sources), default=-1)
            after.append(position.get(node, latest))
        before = [count] * len(problem.nodes)
        for node in reversed(range(len(problem.nodes))):
            earliest = min((before[target] for target in problem.successors[node]), default=count)
            before[node] = position.get(node, earliest)
        others = [node for node in range(len(problem.nodes)) if node not in position]
        near = [n for n in others if after[n] >= 0 and before[n] < count and before[n] - after[n] <= _LONGEST]
        passed = {between for node in near for between in range(after[node] + 1, before[node])}
        self.joint = tuple(index not in passed for index in range(count))
        following = count
        closes = [0] * count
        for index in reversed(range(count)):
            following = index if self.joint[index] else following
            closes[index] = following
        beside: list[list[int]] = [[] for _ in path]
        for node in near:
            beside[closes[before[node]]].append(node)
        self.beside = tuple(tuple(nodes) for nodes in beside)
        self.apart = tuple(sorted(set(others) - set(near)))


def heaviest_path(problem: Problem) -> list[int]:
    """The path whose nodes take longest where each of them is fastest."""
    weight = [float(row.min()) for row in problem.seconds]
    least = max(sum(weight), 1.0) * 1e-9
    ends: list[float] = []
    parents: list[int] = []
    for node, sources in enumerate(problem.predecessors):
        parent = max(sources, key=lambda source: (ends[source], -source), default=-1)
        ends.append(weight[node] + least + (ends[parent] if parent >= 0 else 0.0))
        parents.append(parent)
    node = max(range(len(ends)), key=lambda n: (ends[n], -n), default=-1)
    path: list[int] = []
    while node >= 0:
        path.append(node)
        node = parents[node]
    return path[::-1]
