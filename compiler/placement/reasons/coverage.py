"""What a dry run says before anything is built: what each place could run and what it refuses, and advice.

`coverage` gives one JSON object, `print_coverage` shows its tables. A *place* is a device with a target and a format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.console import Console

from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.reasons.advice import recommendation
from gimlet.compiler.placement.reasons.explain import NOT_ASKED, Json
from gimlet.compiler.placement.solve import Solution
from gimlet.compiler.tables import figure_table

_MOST_LINES: Final = 12


def coverage(problem: Problem, solution: Solution) -> Json:
    """What each place could run, whatever pins say: `places`, `unsupported` and `recommendation`.

    `places` counts the ops that a place takes and their share of the FLOPs; `unsupported` has the others by place,
    operator and reason, the most frequent first.
    """
    places = range(len(problem.places))
    return {
        "places": [_covered(problem, place) for place in places],
        "unsupported": [row for place in places for row in _unsupported(problem, place)],
        "recommendation": recommendation(problem, solution),
    }


def _named(problem: Problem, place: int) -> Json:
    found = problem.places[place]
    return {"device": problem.devices[found.device].name, "target": found.target, "format": found.format}


def _covered(problem: Problem, place: int) -> Json:
    taken = [node for node in problem.nodes if place in node.options]
    return {
        **_named(problem, place),
        "ops": len(taken),
        "of": len(problem.nodes),
        "flops_share": _share(problem, sum(node.flops for node in taken)),
    }


def _unsupported(problem: Problem, place: int) -> list[Json]:
    counts: dict[tuple[str, str], int] = {}
    flops: dict[tuple[str, str], float] = {}
    for node in problem.nodes:
        if place in node.options:
            continue
        key = node.op_type, node.refusals.get(place, NOT_ASKED)
        counts[key] = counts.get(key, 0) + 1
        flops[key] = flops.get(key, 0.0) + node.flops
    return [
        {
            **_named(problem, place),
            "operator": operator,
            "reason": reason,
            "ops": counts[operator, reason],
            "flops_share": _share(problem, flops[operator, reason]),
        }
        for operator, reason in sorted(counts, key=lambda key: (-counts[key], -flops[key], key))
    ]


def _share(problem: Problem, flops: float) -> float:
    return flops / problem.total_flops if problem.total_flops else 0.0


def print_coverage(data: Mapping[str, Any], console: Console) -> None:
    """Tables of what each place takes, and of what it refuses most often; places that refuse the same share one."""
    console.print(figure_table("coverage", ("place", "ops", "FLOPs"), _coverage_rows(data["places"])))
    refused: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for place in data["places"]:
        rows = tuple(_refused_rows(data["unsupported"], place))
        if rows:
            refused.setdefault(rows, []).append(_place_text(place))
    for rows, names in refused.items():
        console.print(f"not on {', '.join(names)}", style="italic", soft_wrap=True)
        console.print(figure_table("", ("ops", "FLOPs", "operator", "reason"), _shortened(rows)))


def _place_text(row: Mapping[str, Any]) -> str:
    return f"{row['device']} ({row['target']}, {row['format']})"


def _coverage_rows(places: Iterable[Mapping[str, Any]]) -> Iterable[Sequence[str]]:
    for row in places:
        yield _place_text(row), f"{row['ops']} of {row['of']}", f"{row['flops_share']:.1%}"


def _refused_rows(unsupported: Iterable[Mapping[str, Any]], place: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for row in unsupported:
        if _place_text(row) == _place_text(place):
            yield str(row["ops"]), f"{row['flops_share']:.1%}", row["operator"], row["reason"]


def _shortened(rows: Sequence[Sequence[str]]) -> Iterable[Sequence[str]]:
    if len(rows) <= _MOST_LINES:
        return rows
    left_out = rows[_MOST_LINES - 1 :]
    ops = sum(int(row[0]) for row in left_out)
    return [*rows[: _MOST_LINES - 1], (str(ops), "", f"{len(left_out)} more", "--json lists them")]
