"""Graphs and hardware of many shapes: no placement is below its bound, whatever costs are zero or huge."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.model.problem import (
    OBJECTIVES,
    DeviceSpec,
    Node,
    Objective,
    Option,
    Place,
    Problem,
    Route,
    Rules,
    Value,
    Weight,
)
from gimlet.compiler.placement.model.segments import carve
from gimlet.compiler.placement.search.heuristics import fastest_places, single_places
from gimlet.compiler.placement.search.memory_cuts import memory_cuts
from gimlet.compiler.placement.search.stages import stage_cuts
from gimlet.runtime.errors import InfeasibleError

SHAPES = ("chain", "wide", "tree", "dense", "chains", "apart")


def edges(shape: str, count: int, draw: random.Random) -> list[set[int]]:
    """The consumers of each node."""
    found: list[set[int]] = [set() for _ in range(count)]
    for node in range(1, count):
        match shape:
            case "chain":
                found[node - 1].add(node)
            case "wide":
                for source in [0] if node < count - 1 else range(node):
                    found[source].add(node)
            case "tree":
                found[draw.randrange(node)].add(node)
            case "dense":
                for source in range(max(0, node - 4), node):
                    if draw.random() < 0.4:
                        found[source].add(node)
            case "chains":
                if node > 1:
                    found[node - 2].add(node)
            case _:
                pass
    return found


def problem_of(shape: str, seed: int, objective: Objective) -> Problem:
    """Devices but the host are alike in half of the problems, and have little memory in a third."""
    draw = random.Random(seed)
    count, devices, scale = draw.choice([1, 3, 6, 10]), draw.choice([1, 2, 4]), draw.choice([1e-9, 1.0, 1e6])
    alike, short = draw.random() < 0.5, draw.random() < 0.3
    costs = [[scale * draw.choice([0.0, 1.0, 3.0, 10.0, 1e4]) for _ in range(devices)] for _ in range(count)]
    launch = [scale * draw.choice([0, 1, 3]) for _ in range(devices)]
    if alike:
        costs = [[row[0], *(row[1:2] * (devices - 1))] for row in costs]
        launch = [launch[0], *(launch[1:2] * (devices - 1))]
    specs = tuple(
        DeviceSpec(f"d{n}", 6 * count if short and n else None, launch[n], 1.0, 20.0, 3600.0) for n in range(devices)
    )
    consumers = edges(shape, count, draw)
    fed = set[int]().union(*consumers)
    values = [Value("x", draw.choice([0, 5, 10**6]), None, tuple(n for n in range(count) if n not in fed))]
    values += [Value(f"v{n}", draw.choice([0, 1, 100]), n, tuple(sorted(to)), not to) for n, to in enumerate(consumers)]
    rate = scale * draw.choice([0.0, 1e-6, 0.1])
    return Problem(
        specs,
        tuple(Place(n) for n in range(devices)),
        tuple(
            Node(
                f"n{n}", "Op", {d: Option(s, 2 * s, 1) for d, s in enumerate(row)}, flops=float(draw.choice([0, 1, 50]))
            )
            for n, row in enumerate(costs)
        ),
        tuple(values),
        {(a, b): Route(0.0, rate, ((f"{a}>{b}", rate),)) for a in range(devices) for b in range(devices) if a != b},
        tuple(Weight(f"w{n}", (n,), dict.fromkeys(range(devices), 10)) for n in range(count)),
        rules=Rules(objective),
    )


@settings(max_examples=30)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 10**6), objective=st.sampled_from(OBJECTIVES))
def test_no_placement_is_below_the_bound(shape: str, seed: int, objective: Objective):
    problem = problem_of(shape, seed, objective)
    draw = random.Random(seed)
    starts = [*single_places(problem), fastest_places(problem), *memory_cuts(problem), *stage_cuts(problem)]
    starts += [tuple(draw.choice(allowed) for allowed in problem.allowed) for _ in range(3)]
    found = [carve(problem, place) for place in starts]
    kept = [each.schedule.figure(objective) for each in found if not each.excess]
    if kept:
        assert lower_bound(problem).value <= min(kept) * (1 + 1e-6)


@settings(max_examples=12)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 10**6), share=st.sampled_from([0.1, 0.4]))
def test_no_placement_that_keeps_a_share_is_below_the_bound(shape: str, seed: int, share: float):
    problem = problem_of(shape, seed, "latency")
    last = len(problem.devices) - 1
    problem = problem.with_rules(replace(problem.rules, min_share={last: share}))
    draw = random.Random(seed)
    found = [carve(problem, [draw.choice(allowed) for allowed in problem.allowed]) for _ in range(8)]
    kept = [each.schedule.latency_s for each in found if not each.excess]
    try:
        least = lower_bound(problem).value
    except InfeasibleError:
        assert not kept
        return
    assert all(least <= figure * (1 + 1e-6) for figure in kept)
