"""What is said of a problem that nothing solves: a conflict that is one, that is minimal, and what would end it."""

import random
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.model.problem import (
    DeviceSpec,
    Node,
    Option,
    Place,
    Problem,
    Route,
    Rules,
    Value,
    Weight,
)
from gimlet.compiler.placement.reasons.conflict import (
    bound_conflict,
    conflict_of,
    is_infeasible,
    limits_of,
    reliefs,
    smallest_conflict,
)
from gimlet.compiler.placement.reasons.fit import room_needed, with_memory
from gimlet.compiler.placement.solve import solve
from gimlet.runtime.errors import InfeasibleError

Make = Callable[..., Problem]
Best = Callable[[Problem], float | None]


def limited(random_problem: Make, seed: int) -> Problem:
    """A problem of three nodes with so many limits that often nothing keeps them."""
    draw = random.Random(seed)
    problem = random_problem(seed, 3, 2, memory=True)
    rules = Rules(
        bounds={"latency": draw.choice([5.0, 10.0, 20.0])} if draw.random() < 0.5 else {},
        min_share={1: 0.5} if draw.random() < 0.4 else {},
        max_segments=draw.choice([None, 1, 2]),
        pins={0: frozenset({draw.choice(problem.allowed[0])})} if draw.random() < 0.4 else {},
        together=((0, 2),) if draw.random() < 0.3 else (),
    )
    return problem.with_rules(rules)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_conflict_is_one_and_minimal(random_problem: Make, best_by_trying: Best, seed: int):
    problem = limited(random_problem, seed)
    infeasible = best_by_trying(problem) is None
    assert infeasible or not is_infeasible(problem)
    assume(infeasible and is_infeasible(problem))
    kept = {limit.text for limit in smallest_conflict(problem)}
    for limit in limits_of(problem):
        if limit.text not in kept:
            problem = limit.without(problem)
    assert best_by_trying(problem) is None
    for limit in limits_of(problem):
        if limit.text in kept:
            assert best_by_trying(limit.without(problem)) is not None


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_what_would_make_it_fit_does(random_problem: Make, best_by_trying: Best, seed: int):
    problem = limited(random_problem, seed)
    assume(best_by_trying(problem) is None)
    with pytest.raises(InfeasibleError) as caught:
        solve(problem)
    for name, more in re.findall(r"d(\d) needs (\d+) bytes more", caught.value.hint or ""):
        device = int(name)
        have = problem.devices[device].memory_bytes or 0
        assert best_by_trying(with_memory(problem, device, have + int(more))) is not None
        assert best_by_trying(with_memory(problem, device, have + int(more) - 1)) is None


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_every_way_out_that_is_named_is_one(random_problem: Make, best_by_trying: Best, seed: int):
    draw = random.Random(seed)
    problem = limited(random_problem, seed)
    options = ({p: replace(o, loss=draw.choice([0, 0.01, 0.1])) for p, o in n.options.items()} for n in problem.nodes)
    nodes = tuple(replace(node, options=each) for node, each in zip(problem.nodes, options, strict=True))
    rules = replace(
        problem.rules,
        bounds={**problem.rules.bounds, **({"energy": draw.choice([50.0, 150.0])} if draw.random() < 0.4 else {})},
        apart=(((0,), (1,)),) if draw.random() < 0.4 else (),
        loss_budget=draw.choice([None, 0.02]),
    )
    problem = replace(problem, nodes=nodes, rules=rules)
    assume(is_infeasible(problem) and all(problem.allowed))
    for figure in problem.rules.bounds:
        assert bound_conflict(problem, figure) is None or best_by_trying(problem) is None
    for relief in reliefs(problem, smallest_conflict(problem)):
        assert best_by_trying(relief.problem) is not None, relief.text


