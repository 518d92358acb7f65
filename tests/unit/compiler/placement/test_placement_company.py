"""Ops that must share a device, and ops that may not: bounds know of them, and placements that keep them are found."""

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.company_branches import company_cases
from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.bounds.memory_blocks import memory_blocks
from gimlet.compiler.placement.bounds.memory_prices import memory_prices
from gimlet.compiler.placement.bounds.period_bound import period_bound
from gimlet.compiler.placement.exact.cpsat import Limits
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
)
from gimlet.compiler.placement.model.segments import carve
from gimlet.compiler.placement.search.company import keep_company
from gimlet.compiler.placement.solve import solve

Make = Callable[..., Problem]


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), memory=st.booleans())
def test_no_placement_that_keeps_company_is_below_the_bounds(random_problem: Make, seed: int, memory: bool):
    problem = random_problem(seed, 4, 3, memory=memory)
    draw = random.Random(seed)
    ends = tuple(draw.sample(range(4), 3))
    rules = Rules(together=(ends[:2],)) if seed % 2 else Rules(apart=((ends[:1], ends[1:]),))
    problem = problem.with_rules(rules)
    latency = max(memory_blocks(problem).seconds, memory_prices(problem).seconds)
    period = period_bound(problem)
    for places in itertools.product(*problem.allowed):
        found = carve(problem, places)
        assert found.excess or latency <= found.schedule.latency_s * (1 + 1e-9)
        assert found.excess or period <= found.schedule.period_s * (1 + 1e-9)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), objective=st.sampled_from(OBJECTIVES))
def test_the_least_bound_of_all_cases_is_one(random_problem: Make, seed: int, objective: Objective):
    problem = random_problem(seed, 4, 3, objective)
    draw = random.Random(seed)
    ends = tuple(draw.sample(range(4), 4))
    rules = Rules(objective, together=(ends[:2],), apart=((ends[1:3], ends[3:]),) if seed % 2 else ())
    problem = problem.with_rules(rules)
    bound = lower_bound(problem).value
    for places in itertools.product(*problem.allowed):
        found = carve(problem, places)
        assert found.excess or bound <= found.schedule.figure(objective) * (1 + 1e-6)


def test_devices_that_are_alike_are_given_to_sides_by_their_number():
    """The host and two equal cards: three for each side of a pair, less where a side has none, and two for a group."""
    problem = chain(4)
    apart, together = ((0,), (1,)), (2, 3)
    assert len(company_cases(problem.with_rules(Rules(together=(together,))))) == 2
    assert len(company_cases(problem.with_rules(Rules(apart=(apart,))))) == 4
    assert company_cases(problem) == [problem]


@pytest.mark.parametrize(
    "rules",
    [
        Rules("throughput", together=(tuple(range(0, 20, 2)),)),
        Rules("throughput", apart=((tuple(range(10)), tuple(range(10, 20))),)),
    ],
)
def test_ops_in_parts_do_not_make_a_bound_loose(rules: Rules):
    """Half of each op on either card would take half of the time."""
    found = solve(chain(20).with_rules(rules), Limits(work=0.2))
    assert found.gap < 0.06


def test_ops_that_share_a_device_are_bounded_there():
    """The first and the last of ten are quick on different devices, and must be on one."""
    options = [
        {0: Option(1.0), 1: Option(50.0)},
        *[{0: Option(1.0), 1: Option(1.0)}] * 8,
        {0: Option(50.0), 1: Option(1.0)},
    ]
    problem = Problem(
        (DeviceSpec("host"), DeviceSpec("card")),
        (Place(0), Place(1)),
        tuple(Node(f"n{index}", options=own) for index, own in enumerate(options)),
        tuple(Value(f"v{index}", 1, index, (index + 1,) if index < 9 else (), index == 9) for index in range(10)),
        {(0, 1): Route(0.1, 0.0), (1, 0): Route(0.1, 0.0)},
    )
    for rules in (Rules(together=((0, 9),)), Rules("throughput", together=((0, 9),))):
        found = solve(problem.with_rules(rules))
        assert found.gap < 0.15
        assert found.objective > 50


def chain(count: int) -> Problem:
    """A chain of ops that a host and two equal cards take, the cards ten times as fast."""
    options = {0: Option(10.0), 1: Option(1.0), 2: Option(1.0)}
    ends = ((index + 1,) if index + 1 < count else () for index in range(count))
    return Problem(
        (DeviceSpec("host"), DeviceSpec("a", None, 1.0), DeviceSpec("b", None, 1.0)),
        tuple(Place(device) for device in range(3)),
        tuple(Node(f"n{index}", options=options) for index in range(count)),
        (Value("x", 1, None, (0,)), *(Value(f"v{i}", 1, i, end, not end) for i, end in enumerate(ends))),
        {(i, j): Route(0.1, 0.0) for i in range(3) for j in range(3) if i != j},
    )


def test_a_long_chain_whose_neighbours_must_be_apart_is_placed():
    problem = chain(60).with_rules(Rules(apart=(((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)),)))
    found = solve(problem)
    left, right = ({found.placement.place[node] for node in side} for side in problem.rules.apart[0])
    assert not left & right


def test_what_shares_a_device_moves_as_one():
    problem = chain(4).with_rules(Rules(together=((0, 2), (2, 3)), apart=(((0,), (1,)),)))
    kept = keep_company(problem, (1, 1, 2, 0))
    assert kept[0] == kept[2] == kept[3] != kept[1]
    assert keep_company(chain(4), (1, 1, 2, 0)) == (1, 1, 2, 0)


@given(seed=st.integers(0, 10**6))
def test_kept_places_break_no_rule_that_can_be_kept(random_problem: Make, seed: int):
    """Three devices take all ops, so one can be left to each side."""
    problem = random_problem(seed, 6, 3)
    options = {place: Option(float(seed % 7 + place)) for place in range(3)}
    nodes = tuple(Node(node.name, options=options) for node in problem.nodes)
    problem = Problem(problem.devices, problem.places, nodes, problem.values, problem.routes)
    draw = random.Random(seed)
    ends = draw.sample(range(6), 5)
    problem = problem.with_rules(Rules(together=(tuple(ends[:2]),), apart=((tuple(ends[1:3]), tuple(ends[3:])),)))
    kept = keep_company(problem, tuple(draw.randrange(3) for _ in range(6)))
    assert kept[ends[0]] == kept[ends[1]]
    left, right = ({kept[node] for node in side} for side in problem.rules.apart[0])
    assert not left & right
