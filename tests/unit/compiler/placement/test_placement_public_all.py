"""Throughput of public problems against trying all splits: training graphs, several CPUs, colours, small memories."""

import random
from collections.abc import Iterator
from itertools import product

import pytest

from gimlet.compiler.placement.public.public_bound import work_bound
from gimlet.compiler.placement.public.public_cover import Cover
from gimlet.compiler.placement.public.public_dive import dived
from gimlet.compiler.placement.public.public_format import (
    PublicNode,
    PublicProblem,
    PublicSplit,
    latency,
    max_load,
    memory,
)
from gimlet.compiler.placement.public.public_ideals import solve_ideals
from gimlet.compiler.placement.public.public_model import solve_public
from gimlet.compiler.placement.public.public_start import contiguous_start, units_of
from gimlet.runtime.errors import InfeasibleError


def some_problem(draw: random.Random) -> PublicProblem:
    """Up to seven nodes; the last ones may be a backward pass, of which some nodes share colours with forward ones."""
    count = draw.randint(1, 7)
    forward = draw.randint(1, count)
    colours = [None, 1, 2] if draw.random() < 0.7 else [None]
    nodes = tuple(
        PublicNode(
            id=index,
            on_accelerator=draw.random() < 0.9,
            cpu=draw.choice([0, 1, 2, 5, 10]),
            accelerator=draw.choice([0, 0.5, 1, 2]),
            size=draw.choice([0, 1, 2, 3]),
            colour=draw.choice(colours),
            backward=index >= forward,
        )
        for index in range(count)
    )
    edges = tuple((a, b) for b in range(count) for a in range(b) if draw.random() < (0.7 if b - a == 1 else 0.2))
    cost = tuple(draw.choice([0, 0.1, 0.5, 3]) for _ in range(count))
    return PublicProblem(draw.randint(0, 2), draw.randint(0, 3), draw.choice([2, 4, 100]), nodes, edges, cost)


def every_split(problem: PublicProblem, *, contiguous: bool) -> Iterator[PublicSplit]:
    """Splits that keep colours together, bytes within memory and nodes where they may be."""
    names = [f"colour {node.colour}" if node.colour is not None else f"node {node.id}" for node in problem.nodes]
    owners = sorted(set(names))
    for choice in product(range(problem.accelerators + problem.cpus), repeat=len(owners)):
        device = tuple(choice[owners.index(name)] for name in names)
        allowed = all(n.on_accelerator or d >= problem.accelerators for n, d in zip(problem.nodes, device, strict=True))
        split = PublicSplit(device, device)
        if not allowed or max(memory(problem, split), default=0.0) > problem.capacity:
            continue
        if not contiguous or has_order({(device[a], device[b]) for a, b in problem.forward_edges}):
            yield split


def has_order(edges: set[tuple[int, int]]) -> bool:
    left = {(a, b) for a, b in edges if a != b}
    while left:
        ends = {a for a, _ in left} - {b for _, b in left}
        if not ends:
            return False
        left = {(a, b) for a, b in left if a not in ends}
    return True


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_the_largest_load_is_that_of_trying_all(seed: int, contiguous: bool):
    problem = some_problem(random.Random(seed))
    least = min((max_load(problem, split) for split in every_split(problem, contiguous=contiguous)), default=None)
    if least is None:
        with pytest.raises(InfeasibleError, match="no split fits"):
            solve_public(problem, "throughput", contiguous=contiguous)
        return
    assert work_bound(problem, units_of(problem, contiguous=False)) <= least * (1 + 1e-9)
    answer = solve_public(problem, "throughput", contiguous=contiguous)
    assert answer.status == "optimal"
    assert answer.objective == pytest.approx(least, rel=1e-4)
    assert answer.bound <= least * (1 + 1e-9)
    assert answer.split.device in {split.device for split in every_split(problem, contiguous=contiguous)}


@pytest.mark.parametrize("seed", range(120))
def test_no_split_has_a_smaller_load_than_the_bound(seed: int):
    problem = some_problem(random.Random(seed))
    splits = sorted(every_split(problem, contiguous=False), key=lambda split: max_load(problem, split))
    if not splits or not problem.nodes:
        return
    units = units_of(problem, contiguous=False)
    worst, least = splits[-1], max_load(problem, splits[0])
    floor = work_bound(problem, units)
    cover = Cover(problem, units, max_load(problem, worst), float("inf"))
    bound = cover.bound(floor)
    assert floor <= bound <= least * (1 + 1e-9)
    split = dived(cover, worst, float("inf"))
    assert least <= max_load(problem, split) <= max_load(problem, worst)
    assert max(memory(problem, split), default=0.0) <= problem.capacity
    assert split.device in {each.device for each in splits}


