"""What is said where nothing can be placed: the cause, in exit codes 1 and 5."""

import re
from dataclasses import replace

import pytest

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
from gimlet.compiler.placement.reasons.conflict import conflict_of
from gimlet.compiler.placement.solve import solve
from gimlet.runtime.errors import InfeasibleError, InputError


def op(name: str, refused: dict[int, str] | None = None) -> Node:
    reasons = refused or {}
    options = {place: Option(1.0 + place) for place in (0, 1) if place not in reasons}
    return Node(name, "Conv", options, reasons, flops=10.0)


CHAIN = Problem(
    devices=(DeviceSpec("cpu", 10**9, formats=("fp32",)), DeviceSpec("gpu0", 10**9, formats=("fp32", "fp16", "bf16"))),
    places=(Place(0), Place(1)),
    nodes=(op("a"), op("b"), op("c")),
    values=(Value("x", 4, None, (0,)), Value("va", 4, 0, (1,)), Value("vb", 4, 1, (2,)), Value("y", 4, 2, (), True)),
    routes={(0, 1): Route(1.0, 0.0), (1, 0): Route(1.0, 0.0)},
)


def error_of(problem: Problem) -> str:
    with pytest.raises(InfeasibleError) as error:
        solve(problem)
    assert error.value.exit_code == 5
    return str(error.value)


def test_an_op_that_no_device_takes():
    refused = {0: "no kernel for float8", 1: "NonZero has a data-dependent shape"}
    with pytest.raises(InputError) as error:
        solve(replace(CHAIN, nodes=(op("a"), op("b", refused), op("c"))))
    assert error.value.exit_code == 1
    text = str(error.value)
    assert "Conv 'b'" in text
    assert "cpu (fp32): no kernel for float8" in text
    assert "gpu0 (fp32): NonZero has a data-dependent shape" in text


def test_a_pin_against_a_refusal_names_both():
    problem = replace(CHAIN, nodes=(op("a"), op("b", {1: "not on tensorrt"}), op("c")))
    text = error_of(problem.with_rules(Rules(pins={1: frozenset({1})})))
    assert "'b'" in text
    assert "pinned to gpu0, which refuses it" in text
    assert "not on tensorrt" in text


def test_a_model_larger_than_every_device():
    weights = tuple(Weight(f"w{n}", (n,), {0: 800 * 10**6, 1: 800 * 10**6}) for n in range(3))
    text = error_of(replace(CHAIN, weights=weights))
    assert "larger than every device together: its weights need 2.4 GB; cpu has 1 GB, gpu0 has 1 GB" in text


def test_a_weight_larger_than_the_only_device_it_may_be_on():
    weights = (Weight("w", (1,), {0: 10**6, 1: 2 * 10**9}),)
    text = error_of(replace(CHAIN, weights=weights).with_rules(Rules(pins={1: frozenset({1})})))
    assert "1 ops that can only be there (such as 'b'): the weights need 2 GB and gpu0 has 1 GB" in text
    assert "gpu0 needs 1.0 GB more, or weights in fp16 there (--format gpu0=fp16); or pin less there" in text


def test_weights_that_do_not_fit_any_way():
    """Three of 0.6 GB over two devices of 1 GB: enough in total, not in any arrangement."""
    weights = tuple(Weight(f"w{n}", (n,), {0: 600 * 10**6, 1: 600 * 10**6}) for n in range(3))
    text = error_of(replace(CHAIN, weights=weights))
    assert "cannot be kept together: the memory of cpu (1 GB); the memory of gpu0 (1 GB)" in text
    assert re.search(r"cpu needs 200\.\d MB more; or gpu0 needs 200\.\d MB more, or weights in fp16 there", text)


def test_a_format_that_no_device_computes_in_is_not_advised():
    weights = (Weight("w", (0,), {0: 1600 * 10**6, 1: 1600 * 10**6}),)
    assert "weights in" not in error_of(replace(CHAIN, weights=weights).with_rules(Rules(pins={0: frozenset({0})})))
    assert "(--format gpu0=fp16)" in error_of(
        replace(CHAIN, weights=weights).with_rules(Rules(pins={0: frozenset({1})}))
    )


def test_what_the_solver_has_no_solution_for_prints_nothing(capfd: pytest.CaptureFixture[str]):
    weights = tuple(Weight(f"w{n}", (n,), {0: 800 * 10**6, 1: 800 * 10**6}) for n in range(3))
    error_of(replace(CHAIN, weights=weights))
    assert capfd.readouterr() == ("", "")


