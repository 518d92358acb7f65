"""From all cuts of a block to all others, with and without prices for subgraphs, and with blocks left out."""

import random
from pathlib import Path

import numpy as np
import pytest

from gimlet.compiler.placement.public.joint_blocks import Block, row_of
from gimlet.compiler.placement.public.joint_grid import Grid
from gimlet.compiler.placement.public.joint_search import search_joints
from gimlet.compiler.placement.public.public_format import (
    PublicNode,
    PublicProblem,
    PublicSplit,
    latency,
    load_public,
    memory,
)
from gimlet.compiler.placement.public.public_start import units_of


def forked(draw: random.Random, colours: bool) -> PublicProblem:
    """A node, some chains beside each other, and a node behind them."""
    chains = [draw.randint(1, 3) for _ in range(draw.randint(1, 3))]
    edges: list[tuple[int, int]] = []
    last = sum(chains) + 1
    node = 1
    for length in chains:
        edges += [(0, node), *((n, n + 1) for n in range(node, node + length - 1)), (node + length - 1, last)]
        node += length
    nodes = tuple(
        PublicNode(
            id=n,
            on_accelerator=draw.random() < 0.9,
            cpu=draw.uniform(1, 5),
            accelerator=draw.uniform(0, 1),
            size=draw.choice([0, 1]),
            colour=draw.choice([1, None, None]) if colours and 0 < n < last else None,
        )
        for n in range(last + 1)
    )
    cost = tuple(draw.uniform(0, 2) for _ in nodes)
    return PublicProblem(2, 1, 6.0, nodes, tuple(sorted(edges)), cost)


def slow_times(block: Block, ready: list[float], helped: bool) -> list[float]:
    """By comparing every row with every column."""
    rows = [[0] * len(block.parts), *block.place.T.tolist()]
    columns = [*block.place.T.tolist(), [len(part.ideals) - 1 for part in block.parts]]
    tables = [part.helped if helped else part.alone for part in block.parts]
    return [
        min(
            at + max([0.0, *(float(table[b, a]) for table, b, a in zip(tables, row, column, strict=True))])
            for at, row in zip(ready, rows, strict=True)
        )
        for column in columns
    ]


@pytest.mark.parametrize("helped", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_times_are_those_of_comparing_all(seed: int, helped: bool):
    draw = random.Random(seed)
    problem = forked(draw, colours=seed % 2 == 0)
    row = row_of(problem, units_of(problem, contiguous=True), range(len(problem.nodes)))
    for block in row.blocks:
        ready = [draw.choice([draw.uniform(0, 5), float("inf")]) for _ in range(len(block.holds) + 1)]
        times, origin = Grid(block).times(np.array(ready), helped=helped, at_most=9.0, until=float("inf"))
        assert times.tolist() == pytest.approx(slow_times(block, ready, helped))
        alone = [[*ready[:i], float("inf"), *ready[i + 1 :]] for i in range(len(ready))]
        for column, came in enumerate(origin):
            if np.isfinite(times[column]):
                assert slow_times(block, alone[came], helped)[column] >= times[column] - 1e-9


def test_a_grid_takes_no_longer_than_it_may():
    problem = forked(random.Random(0), colours=False)
    row = row_of(problem, units_of(problem, contiguous=True), range(len(problem.nodes)))
    block = next(block for block in row.blocks if block.parts)
    with pytest.raises(TimeoutError):
        Grid(block).times(np.zeros(len(block.holds) + 1), helped=False, at_most=9.0, until=0.0)


@pytest.mark.full
def test_prices_find_ways_of_fewer_subgraphs(root: Path):
    """17 subgraphs would take 1186.5, and there are 12 accelerators; without any inside of blocks it is 1276.3."""
    problem = load_public(root / "benchmarks" / "data" / "placement" / "latency_inceptionv3_inference.json")
    units = units_of(problem, contiguous=True)
    on_cpu = PublicSplit((problem.accelerators,) * len(problem.nodes), (0,) * len(problem.nodes))
    found = search_joints(problem, units, on_cpu, 1, until=float("inf"))
    assert found.split is not None
    assert latency(problem, found.split) < 1215.0
    assert max(memory(problem, found.split)) <= problem.capacity
    assert 1186.0 < found.bound < 1210.0
