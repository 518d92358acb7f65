"""A lower bound on latency where weights do not fit on one device besides the host.

Either one device and the host have everything, which the weights may forbid, or two devices at least are in use. Then
the way through the joints (`latency_bound`) changes from one to the other, or a block has a node on a device that
neither of its joints is on, so in a third segment (`atomic_bound.more_segments`). Multipliers for memory
(`relaxed_bound`) cannot see this among equal devices: each of them alone is only a little too small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

from gimlet.compiler.placement.bounds.atomic_bound import more_segments
from gimlet.compiler.placement.bounds.block_bound import BlockTable, Ends, solve_block
from gimlet.compiler.placement.bounds.latency_bound import LatencyRelaxation, latency_bound
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem

_BUDGET = 20_000
_NONE = -1
_SEVERAL = -2


def spread_bound(problem: Problem, relaxation: LatencyRelaxation, known: float) -> float:
    """The bound in seconds; 0 where one device could have everything at `known` seconds or less."""
    if not problem.memory_can_bind or not problem.nodes or perf_counter() > relaxation.until:
        return 0.0
    alone = min(_alone(problem, relaxation.until), default=float("inf"))
    return 0.0 if alone <= known else min(alone, _several(problem, relaxation))


def _alone(problem: Problem, until: float) -> Iterator[float]:
    """For each class of devices, a bound for one of them and the host; infinite where the weights do not fit."""
    for members in device_classes(problem):
        devices = {problem.host, members[0]}
        places = frozenset(place for place, device in enumerate(problem.device_of) if device in devices)
        pins = {node: frozenset(allowed) & places for node, allowed in enumerate(problem.allowed)}
        if all(pins.values()) and _fits(problem, devices, places):
            yield latency_bound(problem.with_rules(replace(problem.rules, pins=pins)), _BUDGET, until).seconds


def _fits(problem: Problem, devices: set[int], places: frozenset[int]) -> bool:
    """Whether the weights are no more than the devices hold together, each where it is smallest."""
    capacities = [problem.devices[device].memory_bytes for device in devices if device in problem.device_of]
    need = sum(
        min((size for place, size in weight.size_bytes.items() if place in places), default=0)
        for weight in problem.weights
        if weight.users
    )
    return any(capacity is None for capacity in capacities) or need <= sum(capacity or 0 for capacity in capacities)


def _several(problem: Problem, relaxation: LatencyRelaxation) -> float:
    """The shortest way on which two devices besides the host are in use.

    A state is the place of a joint, and the device that was in use until there: none, one, or several. Nothing is left
    out, so that no node is somewhere unseen.
    """
    joints = relaxation.joints(0)
    zero = [[0.0] * len(problem.places) for _ in problem.nodes]
    table = BlockTable(relaxation.relaxation.seconds, problem, zero, _BUDGET, relaxation.until)
    reached: dict[tuple[int, int], float] = {(-1, _NONE): 0.0}
    for step in range(len(joints.inner)):
        block = joints.block(step)
        following: dict[tuple[int, int], float] = {}
        for start in dict.fromkeys(place for place, _ in reached):
            for end in joints.ends(step):
                ends = Ends(start, end)
                seconds, _ = solve_block(table, block, ends)
                beside = float("inf")
                if block.inner:
                    own = table.seconds[block.last][end] if end >= 0 else 0.0
                    beside = max(seconds, own + max(more_segments(table, block, ends), _elsewhere(table, ends)))
                for used in [used for place, used in reached if place == start]:
                    time = reached[start, used]
                    states = ((end, _joined(used, table.device(end), problem.host)), time + seconds)
                    for state, total in (states, ((end, _SEVERAL), time + beside)):
                        following[state] = min(following.get(state, float("inf")), total)
        reached = following
    return reached.get((-1, _SEVERAL), float("inf"))


def _elsewhere(table: BlockTable, ends: Ends) -> float:
    """The least from joint to joint by way of a segment on a device that neither is on, nor the host."""
    steps, near = table.steps, {table.problem.host, table.device(ends.first), table.device(ends.last)}
    ways = [
        float(
            (steps.nearest[ends.first, place] if ends.first >= 0 else 0.0)
            + steps.launch[place]
            + (steps.nearest[place, ends.last] + steps.launch[ends.last] if ends.last >= 0 else 0.0)
        )
        for place, device in enumerate(table.problem.device_of)
        if device not in near
    ]
    return min(ways, default=float("inf"))


def _joined(used: int, device: int, host: int) -> int:
    """What is in use when `device` is as well."""
    if device in (host, used) or used == _SEVERAL:
        return used
    return device if used == _NONE else _SEVERAL
