"""All bounds on latency together, and what they suggest: where limits on energy and cost play no part.

`latency_bound` and `queue_bound`, with shares and capacities `relaxed_bound` and `spread_bound`, where devices have too
little memory `stream_bound` and `memory_prices`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from gimlet.compiler.placement.bounds.latency_bound import LatencyRelaxation
from gimlet.compiler.placement.bounds.memory_prices import PricedBound, memory_prices
from gimlet.compiler.placement.bounds.queue_bound import queue_bound
from gimlet.compiler.placement.bounds.relaxed_bound import relaxed_bound
from gimlet.compiler.placement.bounds.share_program import share_program
from gimlet.compiler.placement.bounds.share_seconds import share_seconds
from gimlet.compiler.placement.bounds.spread_bound import spread_bound
from gimlet.compiler.placement.bounds.stream_bound import stream_bound
from gimlet.compiler.placement.bounds.work_bound import work_bound
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.model.streaming import all_kept_s, all_streamed, dearest_byte, fast_bytes_priced

_NEAR = 0.99
_CLOSE = 1e-4
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


def least_latency(problem: Problem, best_known: float = float("inf"), until: float = float("inf")) -> Bound:
    """The bound on latency.

    Where weights may be streamed and the gap is not small yet, problems in which all of them are charged for it get
    bounded as well, less what of that fast memories can save: a price for each byte, and after that a part of what
    streaming takes. `stream_bound` is tighter where joints have the weights, and these where blocks have them: it
    charges one device a step.
    """
    found = _latency_of(problem, best_known, until)
    if not problem.streaming or found.value >= _NEAR * found.reached:
        return found
    dearest, saved = dearest_byte(problem), all_kept_s(problem)
    found = _charged(found, best_known, until, _PRICES, lambda part: fast_bytes_priced(problem, part * dearest))
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
            if found.value >= best_known * (1 - 1e-9) or part > 1 or perf_counter() > until:
                continue
            slow, saved = charged(part)
            bound = _latency_of(slow, best_known + saved, until, charged=True)
            values[part] = bound.value - saved
            suggestions = tuple(dict.fromkeys((*found.suggestions, *bound.suggestions)))
            found = Bound(max(found.value, values[part]), suggestions, found.reached)
    return found


def _latency_of(problem: Problem, best_known: float, until: float, *, charged: bool = False) -> Bound:
    """The bound of one problem. `queue_bound` would take long for each part of a charge, so it is not asked there."""
    relaxation = LatencyRelaxation(problem, until)
    priced = PricedBound(0.0) if charged else memory_prices(problem, best_known, halfway(until))
    limited = stream_bound(problem, relaxation, best_known, halfway(until))
    best_known = limited.reached_s
    if max(limited.seconds, priced.seconds) >= best_known * (1 - _CLOSE):
        places = limited.places or priced.places or (relaxation.bound(enough=0.0).place,)
        return Bound(min(max(limited.seconds, priced.seconds), best_known), places, best_known)
    free = relaxation.bound(enough=best_known)
    held, seen = relaxed_bound(problem, relaxation, free, best_known)
    least = max(held.seconds, share_bound(problem), spread_bound(problem, relaxation, held.seconds))
    least = max(least, together_bound(problem))
    # No device and no link is busy for longer than one request takes.
    least = max(least, work_bound(problem, device_classes(problem), until))
    if least < best_known * (1 - _CLOSE):
        least = max(least, share_program(relaxation))
    least = max(least, limited.seconds, priced.seconds)
    queued: list[tuple[int, ...]] = []
    if not charged and least < best_known * (1 - _CLOSE):
        least, queued = queue_bound(relaxation, free.seconds, least, best_known)
    return Bound(min(least, best_known), (free.place, *limited.places, *priced.places, *seen, *queued), best_known)


def halfway(until: float) -> float:
    """The middle between now and `until`."""
    now = perf_counter()
    return now + (until - now) / 2


def together_bound(problem: Problem) -> float:
    """The longest time that any ops which share a device keep it busy, on the device that is best for all of them."""
    longest = 0.0
    for group in problem.rules.together:
        totals = dict.fromkeys(problem.device_of, 0.0)
        for node in set(group):
            least = dict.fromkeys(totals, float("inf"))
            for place, device in enumerate(problem.device_of):
                least[device] = min(least[device], float(problem.fused_seconds[node, place]))
            totals = {device: total + least[device] for device, total in totals.items()}
        longest = max(longest, min(totals.values(), default=0.0))
    return longest


def share_bound(problem: Problem) -> float:
    """The longest time that any device needs for its least share of FLOPs, ops split where that helps."""
    shares = problem.rules.min_share.items()
    return max((share_seconds(problem, device, share) for device, share in shares), default=0.0)
