"""Pipelines: devices that are alike, stages, evening out, and the bound on the period."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from random import Random
from time import perf_counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds.period_bound import period_bound
from gimlet.compiler.placement.bounds.period_program import PeriodProgram
from gimlet.compiler.placement.bounds.work_bound import work_bound
from gimlet.compiler.placement.model.alike import device_classes
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
from gimlet.compiler.placement.model.schedule import simulate
from gimlet.compiler.placement.model.segments import POLICIES, carve
from gimlet.compiler.placement.search.balance import Balance, balanced
from gimlet.compiler.placement.search.stages import orders, stage_cuts
from gimlet.compiler.placement.search.stretches import Stretches
from gimlet.compiler.placement.solve import solve

Make = Callable[..., Problem]
Levels = Callable[[Problem, int], Problem]
Try = Callable[[Problem], float | None]
SEEDS = st.integers(min_value=0, max_value=10_000)


def twinned(problem: Problem) -> Problem:
    """The problem with its last device there twice."""
    last = len(problem.devices) - 1
    twin = last + 1
    routes = dict(problem.routes)
    for (a, b), route in problem.routes.items():
        if last in (a, b):
            ends = (twin if a == last else a, twin if b == last else b)
            routes[ends] = replace(route, links=(("twin" + route.links[0][0], route.links[0][1]),))
    routes[last, twin] = routes[twin, last] = Route(1.0, 0.5, (("between", 0.5),))
    return replace(
        problem,
        devices=(*problem.devices, replace(problem.devices[last], name="twin")),
        places=(*problem.places, Place(twin)),
        nodes=tuple(
            replace(node, options={**node.options, **({twin: node.options[last]} if last in node.options else {})})
            for node in problem.nodes
        ),
        routes=routes,
        weights=tuple(replace(w, size_bytes={**w.size_bytes, twin: w.size_bytes[last]}) for w in problem.weights),
        fusions=tuple(
            replace(
                fusion,
                seconds={**fusion.seconds, **({twin: fusion.seconds[last]} if last in fusion.seconds else {})},
                joules={**fusion.joules, **({twin: fusion.joules[last]} if last in fusion.joules else {})},
            )
            for fusion in problem.fusions
        ),
        rules=replace(problem.rules, objective="throughput"),
    )


def layers(count: int, seconds: float = 10.0, devices: int = 4) -> Problem:
    """A chain of equal ops on a slow host and equal devices, all with a launch of 1 s."""
    return Problem(
        (DeviceSpec("cpu"), *(DeviceSpec(f"gpu{i}", segment_overhead_s=1.0) for i in range(devices))),
        tuple(Place(index) for index in range(devices + 1)),
        tuple(
            Node(f"n{i}", "Op", {0: Option(50 * seconds)} | dict.fromkeys(range(1, devices + 1), Option(seconds)))
            for i in range(count)
        ),
        tuple(Value(f"v{i}", 1, i - 1 if i else None, (i,) if i < count else (), i == count) for i in range(count + 1)),
        {
            (a, b): Route(0.1, 0.01, ((f"{a}-{b}", 0.01),))
            for a in range(devices + 1)
            for b in range(devices + 1)
            if a != b
        },
        rules=Rules("throughput"),
    )


def test_equal_devices_are_one_class():
    assert device_classes(layers(3)) == [[0], [1, 2, 3, 4]]


@pytest.mark.parametrize(
    "change",
    [
        lambda p: replace(p, devices=(*p.devices[:-1], replace(p.devices[-1], memory_bytes=10))),
        lambda p: replace(p, nodes=(replace(p.nodes[0], options={**p.nodes[0].options, 4: Option(9.0)}), *p.nodes[1:])),
        lambda p: replace(p, routes={**p.routes, (0, 4): Route(0.5, 0.01)}),
        lambda p: replace(p, routes={**p.routes, (3, 4): Route(0.5, 0.01)}),
        lambda p: replace(p, weights=(Weight("w", (0,), {1: 1, 2: 1, 3: 1, 4: 2}),)),
        lambda p: p.with_rules(replace(p.rules, pins={0: frozenset({0, 1, 2, 3})})),
        lambda p: p.with_rules(replace(p.rules, min_share={4: 0.1})),
    ],
)
def test_a_device_that_differs_is_not_of_the_class(change: Callable[[Problem], Problem]):
    assert [4] in device_classes(change(layers(3))) or [3] in device_classes(change(layers(3)))


def test_a_chain_is_cut_evenly_and_proven():
    """16 ops of 10 s on four devices: 40 s each, and a launch."""
    found = solve(layers(16))
    assert found.objective == pytest.approx(41.0)
    assert found.status == "optimal"
    assert found.slots == 0


def test_what_does_not_divide_is_known_not_to():
    """Five ops of 10 s on four devices: one has two of them, which the linear program alone would split."""
    problem = layers(5)
    assert 13 < period_bound(problem) < 14
    assert period_bound(problem, best_known=20.9) > 20.9
    assert solve(problem).objective == pytest.approx(21.0)


def test_going_to_and_fro_is_paid_for():
    """Ops that are quick on one device or the other in turn: each change of device is a launch on every path."""
    problem = layers(12, devices=2)
    nodes = tuple(
        replace(node, options={0: Option(500.0), 1: Option(1.0 + 9 * (i % 2)), 2: Option(10.0 - 9 * (i % 2))})
        for i, node in enumerate(problem.nodes)
    )
    devices = tuple(replace(device, segment_overhead_s=20.0) for device in problem.devices)
    assert period_bound(replace(problem, nodes=nodes, devices=devices)) > 45


@given(seed=SEEDS, memory=st.booleans())
def test_no_placement_is_below_the_bound(random_problem: Make, best_by_trying: Try, seed: int, memory: bool):
    problem = twinned(random_problem(seed, nodes=3, devices=2, memory=memory))
    best = best_by_trying(problem)
    if best is not None:
        assert period_bound(problem) <= best * (1 + 1e-6)
        assert min(period_bound(problem, best), best) >= period_bound(problem) * (1 - 1e-6)
        assert period_bound(problem, best * (1 + 1e-9)) <= best * (1 + 1e-6)


@given(seed=SEEDS, memory=st.booleans())
def test_a_bound_that_has_no_time_is_lower(random_problem: Make, best_by_trying: Try, seed: int, memory: bool):
    problem = twinned(random_problem(seed, nodes=3, devices=2, memory=memory))
    quick = work_bound(problem, device_classes(problem))
    quickest = work_bound(problem, device_classes(problem), until=0.0)
    assert period_bound(problem, until=0.0) == quickest <= quick * (1 + 1e-6)
    best = best_by_trying(problem)
    if best is not None:
        assert quick <= best * (1 + 1e-6)


def test_without_time_no_program_is_made(random_problem: Make, monkeypatch: pytest.MonkeyPatch):
    problem = random_problem(1, nodes=6, devices=3)
    monkeypatch.setattr("gimlet.compiler.placement.bounds.period_bound.PeriodProgram", None)
    assert period_bound(problem, until=0.0) > 0
    with pytest.raises(TypeError):
        period_bound(problem)


def test_the_first_program_is_a_bound_where_time_ends_the_others(monkeypatch: pytest.MonkeyPatch):
    solve, solved = PeriodProgram.solve, list[PeriodProgram]()

    def once(program: PeriodProgram, until: float = float("inf")) -> float | None:
        solved.append(program)
        return solve(program, until) if len(solved) == 1 else None

    problem = layers(6)
    whole = period_bound(problem, 1e3)
    monkeypatch.setattr(PeriodProgram, "solve", once)
    assert 0.9 * whole < period_bound(problem, 1e3, until=perf_counter() + 60) <= whole
    assert len(solved) == 2


def test_a_program_that_time_ended_is_not_read(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Its solver would say of every variable, on stderr, that there is no solution."""
    solve, solved = PeriodProgram.solve, set[PeriodProgram]()

    def once(program: PeriodProgram, until: float = float("inf")) -> float | None:
        if program not in solved:
            solved.add(program)
            return solve(program, until)
        program.solver.Add(program.period <= -1)
        program.solver.Solve()
        return None

    monkeypatch.setattr(PeriodProgram, "solve", once)
    assert period_bound(alternating(3, 12), 1e3) > 0
    assert not capfd.readouterr().err


