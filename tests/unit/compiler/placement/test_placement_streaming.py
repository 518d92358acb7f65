"""Weights beyond a device's fast memory: what streaming them costs in a schedule, in bounds and in the solver."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.model.problem import (
    OBJECTIVES,
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
from gimlet.compiler.placement.model.problem_json import problem_of
from gimlet.compiler.placement.model.schedule import simulate
from gimlet.compiler.placement.model.segments import carve, judge
from gimlet.compiler.placement.model.streaming import all_streamed, fast_bytes_priced, kept_s
from gimlet.compiler.placement.reasons.advice import recommendation
from gimlet.compiler.placement.reasons.explain import explanation, print_explanation
from gimlet.compiler.placement.search.coarsen import coarsen
from gimlet.compiler.placement.search.memory_cuts import memory_cuts
from gimlet.compiler.placement.solve import solve
from gimlet.runtime.errors import InputError

Make = Callable[..., Problem]
WithLevels = Callable[[Problem, int], Problem]
Best = Callable[[Problem], float | None]


def chain(fast_bytes: int | None, orders: tuple[int, int, int] = (0, 0, 0)) -> Problem:
    """Three nodes of a second each on one device, each with ten bytes of weights that stream at a second a byte."""
    device = DeviceSpec("d", segment_overhead_s=1.0, idle_w=1.0, load_w=10.0, fast_bytes=fast_bytes)
    return Problem(
        (device,),
        (Place(0),),
        tuple(Node(f"n{n}", options={0: Option(1.0, 10.0, 2)}) for n in range(3)),
        (Value("a", 1, 0, (1,)), Value("b", 1, 1, (2,)), Value("y", 1, 2, (), True)),
        {},
        tuple(Weight(f"w{n}", (n,), {0: 10}, {0: {n: 10.0}}, orders[n]) for n in range(3)),
    )


def test_what_fits_costs_nothing():
    assert simulate(chain(32), Placement((0,) * 3, (0,) * 3)).latency_s == 4.0
    assert not chain(32).streaming
    assert not chain(None).streaming


def test_what_does_not_fit_is_read_in_every_run():
    schedule = simulate(chain(17), Placement((0,) * 3, (0,) * 3))
    assert schedule.latency_s == 4.0 + 15.0
    assert schedule.period_s == 19.0
    assert schedule.energy_j == pytest.approx(30.0 + 150.0 + 1.0)
    assert schedule.streamed.size_bytes == {0: 15}


def test_weights_of_the_lowest_order_are_streamed_first():
    schedule = simulate(chain(17, (2, 0, 1)), Placement((0,) * 3, (0,) * 3))
    assert schedule.streamed.parts == {(1, 0): 1.0, (2, 0): 0.5}
    assert schedule.streamed.seconds == {1: 10.0, 2: 5.0}


def test_activations_take_fast_memory_before_weights():
    problem = chain(32)
    large = replace(problem.nodes[0], options={0: Option(1.0, 10.0, 12)})
    schedule = simulate(replace(problem, nodes=(large, *problem.nodes[1:])), Placement((0,) * 3, (0,) * 3))
    assert schedule.streamed.size_bytes == {0: 10}


def test_members_of_a_group_stream_their_part_at_once():
    devices = (DeviceSpec("a", fast_bytes=4), DeviceSpec("b", fast_bytes=6), DeviceSpec("g", members=(0, 1)))
    problem = Problem(
        devices,
        (Place(2),),
        (Node("n", options={0: Option(1.0)}),),
        (Value("y", 0, 0, (), True),),
        {(0, 2): Route(0.0, 0.0), (2, 0): Route(0.0, 0.0)},
        (Weight("w", (0,), {0: 8}, {0: {0: 8.0}}),),
    )
    assert simulate(problem, Placement((0,), (0,))).latency_s == 1.0 + 4.0
    assert solve(problem).objective == pytest.approx(5.0, rel=1e-6)


def test_a_weight_that_two_segments_use_is_streamed_for_each():
    problem = replace(chain(0), weights=(Weight("w", (0, 2), {0: 10}, {0: {0: 10.0, 2: 10.0}}),))
    assert simulate(problem, Placement((0,) * 3, (0,) * 3)).latency_s == 24.0


def test_negative_times_are_refused():
    with pytest.raises(InputError, match="takes to stream is negative"):
        replace(chain(3), weights=(Weight("w", (0,), {0: 1}, {0: {0: -1.0}}),))


def test_ops_leave_a_device_whose_fast_memory_is_full():
    problem = chain(22)
    other = DeviceSpec("slow", segment_overhead_s=1.0)
    routes = {(0, 1): Route(0.5, 0.0), (1, 0): Route(0.5, 0.0)}
    nodes = tuple(replace(node, options={**node.options, 1: Option(3.0, 30.0)}) for node in problem.nodes)
    found = solve(
        replace(problem, devices=(*problem.devices, other), places=(Place(0), Place(1)), nodes=nodes, routes=routes)
    )
    assert sorted(found.placement.place) == [0, 0, 1]
    assert found.objective == pytest.approx(7.5, rel=1e-4)
    assert found.status == "optimal"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), objective=st.sampled_from(OBJECTIVES))
def test_the_answer_is_the_best_there_is(
    random_problem: Make, with_levels: WithLevels, best_by_trying: Best, seed: int, objective: str
):
    problem = with_levels(random_problem(seed, 3, 2, objective, memory=True), seed)
    problem = replace(problem, devices=tuple(replace(spec, memory_bytes=None) for spec in problem.devices))
    best, found = best_by_trying(problem), solve(problem)
    assert best is not None
    assert found.objective == pytest.approx(best, rel=1e-4)
    assert lower_bound(problem).value <= best * (1 + 1e-6) + 1e-9
    assert judge(problem, found.placement).schedule.figure(problem.rules.objective) == found.objective


@given(seed=st.integers(0, 10_000), more=st.integers(0, 10), quicker=st.sampled_from([1.0, 0.5]))
def test_more_fast_memory_or_bandwidth_makes_no_placement_worse(
    random_problem: Make, with_levels: WithLevels, seed: int, more: int, quicker: float
):
    problem = with_levels(random_problem(seed, 6, 2, memory=True), seed)
    better = replace(
        problem,
        devices=tuple(
            spec if spec.fast_bytes is None else replace(spec, fast_bytes=spec.fast_bytes + more)
            for spec in problem.devices
        ),
        weights=tuple(
            replace(w, stream_s={p: {u: quicker * s for u, s in users.items()} for p, users in w.stream_s.items()})
            for w in problem.weights
        ),
    )
    place = tuple(allowed[seed % len(allowed)] for allowed in problem.allowed)
    before = carve(problem, place).placement
    for objective in ("latency", "throughput", "energy"):
        assert simulate(better, before).figure(objective) <= simulate(problem, before).figure(objective) + 1e-9


@given(seed=st.integers(0, 10_000))
def test_fast_memory_saves_no_more_than_is_counted(random_problem: Make, with_levels: WithLevels, seed: int):
    problem = with_levels(random_problem(seed, 6, 2, memory=True), seed)
    place = tuple(allowed[seed % len(allowed)] for allowed in problem.allowed)
    placement = carve(problem, place).placement
    slow, own = simulate(all_streamed(problem), placement), simulate(problem, placement)
    assert own.latency_s <= slow.latency_s + 1e-9
    assert slow.latency_s - own.latency_s <= sum(kept_s(problem).values()) + 1e-9


@given(seed=st.integers(0, 10_000), price=st.sampled_from([0.0, 0.01, 0.1, 0.5, 3.0]))
def test_bytes_with_a_price_are_charged_no_more_than_is_counted(
    random_problem: Make, with_levels: WithLevels, seed: int, price: float
):
    problem = with_levels(random_problem(seed, 6, 2, memory=True), seed)
    place = tuple(allowed[seed % len(allowed)] for allowed in problem.allowed)
    placement = carve(problem, place).placement
    priced, saved = fast_bytes_priced(problem, price)
    assert simulate(priced, placement).latency_s - simulate(problem, placement).latency_s <= saved + 1e-9


def test_weights_of_which_a_run_reads_little_do_not_loosen_the_bound():
    """A fast memory of 10 bytes saves 5 s of one weight, but nothing to speak of for those of 100 bytes."""
    problem = Problem(
        (DeviceSpec("host", segment_overhead_s=0.0), DeviceSpec("fast", segment_overhead_s=0.0, fast_bytes=10)),
        (Place(0), Place(1)),
        tuple(Node(f"n{n}", options={0: Option(1.0, 1.0), 1: Option(0.0, 1.0)}) for n in range(4)),
        (*(Value(f"v{n}", 1, n, (n + 1,)) for n in range(3)), Value("y", 1, 3, (), True)),
        {(0, 1): Route(0.0, 0.0), (1, 0): Route(0.0, 0.0)},
        (
            *(Weight(f"w{n}", (n,), {1: 100}, {1: {n: 3.0}}) for n in range(4)),
            Weight("all read", (0,), {1: 10}, {1: {0: 5.0}}),
        ),
    )
    assert solve(problem).objective == pytest.approx(4.0)
    assert lower_bound(problem).value == pytest.approx(4.0, rel=0.15)


@given(seed=st.integers(0, 10_000))
def test_groups_stream_what_their_nodes_do(random_problem: Make, with_levels: WithLevels, seed: int):
    problem = with_levels(random_problem(seed, 8, 2, memory=True), seed)
    coarse = coarsen(problem, 3)
    place = tuple(allowed[seed % len(allowed)] for allowed in coarse.problem.allowed)
    placement = carve(coarse.problem, place).placement
    groups, nodes = simulate(coarse.problem, placement), simulate(problem, coarse.expand(placement))
    assert sum(groups.streamed.seconds.values()) == pytest.approx(sum(nodes.streamed.seconds.values()))


def test_a_problem_file_says_what_is_fast_and_what_is_read():
    data = {
        "schema": 1,
        "devices": [{"name": "d", "fast_bytes": 10, "slow_s_per_byte": 2.0}],
        "nodes": [{"name": "n", "options": {"d": {"seconds": 1}}}],
        "values": [{"name": "y", "size_bytes": 0, "producer": "n", "is_output": True}],
        "weights": [
            {"name": "dense", "size_bytes": 10, "users": ["n"]},
            {"name": "rows", "size_bytes": 5, "users": ["n"], "read": 0.1},
        ],
    }
    found = solve(problem_of(data, Path("p.json")))
    assert found.objective == pytest.approx(1 + 5 * 0.1 * 2)


def test_what_is_streamed_is_explained():
    problem = chain(17, (2, 0, 1))
    solution = solve(problem)
    data = explanation(problem, solution)
    assert (data["devices"][0]["streamed_bytes"], data["devices"][0]["streamed_s"]) == (15, 15.0)
    assert [op["seconds"] for op in data["ops"]] == [1.0, 11.0, 6.0]
    assert [op["streamed_s"] for op in data["ops"]] == [0.0, 10.0, 5.0]
    assert sum(op["joules"] for op in data["ops"]) == pytest.approx(30 + 150)
    (segment,) = data["segments"]
    assert segment["seconds"] == pytest.approx(segment["launch_s"] + 18.0)
    assert segment["joules"] == pytest.approx(30 + 150)
    assert segment["weight_bytes"] == 30
    console = Console(width=200, record=True, file=StringIO())
    print_explanation(data, console)
    text = console.export_text()
    assert "15 B, 15 s a run" in text
    assert "11 s (10 s streaming)" in text
    assert "d streams 15 B of weights in every run, 79% of its time" in recommendation(problem, solution)


def test_one_level_of_memory_is_not_told_of():
    problem = chain(None)
    console = Console(width=200, record=True, file=StringIO())
    print_explanation(explanation(problem, solve(problem)), console)
    assert "streaming" not in console.export_text()
    assert "streams" not in recommendation(problem, solve(problem))


def test_a_card_whose_fast_memory_is_full_draws_no_ops():
    """Twenty layers of which a GPU has room for sixteen, and a card that is quick only in fast memory, two layers'."""
    nodes = tuple(Node(f"n{index}", options={0: Option(1e3), 1: Option(10.0), 2: Option(0.1)}) for index in range(20))
    values = tuple(Value(f"v{index}", 1, index, (index + 1,) if index < 19 else (), index == 19) for index in range(20))
    weights = tuple(Weight(f"w{index}", (index,), {0: 10, 1: 10, 2: 10}, {2: {index: 40.0}}) for index in range(20))
    problem = Problem(
        (DeviceSpec("host"), DeviceSpec("gpu", 160, 1.0), DeviceSpec("card", 1000, 1.0, fast_bytes=20)),
        (Place(0), Place(1), Place(2)),
        nodes,
        (Value("x", 1, None, (0,)), *values),
        {(a, b): Route(0.1, 0.0) for a in range(3) for b in range(3) if a != b},
        weights,
    )
    cuts = memory_cuts(problem)
    assert min(place.count(2) for place in cuts) == 4
    assert min(carve(problem, place).schedule.latency_s for place in cuts) < 16 * 10 + 2 * 40 + 10
