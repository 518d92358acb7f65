"""The least period for the nodes' work alone: a small linear program, whatever the number of nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from ortools.linear_solver import pywraplp

from gimlet.compiler.placement.bounds.linear import solved
from gimlet.compiler.placement.bounds.period_program import SHORTFALL, shared_links
from gimlet.compiler.placement.model.problem import Problem


def work_bound(problem: Problem, classes: Sequence[list[int]], until: float = float("inf")) -> float:
    """The least period for the nodes' work alone, and for what they have from the host and send there.

    Fusion saves all that it could, and nodes that cost alike are one, so this takes little time for many nodes. Where
    the program is not solved by `until` (of `time.perf_counter`), it is the work of every node where it is least, over
    all devices.
    """
    seconds = problem.fused_seconds
    shared = float(seconds.min(axis=1).sum()) / max(sum(map(len, classes)), 1) * (1 - SHORTFALL)
    if perf_counter() > until:
        return shared
    moved = [[0.0, 0.0] for _ in problem.nodes]
    for value in problem.values:
        if value.is_output and value.producer is not None:
            moved[value.producer][1] += value.size_bytes
        for consumer in value.consumers if value.producer is None else ():
            # It is sent once to a device, so each of several consumers counts for a part.
            moved[consumer][0] += value.size_bytes / len(value.consumers)
    kinds = Counter((tuple(row), *sent) for row, sent in zip(seconds.tolist(), moved, strict=True))
    scale = float(seconds.min(axis=1).max(initial=0.0)) or 1.0
    solver: Any = pywraplp.Solver.CreateSolver("GLOP")
    first = {members[0]: number for number, members in enumerate(classes)}
    rates = [
        [
            shared_links(problem, members, inward=inward) if problem.host not in members else {}
            for inward in (True, False)
        ]
        for members in classes
    ]
    loads: list[list[list[Any]]] = [[[], [], []] for _ in classes]
    for (row, *sent), count in kinds.items():
        parts: list[Any] = []
        for place, device in enumerate(problem.device_of):
            if device not in first or row[place] == float("inf"):
                continue
            parts.append(solver.NumVar(0, count, ""))
            own = loads[first[device]]
            own[0].append(row[place] / scale * parts[-1])
            for terms, size, links in zip(own[1:], sent, rates[first[device]], strict=True):
                if size and links:
                    terms.append(size * min(links.values()) / scale * parts[-1])
        solver.Add(solver.Sum(parts) == count)
    period = solver.NumVar(0, solver.infinity(), "")
    for members, own in zip(classes, loads, strict=True):
        for terms in own:
            solver.Add(period * len(members) >= solver.Sum(terms))
    solver.Minimize(period)
    if solved(solver, until) != pywraplp.Solver.OPTIMAL:
        return shared
    return max(solver.Objective().Value() * scale * (1 - SHORTFALL), 0.0)
