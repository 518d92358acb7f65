"""A lower bound on latency where memory binds: what the nodes of one path take, in a linear program with all memories.

Nodes of a path run one after another, so a request takes at least as long as they do where they are, with what they
stream there, and a launch and the latency of a link for each change of device. The linear program of a pipeline
(`period_program.py`) has a row for every memory; here one more row says that the latency is as long as the path.

`stream_bound` follows one way exactly and merges labels where there are many; this one splits nodes, whatever their
number. It says more where many devices fill up.
"""

from __future__ import annotations

from typing import Any

from gimlet.compiler.placement.bounds.period_program import PeriodProgram
from gimlet.compiler.placement.bounds.spine import heaviest_path
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem


def memory_path(problem: Problem, until: float = float("inf")) -> float:
    """No placement is quicker than this, in seconds; infinite where memories have no room for all nodes.

    0 where memory does not bind, or where the program is not solved by `until` (of `time.perf_counter`).
    """
    if not problem.nodes or not (problem.memory_can_bind or problem.streaming):
        return 0.0
    program = PeriodProgram(problem, device_classes(problem), (), float("inf"))
    if not program.can:
        return float("inf")
    path = heaviest_path(problem)
    on_path = set(path)
    saved: dict[tuple[int, int], float] = {}
    for fusion in problem.fusions:
        for place, seconds in fusion.seconds.items():
            saved[fusion.consumer, place] = saved.get((fusion.consumer, place), 0.0) + seconds
    terms: list[Any] = []
    for node in path:
        for place, part in program.at[node].items():
            seconds = problem.nodes[node].options[place].seconds - saved.get((node, place), 0.0)
            terms.append(max(seconds, 0.0) / program.scale * part)
    terms += [seconds / program.scale * part for user, _, seconds, part in program.streamed if user in on_path]
    for place in program.places:
        change_s = problem.launch_s[place] + _arrival_s(problem, place)
        terms += [change_s / program.scale * entry for entry in program.entries(path, place)]
    program.solver.Add(program.period >= program.solver.Sum(terms))
    return program.solve(until) or 0.0


def _arrival_s(problem: Problem, place: int) -> float:
    """The least latency of a link by which something comes to a place, none where it may have been on the device."""
    device = problem.device_of[place]
    others = [other for number, other in enumerate(problem.device_of) if number != place]
    if device == problem.host or device in others:
        return 0.0
    return min((problem.routes[other, device].latency_s for other in {*others, problem.host}), default=0.0)
