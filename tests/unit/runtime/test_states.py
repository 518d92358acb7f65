"""States: what a program keeps from run to run, in which memory, and what happens when runs collide or fail."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gimlet
from gimlet.runtime.errors import InputError
from gimlet.runtime.manifest import Manifest, StateEntry
from gimlet.runtime.program import Program
from gimlet.runtime.signature import Constant, Series, Signature, Table, TensorLeaf


def kept(manifest: Manifest, *, in_place: bool = False) -> Manifest:
    """The manifest with its input `total` as a state, which the value `sum` becomes."""
    states = (StateEntry("total", "sum", "total", "sum", (8, 4), in_place),)
    inputs = tuple(port for port in manifest.inputs if port.name != "total")
    return replace(manifest, inputs=inputs, states=states)


Load = Callable[..., Program]


@pytest.fixture
def adder(make_bundle: Any, part: Any) -> Callable[..., Path]:
    """A bundle that keeps the sum of all its inputs, on `device`, and returns the negative of that."""

    def make(device: str = "cpu", *, in_place: bool = False) -> Path:
        given = {"x": ("float32", ("n", "4")), "total": ("float32", ("n", "4"))}
        parts = [
            part("s0", device, "Add", ("total", "x"), "sum"),
            part("s1", device, "Neg", ("sum",), "y"),
        ]

        def change(manifest: Manifest) -> Manifest:
            values = tuple(replace(value, device=device) if value.id == "total" else value for value in manifest.values)
            return kept(replace(manifest, values=values), in_place=in_place)

        if device != "cpu":
            return make_chip(make_bundle, part, change)
        return make_bundle(parts, inputs=given, outputs=["y"], kinds={}, change=change)

    return make


def make_chip(make_bundle: Any, part: Any, change: Callable[[Manifest], Manifest]) -> Path:
    """The same on a device with memory of its own, where the state is."""

    def without_its_transfer(manifest: Manifest) -> Manifest:
        steps = [step for step in manifest.steps if getattr(step, "source", "") != "total"]
        gone = {step.id for step in manifest.steps} - {step.id for step in steps}
        steps = [
            replace(
                step,
                after=tuple(name for name in step.after if name not in gone),
                **(
                    {"inputs": tuple(i.replace("total@gpu0", "total") for i in step.inputs)}
                    if hasattr(step, "inputs")
                    else {}
                ),
            )
            for step in steps
        ]
        values = tuple(value for value in manifest.values if value.id != "total@gpu0")
        return change(replace(manifest, steps=tuple(steps), values=values))

    given = {"x": ("float32", ("n", "4")), "total": ("float32", ("n", "4"))}
    parts = [part("s0", "gpu0", "Add", ("total", "x"), "sum"), part("s1", "gpu0", "Neg", ("sum",), "y")]
    kinds = {"gpu0": "nvidia/l4"}
    return make_bundle(parts, inputs=given, outputs=["y"], kinds=kinds, change=without_its_transfer)


ONES = np.ones((2, 4), np.float32)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_state_adds_up_over_runs_and_is_zeros_after_a_reset(adder: Any, in_place: bool):
    with gimlet.load(adder(in_place=in_place)) as program:
        assert [spec.name for spec in program.inputs] == ["x"]
        assert [str(spec.name) for spec in program.states] == ["total"]
        for step in range(1, 4):
            np.testing.assert_array_equal(program(x=ONES)["y"], -step * ONES)
        program.reset()
        np.testing.assert_array_equal(program(x=ONES)["y"], -ONES)


def test_each_sequence_has_a_state_of_its_own(adder: Any):
    with gimlet.load(adder()) as program, program.state() as first, program.state() as second:
        assert first.values() == {}
        first(x=ONES)
        np.testing.assert_array_equal(second(x=5 * ONES)["y"], -5 * ONES)
        np.testing.assert_array_equal(first.run({"x": ONES})["y"], -2 * ONES)
        np.testing.assert_array_equal(program(x=ONES)["y"], -ONES)
        np.testing.assert_array_equal(first.values()["total"], 2 * ONES)
        second.load(first.values())
        np.testing.assert_array_equal(second(x=ONES)["y"], -3 * ONES)


def test_a_state_stays_in_the_memory_of_its_device(adder: Any, neg_program: Load, chip: Any):
    with neg_program(adder("gpu0"), on_chip=["gpu0"]) as program:
        program(x=ONES)
        chip.copies.clear()
        # The test's executor takes the negative of a sum: 1 + (−1) is 0, and y is its negative.
        np.testing.assert_array_equal(program(x=ONES)["y"], 0 * ONES)
        np.testing.assert_array_equal(program(x=ONES)["y"], ONES)
        assert chip.copies == ["upload", "download"] * 2, "the input and the output, and no state"
        chip.copies.clear()
        state = program.state()
        state.load({"total": 7 * ONES})
        np.testing.assert_array_equal(state.values()["total"], 7 * ONES)
        state.close()
        state.close()
        assert chip.copies == ["upload", "download", "free", "free"]


def test_a_state_that_is_in_place_has_one_memory(adder: Any, neg_program: Load, chip: Any):
    with neg_program(adder("gpu0", in_place=True), on_chip=["gpu0"]) as program:
        state = program.state()
        state.close()
        assert chip.copies == ["free"]


def test_runs_of_one_state_do_not_overlap(adder: Any, neg_program: Load, chip: Any):
    begun, go_on = threading.Event(), threading.Event()

    def during(segment: str) -> None:
        if segment == "s0":
            begun.set()
            go_on.wait(60)

    chip.during = during
    with neg_program(adder()) as program:
        running = program.submit(x=ONES)
        begun.wait(60)
        with pytest.raises(InputError, match="the state is in use by another run"):
            program(x=ONES)
        for refused in (program.reset, lambda: program.state().load({})):
            with pytest.raises(InputError):
                refused()
        go_on.set()
        np.testing.assert_array_equal(running.result()["y"], ONES)


def test_what_is_submitted_on_a_state_runs_in_order(adder: Any):
    with gimlet.load(adder(), inflight=4) as program:
        states = [program, program.state(), program.state()]
        futures = [[state.submit_run({"x": ONES}) for state in states] for _ in range(20)]
        for step, runs in enumerate(futures, 1):
            for run in runs:
                np.testing.assert_array_equal(run.result()["y"], -step * ONES)
        wrong = program.submit(x=ONES.astype(np.int64))
        right = program.submit(x=ONES)
        with pytest.raises(InputError, match="has elements of int64"):
            wrong.result()
        np.testing.assert_array_equal(right.result()["y"], -21 * ONES)


def test_a_cancelled_run_is_left_out(adder: Any, neg_program: Load, chip: Any):
    begun, go_on = threading.Event(), threading.Event()

    def during(segment: str) -> None:
        begun.set()
        go_on.wait(60)

    chip.during = during
    with neg_program(adder()) as program:
        first = program.submit(x=ONES)
        begun.wait(60)
        second, third = program.submit(x=ONES), program.submit(x=ONES)
        assert second.cancel()
        go_on.set()
        np.testing.assert_array_equal(first.result()["y"], ONES)
        np.testing.assert_array_equal(third.result()["y"], 0 * ONES)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_run_that_fails_leaves_the_state_or_says_that_it_is_torn(
    adder: Any, neg_program: Load, chip: Any, in_place: bool
):
    def fail(segment: str) -> None:
        if segment == "s1":
            raise InputError("too hot")

    with neg_program(adder(in_place=in_place)) as program:
        program(x=ONES)
        chip.during = fail
        with pytest.raises(InputError, match="too hot"):
            program(x=ONES)
        chip.during = lambda segment: None
        if in_place:
            with pytest.raises(InputError, match=r"may have left a part of a step in the state[\s\S]*reset\(\)"):
                program(x=ONES)
            program.reset()
            program(x=ONES)
        np.testing.assert_array_equal(program(x=ONES)["y"], 0 * ONES)


def test_wrong_shapes_and_values_of_a_state_are_named(adder: Any):
    with gimlet.load(adder()) as program:
        program(x=ONES)
        with pytest.raises(InputError, match=r"state 'total': has shape \[2, 4\]: n is 2 here and 1 in .*'x'.*"):
            program(x=ONES[:1])
        state = program.state()
        for values, message in (
            ({}, r"state 'total': is missing"),
            ({"total": np.ones((2, 4))}, r"state 'total': is float64\[2, 4\], and the state"),
            ({"total": np.ones((9, 4), np.float32)}, r"has shape \[9, 4\], and there is room for \[8, 4\]"),
            ({"total": ONES, "rest": ONES}, r"state 'rest': there is no such state; there are total"),
        ):
            with pytest.raises(InputError, match=message):
                state.load(values)
        state.close()
        with pytest.raises(InputError, match="the state was closed"):
            state(x=ONES)


def test_a_first_run_that_fails_does_not_begin_a_sequence(adder: Any, neg_program: Load, chip: Any):
    def fail(segment: str) -> None:
        raise InputError("too hot")

    with neg_program(adder()) as program:
        chip.during = fail
        with pytest.raises(InputError, match="too hot"):
            program(x=ONES)
        chip.during = lambda segment: None
        np.testing.assert_array_equal(program(x=ONES[:1])["y"], ONES[:1])


def test_a_program_without_a_state_says_so(make_bundle: Any, part: Any):
    with gimlet.load(make_bundle([part("s0", "cpu", "Neg", ("x",), "y")])) as program:
        for ask in (program.state, program.reset):
            with pytest.raises(InputError, match="the program keeps no state"):
                ask()


def test_a_call_leaves_states_out_and_returns_none_for_them():
    past = Series("tuple", (TensorLeaf("k"), TensorLeaf("v")))
    result = Series("tuple", (TensorLeaf("y"), Series("list", (TensorLeaf("k2"), TensorLeaf("v2")))))
    signature = Signature(("x", "past"), (TensorLeaf("x"), past), Table("dict", ("more",), (TensorLeaf("m"),)), result)
    left = signature.without({"k", "v", "m"}, {"k2", "v2"})
    assert left.feeds(["a"], {}) == left.feeds(["a", None], {"more": None}) == {"x": "a"}
    assert left.returned({"y": "b"}) == ("b", None)
    assert left.args[1] == Constant(None)
    with pytest.raises(InputError, match="argument 'past'"):
        left.feeds(["a", ("k", "v")], {})
