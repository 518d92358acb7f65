"""Groups in the problem: devices that work as one, and are busy while they do."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.exact.cpsat import Limits, solve_slots
from gimlet.compiler.placement.model.problem import (
    OBJECTIVES,
    DeviceSpec,
    Node,
    Objective,
    Option,
    Place,
    Placement,
    Problem,
    Route,
    Value,
    Weight,
)
from gimlet.compiler.placement.model.schedule import simulate, violations
from gimlet.compiler.placement.search.heuristics import best_of, single_places
from gimlet.compiler.placement.solve import solve
from gimlet.runtime.errors import InfeasibleError, InputError

Make = Callable[..., Problem]
SEEDS = st.integers(0, 10**6)


def with_group(problem: Problem, seed: int) -> Problem:
    """The problem with a group of its first two devices, on which every node is quicker, and weights are halved."""
    draw = random.Random(seed)
    group, place = len(problem.devices), len(problem.places)
    nodes = tuple(
        replace(node, options={**node.options, place: Option(float(draw.randint(0, 8)), float(draw.randint(0, 50)), 2)})
        for node in problem.nodes
    )
    routes = dict(problem.routes)
    for device in range(group):
        routes[device, group] = Route(float(draw.randint(0, 2)), draw.choice([0.1, 0.5]), ((f"{device}g", 0.5),))
        routes[group, device] = Route(0.0, 0.0) if device < 2 else Route(1.0, 0.5, ((f"g{device}", 0.5),))
    values = tuple(
        replace(value, gather_s={place: draw.choice([0.0, 3.0])}) if value.producer is not None else value
        for value in problem.values
    )
    weights = tuple(replace(w, size_bytes={**w.size_bytes, place: -(-w.size_bytes[0] // 2)}) for w in problem.weights)
    spec = DeviceSpec("both", None, 1.0, 0.0, 0.0, 0.0, members=(0, 1))
    return replace(
        problem,
        devices=(*problem.devices, spec),
        places=(*problem.places, Place(group)),
        nodes=nodes,
        values=values,
        routes=routes,
        weights=weights,
    )


@settings(max_examples=30)
@given(seed=SEEDS, objective=st.sampled_from(OBJECTIVES), memory=st.booleans())
def test_the_optimum_with_a_group(
    random_problem: Make,
    best_by_trying: Callable[[Problem], float | None],
    seed: int,
    objective: Objective,
    memory: bool,
):
    problem = with_group(random_problem(seed, 3, 2, objective, memory), seed)
    best = best_by_trying(problem)
    assume(best is not None or memory)
    if best is None:
        with pytest.raises(InfeasibleError):
            solve(problem)
        return
    found = solve(problem)
    assert not violations(problem, found.placement, found.schedule)
    assert found.objective == pytest.approx(best, rel=2e-4, abs=1e-9)
    assert lower_bound(problem).value <= best * (1 + 1e-6)


@settings(max_examples=15)
@given(seed=SEEDS, objective=st.sampled_from(OBJECTIVES))
def test_the_solvers_objective_is_that_of_the_schedule(random_problem: Make, seed: int, objective: Objective):
    problem = with_group(random_problem(seed, 4, 2, objective), seed)
    start = best_of(problem, single_places(problem))
    scales: dict[Objective, float] = {name: start.schedule.figure(name) or 1.0 for name in OBJECTIVES}
    answer = solve_slots(problem, start.placement, scales, 0.0, 4, Limits(work=1.0))
    assert answer.placement is not None
    figure = simulate(problem, answer.placement).figure(objective)
    assert answer.objective == pytest.approx(figure, rel=1e-4, abs=1e-6)


@settings(max_examples=15)
@given(seed=SEEDS, objective=st.sampled_from(OBJECTIVES))
def test_a_group_more_is_never_worse(random_problem: Make, seed: int, objective: Objective):
    problem = random_problem(seed, 4, 2, objective)
    assert solve(with_group(problem, seed)).objective <= solve(problem).objective * (1 + 2e-4) + 1e-9


def two_and_their_group(weights: tuple[Weight, ...] = (), memory: int | None = None) -> Problem:
    """Two ops that depend on nothing, 4 s on each of two devices and 3 s on both together."""
    devices = (
        DeviceSpec("host", None, 0.0, 0.0, 1.0, 0.0),
        DeviceSpec("a", memory, 0.5, 1.0, 10.0, 3600.0),
        DeviceSpec("b", memory, 0.5, 1.0, 10.0, 3600.0),
        DeviceSpec("ab", None, 1.0, 0.0, 0.0, 0.0, members=(1, 2)),
    )
    options = {0: Option(4.0, 40.0), 1: Option(4.0, 40.0), 2: Option(3.0, 60.0)}
    return Problem(
        devices,
        (Place(1), Place(2), Place(3)),
        tuple(Node(name, "MatMul", options) for name in "xy"),
        (Value("y", 8, 1, (), is_output=True, gather_s={2: 0.25}),),
        {(m, n): Route(0.0, 0.0) for m in range(4) for n in range(4) if m != n},
        weights,
        host=0,
    )


def test_members_are_busy_while_the_group_is():
    problem = two_and_their_group()
    apart = simulate(problem, Placement((0, 1), (0, 1)))
    assert apart.latency_s == 4.5
    mixed = simulate(problem, Placement((2, 0), (0, 1)))
    assert [launch.start_s for launch in mixed.launches] == [0.0, 4.0]
    assert mixed.latency_s == 8.5
    assert mixed.device_busy_s == {1: 8.5, 2: 4.0}
    both = simulate(problem, Placement((2, 2), (0, 0)))
    assert both.latency_s == 1.0 + 3.0 + 3.0 + 0.25
    assert both.energy_j == pytest.approx(2 * 60.0 + 0.25 * 20.0 + 2 * 1.0 * 1.0)
    assert both.cost_usd == pytest.approx(2 * both.latency_s)


def test_the_group_is_taken_where_it_pays():
    problem = two_and_their_group()
    assert solve(problem).objective == pytest.approx(4.5)
    chain = replace(problem, values=(Value("x", 8, 0, (1,)), Value("y", 8, 1, (), is_output=True)))
    found = solve(chain)
    assert found.objective == pytest.approx(7.0)
    assert found.placement.place == (2, 2)


def test_weights_of_a_group_are_split_over_its_members():
    weights = tuple(Weight(name, (node,), {0: 100, 1: 100, 2: 50}) for node, name in enumerate("vw"))
    problem = two_and_their_group(weights, memory=120)
    both = simulate(problem, Placement((2, 2), (0, 0)))
    assert both.memory_bytes == {1: 100, 2: 100}
    assert not violations(problem, Placement((2, 2), (0, 0)), both)
    mixed = Placement((2, 0), (0, 1))
    broken = violations(problem, mixed, simulate(problem, mixed))
    assert [text for _, text in broken] == ["a needs 150 B and has 120 B"]


@pytest.mark.parametrize(
    ("members", "message"), [((1,), "two devices at least"), ((1, 1), "each once"), ((1, 3), "are devices, not groups")]
)
def test_a_group_of_something_else_is_refused(members: tuple[int, ...], message: str):
    problem = two_and_their_group()
    devices = (*problem.devices[:3], replace(problem.devices[3], members=members))
    with pytest.raises(InputError, match=message):
        replace(problem, devices=devices)


def test_a_negative_time_to_put_together_is_refused():
    problem = two_and_their_group()
    with pytest.raises(InputError, match="put together is negative"):
        replace(problem, values=(replace(problem.values[0], gather_s={2: -1.0}),))
