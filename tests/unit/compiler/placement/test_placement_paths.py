"""What a path through the graph takes, for CP-SAT: below every placement, and close to the best of a chain."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.exact.paths import has_paths, solve_paths
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
    Rules,
    Value,
    Weight,
)
from gimlet.compiler.placement.model.segments import Found, carve, judge
from gimlet.compiler.placement.search.fleet_search import fleet_search
from gimlet.compiler.placement.search.heuristics import fastest_places

Make = Callable[..., Problem]
Limit = Callable[..., tuple[list[Found], dict[Objective, float]]]


def every(problem: Problem) -> Iterator[Found]:
    """Every choice of places that keeps all limits: in long segments, and in runs of the nodes' order, cut anywhere."""
    count = len(problem.nodes)
    for place in itertools.product(*problem.allowed):
        yield carve(problem, place)
        for cuts in itertools.product((0, 1), repeat=count - 1):
            segment = [0]
            for node in range(1, count):
                segment.append(segment[-1] + (cuts[node - 1] or place[node] != place[node - 1]))
            yield judge(problem, Placement(place, tuple(segment)))


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    objective=st.sampled_from(OBJECTIVES),
    limited=st.sets(st.sampled_from(OBJECTIVES), max_size=2),
    part=st.sampled_from((0, 8, 3)),
    start=st.integers(0, 10**6),
    levels=st.booleans(),
)
def test_no_placement_is_below_the_bound(
    random_problem: Make,
    with_levels: Callable[[Problem, int], Problem],
    limited_to: Limit,
    seed: int,
    objective: Objective,
    limited: set[Objective],
    part: int,
    start: int,
    levels: bool,
):
    problem = random_problem(seed, 4, 2, objective, memory=True)
    problem = with_levels(problem, seed) if levels else problem
    found = list(every(problem))
    kept = [one for one in found if not one.excess]
    if not kept:
        return
    kept, bounds = limited_to(kept, sorted(limited - {objective}), part)
    least = min(one.schedule.figure(objective) for one in kept)
    asked = problem.with_rules(replace(problem.rules, bounds=bounds))
    if not has_paths(asked):
        return
    first = judge(asked, found[start % len(found)].placement)
    best, bound, floors = solve_paths(asked, first, 0.0, float("inf"), 0.5)
    assert bound <= least * (1 + 1e-7)
    assert best.rank(objective) <= first.rank(objective)
    known = float("inf") if best.excess else best.schedule.figure(objective)
    assert lower_bound(asked, known, floors=floors).value <= least * (1 + 1e-7)


def skipped(size: int, room: int | None = None, launch_s: float = 5.0) -> Problem:
    """A chain of five ops whose first value the fourth reads too, on a slow host and quick devices that are alike."""
    devices = (
        DeviceSpec("host", usd_per_hour=3600.0, idle_w=1.0, load_w=1.0),
        *(DeviceSpec(f"d{n}", room, launch_s, 1.0, 20.0, 3600.0) for n in range(2)),
    )
    places = range(len(devices))
    options = {place: Option(1.0, 20.0) if place else Option(50.0, 10.0) for place in places}
    nodes = tuple(Node(f"n{n}", "Op", options) for n in range(5))
    values = [Value("x", 0, None, (0,))]
    values += [Value(f"v{n}", size, n, (n + 1, 3) if n == 0 else ((n + 1,) if n < 4 else ()), n == 4) for n in range(5)]
    routes = {
        (a, b): Route(0.5, 1.0, (*([(f"{a}>", 1.0)] if a else []), *([(f"{b}<", 1.0)] if b else [])))
        for a in places
        for b in places
        if a != b
    }
    weights = tuple(Weight(f"w{n}", (n,), dict.fromkeys(places, 1)) for n in range(5))
    return Problem(devices, tuple(Place(n) for n in places), nodes, tuple(values), routes, weights)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_least_of_a_chain_is_found_and_proven(objective: Objective):
    """The devices have room for three ops each; two values leave the first one together after the second or third."""
    asked = skipped(4, room=3).with_rules(Rules(objective))
    start = carve(asked, (0,) * 5)
    least = min(one.schedule.figure(objective) for one in every(asked) if not one.excess)
    best, bound, _ = solve_paths(asked, start, 0.0, float("inf"), 5.0)
    assert best.schedule.figure(objective) == pytest.approx(least)
    assert bound == pytest.approx(least, rel=1e-4)


def test_a_batch_is_waited_for_as_a_whole():
    """Between the second and third op two values go to the device; with one of them the latency would be four less."""
    asked = skipped(4)
    pins = {node: frozenset({1 if node < 2 else 2}) for node in range(5)}
    asked = asked.with_rules(Rules("latency", pins=pins))
    least = min(one.schedule.latency_s for one in every(asked))
    assert least == pytest.approx(0.5 + 5 + 2 + 8.5 + 5 + 3 + 4.5)
    _, bound, _ = solve_paths(asked, carve(asked, (1, 1, 2, 2, 2)), 0.0, float("inf"), 5.0)
    assert bound == pytest.approx(least, rel=1e-4)


def test_a_cut_in_place_lets_a_value_leave_before_the_others():
    """The first value is on its way while the device is at the next two, for one launch more."""
    pins = {node: frozenset({1 if node < 3 else 2}) for node in range(5)}
    asked = skipped(4, launch_s=1.0).with_rules(Rules("latency", pins=pins))
    start = carve(asked, (1, 1, 1, 2, 2))
    best, bound, _ = solve_paths(asked, start, 0.0, float("inf"), 5.0)
    assert best.schedule.latency_s < start.schedule.latency_s
    assert bound <= best.schedule.latency_s


def test_fleets_that_leave_no_room_are_not_searched():
    asked = skipped(4, room=3).with_rules(Rules("cost"))
    start = carve(asked, (0,) * 5)
    known = start.schedule.figure("cost")
    _, _, floors = solve_paths(asked, start, 0.0, float("inf"), 5.0)
    assert fleet_search(asked, start, 0, None).schedule.figure("cost") < known
    for fleet in floors.known:
        floors.known[fleet] = known
    assert fleet_search(asked, start, 0, None, floors) is start


def test_it_says_nothing_of_shares_of_ops_together_and_of_branches():
    problem = skipped(4)
    assert has_paths(problem)
    beside = tuple(replace(value, consumers=(), is_output=True) for value in problem.values[1:])
    assert not has_paths(replace(problem, values=beside))
    assert not has_paths(problem.with_rules(Rules(min_share={1: 0.2})))
    assert not has_paths(problem.with_rules(Rules(together=((0, 1),))))


def test_devices_of_a_hint_come_into_use_in_their_order():
    """A start on the second of two devices that are alike is as good as on the first: nothing is below it."""
    asked = skipped(4).with_rules(Rules("latency"))
    start = carve(asked, fastest_places(asked))
    moved = carve(asked, tuple({1: 2, 2: 1}.get(place, place) for place in start.placement.place))
    results = [solve_paths(asked, one, 0.0, float("inf"), 5.0) for one in (start, moved)]
    assert results[0][1] == results[1][1]