def test_a_bound_below_what_is_possible():
    text = error_of(CHAIN.with_rules(Rules("throughput", bounds={"latency": 1.0})))
    assert "latency cannot be below 3 s, and at most 1 s is asked for" in text


def test_shares_that_cannot_be():
    text = error_of(CHAIN.with_rules(Rules(min_share={0: 0.7, 1: 0.7})))
    assert "add up to 140% of the FLOPs" in text
    nodes = (op("a", {1: "no"}), op("b", {1: "no"}), op("c"))
    text = error_of(replace(CHAIN, nodes=nodes).with_rules(Rules(min_share={1: 0.5})))
    assert "gpu0 is to have 50% of the FLOPs, but the ops that may be there are 33.3% of them" in text


def test_limits_in_conflict_are_named():
    text = error_of(CHAIN.with_rules(Rules(min_share={0: 0.3, 1: 0.3}, together=((0, 1, 2),))))
    assert "cannot be kept together: 30% of the FLOPs on cpu; 30% of the FLOPs on gpu0; 'a' and 2 more on one" in text


def test_limits_that_have_no_part_in_a_conflict_are_left_out():
    rules = Rules(min_share={0: 0.3, 1: 0.3}, together=((0, 1, 2),), max_segments=3, bounds={"throughput": 100.0})
    text = error_of(CHAIN.with_rules(rules))
    assert "segments" not in text
    assert "throughput" not in text


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            Rules(apart=(((0,), (1,)), ((1,), (2,)), ((0,), (2,)))),
            "'a' apart from 'b'; 'b' apart from 'c'; 'a' apart from",
        ),
        (
            Rules(pins={0: frozenset({0})}, together=((0, 1),), min_share={1: 0.6}),
            "60% of the FLOPs on gpu0; 'a' and 1 more on one device; 'a' pinned to cpu (fp32)",
        ),
    ],
)
def test_conflicts_in_words(rules: Rules, message: str):
    text = error_of(CHAIN.with_rules(rules))
    assert message in text


def test_a_conflict_in_a_large_problem_is_proven_without_a_search():
    """200 ops, 100 of them pinned to a device that has room for 50."""
    nodes = tuple(op(f"n{i}") for i in range(200))
    values = tuple(Value(f"v{i}", 1, i - 1 if i else None, (i,)) for i in range(200))
    weights = tuple(Weight(f"w{i}", (i,), {0: 20 * 10**6, 1: 20 * 10**6}) for i in range(200))
    devices = (replace(CHAIN.devices[0], memory_bytes=None), CHAIN.devices[1])
    problem = replace(CHAIN, devices=devices, nodes=nodes, values=values, weights=weights)
    rules = Rules(min_share={1: 0.5}, max_segments=50)
    found = conflict_of(problem.with_rules(rules))
    assert "50% of the FLOPs on gpu0; the memory of gpu0 (1 GB)" in str(found)
    assert "gpu0 needs 1.0 GB more, or weights in fp16" in str(found)
    assert conflict_of(problem) is None
    torn = Rules(together=((0, 1), (1, 150)), apart=(((0,), (150,)),), max_segments=50)
    assert "'n0' and 1 more on one device; 'n1' and 1 more on one device; 'n0' apart from 'n150'" in str(
        conflict_of(problem.with_rules(torn))
    )
    pinned = Rules(together=((0, 150),), pins={0: frozenset({0}), 150: frozenset({1})})
    found = str(conflict_of(problem.with_rules(pinned)))
    assert "'n0' and 1 more on one device; 'n0' pinned to cpu (fp32); 'n150' pinned to gpu0 (fp32)" in found


def test_none_found_says_what_the_best_so_far_breaks(monkeypatch: pytest.MonkeyPatch):
    """Where no conflict is proven and nothing was found, the message is a clear one."""
    monkeypatch.setattr("gimlet.compiler.placement.solve.conflict_of", lambda problem: None)
    weights = tuple(Weight(f"w{n}", (n,), {0: 600 * 10**6, 1: 600 * 10**6}) for n in range(3))
    text = error_of(replace(CHAIN, weights=weights))
    assert "none found: no placement that keeps all limits was found within the work limit" in text
    assert "the best so far breaks: " in text


def test_a_cap_of_no_segments():
    assert "cannot be kept together: at most 0 segments" in error_of(CHAIN.with_rules(Rules(max_segments=0)))
