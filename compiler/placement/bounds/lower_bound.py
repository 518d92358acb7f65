"""Lower bounds on each objective over every placement of the nodes, whatever the number of segments.

Latency: `latency_bound` and `queue_bound`, with shares and capacities `relaxed_bound` and `spread_bound`, where devices
have too little memory `stream_bound`. Throughput: `period_bound`.
Energy and cost: for each set of classes of devices that may be in use, each node on its cheapest place, and idle power
(or the price) of one device a class over the latency bound of that set; with many classes, only the host's. Where ops
or transfers have prices of their own, cost is bounded by `price_bound`, for each of these sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from time import perf_counter

from gimlet.compiler.placement.bounds.latency_bound import LatencyBound, LatencyRelaxation, latency_bound
from gimlet.compiler.placement.bounds.period_bound import period_bound
from gimlet.compiler.placement.bounds.price_bound import PriceBound, price_bound
from gimlet.compiler.placement.bounds.queue_bound import queue_bound
from gimlet.compiler.placement.bounds.relaxed_bound import relaxed_bound
from gimlet.compiler.placement.bounds.share_program import share_program
from gimlet.compiler.placement.bounds.spread_bound import spread_bound
from gimlet.compiler.placement.bounds.stream_bound import stream_bound
from gimlet.compiler.placement.bounds.work_bound import work_bound
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.model.streaming import all_kept_s, all_streamed, dearest_byte, fast_bytes_priced

_MOST_SETS = 16
_NEAR = 0.99
_Ladders = tuple[tuple[float, ...], ...]
_STREAMED_PARTS: _Ladders = ((1.0, 1 / 4, 1 / 16, 1 / 64), (0.5, 2.0))
_PRICES: _Ladders = ((1.0, 1 / 4, 1 / 16, 1 / 64, 1 / 256), (0.5, 2.0), (0.7, 1.4), (0.85, 1.2))


@dataclass(frozen=True)
class Bound:
    """A lower bound on the objective, and places that it suggests to start from.

    `reached` is the objective of a placement, the best that is known.
    """

    value: float
    suggestions: tuple[tuple[int, ...], ...]
    reached: float = float("inf")


@dataclass(frozen=True)
class _InUse:
    """The devices that are in use for certain, one of each class, and all that nodes may be on."""

    certain: frozenset[int]
    open: frozenset[int]


@dataclass(frozen=True)
class _Case:
    """One set of devices: the problem with only those, and its latency bound."""

    devices: _InUse
    problem: Problem
    latency: LatencyBound


def lower_bound(problem: Problem, best_known: float = float("inf"), until: float = float("inf")) -> Bound:
    """A bound on the problem's objective. `best_known` is the objective of some placement, if there is one.

    After `until` (of `time.perf_counter`) it is no longer improved. Where weights may be streamed and the gap is not
    small yet, problems in which all of them are charged for it get bounded as well, less what of that fast memories can
    save: for latency a price for each byte, and for other objectives, and after that, a part of what streaming takes.
    For latency `stream_bound` is tighter where joints have the weights, and these where blocks have them: it charges
    one device a step.
    """
    found = _bound_of(problem, best_known, until)
    if not problem.streaming or problem.rules.objective == "throughput" or found.value >= _NEAR * found.reached:
        return found
    if problem.rules.objective == "latency":
        dearest = dearest_byte(problem)
        found = _charged(found, best_known, until, _PRICES, lambda part: fast_bytes_priced(problem, part * dearest))
    saved = _saved(problem)
    return _charged(found, best_known, until, _STREAMED_PARTS, lambda part: (all_streamed(problem, part), part * saved))


def _charged(
    found: Bound, best_known: float, until: float, ladders: _Ladders, charged: Callable[[float], tuple[Problem, float]]
) -> Bound:
    """The best bound over parts of the largest charge: of the first ladder, and then around the best of them so far.

    `charged` gives the problem for a part, and what its objective may be too large by.
    """
    values: dict[float, float] = {}
    for ladder in ladders:
        middle = max(values, key=lambda part: values[part]) if values else 1.0
        for part in (middle * step for step in ladder):
            if found.value >= best_known * (1 - 1e-9) or part > 1 or (values and perf_counter() > until):
                continue
            slow, saved = charged(part)
            bound = _bound_of(slow, best_known + saved, until, charged=True)
            values[part] = bound.value - saved
            suggestions = tuple(dict.fromkeys((*found.suggestions, *bound.suggestions)))
            found = Bound(max(found.value, values[part]), suggestions, found.reached)
    return found


def _saved(problem: Problem) -> float:
    """The most that fast memories save of the objective, in its unit, against streaming all weights."""
    seconds, devices = all_kept_s(problem), problem.devices
    match problem.rules.objective:
        case "energy":
            idle = sum(device.idle_w or 0.0 for device in devices)
            return seconds * (max(devices[device].load_w or 0.0 for device in problem.streaming) + idle)
        case "cost":
            return seconds * sum(device.usd_per_hour or 0.0 for device in devices) / 3600.0
        case _:
            return seconds


def _bound_of(problem: Problem, best_known: float, until: float, *, charged: bool = False) -> Bound:
    """The bound of one problem. `queue_bound` would take long for each part of a charge, so it is not asked there."""
    if problem.rules.objective == "latency":
        relaxation = LatencyRelaxation(problem, until)
        limited = stream_bound(problem, relaxation, best_known)
        best_known = limited.reached_s
        if limited.closed:
            return Bound(limited.seconds, limited.places or (relaxation.bound(enough=0.0).place,), best_known)
        free = relaxation.bound(enough=best_known)
        held, seen = relaxed_bound(problem, relaxation, free, best_known)
        least = max(held.seconds, share_bound(problem), spread_bound(problem, relaxation, held.seconds))
        # No device and no link is busy for longer than one request takes.
        least = max(least, work_bound(problem, device_classes(problem), until))
        if least < best_known * (1 - 1e-4):
            least = max(least, share_program(relaxation))
        least = max(least, limited.seconds)
        queued: list[tuple[int, ...]] = []
        if not charged and least < best_known * (1 - 1e-4):
            least, queued = queue_bound(relaxation, free.seconds, least, best_known)
        return Bound(min(least, best_known), (free.place, *limited.places, *seen, *queued), best_known)
    if problem.rules.objective == "throughput":
        period = min(period_bound(problem, best_known, until), best_known)
        return Bound(period, (LatencyRelaxation(problem, until).bound().place,))
    latency = LatencyRelaxation(problem, until).bound()
    match problem.rules.objective:
        case "energy":
            sets = [
                (_energy(problem, case.devices, case.latency.seconds), case.latency.place)
                for case in _cases(problem, latency, until)
            ]
        case "cost":
            least = min((_cost(case, until) for case in _cases(problem, latency, until)), key=lambda found: found.usd)
            return Bound(least.usd, least.places)
    value, place = min(sets)
    return Bound(value, (place,))


def _cases(problem: Problem, latency: LatencyBound, until: float) -> list[_Case]:
    """Sets of classes in use (the host always is), without those that are too slow for a bound on latency."""
    cases = list(_sets(problem, latency, until))
    limit = problem.rules.bounds.get("latency", float("inf")) * (1 + 1e-9)
    return [case for case in cases if case.latency.seconds <= limit] or cases


def _sets(problem: Problem, latency: LatencyBound, until: float) -> Iterable[_Case]:
    classes = [members for members in device_classes(problem) if problem.host not in members]
    host = frozenset({problem.host})
    if 2 ** len(classes) > _MOST_SETS:
        return [_Case(_InUse(host, host.union(*classes)), problem, latency)]
    found: list[_Case] = []
    for size in range(len(classes) + 1):
        for chosen in combinations(classes, size):
            devices = host.union(*chosen)
            usable = frozenset(index for index, place in enumerate(problem.places) if place.device in devices)
            pins = {node: frozenset(allowed) & usable for node, allowed in enumerate(problem.allowed)}
            if all(pins.values()):
                narrowed = problem.with_rules(replace(problem.rules, pins=pins))
                in_use = _InUse(host.union(members[0] for members in chosen), devices)
                found.append(_Case(in_use, narrowed, latency_bound(narrowed, until=until)))
    return found


def _energy(problem: Problem, devices: _InUse, latency_s: float) -> float:
    """Ops at their cheapest and idle power: joules - idle watts x seconds of each op, and idle power all the time.

    Where fusion could save something, the cheaper of both counts.
    """
    idle = {device: problem.devices[device].idle_w or 0.0 for device in devices.open}
    saved: dict[tuple[int, int], tuple[float, float]] = {}
    for fusion in problem.fusions:
        for place, seconds in fusion.seconds.items():
            joules, before = saved.get((fusion.consumer, place), (0.0, 0.0))
            saved[fusion.consumer, place] = joules + fusion.joules.get(place, 0.0), before + seconds
    total = latency_s * sum(idle[device] for device in devices.certain)
    for node, allowed in enumerate(problem.allowed):
        prices: list[float] = []
        for place in allowed:
            device = problem.device_of[place]
            if device not in devices.open:
                continue
            option = problem.nodes[node].options[place]
            joules, seconds = saved.get((node, place), (0.0, 0.0))
            # While a device is busy it draws no idle power besides; fusion saves energy, and time of being busy.
            alone = (option.joules or 0.0) - idle[device] * option.seconds
            prices.append(alone + min(idle[device] * seconds - joules, 0.0))
        total += min(prices)
    return max(total, 0.0)


def _cost(case: _Case, until: float) -> PriceBound:
    hourly = sum(case.problem.devices[device].usd_per_hour or 0.0 for device in case.devices.certain)
    if case.problem.has_prices:
        return price_bound(case.problem, hourly / 3600.0, case.latency.place, until)
    return PriceBound(hourly / 3600.0 * case.latency.seconds, (case.latency.place,))


def share_bound(problem: Problem) -> float:
    """The longest time that any device needs for its least share of FLOPs, ops split where that helps."""
    saved: dict[tuple[int, int], float] = {}
    for fusion in problem.fusions:
        for place, seconds in fusion.seconds.items():
            saved[fusion.consumer, place] = saved.get((fusion.consumer, place), 0.0) + seconds
    longest = 0.0
    for device, share in problem.rules.min_share.items():
        rates: list[tuple[float, float]] = []
        for node, allowed in enumerate(problem.allowed):
            data = problem.nodes[node]
            here = [p for p in allowed if problem.device_of[p] == device]
            if here and data.flops:
                least = min(data.options[p].seconds - saved.get((node, p), 0.0) for p in here)
                rates.append((max(least, 0.0) / data.flops, data.flops))
        missing, seconds = share * problem.total_flops, problem.least_launch_s(device) if share else 0.0
        for rate, flops in sorted(rates):
            taken = min(flops, missing)
            missing -= taken
            seconds += rate * taken
        longest = max(longest, seconds)
    return longest
