"""What a dry run says: coverage, refusals in groups, and a recommendation with its figures."""

import io
import itertools
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

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
)
from gimlet.compiler.placement.model.schedule import simulate
from gimlet.compiler.placement.reasons.advice import alone, computing_s, fastest_device, recommendation
from gimlet.compiler.placement.reasons.coverage import coverage, print_coverage
from gimlet.compiler.placement.reasons.explain import NOT_ASKED, summary_line
from gimlet.compiler.placement.solve import Solution, solve

Make = Callable[..., Problem]


def chain(nodes: list[Node], devices: tuple[str, ...] = ("cpu", "gpu0"), route_s: float = 1.0) -> Problem:
    """A chain of ops on devices with one place each, and `route_s` from each to each other."""
    last = len(nodes)
    ends = itertools.permutations(range(len(devices)), 2)
    return Problem(
        tuple(DeviceSpec(name, kind=name.rstrip("0123456789")) for name in devices),
        tuple(Place(index, name.rstrip("0123456789")) for index, name in enumerate(devices)),
        tuple(replace(node, name=f"n{index}") for index, node in enumerate(nodes)),
        tuple(Value(f"v{i}", 0, i - 1 if i else None, (i,) if i < last else (), i == last) for i in range(last + 1)),
        {pair: Route(route_s, 0.0) for pair in ends},
    )


def op(operator: str, *seconds: float | str, flops: float = 1.0) -> Node:
    """An op by its seconds on each place, or why it is refused there."""
    taken = {place: Option(found) for place, found in enumerate(seconds) if isinstance(found, float)}
    refused = {place: found for place, found in enumerate(seconds) if isinstance(found, str) and found}
    return Node("", operator, taken, refused, flops)


def forced(problem: Problem, places: tuple[int, ...], segments: tuple[int, ...], status: str, bound: float) -> Solution:
    placement = Placement(places, segments)
    schedule = simulate(problem, placement)
    return Solution(placement, schedule, schedule.figure(problem.rules.objective), bound, status, 0.0, 1)


MIXED = chain(
    [
        op("MatMul", 10.0, 1.0, flops=60.0),
        op("Exp", 1.0, "no table", flops=5.0),
        op("Exp", 1.0, "no table", flops=5.0),
        op("Exp", 1.0, "too large", flops=10.0),
        op("Det", 1.0, "", flops=20.0),
    ]
)


def test_coverage_counts_ops_and_flops_by_place():
    found = coverage(MIXED, solve(MIXED))
    assert found["places"] == [
        {"device": "cpu", "target": "cpu", "format": "fp32", "ops": 5, "of": 5, "flops_share": 1.0},
        {"device": "gpu0", "target": "gpu", "format": "fp32", "ops": 1, "of": 5, "flops_share": 0.6},
    ]


def test_what_is_refused_is_grouped_by_operator_and_reason_most_first():
    rows = coverage(MIXED, solve(MIXED))["unsupported"]
    assert {row["device"] for row in rows} == {"gpu0"}
    assert [(row["operator"], row["reason"], row["ops"], row["flops_share"]) for row in rows] == [
        ("Exp", "no table", 2, 0.1),
        ("Det", NOT_ASKED, 1, 0.2),
        ("Exp", "too large", 1, 0.1),
    ]


def printed(problem: Problem) -> str:
    console = Console(width=120, file=io.StringIO(), record=True)
    print_coverage(coverage(problem, solve(problem)), console)
    return console.export_text()


def test_a_terminal_gets_at_most_a_dozen_lines_of_refusals_a_device():
    twelve = chain([op(f"Op{index}", 1.0, f"reason {index}") for index in range(12)])
    assert "more" not in printed(twelve)
    text = printed(chain([op(f"Op{index}", 1.0, f"reason {index}") for index in range(20)]))
    assert len(re.findall(r"reason \d", text)) == 11
    assert "9 more" in text


def test_devices_that_refuse_the_same_are_told_of_once():
    text = printed(chain([op("Exp", 1.0, "no table", "no table")], ("cpu", "gpu0", "gpu1")))
    assert "not on gpu0 (gpu, fp32), gpu1 (gpu, fp32)" in text
    assert text.count("no table") == 1


def test_a_split_is_compared_with_the_best_single_device():
    text = recommendation(MIXED, solve(MIXED))
    assert text.startswith("Best for latency: a split over cpu and gpu0, 7 s; cpu alone needs 7 s (100%) more")


def test_a_single_device_is_compared_with_the_runner_up_of_another_class():
    problem = chain([op("Exp", 20.0, 1.0, 1.0), op("Exp", 20.0, 1.0, 1.0)], ("cpu", "gpu0", "gpu1"))
    text = recommendation(problem, solve(problem))
    assert text.startswith("Best for latency: gpu0 alone, 4 s; cpu alone needs 36 s (900%) more")


def test_a_little_more_has_digits():
    problem = chain([op("Exp", 10.0, 8.02)])
    assert "gpu0 alone needs 20 ms (0.20%) more" in recommendation(problem, solve(problem))


@pytest.mark.parametrize(
    ("ops", "groups", "said"), [(1, 1, "optimal; 1 op, "), (30, 30, "; 30 ops, "), (30, 1, "30 ops as 1 group, ")]
)
def test_counts_are_said_as_people_do(ops: int, groups: int, said: str):
    summary = {"objective": "latency", "unit": "s", "value": 1.0, "bound": 1.0, "gap": 0.0, "status": "optimal"}
    assert said in summary_line({"summary": {**summary, "ops": ops, "groups": groups, "wall_s": 0.0}})


