"""The page that the results make, and what in them nobody has explained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version

from tests.onnx_suite.known import KNOWN
from tests.onnx_suite.stages import Outcome

LEAST_SHARE = 0.995
_TITLES = {
    "onnxruntime": "ONNX Runtime passes",
    "text": "text",
    "structure": "same model",
    "export": "export",
    "normalized": "normalized",
    "compiled": "compiled and run",
}


def reason_of(name: str, stage: str) -> str:
    """Why a case is known not to come out the same in a stage, "" if it is not known."""
    return next((known.reason for known in KNOWN if known.covers(name, stage)), "")


def unexplained(outcomes: Iterable[Outcome]) -> list[str]:
    """Cases that fail in a stage for no listed reason, and listed ones that do not fail, one line each."""
    found: list[str] = []
    for outcome in outcomes:
        for stage, problem in outcome.problems.items():
            known = reason_of(outcome.name, stage)
            if stage != "onnxruntime" and bool(problem) != bool(known):
                found.append(f"{outcome.name} ({stage}): {problem or f'passes, but is listed: {known}'}")
    return found


def shares(outcomes: Sequence[Outcome]) -> dict[str, tuple[int, int]]:
    """For each stage how many cases come out right, and of how many."""
    stages = dict.fromkeys(stage for outcome in outcomes for stage in outcome.problems)
    return {
        stage: (
            sum(outcome.problems.get(stage) == "" for outcome in outcomes),
            sum(stage in outcome.problems for outcome in outcomes),
        )
        for stage in stages
    }


def page(outcomes: Sequence[Outcome]) -> str:
    """docs/onnx-coverage.md."""
    stages = list(shares(outcomes))
    parts = [
        _INTRODUCTION.format(onnx=version("onnx"), ort=version("onnxruntime"), cases=len(outcomes)),
        _table("suite", _by_suite(outcomes), stages),
        "## What does not come out the same\n",
        _reasons(outcomes, stages),
        "## By operator\n\nA case counts for every operator in its model, in its subgraphs and in its functions.\n",
        _table("operator", _by_operator(outcomes), stages),
    ]
    return "\n".join(parts)


_INTRODUCTION = """# ONNX coverage

<!-- Written by `make onnx-suite`: do not edit. -->

The {cases} cases of the backend test suite that the `onnx` package carries (onnx {onnx}), each through these stages:

- **text**: import → verify → print → parse → verify, in custom and in generic form. All cases.
- **same model**: what is exported after that is the model, node for node (`tests/onnx_suite/compare.py`). All cases.
- **export**: and ONNX Runtime runs it.
- **normalized**: through the passes of the phase `normalize`, exported, and run by ONNX Runtime.
- **compiled and run**: `gimlet.compile` for this machine, and the bundle run by `gimlet.load`.

The outputs must be the case's own, within its own tolerance. **export** and the two after it are asked of the cases
that ONNX Runtime {ort} itself passes: the others need an operator or a type that it has no CPU kernel for, or draw
random numbers.
`tests/onnx_suite/test_onnx_suite.py` fails below 99.5%, or on a failure that is not listed here.
"""


def _by_suite(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.suite, []).append(outcome)
    return {**groups, "**all**": list(outcomes)}


def _by_operator(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        for operator in outcome.operators:
            groups.setdefault(operator, []).append(outcome)
    return dict(sorted(groups.items()))


def _table(title: str, groups: Mapping[str, Sequence[Outcome]], stages: Sequence[str]) -> str:
    lines = ["| " + " | ".join([title, "cases", *(_TITLES[stage] for stage in stages)]) + " |"]
    lines.append("|---|" + "---:|" * (len(stages) + 1))
    for name, members in groups.items():
        found = shares(members)
        cells = [_cell(*found.get(stage, (0, 0)), stage) for stage in stages]
        lines.append("| " + " | ".join([name, str(len(members)), *cells]) + " |")
    return "\n".join(lines) + "\n"


def _cell(right: int, total: int, stage: str) -> str:
    if stage == "onnxruntime" or not total:
        return str(right) if total else "–"
    return str(right) if right == total else f"**{right}** of {total}"


def _reasons(outcomes: Sequence[Outcome], stages: Sequence[str]) -> str:
    lines: list[str] = []
    for stage in stages:
        failed = [o.name for o in outcomes if o.problems.get(stage) and stage != "onnxruntime"]
        if not failed:
            continue
        lines.append(f"In **{_TITLES[stage]}**:\n")
        by_reason: dict[str, list[str]] = {}
        for name in failed:
            by_reason.setdefault(reason_of(name, stage) or "not explained", []).append(name)
        lines += [f"- {reason}: {', '.join(f'`{n}`' for n in names)}" for reason, names in by_reason.items()]
        lines.append("")
    lines.append("Where ONNX Runtime does not pass the case itself, by its reason:\n")
    counts: dict[str, int] = {}
    for outcome in outcomes:
        if problem := outcome.problems.get("onnxruntime"):
            counts[_why(problem)] = counts.get(_why(problem), 0) + 1
    lines += [f"- {reason}: {count}" for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return "\n".join(lines) + "\n"


def _why(problem: str) -> str:
    """ONNX Runtime's reason without what is particular to the case."""
    if kernel := re.search(r"Could not find an implementation for (\w+)\((\d+)\)", problem):
        return f"no CPU kernel for {kernel.group(1)} of version {kernel.group(2)} in the case's types"
    if problem.startswith("output "):
        return "other outputs than the case's"
    return "the model is refused"
