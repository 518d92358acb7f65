"""The solver against every placement there is, and what must hold for any problem."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.latency_bound import LatencyRelaxation
from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.bounds.share_path import share_path
from gimlet.compiler.placement.exact import cpsat
from gimlet.compiler.placement.exact.cpsat import Limits, solve_slots
from gimlet.compiler.placement.model.problem import OBJECTIVES, Objective, Place, Placement, Problem, Rules
from gimlet.compiler.placement.model.schedule import memory_of, simulate, violations
from gimlet.compiler.placement.model.segments import carve
from gimlet.compiler.placement.search.coarsen import identity
from gimlet.compiler.placement.search.heuristics import best_of, climb, fastest_places, refine, single_places
from gimlet.compiler.placement.search.stages import stage_cuts
from gimlet.compiler.placement.solve import Solution, solve, status_of
from gimlet.runtime.errors import InfeasibleError

Make = Callable[..., Problem]
SEEDS = st.integers(0, 10**6)


def solved(problem: Problem) -> Solution | None:
    """None where none is found. Why takes longer than the search, and is asked in test_placement_conflict.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gimlet.compiler.placement.solve.conflict_of", lambda _: None)
        try:
            return solve(problem)
        except InfeasibleError:
            return None


@settings(max_examples=40)
@given(seed=SEEDS, objective=st.sampled_from(OBJECTIVES), devices=st.sampled_from([2, 3]), memory=st.booleans())
def test_the_optimum_is_found_and_bounds_hold(
    random_problem: Make,
    best_by_trying: Callable[[Problem], float | None],
    seed: int,
    objective: Objective,
    devices: int,
    memory: bool,
):
    problem = random_problem(seed, nodes=3, devices=devices, objective=objective, memory=memory)
    best = best_by_trying(problem)
    if best is None:
        with pytest.raises(InfeasibleError):
            solve(problem)
        return
    found = solve(problem)
    assert found.objective == pytest.approx(best, rel=2e-4, abs=1e-9)
    assert lower_bound(problem).value <= best * (1 + 1e-6)
    assert found.status == "optimal"
    assert found.group_bound is None or found.group_bound <= best * (1 + 2e-4)
    assert found.bound <= min(best * (1 + 2e-4), found.objective)


@settings(max_examples=40)
@given(
    seed=SEEDS, objective=st.sampled_from(OBJECTIVES), rule=st.sampled_from(["together", "apart", "segments", "bound"])
)
def test_the_optimum_under_each_rule(
    random_problem: Make,
    best_by_trying: Callable[[Problem], float | None],
    seed: int,
    objective: Objective,
    rule: str,
):
    problem = random_problem(seed, nodes=3, devices=2, objective=objective)
    other = OBJECTIVES[(OBJECTIVES.index(objective) + 1 + seed % 3) % 4]
    free = solve(problem.with_rules(replace(problem.rules, objective=other)))
    changes: dict[str, Any] = {
        "together": {"together": ((0, 2),)},
        "apart": {"apart": (((0,), (1, 2)),)},
        "segments": {"max_segments": 1 + seed % 2},
        "bound": {"bounds": {other: 1.1 * free.objective}},
    }
    problem = problem.with_rules(replace(problem.rules, **changes[rule]))
    best = best_by_trying(problem)
    if best is None:
        with pytest.raises(InfeasibleError):
            solve(problem)
        return
    found = solve(problem)
    assert not violations(problem, found.placement, found.schedule)
    assert found.objective == pytest.approx(best, rel=2e-4, abs=1e-9)
    assert found.bound <= best * (1 + 1e-6)


@settings(max_examples=25)
@given(seed=SEEDS, objective=st.sampled_from(OBJECTIVES), shares=st.sampled_from([(0.2, 0.2), (0.4, 0.4), (0.4, 0.2)]))
@example(seed=55699, objective="latency", shares=(0.4, 0.4))
@example(seed=632890283, objective="energy", shares=(0.4, 0.2))
def test_shares_are_kept_at_least_cost(
    random_problem: Make,
    best_by_trying: Callable[[Problem], float | None],
    seed: int,
    objective: Objective,
    shares: tuple[float, float],
):
    problem = random_problem(seed, nodes=4, devices=2, objective=objective)
    problem = problem.with_rules(Rules(objective, min_share=dict(enumerate(shares))))
    best = best_by_trying(problem)
    if best is None:
        with pytest.raises(InfeasibleError):
            solve(problem)
        return
    found = solve(problem)
    assert found.objective == pytest.approx(best, rel=2e-4, abs=1e-9)
    assert found.bound <= best * (1 + 2e-4)
    assert lower_bound(problem, best).value <= best * (1 + 1e-6)