def test_ways_out_have_amounts():
    """Three ops of a second on the host and none elsewhere: a bound, a cap, a pin."""
    options = {0: Option(1.0), 1: Option(0.1)}
    problem = Problem(
        (DeviceSpec("cpu"), DeviceSpec("gpu0")),
        (Place(0), Place(1)),
        tuple(Node(f"n{i}", "MatMul", options=options, flops=1.0) for i in range(3)),
        (Value("x", 0, None, (0,)), *(Value(f"v{i}", 0, i, (i + 1,) if i < 2 else (), i == 2) for i in range(3))),
        {(0, 1): Route(0.05, 0.0), (1, 0): Route(0.05, 0.0)},
        rules=Rules("throughput", bounds={"latency": 1.0}, pins={1: frozenset({0})}),
    )
    text = str(bound_conflict(problem, "latency"))
    assert "together: latency of at most 1 s; 'n1' pinned to cpu (fp32). With the others, latency cannot be" in text
    assert "latency of at most 1.4 s would do; or leave out 'n1' pinned to cpu (fp32)" in text
    text = str(conflict_of(problem.with_rules(Rules(max_segments=1, pins={1: frozenset({0}), 2: frozenset({1})}))))
    assert "at most 2 segments would do; or leave out" in text
    text = str(bound_conflict(problem.with_rules(Rules(bounds={"latency": 1.6}, min_share={0: 0.6})), "latency"))
    assert "latency of at most 2.2 s would do; or 33.3% of the FLOPs on cpu would do" in text


def test_activations_are_part_of_what_is_needed():
    """A device with 10 bytes, a weight of 12 and activations of 5: 7 more, not 2."""
    problem = Problem(
        (DeviceSpec("d", memory_bytes=10),),
        (Place(0),),
        (Node("n", options={0: Option(1.0, activation_bytes=5)}),),
        (Value("y", 1, 0, (), True),),
        {},
        (Weight("w", (0,), {0: 12}),),
    )
    with pytest.raises(InfeasibleError) as caught:
        solve(problem)
    assert "d needs 7 bytes more" in (caught.value.hint or "")


def pinned_in_turns(count: int) -> Problem:
    """A chain on two devices in turns, so every node is a segment."""
    last = count - 1
    return Problem(
        (DeviceSpec("a", memory_bytes=100), DeviceSpec("b")),
        (Place(0), Place(1)),
        tuple(Node(f"n{n}", options={n % 2: Option(1.0)}) for n in range(count)),
        tuple(Value(f"v{n}", 1, n, (n + 1,) if n < last else (), n == last) for n in range(count)),
        {(0, 1): Route(1.0, 0.0), (1, 0): Route(1.0, 0.0)},
        rules=Rules(bounds={"throughput": 50.0}),
    )


@pytest.mark.parametrize("count", [10, 40])
def test_many_segments_are_no_conflict(count: int):
    assert not is_infeasible(pinned_in_turns(count))


def test_where_nothing_proves_that_it_is_enough_it_is_at_least_so_much():
    problem = replace(pinned_in_turns(4), weights=(Weight("w", (0,), {0: 150}),))
    room = room_needed(problem, 0, lambda p: (p.devices[0].memory_bytes or 0) < 150)
    assert room is not None
    assert (room.size_bytes, room.certain) == (150, True)
    late = problem.with_rules(Rules(bounds={"latency": 1.0}))
    room = room_needed(late, 0, lambda p: (p.devices[0].memory_bytes or 0) < 150)
    assert room is not None
    assert not room.certain
    assert room_needed(late, 0, is_infeasible) is None


def test_launches_that_take_far_longer_than_the_ops_are_no_conflict():
    quick = replace(pinned_in_turns(2), rules=Rules())
    slow = tuple(replace(device, segment_overhead_s=1e3) for device in quick.devices)
    assert not is_infeasible(replace(quick, devices=slow))
    assert not is_infeasible(replace(quick, routes={ends: Route(1e4, 0.0) for ends in quick.routes}))
