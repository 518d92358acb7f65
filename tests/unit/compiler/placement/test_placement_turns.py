"""Pipelines whose devices have room for one launch each: orders of devices, groups of ops, and what is proven."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gimlet.compiler.placement.exact.cpsat import Limits
from gimlet.compiler.placement.exact.entrances import entrance_groups
from gimlet.compiler.placement.exact.turn_model import TurnModel
from gimlet.compiler.placement.exact.turns import solve_turns, turn_orders
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import (
    DeviceSpec,
    Fusion,
    Node,
    Option,
    Place,
    Placement,
    Problem,
    Route,
    Rules,
    Value,
)
from gimlet.compiler.placement.model.segments import carve, judge
from gimlet.compiler.placement.solve import solve

Make = Callable[..., Problem]
Try = Callable[[Problem], float | None]
SEEDS = st.integers(min_value=0, max_value=10_000)


def graph(edges: dict[int, tuple[int, ...]], seconds: list[float], launch_s: float = 40.0) -> Problem:
    """Ops on a host that is slow, and two devices that are alike; op 0 reads an input, the last one is the output."""
    count = len(seconds)
    nodes = tuple(Node(f"n{n}", "Op", {0: Option(30 * s), 1: Option(s), 2: Option(s)}) for n, s in enumerate(seconds))
    values = [Value("x", 1, None, (0,))]
    values += [Value(f"v{n}", 1, n, edges.get(n, ()), n == count - 1) for n in range(count)]
    links = {(a, b): Route(0.0, 0.1, ((f"from{a}", 0.1), (f"to{b}", 0.1))) for a, b in permutations(range(3), 2)}
    devices = (DeviceSpec("cpu"), *(DeviceSpec(f"gpu{n}", segment_overhead_s=launch_s) for n in (1, 2)))
    return Problem(devices, (Place(0), Place(1), Place(2)), nodes, tuple(values), links, rules=Rules("throughput"))


def test_an_op_may_be_where_only_fusion_makes_it_short_enough():
    problem = graph({0: (1,)}, [5.0, 50.0])
    problem = replace(problem, fusions=(Fusion(0, 1, {1: 30.0}),))
    model = TurnModel(problem, [(0,), (1,)], [1, 2], device_classes(problem), 30.0)
    assert [model.can(1, slot) for slot, device in enumerate(model.devices) if device] == [True, False]


def launched_long(problem: Problem, draw: Random) -> Problem:
    """Launches that no device but the host has room for twice, a host that is slow, casts, and links of many speeds."""
    devices = tuple(replace(spec, segment_overhead_s=40.0 if n else 1.0) for n, spec in enumerate(problem.devices))
    nodes = tuple(
        replace(
            node,
            options={
                place: replace(option, seconds=option.seconds * (draw.choice([1, 8]) if place == 0 else 1))
                for place, option in node.options.items()
            },
        )
        for node in problem.nodes
    )
    fusions = tuple(replace(f, seconds={p: s for p, s in f.seconds.items() if p}) for f in problem.fusions)
    rate = draw.choice([0.5, 4.0, 12.0])
    own = draw.random() < 0.7
    routes = {
        (a, b): replace(route, links=((f"from{a}", rate), (f"to{b}", rate)) if own else ((f"{a}{b}", rate),))
        for (a, b), route in problem.routes.items()
    }
    casts = draw.choice([0.0, 0.0, 1.0])
    places = tuple(replace(place, cast_s_per_byte=casts if place.device else 0.0) for place in problem.places)
    values = tuple(replace(value, cast_bytes=value.size_bytes) for value in problem.values)
    return replace(
        problem,
        devices=devices,
        nodes=nodes,
        fusions=fusions,
        routes=routes,
        places=places,
        values=values,
        rules=Rules("throughput"),
    )


@given(seed=SEEDS)
def test_no_placement_is_below_what_is_proven(random_problem: Make, best_by_trying: Try, seed: int):
    """With groups of every size, also such that the best placement splits."""
    draw = Random(seed)
    problem = launched_long(random_problem(seed, nodes=4, devices=draw.choice([2, 3])), draw)
    best = best_by_trying(problem)
    if best is None:
        return
    orders = turn_orders(problem, best)
    groups = entrance_groups(problem, draw.choice([0.0, 5.0, 100.0]))
    for most_s in (best, 0.9 * best):
        found = [
            TurnModel(problem, groups, order, device_classes(problem), most_s).solve(None, 10.0) for order in orders
        ]
        assert not orders or min(one.bound_s for one in found) <= best * (1 + 1e-9)


@given(seed=SEEDS)
def test_no_placement_with_whole_or_split_groups_is_below_its_order(random_problem: Make, seed: int):
    """Ops in long chains with few side branches, each in any turn that is not before those that it waits for."""
    draw = Random(seed)
    problem = launched_long(random_problem(seed, nodes=draw.randint(5, 12), devices=3), draw)
    values = tuple(
        replace(
            value, consumers=tuple(n for n in value.consumers if n - (value.producer or 0) <= draw.choice([1, 1, 2]))
        )
        for value in problem.values[1:]
    )
    nodes = tuple(replace(n, options={p: n.options.get(p, Option(3.0)) for p in range(3)}) for n in problem.nodes)
    problem = replace(
        problem,
        nodes=nodes,
        values=(problem.values[0], *values),
        fusions=tuple(
            Fusion(n.producer, c, {p: nodes[c].options[p].seconds * draw.choice([0.3, 0.9]) for p in (1, 2)})
            for n in values
            for c in n.consumers[:1]
            if n.producer is not None and c == n.producer + 1
        ),
    )
    order = draw.choice([[1, 2], [2, 1]])
    devices = [0, order[0], 0, order[1], 0]
    turn: list[int] = []
    for sources in problem.predecessors:
        least = max((turn[source] for source in sources), default=draw.randint(0, 1))
        turn.append(min(least + draw.choice([0, 0, 0, 1]), 4))
    period = judge(problem, Placement(tuple(devices[at] for at in turn), tuple(turn))).schedule.period_s
    groups = entrance_groups(problem, draw.choice([0.0, 5.0, 20.0, 1000.0]))
    model = TurnModel(problem, groups, order, device_classes(problem), period)
    assert model.solve(None, 10.0).bound_s <= period * (1 + 1e-9)
    for number, nodes in enumerate(groups):
        # Where its heads are in this turn, so that the model has to allow this placement and no other.
        model.model.add(model.at[number][turn[nodes[0]]] == 1)
    found = model.solve(None, 10.0)
    assert found.turn is not None


@given(seed=SEEDS)
def test_every_op_is_in_one_group_that_is_entered_at_its_head(random_problem: Make, seed: int):
    draw = Random(seed)
    problem = random_problem(seed, nodes=draw.randint(1, 14), devices=2)
    groups = entrance_groups(problem, draw.choice([0.0, 10.0, 1000.0]))
    assert sorted(node for nodes in groups for node in nodes) == list(range(len(problem.nodes)))
    group_of = {node: nodes for nodes in groups for node in nodes}
    for node, sources in enumerate(problem.predecessors):
        for source in sources:
            if group_of[source] != group_of[node]:
                assert node == group_of[node][0]
                assert source == group_of[source][-1]


def test_what_lies_between_an_op_and_the_next_that_all_goes_through_is_a_group():
    problem = graph({0: (1, 2), 1: (3,), 2: (3,), 3: (4,)}, [5.0, 1.0, 1.0, 1.0, 5.0])
    assert entrance_groups(problem, 3.0) == [(0, 1, 2, 3), (4,)]
    assert entrance_groups(problem, 2.9) == [(0,), (1,), (2,), (3,), (4,)]


def test_each_class_has_its_turns_where_no_device_has_room_for_two_launches():
    problem = graph({0: (1,)}, [5.0, 5.0])
    assert turn_orders(problem, 79.0) == [[1, 2]]
    assert turn_orders(problem, 80.0) == []
    devices = (*problem.devices[:2], replace(problem.devices[2], segment_overhead_s=50.0))
    assert turn_orders(replace(problem, devices=devices), 79.0) == [[1, 2], [2, 1]]
    assert turn_orders(problem, float("inf")) == []


def test_a_value_that_a_link_takes_too_long_for_does_not_cross_it():
    """Half of the work on each device would be 40 + 15, but the value between the halves takes 80 on a link."""
    problem = graph({0: (1,), 1: (2,), 2: (3,)}, [5.0, 10.0, 5.0, 10.0])
    values = tuple(replace(value, size_bytes=800) if value.name == "v1" else value for value in problem.values)
    problem = replace(problem, values=values)
    start = carve(problem, [1] * 4)
    best, bound = solve_turns(problem, start, [[1, 2]], float("inf"), 100.0)
    assert start.schedule.period_s == 70
    assert best.schedule.period_s == 60
    assert 59.4 < bound <= 60


def test_fusion_that_a_cut_undoes_is_in_the_bound():
    problem = graph({0: (1,), 1: (2,), 2: (3,)}, [6.0, 6.0, 6.0, 6.0])
    problem = replace(problem, fusions=tuple(Fusion(n, n + 1, {1: 5.0, 2: 5.0}) for n in (0, 1, 2)))
    best, bound = solve_turns(problem, carve(problem, [1, 1, 1, 2]), [[1, 2]], float("inf"), 100.0)
    assert best.schedule.period_s == 47
    assert 46.5 < bound <= 47


def test_without_time_nothing_is_found_or_proven():
    problem = graph({0: (1,)}, [5.0, 5.0])
    start = carve(problem, [1, 1])
    assert solve_turns(problem, start, [[1, 2]], 0.0, 100.0) == (start, 0.0)


def ladder(steps: int) -> Problem:
    """A chain with short cuts, so that little is on one path, of ops of many lengths."""
    draw = Random(5)
    seconds = [draw.choice([1.0, 2.0, 3.0]) for _ in range(steps)]
    edges = {n: tuple(m for m in (n + 1, n + 5) if m < steps) for n in range(steps - 1)}
    return graph(edges, seconds, launch_s=60.0)


def test_a_pipeline_of_one_launch_a_device_is_solved_and_proven():
    found = solve(ladder(42), Limits(work=4.0))
    assert found.gap < 0.01
    assert "turns" in found.steps
    assert sorted(launch.place for launch in found.schedule.launches if launch.place) == [1, 2]
