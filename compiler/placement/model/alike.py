"""Devices that can be exchanged for each other, and what that leaves to decide; ops that cost the same everywhere.

Two devices are *alike* where every figure of theirs is equal: memory, launch, power and price, the places they offer,
what each op costs or is refused there, what pins and shares say, and the speed and price of the routes to everything
else. A placement with two such devices exchanged is as good as it was. Searches therefore try only the first unused one
of a class, and bounds take a class as one device of several times the speed.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from gimlet.compiler.placement.model.problem import Problem


def device_classes(problem: Problem) -> list[list[int]]:
    """Devices with places, in classes of those that are alike; the host is a class of its own."""
    used = sorted({place.device for place in problem.places} | {problem.host})
    own = {device: _figures(problem, device) for device in used}
    classes: list[list[int]] = []
    for device in used:
        for members in classes:
            if own[device] == own[members[0]] and all(_same_routes(problem, device, other, used) for other in members):
                members.append(device)
                break
        else:
            classes.append([device])
    return classes


def alike_nodes(problem: Problem) -> list[list[int]]:
    """Nodes in kinds that take as long on every place, also for weights that are streamed there."""
    weights: list[list[tuple[tuple[tuple[int, int], ...], tuple[float, ...]]]] = [[] for _ in problem.nodes]
    for weight in problem.weights:
        sizes = tuple(sorted(weight.size_bytes.items()))
        for user in weight.users:
            streams = tuple(weight.streaming_s(user, place) for place in range(len(problem.places)))
            weights[user].append((sizes, streams))
    kinds: dict[Hashable, list[int]] = {}
    for node, row in enumerate(problem.fused_seconds.tolist()):
        kinds.setdefault((tuple(row), tuple(sorted(weights[node]))), []).append(node)
    return list(kinds.values())


def _figures(problem: Problem, device: int) -> Hashable:
    places = [place for place, found in enumerate(problem.device_of) if found == device]
    columns = tuple(
        (
            problem.places[place].target,
            problem.places[place].format,
            problem.launch_s[place],
            tuple(
                node.options[place] if place in allowed else None
                for node, allowed in zip(problem.nodes, problem.allowed, strict=True)
            ),
            tuple(weight.size_bytes.get(place, 0) for weight in problem.weights),
            tuple(weight.streaming_s(user, place) for weight in problem.weights for user in weight.users),
            tuple((fusion.seconds.get(place), fusion.joules.get(place)) for fusion in problem.fusions),
        )
        for place in places
    )
    share = problem.rules.min_share.get(device)
    return replace(problem.devices[device], name=""), columns, share, device == problem.host


def _same_routes(problem: Problem, left: int, right: int, devices: list[int]) -> bool:
    """Whether everything else is as far from one as from the other, and they from each other both ways."""
    pairs = [((left, other), (right, other)) for other in devices if other not in (left, right)]
    pairs += [(second[::-1], first[::-1]) for first, second in pairs]
    pairs.append(((left, right), (right, left)))
    return all(_speed(problem, *first) == _speed(problem, *second) for first, second in pairs)


def _speed(problem: Problem, source: int, destination: int) -> tuple[float, float, float]:
    route = problem.routes[source, destination]
    return route.latency_s, route.seconds_per_byte, route.usd_per_byte
