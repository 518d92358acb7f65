"""A placement over time: figures by hand."""

from dataclasses import replace

import pytest

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
    Weight,
)
from gimlet.compiler.placement.model.schedule import simulate, violations
from gimlet.compiler.placement.model.segments import judge, sweep
from gimlet.runtime.errors import InputError

CPU, GPU = 0, 1


def node(name: str, cpu: float, gpu: float) -> Node:
    return Node(name, "Op", {CPU: Option(cpu, 2 * cpu, 5), GPU: Option(gpu, 10 * gpu, 7)}, flops=1.0)


# x → a → b → d → y, with c beside b: a diamond.
DIAMOND = Problem(
    devices=(
        DeviceSpec("cpu", 100, 1.0, idle_w=1.0, load_w=2.0, usd_per_hour=3600.0),
        DeviceSpec("gpu0", 50, 2.0, idle_w=5.0, load_w=10.0, usd_per_hour=7200.0),
    ),
    places=(Place(CPU), Place(GPU, "t", "fp16")),
    nodes=(node("a", 4.0, 1.0), node("b", 10.0, 2.0), node("c", 3.0, 9.0), node("d", 5.0, 1.0)),
    values=(
        Value("x", 10, None, (0,)),
        Value("va", 20, 0, (1, 2)),
        Value("vb", 30, 1, (3,)),
        Value("vc", 40, 2, (3,)),
        Value("y", 10, 3, (), True),
    ),
    routes={(0, 1): Route(1.0, 0.1, (("l>", 0.1),)), (1, 0): Route(1.0, 0.2, (("l<", 0.2),))},
    weights=(Weight("w", (0, 1), {CPU: 30, GPU: 15}),),
)


def test_one_device_is_one_launch_after_another():
    schedule = simulate(DIAMOND, Placement((0, 0, 0, 0), (0, 0, 0, 0)))
    assert schedule.latency_s == 1.0 + 4 + 10 + 3 + 5
    assert schedule.period_s == 23.0
    assert schedule.transfers == ()
    assert schedule.energy_j == 2 * 22 + 1.0 * (23 - 22)
    assert schedule.cost_usd == pytest.approx(23.0)
    assert schedule.memory_bytes == {CPU: 35}


def test_transfers_launches_and_waiting_count():
    """a, b and d on gpu0 with c on cpu: c's input leaves when a's segment has ended."""
    schedule = simulate(DIAMOND, Placement((1, 1, 0, 1), (0, 2, 1, 3)))
    x_there = 1.0 + 10 * 0.1
    a_end = x_there + 2.0 + 1.0
    c_end = a_end + (1.0 + 20 * 0.2) + 1.0 + 3.0
    b_end = a_end + 2.0 + 2.0
    d_end = max(b_end, c_end + 1.0 + 40 * 0.1) + 2.0 + 1.0
    assert schedule.latency_s == pytest.approx(d_end + 1.0 + 10 * 0.2)
    assert [launch.place for launch in schedule.launches] == [1, 0, 1, 1]
    assert schedule.device_busy_s == {CPU: 4.0, GPU: 2.0 + 1 + 2 + 2 + 2 + 1}
    assert schedule.link_busy_s == {"l>": pytest.approx(5.0), "l<": pytest.approx(6.0)}
    assert schedule.period_s == 10.0
    assert schedule.memory_bytes == {CPU: 5, GPU: 22}


def test_a_launch_is_atomic():
    """With a and b in one segment, c waits for b although it does not need it."""
    apart = simulate(DIAMOND, Placement((1, 1, 0, 1), (0, 2, 1, 3)))
    together = simulate(DIAMOND, Placement((1, 1, 0, 1), (0, 0, 1, 2)))
    assert together.launches[1].start_s > apart.launches[1].start_s


def test_values_of_one_segment_travel_as_one_batch_and_once_to_each_device():
    schedule = simulate(DIAMOND, Placement((0, 1, 1, 1), (0, 1, 1, 1)))
    assert [DIAMOND.values[t.value].name for t in schedule.transfers] == ["va", "y"]
    both = simulate(DIAMOND, Placement((1, 0, 1, 0), (0, 1, 0, 2)))
    batch = [transfer for transfer in both.transfers if transfer.source == GPU]
    assert {DIAMOND.values[t.value].name for t in batch} == {"va", "vc"}
    assert {transfer.end_s - transfer.start_s for transfer in batch} == {1.0 + (20 + 40) * 0.2}


def test_fusion_saves_only_within_a_segment():
    fused = replace(DIAMOND, fusions=(Fusion(0, 1, {GPU: 1.5}, {GPU: 4.0}),))
    together, apart = Placement((1, 1, 1, 1), (0, 0, 0, 0)), Placement((1, 1, 1, 1), (0, 1, 1, 1))
    assert simulate(DIAMOND, together).latency_s - simulate(fused, together).latency_s == pytest.approx(1.5)
    assert simulate(DIAMOND, apart).latency_s == simulate(fused, apart).latency_s


def test_segments_that_wait_for_each_other_are_refused():
    with pytest.raises(InputError, match="not in an order in which they can run"):
        simulate(DIAMOND, Placement((1, 0, 1, 1), (0, 1, 0, 0)))
    with pytest.raises(InputError, match="one segment is on several places"):
        simulate(DIAMOND, Placement((1, 0, 1, 1), (0, 0, 0, 0)))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Rules(min_share={GPU: 0.5}), "gpu0 has 0.0% of the FLOPs, not 50.0%"),
        (Rules(bounds={"latency": 5.0}), "latency is 23, above 5"),
        (Rules(apart=(((0,), (2,)),)), "a and c must be apart, and both are on cpu"),
        (Rules(pins={2: frozenset({GPU})}), "c may not be on cpu (fp32)"),
        (Rules(max_segments=0), "1 segments, above 0"),
    ],
)
def test_broken_rules_are_named(rules: Rules, message: str):
    problem = DIAMOND.with_rules(rules)
    placement = Placement((0, 0, 0, 0), (0, 0, 0, 0))
    (found,) = violations(problem, placement, simulate(problem, placement))
    assert found[1] == message
    assert found[0] > 0


def test_memory_and_togetherness_are_checked():
    small = replace(DIAMOND, devices=(DIAMOND.devices[0], replace(DIAMOND.devices[1], memory_bytes=20)))
    placement = Placement((1, 1, 1, 1), (0, 0, 0, 0))
    assert judge(small, placement).excess == pytest.approx(22 / 20 - 1)
    apart = DIAMOND.with_rules(Rules(together=((0, 3),)))
    assert judge(apart, Placement((1, 1, 0, 0), (0, 0, 1, 1))).excess == 1.0
    assert judge(apart, Placement((1, 1, 0, 1), (0, 0, 1, 2))).excess == 0.0


@pytest.mark.parametrize("late", [False, True])
def test_a_sweep_makes_valid_segments(late: bool):
    segments = sweep(DIAMOND, (1, 1, 0, 1), lambda _, ready: min(ready), late)
    assert simulate(DIAMOND, Placement((1, 1, 0, 1), segments)).latency_s > 0
    assert len(set(segments)) == 3
