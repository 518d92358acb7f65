"""What a bill consists of, energy or cost: what a device in use takes a second, and what ops take besides.

A placement takes at least what its devices take over its latency, and the amounts of its ops beyond that. A joule of an
op counts less what its device does not draw idle meanwhile. `keep_bill` puts a limit on a bill into the linear program
for another figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gimlet.compiler.placement.bounds.latency_bound import latency_bound
from gimlet.compiler.placement.bounds.period_program import SHORTFALL, PeriodProgram
from gimlet.compiler.placement.model.problem import Fusion, Node, Objective, Problem
from gimlet.compiler.placement.model.schedule import load_w

_BUDGET = 10_000
"""What searches in blocks may take for the least latency."""


def per_second(problem: Problem, device: int, figure: Objective) -> float:
    """What a device in use takes a second: watts when idle, or dollars."""
    spec = problem.devices[device]
    return (spec.idle_w or 0.0) if figure == "energy" else (spec.usd_per_hour or 0.0) / 3600.0


def price_of(problem: Problem, node: Node, place: int, figure: Objective) -> float:
    """What an op takes on a place besides. While a device is busy it draws no idle power."""
    option = node.options[place]
    if figure != "energy":
        return option.usd
    idle = sum(per_second(problem, unit, figure) for unit in problem.units[problem.device_of[place]])
    return (option.joules or 0.0) - idle * option.seconds


def saved_by(problem: Problem, fusion: Fusion, place: int) -> float:
    """Joules that a fusion saves on a place, less what the device draws idle in the time that it saves."""
    idle = sum(per_second(problem, unit, "energy") for unit in problem.units[problem.device_of[place]])
    return fusion.joules.get(place, 0.0) - idle * fusion.seconds.get(place, 0.0)


def streaming_price(problem: Problem, place: int, figure: Objective) -> float:
    """What a second of streaming takes on a place."""
    if figure != "energy":
        return 0.0
    device = problem.device_of[place]
    return load_w(problem, device) - sum(per_second(problem, unit, figure) for unit in problem.units[device])


def taken_by(program: PeriodProgram, figure: Objective) -> list[tuple[float, Any]]:
    """What ops take beyond their devices' time: amounts, and variables that are the parts of them that count."""
    problem = program.problem
    taken = [
        (price_of(problem, problem.nodes[node], place, figure), part)
        for node, shares in enumerate(program.at)
        for place, part in shares.items()
    ]
    taken += [(streaming_price(problem, place, figure) * seconds, part) for _, place, seconds, part in program.streamed]
    if figure == "energy":
        taken += [(-saved_by(problem, fusion, place), part) for fusion, place, part in program.fused]
    return taken


def keep_bounds(program: PeriodProgram, launching: Sequence[Sequence[int]], until: float = float("inf")) -> None:
    """Adds to a program for the period what limits on latency, energy and cost leave; `launching` are in use.

    The latency is at least the bound on it where only the program's devices may be used; it is sought until `until`.
    """
    problem, bounds = program.problem, program.problem.rules.bounds
    figures: list[Objective] = [figure for figure in ("energy", "cost") if figure in bounds]
    if not program.can or not (figures or "latency" in bounds):
        return
    usable = frozenset(program.places)
    pins = {node: frozenset(allowed) & usable for node, allowed in enumerate(problem.allowed)}
    least_s = latency_bound(problem.with_rules(replace(problem.rules, pins=pins)), _BUDGET, until).seconds
    latency = program.number()
    program.solver.Add(latency >= program.period)
    program.solver.Add(latency >= least_s / program.scale)
    if "latency" in bounds:
        program.solver.Add(latency <= bounds["latency"] / program.scale * (1 + SHORTFALL))
    certain = {problem.host, *(unit for members in launching for unit in problem.units[members[0]])}
    for figure in figures:
        taken = taken_by(program, figure)
        rate = sum(per_second(problem, device, figure) for device in certain) * program.scale
        limit = bounds[figure]
        terms = [rate / limit * latency, *(amount / limit * part for amount, part in taken if amount)]
        program.solver.Add(program.solver.Sum(terms) <= 1 + SHORTFALL)