@settings(max_examples=20)
@given(seed=SEEDS, objective=st.sampled_from(OBJECTIVES), memory=st.booleans())
def test_the_objective_is_that_of_the_schedule(random_problem: Make, seed: int, objective: Objective, memory: bool):
    """What CP-SAT says is what the simulation says, and no rule is broken."""
    problem = random_problem(seed, nodes=6, devices=3, objective=objective, memory=memory)
    coarse = identity(problem)
    start = best_of(problem, single_places(problem))
    if start.excess:
        return
    scales = dict.fromkeys(OBJECTIVES, 1.0) | {o: start.schedule.figure(o) or 1.0 for o in OBJECTIVES}
    answer = solve_slots(coarse.problem, start.placement, scales, 0.0, 4, Limits(work=1.0))
    assert answer.placement is not None
    schedule = simulate(problem, answer.placement)
    assert answer.objective == pytest.approx(schedule.figure(objective), rel=5e-5, abs=1e-6)
    assert violations(problem, answer.placement, schedule) == []
    assert answer.objective <= start.schedule.figure(objective) * (1 + 1e-5)


@settings(max_examples=25)
@given(seed=SEEDS, factor=st.sampled_from([0.1, 0.5]))
def test_more_bandwidth_is_never_worse(random_problem: Make, seed: int, factor: float):
    problem = random_problem(seed, nodes=5, devices=3)
    faster = replace(
        problem,
        routes={ends: replace(r, seconds_per_byte=factor * r.seconds_per_byte) for ends, r in problem.routes.items()},
    )
    assert solve(faster).objective <= solve(problem).objective * (1 + 2e-4)


@settings(max_examples=25)
@given(seed=SEEDS)
def test_more_memory_is_never_worse(random_problem: Make, seed: int):
    problem = random_problem(seed, nodes=5, devices=2, memory=True)
    roomy = replace(problem, devices=tuple(replace(d, memory_bytes=None) for d in problem.devices))
    found = solved(problem)
    tight = float("inf") if found is None else found.objective
    assert solve(roomy).objective <= tight * (1 + 2e-4)


@settings(max_examples=25)
@given(seed=SEEDS, objective=st.sampled_from(["latency", "throughput"]))
def test_one_more_device_is_never_worse(random_problem: Make, seed: int, objective: Objective):
    """The same problem with a copy of its last device."""
    problem = random_problem(seed, nodes=5, devices=2, objective=objective)
    routes = dict(problem.routes) | {(0, 2): problem.routes[0, 1], (2, 0): problem.routes[1, 0]}
    routes |= {(1, 2): problem.routes[0, 1], (2, 1): problem.routes[1, 0]}
    nodes = tuple(
        replace(node, options={**node.options, **({2: node.options[1]} if 1 in node.options else {})})
        for node in problem.nodes
    )
    more = replace(
        problem,
        devices=(*problem.devices, replace(problem.devices[1], name="d2")),
        places=(*problem.places, Place(2)),
        nodes=nodes,
        routes=routes,
        fusions=(),
    )
    assert solve(more).objective <= solve(replace(problem, fusions=())).objective * (1 + 2e-4)


@settings(max_examples=25)
@given(seed=SEEDS)
def test_a_placement_never_exceeds_memory(random_problem: Make, seed: int):
    problem = random_problem(seed, nodes=5, devices=3, memory=True)
    found = solved(problem)
    if found is None:
        return
    for device, used in memory_of(problem, found.placement.place).items():
        capacity = problem.devices[device].memory_bytes
        assert capacity is None or used <= capacity


def with_large_sizes(problem: Problem, factor: int) -> Problem:
    """The same problem with all that is kept in memory, and all memory, so many times as large."""
    nodes = tuple(
        replace(
            node,
            options={
                place: replace(option, activation_bytes=factor * option.activation_bytes)
                for place, option in node.options.items()
            },
        )
        for node in problem.nodes
    )
    weights = tuple(
        replace(weight, size_bytes={place: factor * size for place, size in weight.size_bytes.items()})
        for weight in problem.weights
    )
    devices = tuple(
        replace(device, memory_bytes=None if device.memory_bytes is None else factor * device.memory_bytes)
        for device in problem.devices
    )
    return replace(problem, nodes=nodes, weights=weights, devices=devices)


