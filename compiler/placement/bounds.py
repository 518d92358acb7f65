"""Lower bounds on each objective over every placement of the nodes, whatever the number of segments.

Latency: `latency_bound`. Throughput: a linear program in which nodes may be split between places. Energy and cost: for
each set of devices that may be in use, each node on its cheapest place and idle power (or the price) over the latency
bound of that set; with many devices, only the host's idle power is counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from ortools.linear_solver import pywraplp

from gimlet.compiler.placement.latency_bound import LatencyBound, LatencyRelaxation, latency_bound
from gimlet.compiler.placement.problem import Problem
from gimlet.compiler.placement.relaxed_bound import relaxed_bound
from gimlet.runtime.errors import InfeasibleError

_MOST_SETS = 16


@dataclass(frozen=True)
class Bound:
    """A lower bound on the objective, and places that it suggests to start from."""

    value: float
    suggestions: tuple[tuple[int, ...], ...]


def lower_bound(problem: Problem, best_known: float = float("inf")) -> Bound:
    """A bound on the problem's objective. `best_known` is the objective of some placement, if there is one."""
    if problem.rules.objective == "latency":
        relaxation = LatencyRelaxation(problem)
        free = relaxation.bound()
        held, seen = relaxed_bound(problem, relaxation, free, best_known)
        return Bound(held.seconds, (free.place, *seen))
    latency = latency_bound(problem)
    match problem.rules.objective:
        case "throughput":
            return Bound(period_bound(problem), (latency.place,))
        case "energy":
            sets = [(_energy(problem, devices, seconds), p) for devices, seconds, p in _sets(problem, latency)]
        case "cost":
            sets = [(_cost(problem, devices, seconds), p) for devices, seconds, p in _sets(problem, latency)]
    value, place = min(sets)
    return Bound(value, (place,))


def _sets(problem: Problem, latency: LatencyBound) -> Iterable[tuple[frozenset[int], float, tuple[int, ...]]]:
    """Sets of devices in use (the host always is), the latency bound with only those, and its places."""
    others = sorted({place.device for place in problem.places} - {problem.host})
    if 2 ** len(others) > _MOST_SETS:
        return [(frozenset({problem.host}), latency.seconds, latency.place)]
    found: list[tuple[frozenset[int], float, tuple[int, ...]]] = []
    for size in range(len(others) + 1):
        for chosen in combinations(others, size):
            devices = frozenset({problem.host, *chosen})
            usable = frozenset(index for index, place in enumerate(problem.places) if place.device in devices)
            pins = {node: frozenset(allowed) & usable for node, allowed in enumerate(problem.allowed)}
            if all(pins.values()):
                bound = latency_bound(problem.with_rules(replace(problem.rules, pins=pins)))
                found.append((devices, bound.seconds, bound.place))
    return found


def _energy(problem: Problem, devices: frozenset[int], latency_s: float) -> float:
    """Ops at their cheapest and idle power: joules - idle watts x seconds of each op, and idle power all the time.

    What fusion saves is taken off in full. Where the sets were not listed, every place is open and `devices` is the
    host alone, so that idle power of the others is not counted.
    """
    listed = 2 ** len({place.device for place in problem.places} - {problem.host}) <= _MOST_SETS
    idle = {device: problem.devices[device].idle_w or 0.0 for device in devices}
    total = latency_s * sum(idle.values())
    for node, allowed in enumerate(problem.allowed):
        options = problem.nodes[node].options
        places = [place for place in allowed if not listed or problem.device_of[place] in devices]
        total += min(
            (options[place].joules or 0.0) - idle.get(problem.device_of[place], 0.0) * options[place].seconds
            for place in places
        )
    saved = sum(max(fusion.joules.values(), default=0.0) for fusion in problem.fusions)
    return max(total - saved, 0.0)


def _cost(problem: Problem, devices: frozenset[int], latency_s: float) -> float:
    return latency_s * sum((problem.devices[device].usd_per_hour or 0.0) / 3600.0 for device in devices)


def period_bound(problem: Problem) -> float:
    """The least period when nodes may be split over places: busy devices, busy links, capacities and shares."""
    solver: Any = pywraplp.Solver.CreateSolver("GLOP")
    scale = max((min(row) for row in problem.seconds.tolist()), default=0.0) or 1.0
    period = solver.NumVar(0, solver.infinity(), "period")
    at = [{place: solver.NumVar(0, 1, "") for place in allowed} for allowed in problem.allowed]
    loads: dict[int, list[Any]] = {}
    saved: dict[tuple[int, int], float] = {}
    for fusion in problem.fusions:
        for place, seconds in fusion.seconds.items():
            saved[fusion.consumer, place] = saved.get((fusion.consumer, place), 0.0) + seconds
    for node, shares in enumerate(at):
        solver.Add(sum(shares.values()) == 1)
        for place, share in shares.items():
            seconds = problem.nodes[node].options[place].seconds - saved.get((node, place), 0.0)
            if seconds > 0:
                loads.setdefault(problem.device_of[place], []).append(seconds / scale * share)
    for terms in loads.values():
        solver.Add(period >= sum(terms))
    for terms in _link_loads(problem, solver, at, scale).values():
        solver.Add(period >= sum(terms))
    for device, share in problem.rules.min_share.items():
        given = [
            problem.nodes[node].flops / max(problem.total_flops, 1.0) * literal
            for node, shares in enumerate(at)
            for place, literal in shares.items()
            if problem.device_of[place] == device
        ]
        solver.Add(sum(given) >= share * (1 - 1e-9))
    solver.Minimize(period)
    status = solver.Solve()
    if status == pywraplp.Solver.INFEASIBLE:
        raise InfeasibleError("no placement can give every device its share of the FLOPs")
    if status != pywraplp.Solver.OPTIMAL:
        return 0.0
    return max(solver.Objective().Value() * scale * (1 - 1e-7), 0.0)


def _link_loads(problem: Problem, solver: Any, at: list[dict[int, Any]], scale: float) -> dict[str, list[Any]]:
    """Seconds on each link direction: a value moves from a device to another as far as a consumer is there."""
    links: dict[str, list[Any]] = {}

    def on(node: int, device: int) -> Any:
        return sum(share for place, share in at[node].items() if problem.device_of[place] == device)

    def charge(source: int, destination: int, size_bytes: int, share: Any) -> None:
        for link, seconds_per_byte in problem.routes[source, destination].links:
            links.setdefault(link, []).append(size_bytes * seconds_per_byte / scale * share)

    for value in problem.values:
        devices = {problem.device_of[place] for consumer in value.consumers for place in problem.allowed[consumer]}
        if value.is_output:
            devices.add(problem.host)
        producer = value.producer
        sources = {problem.host} if producer is None else {problem.device_of[p] for p in problem.allowed[producer]}
        for device in sorted(devices):
            moved = {source: solver.NumVar(0, 1, "") for source in sorted(sources - {device})}
            if not moved:
                continue
            here = 0.0 if value.producer is None else on(value.producer, device)
            if value.producer is None and device == problem.host:
                continue
            for source, share in moved.items():
                charge(source, device, value.size_bytes, share)
                if value.producer is not None:
                    solver.Add(share <= on(value.producer, source))
            for consumer in value.consumers:
                if any(problem.device_of[place] == device for place in problem.allowed[consumer]):
                    solver.Add(sum(moved.values()) >= on(consumer, device) - here)
            if value.is_output and device == problem.host:
                solver.Add(sum(moved.values()) >= 1 - here)
    return links
