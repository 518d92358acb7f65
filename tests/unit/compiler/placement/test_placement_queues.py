"""The bound on latency where inputs and outputs of the model queue on links."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds import queue_bound as under_test
from gimlet.compiler.placement.bounds.atomic_bound import more_segments, two_segments
from gimlet.compiler.placement.bounds.block_bound import BlockTable, Ends
from gimlet.compiler.placement.bounds.latency_bound import LatencyRelaxation, latency_bound
from gimlet.compiler.placement.bounds.path_bound import heads
from gimlet.compiler.placement.bounds.queue_bound import queue_bound
from gimlet.compiler.placement.model.problem import DeviceSpec, Node, Option, Place, Problem, Route, Value

Make = Callable[..., Problem]
Best = Callable[[Problem], float | None]


def with_caches(problem: Problem, seed: int) -> Problem:
    """The problem with inputs and outputs of single nodes, large beside its work, and links of several speeds."""
    draw, count = random.Random(seed), len(problem.nodes)
    values = list(problem.values)
    for node in range(count):
        if draw.random() < 0.6:
            readers = tuple(sorted(draw.sample(range(count), min(count, draw.choice([1, 1, 2])))))
            values.append(Value(f"past{node}", draw.randint(5, 60), None, readers))
        if draw.random() < 0.4:
            values.append(Value(f"present{node}", draw.randint(5, 60), node, (), True))
    bus, speed = draw.random() < 0.3, draw.choice([0.3, 1.0, 2.0])
    routes = {
        (a, b): replace(route, links=(("bus" if bus else f"{a}{b}", min(route.seconds_per_byte, speed)),))
        for (a, b), route in problem.routes.items()
    }
    return replace(problem, values=tuple(values), routes=routes)


def layers(count: int, devices: int = 2) -> Problem:
    """A host that takes nothing, and devices on links of their own: layers with a cache of 10 s each way."""
    every = range(devices + 1)
    routes = {(a, b): Route(0.0, 1.0, ((f"{a}{b}", 1.0),)) for a in every for b in every if a != b}
    values = [Value(f"v{layer}", 0, layer, (layer + 1,)) for layer in range(count - 1)]
    values += [Value(f"past{layer}", 10, None, (layer,)) for layer in range(count)]
    values += [Value(f"present{layer}", 10, layer, (), True) for layer in range(count)]
    return Problem(
        (DeviceSpec("host"), *(DeviceSpec(f"d{device}", segment_overhead_s=5.0) for device in range(devices))),
        tuple(Place(device + 1) for device in range(devices)),
        tuple(Node(f"n{layer}", options=dict.fromkeys(range(devices), Option(1.0))) for layer in range(count)),
        tuple(values),
        routes,
    )


def bounded(problem: Problem, known: float) -> float:
    relaxation = LatencyRelaxation(problem)
    free = relaxation.bound().seconds
    return queue_bound(relaxation, free, free, known)[0]


def two_hops(shared: int) -> Problem:
    """Two nodes in a row on a device behind two links. Both read an input of `shared` bytes, the second one of 10."""
    links = (("near", 0.5), ("far", 0.5))
    return Problem(
        (DeviceSpec("host"), DeviceSpec("a")),
        (Place(1),),
        (Node("first", options={0: Option(0.0)}), Node("second", options={0: Option(0.0)})),
        (
            Value("shared", shared, None, (0, 1)),
            Value("own", 10, None, (1,)),
            Value("v", 0, 0, (1,)),
            Value("w", 0, 1, (), True),
        ),
        {(0, 1): Route(1.0, 1.0, links), (1, 0): Route(0.0, 0.0)},
    )


@pytest.mark.parametrize("shared", [4, 10, 40])
def test_inputs_of_two_batches_overlap_on_a_way_of_two_links(best_by_trying: Best, shared: int):
    problem = two_hops(shared)
    best = best_by_trying(problem)
    assert best == max(11.0 + 0.5 * shared, 1.0 + shared)
    assert heads(problem)[1][0] == max(11.0, 1.0 + shared, 1.0 + 0.5 * (10 + shared))
    assert latency_bound(problem).seconds <= best
    assert bounded(problem, 2 * best) <= best


def test_an_input_may_have_come_for_a_node_that_is_left_out(best_by_trying: Best):
    routes = {(0, 1): Route(0.0, 2.0, (("near", 1.0), ("far", 1.0))), (1, 0): Route(0.0, 0.0)}
    problem = Problem(
        (DeviceSpec("host"), DeviceSpec("a")),
        (Place(1),),
        tuple(Node(name, options={0: Option(s)}) for name, s in (("side", 0.0), ("a", 1.0), ("b", 1.0), ("c", 1.0))),
        (
            Value("cache", 30, None, (0, 3)),
            Value("own", 30, None, (3,)),
            Value("side", 0, 0, (3,)),
            Value("v", 0, 1, (2,)),
            Value("w", 0, 2, (3,)),
            Value("y", 0, 3, (), True),
        ),
        routes,
    )
    assert best_by_trying(problem) == 91.0
    assert bounded(problem, 200.0) <= 91.0


def test_what_is_looked_for_is_limited_by_work(monkeypatch: pytest.MonkeyPatch):
    relaxation = LatencyRelaxation(layers(4))
    least = relaxation.bound().seconds
    found = [least]
    for effort in (0, 60, 200, 100_000):
        monkeypatch.setattr(under_test, "_EFFORT", effort)
        found.append(queue_bound(relaxation, least, least, 40.0)[0])
    assert found == sorted(found)
    assert found[0] == found[1] < found[-1]


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 100_000), shape=st.sampled_from([(2, 3), (3, 2), (3, 3), (4, 2)]))
def test_it_is_never_above_the_best_there_is(
    random_problem: Make, best_by_trying: Best, seed: int, shape: tuple[int, int]
):
    problem = with_caches(random_problem(seed, *shape), seed)
    best = best_by_trying(problem)
    assert best is not None
    assert bounded(problem, 1.3 * best + 1.0) <= best * (1 + 1e-9) + 1e-9


def test_caches_that_arrive_and_leave_in_parts_are_seen(best_by_trying: Best):
    problem = layers(4)
    best = best_by_trying(problem)
    assert best is not None
    found = bounded(problem, best)
    assert latency_bound(problem).seconds < 0.7 * best
    assert found == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_segments_that_follow_each_other_on_a_device_share_its_links(best_by_trying: Best, count: int):
    problem = layers(count, devices=1)
    best = best_by_trying(problem)
    assert best is not None
    assert bounded(problem, best) == pytest.approx(best, rel=1e-2)


def test_equal_devices_have_links_of_their_own(best_by_trying: Best):
    one, two = best_by_trying(layers(4, devices=1)), best_by_trying(layers(4, devices=2))
    assert one is not None
    assert two is not None
    assert bounded(layers(4), one) <= two < 0.9 * one


def test_nothing_is_looked_for_where_links_cannot_matter():
    relaxation = LatencyRelaxation(layers(4))
    free = relaxation.bound().seconds
    assert queue_bound(relaxation, free, 2 * free + 81.0, 1000.0) == (2 * free + 81.0, [])


def test_a_known_placement_is_the_most_that_is_returned():
    assert bounded(layers(4), 32.0) == pytest.approx(32.0)


def beside_a_cache(size: int) -> Problem:
    """A host with a small op, and a device with one that reads a cache; a last one there reads both."""
    routes = {(a, b): Route(0.0, 1.0, ((f"{a}{b}", 1.0),)) for a in range(2) for b in range(2) if a != b}
    return Problem(
        (DeviceSpec("host"), DeviceSpec("d", segment_overhead_s=5.0)),
        (Place(0), Place(1)),
        (
            Node("range", options={0: Option(1.0)}),
            Node("concat", options={0: Option(40.0), 1: Option(1.0)}),
            Node("attention", options={0: Option(500.0), 1: Option(1.0)}),
        ),
        (
            Value("past", size, None, (1,)),
            Value("mask", 0, 0, (2,)),
            Value("all", size, 1, (2,)),
            Value("y", 0, 2, (), True),
        ),
        routes,
    )


@pytest.mark.parametrize("size", [30, 300])
def test_an_op_elsewhere_does_not_hide_what_others_read(best_by_trying: Best, size: int):
    """The cache crosses the link, either as it is or as what the host makes of it."""
    problem = beside_a_cache(size)
    best = best_by_trying(problem)
    assert best is not None
    assert bounded(problem, 1.5 * best) == pytest.approx(best, rel=2e-3)


def test_what_goes_to_the_last_joint_crosses_the_cut():
    """Each of two caches stays with what reads both, or what is made of it is sent there."""
    routes = {(a, b): Route(0.0, 1.0, ((f"{a}{b}", 1.0),)) for a in range(3) for b in range(3) if a != b}
    nodes = [Node(f"n{n}", options={0: Option(1.0)} if n == 0 else {1: Option(1.0)}) for n in (0, 3)]
    inner = [Node(f"n{n}", options={0: Option(1.0), 1: Option(30.0)}) for n in (1, 2)]
    values = [Value("x", 0, 0, (1, 2)), Value("a", 20, 1, (3,)), Value("b", 20, 2, (3,)), Value("y", 0, 3, (), True)]
    problem = Problem(
        (DeviceSpec("host"), *(DeviceSpec(f"d{d}", segment_overhead_s=20.0) for d in range(2))),
        (Place(1), Place(2)),
        (nodes[0], *inner, nodes[1]),
        tuple(values),
        routes,
    )
    relaxation = LatencyRelaxation(problem)
    table = BlockTable(relaxation.relaxation.seconds, problem, [[0.0] * 2 for _ in range(4)], 1000)
    block, ends = relaxation.joints(0).block(1), Ends(0, 1)
    assert two_segments(table, block, ends) == pytest.approx(20 + 2 * (1 + 20))
    assert two_segments(table, block, ends, {0: "last"}) == pytest.approx(20 + 30 + 1 + 20)
    assert more_segments(table, block, ends, {0: "between"}) > more_segments(table, block, ends)