@settings(max_examples=25)
@given(seed=SEEDS)
@example(seed=1766)
def test_memory_that_is_just_enough_is_enough(
    random_problem: Make, best_by_trying: Callable[[Problem], float | None], seed: int
):
    """Sizes are rounded in CP-SAT's model where memory is large; nothing is lost by that."""
    problem = random_problem(seed, nodes=3, devices=2, memory=True)
    best = best_by_trying(problem)
    large = with_large_sizes(problem, 100_003)
    if best is None:
        with pytest.raises(InfeasibleError):
            solve(large)
        return
    found = solve(large)
    assert found.objective == pytest.approx(best, rel=2e-4, abs=1e-9)
    assert found.bound <= best * (1 + 2e-4)


def test_the_same_seed_gives_the_same_answer(random_problem: Make):
    problem = random_problem(11, nodes=14, devices=3)
    first, second = (solve(problem, Limits(work=0.2)) for _ in range(2))
    assert first.placement == second.placement
    assert first.bound == second.bound


def test_a_bound_on_another_figure_is_kept(random_problem: Make):
    problem = random_problem(7, nodes=6, devices=3, objective="latency")
    fast = solve(problem)
    assert fast.schedule.cost_usd is not None
    cheap = solve(problem.with_rules(Rules("cost")))
    limit = 0.5 * (fast.schedule.cost_usd + cheap.objective)
    both = solve(problem.with_rules(Rules("latency", bounds={"cost": limit})))
    assert both.schedule.cost_usd is not None
    assert both.schedule.cost_usd <= limit * (1 + 1e-9)
    assert fast.objective <= both.objective * (1 + 2e-4)


def test_a_cap_on_segments_is_kept(random_problem: Make):
    problem = random_problem(5, nodes=8, devices=2)
    free = solve(problem)
    capped = solve(problem.with_rules(Rules(max_segments=2)))
    assert len(capped.schedule.launches) <= 2
    assert free.objective <= capped.objective * (1 + 2e-4)


def test_nothing_to_place_is_no_problem(random_problem: Make):
    problem = replace(random_problem(1, nodes=1), nodes=(), values=(), fusions=(), weights=())
    assert solve(problem).objective == 0.0


def test_both_searches_together_keep_the_time_limit(random_problem: Make, monkeypatch: pytest.MonkeyPatch):
    problem = random_problem(1, 3, 2)
    problem = problem.with_rules(replace(problem.rules, bounds={"energy": 1e-9}))
    readings, given_s = iter([0.0, 7.0]), list[float | None]()

    def search(*arguments: Any, loose: bool) -> cpsat.Answer:
        given_s.append(arguments[-1].seconds)
        place = tuple(allowed[0] for allowed in problem.allowed)
        return cpsat.Answer(Placement(place, (0, 1, 2)), 1.0, 0.5, "feasible", 2)

    monkeypatch.setattr(cpsat, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    monkeypatch.setattr(cpsat, "_solve", search)
    cpsat.solve_slots(problem, None, dict.fromkeys(OBJECTIVES, 1.0), 0.0, 1, Limits(seconds=10.0))
    assert given_s == [10.0, 3.0]


@given(seed=SEEDS)
def test_searches_that_have_no_time_end_with_what_they_were_given(random_problem: Make, seed: int):
    problem = random_problem(seed, nodes=8, devices=3)
    start = carve(problem, fastest_places(problem))
    assert stage_cuts(problem, until=0.0) == []
    assert climb(problem, start, until=0.0).placement.place == start.placement.place
    assert refine(problem, start, until=0.0) == start
    relaxation = LatencyRelaxation(problem.with_rules(Rules(min_share={0: 0.1})), until=0.0)
    assert share_path(relaxation, 0) is None


@given(seed=SEEDS, objective=st.sampled_from(OBJECTIVES))
def test_a_bound_that_has_no_time_is_no_higher(random_problem: Make, seed: int, objective: Objective):
    problem = random_problem(seed, nodes=8, devices=3, objective=objective, memory=True)
    if best_of(problem, single_places(problem)).excess:
        return
    full = lower_bound(problem).value
    assert 0 <= lower_bound(problem, until=0.0).value <= full * (1 + 1e-6)


@pytest.mark.parametrize(
    ("bound", "group_bound", "status"),
    [
        (10.0, 0.0, "optimal"),
        (9.9999, 9.0, "optimal"),
        (8.0, 10.0, "optimal-for-groups"),
        (8.0, 9.999, "optimal-for-groups"),
        (8.0, 9.5, "feasible"),
        (8.0, 10.1, "feasible"),
    ],
)
def test_a_status_says_no_more_than_was_proven(bound: float, group_bound: float, status: str):
    """Of a placement of 10: one that is better than the best of groups was not proven for groups."""
    assert status_of(10.0, bound, group_bound) == status
