"""What a bill consists of, energy or cost: what a device in use takes a second, and what ops take besides.

A placement takes at least what its devices take over its latency, and the amounts of its ops beyond that. A joule of an
op counts less what its device does not draw idle meanwhile. `keep_bill` puts a limit on a bill into the linear program
for another figure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from gimlet.compiler.placement.bounds.fleets import Fleet, Usable
from gimlet.compiler.placement.bounds.period_program import SHORTFALL, PeriodProgram
from gimlet.compiler.placement.model.problem import Fusion, Node, Objective, Problem
from gimlet.compiler.placement.model.schedule import load_w

BILLS: tuple[Objective, ...] = ("energy", "cost")
TOLERANCE = 1e-9
"""The part of a limit that a placement may be above it."""


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


def draws_less_idle(problem: Problem) -> bool:
    """Whether no device draws more when idle than under load, which streaming and casts would save."""
    loads = ((load_w(problem, device), per_second(problem, device, "energy")) for device in set(problem.device_of))
    return all(load >= idle for load, idle in loads) or not (problem.streaming or problem.has_edges)


def rate_of(problem: Problem, devices: Iterable[int], figure: Objective) -> float:
    """What devices in use take a second."""
    return sum(per_second(problem, device, figure) for device in devices)


def least_bill(fleet: Fleet, figure: Objective) -> float:
    """What every placement of a fleet takes: by the second over the least latency, and each op where it is cheapest."""
    rate = rate_of(fleet.problem, fleet.certain, figure)
    return rate * fleet.usable.latency.seconds + _least_taken(fleet.usable, figure)


def _least_taken(usable: Usable, figure: Objective) -> float:
    """What ops take besides, each where it is cheapest."""
    if figure not in usable.taken:
        priced, constant = billed(usable.problem, figure)
        each = zip(priced.nodes, priced.allowed, strict=True)
        usable.taken[figure] = (
            sum(min(node.options[place].usd for place in allowed) for node, allowed in each) + constant
        )
    return usable.taken[figure]


def is_affordable(fleet: Fleet) -> bool:
    """Whether the limits on energy and cost may leave a fleet anything, as far as is known without a search."""
    bounds = fleet.problem.rules.bounds
    return all(least_bill(fleet, figure) <= bounds[figure] * (1 + TOLERANCE) for figure in BILLS if figure in bounds)


def latency_left(fleet: Fleet) -> float:
    """How long the latency of a fleet may be at most, by the limits on latency, energy and cost."""
    bounds = fleet.problem.rules.bounds
    left = bounds.get("latency", float("inf"))
    for figure in BILLS:
        rate = rate_of(fleet.problem, fleet.certain, figure)
        if figure in bounds and rate > 0:
            over = bounds[figure] * (1 + TOLERANCE) - least_bill(fleet, figure)
            left = min(left, fleet.usable.latency.seconds + over / rate)
    return left


def keep_bounds(program: PeriodProgram, fleet: Fleet, least_s: float) -> Any:
    """Adds to a program what the limits on all figures leave to a fleet; the variable of its latency, in the scale.

    No placement of the fleet has a latency of less than `least_s`.
    """
    bounds = program.problem.rules.bounds
    latency = program.number()
    program.solver.Add(latency >= program.period)
    program.solver.Add(latency >= least_s / program.scale)
    limited: tuple[tuple[Objective, Any], ...] = (("latency", latency), ("throughput", program.period))
    for figure, amount in limited:
        if bounds.get(figure, float("inf")) < float("inf"):
            program.solver.Add(amount <= bounds[figure] / program.scale * (1 + SHORTFALL))
    for figure in BILLS:
        if figure not in bounds:
            continue
        rate = rate_of(program.problem, fleet.certain, figure) * program.scale
        # A limit of nothing is a row of its own scale.
        unit = bounds[figure] or 1.0
        terms = [rate / unit * latency]
        terms += [amount / unit * part for amount, part in taken_by(program, figure) if amount]
        program.solver.Add(program.solver.Sum(terms) <= bounds[figure] / unit + SHORTFALL)
    return latency


def billed(problem: Problem, figure: Objective) -> tuple[Problem, float]:
    """The problem with what ops take as their prices, none negative, and what all of them are too dear by."""
    if figure != "energy":
        return problem, 0.0
    # Where fusion could save something, the cheaper of both counts.
    saved: dict[tuple[int, int], float] = {}
    for fusion in problem.fusions:
        for place in fusion.seconds.keys() | fusion.joules.keys():
            key = fusion.consumer, place
            saved[key] = saved.get(key, 0.0) - saved_by(problem, fusion, place)
    constant, nodes = 0.0, list[Node]()
    for number, node in enumerate(problem.nodes):
        prices = {p: price_of(problem, node, p, figure) + min(saved.get((number, p), 0.0), 0.0) for p in node.options}
        least = min(0.0, *prices.values())
        constant += least
        options = {place: replace(option, usd=prices[place] - least) for place, option in node.options.items()}
        nodes.append(replace(node, options=options))
    devices = (replace(spec, usd_per_hour=3600.0 * (spec.idle_w or 0.0)) for spec in problem.devices)
    routes = {ends: replace(route, usd_per_byte=0.0) for ends, route in problem.routes.items()}
    return replace(problem, nodes=tuple(nodes), devices=tuple(devices), routes=routes), constant
