"""The bound by the sets of ops that devices can do within a period: below every placement, and close to the best."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.set_bound import set_bound
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

Make = Callable[..., Problem]
Limit = Callable[..., tuple[list[Found], dict[Objective, float]]]


def carved(problem: Problem) -> list[Found]:
    """Every choice of places that keeps all limits, in segments as long as they can be."""
    every = (carve(problem, places) for places in itertools.product(*problem.allowed))
    return [found for found in every if not found.excess]


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    objective=st.sampled_from(("throughput", "energy", "cost")),
    limited=st.sets(st.sampled_from(OBJECTIVES), max_size=2),
    part=st.sampled_from((0, 8, 3)),
    known=st.sampled_from((1.0, 1.4, 3.0)),
    levels=st.booleans(),
)
def test_no_placement_is_below_the_bound(
    random_problem: Make,
    with_levels: Callable[[Problem, int], Problem],
    limited_to: Limit,
    seed: int,
    objective: Objective,
    limited: set[Objective],
    part: int,
    known: float,
    levels: bool,
):
    problem = random_problem(seed, 4, 2, objective, memory=True)
    problem = with_levels(problem, seed) if levels else problem
    kept = carved(problem)
    if not kept:
        return
    figures = [figure for figure in OBJECTIVES if figure != objective and figure in {"throughput", *limited}]
    kept, bounds = limited_to(kept, figures, part)
    least = min(found.schedule.figure(objective) for found in kept)
    asked = problem.with_rules(replace(problem.rules, bounds=bounds))
    assert set_bound(asked, known * least) <= least * (1 + 1e-9)


def chain(count: int, size: int = 0, room: int | None = None) -> Problem:
    """Ops of a second on two devices that are alike, of ten on the host; a launch is three seconds, a byte one."""
    devices = (
        DeviceSpec("host", usd_per_hour=3600.0, idle_w=1.0, load_w=1.0),
        *(DeviceSpec(f"d{n}", room, 3.0, usd_per_hour=3600.0, idle_w=1.0, load_w=20.0) for n in range(2)),
    )
    options = {0: Option(10.0, 10.0), 1: Option(1.0, 20.0), 2: Option(1.0, 20.0)}
    nodes = tuple(Node(f"n{n}", "Op", options) for n in range(count))
    values = [Value("x", size, None, (0,))]
    values += [Value(f"v{n}", size, n, (n + 1,) if n + 1 < count else (), n + 1 == count) for n in range(count)]
    links = {n: ((f"{n}<", 1.0), (f"{n}>", 1.0)) for n in (1, 2)}
    routes = {
        (a, b): Route(0.5, 1.0, (*([links[a][1]] if a else []), *([links[b][0]] if b else [])))
        for a in range(3)
        for b in range(3)
        if a != b
    }
    weights = tuple(Weight(f"w{n}", (n,), {0: 1, 1: 1, 2: 1}) for n in range(count))
    return Problem(devices, tuple(Place(n) for n in range(3)), nodes, tuple(values), routes, weights)


@pytest.mark.parametrize(
    ("problem", "bounds"),
    [
        (chain(5), {}),
        (chain(5, room=2), {}),
        (chain(5), {"latency": 11.9}),
        (chain(5), {"cost": 30.0}),
        (chain(5), {"energy": 130.0}),
    ],
    ids=["free", "memory", "latency", "cost", "energy"],
)
def test_the_shortest_period_is_proven(problem: Problem, bounds: dict[Objective, float]):
    asked = problem.with_rules(Rules("throughput", bounds=bounds))
    least = min(found.schedule.period_s for found in carved(asked))
    assert set_bound(asked, 1.2 * least) == pytest.approx(least, rel=0.02)


@pytest.mark.parametrize("objective", ["cost", "energy"])
@pytest.mark.parametrize("period_s", [6.0, 8.0])
def test_what_a_short_period_costs_is_proven(objective: Objective, period_s: float):
    """All on one device takes eight seconds; a shorter period needs both, with two launches and a way between them."""
    asked = chain(5).with_rules(Rules(objective, bounds={"throughput": period_s}))
    least = min(found.schedule.figure(objective) for found in carved(asked))
    assert set_bound(asked, 1.2 * least) == pytest.approx(least, rel=0.02)


def test_a_value_with_several_readers_enters_a_device_once():
    """Its readers are both on the device whose link takes nine seconds for it, not eighteen."""
    problem = chain(3, size=9)
    values = (problem.values[0], replace(problem.values[1], consumers=(1, 2)), *problem.values[2:])
    options = ({0: Option(0.0)}, {1: Option(1.0)}, {1: Option(1.0)})
    nodes = tuple(replace(node, options=own) for node, own in zip(problem.nodes, options, strict=True))
    asked = replace(problem, nodes=nodes, values=values).with_rules(Rules("throughput"))
    assert set_bound(asked, 20.0) == pytest.approx(9.0, rel=0.01)


def test_it_says_nothing_where_no_period_is_asked():
    assert set_bound(chain(3).with_rules(Rules("cost")), 100.0) == 0.0
    assert set_bound(chain(3).with_rules(Rules("latency", bounds={"throughput": 10.0})), 100.0) == 0.0
    assert set_bound(chain(3).with_rules(Rules("throughput")), float("inf")) == 0.0


@pytest.mark.parametrize("objective", ["throughput", "energy"])
def test_a_limit_that_no_device_keeps_ends_it(objective: Objective):
    asked = chain(3).with_rules(Rules(objective, bounds={"throughput": 10.0, "cost": 1e-6}))
    assert set_bound(asked, 100.0) == 100.0
