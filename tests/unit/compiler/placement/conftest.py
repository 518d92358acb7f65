"""Random small problems, and the best placement of a tiny one by trying all."""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pytest

from gimlet.compiler.placement.model.problem import (
    DeviceSpec,
    Fusion,
    Node,
    Objective,
    Option,
    Place,
    Placement,
    Problem,
    Route,
    Rules,
    Value,
    Weight,
)
from gimlet.compiler.placement.model.segments import Found, judge


def _random_problem(
    seed: int, nodes: int = 4, devices: int = 2, objective: Objective = "latency", memory: bool = False
) -> Problem:
    draw = random.Random(seed)
    specs = tuple(
        DeviceSpec(
            f"d{index}",
            memory_bytes=draw.choice([None, 30, 60]) if memory else None,
            segment_overhead_s=draw.choice([0.0, 1.0, 3.0]),
            idle_w=draw.choice([1.0, 5.0]),
            load_w=20.0,
            usd_per_hour=draw.choice([3600.0, 25200.0]),
        )
        for index in range(devices)
    )
    ops: list[Node] = []
    for index in range(nodes):
        options = {
            place: Option(float(draw.randint(0, 20)), float(draw.randint(0, 50)), draw.randint(0, 10))
            for place in range(devices)
            if draw.random() < 0.85
        }
        ops.append(Node(f"n{index}", "Op", options or {0: Option(5.0, 7.0, 1)}, flops=float(draw.randint(1, 10))))
    values = [Value("x", draw.randint(0, 6), None, tuple(i for i in range(nodes) if i == 0 or draw.random() < 0.1))]
    for index in range(nodes):
        consumers = tuple(i for i in range(index + 1, nodes) if draw.random() < (0.9 if i == index + 1 else 0.3))
        is_output = not consumers or draw.random() < 0.1
        values.append(Value(f"v{index}", draw.randint(0, 6), index, consumers, is_output))
    routes = {
        (a, b): Route(float(draw.randint(0, 4)), draw.choice([0.1, 0.5, 1.0, 2.0]), ((f"{a}{b}", 0.5),))
        for a in range(devices)
        for b in range(devices)
        if a != b
    }
    weights = tuple(
        Weight(
            f"w{index}",
            tuple(sorted(draw.sample(range(nodes), min(nodes, draw.choice([1, 2]))))),
            {place: draw.randint(1, 20) for place in range(devices)},
        )
        for index in range(nodes if memory else 0)
    )
    fusions: list[Fusion] = []
    for index in range(1, nodes):
        if draw.random() < 0.3 and index in values[index].consumers:
            places = [place for place in ops[index].options if place in ops[index - 1].options]
            seconds = {place: 0.5 * ops[index].options[place].seconds for place in places}
            fusions.append(Fusion(index - 1, index, seconds, dict.fromkeys(places, 0.0)))
    return Problem(
        specs,
        tuple(Place(index) for index in range(devices)),
        tuple(ops),
        tuple(values),
        routes,
        weights,
        tuple(fusions),
        rules=Rules(objective),
    )


def _with_levels(problem: Problem, seed: int) -> Problem:
    """The problem with fast memory on its devices, and times for what is streamed."""
    draw = random.Random(seed + 1)
    devices = tuple(replace(spec, fast_bytes=draw.choice([None, 0, 8, 20])) for spec in problem.devices)
    weights = tuple(
        replace(
            weight,
            stream_s={
                place: {user: size * draw.choice([0.0, 0.2, 1.0]) for user in weight.users}
                for place, size in weight.size_bytes.items()
            },
            order=draw.randint(0, 3),
        )
        for weight in problem.weights
    )
    return replace(problem, devices=devices, weights=weights)


def _limited(
    kept: Sequence[Found], figures: Iterable[Objective], part: int
) -> tuple[list[Found], dict[Objective, float]]:
    """What is left of placements under limits on figures, one after the other, and the limits.

    Each lies at the `part`-th part of what is left, from the least on; 0 is the least itself.
    """
    left, bounds = list(kept), dict[Objective, float]()
    for figure in figures:
        amounts = sorted(found.schedule.figure(figure) for found in left)
        bounds[figure] = amounts[len(amounts) // part if part else 0] * (1 + 1e-9) or 1e-9
        left = [found for found in left if found.schedule.figure(figure) <= bounds[figure]]
    return left, bounds


def _best_by_trying(problem: Problem) -> float | None:
    count = len(problem.nodes)
    best: float | None = None
    for places in itertools.product(*problem.allowed):
        for segments in itertools.product(range(count), repeat=count):
            if any(segments[a] > segments[b] for b in range(count) for a in problem.predecessors[b]):
                continue
            if any(segments[a] == segments[b] and places[a] != places[b] for a in range(count) for b in range(a)):
                continue
            found = judge(problem, Placement(places, segments))
            figure = found.schedule.figure(problem.rules.objective)
            if not found.excess and (best is None or figure < best):
                best = figure
    return best


@pytest.fixture(scope="session")
def random_problem() -> Callable[..., Problem]:
    """A function that makes a problem of a seed: few nodes, few devices, all kinds of costs."""
    return _random_problem


@pytest.fixture(scope="session")
def with_levels() -> Callable[[Problem, int], Problem]:
    """A function that gives a problem with memory two levels of it."""
    return _with_levels


@pytest.fixture(scope="session")
def limited_to() -> Callable[..., tuple[list[Found], dict[Objective, float]]]:
    """A function that limits figures by what placements have of them."""
    return _limited


@pytest.fixture(scope="session")
def best_by_trying() -> Callable[[Problem], float | None]:
    """A function that tries every placement with every grouping into segments."""
    return _best_by_trying
