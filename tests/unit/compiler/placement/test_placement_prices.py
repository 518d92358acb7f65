"""Prices of ops and of bytes on routes: the worked example of arXiv 2507.19635 Table 3, and every placement tried."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
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
    Rules,
    Value,
)
from gimlet.compiler.placement.model.schedule import simulate
from gimlet.compiler.placement.model.segments import carve, judge
from gimlet.compiler.placement.search.coarsen import coarsen
from gimlet.compiler.placement.search.heuristics import best_of, fastest_places, single_places
from gimlet.compiler.placement.solve import solve
from gimlet.runtime.errors import InfeasibleError, InputError

Make = Callable[..., Problem]
SEEDS = st.integers(0, 10**6)
FAST, CHEAP = 0, 1
TOKENS_IN, TOKENS_OUT = 1000, 500
RULES = Rules("cost", bounds={"latency": 0.120})


def table3(rules: Rules = RULES) -> Problem:
    """Prefill and decode on a fast and on a cheap device; a token of the KV cache counts as a byte."""
    prefill = {FAST: Option(0.080, usd=TOKENS_IN * 0.00008), CHEAP: Option(0.130, usd=TOKENS_IN * 0.00005)}
    decode = {FAST: Option(0.025, usd=TOKENS_OUT * 0.00006), CHEAP: Option(0.030, usd=TOKENS_OUT * 0.00002)}
    hop = Route(0.010, 0.0, usd_per_byte=0.000005)
    return Problem(
        (DeviceSpec("fast", usd_per_hour=0.0), DeviceSpec("cheap", usd_per_hour=0.0)),
        (Place(FAST), Place(CHEAP)),
        (Node("prefill", options=prefill), Node("decode", options=decode)),
        (Value("kv", TOKENS_IN, 0, (1,)),),
        {(FAST, CHEAP): hop, (CHEAP, FAST): hop},
        rules=rules,
    )


def test_the_mixed_plan_is_the_proven_optimum():
    found = solve(table3())
    assert found.placement.place == (FAST, CHEAP)
    assert found.schedule.latency_s == pytest.approx(0.120)
    assert found.objective == found.schedule.cost_usd == pytest.approx(0.095)
    assert found.status == "optimal"
    assert found.gap == pytest.approx(0.0, abs=1e-8)


def test_all_fast_keeps_the_limit_and_is_dearer():
    found = judge(table3(), Placement((FAST, FAST), (0, 0)))
    assert found.excess == 0.0
    assert found.schedule.latency_s == pytest.approx(0.105)
    assert found.schedule.cost_usd == pytest.approx(0.11)


def test_all_cheap_is_too_slow():
    pins = {node: frozenset({CHEAP}) for node in range(2)}
    free = solve(table3(Rules("cost", pins=pins)))
    assert free.schedule.latency_s == pytest.approx(0.160)
    # Printed as $0.07; the paper's own rates give 0.06.
    assert free.objective == pytest.approx(0.06)
    with pytest.raises(InfeasibleError, match=r"latency cannot be below 160 ms, and at most 120 ms"):
        solve(table3(replace(RULES, pins=pins)))


def test_two_bounds_that_hold_only_alone_are_both_named():
    with pytest.raises(InfeasibleError, match=r"latency of at most 120 ms; cost of at most 0\.08 USD"):
        solve(table3(Rules(bounds={"latency": 0.120, "cost": 0.08})))


def test_a_price_is_not_negative():
    problem = table3()
    node = Node("prefill", options={FAST: Option(1.0, usd=-1.0)})
    with pytest.raises(InputError, match="a cost on fast"):
        replace(problem, nodes=(node, problem.nodes[1]))
    route = Route(0.0, 0.0, usd_per_byte=-1.0)
    with pytest.raises(InputError, match="the price of a byte between fast, cheap is negative"):
        replace(problem, routes={**problem.routes, (FAST, CHEAP): route})


def priced(problem: Problem, seed: int, hourly: bool) -> Problem:
    """The problem with prices of ops and bytes, about as large as those for an hour, which may be left out."""
    draw = random.Random(seed)
    nodes = tuple(
        replace(node, options={p: replace(option, usd=draw.randint(0, 30)) for p, option in node.options.items()})
        for node in problem.nodes
    )
    routes = {ends: replace(route, usd_per_byte=draw.choice([0, 1, 5])) for ends, route in problem.routes.items()}
    devices = problem.devices if hourly else tuple(replace(d, usd_per_hour=0.0) for d in problem.devices)
    return replace(problem, nodes=nodes, routes=routes, devices=devices)


@settings(max_examples=60)
@example(seed=246, devices=2, hourly=False, slack=1.0)
@given(seed=SEEDS, devices=st.sampled_from([2, 3]), hourly=st.booleans(), slack=st.sampled_from([1.0, 1.3, 2.0, None]))
def test_the_optimum_is_found_and_bounds_hold(
    random_problem: Make,
    best_by_trying: Callable[[Problem], float | None],
    seed: int,
    devices: int,
    hourly: bool,
    slack: float | None,
):
    problem = priced(random_problem(seed, nodes=3, devices=devices), seed, hourly)
    bounds: dict[Objective, float] = {} if slack is None else {"latency": slack * solve(problem).objective}
    problem = problem.with_rules(Rules("cost", bounds=bounds))
    best = best_by_trying(problem)
    if best is None:
        with pytest.raises(InfeasibleError):
            solve(problem)
        return
    found = solve(problem)
    assert found.objective == pytest.approx(best, rel=2e-4, abs=1e-6)
    assert lower_bound(problem).value <= best * (1 + 1e-6)
    assert found.group_bound is None or found.group_bound <= best * (1 + 2e-4)


@settings(max_examples=30)
@given(seed=SEEDS, hourly=st.booleans())
def test_no_placement_is_below_the_bound(random_problem: Make, seed: int, hourly: bool):
    problem = priced(random_problem(seed, nodes=8, devices=3), seed, hourly)
    draw = random.Random(seed)
    place = tuple(draw.choice(allowed) for allowed in problem.allowed)
    schedule = carve(problem, place).schedule
    bounded = problem.with_rules(Rules("cost", bounds={"latency": schedule.latency_s}))
    assert lower_bound(bounded).value <= schedule.figure("cost") * (1 + 1e-6)


@settings(max_examples=20)
@given(seed=SEEDS, hourly=st.booleans())
def test_the_solver_counts_what_the_schedule_counts(random_problem: Make, seed: int, hourly: bool):
    problem = priced(random_problem(seed, nodes=5, devices=3), seed, hourly).with_rules(Rules("cost"))
    start = best_of(problem, [*single_places(problem), fastest_places(problem)])
    scales: dict[Objective, float] = {o: start.schedule.figure(o) or 1.0 for o in OBJECTIVES}
    answer = solve_slots(problem, start.placement, scales, 0.0, 4, Limits(work=1.0))
    assert answer.placement is not None
    assert answer.objective == pytest.approx(simulate(problem, answer.placement).figure("cost"), rel=5e-5, abs=1e-6)


@given(seed=SEEDS)
def test_groups_cost_what_their_ops_cost(random_problem: Make, seed: int):
    problem = priced(random_problem(seed, nodes=8, devices=2), seed, hourly=True)
    coarse = coarsen(problem, 4)
    found = carve(coarse.problem, tuple(allowed[0] for allowed in coarse.problem.allowed))
    nodes = simulate(problem, coarse.expand(found.placement))
    assert found.schedule.figure("cost") == pytest.approx(nodes.figure("cost"))
