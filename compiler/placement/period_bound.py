"""A lower bound on the period of a pipeline, by linear programs in which nodes may be split between places.

One program for each set of devices that may be in use, since a device in use launches something once a period at
least; with many devices, one program for all of them, without launches.
"""

from __future__ import annotations

from itertools import chain, combinations
from typing import Any

from ortools.linear_solver import pywraplp

from gimlet.compiler.placement.problem import Problem
from gimlet.runtime.errors import InfeasibleError

_MOST_SETS = 16


def period_bound(problem: Problem) -> float:
    """The least period: busy devices, busy links and shares; what fusion could save is taken off in full."""
    others = sorted({place.device for place in problem.places} - {problem.host})
    if 2 ** len(others) > _MOST_SETS:
        found = _linear(problem, frozenset(others), launches=False)
    else:
        sets = chain.from_iterable(combinations(others, size) for size in range(len(others) + 1))
        found = min(_linear(problem, frozenset(devices), launches=True) for devices in sets)
    if found == float("inf"):
        raise InfeasibleError("no placement can give every device its share of the FLOPs")
    return found


def _linear(problem: Problem, others: frozenset[int], *, launches: bool) -> float:
    """The bound with the host and `others`, each of those launching something; infinite where that is impossible."""
    usable = others | {problem.host}
    at_places = [[p for p in allowed if problem.device_of[p] in usable] for allowed in problem.allowed]
    if not all(at_places):
        return float("inf")
    solver: Any = pywraplp.Solver.CreateSolver("GLOP")
    scale = max((min(row) for row in problem.seconds.tolist()), default=0.0) or 1.0
    period = solver.NumVar(0, solver.infinity(), "period")
    at = [{place: solver.NumVar(0, 1, "") for place in places} for places in at_places]
    loads: dict[int, list[Any]] = {}
    for device in others if launches else ():
        loads[device] = [problem.least_launch_s(device) / scale]
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
    for terms in (*loads.values(), *_link_loads(problem, solver, at, scale).values()):
        solver.Add(period >= sum(terms))
    for device, share in problem.rules.min_share.items():
        given = [
            problem.nodes[node].flops / max(problem.total_flops, 1.0) * literal
            for node, shares in enumerate(at)
            for place, literal in shares.items()
            if problem.device_of[place] == device
        ]
        solver.Add(solver.Sum(given) >= share * (1 - 1e-9))
    solver.Minimize(period)
    status = solver.Solve()
    if status == pywraplp.Solver.INFEASIBLE:
        return float("inf")
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
        devices = {problem.device_of[place] for consumer in value.consumers for place in at[consumer]}
        if value.is_output:
            devices.add(problem.host)
        producer = value.producer
        sources = {problem.host} if producer is None else {problem.device_of[p] for p in at[producer]}
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
                if any(problem.device_of[place] == device for place in at[consumer]):
                    solver.Add(sum(moved.values()) >= on(consumer, device) - here)
            if value.is_output and device == problem.host:
                solver.Add(sum(moved.values()) >= 1 - here)
    return links
