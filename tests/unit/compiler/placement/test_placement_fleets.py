"""Fleets: how many devices of each class are in use, for what is paid by the second."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.fleet_latency import fleet_latency
from gimlet.compiler.placement.bounds.fleets import fleets
from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.bounds.timed_latency import timed_latency
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
from gimlet.compiler.placement.model.segments import Found, carve
from gimlet.compiler.placement.search.fleet_search import fleet_search
from gimlet.compiler.placement.solve import solve
from gimlet.runtime.errors import InfeasibleError

Make = Callable[..., Problem]


def with_twin(problem: Problem) -> Problem:
    """The problem with a device that is like the last one, and as far from everything."""
    last, twin = len(problem.devices) - 1, len(problem.devices)
    nodes = tuple(
        replace(node, options={**node.options, **({twin: node.options[last]} if last in node.options else {})})
        for node in problem.nodes
    )
    weights = tuple(
        replace(
            weight,
            size_bytes={**weight.size_bytes, twin: weight.size_bytes[last]},
            stream_s={**weight.stream_s, **({twin: weight.stream_s[last]} if last in weight.stream_s else {})},
        )
        for weight in problem.weights
    )
    fusions = tuple(
        replace(fusion, seconds={**fusion.seconds, twin: fusion.seconds[last]}) if last in fusion.seconds else fusion
        for fusion in problem.fusions
    )
    routes = dict(problem.routes)
    for other in range(last):
        routes[other, twin] = replace(routes[other, last], links=((f"{other}{twin}", 0.5),))
        routes[twin, other] = replace(routes[last, other], links=((f"{twin}{other}", 0.5),))
    routes[last, twin] = routes[twin, last] = Route(1.0, 0.5)
    return replace(
        problem,
        devices=(*problem.devices, replace(problem.devices[last], name="twin")),
        places=(*problem.places, Place(twin)),
        nodes=nodes,
        weights=weights,
        fusions=fusions,
        routes=routes,
    )


def carved(problem: Problem) -> Iterator[Found]:
    """Every choice of places, in segments as long as they can be."""
    for places in itertools.product(*problem.allowed):
        yield carve(problem, places)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    figures=st.permutations(OBJECTIVES),
    part=st.sampled_from((0, 1, 4)),
    levels=st.booleans(),
)
def test_no_placement_is_below_the_bound(
    random_problem: Make,
    with_levels: Callable[[Problem, int], Problem],
    seed: int,
    figures: list[Objective],
    part: int,
    levels: bool,
):
    """Of any figure, with a limit on any other that some placements keep."""
    objective, limited, *_ = figures
    problem = random_problem(seed, 4, 2, objective, memory=True)
    problem = with_twin(with_levels(problem, seed) if levels else problem)
    kept = [found for found in carved(problem) if not found.excess]
    amounts = sorted(found.schedule.figure(limited) for found in kept)
    if not amounts:
        return
    limit = amounts[part * (len(amounts) - 1) // 4] * (1 + 1e-9)
    asked = problem.with_rules(replace(problem.rules, bounds={limited: limit}))
    bound = lower_bound(asked)
    least = min(found.schedule.figure(objective) for found in kept if found.schedule.figure(limited) <= limit)
    assert bound.value <= least * (1 + 1e-9)


def chain(count: int, *, room: int, usd: float = 3600.0) -> Problem:
    """Ops of a second on any of three devices that are alike, with room for so many of them, and of 20 on the host."""
    devices = (
        DeviceSpec("host", usd_per_hour=3600.0),
        *(DeviceSpec(f"d{n}", memory_bytes=room, usd_per_hour=usd) for n in range(3)),
    )
    nodes = tuple(Node(f"n{n}", "Op", {0: Option(20.0), **{p: Option(1.0) for p in (1, 2, 3)}}) for n in range(count))
    values = [Value("x", 1, None, (0,))]
    values += [Value(f"v{n}", 1, n, (n + 1,) if n + 1 < count else (), n + 1 == count) for n in range(count)]
    weights = tuple(Weight(f"w{n}", (n,), dict.fromkeys(range(4), 1)) for n in range(count))
    routes = {(a, b): Route(0.01, 0.0) for a in range(4) for b in range(4) if a != b}
    return Problem(devices, tuple(Place(n) for n in range(4)), nodes, tuple(values), routes, weights)


def asked(problem: Problem, objective: Objective, **bounds: float) -> Problem:
    return problem.with_rules(Rules(objective, {figure: bounds[figure] for figure in OBJECTIVES if figure in bounds}))


def test_numbers_of_devices_are_told_apart():
    found = fleets(chain(4, room=2))
    assert [len(fleet.certain) for fleet in found] == [1, 2, 3, 4]
    assert [sorted(fleet.open) for fleet in found] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    as_sets = fleets(chain(4, room=2), counted=False)
    assert [(len(fleet.certain), len(fleet.open)) for fleet in as_sets] == [(1, 1), (2, 4)]


def test_devices_that_memory_needs_are_paid_for():
    """Six ops, room for two on a device: three devices and the host, for 6.04 s."""
    answer = solve(asked(chain(6, room=2), "cost"))
    assert answer.objective == pytest.approx(4 * 6.04)
    assert answer.gap < 1e-4


def test_a_limit_on_cost_leaves_devices_unused():
    """Of three devices at ten dollars a second none pays: two would wait for the host, which has no room in them."""
    problem = asked(chain(6, room=2), "latency", cost=130.0)
    assert fleet_latency(problem, float("inf")) == pytest.approx(6.04, rel=0.01)
    dearer = asked(chain(6, room=2, usd=36_000.0), "latency", cost=130.0)
    assert fleet_latency(dearer, float("inf")) == pytest.approx(120.0)
    assert solve(dearer).objective == pytest.approx(120.0)


def test_a_limit_on_cost_counts_for_throughput_as_well():
    """Three devices for a latency of 6.02 s are 24 dollars, two 18, one 12, and the host alone 120."""
    free, one, two = ({}, {"cost": 17.0}, {"cost": 23.0})
    least = [lower_bound(asked(chain(6, room=6), "throughput", **bounds)).value for bounds in (free, two, one)]
    assert least == pytest.approx([2.0, 3.0, 6.0], rel=0.05)


def test_a_limit_that_no_fleet_keeps():
    with pytest.raises(InfeasibleError):
        solve(asked(chain(6, room=2), "latency", cost=1.0))


def test_a_fleet_that_single_moves_do_not_reach():
    """From everything on the host, an op that moves alone makes it dearer; all of them together cheaper."""
    problem = asked(chain(6, room=6, usd=14_400.0), "cost")
    host = carve(problem, (0,) * 6)
    assert host.schedule.figure("cost") == pytest.approx(120.0)
    assert all(carve(problem, (*(0,) * n, 1, *(0,) * (5 - n))).schedule.figure("cost") > 120.0 for n in range(6))
    assert fleet_search(problem, host, 0, None).schedule.figure("cost") == pytest.approx(5 * 6.02)


def test_a_short_period_takes_transfers():
    """Six seconds of work on the host, or three of them on a device a second's way off and back."""
    far = chain(6, room=6)
    nodes = tuple(replace(node, options={0: Option(1.0), 1: Option(1.0)}) for node in far.nodes)
    far = replace(far, nodes=nodes, routes={ends: replace(route, latency_s=1.0) for ends, route in far.routes.items()})
    assert timed_latency(asked(far, "latency", throughput=6.1), 6.0) == 6.0
    assert timed_latency(asked(far, "latency", throughput=3.1), 6.0) == pytest.approx(8.0, rel=0.03)
    assert timed_latency(asked(far, "latency"), 6.0) == 6.0
