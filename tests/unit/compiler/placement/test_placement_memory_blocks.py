"""Bounds on latency from all memories, and what fills them: never above a placement, close where devices fill up."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.memory_blocks import memory_blocks
from gimlet.compiler.placement.bounds.memory_prices import memory_prices
from gimlet.compiler.placement.model.problem import (
    DeviceSpec,
    Node,
    Option,
    Place,
    Placement,
    Problem,
    Route,
    Value,
    Weight,
)
from gimlet.compiler.placement.model.segments import carve, judge
from gimlet.compiler.placement.search.memory_cuts import dealt, memory_cuts

Make = Callable[..., Problem]


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), levels=st.booleans())
def test_no_placement_is_below_the_bound(
    random_problem: Make, with_levels: Callable[[Problem, int], Problem], seed: int, levels: bool
):
    problem = random_problem(seed, 5, 3, memory=True)
    problem = with_levels(problem, seed) if levels else problem
    bound = max(memory_blocks(problem).seconds, memory_prices(problem).seconds)
    for places in itertools.product(*problem.allowed):
        found = carve(problem, places)
        assert found.excess or bound <= found.schedule.latency_s * (1 + 1e-9)


def repeated(problem: Problem, times: int) -> Problem:
    """The nodes of a problem, each with weights of its own, several times one after another."""
    count = len(problem.nodes)
    steps = range(0, count * times, count)
    last = count - 1
    values = [Value("x", 3, None, (0,))]
    for step in steps:
        for value in problem.values:
            if value.producer is not None:
                ends = tuple(step + end for end in value.consumers) or ((step + last,) if value.producer < last else ())
                following = (step + count,) if value.producer == last and step + count < count * times else ()
                producer = step + value.producer
                values.append(replace(value, producer=producer, consumers=(*ends, *following), is_output=False))
    values[-1] = replace(values[-1], is_output=True)
    weights = [
        replace(
            weight,
            key=f"{weight.key} {step}",
            users=tuple(step + user for user in weight.users),
            stream_s={place: {step + u: s for u, s in users.items()} for place, users in weight.stream_s.items()},
        )
        for step in steps
        for weight in problem.weights
    ]
    fusions = [
        replace(fusion, producer=step + fusion.producer, consumer=step + fusion.consumer)
        for step in steps
        for fusion in problem.fusions
    ]
    return replace(
        problem,
        nodes=tuple(replace(node, name=f"{node.name} {step}") for step in steps for node in problem.nodes),
        values=tuple(values),
        weights=tuple(weights),
        fusions=tuple(fusions),
    )


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), levels=st.booleans())
def test_layers_that_are_alike_count_as_often_as_they_are_there(
    random_problem: Make, with_levels: Callable[[Problem, int], Problem], seed: int, levels: bool
):
    problem = random_problem(seed, 3, 2, memory=True)
    problem = repeated(with_levels(problem, seed) if levels else problem, 2)
    bound = max(memory_blocks(problem).seconds, memory_prices(problem).seconds)
    for places in itertools.product(*problem.allowed):
        for found in (carve(problem, places), judge(problem, Placement(places, tuple(range(len(places)))))):
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
    assert 0.98 * placed <= memory_blocks(problem).seconds <= placed


def test_without_a_memory_that_binds_there_is_no_bound():
    problem = filled(None)
    plain = Problem(problem.devices[:3], problem.places[:3], problem.nodes[:0], (), problem.routes)
    assert memory_blocks(plain).seconds == 0.0


def test_what_fits_nowhere_has_no_placement():
    problem = filled(80)
    devices = tuple(DeviceSpec(spec.name, 40) for spec in problem.devices)
    nothing = Problem(devices, problem.places, problem.nodes, problem.values, problem.routes, problem.weights)
    assert memory_blocks(nothing).seconds == float("inf")


def test_prices_know_what_blocks_take_exactly():
    """Two of three nodes beside each other leave a full GPU: the program hides half of each behind the third."""
    problem = beside(76)
    placed = min(
        found.schedule.latency_s
        for places in itertools.product((0, 1), repeat=len(problem.nodes))
        if not (found := carve(problem, places)).excess
    )
    assert memory_blocks(problem).seconds < memory_prices(problem).seconds <= placed


def beside(gpu_bytes: int) -> Problem:
    """Two layers of three nodes that a fourth reads, on a GPU without room for all and a slow host."""
    nodes: list[Node] = []
    values = [Value("x", 1, None, (0, 1, 2))]
    weights: list[Weight] = []
    for layer in range(2):
        first = 4 * layer
        for own, (fast, slow, size) in enumerate(((10.0, 90.0, 20), (1.0, 14.0, 8), (1.0, 14.0, 8), (5.0, 40.0, 10))):
            nodes.append(Node(f"n{first + own}", options={0: Option(slow), 1: Option(fast)}))
            weights.append(Weight(f"w{first + own}", (first + own,), {0: size, 1: size}))
            values.append(Value(f"v{first + own}", 1, first + own, (first + 3,) if own < 3 else (), False))
        last = Value(f"v{first + 3}", 1, first + 3, (first + 4, first + 5, first + 6) if layer < 1 else (), layer == 1)
        values[-1] = last
    return Problem(
        (DeviceSpec("host"), DeviceSpec("gpu", gpu_bytes, 1.0)),
        (Place(0), Place(1)),
        tuple(nodes),
        tuple(values),
        {(0, 1): Route(0.5, 0.0), (1, 0): Route(0.5, 0.0)},
        tuple(weights),
    )


def test_a_table_of_which_little_is_read_makes_room():
    problem = filled(60)
    nodes = (replace(problem.nodes[0], options={**problem.nodes[0].options, 0: Option(11.0)}), *problem.nodes[1:])
    places = memory_cuts(replace(problem, nodes=nodes))
    on_gpus = [sum(place in (1, 2) for place in cut) for cut in places]
    assert max(on_gpus) == 12
    assert any(cut[0] == 0 and count == 12 for cut, count in zip(places, on_gpus, strict=True))


def test_nodes_of_one_device_are_dealt_over_all_that_are_alike():
    problem = filled(80)
    assert dealt(problem, (1,) * 20) == (1,) * 8 + (2,) * 8 + (3,) * 4
    # What fits where it is stays there, and what comes after a full device goes on with the next one.
    assert dealt(problem, (2, 1) * 4 + (1,) * 12) == (2, 1) * 4 + (1,) * 4 + (2,) * 4 + (3,) * 4
