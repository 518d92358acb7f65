"""Number formats in the problem: a budget for what they lose, and casts at the edges of segments."""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.model.problem import (
    OBJECTIVES,
    DeviceSpec,
    Node,
    Objective,
    Option,
    Place,
    Placement,
    Problem,
    Rules,
    Value,
)
from gimlet.compiler.placement.model.schedule import LOSS_TOLERANCE, loss_of, simulate, violations
from gimlet.compiler.placement.search.coarsen import coarsen
from gimlet.compiler.placement.search.heuristics import frugal_places
from gimlet.compiler.placement.solve import solve
from gimlet.runtime.errors import InfeasibleError, InputError

Make = Callable[..., Problem]
SEEDS = st.integers(0, 10**6)


def in_two_formats(problem: Problem, seed: int) -> Problem:
    """Each place of `problem` again in bf16: quicker, lossy, and with casts at its edges."""
    draw = random.Random(seed)
    count = len(problem.places)
    casts = draw.choice([0.0, 0.5])
    nodes: list[Node] = []
    for node in problem.nodes:
        halves = {
            place + count: replace(option, seconds=option.seconds / 2, loss=draw.choice([0.0, 0.1, 0.3]))
            for place, option in node.options.items()
        }
        nodes.append(replace(node, options={**node.options, **halves}))
    halves = [replace(place, format="bf16", cast_s_per_byte=casts) for place in problem.places]
    fusions = [
        replace(
            fusion,
            seconds=fusion.seconds | {p + count: s / 2 for p, s in fusion.seconds.items()},
            joules=fusion.joules | {p + count: 0.0 for p in fusion.joules},
        )
        for fusion in problem.fusions
    ]
    values = [replace(value, cast_bytes=value.size_bytes) for value in problem.values]
    return replace(
        problem,
        places=(*problem.places, *halves),
        nodes=tuple(nodes),
        fusions=tuple(fusions),
        values=tuple(values),
    )


def with_budget(problem: Problem, budget: float | None) -> Problem:
    return problem.with_rules(replace(problem.rules, loss_budget=budget))


@settings(max_examples=30)
@given(
    seed=SEEDS,
    objective=st.sampled_from(OBJECTIVES),
    budget=st.sampled_from([0.0, 0.1, 0.25, 0.31, 0.5]),
    devices=st.sampled_from([1, 2]),
)
def test_the_optimum_within_a_budget(
    random_problem: Make,
    best_by_trying: Callable[[Problem], float | None],
    seed: int,
    objective: Objective,
    budget: float,
    devices: int,
):
    problem = with_budget(in_two_formats(random_problem(seed, 3, devices, objective), seed), budget)
    best = best_by_trying(problem)
    assume(best is not None)
    found = solve(problem)
    assert not violations(problem, found.placement, found.schedule)
    assert loss_of(problem, found.placement.place) <= budget * (1 + LOSS_TOLERANCE)
    assert found.objective == pytest.approx(best, rel=2e-4, abs=1e-9)
    assert lower_bound(problem).value <= found.objective * (1 + 1e-6)


@settings(max_examples=15)
@given(seed=SEEDS, objective=st.sampled_from(OBJECTIVES))
def test_a_larger_budget_is_never_worse(random_problem: Make, seed: int, objective: Objective):
    problem = in_two_formats(random_problem(seed, 4, 2, objective), seed)
    found = [solve(with_budget(problem, budget)).objective for budget in (0.0, 0.15, 0.4, None)]
    assert all(later <= earlier * (1 + 2e-4) + 1e-9 for earlier, later in itertools.pairwise(found))


def test_losses_add_by_their_squares(random_problem: Make):
    problem = random_problem(1, 3, 1)
    nodes = tuple(replace(node, options={0: Option(1.0, loss=0.1 * n)}) for n, node in enumerate(problem.nodes, 1))
    problem = replace(problem, nodes=nodes, fusions=())
    assert loss_of(problem, (0, 0, 0)) == pytest.approx(math.sqrt(0.01 + 0.04 + 0.09))
    groups = coarsen(problem, 1)
    assert len(groups.groups) == 1
    assert groups.problem.nodes[0].options[0].loss == pytest.approx(loss_of(problem, (0, 0, 0)))


