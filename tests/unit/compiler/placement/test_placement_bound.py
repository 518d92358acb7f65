"""The latency bound: exact on chains, below every placement elsewhere, and proof enough for the common case."""

import itertools
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.latency_bound import LatencyRelaxation, latency_bound
from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.bounds.path_bound import heads, tails
from gimlet.compiler.placement.bounds.relaxed_bound import relaxed_bound, resources
from gimlet.compiler.placement.bounds.spread_bound import spread_bound
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
from gimlet.compiler.placement.search.memory_cuts import memory_cuts
from gimlet.compiler.placement.solve import solve

Make = Callable[..., Problem]
SEEDS = st.integers(0, 10**6)


def chain(costs: list[tuple[float, float]], size_bytes: int = 1) -> Problem:
    """A chain of ops with seconds on cpu and gpu0; a transfer takes 2 s and 1 s a byte."""
    count = len(costs)
    values = [Value("x", size_bytes, None, (0,))]
    values += [Value(f"v{n}", size_bytes, n, (n + 1,)) for n in range(count - 1)]
    values.append(Value("y", size_bytes, count - 1, (), True))
    return Problem(
        (DeviceSpec("cpu", segment_overhead_s=0.5), DeviceSpec("gpu0", segment_overhead_s=1.0)),
        (Place(0), Place(1)),
        tuple(Node(f"n{n}", "Op", {0: Option(a), 1: Option(b)}, flops=1.0) for n, (a, b) in enumerate(costs)),
        tuple(values),
        {(0, 1): Route(2.0, 1.0), (1, 0): Route(2.0, 1.0)},
    )


def test_a_chain_is_exact():
    problem = chain([(1.0, 5.0), (20.0, 2.0), (20.0, 2.0), (1.0, 9.0)])
    bound = latency_bound(problem)
    # n0 on cpu, two on gpu0, the last on cpu, with two transfers of 3 s.
    assert bound.seconds == pytest.approx(0.5 + 1 + 3 + 1 + 4 + 3 + 0.5 + 1)
    assert bound.place == (0, 1, 1, 0)
    assert solve(problem).status == "optimal"


@given(seed=SEEDS)
def test_no_placement_is_below_the_bound(random_problem: Make, seed: int):
    problem = random_problem(seed, nodes=9, devices=3)
    relaxation = LatencyRelaxation(problem)
    bound = relaxation.bound()
    found = carve(problem, bound.place)
    assert bound.seconds <= found.schedule.latency_s * (1 + 1e-9)
    for choice in range(len(relaxation.choices)):
        assert relaxation.bound(None, choice).seconds <= bound.seconds * (1 + 1e-9)


@given(seed=SEEDS, price=st.sampled_from([-3.0, 2.0]))
def test_charges_are_part_of_the_bound(random_problem: Make, seed: int, price: float):
    """With a charge on each node of device 1, no placement's latency and charges are below the bound."""
    problem = random_problem(seed, nodes=7, devices=2)
    charge = [[0.0, price] for _ in problem.nodes]
    bound = LatencyRelaxation(problem).bound(charge)
    for place in (bound.place, tuple(allowed[0] for allowed in problem.allowed)):
        total = carve(problem, place).schedule.latency_s + price * place.count(1)
        assert bound.seconds <= total + 1e-9


def test_shares_raise_the_bound():
    problem = chain([(10.0, 1.0)] * 8).with_rules(Rules(min_share={0: 0.5}))
    relaxation = LatencyRelaxation(problem)
    free = relaxation.bound()
    held, seen = relaxed_bound(problem, relaxation, free, solve(problem).objective)
    assert held.seconds > 1.5 * free.seconds
    assert held.seconds <= solve(problem).objective * (1 + 1e-9)
    assert any(resources(problem)[0].missing(place) <= 0 for place in seen)