@pytest.mark.parametrize("seed", range(60))
def test_the_way_through_ideals_is_the_best_contiguous_split(seed: int):
    problem = some_problem(random.Random(seed))
    every = {split.device: max_load(problem, split) for split in every_split(problem, contiguous=True)}
    least = min(every.values(), default=float("inf"))
    units = units_of(problem, contiguous=True, forward=True)
    found = solve_ideals(problem, units, float("inf"), until=float("inf"))
    ordered = {unit for edge in units.edges for unit in edge}
    if found is None:
        assert not ordered
        return
    assert found.bound <= least
    if len(ordered) == len(units.members):
        assert found.bound == pytest.approx(least, rel=1e-8)
    assert found.split is None or found.split.device in every
    within = solve_ideals(problem, units, least, until=float("inf"))
    assert within is not None
    assert within.bound == pytest.approx(found.bound)


def test_a_way_through_ideals_without_time(monkeypatch: pytest.MonkeyPatch):
    """It is over while ideals are counted, before what is between them is."""
    monkeypatch.setattr("gimlet.compiler.placement.public.public_ideals._loads", lambda *_: pytest.fail("too late"))
    problem = chain(9, random.Random(0))
    assert solve_ideals(problem, units_of(problem, contiguous=True), float("inf"), until=0.0) is None


@pytest.mark.parametrize("seed", range(60))
def test_a_start_is_one_of_all_splits(seed: int):
    problem = some_problem(random.Random(seed))
    start = contiguous_start(problem, units_of(problem, contiguous=True, forward=True), "throughput")
    if start is not None:
        assert start.device in {split.device for split in every_split(problem, contiguous=True)}


def test_the_backward_pass_returns_along_the_devices():
    """A training step of three layers: each device does a layer forward and backward, which no order of devices does
    where the backward pass counts."""
    nodes = tuple(PublicNode(index, True, 100.0, 1.0, 1.0, index % 3, index >= 3) for index in (0, 1, 2, 5, 4, 3))
    edges = tuple((a, a + 1) for a in range(5))
    problem = PublicProblem(3, 1, 100.0, nodes, edges, (0.25,) * 6)
    answer = solve_public(problem, "throughput", contiguous=True)
    # The middle one fetches two values and gives two away.
    assert answer.objective == 3.0
    assert len(set(answer.split.device)) == 3


def chain(count: int, draw: random.Random) -> PublicProblem:
    nodes = tuple(PublicNode(n, True, draw.uniform(1, 10), draw.uniform(0.1, 1), 1.0, None) for n in range(count))
    edges = tuple((n, n + 1) for n in range(count - 1))
    return PublicProblem(6, 1, float(count), nodes, edges, tuple(draw.uniform(0.1, 1) for _ in nodes))


def test_work_is_split_among_both_kinds_of_device():
    """Ten nodes of 1 on an accelerator and 2 on a CPU: two accelerators and a CPU do 2.5 of them in a unit of time."""
    nodes = tuple(PublicNode(n, True, 2.0, 1.0, 1.0, None) for n in range(10))
    problem = PublicProblem(2, 1, 100.0, nodes, (), (0.0,) * 10)
    assert work_bound(problem, units_of(problem, contiguous=False)) == pytest.approx(4.0)


@pytest.mark.parametrize("contiguous", [True, False])
def test_a_graph_too_large_for_the_time_has_a_bound(contiguous: bool):
    problem = chain(5000, random.Random(0))
    answer = solve_public(problem, "throughput", contiguous=contiguous, time_limit_s=0.05)
    assert answer.status == "feasible"
    assert 0.0 < answer.gap < 0.15
    assert answer.objective == max_load(problem, answer.split)


def test_a_wide_graph_is_one_block_too_large():
    count = 1200
    nodes = tuple(PublicNode(n, True, 5.0, 1.0, 1.0, None) for n in range(count + 2))
    edges = tuple(sorted(e for n in range(1, count + 1) for e in ((0, n), (n, count + 1))))
    problem = PublicProblem(3, 1, 1e6, nodes, edges, (0.5,) * len(nodes))
    answer = solve_public(problem, "latency", contiguous=True, time_limit_s=0.5)
    assert 0.0 < answer.bound <= answer.objective == latency(problem, answer.split) <= 15.0


def test_an_answer_far_better_than_the_start_is_measured_again():
    """Two nodes for the CPU with one between them for the accelerator. In an order of devices that takes 1e12, and what
    is rounded to parts of that is nothing."""
    nodes = (
        PublicNode(0, True, 1.0, 1e12, 0.0, None),
        PublicNode(1, True, 1e12, 1.0, 0.0, None),
        PublicNode(2, True, 2.0, 1e12, 0.0, None),
    )
    problem = PublicProblem(1, 1, 1.0, nodes, ((0, 1), (1, 2)), (0.25, 0.5, 0.0))
    answer = solve_public(problem, "throughput", contiguous=False)
    assert answer.status == "optimal"
    assert answer.objective == 3.0
    assert answer.gap < 1e-4