def test_as_much_is_not_more():
    problem = chain([op("Exp", 3.0, 1.0)])
    assert "alone needs as much" in recommendation(problem, solve(problem))


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([op("Exp", 9.0, "no"), op("Det", "no", 9.0)], "no single device takes every op."),
        ([op("Exp", 9.0, "no")], "no other device takes every op."),
    ],
)
def test_that_no_device_could_take_all(nodes: list[Node], said: str):
    problem = chain(nodes)
    assert said in recommendation(problem, solve(problem))


def test_what_a_pin_costs_is_said():
    problem = chain([op("Exp", 20.0, 1.0), op("Exp", 20.0, 1.0)])
    problem = problem.with_rules(Rules(pins={1: frozenset({0})}))
    text = recommendation(problem, solve(problem))
    assert "gpu0 alone needs 19 s (83%) less, but breaks a limit: n1 may not be on gpu0 (fp32)." in text


def test_the_operator_that_keeps_most_flops_off_the_fastest_device():
    assert fastest_device(MIXED) == 1
    assert "Exp keeps 20% of the FLOPs off gpu0, the fastest device: no table." in recommendation(MIXED, solve(MIXED))
    whole = chain([op("Exp", 9.0, 1.0), op("Tiny", 9.0, "no", flops=0.001)])
    assert "fastest" not in recommendation(whole, solve(whole))


def test_the_fastest_device_is_judged_by_ops_that_others_take_too():
    problem = chain([op("MatMul", 2.0, 1.0, flops=2.0), op("Exp", 1.0, 2.0), op("Det", 0.1, "no", flops=100.0)])
    assert fastest_device(problem) == 1
    assert fastest_device(chain([op("Exp", 1.0, "no")])) is None
    assert fastest_device(chain([op("Exp", 1.0, 1.0, flops=0.0)])) is None


def test_transfers_that_dominate_a_request():
    """Of 4 s on gpu0, 3 s are on the way there and back."""
    problem = chain([op("Exp", 9.0, 1.0)], route_s=1.5)
    assert "in 75% of the latency no device computes" in recommendation(problem, solve(problem))
    quick = chain([op("Exp", 9.0, 4.0)], route_s=1.5)
    assert "Transfers" not in recommendation(quick, solve(quick))


@pytest.mark.parametrize(("size", "decides"), [(8, True), (1, False)])
def test_a_link_that_decides_the_period(size: int, decides: bool):
    problem = chain([op("Exp", "no", 2.0)])
    problem = replace(
        problem,
        values=tuple(replace(value, size_bytes=size if value.is_output else 0) for value in problem.values),
        routes={(0, 1): Route(0.0, 1.0, (("pcie0>", 1.0),)), (1, 0): Route(0.0, 1.0, (("pcie0<", 1.0),))},
        rules=Rules("throughput"),
    )
    assert ("link pcie0< is busier than any device" in recommendation(problem, solve(problem))) is decides


@pytest.mark.parametrize(
    ("status", "bound", "advised"), [("feasible", 1.0, True), ("feasible", 2.95, False), ("forced", 1.0, False)]
)
def test_a_large_gap_asks_for_more_time(status: str, bound: float, advised: bool):
    problem = chain([op("Exp", 3.0, 4.0)])
    text = recommendation(problem, forced(problem, (0,), (0,), status, bound))
    assert ("The gap is 67%: a longer --time-limit" in text) is advised
    assert text.startswith("As given for latency: " if status == "forced" else "Best found for latency: ")


def test_time_in_which_two_devices_compute_counts_once():
    problem = chain([op("Exp", 3.0, 3.0), op("Exp", 3.0, 3.0)])
    problem = replace(problem, values=(Value("x", 0, None, (0, 1)),))
    schedule = simulate(problem, Placement((0, 1), (0, 1)))
    assert [launch.start_s for launch in schedule.launches] == [0.0, 1.0]
    assert computing_s(schedule) == 4.0


def test_a_model_of_no_ops_has_nothing_to_say():
    empty = replace(chain([]), values=())
    assert coverage(empty, solve(empty))["recommendation"] == ""


@given(st.integers(0, 400), st.sampled_from(["latency", "throughput", "energy"]))
def test_counts_add_up_and_no_single_device_that_keeps_the_rules_beats_an_optimum(
    random_problem: Make, seed: int, objective: Objective
):
    problem = random_problem(seed, devices=3, objective=objective)
    solution = solve(problem)
    found = coverage(problem, solution)
    for index, place in enumerate(found["places"]):
        refused = [row for row in found["unsupported"] if row["device"] == place["device"]]
        assert place["ops"] + sum(row["ops"] for row in refused) == len(problem.nodes), index
        assert place["flops_share"] + sum(row["flops_share"] for row in refused) == pytest.approx(1.0)
    for device in range(3):
        single = alone(problem, device)
        if single is not None and not single.excess:
            assert single.schedule.figure(objective) >= solution.objective * (1 - 1e-9)
    assert 1 <= found["recommendation"].count(". ") + 1 <= 3
    assert found["recommendation"].endswith(".")


def test_energy_that_costs_much_time_is_said():
    """The cpu takes 1 J in 8 s, and gpu0 alone 3 J in 2 s."""
    problem = chain([op("Exp", 8.0, 1.0)])
    options = {0: replace(problem.nodes[0].options[0], joules=1.0), 1: replace(problem.nodes[0].options[1], joules=3.0)}
    devices = tuple(replace(device, load_w=1.0) for device in problem.devices)
    problem = replace(problem, devices=devices, nodes=(replace(problem.nodes[0], options=options),))
    text = recommendation(energy := problem.with_rules(Rules("energy")), solve(energy))
    assert "It takes 8 s, and gpu0 alone 3 s: --bound latency=AMOUNT limits that." in text
    assert "It takes" not in recommendation(problem, solve(problem))
