"""What a placement problem must be, and what is said where it is not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gimlet.compiler.placement.model.problem import (
    DeviceSpec,
    Fusion,
    Node,
    Option,
    Place,
    Problem,
    Rules,
    Value,
    require_figures,
)
from gimlet.runtime.errors import InputError

ONE = Problem(
    (DeviceSpec("cpu"),),
    (Place(0),),
    (Node("a", "Add", {0: Option(2.0)}), Node("b", "Mul", {0: Option(3.0)})),
    (Value("x", 4, None, (0,)), Value("v", 4, 0, (1,)), Value("y", 4, 1, (), True)),
    {},
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"host": 3}, "the host is device 3, but there are 1 devices"),
        ({"places": (Place(2),)}, "a place names device 2"),
        ({"devices": (DeviceSpec("cpu", segment_overhead_s=-1.0),)}, "a figure is negative"),
        ({"devices": (DeviceSpec("cpu", memory_bytes=-1),)}, "a figure is negative"),
        ({"nodes": (Node("a", "Add", {4: Option(1.0)}), Node("b"))}, "an option names place 4"),
        ({"nodes": (Node("a", "Add", {0: Option(-1.0)}), Node("b"))}, "a cost on cpu (fp32) is negative"),
        ({"values": (Value("v", 4, 1, (0,)),)}, "nodes are not in topological order"),
        ({"fusions": (Fusion(0, 1, {0: 4.0}),)}, "fusion saves more than the op costs"),
        (
            {"devices": (DeviceSpec("cpu"), DeviceSpec("gpu0")), "places": (Place(0), Place(1))},
            "no link leads from one to the other of cpu, gpu0",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(InputError) as error:
        replace(ONE, **change)
    assert message in str(error.value)


def test_an_objective_needs_its_figure():
    for kind, energy, cost, source in (
        ("", "load_w", "usd_per_hour", "problem"),
        ("a/b", "power.load_w", "price.usd_per_hour", "hardware file"),
    ):
        problem = replace(ONE, devices=(replace(ONE.devices[0], kind=kind),))
        with pytest.raises(InputError, match=f"'energy' needs {energy}, which the .*{source}"):
            require_figures(problem, "energy")
        with pytest.raises(InputError, match=f"'cost' needs {cost}, which the .*{source}"):
            require_figures(problem, "cost")
        require_figures(problem, "latency")


def test_pins_narrow_what_is_allowed(random_problem: Callable[..., Problem]):
    problem = random_problem(3, nodes=6, devices=3)
    pinned = problem.with_rules(Rules(pins={2: frozenset({1})}))
    assert pinned.allowed[2] == tuple(place for place in problem.allowed[2] if place == 1)
    assert pinned.allowed[0] == problem.allowed[0]


def test_neighbours_are_listed_once():
    problem = replace(ONE, values=(Value("v", 4, 0, (1,)), Value("w", 4, 0, (1,))))
    assert problem.predecessors == ((), (0,))
    assert problem.successors == ((1,), ())
