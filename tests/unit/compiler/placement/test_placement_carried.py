"""Stages whose devices are on links: what stretches carry, and cuts that even out links as well as devices."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.compiler.placement.model.problem import DeviceSpec, Node, Option, Place, Problem, Route, Rules, Value
from gimlet.compiler.placement.model.segments import carve
from gimlet.compiler.placement.search.carried import Carried
from gimlet.compiler.placement.search.stages import stage_cuts

Make = Callable[..., Problem]
SEEDS = st.integers(min_value=0, max_value=10_000)


def cached(layers: int, past: int, present: int) -> Problem:
    """A host that takes nothing, and three devices on links of their own: layers of 1 s whose caches come and go."""
    routes = {
        (a, b): Route(0.0, 1.0, tuple((link, 1.0) for link in ((f"d{a}<",) if a else ()) + ((f"d{b}>",) if b else ())))
        for a in range(4)
        for b in range(4)
        if a != b
    }
    values = [Value(f"v{layer}", 1, layer, (layer + 1,)) for layer in range(layers - 1)]
    values += [Value(f"past{layer}", past, None, (layer,)) for layer in range(layers)]
    values += [Value(f"present{layer}", present, layer, (), True) for layer in range(layers)]
    return Problem(
        (DeviceSpec("host"), *(DeviceSpec(f"d{d}", segment_overhead_s=5.0) for d in range(1, 4))),
        tuple(Place(device) for device in range(1, 4)),
        tuple(Node(f"n{n}", options=dict.fromkeys(range(3), Option(1.0)), flops=1.0) for n in range(layers)),
        tuple(values),
        routes,
        rules=Rules("throughput"),
    )


@pytest.mark.parametrize(("past", "present"), [(10, 0), (0, 10), (10, 10)])
def test_caches_are_dealt_over_the_links_of_all_devices(past: int, present: int):
    """Nine layers on one device take 14 s and its link 90 s; three on each of three take 8 s and 30 s."""
    (cut, *_) = stage_cuts(cached(9, past, present))
    assert [cut.count(place) for place in range(3)] == [3, 3, 3]
    assert carve(cached(9, past, present), cut).schedule.period_s == pytest.approx(31.0)


def test_cuts_avoid_what_is_wide():
    """Six layers whose outputs take 4 s each; between them goes 1 s, but 30 s before the fourth."""
    problem = cached(6, 0, 4)
    wide = replace(problem.values[2], size_bytes=30)
    problem = replace(problem, values=(*problem.values[:2], wide, *problem.values[3:]))
    assert {carve(problem, cut).schedule.period_s for cut in stage_cuts(problem)} == {9.0}


@given(seed=SEEDS, begin=st.integers(0, 9), length=st.integers(1, 10))
def test_a_stretch_carries_each_value_once(random_problem: Make, seed: int, begin: int, length: int):
    problem = random_problem(seed, nodes=10, devices=3)
    end = min(begin + length, 10)
    inputs, made = Carried(problem, range(10)).entering(begin)
    used = [v for v in problem.values if any(begin <= consumer < end for consumer in v.consumers)]
    assert inputs[end - begin] == sum(v.size_bytes for v in used if v.producer is None)
    assert made[end - begin] == sum(v.size_bytes for v in used if v.producer is not None and v.producer < begin)
    outputs = Carried(problem, range(10)).outputs
    given_away = [v for v in problem.values if v.is_output and v.producer is not None and begin <= v.producer < end]
    assert outputs[end] - outputs[begin] == sum(v.size_bytes for v in given_away)


@given(seed=SEEDS, begin=st.integers(0, 10))
def test_what_is_alive_at_a_cut_goes_over_it(random_problem: Make, seed: int, begin: int):
    problem = random_problem(seed, nodes=10, devices=3)
    over = [v for v in problem.values if v.producer is not None and v.producer < begin <= max(v.consumers, default=-1)]
    assert Carried(problem, range(10)).alive[begin] == sum(v.size_bytes for v in over)
