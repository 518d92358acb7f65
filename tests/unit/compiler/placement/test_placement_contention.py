"""Transfers of one request that share a link wait for each other, in the schedule and in the solver."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ortools.sat.python import cp_model

from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.exact.cpsat import Limits, solve_slots
from gimlet.compiler.placement.exact.slot_hint import complete_hint
from gimlet.compiler.placement.exact.slot_model import SlotModel
from gimlet.compiler.placement.model.problem import (
    OBJECTIVES,
    DeviceSpec,
    Node,
    Objective,
    Option,
    Place,
    Placement,
    Problem,
    Route,
    Value,
)
from gimlet.compiler.placement.model.schedule import simulate
from gimlet.compiler.placement.model.segments import carve
from gimlet.compiler.placement.solve import solve

Make = Callable[..., Problem]
Best = Callable[[Problem], float | None]


def on_a_bus(problem: Problem, rate: float = 1.0) -> Problem:
    """The problem with all routes over one link, which takes as long as the quickest of them or less."""
    routes = {
        ends: replace(route, links=(("bus", min(rate, route.seconds_per_byte)),))
        for ends, route in problem.routes.items()
    }
    return replace(problem, routes=routes)


def fan(links: tuple[str, str]) -> Problem:
    """Two inputs of ten bytes for two devices, at a second a byte and half a second, and nothing else to do."""
    rates = (1.0, 0.5)
    routes = {(a, b): Route(0.0, 0.0) for a in range(3) for b in range(3) if a != b}
    for device, link, rate in zip((1, 2), links, rates, strict=True):
        routes[0, device] = Route(3.0, rate, ((link, rate),))
    return Problem(
        tuple(DeviceSpec(name) for name in ("host", "a", "b")),
        (Place(1), Place(2)),
        (Node("left", options={0: Option(1.0)}), Node("right", options={1: Option(1.0)})),
        (
            Value("x", 10, None, (0,)),
            Value("y", 10, None, (1,)),
            Value("p", 0, 0, (), True),
            Value("q", 0, 1, (), True),
        ),
        routes,
    )


def test_links_of_their_own_do_not_wait():
    schedule = simulate(fan(("a", "b")), Placement((0, 1), (0, 1)))
    assert {t.destination: (t.start_s, t.end_s) for t in schedule.transfers if t.source == 0} == {
        1: (0.0, 13.0),
        2: (0.0, 8.0),
    }
    assert schedule.latency_s == 14.0


def test_on_one_link_the_second_leaves_when_the_first_is_through():
    schedule = simulate(fan(("bus", "bus")), Placement((0, 1), (0, 1)))
    assert {t.destination: (t.start_s, t.end_s) for t in schedule.transfers if t.source == 0} == {
        1: (0.0, 13.0),
        2: (10.0, 18.0),
    }
    assert schedule.latency_s == 19.0
    assert schedule.link_busy_s == {"bus": 15.0}


def test_a_batch_waits_for_all_links_of_its_way():
    problem = fan(("bus", "b"))
    routes = {**problem.routes, (0, 2): Route(3.0, 1.5, (("b", 0.5), ("bus", 1.0)))}
    schedule = simulate(replace(problem, routes=routes), Placement((0, 1), (0, 1)))
    assert [t.start_s for t in schedule.transfers if t.destination == 2] == [10.0]


def chain() -> Problem:
    """Two nodes in a row on one device: the first reads `x`, the second `y`, and both `z`. Each has ten bytes."""
    routes = {(a, b): Route(1.0, 0.5, ((f"{a}{b}", 0.5),)) for a, b in ((0, 1), (1, 0))}
    return Problem(
        (DeviceSpec("host"), DeviceSpec("a")),
        (Place(1),),
        (Node("first", options={0: Option(2.0)}), Node("second", options={0: Option(2.0)})),
        (
            Value("y", 10, None, (1,)),
            Value("x", 10, None, (0,)),
            Value("z", 10, None, (0, 1)),
            Value("v", 0, 0, (1,)),
            Value("w", 0, 1, (), True),
        ),
        routes,
    )


def test_what_another_device_waits_for_goes_before_the_outputs():
    routes = {(a, b): Route(0.0, 1.0, ((f"{a}>", 1.0),)) for a in range(3) for b in range(3) if a != b}
    problem = Problem(
        tuple(DeviceSpec(name) for name in ("host", "a", "b")),
        (Place(1), Place(2)),
        (Node("first", options={0: Option(1.0)}), Node("second", options={1: Option(1.0)})),
        (Value("cache", 10, 0, (), True), Value("v", 2, 0, (1,)), Value("w", 0, 1, (), True)),
        routes,
    )
    schedule = simulate(problem, Placement((0, 1), (0, 1)))
    sent = {problem.values[t.value].name: (t.start_s, t.end_s) for t in schedule.transfers}
    assert sent == {"v": (1.0, 3.0), "cache": (3.0, 13.0), "w": (4.0, 4.0)}


def test_a_segment_waits_for_the_inputs_that_it_reads_and_not_for_later_ones():
    schedule = simulate(chain(), Placement((0, 0), (0, 1)))
    sent = {chain().values[t.value].name: (t.start_s, t.end_s) for t in schedule.transfers if t.source == 0}
    assert sent == {"x": (0.0, 11.0), "z": (0.0, 11.0), "y": (10.0, 16.0)}
    assert [(launch.start_s, launch.end_s) for launch in schedule.launches] == [(11.0, 13.0), (16.0, 18.0)]
    assert simulate(chain(), Placement((0, 0), (0, 0))).launches[0].start_s == 16.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), objective=st.sampled_from(OBJECTIVES))
def test_the_answer_is_the_best_there_is(random_problem: Make, best_by_trying: Best, seed: int, objective: Objective):
    problem = on_a_bus(random_problem(seed, 3, 2, objective))
    best = best_by_trying(problem)
    assert best is not None
    assert solve(problem).objective == pytest.approx(best, rel=1e-4)
    assert lower_bound(problem).value <= best * (1 + 1e-6) + 1e-9


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), devices=st.sampled_from([2, 3]))
def test_the_solvers_objective_is_the_schedules(random_problem: Make, seed: int, devices: int):
    problem = on_a_bus(random_problem(seed, 4, devices))
    scale = sum(max(option.seconds for option in node.options.values()) for node in problem.nodes) + 100.0
    answer = solve_slots(problem, None, dict.fromkeys(OBJECTIVES, scale), 0.0, 2, Limits(work=2.0))
    assert answer.placement is not None
    assert answer.status == "optimal"
    assert simulate(problem, answer.placement).latency_s == pytest.approx(answer.objective, rel=1e-4)


@given(seed=st.integers(0, 10_000), quicker=st.sampled_from([0.25, 0.9, 1.0]))
def test_more_bandwidth_makes_no_placement_worse(random_problem: Make, seed: int, quicker: float):
    problem = on_a_bus(random_problem(seed, 7, 3))
    routes = {
        ends: replace(
            route,
            seconds_per_byte=route.seconds_per_byte * quicker,
            links=tuple((link, s * quicker) for link, s in route.links),
        )
        for ends, route in problem.routes.items()
    }
    place = tuple(allowed[seed % len(allowed)] for allowed in problem.allowed)
    placement = carve(problem, place).placement
    better = simulate(replace(problem, routes=routes), placement)
    assert better.latency_s <= simulate(problem, placement).latency_s + 1e-9


@given(seed=st.integers(0, 10_000))
def test_nothing_is_busy_for_longer_than_a_request(random_problem: Make, seed: int):
    problem = on_a_bus(random_problem(seed, 7, 3))
    place = tuple(allowed[seed % len(allowed)] for allowed in problem.allowed)
    schedule = carve(problem, place).schedule
    assert schedule.period_s <= schedule.latency_s + 1e-9


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_solver_starts_from_a_whole_solution(
    random_problem: Make, with_levels: Callable[[Problem, int], Problem], seed: int
):
    problem = with_levels(on_a_bus(random_problem(seed, 6, 3, memory=True)), seed)
    problem = replace(problem, devices=tuple(replace(spec, memory_bytes=None) for spec in problem.devices))
    placement = carve(problem, tuple(allowed[seed % len(allowed)] for allowed in problem.allowed)).placement
    slots = SlotModel(problem, 4, placement, dict.fromkeys(OBJECTIVES, 100.0))
    latency, period = slots.add_latency(0.0), slots.add_period()
    hints = list(complete_hint(slots, placement))
    assert len(hints) == len(slots.model.proto.variables)
    for variable, value in hints:
        slots.model.add(variable == value)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.solve(slots.model) == cp_model.OPTIMAL
    schedule = simulate(problem, placement)
    assert solver.value(latency) * slots.tick == pytest.approx(schedule.latency_s, rel=1e-4)
    assert solver.value(period) * slots.period_tick == pytest.approx(schedule.period_s, rel=1e-4)