@given(seed=SEEDS)
def test_heads_and_tails_hold_in_every_schedule(random_problem: Make, seed: int):
    problem = random_problem(seed, nodes=8, devices=3)
    head, tail = heads(problem), tails(problem)
    place = tuple(allowed[seed % len(allowed)] for allowed in problem.allowed)
    found = carve(problem, place)
    ends = {launch.segment: launch.end_s for launch in found.schedule.launches}
    for node, used in enumerate(place):
        assert head[node][used] <= ends[found.placement.segment[node]] + 1e-9
        assert tail[node][used] <= found.schedule.latency_s + 1e-9


def test_a_deep_model_is_proven_without_a_search():
    """A transformer's shape, 40 layers with three branches each, on one device and a slow host."""
    nodes: list[Node] = []
    values: list[Value] = [Value("x", 1000, None, (0,))]
    consumers: dict[int, list[int]] = {}

    def add(seconds: float, *inputs: int) -> int:
        nodes.append(Node(f"n{len(nodes)}", "Op", {0: Option(20 * seconds), 1: Option(seconds)}))
        for source in inputs:
            consumers.setdefault(source, []).append(len(nodes) - 1)
        return len(nodes) - 1

    last = add(1e-6)
    for _ in range(40):
        norm = add(2e-6, last)
        branches = [add(5e-6, add(9e-6, norm)) for _ in range(3)]
        last = add(1e-6, add(9e-6, *branches), last)
    for index in range(len(nodes)):
        values.append(Value(f"v{index}", 1000, index, tuple(consumers.get(index, ())), index == last))
    route = Route(10e-6, 2e-11)
    problem = Problem(
        (DeviceSpec("cpu", segment_overhead_s=1e-5), DeviceSpec("gpu0", segment_overhead_s=6e-5)),
        (Place(0), Place(1)),
        tuple(nodes),
        tuple(values),
        {(0, 1): route, (1, 0): route},
    )
    found = solve(problem)
    assert found.status == "optimal"
    assert found.slots == 0
    assert set(found.placement.place) == {1}


def block(draw: random.Random, inner: int, from_host: bool = False) -> Problem:
    """A block between two joints (or between the host and a joint), with costs, edges and sizes drawn at random."""
    last = inner + (0 if from_host else 1)
    first = 0 if from_host else 1
    consumers: dict[int, set[int]] = {node: {last} for node in range(first, last)}
    for node in range(first, last):
        consumers[node] |= {after for after in range(node + 1, last) if draw.random() < 0.25}
    if not from_host:
        consumers[0] = set(range(1, last + 1))
    fed = tuple(range(last)) if from_host else (0,)
    values = [Value("x", draw.randint(0, 6), None, fed)]
    values += [
        Value(f"v{node}", draw.randint(0, 6), node, tuple(sorted(after))) for node, after in sorted(consumers.items())
    ]
    values.append(Value("y", draw.randint(0, 6), last, (), True))
    costs = [
        {p: Option(float(draw.randint(0, 20))) for p in (0, 1) if p == node % 2 or draw.random() < 0.9}
        for node in range(last + 1)
    ]
    devices = tuple(DeviceSpec(f"d{index}", segment_overhead_s=draw.choice([0.0, 1.0, 4.0])) for index in range(2))
    routes = {ends: Route(float(draw.randint(0, 3)), draw.choice([0.1, 1.0])) for ends in ((0, 1), (1, 0))}
    nodes = tuple(Node(f"n{index}", "Op", options) for index, options in enumerate(costs))
    return Problem(devices, (Place(0), Place(1)), nodes, tuple(values), routes)


@settings(max_examples=40)
@given(seed=SEEDS, from_host=st.booleans())
def test_no_order_of_segments_beats_the_bound_of_a_block(
    best_by_trying: Callable[[Problem], float | None], seed: int, from_host: bool
):
    problem = block(random.Random(seed), 3 if from_host else 2, from_host)
    best = best_by_trying(problem)
    assert best is not None
    assert latency_bound(problem).seconds <= best * (1 + 1e-9)


