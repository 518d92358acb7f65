"""Groups: no cycle, nothing that no device takes, and figures that are those of the nodes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.compiler.placement.model.problem import Option, Problem
from gimlet.compiler.placement.model.schedule import simulate
from gimlet.compiler.placement.model.segments import carve
from gimlet.compiler.placement.search.coarsen import coarsen, identity
from gimlet.compiler.placement.search.heuristics import single_places

Make = Callable[..., Problem]


@given(seed=st.integers(0, 10**6), limit=st.sampled_from([1, 4, 8]))
def test_a_placement_of_groups_costs_what_it_costs_on_the_nodes(random_problem: Make, seed: int, limit: int):
    problem = random_problem(seed, nodes=16, devices=3, memory=True)
    coarse = coarsen(problem, limit)
    assert sorted(node for group in coarse.groups for node in group) == list(range(16))
    assert all(coarse.problem.allowed), "a group that no device takes"
    for place in single_places(coarse.problem):
        found = carve(coarse.problem, place)
        expanded = simulate(problem, coarse.expand(found.placement))
        assert expanded.latency_s == pytest.approx(found.schedule.latency_s)
        assert expanded.energy_j == pytest.approx(found.schedule.energy_j)
        assert expanded.period_s == pytest.approx(found.schedule.period_s)
        assert expanded.memory_bytes == simulate(coarse.problem, found.placement).memory_bytes


def test_a_chain_is_reduced_to_the_limit(random_problem: Make):
    problem = replace(random_problem(2, nodes=60, devices=2), fusions=())
    problem = replace(problem, nodes=tuple(replace(n, options={0: Option(9.0), 1: Option(1.0)}) for n in problem.nodes))
    assert len(coarsen(problem, 10).groups) == 10


def test_groups_are_in_topological_order(random_problem: Make):
    coarse = coarsen(random_problem(9, nodes=40, devices=2), 12)
    assert all(p < n for n, sources in enumerate(coarse.problem.predecessors) for p in sources)


def test_identity_changes_nothing(random_problem: Make):
    problem = random_problem(4, nodes=5)
    coarse = identity(problem)
    assert coarse.problem is problem
    assert coarse.group_of == (0, 1, 2, 3, 4)
