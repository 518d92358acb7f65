"""Pipelines in which devices have room for one launch each: good placements and a bound, from all orders of devices.

Every order of classes of devices is a model of its own (`turn_model.py`). First each is searched for a placement that
is better than the best, with groups of ops as a whole; then it is proven what none is below, with groups that may be
split. What an order's model leaves open counts as nothing, so the bound is that of the weakest order. Orders that the
bound leaves room in are searched again.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from gimlet.compiler.placement.exact.entrances import entrance_groups
from gimlet.compiler.placement.exact.turn_model import TurnModel
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Placement, Problem
from gimlet.compiler.placement.model.segments import Found, carve, judge

_MOST_ORDERS = 40
_MOST_GROUPS = 300
_GROUP, _LARGE_GROUP = 0.003, 0.03
"""What a group of ops takes besides its head, at most, as a part of the period; the second where it is first sought."""
_BETTER = 1 - 2e-4
_PROVEN = 0.991
_ROUGHLY = (0.97, 0.98)
"""It is asked whether anything is below these parts of the best known."""
_SEARCHED = 0.35
"""The part of the time for placements; the rest is for the bound."""
_FIRST = 1 / 20
"""The part of the time that an order has at first."""


def turn_orders(problem: Problem, best_s: float) -> list[list[int]]:
    """The orders of all devices but the host, one of each class being as good as another; none where a device has room
    for two launches in the best period known, works with others as a group, or there are too many orders."""
    classes = [members for members in device_classes(problem) if problem.host not in members]
    if not classes or any(spec.members for spec in problem.devices) or not 0 < best_s < float("inf"):
        return []
    if any(2 * problem.least_launch_s(members[0]) <= best_s for members in classes):
        return []
    found: list[list[int]] = [[]]
    for _ in range(sum(map(len, classes))):
        found = [
            [*order, following]
            for order in found
            for members in classes
            if (following := next((device for device in members if device not in order), None)) is not None
        ]
        if len(found) > _MOST_ORDERS:
            return []
    return found


def solve_turns(
    problem: Problem, start: Found, orders: Sequence[Sequence[int]], until: float, work: float, seed: int = 0
) -> tuple[Found, float]:
    """`start` or a placement with a shorter period, and a period that none is below.

    It ends at `until` (of `time.perf_counter`), or after `work` of CP-SAT's own time.
    """
    objective = problem.rules.objective
    classes = device_classes(problem)
    best = start
    began = perf_counter()
    limited = until < float("inf")
    searched = began + _SEARCHED * (until - began)

    def period() -> float:
        return best.schedule.figure("throughput")

    def left(by: float, parts: int, first: float = 1.0) -> float | None:
        return min((by - perf_counter()) / parts, first * (until - began)) if limited else None

    def tried(
        order: Sequence[int], most_s: float, seconds: float | None, *, whole: bool, large: float = _GROUP
    ) -> float:
        nonlocal best
        if limited and (seconds is None or seconds <= 0):
            return 0.0
        groups = entrance_groups(problem, large * most_s)
        model = TurnModel(problem, groups, order, classes, most_s, whole=whole)
        answer = model.solve(seconds, work / (2 * len(orders)), seed)
        if answer.turn is not None:
            best = min(best, _placed(problem, model, answer.turn), key=lambda found: found.rank(objective))
        return answer.bound_s

    if len(entrance_groups(problem, _GROUP * period())) > _MOST_GROUPS:
        return start, 0.0
    open_orders = list(orders)
    for part, large in ((_FIRST, _LARGE_GROUP), (1.0, _GROUP)) if limited else ((1.0, _GROUP),):
        waiting: list[Sequence[int]] = []
        for number, order in enumerate(open_orders):
            most_s = _BETTER * period()
            seconds = left(searched, len(open_orders) - number, part)
            if tried(order, most_s, seconds, whole=True, large=large) < most_s:
                waiting.append(order)
        open_orders = waiting
    bounds = dict.fromkeys(range(len(orders)), 0.0)
    # An order that is not done at once is asked for less: that may be proven while the rest of it takes long.
    for part, level in ((_FIRST, _PROVEN), *((_FIRST, level) for level in _ROUGHLY), (1.0, _PROVEN)):
        asked = level * period()
        waiting_numbers = [number for number, bound in bounds.items() if bound < asked]
        for index, number in enumerate(waiting_numbers):
            seconds = left(until, len(waiting_numbers) - index, part)
            bounds[number] = max(bounds[number], tried(orders[number], asked, seconds, whole=False))
        if not limited:
            break
    # What time is left is for better placements where the bound leaves room for them.
    asked = _PROVEN * period()
    roomy = sorted((number for number, bound in bounds.items() if bound < asked), key=lambda number: bounds[number])
    for index, number in enumerate(roomy if limited else ()):
        tried(orders[number], _BETTER * period(), left(until, len(roomy) - index), whole=True)
    return best, min(bounds.values())


def _placed(problem: Problem, model: TurnModel, turn: Sequence[int]) -> Found:
    """The placement with each op in its turn, each turn on the place that is best for all of it."""
    place: list[int] = [-1] * len(turn)
    for slot in set(turn):
        nodes = [node for node, at in enumerate(turn) if at == slot]
        places = model.places[slot]
        seconds = {p: sum(float(problem.seconds[node, p]) for node in nodes) for p in places}
        chosen = min(places, key=lambda p: seconds[p])
        for node in nodes:
            allowed = chosen in problem.allowed[node]
            place[node] = chosen if allowed else min(places, key=lambda p: float(problem.seconds[node, p]))
    mixed = [len({place[node] for node, at in enumerate(turn) if at == slot}) > 1 for slot in set(turn)]
    swept = carve(problem, place)
    if any(mixed):
        return swept
    given = judge(problem, Placement(tuple(place), tuple(turn)))
    return min(given, swept, key=lambda found: found.rank(problem.rules.objective))
