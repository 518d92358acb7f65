"""Least shares of FLOPs: what whole ops can give, and ways that keep the shares."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.latency_bound import LatencyRelaxation
from gimlet.compiler.placement.bounds.share_cover import share_cover
from gimlet.compiler.placement.bounds.share_path import (
    _buckets,  # pyright: ignore[reportPrivateUsage]
    share_path,
)
from gimlet.compiler.placement.bounds.share_program import share_program
from gimlet.compiler.placement.model.problem import DeviceSpec, Node, Option, Place, Problem, Route, Rules, Value
from gimlet.compiler.placement.model.schedule import flops_of
from gimlet.compiler.placement.model.segments import carve
from gimlet.compiler.placement.solve import solve
from gimlet.runtime.errors import InfeasibleError

Make = Callable[..., Problem]
SEEDS = st.integers(0, 10**6)


def with_shares(problem: Problem, share: float) -> Problem:
    return problem.with_rules(Rules(min_share=dict.fromkeys(range(len(problem.devices)), share)))


@given(seed=SEEDS, share=st.sampled_from([0.2, 0.3, 0.33]), together=st.booleans())
@example(seed=662250, share=0.2, together=True)
def test_shares_are_refused_exactly_where_whole_ops_cannot_give_them(
    random_problem: Make, seed: int, share: float, together: bool
):
    problem = with_shares(random_problem(seed, nodes=6, devices=3), share)
    if together:
        problem = problem.with_rules(replace(problem.rules, together=((0, 3),)))
        assume(
            {problem.device_of[place] for place in problem.allowed[0]}
            & {problem.device_of[p] for p in problem.allowed[3]}
        )
    options = [sorted({problem.device_of[place] for place in allowed}) for allowed in problem.allowed]
    goal = share * problem.total_flops * (1 - 1e-9)
    possible = any(
        all(flops_of(problem, devices, device) >= goal for device in range(3))
        for devices in itertools.product(*options)
        if not together or devices[0] == devices[3]
    )
    assert (share_cover(problem).most >= 1) == possible


@given(seed=SEEDS)
def test_the_places_of_a_cover_keep_the_shares(random_problem: Make, seed: int):
    problem = with_shares(random_problem(seed, nodes=8, devices=3), 0.2)
    cover = share_cover(problem)
    if cover.most >= 1:
        assert cover.place is not None
        for device in range(3):
            assert flops_of(problem, cover.place, device) >= 0.2 * problem.total_flops * (1 - 1e-4)


def test_an_op_that_is_too_large_for_the_shares_of_others_is_named(random_problem: Make):
    problem = random_problem(5, nodes=6, devices=3)
    nodes = [replace(node, flops=flops) for node, flops in zip(problem.nodes, (65, 18, 5, 4, 4, 4), strict=True)]
    nodes = [replace(node, options=dict.fromkeys(range(3), node.options[min(node.options)])) for node in nodes]
    problem = replace(problem, nodes=tuple(nodes), fusions=())
    with pytest.raises(InfeasibleError, match=r"whole ops has .* 'n0', has 65.0%") as caught:
        solve(with_shares(problem, 0.2))
    # 18 against 17 of what is left.
    assert caught.value.hint is not None
    assert "at most 17.0% on d0" in caught.value.hint
    assert solve(with_shares(problem, 0.17)).objective > 0


@given(seed=SEEDS)
def test_a_way_keeps_the_shares(random_problem: Make, seed: int):
    problem = with_shares(random_problem(seed, nodes=8, devices=3), 0.2)
    relaxation = LatencyRelaxation(problem)
    place = share_path(relaxation, 0)
    if place is not None:
        for device in range(3):
            assert flops_of(problem, place, device) >= 0.2 * problem.total_flops * (1 - 1e-9)


@given(seed=SEEDS, share=st.sampled_from([0.1, 0.2, 0.3]), fraction=st.sampled_from([0.0, 0.5, 1.0]))
def test_no_placement_that_keeps_shares_is_below_the_program(
    random_problem: Make, best_by_trying: Callable[[Problem], float | None], seed: int, share: float, fraction: float
):
    problem = random_problem(seed, nodes=4, devices=2)
    problem = problem.with_rules(Rules(min_share={0: share, 1: share * fraction}))
    best = best_by_trying(problem)
    least = share_program(LatencyRelaxation(problem))
    if best is not None:
        assert least <= best * (1 + 1e-6)


def test_whole_ops_are_counted_where_multipliers_would_split_them():
    # Two ops of equal work, of which the second device must have a tenth: it needs one of them as a whole.
    devices = (DeviceSpec("cpu"), DeviceSpec("slow"))
    nodes = tuple(Node(f"n{n}", "Op", {0: Option(1.0), 1: Option(10.0)}, flops=50.0) for n in range(2))
    values = (Value("x", 0, None, (0,)), Value("v", 0, 0, (1,)), Value("y", 0, 1, (), True))
    routes = {(0, 1): Route(0.0, 0.0), (1, 0): Route(0.0, 0.0)}
    problem = Problem(devices, (Place(0), Place(1)), nodes, values, routes, rules=Rules(min_share={1: 0.1}))
    assert share_program(LatencyRelaxation(problem)) == pytest.approx(11.0, rel=1e-5)
    assert share_program(LatencyRelaxation(problem, until=0.0)) == 0.0
    assert share_program(LatencyRelaxation(problem.with_rules(Rules()))) == 0.0


def test_the_way_with_shares_looks_closest_at_the_slowest_device(best_by_trying: Callable[[Problem], float | None]):
    """Parts of 3 and 2 make the host's share at the least; the fast device's hardly costs anything."""
    devices = (DeviceSpec("cpu"), DeviceSpec("card"))
    flops = (60.0, 30.5, 29.9, 20.2, 59.4)
    nodes = tuple(
        Node(f"n{n}", "Op", {0: Option(size), 1: Option(size / 1000)}, flops=size) for n, size in enumerate(flops)
    )
    values = (
        Value("x", 0, None, (0,)),
        *(Value(f"v{n}", 0, n, (n + 1,)) for n in range(4)),
        Value("y", 0, 4, (), True),
    )
    routes = {(0, 1): Route(0.0, 0.0), (1, 0): Route(0.0, 0.0)}
    rules = Rules(min_share={0: 50.05 / 200, 1: 0.25})
    problem = Problem(devices, (Place(0), Place(1)), nodes, values, routes, rules=rules)
    place = share_path(LatencyRelaxation(problem), 0)
    assert place is not None
    assert carve(problem, place).schedule.latency_s == pytest.approx(best_by_trying(problem))


def test_every_share_has_some_buckets():
    assert _buckets([1500.0, 70.0, 10.0]).tolist() == [221, 9, 8]
    assert _buckets([1.0]).tolist() == [19998]
