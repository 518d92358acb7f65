"""What would end a conflict of limits: another amount, or doing without one of them. Each is known to be enough.

A limit is loosened to what a placement that keeps all others has: the least of a figure, the fewest segments, the
largest share that was found. Up to 40 ops CP-SAT looks for it, beyond that only quick placements are tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gimlet.compiler.placement.model.problem import UNITS, Objective, Problem
from gimlet.compiler.placement.model.schedule import flops_of, loss_of
from gimlet.compiler.placement.model.segments import Found
from gimlet.compiler.placement.reasons.fit import placement_of
from gimlet.runtime.units import amount_text

_MORE_SEGMENTS: Final = 6
_STEPS: Final = 6
"""Steps of halving, for shares and losses."""


@dataclass(frozen=True)
class Relief:
    """What would do in words, and the problem with it."""

    text: str
    problem: Problem


def figure_relief(problem: Problem, figure: Objective) -> Relief | None:
    """The least of a bounded figure beside all other limits; None where no placement is known."""
    others = {name: limit for name, limit in problem.rules.bounds.items() if name != figure}
    found = placement_of(_with(problem, bounds=others, objective=figure), gap=0.0)
    value = math.inf if found is None else found.schedule.figure(figure)
    if value == math.inf:
        return None
    enough = rounded_up(value, 4)
    text = f"{figure} of at most {amount_text(enough, UNITS[figure])} would do"
    return Relief(text, _with(problem, bounds={**problem.rules.bounds, figure: enough}))


def cap_relief(problem: Problem) -> Relief | None:
    """The fewest segments beside all other limits, up to some more than there may be."""
    cap = problem.rules.max_segments or 0
    for more in range(cap + 1, min(cap + _MORE_SEGMENTS, len(problem.nodes)) + 1):
        less = _with(problem, max_segments=more)
        if placement_of(less) is not None:
            return Relief(f"at most {more} segments would do", less)
    return None


def share_relief(problem: Problem, device: int) -> Relief | None:
    """The largest share of a device that was found beside all other limits."""

    def asked(share: float) -> Problem:
        return _with(problem, min_share={**problem.rules.min_share, device: share})

    def had(found: Found) -> float:
        return flops_of(problem, found.placement.place, device) / max(problem.total_flops, 1.0)

    best = _nearest(problem.rules.min_share[device], 0.0, asked, had)
    share = math.floor((best or 0.0) * 1000) / 1000
    if not share:
        return None
    return Relief(f"{share:.1%} of the FLOPs on {problem.devices[device].name} would do", asked(share))


def loss_relief(problem: Problem) -> Relief | None:
    """The least loss that was found beside all other limits."""
    worst = math.hypot(*(max((option.loss for option in node.options.values()), default=0) for node in problem.nodes))

    def asked(budget: float) -> Problem:
        return _with(problem, loss_budget=budget)

    best = _nearest(
        problem.rules.loss_budget or 0.0, worst, asked, lambda found: loss_of(problem, found.placement.place)
    )
    if best is None:
        return None
    budget = rounded_up(best, 3)
    return Relief(f"a loss of at most {budget:g} would do", asked(budget))


def doing_without(problem: Problem, texts: Sequence[str], less: Sequence[Problem]) -> Relief | None:
    """The limits of `texts` of which each alone could be left out, which gives the problems `less`."""
    enough = [(text, other) for text, other in zip(texts, less, strict=True) if placement_of(other) is not None]
    if not enough:
        return None
    named = " or ".join(text for text, _ in enough)
    return Relief(f"leave out {named}", enough[0][1])


def _nearest(
    wanted: float, enough: float, asked: Callable[[float], Problem], had: Callable[[Found], float]
) -> float | None:
    """An amount nearest to `wanted` for which a placement is known, from one that should be enough on; else None."""
    found = placement_of(asked(enough))
    if found is None:
        return None
    best = had(found)
    for _ in range(_STEPS):
        middle = (best + wanted) / 2
        found = placement_of(asked(middle))
        if found is None:
            wanted = middle
        else:
            best = had(found)
    return best


def rounded_up(value: float, digits: int) -> float:
    """`value` with so many digits, never less than it is."""
    if not value:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return float(f"{math.ceil(value / step - 1e-9) * step:.{digits}g}")


def _with(problem: Problem, **changes: object) -> Problem:
    return problem.with_rules(replace(problem.rules, **changes))  # pyright: ignore[reportArgumentType]
