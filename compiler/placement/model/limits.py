"""Limits that a user puts on a placement in words: bounds on figures, ops that share a device or must not.

A bound is `latency=5ms`, `throughput=200/s` (or its period, `throughput=5ms`), `energy=2J`, `cost=0.001USD`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from gimlet.compiler.placement.model.problem import OBJECTIVES, Objective, Problem
from gimlet.compiler.placement.model.rules import matching_nodes
from gimlet.runtime.errors import UsageError

_SCALES: Final[Mapping[Objective, Mapping[str, float]]] = {
    "latency": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9},
    "throughput": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "/s": 1.0},
    "energy": {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6, "nJ": 1e-9, "kJ": 1e3},
    "cost": {"USD": 1.0, "$": 1.0},
}
_AMOUNT: Final = re.compile(r"([0-9.]+(?:e[-+]?[0-9]+)?)\s*(\S*)", re.IGNORECASE)


def parse_bounds(texts: Iterable[tuple[str, str]], where: str = "--bound") -> dict[Objective, float]:
    """Bounds by figure, in seconds, joules and US dollars. UsageError for a figure or an amount that is none."""
    found: dict[Objective, float] = {}
    for name, text in texts:
        if name not in OBJECTIVES:
            raise UsageError(
                f"there is no figure {name!r}", where=where, hint=f"the figures are: {', '.join(OBJECTIVES)}"
            )
        figure = OBJECTIVES[OBJECTIVES.index(name)]
        found[figure] = _amount(figure, text, where)
    return found


def _amount(figure: Objective, text: str, where: str) -> float:
    scales = _SCALES[figure]
    match = _AMOUNT.fullmatch(text.strip())
    try:
        amount = float(match[1]) if match else 0.0
    except ValueError:
        amount = 0.0
    unit = match[2] if match else ""
    if not amount > 0 or unit not in scales:
        units = ", ".join(scales)
        raise UsageError(f"{text!r} is no bound on {figure}", where=where, hint=f"write a number and one of: {units}")
    return scales[unit] / amount if unit == "/s" else scales[unit] * amount


def joined(problem: Problem, expressions: Iterable[str], where: str = "--together") -> list[tuple[int, ...]]:
    """For each expression the nodes that it matches: they share a device."""
    return [tuple(matching_nodes(problem, expression, where)) for expression in expressions]


def separated(
    problem: Problem, pairs: Iterable[tuple[str, str]], where: str = "--apart"
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """For each pair of expressions the nodes of both, no two of which may share a device. UsageError for an overlap."""
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for left, right in pairs:
        first, second = (matching_nodes(problem, expression, where) for expression in (left, right))
        both = sorted(set(first) & set(second))
        if both:
            name = problem.nodes[both[0]].name
            raise UsageError(f"{left!r} and {right!r} both match {name!r}", where=where, hint="make them narrower")
        found.append((tuple(first), tuple(second)))
    return found
