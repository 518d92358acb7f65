"""What is said where nothing can be placed: the cause, in exit codes 1 and 5."""

from dataclasses import replace

import pytest

from gimlet.compiler.placement.problem import (
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
from gimlet.compiler.placement.solve import solve
from gimlet.runtime.errors import InfeasibleError, InputError


def op(name: str, refused: dict[int, str] | None = None) -> Node:
    reasons = refused or {}
    options = {place: Option(1.0 + place) for place in (0, 1) if place not in reasons}
    return Node(name, "Conv", options, reasons, flops=10.0)


CHAIN = Problem(
    devices=(DeviceSpec("cpu", 10**9), DeviceSpec("gpu0", 10**9)),
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
    assert "larger than every device together: its weights need 2.4 GB; cpu has 1.0 GB, gpu0 has 1.0 GB" in text


def test_a_weight_larger_than_the_only_device_it_may_be_on():
    weights = (Weight("w", (1,), {0: 10**6, 1: 2 * 10**9}),)
    text = error_of(replace(CHAIN, weights=weights).with_rules(Rules(pins={1: frozenset({1})})))
    assert "1 ops that can only be there (such as 'b'): the weights need 2.0 GB and gpu0 has 1.0 GB" in text
    assert "free 1.0 GB" in text


def test_weights_that_do_not_fit_any_way():
    """Three of 0.6 GB over two devices of 1 GB: enough in total, not in any arrangement."""
    weights = tuple(Weight(f"w{n}", (n,), {0: 600 * 10**6, 1: 600 * 10**6}) for n in range(3))
    assert "without memory (cpu has 1.0 GB, gpu0 has 1.0 GB)" in error_of(replace(CHAIN, weights=weights))


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
    assert "possible without the least shares of devices or without what must be together" in text


def test_a_cap_of_no_segments():
    assert "without the cap on segments" in error_of(CHAIN.with_rules(Rules(max_segments=0)))
