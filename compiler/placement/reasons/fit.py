"""How much more memory of a device would make a problem possible, beside all of its other limits.

The least capacity for which nothing proves the opposite is found by bisection; it is *certain* where a placement with
it is found as well. Activations take memory too, so weights alone do not say it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from gimlet.compiler.placement.exact.cpsat import Answer, Limits, solve_slots
from gimlet.compiler.placement.model.problem import OBJECTIVES, Objective, Problem
from gimlet.compiler.placement.model.segments import Found, judge
from gimlet.compiler.placement.search.company import keep_company
from gimlet.compiler.placement.search.heuristics import (
    best_of,
    fastest_places,
    share_cuts,
    single_places,
    within_loss,
)
from gimlet.targets.roofline import FORMAT_BITS

_STEPS = 12
_SMALL = 40
_MOST_ROUNDS = 6
_MOST_LITERALS = 3000


@dataclass(frozen=True)
class Room:
    """The capacity that a device needs. `certain` says that a placement with it is known; else it may need more."""

    device: int
    size_bytes: int
    certain: bool


def room_needed(problem: Problem, device: int, infeasible: Callable[[Problem], bool], least: int = 0) -> Room | None:
    """The least capacity of a device that is known to be enough for everything, or not known to be too little.

    None where more of it would not do, whatever its amount. Where `least` is known to be needed, large problems are
    only asked whether it does, with activations or without.
    """
    have = problem.devices[device].memory_bytes or 0
    peak = _peak(problem, device)
    low = have
    high = have + peak + sum(max(weight.size_bytes.values(), default=0) for weight in problem.weights)
    if least and len(problem.nodes) > _SMALL:
        low = high = least
    elif infeasible(with_memory(problem, device, high)):
        return None
    for _ in range(_STEPS):
        if high - low <= 1:
            break
        middle = (low + high) // 2
        low, high = (middle, high) if infeasible(with_memory(problem, device, middle)) else (low, middle)
    for size in (high, high + peak):
        if placement_of(with_memory(problem, device, size)) is not None:
            return Room(device, size, True)
    return Room(device, high, False)


def room_text(problem: Problem, room: Room) -> str:
    """A hint: `gpu0 needs 3.1 GB more, or weights in fp16 there (--format gpu0=fp16)`."""
    spec = problem.devices[room.device]
    have = spec.memory_bytes or 0
    peak = _peak(problem, room.device)
    fmt = smaller_format(problem, room.device, room.size_bytes - peak, have - peak)
    at_least = "" if room.certain else "at least "
    return f"{spec.name} needs {at_least}{_rounded_up(room.size_bytes - have)} more" + (
        f", or weights in {fmt} there (--format {spec.name}={fmt})" if fmt else ""
    )


def _peak(problem: Problem, device: int) -> int:
    """The largest activations that any node may have on a device."""
    options = (
        option
        for node in problem.nodes
        for place, option in node.options.items()
        if device in problem.units[problem.device_of[place]]
    )
    return max((option.activation_bytes for option in options), default=0)


def with_memory(problem: Problem, device: int, memory_bytes: int | None) -> Problem:
    """The problem with another capacity of one device."""
    devices = list(problem.devices)
    devices[device] = replace(devices[device], memory_bytes=memory_bytes)
    return replace(problem, devices=tuple(devices))


def smaller_format(problem: Problem, device: int, need: float, have: float) -> str | None:
    """The widest format of the device in which weights of `need` bytes, in that of its places, fit into `have`.

    None where it computes in no format that is small enough.
    """
    used = [place.format for place in problem.places if place.device == device]
    bits = min((FORMAT_BITS[fmt] for fmt in used if fmt in FORMAT_BITS), default=0.0)
    narrower = {fmt: FORMAT_BITS[fmt] for fmt in problem.devices[device].formats if FORMAT_BITS.get(fmt, bits) < bits}
    fitting = [fmt for fmt, width in narrower.items() if need * width / bits <= have]
    return max(fitting, key=lambda fmt: narrower[fmt], default=None)


def is_searched_infeasible(problem: Problem) -> bool:
    """Whether CP-SAT proves for a small problem that no placement keeps its limits, in any number of segments.

    Limits on places alone are asked for without the graph. With bounds on figures there may be as many segments as
    nodes, which is only tried where that is few.
    """
    if len(problem.nodes) > _SMALL:
        return False
    if _answer(replace(problem.with_rules(replace(problem.rules, bounds={})), values=()), 1).status == "infeasible":
        return True
    rounds = min(len(problem.nodes), problem.rules.max_segments or len(problem.nodes))
    if rounds * len(problem.nodes) * len(problem.places) > _MOST_LITERALS:
        return False
    return _answer(problem, rounds).status == "infeasible"


def _answer(problem: Problem, rounds: int, gap: float = 1.0) -> Answer:
    total = _longest(problem) or 1.0
    bounds = problem.rules.bounds
    scales: dict[Objective, float] = {
        o: total if o in ("latency", "throughput") else bounds.get(o, 1.0) or 1.0 for o in OBJECTIVES
    }
    return solve_slots(problem, None, scales, 0.0, rounds, Limits(work=1.0, gap=gap))


def _longest(problem: Problem) -> float:
    """Seconds in which any placement is through: every node a segment, everything sent, one after the other.

    A unit of time that launches or transfers do not fit into would make a problem look impossible.
    """
    sizes = [value.size_bytes for value in problem.values]
    sent = max((sum(map(route.seconds, sizes)) for route in problem.routes.values()), default=0.0)
    edges = sum(problem.edge_s(v, p, leaving=True) for v in problem.values for p in range(len(problem.places)))
    streamed = sum(seconds for w in problem.weights for users in w.stream_s.values() for seconds in users.values())
    computed = float(problem.seconds[problem.seconds < float("inf")].sum())
    return computed + len(problem.nodes) * max(problem.launch_s, default=0.0) + sent + edges + streamed


def placement_of(problem: Problem, gap: float = 1.0) -> Found | None:
    """A placement that keeps all limits, near to the best for the objective where `gap` is 0; None where none is known.

    Quick placements are tried, and for small problems CP-SAT finds one.
    """
    if not all(problem.allowed):
        return None
    starts = [*single_places(problem), fastest_places(problem), *share_cuts(problem)]
    starts += [keep_company(problem, start) for start in starts]
    best = best_of(problem, [*starts, *within_loss(problem, starts)])
    if len(problem.nodes) > _SMALL or (gap and not best.excess):
        return None if best.excess else best
    most = max(_MOST_LITERALS // (len(problem.nodes) * len(problem.places)), 1)
    rounds = min(len(problem.nodes), problem.rules.max_segments or _MOST_ROUNDS, _MOST_ROUNDS, most)
    answer = _answer(problem, rounds, gap)
    found = [best] if answer.placement is None else [best, judge(problem, answer.placement)]
    best = min(found, key=lambda each: each.rank(problem.rules.objective))
    return None if best.excess else best


def _rounded_up(size_bytes: float) -> str:
    """A size for a message, never less than it is: `3.1 GB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{math.ceil(size_bytes / scale * 10 - 1e-9) / 10:.1f} {unit}"
    return f"{math.ceil(size_bytes)} bytes"
