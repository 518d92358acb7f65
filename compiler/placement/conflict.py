"""The smallest set of limits that cannot be kept together, and what would have to change.

A set is *infeasible* where it is proven that nothing keeps it: by the bounds and the linear program on the nodes, and
for small problems by CP-SAT. Limits are left out one after another; one without which the rest is still infeasible has
no part in the conflict and stays out. What is left is minimal: without any one of them, there is no such proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from gimlet.compiler.placement.bounds import lower_bound
from gimlet.compiler.placement.cpsat import Limits, solve_slots
from gimlet.compiler.placement.period_bound import period_bound
from gimlet.compiler.placement.problem import OBJECTIVES, UNITS, Objective, Problem, gigabytes
from gimlet.compiler.placement.schedule import LOSS_TOLERANCE
from gimlet.compiler.placement.share_cover import share_cover
from gimlet.runtime.errors import InfeasibleError
from gimlet.targets.roofline import FORMAT_BITS

Key = TypeVar("Key")
Item = TypeVar("Item")

_SMALL = 40
_STEPS = 10
_WEIGHT_FORMATS = (("bf16", 16.0), ("int8", 8.0), ("int4", 4.0))


@dataclass(frozen=True)
class Limit:
    """One limit in words, the problem without it, and the device whose memory it is about, if it is."""

    text: str
    without: Callable[[Problem], Problem]
    device: int | None = None


def conflict_of(problem: Problem) -> InfeasibleError | None:
    """Why nothing keeps the problem's limits, as the smallest conflict; None where that is not proven."""
    if not is_infeasible(problem):
        return None
    left, kept = problem, list[Limit]()
    for limit in limits_of(problem):
        less = limit.without(left)
        if is_infeasible(less):
            left = less
        else:
            kept.append(limit)
    hints = [hint for limit in kept if (hint := _fit(left, limit)) is not None]
    return InfeasibleError(
        "these cannot be kept together: " + "; ".join(limit.text for limit in kept),
        hint="; ".join(hints) or "loosen one of them",
    )


def limits_of(problem: Problem) -> list[Limit]:
    """Every limit that the user or a device sets."""
    rules, found = problem.rules, list[Limit]()
    for figure, bound in rules.bounds.items():
        text = f"{figure} of at most {bound:.6g} {UNITS[figure]}"
        found.append(Limit(text, lambda p, f=figure: _with(p, bounds=_less(p.rules.bounds, f))))
    for device, share in rules.min_share.items():
        text = f"{share:.0%} of the FLOPs on {problem.devices[device].name}"
        found.append(Limit(text, lambda p, d=device: _with(p, min_share=_less(p.rules.min_share, d))))
    if rules.max_segments is not None:
        found.append(Limit(f"at most {rules.max_segments} segments", lambda p: _with(p, max_segments=None)))
    if rules.loss_budget is not None:
        found.append(Limit(f"a loss of at most {rules.loss_budget:g}", lambda p: _with(p, loss_budget=None)))
    for group in rules.together:
        text = f"{_named(problem, group)} on one device"
        found.append(Limit(text, lambda p, g=group: _with(p, together=tuple(o for o in p.rules.together if o != g))))
    for pair in rules.apart:
        text = f"{_named(problem, pair[0])} apart from {_named(problem, pair[1])}"
        found.append(Limit(text, lambda p, a=pair: _with(p, apart=tuple(o for o in p.rules.apart if o != a))))
    by_places: dict[frozenset[int], list[int]] = {}
    for node, places in rules.pins.items():
        by_places.setdefault(places, []).append(node)
    for places, nodes in by_places.items():
        where = " or ".join(problem.place_name(place) for place in sorted(places))
        text = f"{_named(problem, nodes)} pinned to {where}"
        found.append(Limit(text, lambda p, ns=tuple(nodes): _with(p, pins=_less(p.rules.pins, *ns))))
    for device, spec in enumerate(problem.devices):
        if spec.memory_bytes is not None and device in problem.device_of:
            text = f"the memory of {spec.name} ({gigabytes(spec.memory_bytes)})"
            found.append(Limit(text, lambda p, d=device: with_memory(p, d, None), device))
    return found