def test_casts_are_paid_by_the_segment_that_a_value_enters_and_by_the_one_it_leaves(random_problem: Make):
    problem = in_two_formats(random_problem(3, 3, 1), 3)
    places = tuple(replace(place, cast_s_per_byte=0.25 * number) for number, place in enumerate(problem.places))
    problem = replace(problem, places=places)
    plain = replace(problem, places=tuple(replace(place, cast_s_per_byte=0.0) for place in places))
    alone = Placement((1, 1, 1), (0, 0, 0))
    paid = simulate(problem, alone).latency_s - simulate(plain, alone).latency_s
    edges = [value for value in problem.values if value.producer is None or value.is_output]
    assert paid == pytest.approx(0.25 * sum(value.cast_bytes for value in edges if value.consumers or value.is_output))
    apart = Placement((0, 1, 1), (0, 1, 1))
    entering = [v for v in problem.values if (v.producer in (None, 0)) and {1, 2} & set(v.consumers)]
    leaving = [v for v in problem.values if v.producer in (1, 2) and v.is_output]
    paid = simulate(problem, apart).latency_s - simulate(plain, apart).latency_s
    assert paid == pytest.approx(0.25 * sum(value.cast_bytes for value in (*entering, *leaving)))


def test_a_budget_that_nothing_keeps_names_the_ops_that_lose_most(random_problem: Make):
    problem = random_problem(1, 3, 1)
    nodes = tuple(
        replace(node, options={0: Option(1.0, loss=loss)})
        for node, loss in zip(problem.nodes, (0.01, 0.3, 0.02), strict=True)
    )
    problem = with_budget(replace(problem, nodes=nodes, fusions=()), 0.1)
    with pytest.raises(InfeasibleError, match=r"'n1' loses 0.3 on d0 \(fp32\)"):
        solve(problem)


def test_a_budget_in_conflict_with_a_bound_is_named(random_problem: Make):
    problem = random_problem(1, 3, 1)
    nodes = tuple(replace(node, options={0: Option(8.0), 1: Option(1.0, loss=0.2)}) for node in problem.nodes)
    problem = replace(problem, nodes=nodes, fusions=(), places=(Place(0), Place(0, format="bf16")))
    least = solve(with_budget(problem, None)).objective
    rules = replace(problem.rules, loss_budget=0.1, objective="energy", bounds={"latency": 1.1 * least})
    with pytest.raises(InfeasibleError, match=r"latency of at most .*; a loss of at most 0.1"):
        solve(problem.with_rules(rules))


def test_frugal_places_give_up_the_seconds_that_save_most_loss(random_problem: Make):
    problem = random_problem(1, 3, 1)
    nodes = tuple(
        replace(node, options={0: Option(seconds), 1: Option(1.0, loss=0.2)})
        for node, seconds in zip(problem.nodes, (9.0, 3.0, 5.0), strict=True)
    )
    problem = replace(problem, nodes=nodes, fusions=(), places=(Place(0), Place(0, format="bf16")))
    assert frugal_places(problem, (1, 1, 1), 0.05) == (1, 0, 0)


def test_a_negative_loss_or_cast_is_refused(random_problem: Make):
    problem = random_problem(1, 3, 1)
    with pytest.raises(InputError, match="is negative"):
        replace(problem, places=(replace(problem.places[0], cast_s_per_byte=-1.0),))
    with pytest.raises(InputError, match="is negative"):
        replace(problem, nodes=(replace(problem.nodes[0], options={0: Option(1.0, loss=-0.1)}), *problem.nodes[1:]))


@pytest.mark.parametrize(("budget", "period"), [(0.05, 8.0), (0.1, 7.0), (0.15, 6.0), (0.2, 4.0), (None, 4.0)])
def test_the_bound_on_a_period_knows_the_budget(budget: float | None, period: float):
    options = {0: Option(2.0), 1: Option(1.0, loss=0.1)}
    last = Value("y", 0, 3, (), True)
    problem = Problem(
        (DeviceSpec("d"),),
        (Place(0), Place(0, format="bf16")),
        tuple(Node(f"n{n}", options=dict(options)) for n in range(4)),
        (*(Value(f"v{n}", 0, n, (n + 1,)) for n in range(3)), last),
        {},
        rules=Rules("throughput", loss_budget=budget),
    )
    best = min(period, solve(problem).objective)
    assert best == period
    assert lower_bound(problem).value == pytest.approx(8 - min((budget or 1) ** 2 / 0.01, 4), rel=1e-3)
