"""Annealing by a schedule: the figures that moves are judged by are its own, limits are kept, nothing gets worse."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement import solve as solving
from gimlet.compiler.placement.exact.cpsat import Limits
from gimlet.compiler.placement.model.problem import (
    OBJECTIVES,
    DeviceSpec,
    Node,
    Objective,
    Option,
    Place,
    Problem,
    Route,
    Rules,
    Value,
)
from gimlet.compiler.placement.model.schedule import flops_of
from gimlet.compiler.placement.model.segments import Found, carve, judge
from gimlet.compiler.placement.model.streaming import streamed_by
from gimlet.compiler.placement.search.residency import Residency
from gimlet.compiler.placement.search.timeline import Timeline, annealed_schedule

Make = Callable[..., Problem]
Levels = Callable[[Problem, int], Problem]
SEEDS = st.integers(min_value=0, max_value=10_000)


def started(problem: Problem, seed: int) -> Found:
    return carve(problem, [allowed[(seed + n) % len(allowed)] for n, allowed in enumerate(problem.allowed)])


def cache(layers: int) -> Problem:
    """A host that takes nothing, and two devices on links of their own: layers with a cache of 10 s each way."""
    routes = {(a, b): Route(0.0, 1.0, ((f"{a}{b}", 1.0),)) for a in range(3) for b in range(3) if a != b}
    values = [Value(f"v{layer}", 0, layer, (layer + 1,)) for layer in range(layers - 1)]
    values += [Value(f"past{layer}", 10, None, (layer,)) for layer in range(layers)]
    values += [Value(f"present{layer}", 10, layer, (), True) for layer in range(layers)]
    return Problem(
        (DeviceSpec("host"), DeviceSpec("d0", segment_overhead_s=5.0), DeviceSpec("d1", segment_overhead_s=5.0)),
        (Place(1), Place(2)),
        tuple(Node(f"n{layer}", options={0: Option(1.0), 1: Option(1.0)}, flops=1.0) for layer in range(layers)),
        tuple(values),
        routes,
    )


@settings(max_examples=15)
@given(seed=SEEDS, memory=st.booleans())
def test_moves_are_judged_by_the_figures_of_the_schedule(
    random_problem: Make, with_levels: Levels, seed: int, memory: bool
):
    problem = random_problem(seed, nodes=8, devices=3, memory=memory)
    problem = with_levels(problem, seed) if memory else problem
    timeline = Timeline(problem, started(problem, seed).placement, Random(seed))
    # So hot that nearly every move is made: where it ends is far from where it began.
    timeline.anneal(60, float("inf"), 10.0)
    for _ in range(20):
        timeline._step(10.0)  # pyright: ignore[reportPrivateUsage]
        found = judge(problem, timeline.placement())
        for figure, amount in timeline.now.items():
            assert amount == pytest.approx(found.schedule.figure(figure), rel=1e-9), figure


@settings(max_examples=25)
@given(seed=SEEDS, memory=st.booleans(), objective=st.sampled_from(OBJECTIVES), bounded=st.sampled_from(OBJECTIVES))
def test_it_never_gets_worse_and_keeps_limits(
    random_problem: Make, with_levels: Levels, seed: int, memory: bool, objective: Objective, bounded: Objective
):
    problem = random_problem(seed, nodes=8, devices=3, memory=memory)
    problem = with_levels(problem, seed) if memory else problem
    start = started(problem, seed)
    bounds = {bounded: start.schedule.figure(bounded) * 1.1} if bounded != objective else {}
    problem = problem.with_rules(Rules(objective, bounds=bounds, max_segments=len(start.schedule.launches)))
    start = judge(problem, start.placement)
    found = annealed_schedule(problem, start, seed, steps=200)
    timeline = Timeline(problem, start.placement, Random(seed))
    last = judge(problem, timeline.anneal(100, float("inf"), 1.0))
    assert (found.excess, found.schedule.figure(objective)) <= (
        start.excess,
        start.schedule.figure(objective) * (1 + 1e-9),
    )
    assert last.excess <= start.excess


def test_a_cache_is_spread_over_devices_and_segments():
    problem = cache(6)
    start = carve(problem, (0,) * 6)
    halves = judge(problem, replace(start.placement, place=(0, 0, 0, 1, 1, 1), segment=(0, 0, 0, 1, 1, 1)))
    found = annealed_schedule(problem, start, 0, steps=1500)
    assert found.schedule.latency_s < 0.9 * halves.schedule.latency_s < start.schedule.latency_s


def test_shares_are_kept():
    problem = cache(6).with_rules(Rules(min_share={1: 0.3, 2: 0.3}))
    start = carve(problem, (0, 0, 0, 0, 1, 1))
    found = annealed_schedule(problem, start, 0, steps=2000)
    assert found.schedule.latency_s < start.schedule.latency_s
    assert all(flops_of(problem, found.placement.place, device) >= 1.8 for device in (1, 2))


def test_a_period_is_lowered_as_far_as_a_latency_allows():
    problem = cache(6)
    start = carve(problem, (0,) * 6)
    for slack, expected in ((1.0, 1.0), (1.3, 0.75)):
        bounds = {"latency": slack * start.schedule.latency_s}
        limited = problem.with_rules(Rules("throughput", bounds=bounds))
        found = annealed_schedule(limited, judge(limited, start.placement), 0, steps=1500)
        assert not found.excess
        assert found.schedule.period_s <= expected * start.schedule.period_s


def test_a_start_that_breaks_rules_is_led_back():
    problem = cache(6)
    start = carve(problem, (0, 1, 0, 1, 0, 1))
    best = annealed_schedule(problem, start, 0, steps=1500)
    limits = Rules("throughput", bounds={"latency": best.schedule.latency_s * 1.1}, max_segments=5, min_share={1: 0.3})
    limited = problem.with_rules(limits)
    assert judge(limited, start.placement).excess
    assert not annealed_schedule(limited, judge(limited, start.placement), 0, steps=1500).excess


def test_a_solve_with_a_time_limit_ends_with_it(monkeypatch: pytest.MonkeyPatch):
    problem, asked = cache(6), list[float]()

    def recorded(problem: Problem, start: Found, seed: int, steps: int, seconds: float) -> Found:
        asked.append(seconds)
        return start

    monkeypatch.setattr(solving, "annealed_schedule", recorded)
    monkeypatch.setattr(solving, "GAP", -1.0)
    solving.solve(problem, Limits(seconds=1.0), group_limit=3)
    solving.solve(problem, group_limit=3)
    assert len(asked) == 1


@settings(max_examples=15)
@given(seed=SEEDS, moves=st.integers(0, 6))
def test_what_nodes_stream_is_kept_up_to_date(random_problem: Make, with_levels: Levels, seed: int, moves: int):
    problem = with_levels(random_problem(seed, nodes=8, devices=3, memory=True), seed)
    random, place = Random(seed), list(started(problem, seed).placement.place)
    residency = Residency(problem, place)
    for _ in range(moves):
        node = random.randrange(8)
        goal = random.choice(problem.allowed[node])
        residency.move(node, place[node], goal)
        place[node] = goal
    expected = {node: seconds for node, seconds in streamed_by(problem, place).seconds.items() if seconds}
    assert {n: s for n, s in residency.streamed(place).items() if s} == pytest.approx(expected)


def test_a_segment_is_cut_on_its_own_device_so_that_its_caches_overlap():
    """At once 40 s for caches that come, 9 s and 40 s for those that go; layer by layer 40 s, 6 s and 10 s."""
    problem = cache(4).with_rules(Rules("latency", pins={n: frozenset({0}) for n in range(4)}))
    start = carve(problem, (0,) * 4)
    assert start.schedule.latency_s == pytest.approx(89.0)
    assert annealed_schedule(problem, start, seed=0, steps=400).schedule.latency_s == pytest.approx(56.0)
