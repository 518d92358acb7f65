"""The bound on a period for whole devices and nodes: what a device can do within it, and what weights prove."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.cover_bound import cover_bound
from gimlet.compiler.placement.bounds.device_sets import DeviceSets, Prices
from gimlet.compiler.placement.bounds.period_bound import period_bound
from gimlet.compiler.placement.bounds.period_program import PeriodProgram
from gimlet.compiler.placement.bounds.spine import Spine, heaviest_path
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import (
    DeviceSpec,
    Fusion,
    Node,
    Option,
    Place,
    Problem,
    Route,
    Rules,
    Value,
    Weight,
)
from gimlet.compiler.placement.model.segments import carve

Make = Callable[..., Problem]
Levels = Callable[[Problem, int], Problem]
Try = Callable[[Problem], float | None]
SEEDS = st.integers(min_value=0, max_value=10_000)


def chain(seconds: list[float], devices: int, launch_s: float) -> Problem:
    """Ops one after the other on a host that is too slow for them, and devices that are alike."""
    gpus = tuple(DeviceSpec(f"gpu{index}", segment_overhead_s=launch_s) for index in range(devices))
    places = range(1, devices + 1)
    nodes = tuple(
        Node(f"n{n}", "Op", {0: Option(1000.0)} | dict.fromkeys(places, Option(s))) for n, s in enumerate(seconds)
    )
    last = len(seconds) - 1
    values = tuple(Value(f"v{n}", 1, n, (n + 1,) if n < last else (), n == last) for n in range(last + 1))
    routes = {(a, b): Route(0.0, 0.0) for a in range(devices + 1) for b in range(devices + 1) if a != b}
    places_of = tuple(Place(index) for index in range(devices + 1))
    return Problem((DeviceSpec("cpu"), *gpus), places_of, nodes, values, routes, rules=Rules("throughput"))


def evenly(problem: Problem, price: float = 0.0) -> Prices:
    return Prices([1.0] * len(problem.nodes), dict.fromkeys(range(len(problem.devices)), price))


def varied(problem: Problem, draw: Random) -> Problem:
    """The problem with longer, shorter or no launches, and sometimes with a second target on device 1."""
    factor = draw.choice([0.0, 0.01, 1.0, 3.0])
    devices = tuple(replace(d, segment_overhead_s=factor * d.segment_overhead_s) for d in problem.devices)
    problem = replace(problem, devices=devices, rules=Rules("throughput"))
    if draw.random() < 0.6:
        return problem
    other = len(problem.places)
    nodes = tuple(
        replace(node, options={**node.options, other: replace(node.options[1], seconds=draw.choice([0.0, 4.0, 9.0]))})
        if 1 in node.options and draw.random() < 0.7
        else node
        for node in problem.nodes
    )
    places = (*problem.places, Place(1, "other", launch_s=draw.choice([0.0, 1.0, 4.0])))
    return replace(problem, nodes=nodes, places=places)


@given(seed=SEEDS, memory=st.booleans())
def test_no_device_has_more_than_its_heaviest_set(random_problem: Make, with_levels: Levels, seed: int, memory: bool):
    """Of any placement, for any weights: what is on a device is at most what it is said to do in its busy time."""
    draw = Random(seed)
    problem = random_problem(seed, nodes=draw.randint(2, 20), devices=draw.choice([2, 3]), memory=memory)
    problem = varied(with_levels(problem, seed) if memory else problem, draw)
    spine = Spine(problem, heaviest_path(problem))
    for _ in range(3):
        place: list[int] = []
        for allowed in problem.allowed:
            stays = place and place[-1] in allowed and draw.random() < 0.75
            place.append(place[-1] if stays else draw.choice(allowed))
        weights = np.array([draw.random() * draw.choice([0, 1, 1]) for _ in place])
        for device, busy_s in carve(problem, place).schedule.device_busy_s.items():
            if busy_s <= 0:
                continue
            price = draw.choice([0.0, 0.1, 1.0, 3.0])
            sets = DeviceSets(problem, spine, device, busy_s * draw.choice([1.0, 1.5]), draw.choice([20, 500]), price)
            best, heaviest = sets.most(weights)
            own = sum(weights[node] for node, used in enumerate(place) if problem.device_of[used] == device)
            assert own <= sets.within(best, busy_s) * (1 + 1e-9)
            assert sum(weights[node] for node in heaviest.nodes) == pytest.approx(best[-1])


@given(seed=SEEDS, memory=st.booleans())
def test_no_placement_is_below_the_bound(
    random_problem: Make, with_levels: Levels, best_by_trying: Try, seed: int, memory: bool
):
    draw = Random(seed)
    problem = random_problem(seed, nodes=3, devices=3, memory=memory)
    problem = varied(with_levels(problem, seed) if memory else problem, draw)
    best = best_by_trying(problem)
    if best is None:
        return
    worth = [draw.random() * draw.choice([0, 1]) for _ in problem.nodes]
    prices = Prices(worth, {device: draw.choice([0.0, 0.1, 1.0]) for device in range(3)})
    known = best * draw.choice([1.0, 1.3])
    assert cover_bound(problem, device_classes(problem), prices, 0.0, known) <= best * (1 + 1e-9)


def test_a_cut_between_whole_ops_leaves_a_device_unfilled():
    """Nine layers of a short and a long op: half of them is in the middle of a long one."""
    problem = chain([3.0, 10.0] * 9, 2, 5.0)
    best = carve(problem, [1] * 9 + [2] * 9).schedule.period_s
    assert best == 67
    program = PeriodProgram(problem, device_classes(problem), [[1, 2]], best)
    divided = program.solve()
    assert divided is not None
    assert divided < 64.5
    assert 66.8 < period_bound(problem, best) <= 67


def test_each_device_of_a_class_pays_its_own_launch():
    """Three devices share a chain of six, and a fourth op in any of them would pay one launch more than it saves."""
    problem = chain([10.0] * 6, 3, 7.0)
    bound = cover_bound(problem, device_classes(problem), evenly(problem), 0.0, 27.0)
    assert 26.9 < bound <= 27


def test_whole_weights_are_streamed():
    """Two devices keep one weight each; which of the others they stream, they stream as a whole."""
    problem = chain([1.0] * 5, 2, 0.5)
    streams = {place: {0: 10.0} for place in (1, 2)}
    weights = tuple(
        Weight(f"w{n}", (n,), {0: 4, 1: 4, 2: 4}, {p: {n: s[0]} for p, s in streams.items()}) for n in range(5)
    )
    devices = tuple(replace(device, fast_bytes=4 if number else None) for number, device in enumerate(problem.devices))
    problem = replace(problem, devices=devices, weights=weights)
    best = carve(problem, [1, 1, 1, 2, 2]).schedule.period_s
    assert best == 23.5
    classes = device_classes(problem)
    assert 23.4 < cover_bound(problem, classes, evenly(problem, 2.5), 0.0, best) <= best
    # At no price for its bytes, a device keeps all weights.
    assert cover_bound(problem, classes, evenly(problem), 0.0, best) < 10


def diamond() -> Problem:
    """From op 0 through 1 or 2 to 3, and to 4 that has no other end."""
    problem = chain([5.0, 5.0, 1.0, 5.0, 1.0], 1, 1.0)
    ends = {0: (1, 2, 4), 1: (3,), 2: (3,)}
    values = tuple(Value(f"v{n}", 1, n, ends.get(n, ()), n not in ends) for n in range(5))
    return replace(problem, values=values)


def test_nodes_beside_a_path_belong_to_the_joint_that_they_lead_to():
    spine = Spine(diamond(), [0, 1, 3])
    assert spine.joint == (True, False, True)
    assert spine.beside == ((), (), (2,))
    assert spine.apart == (4,)


def test_a_segment_holds_what_is_between_its_nodes():
    """Ops 0, 1 and 3 take 15 s and a launch; with op 2, which their segment holds too, it is a second more."""
    problem = diamond()
    weights = np.array([1.0, 1.0, 0.0, 1.0, 0.0])
    sets = DeviceSets(problem, Spine(problem, [0, 1, 3]), 1, 20.0, 2000)
    best, _ = sets.most(weights)
    assert sets.within(best, 16.9) == 2
    assert sets.within(best, 17.1) == 3


def test_fusion_saves_nothing_where_a_stretch_begins():
    problem = chain([5.0, 5.0, 5.0], 1, 1.0)
    problem = replace(problem, fusions=(Fusion(0, 1, {1: 4.0}), Fusion(1, 2, {1: 4.0})))
    sets = DeviceSets(problem, Spine(problem, [0, 1, 2]), 1, 20.0, 2000)
    best, _ = sets.most(np.array([0.0, 1.0, 1.0]))
    assert sets.within(best, 6.9) == 1
    assert sets.within(best, 7.1) == 2


def test_stretches_are_what_a_device_can_do():
    problem = chain([3.0, 10.0] * 6, 2, 5.0)
    sets = DeviceSets(problem, Spine(problem, heaviest_path(problem)), 1, 31.5, 2000)
    lengths = [len(one.nodes) for one in sets.stretches(1)]
    assert lengths == [*[4] * 9, 3, 2, 1]


@pytest.mark.parametrize("known", [float("inf"), 67.0])
def test_nothing_is_done_without_a_placement_or_time(known: float):
    problem = chain([3.0, 10.0] * 9, 2, 5.0)
    assert cover_bound(problem, device_classes(problem), evenly(problem), 1.5, known, until=0.0) == 1.5
    assert cover_bound(problem, device_classes(problem), evenly(problem), 1.5, float("inf")) == 1.5
