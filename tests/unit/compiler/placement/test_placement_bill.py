"""The bound on energy and cost: never above a placement, and close where weights are streamed."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.bill_bound import bill_bound
from gimlet.compiler.placement.bounds.period_bound import period_bound
from gimlet.compiler.placement.model.problem import (
    DeviceSpec,
    Fusion,
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
SEEDS = st.integers(0, 10**6)
BILLS: tuple[Objective, Objective] = ("energy", "cost")


def carved(problem: Problem) -> Iterator[Found]:
    """Every choice of places that keeps all limits, in segments as long as they can be."""
    for places in itertools.product(*problem.allowed):
        found = carve(problem, places)
        if not found.excess:
            yield found


def with_fused_joules(problem: Problem, seed: int) -> Problem:
    """The problem with part of a consumer's energy saved where it is fused."""
    draw = Random(seed)
    fusions = (
        replace(
            fusion,
            joules={
                p: draw.random() * (problem.nodes[fusion.consumer].options[p].joules or 0.0) for p in fusion.seconds
            },
        )
        for fusion in problem.fusions
    )
    return replace(problem, fusions=tuple(fusions))


@settings(max_examples=40)
@given(
    seed=SEEDS,
    objective=st.sampled_from(BILLS),
    levels=st.booleans(),
    limited=st.sampled_from((None, "latency", "throughput")),
)
def test_no_placement_is_below_the_bound(
    random_problem: Make,
    with_levels: Callable[[Problem, int], Problem],
    seed: int,
    objective: Objective,
    levels: bool,
    limited: Objective | None,
):
    problem = with_fused_joules(random_problem(seed, 5, 3, objective, memory=True), seed)
    problem = with_levels(problem, seed) if levels else problem
    placements = list(carved(problem))
    if limited and placements:
        limit = sorted(found.schedule.figure(limited) for found in placements)[len(placements) // 4]
        problem = problem.with_rules(replace(problem.rules, bounds={limited: limit}))
        placements = [found for found in placements if found.schedule.figure(limited) <= limit]
    bound = bill_bound(problem)
    for found in placements:
        assert bound.value <= found.schedule.figure(objective) * (1 + 1e-9)


@settings(max_examples=30)
@given(seed=SEEDS, figure=st.sampled_from(("latency", "energy", "cost")), levels=st.booleans())
def test_no_placement_within_a_limit_is_below_the_bound_on_the_period(
    random_problem: Make, with_levels: Callable[[Problem, int], Problem], seed: int, figure: Objective, levels: bool
):
    problem = with_fused_joules(random_problem(seed, 5, 3, "throughput", memory=True), seed)
    problem = with_levels(problem, seed) if levels else problem
    placements = list(carved(problem))
    assume(placements)
    limit = sorted(found.schedule.figure(figure) for found in placements)[len(placements) // 8]
    problem = problem.with_rules(replace(problem.rules, bounds={figure: limit}))
    kept = [found.schedule.period_s for found in placements if found.schedule.figure(figure) <= limit]
    assert period_bound(problem) <= min(kept) * (1 + 1e-6)


@pytest.mark.parametrize("objective", BILLS)
def test_a_limit_on_the_period_spreads_the_work(objective: Objective):
    """Forty ops of a second, for ten times as much on the card as on the host, where half of them may be."""
    devices = tuple(DeviceSpec(name, idle_w=0.0, load_w=1.0, usd_per_hour=0.0) for name in ("host", "card"))
    options = {0: Option(1.0, 1.0, usd=1.0), 1: Option(1.0, 10.0, usd=10.0)}
    values = tuple(Value(f"v{i}", 0, i, (i + 1,) if i < 39 else (), i == 39) for i in range(40))
    routes = {(0, 1): Route(0.0, 0.0), (1, 0): Route(0.0, 0.0)}
    nodes = tuple(Node(f"n{i}", options=options) for i in range(40))
    rules = Rules(objective, bounds={"throughput": 20.0})
    problem = Problem(devices, (Place(0), Place(1)), nodes, values, routes, rules=rules)
    assert bill_bound(problem).value == pytest.approx(20 * 1.0 + 20 * 10.0, rel=1e-6)
    assert bill_bound(problem.with_rules(Rules(objective))).value == pytest.approx(40.0)


@pytest.mark.parametrize(("joules", "least"), [(900.0, 10.0), (300.0, 20.0)])
def test_a_device_that_a_limit_on_energy_has_no_idle_power_for_is_not_in_the_bound(joules: float, least: float):
    """Ten ops of a second each way, in turns 10 s a device, while the card draws 30 W when idle."""
    devices = (DeviceSpec("host", idle_w=0.0, load_w=10.0), DeviceSpec("card", idle_w=30.0, load_w=40.0))
    nodes = tuple(Node(f"n{i}", options={0: Option(2.0, 10.0), 1: Option(2.0, 80.0)}) for i in range(10))
    values = tuple(Value(f"v{i}", 0, i, (i + 1,) if i < 9 else (), i == 9) for i in range(10))
    problem = Problem(
        devices,
        (Place(0), Place(1)),
        nodes,
        (Value("x", 0, None, (0,)), *values),
        {(0, 1): Route(0.0, 0.0), (1, 0): Route(0.0, 0.0)},
        rules=Rules("throughput", bounds={"energy": joules}),
    )
    assert period_bound(problem) == pytest.approx(least, rel=1e-6)


def test_members_of_a_group_that_runs_are_not_idle():
    """Two devices of 10 W idle work as one for a second and 30 J, after one of them worked for a second and 5 J."""
    devices = (
        DeviceSpec("host", idle_w=0.0, load_w=0.0),
        DeviceSpec("a", idle_w=10.0, load_w=20.0),
        DeviceSpec("b", idle_w=10.0, load_w=20.0),
        DeviceSpec("both", members=(1, 2)),
    )
    nodes = (Node("n0", options={1: Option(1.0, 5.0)}), Node("n1", options={3: Option(1.0, 30.0)}))
    problem = Problem(
        devices,
        tuple(Place(index) for index in range(4)),
        nodes,
        (Value("x", 0, None, (0,)), Value("v", 0, 0, (1,)), Value("y", 0, 1, (), True)),
        {(a, b): Route(0.0, 0.0) for a in range(4) for b in range(4) if a != b},
        rules=Rules("energy"),
    )
    assert carve(problem, (1, 3)).schedule.energy_j == pytest.approx(45.0)
    assert 35.0 <= bill_bound(problem).value <= 45.0 + 1e-9


def streamed(objective: Objective) -> Problem:
    """Eight layers on a host, or on a card that is quick with weights in its fast memory, which has room for two."""
    devices = (
        DeviceSpec("host", idle_w=1.0, load_w=10.0, usd_per_hour=3600.0),
        DeviceSpec("card", idle_w=5.0, load_w=100.0, usd_per_hour=7200.0, fast_bytes=20),
    )
    nodes = tuple(Node(f"n{index}", options={0: Option(6.0, 60.0), 1: Option(0.1, 10.0)}) for index in range(8))
    weights = tuple(Weight(f"w{index}", (index,), {0: 10, 1: 10}, {1: {index: 4.0}}) for index in range(8))
    values = tuple(Value(f"v{index}", 1, index, (index + 1,) if index < 7 else (), index == 7) for index in range(8))
    return Problem(
        devices,
        (Place(0), Place(1)),
        nodes,
        (Value("x", 1, None, (0,)), *values),
        {(0, 1): Route(0.01, 0.0), (1, 0): Route(0.01, 0.0)},
        weights,
        rules=Rules(objective),
    )


@pytest.mark.parametrize("objective", BILLS)
def test_streaming_is_in_the_bound(objective: Objective):
    """Without it, the card does everything for 80 J, or in 0.8 s."""
    problem = streamed(objective)
    least = min(found.schedule.figure(objective) for found in carved(problem))
    bound = bill_bound(problem).value
    assert 0.9 * least <= bound <= least * (1 + 1e-9)


@pytest.mark.parametrize("objective", BILLS)
def test_memory_is_in_the_bound(objective: Objective):
    """The card's memory holds three layers, so that five are computed by the host."""
    problem = streamed(objective)
    card = replace(problem.devices[1], memory_bytes=30, fast_bytes=None)
    problem = replace(problem, devices=(problem.devices[0], card))
    least = min(found.schedule.figure(objective) for found in carved(problem))
    bound = bill_bound(problem).value
    assert 0.9 * least <= bound <= least * (1 + 1e-9)


def test_energy_of_fused_ops_is_solved_before_any_search():
    """A fusion saves 3 J beside its producer alone: 12 J on either device, and not the 10 J of each op's cheapest."""
    devices = (DeviceSpec("host", load_w=10.0), DeviceSpec("card", load_w=10.0))
    first, second = {0: Option(1.0, 4.0), 1: Option(1.0, 7.0)}, {0: Option(1.0, 11.0), 1: Option(1.0, 8.0)}
    fused = Fusion(0, 1, {0: 0.0, 1: 0.0}, {0: 3.0, 1: 3.0})
    problem = Problem(
        devices,
        (Place(0), Place(1)),
        (Node("n0", options=first), Node("n1", options=second)),
        (Value("x", 0, None, (0,)), Value("v", 0, 0, (1,)), Value("y", 0, 1, (), True)),
        {(0, 1): Route(0.0, 0.0), (1, 0): Route(0.0, 0.0)},
        fusions=(fused,),
        rules=Rules("energy"),
    )
    bound = bill_bound(problem)
    assert bound.value == pytest.approx(12.0, rel=1e-6)
    assert min(carve(problem, places).schedule.figure("energy") for places in bound.places) == pytest.approx(12.0)


def test_sets_of_devices_that_no_placement_can_use_are_not_in_the_bound(capfd: pytest.CaptureFixture[str]):
    """One segment, and an op that only the host may do: the card is quick, and of no use."""
    problem = streamed("energy").with_rules(Rules("energy", pins={3: frozenset({0})}, max_segments=1))
    assert bill_bound(problem).value == pytest.approx(480.0, rel=1e-6)
    assert capfd.readouterr() == ("", "")
