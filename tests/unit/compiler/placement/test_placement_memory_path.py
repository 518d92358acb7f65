"""The bound on latency from one path and all memories: never above a placement, and close where devices fill up."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.memory_path import memory_path
from gimlet.compiler.placement.model.problem import DeviceSpec, Node, Option, Place, Problem, Route, Value, Weight
from gimlet.compiler.placement.model.segments import carve

Make = Callable[..., Problem]


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), levels=st.booleans())
def test_no_placement_is_below_the_bound(
    random_problem: Make, with_levels: Callable[[Problem, int], Problem], seed: int, levels: bool
):
    problem = random_problem(seed, 5, 3, memory=True)
    problem = with_levels(problem, seed) if levels else problem
    bound = memory_path(problem)
    for places in itertools.product(*problem.allowed):
        found = carve(problem, places)
        assert found.excess or bound <= found.schedule.latency_s * (1 + 1e-9)


def filled(gpu_bytes: int | None) -> Problem:
    """Twenty layers on a host, two GPUs, and a card that is quick with the two layers in its fast memory."""
    options = {0: Option(1e3), 1: Option(10.0), 2: Option(10.0), 3: Option(0.1)}
    nodes = tuple(Node(f"n{index}", options=options) for index in range(20))
    values = tuple(Value(f"v{index}", 1, index, (index + 1,) if index < 19 else (), index == 19) for index in range(20))
    sizes = dict.fromkeys(range(4), 10)
    weights = tuple(Weight(f"w{index}", (index,), sizes, {3: {index: 40.0}}) for index in range(20))
    gpus = (DeviceSpec(f"gpu{index}", gpu_bytes, 1.0) for index in range(2))
    return Problem(
        (DeviceSpec("host"), *gpus, DeviceSpec("card", 1000, 1.0, fast_bytes=20)),
        tuple(Place(index) for index in range(4)),
        nodes,
        (Value("x", 1, None, (0,)), *values),
        {(a, b): Route(0.1, 0.0) for a in range(4) for b in range(4) if a != b},
        weights,
    )


def test_what_two_full_devices_leave_is_streamed():
    problem = filled(80)
    placed = carve(problem, (*[1] * 8, *[2] * 8, *[3] * 4)).schedule.latency_s
    assert placed == pytest.approx(160 + 2 * 0.1 + 2 * 40.1 + 3 + 4 * 0.1)
    assert 0.98 * placed <= memory_path(problem) <= placed


def test_without_a_memory_that_binds_there_is_no_bound():
    problem = filled(None)
    plain = Problem(problem.devices[:3], problem.places[:3], problem.nodes[:0], (), problem.routes)
    assert memory_path(plain) == 0.0


def test_what_fits_nowhere_has_no_placement():
    problem = filled(80)
    devices = tuple(DeviceSpec(spec.name, 40) for spec in problem.devices)
    nothing = Problem(devices, problem.places, problem.nodes, problem.values, problem.routes, problem.weights)
    assert memory_path(nothing) == float("inf")