def is_infeasible(problem: Problem) -> bool:
    """Whether it is proven that no placement keeps the limits."""
    if not all(problem.allowed) or _split_by_rules(problem) or share_cover(problem).most < 1:
        return True
    budget = problem.rules.loss_budget
    if budget is not None and math.hypot(*least_losses(problem)) > budget * (1 + LOSS_TOLERANCE):
        return True
    try:
        for figure, limit in problem.rules.bounds.items():
            if lower_bound(_with(problem, objective=figure)).value > limit * (1 + 1e-9):
                return True
        period_bound(problem)
    except InfeasibleError:
        return True
    return len(problem.nodes) <= _SMALL and _searched(problem)


def least_losses(problem: Problem) -> list[float]:
    """For each node the loss on the place that loses least, of those it may be on."""
    return [
        min(node.options[place].loss for place in allowed)
        for node, allowed in zip(problem.nodes, problem.allowed, strict=True)
    ]


def _split_by_rules(problem: Problem) -> bool:
    """Whether nodes that share a device have none in common, or must be apart as well."""
    owner = list(range(len(problem.nodes)))
    for group in problem.rules.together:
        joined = {owner[node] for node in group}
        owner = [min(joined) if root in joined else root for root in owner]
    devices: dict[int, set[int]] = {}
    for root, places in zip(owner, problem.allowed, strict=True):
        here = {problem.device_of[place] for place in places}
        devices[root] = devices.get(root, here) & here
    apart = ({owner[n] for n in left} & {owner[n] for n in right} for left, right in problem.rules.apart)
    return not all(devices.values()) or any(apart)


def _searched(problem: Problem) -> bool:
    total = float(problem.seconds[problem.seconds < float("inf")].sum()) or 1.0
    bounds = problem.rules.bounds
    scales: dict[Objective, float] = {
        o: total if o in ("latency", "throughput") else bounds.get(o, 1.0) or 1.0 for o in OBJECTIVES
    }
    return solve_slots(problem, None, scales, 0.0, 3, Limits(work=1.0, gap=1.0)).status == "infeasible"


def with_memory(problem: Problem, device: int, memory_bytes: int | None) -> Problem:
    """The problem with another capacity of one device."""
    devices = list(problem.devices)
    devices[device] = replace(devices[device], memory_bytes=memory_bytes)
    return replace(problem, devices=tuple(devices))


def smaller_format(problem: Problem, device: int, need: float, have: float) -> str | None:
    """The widest format for weights in which `need` bytes, in the format of the device's places, fit into `have`."""
    formats = [place.format for place in problem.places if place.device == device]
    bits = min((FORMAT_BITS[fmt] for fmt in formats if fmt in FORMAT_BITS), default=0.0)
    return next((name for name, width in _WEIGHT_FORMATS if width < bits and need * width / bits <= have), None)


def _fit(problem: Problem, limit: Limit) -> str | None:
    """What would end a conflict over a device's memory: how much more, or a smaller format of the weights."""
    if limit.device is None:
        return None
    spec = problem.devices[limit.device]
    have = spec.memory_bytes or 0
    low, high = have, have + sum(max(weight.size_bytes.values(), default=0) for weight in problem.weights)
    for _ in range(_STEPS):
        middle = (low + high) // 2
        low, high = (middle, high) if is_infeasible(with_memory(problem, limit.device, middle)) else (low, middle)
    fmt = smaller_format(problem, limit.device, high, have)
    return f"{spec.name} needs {gigabytes(high - have)} more" + (f", or weights in {fmt}" if fmt else "")


def _with(problem: Problem, **changes: object) -> Problem:
    return problem.with_rules(replace(problem.rules, **changes))  # pyright: ignore[reportArgumentType]


def _less(entries: Mapping[Key, Item], *keys: Key) -> dict[Key, Item]:
    return {key: item for key, item in entries.items() if key not in keys}


def _named(problem: Problem, nodes: tuple[int, ...] | list[int]) -> str:
    first = problem.nodes[nodes[0]].name
    return repr(first) if len(nodes) == 1 else f"{first!r} and {len(nodes) - 1} more"