def test_what_the_host_sends_is_work_for_a_link():
    nodes = tuple(Node(f"n{n}", "Op", {0: Option(100.0), 1: Option(1.0)}) for n in range(2))
    values = (Value("x", 30, None, (0, 1)), Value("y", 8, 0, (), True), Value("z", 8, 1, (), True))
    routes = {(0, 1): Route(0.0, 0.5, (("in", 0.5),)), (1, 0): Route(0.0, 2.0, (("out", 2.0),))}
    problem = Problem((DeviceSpec("cpu"), DeviceSpec("gpu")), (Place(0), Place(1)), nodes, values, routes)
    # Split, the host takes as long for its part of a node as the link for the results of the rest.
    assert work_bound(problem, device_classes(problem)) == pytest.approx(3200 / 116, rel=1e-6)


@given(seed=SEEDS)
def test_a_cap_on_segments_is_in_the_bound(random_problem: Make, best_by_trying: Try, seed: int):
    problem = twinned(random_problem(seed, nodes=3, devices=2))
    problem = problem.with_rules(replace(problem.rules, max_segments=1 + seed % 3))
    best = best_by_trying(problem)
    if best is not None:
        assert period_bound(problem, best * (1 + 1e-9)) <= best * (1 + 1e-6)


def branches() -> Problem:
    """Two branches of six ops; in the one an op is slow on device 1 where it is quick on device 2, and so on in turn.

    The other branch is heavier, and as quick everywhere.
    """
    far = Option(1000.0)
    turns = [{0: far, 1: Option(1.0 + 9 * (i % 2)), 2: Option(10.0 - 9 * (i % 2))} for i in range(6)]
    nodes = tuple(
        Node(f"n{n}", "Op", turns[n] if n < 6 else {0: far, 1: Option(4.0), 2: Option(4.0)}) for n in range(12)
    )
    values = tuple(Value(f"v{n}", 0, n, () if n in (5, 11) else (n + 1,)) for n in range(12))
    devices = (DeviceSpec("cpu"), *(DeviceSpec(f"d{d}", segment_overhead_s=20.0) for d in (1, 2)))
    routes = {(a, b): Route(0.0, 0.0) for a in range(3) for b in range(3) if a != b}
    return Problem(devices, tuple(Place(d) for d in range(3)), nodes, values, routes)