def test_branches_that_a_second_launch_does_not_pay_for_are_proven_to_stay():
    """Two hundred ops in two branches on four equal devices: side by side saves less than two launches cost."""
    count = 200
    chains = (range(1, count, 2), range(2, count, 2))
    values = [Value("x", 8, None, (0,)), Value("v0", 8, 0, (1, 2))]
    for members in chains:
        values += [Value(f"v{a}", 8, a, (b,)) for a, b in itertools.pairwise((*members, count))]
    values.append(Value("y", 8, count, (), True))
    devices = tuple(DeviceSpec(f"gpu{index}", segment_overhead_s=60.0) for index in range(4))
    options = {place: Option(1.0) for place in range(4)}
    problem = Problem(
        (*devices,),
        tuple(Place(index) for index in range(4)),
        tuple(Node(f"n{index}", "Op", options) for index in range(count + 1)),
        tuple(values),
        {(a, b): Route(5.0, 0.1) for a in range(4) for b in range(4) if a != b},
    )
    assert latency_bound(problem).seconds == pytest.approx(60 + count + 1)
    assert solve(problem).status == "optimal"


def heavy(draw: random.Random, inner: int) -> Problem:
    """A block on a host that takes little and two equal devices, with weights that one of them may not hold."""
    problem = block(draw, inner)
    host = DeviceSpec("cpu", memory_bytes=draw.choice([0, 10]), segment_overhead_s=draw.choice([0.0, 2.0]))
    device = DeviceSpec("gpu", memory_bytes=40, segment_overhead_s=draw.choice([1.0, 4.0]))
    costs = [node.options[min(node.options)] for node in problem.nodes]
    weights = tuple(
        Weight(f"w{node}", (node,), dict.fromkeys(range(3), draw.randint(5, 20))) for node in range(len(costs))
    )
    far, near = Route(float(draw.randint(0, 3)), 0.1), Route(float(draw.randint(0, 3)), 0.1)
    return Problem(
        (host, device, replace(device, name="gpu1")),
        tuple(Place(index) for index in range(3)),
        tuple(Node(f"n{n}", "Op", {0: Option(2 * c.seconds), 1: c, 2: c}) for n, c in enumerate(costs)),
        problem.values,
        {(a, b): near if 0 not in (a, b) else far for a in range(3) for b in range(3) if a != b},
        weights,
    )


@settings(max_examples=20)
@given(seed=SEEDS)
def test_no_placement_is_below_the_bound_for_weights_that_one_device_does_not_hold(
    best_by_trying: Callable[[Problem], float | None], seed: int
):
    problem = heavy(random.Random(seed), 2)
    best = best_by_trying(problem)
    bound = spread_bound(problem, LatencyRelaxation(problem), 0.0)
    assert best is None or bound <= best * (1 + 1e-9)


def test_a_second_device_for_memory_is_proven_to_cost_its_launch():
    """Eight ops of 10 bytes in a row on three equal devices of 50: one cut, so one more launch and transfer."""
    problem = chain([(50.0, 2.0)] * 8)
    host, device = problem.devices
    nodes = tuple(replace(n, options={0: n.options[0]} | dict.fromkeys((1, 2, 3), n.options[1])) for n in problem.nodes)
    problem = replace(
        problem,
        devices=(replace(host, memory_bytes=0), *(replace(device, memory_bytes=50) for _ in range(3))),
        places=tuple(Place(index) for index in range(4)),
        nodes=nodes,
        routes={(a, b): Route(2.0, 1.0) for a in range(4) for b in range(4) if a != b},
        weights=tuple(Weight(f"w{n}", (n,), dict.fromkeys(range(4), 10)) for n in range(8)),
    )
    # Three transfers of 3 s, two launches and 16 s of ops.
    assert spread_bound(problem, LatencyRelaxation(problem), 0.0) == pytest.approx(9 + 2 + 16)
    assert solve(problem).status == "optimal"


