"""Bounds on latency from what each device can hold: never above a placement, and whole where others are in parts."""

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.holding_bound import holding_bound
from gimlet.compiler.placement.bounds.holdings import Holdings, Resource
from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.bounds.memory_blocks import memory_blocks
from gimlet.compiler.placement.bounds.spine import Spine, heaviest_path
from gimlet.compiler.placement.model.problem import (
    DeviceSpec,
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
from gimlet.compiler.placement.model.schedule import memory_of, simulate
from gimlet.compiler.placement.model.segments import carve, judge

Make = Callable[..., Problem]


def with_twins(problem: Problem) -> Problem:
    """The problem with every device but the host twice, each as far from everything as the other."""
    count = len(problem.devices)
    origin = [*range(count), *range(1, count)]

    def twice(amounts: dict[int, Any]) -> dict[int, Any]:
        return {place: amounts[own] for place, own in enumerate(origin) if own in amounts}

    routes = {
        (left, right): Route(1.0, 0.5)
        if origin[left] == origin[right]
        else replace(problem.routes[origin[left], origin[right]], links=())
        for left, right in itertools.permutations(range(len(origin)), 2)
    }
    return Problem(
        tuple(problem.devices[own] for own in origin),
        tuple(Place(device) for device in range(len(origin))),
        tuple(replace(node, options=twice(dict(node.options))) for node in problem.nodes),
        problem.values,
        routes,
        tuple(replace(weight, size_bytes=twice(dict(weight.size_bytes))) for weight in problem.weights),
        tuple(replace(f, seconds=twice(dict(f.seconds)), joules=twice(dict(f.joules))) for f in problem.fusions),
    )


@settings(max_examples=10)
@given(
    seed=st.integers(0, 10**6),
    nodes=st.sampled_from([3, 5, 8, 12]),
    alike=st.booleans(),
    limited=st.sampled_from(["memory", "period", "both"]),
)
def test_no_placement_that_just_keeps_its_limits_is_below_the_bound(
    random_problem: Make, seed: int, nodes: int, alike: bool, limited: str
):
    draw = random.Random(seed)
    problem = random_problem(seed, nodes, draw.choice([2, 3]), memory=True)
    problem = with_twins(problem) if alike else problem
    free = replace(problem, devices=tuple(replace(spec, memory_bytes=None) for spec in problem.devices))
    found = min(
        (carve(free, tuple(draw.choice(allowed) for allowed in free.allowed)) for _ in range(draw.choice([1, 40]))),
        key=lambda each: each.schedule.latency_s,
    )
    if limited != "period":
        taken = memory_of(free, found.placement.place)
        # Devices that are alike have as much as the fullest of them.
        kinds = [replace(spec, name="") for spec in free.devices]
        rooms = [max(taken.get(d, 0) for d, other in enumerate(kinds) if other == kind) for kind in kinds]
        devices = tuple(replace(s, memory_bytes=int(room)) for s, room in zip(free.devices, rooms, strict=True))
        free = replace(free, devices=devices)
    pinned = draw.randrange(nodes)
    pins = {pinned: frozenset({found.placement.place[pinned]})} if draw.random() < 0.3 else {}
    bounds: dict[Objective, float] = {"throughput": found.schedule.period_s} if limited != "memory" else {}
    problem = free.with_rules(Rules("latency", bounds, pins))
    again = judge(problem, found.placement)
    assert not again.excess
    assert holding_bound(problem) <= again.schedule.latency_s * (1 + 1e-9)


@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), limit=st.sampled_from([None, 1.0, 1.3]))
def test_no_placement_of_any_segments_is_below_the_bound(
    random_problem: Make, best_by_trying: Callable[[Problem], float | None], seed: int, limit: float | None
):
    problem = random_problem(seed, 3, 2, memory=True)
    if limit is not None:
        period_s = min(carve(problem, places).schedule.period_s for places in itertools.product(*problem.allowed))
        problem = problem.with_rules(Rules("latency", {"throughput": limit * period_s}))
    best = best_by_trying(problem)
    assert best is None or holding_bound(problem) <= best * (1 + 1e-9)


def line(sizes: list[int], cards: int, memory_bytes: int | None) -> Problem:
    """Ops in a row: 9 s each on the host, 1 s on cards of so much memory, where a launch takes 2 s and data 1 s."""
    devices = (DeviceSpec("host"), *(DeviceSpec(f"card{n}", memory_bytes, 2.0) for n in range(cards)))
    places = range(len(devices))
    options = {place: Option(1.0 if place else 9.0) for place in places}
    last = len(sizes) - 1
    values = [Value(f"v{n}", 0, n, (n + 1,) if n < last else (), n == last) for n in range(len(sizes))]
    return Problem(
        devices,
        tuple(Place(device) for device in places),
        tuple(Node(f"n{n}", options=options) for n in range(len(sizes))),
        (Value("x", 0, None, (0,)), *values),
        {pair: Route(1.0, 0.0) for pair in itertools.permutations(places, 2)},
        tuple(Weight(f"w{n}", (n,), {place: size for place in places if place}) for n, size in enumerate(sizes)),
    )


def test_ops_are_whole_and_each_memory_is_its_own():
    # Two cards of 5 bytes have room for 3 bytes each, which is one op: in parts they would have more than three.
    problem = line([3, 3, 3, 3], 2, 5)
    best = min(
        carve(problem, places).schedule.latency_s
        for places in itertools.product(*problem.allowed)
        if not carve(problem, places).excess
    )
    assert best == 27.0
    assert 26.4 < holding_bound(problem) <= best
    assert memory_blocks(problem).seconds < 22


def test_a_period_limits_what_a_card_does():
    # A card is busy for 2 s and 1 s an op: with two ops each within 4 s, the host has none of six.
    problem = line([0] * 6, 3, None).with_rules(Rules("latency", {"throughput": 4.0}))
    placement = Placement((1, 1, 2, 2, 3, 3), (0, 0, 1, 1, 2, 2))
    assert simulate(problem, placement).latency_s == 16.0
    assert lower_bound(problem).value == pytest.approx(16.0, rel=1e-3)
    assert holding_bound(problem.with_rules(Rules("latency"))) == 0.0


def test_it_ends_where_no_placement_is_better():
    problem = line([3, 3, 3, 3], 2, 5)
    assert holding_bound(problem, best_known=7.0) == pytest.approx(7.0, rel=1e-3)
    assert holding_bound(problem, until=0.0) <= 27.0


def test_nodes_beside_the_path_take_memory_and_no_time():
    problem = line([1, 1, 1], 1, 2)
    nodes = (*problem.nodes, Node("aside", options={1: Option(0.5)}))
    values = tuple(replace(v, consumers=(1, 3)) if v.name == "v0" else v for v in problem.values)
    values = (*values, Value("side", 0, 3, (), is_output=True))
    problem = replace(problem, nodes=nodes, values=values, weights=(*problem.weights, Weight("w3", (3,), {1: 2})))
    spine = Spine(problem, heaviest_path(problem))
    amounts = np.zeros((4, 2))
    for weight in problem.weights:
        amounts[weight.users[0], 1] = weight.size_bytes[1] / 2
    card = Holdings(problem, spine, 1, Resource(amounts, np.zeros(2)))
    worth, held = card.most(np.array([9.0, 9.0, 9.0, 1.0]))
    assert (worth, held.nodes, held.seconds) == (13.0, frozenset({0, 1}), 5.0)
    worth, held = card.most(np.array([9.0, 9.0, 9.0, 50.0]))
    assert (worth, held.nodes, held.seconds) == (50.0, frozenset({3}), 0.0)
