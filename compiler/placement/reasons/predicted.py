"""What a placement promises of each segment: the one source of what `--explain`, the report and the manifest say.

    seconds = launch_s + the ops' seconds − fused_s + edges_s

An op's seconds are those of the op alone, with what it streams of its weights. The schedule's energy is the segments'
joules and what devices draw while they compute nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from gimlet.compiler.placement.model.problem import Placement, Problem
from gimlet.compiler.placement.model.schedule import Schedule, edges


@dataclass(frozen=True)
class SegmentFigures:
    """One segment by its number: the time of a run in the schedule and what it is made of, energy, resident bytes.

    `launch_s` is the overhead of a launch, `fused_s` what fusion saves, `edges_s` what casts and gathers take where
    values enter or leave. `joules` is None where the power of a device is not known. `weight_bytes` are the weights
    and states that it uses on its device, also those that it shares with other segments there.
    """

    segment: int
    seconds: float
    launch_s: float
    fused_s: float
    edges_s: float
    joules: float | None
    weight_bytes: int


def segment_figures(problem: Problem, placement: Placement, schedule: Schedule) -> tuple[SegmentFigures, ...]:
    """The figures of every segment, in the order of the schedule's launches."""
    place_of = {launch.segment: launch.place for launch in schedule.launches}
    fused = dict.fromkeys(place_of, 0.0)
    for fusion in problem.fusions:
        segment = placement.segment[fusion.producer]
        if segment == placement.segment[fusion.consumer]:
            fused[segment] += fusion.seconds.get(place_of[segment], 0.0)
    at_edges = dict.fromkeys(place_of, 0.0)
    for segment, seconds in edges(problem, placement.segment, place_of):
        at_edges[segment] += seconds
    held = dict.fromkeys(place_of, 0)
    for weight in problem.weights:
        for segment in {placement.segment[user] for user in weight.users}:
            held[segment] += weight.size_bytes.get(place_of[segment], 0)
    return tuple(
        SegmentFigures(
            launch.segment,
            launch.seconds,
            problem.launch_s[launch.place],
            fused[launch.segment],
            at_edges[launch.segment],
            schedule.segment_j.get(launch.segment),
            held[launch.segment],
        )
        for launch in schedule.launches
    )
