"""The smallest set of limits that cannot be kept together, and what would have to change.

A set is *infeasible* where it is proven that nothing keeps it: by the bounds and the linear program on the nodes, and
for small problems by CP-SAT. Limits are left out one after another; one without which the rest is still infeasible has
no part in the conflict and stays out. What is left is minimal: without any one of them, there is no such proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.bounds.period_bound import period_bound
from gimlet.compiler.placement.bounds.share_cover import share_cover
from gimlet.compiler.placement.model.problem import UNITS, Objective, Problem
from gimlet.compiler.placement.model.schedule import LOSS_TOLERANCE
from gimlet.compiler.placement.reasons.fit import is_searched_infeasible, room_needed, room_text, with_memory
from gimlet.compiler.placement.reasons.relief import (
    Relief,
    cap_relief,
    doing_without,
    figure_relief,
    loss_relief,
    share_relief,
)
from gimlet.runtime.errors import InfeasibleError
from gimlet.runtime.units import amount_text, bytes_text

Key = TypeVar("Key")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Limit:
    """One limit in words, the problem without it, the device whose memory it is about, if it is, and what would do.

    `loosened` is None where a limit is kept or not: nothing between would do.
    """

    text: str
    without: Callable[[Problem], Problem]
    device: int | None = None
    loosened: Callable[[Problem], Relief | None] | None = None


def conflict_of(problem: Problem) -> InfeasibleError | None:
    """Why nothing keeps the problem's limits, as the smallest conflict; None where that is not proven."""
    if not is_infeasible(problem):
        return None
    kept = smallest_conflict(problem)
    return InfeasibleError(
        "these cannot be kept together: " + "; ".join(limit.text for limit in kept), hint=_hint(problem, kept)
    )


def bound_conflict(problem: Problem, figure: Objective, until: float = math.inf) -> InfeasibleError | None:
    """Why a bound on a figure cannot be kept, with the other limits that have a part in it; None where it could be.

    What is proven of a figure is asked until `until` (of `time.perf_counter`).
    """

    def proven(less: Problem) -> bool:
        return least_figure(less, figure, until) > less.rules.bounds.get(figure, math.inf) * (1 + 1e-9)

    least = least_figure(problem, figure, until)
    # Where there is no placement at all, this limit is not why.
    if least == math.inf or not proven(problem):
        return None
    kept = smallest_conflict(problem, proven)
    lowest, most = amount_text(least, UNITS[figure]), amount_text(problem.rules.bounds[figure], UNITS[figure])
    said = f"{figure} cannot be below {lowest}, and at most {most} is asked for"
    if len(kept) > 1:
        listed = "; ".join(limit.text for limit in kept)
        said = f"these cannot be kept together: {listed}. With the others, {said}"
    return InfeasibleError(said, hint=_hint(problem, kept))


def least_figure(problem: Problem, figure: Objective, until: float = math.inf) -> float:
    """What a figure is at least, whatever the other figures are and whatever formats lose."""
    return lower_bound(_with(problem, objective=figure, bounds={}, loss_budget=None), until=until).value


def reliefs(problem: Problem, kept: Sequence[Limit]) -> list[Relief]:
    """What would end a conflict of the limits `kept`, for each of which it is known to be enough."""
    found = [limit.loosened(problem) for limit in kept if limit.loosened]
    whole = [limit for limit in kept if not limit.loosened and limit.device is None]
    found.append(doing_without(problem, [limit.text for limit in whole], [limit.without(problem) for limit in whole]))
    return [relief for relief in found if relief is not None]


def _hint(problem: Problem, kept: Sequence[Limit]) -> str:
    devices = [limit.device for limit in kept if limit.device is not None]
    rooms = [room_text(problem, room) for device in devices if (room := room_needed(problem, device, is_infeasible))]
    hints = [*rooms, *(relief.text for relief in reliefs(problem, kept))]
    return "; or ".join(hints) or "one of them alone was not found to be enough: loosen several"


def smallest_conflict(problem: Problem, proven: Callable[[Problem], bool] | None = None) -> list[Limit]:
    """Limits that cannot be kept together, none of which can be left out of the proof that `proven` is."""
    left, kept = problem, list[Limit]()
    for limit in limits_of(problem):
        less = limit.without(left)
        if (proven or is_infeasible)(less):
            left = less
        else:
            kept.append(limit)
    return kept


def limits_of(problem: Problem) -> list[Limit]:
    """Every limit that the user or a device sets."""
    rules, found = problem.rules, list[Limit]()
    for figure, bound in rules.bounds.items():
        text = f"{figure} of at most {amount_text(bound, UNITS[figure])}"
        less = partial(_without_bound, figure=figure)
        found.append(Limit(text, less, loosened=partial(figure_relief, figure=figure)))
    for device, share in rules.min_share.items():
        text = f"{share:.0%} of the FLOPs on {problem.devices[device].name}"
        less = partial(_without_share, device=device)
        found.append(Limit(text, less, loosened=partial(share_relief, device=device)))
    if rules.max_segments is not None:
        text = f"at most {rules.max_segments} segment{'s' if rules.max_segments != 1 else ''}"
        found.append(Limit(text, lambda p: _with(p, max_segments=None), loosened=cap_relief))
    if rules.loss_budget is not None:
        text = f"a loss of at most {rules.loss_budget:g}"
        found.append(Limit(text, lambda p: _with(p, loss_budget=None), loosened=loss_relief))
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
            text = f"the memory of {spec.name} ({bytes_text(spec.memory_bytes)})"
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
    return is_searched_infeasible(problem)


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


def _without_bound(problem: Problem, figure: Objective) -> Problem:
    return _with(problem, bounds=_less(problem.rules.bounds, figure))


def _without_share(problem: Problem, device: int) -> Problem:
    return _with(problem, min_share=_less(problem.rules.min_share, device))


def _with(problem: Problem, **changes: object) -> Problem:
    return problem.with_rules(replace(problem.rules, **changes))  # pyright: ignore[reportArgumentType]


def _less(entries: Mapping[Key, Item], *keys: Key) -> dict[Key, Item]:
    return {key: item for key, item in entries.items() if key not in keys}


def _named(problem: Problem, nodes: tuple[int, ...] | list[int]) -> str:
    first = problem.nodes[nodes[0]].name
    return repr(first) if len(nodes) == 1 else f"{first!r} and {len(nodes) - 1} more"
