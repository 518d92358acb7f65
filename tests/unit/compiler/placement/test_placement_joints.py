"""The way through the joints of a public problem: never above the best latency, and often that."""

import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from gimlet.compiler.placement.public.joint_blocks import kept_nodes, row_of
from gimlet.compiler.placement.public.joint_path import joint_path
from gimlet.compiler.placement.public.joint_search import search_joints
from gimlet.compiler.placement.public.public_format import (
    PublicNode,
    PublicProblem,
    PublicSplit,
    latency,
    load_public,
    memory,
)
from gimlet.compiler.placement.public.public_model import solve_public
from gimlet.compiler.placement.public.public_start import Units, units_of
from gimlet.runtime.errors import InfeasibleError, InputError


def some_problem(draw: random.Random) -> PublicProblem:
    """Up to six nodes, most of them in a row, with residual edges, colours and nodes that no accelerator takes."""
    count = draw.randint(1, 6)
    colours = [None, None, None, 1, 2] if draw.random() < 0.5 else [None]
    nodes = tuple(
        PublicNode(
            id=index,
            on_accelerator=draw.random() < 0.9,
            cpu=draw.choice([0, 1, 2, 5, 7.5, 10]),
            accelerator=draw.choice([0, 0.1, 0.5, 1, 2]),
            size=draw.choice([0, 1, 2, 3]),
            colour=draw.choice(colours),
        )
        for index in range(count)
    )
    often = {1: 0.8, 2: 0.4}
    edges = tuple((a, b) for b in range(count) for a in range(b) if draw.random() < often.get(b - a, 0.15))
    cost = tuple(draw.choice([0, 0.1, 0.5, 1, 3]) for _ in range(count))
    return PublicProblem(draw.randint(1, 2), draw.choice([0, 1, 1]), draw.choice([2, 4, 6, 100]), nodes, edges, cost)


def every_split(problem: PublicProblem, units: Units) -> Iterator[PublicSplit]:
    """All splits in which each accelerator has one subgraph, by what the format allows."""
    cpu = problem.accelerators
    for choice in product(range(cpu + (problem.cpus > 0)), repeat=len(units.members)):
        device = tuple(choice[unit] for unit in units.unit_of)
        split = PublicSplit(device, device)
        taken = all(node.on_accelerator or d == cpu for node, d in zip(problem.nodes, device, strict=True))
        if taken and max(memory(problem, split)) <= problem.capacity and flows_forward(units, choice, cpu):
            yield split


def flows_forward(units: Units, choice: tuple[int, ...], cpu: int) -> bool:
    """No way leads from a subgraph, or a unit on the CPU, through another one and back."""
    group = [cpu + unit if device == cpu else device for unit, device in enumerate(choice)]
    after = {name: {group[b] for a, b in units.edges if group[a] == name} - {name} for name in set(group)}
    while free := [name for name in after if not after[name] & after.keys()]:
        for name in free:
            del after[name]
    return not after


def least_latency(problem: PublicProblem, units: Units) -> float:
    found = [float("inf")]
    for split in every_split(problem, units):
        try:
            found.append(latency(problem, split))
        except InputError:
            continue
    return min(found)


@pytest.mark.parametrize("seed", range(60))
def test_no_split_is_quicker_than_the_bound(seed: int):
    problem = some_problem(random.Random(seed))
    units = units_of(problem, contiguous=True)
    least = least_latency(problem, units)
    found = search_joints(problem, units, None, 1, until=float("inf"))
    assert found.bound <= least * (1 + 1e-9)
    if found.split is not None:
        assert latency(problem, found.split) >= least * (1 - 1e-9)
        assert max(memory(problem, found.split)) <= problem.capacity


@pytest.mark.parametrize("seed", range(200, 240))
def test_no_split_is_quicker_than_a_bound_with_prices_or_without_blocks(seed: int):
    problem = some_problem(random.Random(seed))
    units = units_of(problem, contiguous=True)
    least = least_latency(problem, units)
    kept = kept_nodes(problem)
    for most_cuts, price in ((20_000, 0.3), (20_000, 1.0), (1, 0.0), (1, 0.5)):
        row = row_of(problem, units, kept, most_cuts=most_cuts)
        way = joint_path(row, problem.accelerators, helped=True, price=price)
        assert way is None or way.bound <= least * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(100, 120))
def test_the_answer_is_that_of_trying_all(seed: int):
    problem = some_problem(random.Random(seed))
    least = least_latency(problem, units_of(problem, contiguous=True))
    if least == float("inf"):
        with pytest.raises(InfeasibleError, match="no split fits"):
            solve_public(problem, "latency", contiguous=True)
        return
    answer = solve_public(problem, "latency", contiguous=True)
    assert answer.status == "optimal"
    assert answer.objective == pytest.approx(least, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "least"), [("resnet50", 1156.8813), ("resnet50_operators", 651.1208), ("bert_l-3", 408.4744)]
)
def test_the_way_is_the_best_split(root: Path, name: str, least: float):
    problem = load_public(root / "benchmarks" / "data" / "placement" / f"latency_{name}_inference.json")
    answer = solve_public(problem, "latency", contiguous=True)
    assert answer.status == "optimal"
    assert answer.objective == pytest.approx(least, abs=5e-5)
    assert answer.objective == latency(problem, answer.split)
    assert answer.gap < 1e-4


def test_a_search_without_time_has_the_start(root: Path):
    problem = load_public(root / "benchmarks" / "data" / "placement" / "latency_resnet50_inference.json")
    units = units_of(problem, contiguous=True)
    found = search_joints(problem, units, None, 1, until=0.0)
    assert found.split is None
    assert found.bound == 0.0