def test_launches_of_a_lighter_branch_are_paid_for():
    """The first program knows the heaviest path only."""
    problem = branches()
    program = PeriodProgram(problem, device_classes(problem), [[1], [2]], float("inf"))
    first = program.solve()
    assert first is not None
    assert program.tighten()
    second = program.solve()
    assert second is not None
    assert second > first + 1
    assert period_bound(problem) == pytest.approx(second)


def alternating(seed: int, count: int) -> Problem:
    """A chain, or two branches, of ops that are quick on one of three devices, some in a row on the same."""
    random = Random(seed)
    kinds = [{device: Option(float(random.choice((1, 2, 4, 20, 40)))) for device in range(3)} for _ in range(2)]
    nodes = tuple(Node(f"n{n}", "Op", kinds[n // random.randint(1, 3) % 2]) for n in range(count))
    half = count // 2 if seed % 2 else count
    ends = (half - 1, count - 1)
    values = tuple(Value(f"v{n}", 1, n, () if n in ends else (n + 1,), n in ends) for n in range(count))
    devices = tuple(DeviceSpec(f"d{d}", segment_overhead_s=float(random.choice((1, 3, 6)))) for d in range(3))
    rate = random.choice((0.01, 1.0, 4.0))
    routes = {(a, b): Route(0.0, rate, ((f"{a}>{b}", rate),)) for a in range(3) for b in range(3) if a != b}
    return Problem(devices, tuple(Place(d) for d in range(3)), nodes, values, routes, rules=Rules("throughput"))


def least_by_places(problem: Problem) -> float:
    """The best period of all choices of places, with as few segments as sweeps find."""
    every = product(range(len(problem.places)), repeat=len(problem.nodes))
    return min(carve(problem, places, POLICIES[:1]).schedule.period_s for places in every)


@settings(max_examples=10)
@given(seed=SEEDS)
@example(seed=49)
@example(seed=51)
def test_no_placement_that_changes_device_often_is_below_the_bound(seed: int):
    problem = alternating(seed, 5)
    best = least_by_places(problem)
    assert period_bound(problem) <= best * (1 + 1e-6)
    assert period_bound(problem, best * (1 + 1e-9)) <= best * (1 + 1e-6)


@pytest.mark.full
@settings(max_examples=60)
@given(seed=SEEDS, count=st.integers(4, 7))
def test_solving_is_trying_all_places(seed: int, count: int):
    """Ops that few changes of device are best for: solved, and tried one by one."""
    problem = alternating(seed, count)
    found = solve(problem)
    best = least_by_places(problem)
    assert found.bound <= best * (1 + 1e-6)
    assert found.objective <= best * (1 + 1e-4)


def test_links_come_into_the_program_where_they_are_busy():
    problem = layers(4, devices=2)
    values = tuple(replace(value, size_bytes=1000) for value in problem.values)
    routes = {ends: Route(0.0, 1.0, ((f"{ends}", 1.0),)) for ends in problem.routes}
    problem = replace(problem, values=values, routes=routes)
    program = PeriodProgram(problem, device_classes(problem), [[1, 2]], float("inf"))
    first = program.solve()
    assert first is not None
    while program.tighten():
        program.solve()
    last = program.solve()
    assert last is not None
    assert last > 10 * first
    assert last <= solve(problem).objective * (1 + 1e-6)


@given(seed=SEEDS)
def test_cuts_are_placements(random_problem: Make, seed: int):
    problem = twinned(random_problem(seed, nodes=10, devices=3))
    for order in orders(problem):
        position = {node: index for index, node in enumerate(order)}
        assert all(position[p] < position[n] for n in range(10) for p in problem.predecessors[n])
    for places in stage_cuts(problem):
        assert all(place in problem.allowed[node] for node, place in enumerate(places))


@given(seed=SEEDS, begin=st.integers(0, 7), length=st.integers(1, 8))
def test_a_stretch_streams_what_the_schedule_says(
    random_problem: Make, with_levels: Levels, seed: int, begin: int, length: int
):
    """Place 1 has a stretch of the nodes, place 0 all others."""
    problem = with_levels(random_problem(seed, nodes=8, devices=2, objective="throughput", memory=True), seed)
    nodes = tuple(replace(node, options={0: Option(1.0), 1: Option(1.0, None, 3)}) for node in problem.nodes)
    problem = replace(problem, nodes=nodes, fusions=())
    end = min(begin + length, 8)
    found = carve(problem, tuple(int(begin <= node < end) for node in range(8))).schedule
    seconds = Stretches(problem, range(8), 1).seconds(begin, end)
    most = problem.devices[1].memory_bytes
    if most is not None and found.memory_bytes[1] > most:
        assert seconds == float("inf")
    else:
        assert seconds == pytest.approx(sum(found.streamed.seconds.get(node, 0.0) for node in range(begin, end)))


def test_stages_are_cut_for_the_memory_that_devices_have():
    """Eight layers of 10 s; the first device keeps two weights and streams one in 10 s, the second holds three."""
    problem = layers(8, devices=2)
    problem = replace(
        problem,
        devices=(*problem.devices[:1], replace(problem.devices[1], fast_bytes=2), problem.devices[2]),
        weights=tuple(Weight(f"w{n}", (n,), {1: 1, 2: 1}, {1: {n: 10.0}}) for n in range(8)),
    )
    assert {carve(problem, cut).schedule.period_s for cut in stage_cuts(problem)} == {51.0}
    short = replace(problem, devices=(*problem.devices[:2], replace(problem.devices[2], memory_bytes=3)))
    assert {carve(short, cut).schedule.period_s for cut in stage_cuts(short)} == {81.0}


@given(seed=SEEDS, kicks=st.sampled_from([0, 3]))
def test_evening_out_never_makes_it_worse(random_problem: Make, seed: int, kicks: int):
    problem = twinned(random_problem(seed, nodes=10, devices=3))
    start = carve(problem, [allowed[seed % len(allowed)] for allowed in problem.allowed])
    found = balanced(problem, start, kicks, seed)
    assert found.schedule.period_s <= start.schedule.period_s * (1 + 1e-9)


@given(seed=SEEDS)
def test_loads_are_those_of_the_schedule(random_problem: Make, seed: int):
    """What evening out believes the period to be is what the schedule says, whatever was moved on the way."""
    problem = twinned(random_problem(seed, nodes=10, devices=3))
    start = carve(problem, [allowed[seed % len(allowed)] for allowed in problem.allowed])
    balance = Balance(problem, start.placement)
    placement = balance.run(4, Random(seed))
    assert balance.figure() == pytest.approx(simulate(problem, placement).period_s)


@settings(max_examples=20)
@given(seed=SEEDS)
def test_segments_that_are_joined_have_the_loads_of_the_schedule(random_problem: Make, seed: int):
    problem, draw = twinned(random_problem(seed, nodes=10, devices=3)), Random(seed)
    start = carve(problem, [draw.choice(allowed) for allowed in problem.allowed])
    balance = Balance(problem, start.placement)
    for number in sorted(balance.place_of):
        for change in balance._joins(number):  # pyright: ignore[reportPrivateUsage]
            loads = balance._loads_after(change)  # pyright: ignore[reportPrivateUsage]
            back = balance._apply(change)  # pyright: ignore[reportPrivateUsage]
            period = simulate(problem, balance.placement()).period_s
            assert max({**balance.load, **loads}.values()) == pytest.approx(period)
            balance._apply(back)  # pyright: ignore[reportPrivateUsage]


def test_long_segments_are_joined_with_what_is_between_them():
    """A chain of 61 ops of 1 s, on one device but for the middle one; a launch takes 100 s, more than a move saves."""
    problem = layers(61, seconds=1.0, devices=2)
    devices = (problem.devices[0], *(replace(d, segment_overhead_s=100.0) for d in problem.devices[1:]))
    problem = replace(problem, devices=devices)
    start = carve(problem, (1,) * 30 + (2,) + (1,) * 30)
    assert start.schedule.period_s == pytest.approx(260.0)
    balance = Balance(problem, start.placement)
    (joined,) = balance._joins(0)  # pyright: ignore[reportPrivateUsage]
    assert balance._best_change([joined])  # pyright: ignore[reportPrivateUsage]
    assert balance.figure() == pytest.approx(161.0)


@given(seed=SEEDS)
def test_streamed_weights_are_in_the_loads(random_problem: Make, with_levels: Levels, seed: int):
    problem = with_levels(random_problem(seed, nodes=10, devices=3, objective="throughput", memory=True), seed)
    start = carve(problem, [allowed[seed % len(allowed)] for allowed in problem.allowed])
    balance = Balance(problem, start.placement)
    assert balance.figure() == pytest.approx(start.schedule.period_s)
    placement = balance.run(4, Random(seed))
    schedule = simulate(problem, placement)
    assert balance.figure() == pytest.approx(schedule.period_s)
    for device, size in schedule.memory_bytes.items():
        most = problem.devices[device].memory_bytes
        assert most is None or size <= max(most, start.schedule.memory_bytes.get(device, 0))


def test_evening_out_knows_that_fast_memory_is_full():
    """Eight layers, 1 s or 20 s on a device that has room for two weights, each of which takes 10 s to stream."""
    problem = layers(8, seconds=20.0, devices=2)
    problem = replace(
        problem,
        devices=(*problem.devices[:2], replace(problem.devices[2], fast_bytes=2)),
        nodes=tuple(replace(n, options={0: Option(1e3), 1: Option(20.0), 2: Option(1.0)}) for n in problem.nodes),
        weights=tuple(Weight(f"w{n}", (n,), {1: 1, 2: 1}, {2: {n: 10.0}}) for n in range(8)),
    )
    found = balanced(problem, carve(problem, (1,) * 4 + (2,) * 4), kicks=4)
    # Three layers take 61 s on the one device, and five 1 + 5 + 30 s on the other; two take 41 s, and six 47 s.
    assert found.schedule.period_s == pytest.approx(47.0)


def test_pins_that_go_to_and_fro_leave_no_cut_and_are_met():
    problem = layers(3, devices=1)
    pins = {0: frozenset({0}), 1: frozenset({1}), 2: frozenset({0})}
    problem = problem.with_rules(Rules("throughput", pins=pins))
    assert stage_cuts(problem) == []
    assert solve(problem).placement.place == (0, 1, 0)


def test_ops_that_one_device_is_far_better_at_leave_segments_for_it():
    """Six layers on two equal devices; every second op takes 40 s there and 1 s on a third, a launch 5 s anywhere."""
    count = 12
    devices = tuple(DeviceSpec(name, segment_overhead_s=5.0) for name in ("gpu0", "gpu1", "sram0"))
    nodes = tuple(
        Node(f"n{index}", "Op", {place: Option(seconds) for place, seconds in enumerate(own)})
        for index in range(count)
        for own in [((40.0, 40.0, 1.0) if index % 2 else (40.0, 40.0, 4000.0))]
    )
    values = [Value("x", 1, None, (0,))]
    values += [Value(f"v{index}", 1, index, (index + 1,)) for index in range(count - 1)]
    values.append(Value("y", 1, count - 1, (), True))
    routes = {(a, b): Route(1.0, 0.01, ((f"{a}{b}", 0.01),)) for a in range(3) for b in range(3) if a != b}
    problem = Problem(
        devices, tuple(map(Place, range(3))), nodes, tuple(values), routes, rules=Rules(objective="throughput")
    )
    start = carve(problem, (0,) * 6 + (1,) * 6)
    found = balanced(problem, start)
    # Three ops of 40 s and three launches a device, where six ops took 245 s.
    assert found.schedule.period_s == pytest.approx(3 * 40 + 3 * 5)
    assert found.schedule.device_busy_s[2] == pytest.approx(6 * (1 + 5))
