"""The latency bound with labels: what each device's own memory holds, priced and counted, below every placement."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.placement.bounds import least_latency as least_latency_module
from gimlet.compiler.placement.bounds import stream_bound as module
from gimlet.compiler.placement.bounds.latency_bound import LatencyRelaxation
from gimlet.compiler.placement.bounds.lower_bound import lower_bound
from gimlet.compiler.placement.bounds.relaxed_bound import resources
from gimlet.compiler.placement.bounds.stream_bound import StreamBound, stream_bound
from gimlet.compiler.placement.bounds.stream_ledger import Ledger, rates_of
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
from gimlet.compiler.placement.model.segments import carve
from gimlet.compiler.placement.solve import solve
from gimlet.runtime.errors import InfeasibleError

Make = Callable[..., Problem]
WithLevels = Callable[[Problem, int], Problem]
Best = Callable[[Problem], float | None]
SEEDS = st.integers(0, 10**6)


def cards(
    layers: int, size_bytes: int, stream_s: float, host_s: float, fast_bytes: int | None = 30, memory_bytes: int = 10**6
) -> Problem:
    """A chain of layers on a host and three equal cards: a second each on a card, and more where they are streamed.

    A transfer takes 2 s, and a launch on a card 3.
    """
    host = DeviceSpec("cpu")
    card = DeviceSpec("", memory_bytes, 3.0, fast_bytes=fast_bytes)
    places = range(1, 4)
    values = [Value("x", 0, None, (0,)), *(Value(f"v{n}", 0, n, (n + 1,)) for n in range(layers - 1))]
    return Problem(
        (host, *(replace(card, name=f"card{n}") for n in places)),
        tuple(Place(n) for n in range(4)),
        tuple(Node(f"n{n}", "Op", {0: Option(host_s), **dict.fromkeys(places, Option(1.0))}) for n in range(layers)),
        (*values, Value("y", 0, layers - 1, (), True)),
        {(a, b): Route(2.0, 0.0) for a in range(4) for b in range(4) if a != b},
        tuple(
            Weight(
                f"w{n}",
                (n,),
                dict.fromkeys(places, size_bytes),
                {p: {n: stream_s} for p in places} if fast_bytes else {},
            )
            for n in range(layers)
        ),
    )


def bound_of(problem: Problem) -> StreamBound:
    return stream_bound(problem, LatencyRelaxation(problem))


def reached(problem: Problem, found: StreamBound) -> float:
    return min(carve(problem, place).schedule.latency_s for place in found.places)


def with_alike(problem: Problem) -> Problem:
    """The problem with all devices but the host as the second one."""
    count = len(problem.devices)
    there, back = problem.routes[0, 1], problem.routes[1, 0]

    def same(figures: dict[int, Option]) -> dict[int, Option]:
        own = {0: figures[0]} if 0 in figures else {}
        return own | (dict.fromkeys(range(1, count), figures[1]) if 1 in figures else {})

    return replace(
        problem,
        devices=(problem.devices[0], *(replace(problem.devices[1], name=f"d{n}") for n in range(1, count))),
        nodes=tuple(replace(n, options=same(dict(n.options)) or {0: Option(5.0, 7.0, 1)}) for n in problem.nodes),
        routes={
            (a, b): there if a == 0 or (b and a < b) else back for a in range(count) for b in range(count) if a != b
        },
        weights=tuple(
            replace(
                weight,
                size_bytes={p: weight.size_bytes[min(p, 1)] for p in range(count)},
                stream_s={p: weight.stream_s[min(p, 1)] for p in range(count)} if weight.stream_s else {},
            )
            for weight in problem.weights
        ),
        fusions=(),
    )


def with_group(problem: Problem, draw: random.Random) -> Problem:
    """The problem with a group of its last two devices, which takes some nodes."""
    number, place = len(problem.devices), len(problem.places)
    spec = DeviceSpec("group", draw.choice([None, 5]), draw.choice([0.0, 1.0]), members=(number - 2, number - 1))
    routes = {(a, b): Route(1.0, 0.5) for d in range(number) for a, b in ((d, number), (number, d))} | dict(
        problem.routes
    )
    return replace(
        problem,
        devices=(*problem.devices, spec),
        places=(*problem.places, Place(number)),
        nodes=tuple(
            replace(node, options={**node.options, place: Option(float(draw.randint(0, 8)))})
            if draw.random() < 0.7
            else node
            for node in problem.nodes
        ),
        routes=routes,
        weights=tuple(
            replace(
                weight,
                size_bytes={**weight.size_bytes, place: weight.size_bytes[number - 1] // 2},
                stream_s={**weight.stream_s, place: weight.stream_s[number - 1]} if weight.stream_s else {},
            )
            for weight in problem.weights
        ),
    )


def small(random_problem: Make, with_levels: WithLevels, seed: int) -> Problem:
    draw = random.Random(seed)
    problem = random_problem(seed, 3, draw.choice([2, 3]), memory=True)
    problem = with_levels(problem, seed) if draw.random() < 0.8 else problem
    if draw.random() < 0.5:
        problem = replace(problem, devices=tuple(replace(spec, memory_bytes=None) for spec in problem.devices))
    if draw.random() < 0.3:
        problem = problem.with_rules(Rules(max_segments=draw.randint(1, 2)))
    problem = with_alike(problem) if draw.random() < 0.5 else problem
    return with_group(problem, draw) if draw.random() < 0.3 else problem


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_no_placement_is_below_the_bound(
    random_problem: Make, with_levels: WithLevels, best_by_trying: Best, seed: int
):
    problem = small(random_problem, with_levels, seed)
    best = best_by_trying(problem)
    if best is None:
        return
    free = bound_of(problem)
    assert free.seconds <= best * (1 + 1e-9) + 1e-9
    assert free.reached_s >= best * (1 - 1e-9)
    assert all(p in allowed for place in free.places for p, allowed in zip(place, problem.allowed, strict=True))
    # What is known to be reached cuts the search off, and nothing else.
    assert stream_bound(problem, LatencyRelaxation(problem), best).seconds <= best * (1 + 1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_merged_labels_are_still_a_bound(random_problem: Make, with_levels: WithLevels, seed: int):
    problem = small(random_problem, with_levels, seed)
    with pytest.MonkeyPatch.context() as patch:
        exact = bound_of(problem).seconds
        patch.setattr(module, "_MOST_LABELS", 1)
        assert bound_of(problem).seconds <= exact * (1 + 1e-9)


def test_merging_labels_keeps_the_least_of_each(monkeypatch: pytest.MonkeyPatch):
    problem = cards(9, 10, 8.0, 40.0)
    exact = bound_of(problem).seconds
    monkeypatch.setattr(module, "_MOST_LABELS", 2)
    assert bound_of(problem).seconds < exact


def test_what_labels_say_counts_where_no_placement_is_found_that_reaches_it(monkeypatch: pytest.MonkeyPatch):
    def unpriced(problem: Problem, price: float) -> tuple[Problem, float]:
        return problem, 1e9 * price

    def everything(problem: Problem) -> float:
        return 1e9 * len(problem.nodes)

    problem = cards(9, 10, 8.0, 40.0)
    monkeypatch.setattr(module, "_MOST_LABELS", 4)
    monkeypatch.setattr(least_latency_module, "fast_bytes_priced", unpriced)
    monkeypatch.setattr(least_latency_module, "all_kept_s", everything)
    found = lower_bound(problem)
    assert found.value == pytest.approx(26.0)
    assert found.reached > 27.0


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_labels_are_compared_with_all_before_them(random_problem: Make, with_levels: WithLevels, seed: int):
    problem = with_alike(with_levels(random_problem(seed, 7, 3, memory=True), seed))
    with pytest.MonkeyPatch.context() as patch:
        exact = bound_of(problem).seconds
        patch.setattr(module, "_CHUNK", 1)
        assert bound_of(problem).seconds == exact


def test_devices_that_are_filled_one_after_another_are_proven_to_be_needed():
    """Of nine layers a card keeps three: streaming six on one takes 48 s, and two more cards cost 10."""
    problem = cards(9, 10, 8.0, 40.0)
    found = bound_of(problem)
    assert found.seconds == pytest.approx(2 + 3 + 9 + 2 * 5 + 2)
    assert reached(problem, found) == pytest.approx(found.seconds)
    assert len(set(found.places[-1])) == 3


def test_a_card_has_only_its_own_memory():
    """Six layers are streamed by one card in 6 s, and a second would cost 5 for the three that it keeps."""
    problem = cards(9, 10, 1.0, 40.0)
    found = bound_of(problem)
    assert found.seconds == pytest.approx(2 + 3 + 9 + 6 + 2)
    assert reached(problem, found) == pytest.approx(found.seconds)


def test_streaming_everything_does_not_pay_for_a_part_of_it():
    """Nineteen layers on the host and one on a card would lose, and so would more: all stay on the host.

    A multiplier alone lets a part of a way with every layer on cards count.
    """
    problem = cards(20, 30, 3.5, 4.0)
    found = bound_of(problem)
    assert found.seconds == pytest.approx(20 * 4.0)
    assert lower_bound(problem, 80.0).value == pytest.approx(80.0)


def test_memory_that_is_full_sends_what_follows_to_the_next_card():
    problem = cards(8, 10, 0.0, 40.0, fast_bytes=None, memory_bytes=30)
    found = bound_of(problem)
    assert found.seconds == pytest.approx(2 + 3 + 8 + 2 * 5 + 2)
    assert reached(problem, found) == pytest.approx(found.seconds)
    assert not carve(problem, found.places[-1]).excess


def test_a_weight_of_two_layers_is_there_once():
    layers = cards(3, 20, 0.0, 40.0, fast_bytes=None, memory_bytes=30)
    shared = Weight("w", (0, 1), dict.fromkeys((1, 2, 3), 20))
    found = bound_of(replace(layers, weights=(shared, layers.weights[2])))
    assert found.seconds == pytest.approx(2 + 3 + 2 + 2 + 3 + 1 + 2)


def test_a_card_may_be_left_and_used_again():
    """The third of five layers is quick on the host alone, so the only card is used twice."""
    layers = cards(5, 10, 8.0, 40.0)
    problem = replace(
        layers,
        devices=layers.devices[:2],
        places=layers.places[:2],
        nodes=tuple(
            replace(node, options={0: Option(0.0)} if number == 2 else {p: node.options[p] for p in (0, 1)})
            for number, node in enumerate(layers.nodes)
        ),
        routes={(0, 1): Route(2.0, 0.0), (1, 0): Route(2.0, 0.0)},
        weights=tuple(replace(w, size_bytes={1: 10}, stream_s={1: w.stream_s[1]}) for w in layers.weights),
    )
    found = bound_of(problem)
    # Two launches, four transfers, four layers of which the last is streamed.
    assert found.seconds == pytest.approx(2 * 3 + 4 * 2 + 4 + 8)
    assert reached(problem, found) == pytest.approx(found.seconds)


def test_what_is_between_two_cards_is_on_the_card_that_was_filled_before():
    """Every layer but the last is followed by two nodes side by side without weights, which stay on its card."""
    layers = cards(9, 10, 8.0, 40.0)
    nodes, values, weights = list[Node](), [layers.values[0]], list[Weight]()
    for number, layer in enumerate(layers.nodes):
        first, last = len(nodes), number == 8
        sides = () if last else (first + 1, first + 2)
        nodes += [layer, *(Node(f"n{side}", "Op", layer.options) for side in sides)]
        weights.append(replace(layers.weights[number], users=(first,), stream_s={p: {first: 8.0} for p in (1, 2, 3)}))
        values.append(Value(f"v{first}", 0, first, sides, last))
        values += [Value(f"v{side}", 0, side, (first + 3,)) for side in sides]
    problem = replace(layers, nodes=tuple(nodes), values=tuple(values), weights=tuple(weights))
    found = bound_of(problem)
    assert found.seconds == pytest.approx(2 + 3 + 25 + 2 * 5 + 2)
    assert reached(problem, found) == pytest.approx(found.seconds)


def only_on(problem: Problem, place: Callable[[int], int]) -> Problem:
    """The problem with each node on one place."""
    pins = {number: frozenset({place(number)}) for number in range(len(problem.nodes))}
    return problem.with_rules(replace(problem.rules, pins=pins))


def capped(problem: Problem, segments: int) -> Problem:
    return problem.with_rules(replace(problem.rules, max_segments=segments))


def test_launches_are_counted_where_they_are_limited():
    """Layers go to and fro between the host and a card: five segments, each way 2 s, and twice 3 s for a launch."""
    problem = only_on(cards(5, 1, 0.0, 1.0), lambda number: number % 2)
    assert bound_of(capped(problem, 5)).seconds == pytest.approx(5 + 4 * 2 + 2 * 3)
    assert bound_of(capped(problem, 4)).seconds == float("inf")


def test_a_cap_on_launches_keeps_work_on_one_device():
    """Free, the host would do the layer in the middle; with one launch all stay on a card, with two as well."""
    layers = cards(5, 1, 0.0, 90.0)
    middle = Node("n2", "Op", {0: Option(0.0), **dict.fromkeys((1, 2, 3), Option(30.0))})
    problem = replace(layers, nodes=(*layers.nodes[:2], middle, *layers.nodes[3:]))
    alone = 2 + 3 + 4 + 30 + 2
    assert [bound_of(capped(problem, most)).seconds for most in (1, 2, 3)] == pytest.approx([alone, alone, 18.0])


def test_a_node_that_neither_joint_takes_is_a_launch_between_them():
    layers = cards(4, 1, 0.0, 90.0)
    values = (
        layers.values[0],
        Value("v0", 0, 0, (1, 2)),
        Value("v1", 0, 1, (3,)),
        Value("v2", 0, 2, (3,)),
        layers.values[-1],
    )
    diamond = replace(layers, values=values)
    problem = only_on(diamond, lambda number: 0 if number == 1 else 1)
    assert bound_of(capped(problem, 3)).seconds < bound_of(capped(problem, 2)).seconds == float("inf")
    together = only_on(diamond, lambda number: 1)
    assert bound_of(capped(together, 1)).seconds == pytest.approx(2 + 3 + 4 + 2)


def test_where_launches_are_too_few_no_latency_is_said_to_be_too_short():
    problem = capped(only_on(cards(5, 1, 0.0, 1.0), lambda number: number % 2), 2)
    with pytest.raises(InfeasibleError, match="at most 2 segments"):
        solve(problem.with_rules(replace(problem.rules, bounds={"latency": 1000.0})))


@pytest.mark.parametrize("of_group", [None, 1])
def test_a_group_has_its_members_memory(of_group: int | None):
    """What the file of a group says of memory is not looked at: two layers of 20 bytes on members of 30 do not fit."""
    layers = cards(2, 20, 0.0, 40.0, fast_bytes=None, memory_bytes=30)
    group = DeviceSpec("group", of_group, members=(1, 2))
    routes = {(a, b): Route(2.0, 0.0) for a in range(5) for b in range(5) if a != b}
    problem = replace(
        layers,
        devices=(*layers.devices, group),
        places=(*layers.places, Place(4)),
        nodes=tuple(replace(node, options={4: Option(1.0)}) for node in layers.nodes),
        routes=routes,
        weights=tuple(replace(weight, size_bytes={4: 10}) for weight in layers.weights),
    )
    best = carve(problem, (4, 4))
    assert not best.excess
    assert lower_bound(capped(problem, 9)).value == pytest.approx(best.schedule.latency_s)
    fuller = replace(problem, weights=tuple(replace(weight, size_bytes={4: 20}) for weight in problem.weights))
    assert [len(resources(p)) for p in (problem, fuller)] == [0, 2]


def test_weights_that_fit_nowhere_leave_no_way():
    problem = cards(4, 40, 0.0, 40.0, fast_bytes=None, memory_bytes=30)
    pinned = tuple(replace(n, options={p: o for p, o in n.options.items() if p}) for n in problem.nodes)
    assert bound_of(replace(problem, nodes=pinned)).seconds == float("inf")


def test_where_no_memory_binds_nothing_is_searched():
    found = bound_of(cards(3, 10, 1.0, 40.0, fast_bytes=30))
    assert found == StreamBound(0.0, float("inf"))


def test_what_is_reached_is_proven_without_the_other_bounds():
    problem = cards(9, 10, 8.0, 40.0)
    found = lower_bound(problem)
    assert found.value == found.reached == pytest.approx(26.0)


def test_rates_are_those_of_most_bytes():
    problem = cards(9, 10, 8.0, 40.0)
    assert rates_of(problem) == [0.8]
    dear = replace(problem.weights[0], stream_s={p: {0: 80.0} for p in (1, 2, 3)})
    assert rates_of(replace(problem, weights=(dear, *problem.weights[1:]))) == [0.8, 8.0]
    assert rates_of(replace(problem, weights=())) == [0.0]


def test_a_charge_is_at_most_what_streaming_takes():
    problem = cards(9, 10, 8.0, 40.0)
    for rate, charge in ((0.1, 1.0), (0.8, 8.0), (5.0, 8.0)):
        charged = Ledger(problem, rate).charged(1)
        assert [charged.nodes[4].options[p].seconds for p in range(4)] == [40.0, 1.0 + charge, 1.0, 1.0]
