"""How many bytes of the model's inputs a node waits for at least, as if they came in one batch.

An input that only this node reads is in the batch of the node's segment. One that others read as well may have come
with the batch of an earlier segment, and the two overlap where the way has several links: the second batch leaves when
the first has left the slowest of them. Together they take that link's seconds a byte, which are the way's own where it
is one link. Nothing overlaps within a batch.
"""

from __future__ import annotations

from gimlet.compiler.placement.model.problem import Problem


def input_bytes(problem: Problem) -> dict[int, int]:
    """Bytes by node, for those that read an input; they hold whatever device the node is on."""
    alone: dict[int, int] = {}
    largest: dict[int, int] = {}
    every: dict[int, int] = {}
    for value in problem.values if problem.nodes else ():
        readers = set(value.consumers) if value.producer is None else set[int]()
        for node in readers:
            every[node] = every.get(node, 0) + value.size_bytes
            largest[node] = max(largest.get(node, 0), value.size_bytes)
            alone[node] = alone.get(node, 0) + (value.size_bytes if len(readers) == 1 else 0)
    part = _least_part(problem)
    return {node: max(int(part * total), alone[node], largest[node]) for node, total in every.items()}


def _least_part(problem: Problem) -> float:
    """The part of a way's seconds a byte that its slowest link takes: the least of all devices, at most 1."""
    least = 1.0
    for device in {place.device for place in problem.places} - {problem.host}:
        route = problem.routes[problem.host, device]
        if route.seconds_per_byte:
            slowest = max((seconds for _, seconds in route.links), default=0.0)
            least = min(least, slowest / route.seconds_per_byte)
    return least
