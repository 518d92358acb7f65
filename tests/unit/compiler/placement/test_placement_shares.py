"""Least shares of FLOPs: what whole ops can give, and ways that keep the shares."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.compiler.placement.latency_bound import LatencyRelaxation
from gimlet.compiler.placement.problem import Problem, Rules
from gimlet.compiler.placement.schedule import flops_of
from gimlet.compiler.placement.share_cover import share_cover
from gimlet.compiler.placement.share_path import share_path
from gimlet.compiler.placement.solve import solve
from gimlet.runtime.errors import InfeasibleError

Make = Callable[..., Problem]
SEEDS = st.integers(0, 10**6)


def with_shares(problem: Problem, share: float) -> Problem:
    return problem.with_rules(Rules(min_share=dict.fromkeys(range(len(problem.devices)), share)))


@given(seed=SEEDS, share=st.sampled_from([0.2, 0.3, 0.33]), together=st.booleans())
def test_shares_are_refused_exactly_where_whole_ops_cannot_give_them(
    random_problem: Make, seed: int, share: float, together: bool
):
    problem = with_shares(random_problem(seed, nodes=6, devices=3), share)
    if together:
        problem = problem.with_rules(replace(problem.rules, together=((0, 3),)))
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
