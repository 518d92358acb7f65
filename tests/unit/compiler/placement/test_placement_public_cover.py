"""Loads of sets of units against all sets, and bounds and splits that come from them."""

import random
from itertools import product

import numpy as np
import pytest

from gimlet.compiler.placement.public.public_bound import work_bound
from gimlet.compiler.placement.public.public_format import PublicNode, PublicProblem
from gimlet.compiler.placement.public.public_frontier import Frontier, narrow_order
from gimlet.compiler.placement.public.public_model import solve_public
from gimlet.compiler.placement.public.public_start import units_of


def load_of(chosen: set[int], work: list[float], values: list[tuple[tuple[int, ...], float]]) -> float:
    crossing = (cost for ends, cost in values if chosen & set(ends) and not chosen.issuperset(ends))
    return sum(work[unit] for unit in chosen) + sum(crossing)


@pytest.mark.parametrize("states", [1, 3, 100])
@pytest.mark.parametrize("seed", range(40))
def test_the_least_load_of_each_weight_is_that_of_all_sets(seed: int, states: int):
    draw = random.Random(seed)
    count = draw.randint(1, 7)
    work = [draw.choice([0.0, 0.5, 1.0, 2.0, float("inf")]) for _ in range(count)]
    values: list[tuple[tuple[int, ...], float]] = []
    for _ in range(draw.randint(0, 6)):
        ends = tuple(sorted(draw.sample(range(count), min(draw.randint(2, 4), count))))
        values += [(ends, draw.choice([0.1, 0.5, 3.0]))] if len(ends) > 1 else []
    limit, width = draw.choice([1.0, 3.0, 100.0]), draw.choice([3, 8, 40])
    weights = np.array([draw.randint(0, 6) for _ in range(count)])
    allowed = np.array([draw.random() < 0.8 for _ in range(count)])
    order = draw.choice([list(range(count)), narrow_order(count, values)])
    frontier = Frontier(work, values, order, limit, states)
    found = frontier.loads(weights, width, allowed)
    for weight in range(width + 1):
        sets = [{u for u, take in enumerate(choice) if take} for choice in product((0, 1), repeat=count)]
        loads = [
            load_of(chosen, work, values)
            for chosen in sets
            if all(allowed[unit] for unit in chosen) and min(sum(weights[u] for u in chosen), width) == weight
        ]
        least = min(loads, default=float("inf"))
        if least <= limit:
            assert found.least[weight] <= least + 1e-9
            chosen = set(frontier.units(found, weight))
            assert min(sum(weights[u] for u in chosen), width) == weight
            assert all(allowed[unit] for unit in chosen)
            if states == 100:
                assert load_of(chosen, work, values) == pytest.approx(least)
        if states == 100 and found.least[weight] <= limit:
            assert found.least[weight] == pytest.approx(least)


def test_an_order_has_every_unit_once_whatever_hangs_together():
    values = [((0, 3), 1.0), ((3, 4, 5), 1.0), (tuple(range(6)), 1.0)]
    assert sorted(narrow_order(8, values)) == list(range(8))


def chain(count: int, accelerators: int, cost: float) -> PublicProblem:
    nodes = tuple(PublicNode(index, True, 100.0, 1.0, 0.0, None) for index in range(count))
    edges = tuple((index, index + 1) for index in range(count - 1))
    return PublicProblem(accelerators, 0, 1.0, nodes, edges, (cost,) * count)


def test_what_devices_move_between_them_is_in_the_bound():
    problem = chain(90, 3, 5.0)
    units = units_of(problem, contiguous=False)
    assert work_bound(problem, units) == pytest.approx(30.0)
    answer = solve_public(problem, "throughput", contiguous=False, time_limit_s=20)
    assert answer.status == "optimal"
    # The device in the middle moves two values, the others one.
    assert answer.objective == pytest.approx(37.0)
