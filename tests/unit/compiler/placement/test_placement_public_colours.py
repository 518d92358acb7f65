"""Latency of public problems in which nodes of one colour have others between them."""

import random
from itertools import product

import pytest

from gimlet.compiler.placement.public.public_colours import divided_colours, keeps_colours
from gimlet.compiler.placement.public.public_format import PublicNode, PublicProblem, PublicSplit, latency, memory
from gimlet.compiler.placement.public.public_model import solve_public
from gimlet.compiler.placement.public.public_start import units_of
from gimlet.runtime.errors import InfeasibleError, InputError


def some_problem(draw: random.Random) -> PublicProblem:
    """Up to six nodes in a row, of which the first and a later one have one colour, and others may have another."""
    count = draw.randint(3, 6)
    second = draw.randint(2, count - 1)
    other = draw.choice([None, None, 2])
    nodes = tuple(
        PublicNode(
            id=index,
            on_accelerator=draw.random() < 0.8,
            cpu=draw.choice([1, 2, 5, 10, 30]),
            accelerator=draw.choice([0, 0.5, 1, 2]),
            size=draw.choice([0, 1, 2]),
            colour=1 if index in (0, second) else draw.choice([None, other]),
        )
        for index in range(count)
    )
    edges = tuple((a, b) for b in range(count) for a in range(b) if b - a == 1 or draw.random() < 0.15)
    cost = tuple(draw.choice([0.1, 0.5, 1]) for _ in range(count))
    return PublicProblem(draw.randint(0, 2), draw.choice([0, 1, 1, 1]), draw.choice([3, 100]), nodes, edges, cost)


def least_latency(problem: PublicProblem) -> float:
    """By trying all splits, colour by colour."""
    units = units_of(problem, contiguous=False)
    cpu = problem.accelerators
    found = [float("inf")]
    for choice in product(range(cpu + (problem.cpus > 0)), repeat=len(units.members)):
        device = tuple(choice[unit] for unit in units.unit_of)
        split = PublicSplit(device, device)
        allowed = all(node.on_accelerator or d == cpu for node, d in zip(problem.nodes, device, strict=True))
        if not allowed or max(memory(problem, split), default=0.0) > problem.capacity:
            continue
        try:
            found.append(latency(problem, split))
        except InputError:
            continue
    return min(found)


@pytest.mark.parametrize("seed", range(60))
def test_the_answer_is_that_of_trying_all(seed: int):
    problem = some_problem(random.Random(seed))
    divided = divided_colours(problem)
    least = least_latency(problem)
    if least == float("inf"):
        with pytest.raises(InfeasibleError):
            solve_public(problem, "latency", contiguous=True)
        return
    answer = solve_public(problem, "latency", contiguous=True)
    assert keeps_colours(problem, answer.split)
    assert max(memory(problem, answer.split), default=0.0) <= problem.capacity
    assert answer.objective == latency(problem, answer.split)
    assert answer.bound <= least * (1 + 1e-9)
    if len(divided) < 2:
        assert answer.objective == pytest.approx(least, rel=1e-4)


def test_a_colour_on_the_cpu_waits_for_a_subgraph_in_its_middle():
    nodes = (
        PublicNode(0, False, 1.0, 1.0, 1.0, 7),
        PublicNode(1, True, 50.0, 1.0, 1.0, None),
        PublicNode(2, False, 1.0, 1.0, 1.0, 7),
    )
    problem = PublicProblem(1, 1, 10.0, nodes, ((0, 1), (1, 2)), (0.5, 0.5, 0.0))
    assert divided_colours(problem) == {7}
    answer = solve_public(problem, "latency", contiguous=True)
    assert answer.status == "optimal"
    assert answer.objective == 4.0


def test_colours_are_kept_by_place():
    nodes = tuple(PublicNode(n, True, 1.0, 1.0, 1.0, 7 if n != 1 else None) for n in range(3))
    problem = PublicProblem(2, 2, 10.0, nodes, ((0, 1), (1, 2)), (0.5, 0.5, 0.0))
    assert keeps_colours(problem, PublicSplit((2, 0, 3), (0, 0, 0)))
    assert not keeps_colours(problem, PublicSplit((0, 0, 1), (0, 0, 1)))
    assert not keeps_colours(problem, PublicSplit((0, 1, 0), (0, 1, 2)))
