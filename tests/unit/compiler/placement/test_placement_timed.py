"""The bound on a period under a limit on latency: below every placement, and a detour is whole in it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.period_bound import period_bound
from gimlet.compiler.placement.bounds.timed_bound import timed_bound
from gimlet.compiler.placement.exact.cpsat import Limits
from gimlet.compiler.placement.model.problem import DeviceSpec, Node, Option, Place, Problem, Route, Rules, Value
from gimlet.compiler.placement.model.segments import carve
from gimlet.compiler.placement.solve import solve

Make = Callable[..., Problem]
Levels = Callable[[Problem, int], Problem]
Best = Callable[[Problem], float | None]
SEEDS = st.integers(min_value=0, max_value=100_000)


def chain(count: int, launch_s: float = 5.0) -> Problem:
    """A chain of ops of one second on two devices that are alike, and a host that takes none."""
    routes = {(a, b): Route(1.0, 0.0, ((f"{a}{b}", 0.0),)) for a in range(3) for b in range(3) if a != b}
    values = [Value("x", 1, None, (0,))]
    values += [Value(f"v{n}", 1, n, (n + 1,) if n + 1 < count else (), n + 1 == count) for n in range(count)]
    device = DeviceSpec("d0", segment_overhead_s=launch_s)
    return Problem(
        (DeviceSpec("host"), device, replace(device, name="d1")),
        (Place(1), Place(2)),
        tuple(Node(f"n{n}", options={0: Option(1.0), 1: Option(1.0)}) for n in range(count)),
        tuple(values),
        routes,
    )


def limited(problem: Problem, latency_s: float) -> Problem:
    return problem.with_rules(Rules("throughput", bounds={"latency": latency_s}))


@settings(max_examples=25)
@given(seed=SEEDS, memory=st.booleans(), slack=st.sampled_from((1.0, 1.1, 1.4, 2.0)))
def test_no_placement_that_is_quick_enough_has_a_shorter_period(
    random_problem: Make, with_levels: Levels, best_by_trying: Best, seed: int, memory: bool, slack: float
):
    problem = random_problem(seed, nodes=3, devices=2, memory=memory)
    problem = with_levels(problem, seed) if memory else problem
    least = best_by_trying(problem)
    if least is None:
        return
    asked = limited(problem, slack * least)
    best = best_by_trying(asked)
    assert best is not None
    assert timed_bound(asked, float("inf")).seconds <= best * (1 + 1e-9)


def test_a_detour_is_not_taken_in_part():
    # One device needs 1 + 5 + 40 + 1 seconds; a second segment needs a launch more, and a way where it is elsewhere.
    problem = chain(40)
    assert carve(problem, (0,) * 20 + (1,) * 20).schedule.latency_s == pytest.approx(53.0)
    for latency_s, period_s in ((47.0, 45.0), (51.9, 45.0), (53.0, 25.0)):
        found = timed_bound(limited(problem, latency_s), float("inf"))
        assert found.seconds == pytest.approx(period_s, rel=0.01)
    # The linear program takes a part of it.
    assert period_bound(limited(problem, 51.9)) < 0.9 * 45.0


def test_a_limit_that_nothing_keeps_leaves_no_period():
    assert timed_bound(limited(chain(10), 15.0), float("inf")).seconds == float("inf")
    assert timed_bound(chain(10), float("inf")).seconds == 0.0


def test_places_that_it_finds_keep_the_limit():
    asked = limited(chain(60), 73.0)
    places = timed_bound(asked, float("inf")).places
    assert min(carve(asked, place).rank("throughput")[:2] for place in places) < (1e-9, 45.0)
    assert solve(asked, Limits(work=0.2)).gap < 0.02
