"""What another decision would have cost: moves of ops alone and with their segment."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from gimlet.compiler.placement.reasons.moves import moves_of
from gimlet.compiler.placement.solve import solve

Make = Callable[..., Problem]

CHAIN = Problem(
    (DeviceSpec("cpu"), DeviceSpec("gpu0", segment_overhead_s=5.0)),
    (Place(0), Place(1)),
    tuple(Node(f"n{i}", "Op", {0: Option(10.0), 1: Option(1.0)}) for i in range(3)),
    tuple(Value(f"v{i}", 4, i - 1 if i else None, (i,) if i < 3 else (), i == 3) for i in range(4)),
    {(0, 1): Route(1.0, 0.5), (1, 0): Route(1.0, 0.5)},
)
ON_GPU = Placement((1, 1, 1), (0, 0, 0))


def test_a_move_alone_splits_its_segment():
    """14 s on gpu0. The middle op on cpu: 9 s more there, one more launch, and two more transfers of 3 s."""
    moves = moves_of(CHAIN, ON_GPU)
    assert moves.alone[1, 0].delta == pytest.approx(9 + 5 + 3 + 3)
    assert moves.alone[0, 0].delta == pytest.approx(9)
    assert moves.alone[1, 0].breaks == ()


def test_a_move_with_its_segment():
    moves = moves_of(CHAIN, ON_GPU)
    assert moves.whole[0, 0].delta == pytest.approx(30 - 14)


def test_a_move_joins_the_segment_that_is_there():
    """The last op is on cpu already: the middle one joins it and needs no launch of its own."""
    moves = moves_of(CHAIN, Placement((1, 1, 0), (0, 0, 1)))
    assert moves.alone[1, 0].delta == pytest.approx(9)


def test_what_a_move_breaks_is_said():
    small = replace(CHAIN, devices=(replace(CHAIN.devices[0], memory_bytes=10), CHAIN.devices[1]))
    moves = moves_of(replace(small, weights=(Weight("w", (1,), {0: 20, 1: 20}),)), ON_GPU)
    assert moves.alone[1, 0].breaks == ("cpu needs 20 B and has 10 B",)
    assert moves.whole[0, 0].breaks == ("cpu needs 20 B and has 10 B",)
    assert moves.alone[0, 0].breaks == ()


def test_a_segment_does_not_move_to_what_refuses_one_of_it():
    nodes = (CHAIN.nodes[0], replace(CHAIN.nodes[1], options={1: Option(1.0)}), CHAIN.nodes[2])
    moves = moves_of(replace(CHAIN, nodes=nodes), ON_GPU)
    assert not moves.whole
    assert (1, 0) not in moves.alone


@given(seed=st.integers(0, 10**6), objective=st.sampled_from(OBJECTIVES))
def test_no_move_is_better_than_the_optimum(random_problem: Make, seed: int, objective: Objective):
    problem = random_problem(seed, nodes=5, devices=3, objective=objective)
    found = solve(problem)
    moves = moves_of(problem, found.placement)
    for move in (*moves.alone.values(), *moves.whole.values()):
        assert move.breaks or move.delta >= found.bound - found.objective - 1e-9


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), objective=st.sampled_from(OBJECTIVES))
def test_a_pin_costs_at_most_what_the_move_does(random_problem: Make, seed: int, objective: Objective):
    """Everything else may move as well where an op is pinned, so the answer with the pin is no worse than the move."""
    problem = random_problem(seed, nodes=4, devices=2, objective=objective)
    found = solve(problem)
    moves = moves_of(problem, found.placement)
    for (node, place), move in moves.alone.items():
        whole = moves.whole.get((found.placement.segment[node], place))
        least = min(each.delta for each in (move, whole) if each is not None)
        pinned = solve(problem.with_rules(replace(problem.rules, pins={node: frozenset({place})})))
        assert pinned.placement.place[node] == place
        assert found.bound <= pinned.objective * (1 + 1e-6) + 1e-9
        assert pinned.objective <= (found.objective + least) * (1 + 1e-4) + 1e-9


def test_of_unused_devices_that_are_alike_one_is_tried_for_all():
    four = replace(
        CHAIN,
        devices=(*CHAIN.devices, *(replace(CHAIN.devices[1], name=f"gpu{n}") for n in (1, 2))),
        places=tuple(map(Place, range(4))),
        nodes=tuple(replace(n, options={**n.options, 2: Option(1.0), 3: Option(1.0)}) for n in CHAIN.nodes),
        routes={(a, b): Route(1.0, 0.5) for a in range(4) for b in range(4) if a != b},
    )
    moves = moves_of(four, ON_GPU)
    assert moves.alone[1, 2] is moves.alone[1, 3]
    assert moves.whole[0, 2] is moves.whole[0, 3]
    one = moves_of(replace(four, devices=(*four.devices[:3], replace(four.devices[3], idle_w=1.0))), ON_GPU)
    assert one.alone == moves.alone
    assert one.alone[1, 2] is not one.alone[1, 3]
