"""The bound on a period that counts long ops which are alike."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.counting_bound import counting_bound
from gimlet.compiler.placement.bounds.device_sets import Prices
from gimlet.compiler.placement.bounds.period_bound import period_bound
from gimlet.compiler.placement.model.alike import alike_nodes, device_classes
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
from gimlet.compiler.placement.model.segments import carve

Make = Callable[..., Problem]
Levels = Callable[[Problem, int], Problem]
Try = Callable[[Problem], float | None]
SEEDS = st.integers(min_value=0, max_value=10_000)


def chain(seconds: list[float], launch_s: float) -> Problem:
    """Ops one after the other on two devices that are alike, the first of which is the host."""
    nodes = tuple(Node(f"n{n}", "Op", dict.fromkeys((1, 2), Option(s))) for n, s in enumerate(seconds))
    last = len(seconds) - 1
    values = tuple(Value(f"v{n}", 1, n, (n + 1,) if n < last else (), n == last) for n in range(last + 1))
    devices = (DeviceSpec("cpu"), *(DeviceSpec(f"gpu{d}", segment_overhead_s=launch_s) for d in range(2)))
    routes = {(a, b): Route(0.0, 0.0) for a in range(3) for b in range(3) if a != b}
    return Problem(devices, tuple(map(Place, range(3))), nodes, values, routes, rules=Rules("throughput"))


def counted(problem: Problem, best: float, price: float = 0.0) -> float:
    prices = Prices([1.0] * len(problem.nodes), dict.fromkeys(range(len(problem.devices)), price))
    return counting_bound(problem, device_classes(problem), prices, best).value


def repeated(problem: Problem, draw: Random) -> Problem:
    """The problem where most ops are like the first one, with weights as large, and launches longer or shorter."""
    first = problem.nodes[0]
    nodes = tuple(replace(node, options=first.options) if draw.random() < 0.7 else node for node in problem.nodes)
    factor = draw.choice([0.0, 0.3, 2.0])
    devices = tuple(replace(d, segment_overhead_s=factor * d.segment_overhead_s) for d in problem.devices)
    return replace(problem, nodes=nodes, devices=devices, fusions=(), rules=Rules("throughput"))


@given(seed=SEEDS, memory=st.booleans())
def test_no_placement_is_below_the_bound(
    random_problem: Make, with_levels: Levels, best_by_trying: Try, seed: int, memory: bool
):
    draw = Random(seed)
    problem = random_problem(seed, nodes=4, devices=2, memory=memory)
    problem = repeated(with_levels(problem, seed) if memory else problem, draw)
    best = best_by_trying(problem)
    if best is not None:
        assert counted(problem, best * draw.choice([1.0, 1.4]), draw.choice([0.0, 0.5])) <= best * (1 + 1e-9)


def test_a_device_has_whole_ops_and_what_is_between_them():
    """Of five long ops one device has three, and the short ones between them, or two launches more."""
    problem = chain([10.0, 1.0, 10.0, 1.0, 10.0, 1.0, 10.0, 1.0, 10.0], 5.0)
    best = carve(problem, [1, 1, 1, 1, 1, 2, 2, 2, 2]).schedule.period_s
    assert best == 37.0
    assert 36.9 < counted(problem, best) <= best
    assert 36.9 < period_bound(problem, best) <= best


@pytest.mark.parametrize("price", [0.0, 100.0])
def test_the_price_of_fast_memory_is_that_of_the_ops_themselves(price: float):
    """Each device keeps one of three weights, so one of them streams 10 s whatever a byte is worth elsewhere."""
    problem = chain([1.0, 1.0, 1.0, 1.0, 1.0], 0.5)
    weights = tuple(Weight(f"w{n}", (n,), {1: 4, 2: 4}, {1: {n: 10.0}, 2: {n: 10.0}}) for n in range(5))
    devices = tuple(replace(device, fast_bytes=4 if number else None) for number, device in enumerate(problem.devices))
    problem = replace(problem, devices=devices, weights=weights)
    best = carve(problem, [1, 1, 1, 2, 2]).schedule.period_s
    assert best == 23.5
    assert 23.4 < counted(problem, best, price) <= best


def test_nothing_is_counted_without_a_placement_or_time():
    problem = chain([10.0] * 3, 5.0)
    prices = Prices([1.0] * 3, {})
    assert counting_bound(problem, device_classes(problem), prices, float("inf")).value == 0.0
    assert counting_bound(problem, device_classes(problem), prices, 25.0, until=0.0).value == 0.0


def test_ops_are_alike_where_they_cost_the_same_and_stream_the_same():
    problem = chain([10.0, 1.0, 10.0, 10.0], 5.0)
    weights = (Weight("w0", (0,), {1: 4}), Weight("w2", (2,), {1: 4}), Weight("w3", (3,), {1: 5}))
    assert alike_nodes(replace(problem, weights=weights)) == [[0, 2], [1], [3]]
