"""What a placement means for its user, in one to three sentences, each with the figures that it is drawn from."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import UNITS, Problem
from gimlet.compiler.placement.model.schedule import Schedule, violations
from gimlet.compiler.placement.model.segments import Found, carve
from gimlet.compiler.placement.reasons.explain import NOT_ASKED
from gimlet.compiler.placement.solve import Solution
from gimlet.runtime.units import amount_text, bytes_text, seconds_text

# Below these a sentence would name what does not matter.
_SHARE_TO_NAME: Final = 0.01
_SHARE_THAT_DOMINATES: Final = 0.5
_LARGE_GAP: Final = 0.05
_FAR_SLOWER: Final = 1.5
_ALIKE: Final = 1e-4
_MOST_SENTENCES: Final = 3


def recommendation(problem: Problem, solution: Solution) -> str:
    """What the placement gains over the best single device, and what holds it back most. Empty for a model of no ops.

    The gap comes last, because the summary has it too.
    """
    if not problem.nodes:
        return ""
    sentences = [
        _choice(problem, solution),
        _slower(problem, solution),
        _streamed(problem, solution),
        _refused(problem),
        _transfers(problem, solution.schedule),
        _gap(solution),
    ]
    return " ".join([text for text in sentences if text][:_MOST_SENTENCES])


def alone(problem: Problem, device: int) -> Found | None:
    """The whole model on one device, on the best of its places or each op on its quickest; None where it refuses one.

    Whether this keeps the rules, pins among them, is in `excess`.
    """
    places = [place for place, found in enumerate(problem.device_of) if found == device]
    quickest: list[int] = []
    for node in problem.nodes:
        here = [place for place in places if place in node.options]
        if not here:
            return None
        quickest.append(min(here, key=lambda place: (node.options[place].seconds, place)))
    whole = [place for place in places if all(place in node.options for node in problem.nodes)]
    chosen = {tuple(quickest), *((place,) * len(problem.nodes) for place in whole)}
    found = [carve(problem, candidate) for candidate in sorted(chosen)]
    return min(found, key=lambda candidate: candidate.rank(problem.rules.objective))


def _choice(problem: Problem, solution: Solution) -> str:
    """The placement, and the single device beside it that says most about it."""
    objective = problem.rules.objective
    used = sorted({problem.device_of[place] for place in solution.placement.place})
    names = [problem.devices[device].name for device in used]
    chosen = f"a split over {', '.join(names[:-1])} and {names[-1]}" if len(used) > 1 else f"{names[0]} alone"
    confidence = {"optimal": "Best", "forced": "As given"}.get(solution.status, "Best found")
    value = amount_text(solution.objective, UNITS[objective]) + (" a run" if objective == "throughput" else "")
    rival = _rival(problem, used, solution.objective)
    head = f"{confidence} for {objective}: {chosen}, {value}"
    kind = "single device" if len(used) > 1 else "other device"
    if rival is None:
        return f"{head}; no {kind} takes every op."
    device, found = rival
    return f"{head}; {_compared(problem, solution.objective, device, found)}, {_standing(problem, found, kind)}."


def _rival(problem: Problem, used: list[int], value: float) -> tuple[int, Found] | None:
    """The single device that only a limit keeps from being better than `value`, else the best that keeps all limits.

    Where one device is used, neither it nor one like it is meant.
    """
    objective = problem.rules.objective
    classes = [members for members in device_classes(problem) if members[0] in problem.device_of]
    others = [members[0] for members in classes if len(used) > 1 or used[0] not in members]
    judged = [(device, found) for device in others if (found := alone(problem, device))]
    better = [item for item in judged if item[1].schedule.figure(objective) < value * (1 - _ALIKE)]
    if better:
        return min(better, key=lambda item: item[1].schedule.figure(objective))
    return min(judged, key=lambda item: item[1].rank(objective), default=None)


def _compared(problem: Problem, value: float, device: int, found: Found) -> str:
    unit = UNITS[problem.rules.objective]
    figure = found.schedule.figure(problem.rules.objective)
    name = problem.devices[device].name
    if abs(figure - value) <= _ALIKE * value:
        return f"{name} alone needs as much"
    more = "more" if figure > value else "less"
    share = abs(figure - value) / value if value else 0.0
    part = f" ({share:.{0 if share >= 0.01 else 2}%})" if value else ""
    return f"{name} alone needs {amount_text(abs(figure - value), unit)}{part} {more}"


def _standing(problem: Problem, found: Found, kind: str) -> str:
    if not found.excess:
        return f"the least of any {kind}"
    return f"but breaks a limit: {violations(problem, found.placement, found.schedule)[0][1]}"


def _slower(problem: Problem, solution: Solution) -> str:
    """What energy or money costs in time, where a single device that keeps all limits is far quicker."""
    if problem.rules.objective not in ("energy", "cost") or solution.status == "forced":
        return ""
    asked = problem.with_rules(replace(problem.rules, objective="latency"))
    judged = [(device, found) for device in sorted(set(problem.device_of)) if (found := alone(asked, device))]
    kept = [(device, found.schedule.latency_s) for device, found in judged if not found.excess]
    device, seconds = min(kept, key=lambda item: item[1], default=(0, float("inf")))
    if solution.schedule.latency_s < _FAR_SLOWER * seconds:
        return ""
    slow, quick = seconds_text(solution.schedule.latency_s), seconds_text(seconds)
    return f"It takes {slow}, and {problem.devices[device].name} alone {quick}: --bound latency=AMOUNT limits that."


def _streamed(problem: Problem, solution: Solution) -> str:
    """Which device streams weights, and what that is of its time."""
    schedule = solution.schedule
    seconds: dict[int, float] = {}
    for node, more in schedule.streamed.seconds.items():
        device = problem.device_of[solution.placement.place[node]]
        seconds[device] = seconds.get(device, 0.0) + more
    device = max(seconds, key=lambda found: seconds[found], default=-1)
    share = seconds.get(device, 0.0) / max(schedule.device_busy_s.get(device, 0.0), 1e-30)
    if share < _SHARE_TO_NAME:
        return ""
    size = bytes_text(schedule.streamed.size_bytes.get(device, 0))
    return (
        f"{problem.devices[device].name} streams {size} of weights in every run, {share:.0%} of its time: "
        "a smaller format, or another device of its kind, would help."
    )


def _refused(problem: Problem) -> str:
    """Which operator keeps most FLOPs off the fastest device."""
    device = fastest_device(problem)
    if device is None:
        return ""
    places = [place for place, found in enumerate(problem.device_of) if found == device]
    flops: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for node in problem.nodes:
        if any(place in node.options for place in places):
            continue
        flops[node.op_type] = flops.get(node.op_type, 0.0) + node.flops
        reasons.setdefault(node.op_type, node.refusals.get(places[0], NOT_ASKED))
    operator = max(flops, key=lambda name: flops[name], default="")
    share = flops.get(operator, 0.0) / max(problem.total_flops, 1.0)
    if share < _SHARE_TO_NAME:
        return ""
    name = problem.devices[device].name
    return f"{operator} keeps {share:.0%} of the FLOPs off {name}, the fastest device: {reasons[operator]}."


def fastest_device(problem: Problem) -> int | None:
    """The quickest device for most FLOPs, of the ops that several devices take. None where there are none."""
    won: dict[int, float] = {}
    for node in problem.nodes:
        if len({problem.device_of[place] for place in node.options}) < 2 or not node.flops:
            continue
        quickest = min(node.options, key=lambda place: (node.options[place].seconds, place))
        device = problem.device_of[quickest]
        won[device] = won.get(device, 0.0) + node.flops
    return max(won, key=lambda device: won[device], default=None)


def _transfers(problem: Problem, schedule: Schedule) -> str:
    if problem.rules.objective == "throughput":
        link = max(schedule.link_busy_s, key=lambda name: schedule.link_busy_s[name], default="")
        if not link or schedule.link_busy_s[link] <= max(schedule.device_busy_s.values(), default=0.0):
            return ""
        return f"Transfers decide: link {link} is busier than any device, so a faster link would help first."
    waiting = schedule.latency_s - computing_s(schedule)
    if not waiting > _SHARE_THAT_DOMINATES * schedule.latency_s:
        return ""
    share = waiting / schedule.latency_s
    return f"Transfers dominate: in {share:.0%} of the latency no device computes, so a faster link would help first."


def computing_s(schedule: Schedule) -> float:
    """Seconds of a request in which at least one device computes."""
    total = until = 0.0
    for launch in sorted(schedule.launches, key=lambda launch: launch.start_s):
        total += max(launch.end_s - max(launch.start_s, until), 0.0)
        until = max(until, launch.end_s)
    return total


def _gap(solution: Solution) -> str:
    if solution.gap < _LARGE_GAP or solution.status == "forced":
        return ""
    return f"The gap is {solution.gap:.0%}: a longer --time-limit may find a better placement."
