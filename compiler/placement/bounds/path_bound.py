"""The longest path through a problem, when each node may choose its place to suit each of its neighbours.

`heads` and `tails` bound from below when a node on a place can have ended, and how long it takes from its start to the
end of everything. Both hold for every schedule: data moves along the path, and a change of place costs a launch.
"""

from __future__ import annotations

from gimlet.compiler.placement.bounds.input_batches import input_bytes
from gimlet.compiler.placement.model.problem import Problem

_INFINITE = float("inf")


def _bytes(problem: Problem) -> dict[tuple[int, int], int]:
    """Bytes along each edge; -1 is the host at either end."""
    sizes = {(-1, node): size for node, size in input_bytes(problem).items()}
    for value in problem.values:
        source = value.producer
        if source is None:
            continue
        for consumer in set(value.consumers):
            sizes[source, consumer] = sizes.get((source, consumer), 0) + value.size_bytes
        if value.is_output:
            sizes[source, -1] = sizes.get((source, -1), 0) + value.size_bytes
    return sizes


def _hop(problem: Problem, source: int, destination: int, size_bytes: int) -> float:
    if source == destination:
        return 0.0
    left, right = problem.device_of[source], problem.device_of[destination]
    return problem.launch_s[destination] + problem.transfer_s(left, right, size_bytes)


def heads(problem: Problem) -> list[list[float]]:
    """For node and place: the earliest time by which the node can have ended there (infinite where not allowed)."""
    own, sizes = problem.fused_seconds.tolist(), _bytes(problem)
    head: list[list[float]] = []
    for node, sources in enumerate(problem.predecessors):
        row = [_INFINITE] * len(problem.places)
        for place in problem.allowed[node]:
            device = problem.device_of[place]
            start = problem.launch_s[place]
            if (-1, node) in sizes:
                start += problem.transfer_s(problem.host, device, sizes[-1, node])
            for source in sources:
                size = sizes[source, node]
                ends = (head[source][p] + _hop(problem, p, place, size) for p in problem.allowed[source])
                start = max(start, min(ends))
            row[place] = start + own[node][place]
        head.append(row)
    return head


def tails(problem: Problem) -> list[list[float]]:
    """For node and place: the least time from the node's own start there to the end of everything."""
    own, sizes = problem.fused_seconds.tolist(), _bytes(problem)
    tail: list[list[float]] = [[] for _ in problem.nodes]
    for node in reversed(range(len(problem.nodes))):
        row = [_INFINITE] * len(problem.places)
        for place in problem.allowed[node]:
            device = problem.device_of[place]
            rest = problem.transfer_s(device, problem.host, sizes[node, -1]) if (node, -1) in sizes else 0.0
            for following in problem.successors[node]:
                size = sizes[node, following]
                rest = max(
                    rest,
                    min(_hop(problem, place, p, size) + tail[following][p] for p in problem.allowed[following]),
                )
            row[place] = own[node][place] + rest
        tail[node] = row
    return tail
