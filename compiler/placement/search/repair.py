"""Brings a choice of places up to the least shares of FLOPs that are asked, at little cost.

A device that lacks FLOPs takes, one after another, the node that costs least for the FLOPs it brings: the difference
of its seconds, and of the transfers and launches around it. That is a model of a serial run, quick to update; the
caller judges the result with the real one.
"""

from __future__ import annotations

from collections.abc import Sequence

from gimlet.compiler.placement.model.problem import Problem


def repair_shares(problem: Problem, place: Sequence[int]) -> tuple[int, ...]:
    """Places that keep the shares where that is possible; `place` itself where none are asked."""
    chosen = list(place)
    share = problem.rules.min_share
    goal = {device: part * problem.total_flops for device, part in share.items()}
    given = dict.fromkeys(range(len(problem.devices)), 0.0)
    for node, used in enumerate(chosen):
        given[problem.device_of[used]] += problem.nodes[node].flops
    for _ in range(len(chosen)):
        lacking = [device for device in sorted(goal) if given[device] < goal[device]]
        if not lacking:
            break
        device = max(lacking, key=lambda d: goal[d] - given[d])
        best = _cheapest(problem, chosen, device, given, goal)
        if best is None:
            break
        node, used = best
        given[problem.device_of[chosen[node]]] -= problem.nodes[node].flops
        given[device] += problem.nodes[node].flops
        chosen[node] = used
    return tuple(chosen)


def _cheapest(
    problem: Problem, chosen: list[int], device: int, given: dict[int, float], goal: dict[int, float]
) -> tuple[int, int] | None:
    """The move to `device` that costs least for its FLOPs, up to what is lacking; None where there is no move."""
    lacking = goal[device] - given[device]
    best: tuple[float, int, int] | None = None
    for node, allowed in enumerate(problem.allowed):
        data, now = problem.nodes[node], chosen[node]
        source = problem.device_of[now]
        if source == device or not data.flops or given[source] - data.flops < goal.get(source, 0.0):
            continue
        for used in allowed:
            if problem.device_of[used] != device:
                continue
            before = around(problem, chosen, node)
            chosen[node] = used
            cost = around(problem, chosen, node) - before
            chosen[node] = now
            rate = cost / min(data.flops, lacking)
            if best is None or rate < best[0]:
                best = rate, node, used
    return None if best is None else best[1:]


def around(problem: Problem, chosen: Sequence[int], node: int) -> float:
    """Seconds of a node and of the transfers of its values, with the launches that they cause."""
    total = problem.nodes[node].options[chosen[node]].seconds
    for index in (*problem.inputs_of[node], *problem.outputs_of[node]):
        value = problem.values[index]
        source = problem.host if value.producer is None else problem.device_of[chosen[value.producer]]
        reached = {problem.device_of[chosen[consumer]] for consumer in value.consumers}
        if value.is_output:
            reached.add(problem.host)
        for device in reached - {source}:
            total += problem.transfer_s(source, device, value.size_bytes) + problem.least_launch_s(device)
    return total