@given(seed=SEEDS)
def test_a_search_that_has_no_time_gives_a_lower_bound(random_problem: Make, seed: int):
    problem = random_problem(seed, nodes=9, devices=3)
    full = LatencyRelaxation(problem).bound()
    assert 0 <= LatencyRelaxation(problem, until=0.0).bound().seconds <= full.seconds * (1 + 1e-9)


@given(seed=SEEDS)
def test_runs_that_fill_memory_are_placements(random_problem: Make, seed: int):
    problem = random_problem(seed, nodes=8, devices=3, memory=True)
    for places in memory_cuts(problem):
        assert all(place in allowed for place, allowed in zip(places, problem.allowed, strict=True))


def test_devices_are_filled_one_after_another():
    # Six of ten bytes each: a device takes two of them, and the op that the host is far better at stays with it.
    devices = (DeviceSpec("cpu"), *(DeviceSpec(f"gpu{n}", 13, 1.0) for n in range(2)))
    seconds = [(90.0, 3.0)] * 4 + [(2.0, 50.0)]
    nodes = tuple(Node(f"n{n}", "Op", {0: Option(s), 1: Option(g), 2: Option(g)}) for n, (s, g) in enumerate(seconds))
    values = (
        Value("x", 1, None, (0,)),
        *(Value(f"v{n}", 1, n, (n + 1,)) for n in range(4)),
        Value("y", 1, 4, (), True),
    )
    routes = {(a, b): Route(1.0, 0.0) for a in range(3) for b in range(3) if a != b}
    weights = tuple(Weight(f"w{n}", (n,), dict.fromkeys(range(3), 6)) for n in range(4))
    problem = Problem(devices, (Place(0), Place(1), Place(2)), nodes, values, routes, weights)
    assert memory_cuts(problem)[0] == (1, 1, 2, 2, 0)
    assert solve(problem).schedule.memory_bytes == {0: 0, 1: 12, 2: 12}


def test_branches_that_do_not_meet_wait_for_their_device_and_link():
    nodes = tuple(Node(f"n{n}", "Op", {0: Option(9.0), 1: Option(1.0)}) for n in range(20))
    values = tuple(Value(f"x{n}", 30, None, (n,)) for n in range(20))
    outputs = tuple(Value(f"y{n}", 0, n, (), True) for n in range(20))
    routes = {(0, 1): Route(0.0, 0.1, (("in", 0.1),)), (1, 0): Route(0.0, 0.1, (("out", 0.1),))}
    problem = Problem((DeviceSpec("cpu"), DeviceSpec("gpu")), (Place(0), Place(1)), nodes, (*values, *outputs), routes)
    # Of 20 ops the host does the part for which it takes as long as the link takes for the rest: 20 / (1 / 9 + 1 / 3).
    assert lower_bound(problem).value >= 45 * (1 - 1e-6)
    assert lower_bound(problem).value <= carve(problem, (0,) * 5 + (1,) * 15).schedule.latency_s


def test_what_is_paid_for_a_share_counts_in_a_block_between_host_and_host():
    # No op is before or after all others, so that all of them are one block.
    options = ({0: Option(1.0), 1: Option(1.0)}, {0: Option(1.0), 1: Option(100.0)}, {0: Option(0.0), 1: Option(3.0)})
    nodes = tuple(Node(f"n{n}", "Op", own, flops=f) for n, (own, f) in enumerate(zip(options, (0, 50, 1), strict=True)))
    values = (Value("x", 0, None, (0, 1, 2)), *(Value(f"y{n}", 0, n, (), True) for n in range(3)))
    routes = {(0, 1): Route(0.0, 0.0), (1, 0): Route(0.0, 0.0)}
    problem = Problem((DeviceSpec("cpu"), DeviceSpec("gpu")), (Place(0), Place(1)), nodes, values, routes)
    problem = problem.with_rules(Rules(min_share={1: 0.4}))
    assert lower_bound(problem).value <= carve(problem, (0, 1, 0)).schedule.latency_s == 100.0
