"""Which thread a step runs on, what runs at the same time, and what is copied: observed from inside the executors."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gimlet.runtime.errors import InputError
from gimlet.runtime.lanes import Inline, Lanes
from gimlet.runtime.program import Program
from gimlet.runtime.trace import Trace

X = np.array([[1, 2, 3, 4]], np.float32)
PATIENCE_S = 20


@pytest.fixture
def diamond(make_bundle, part) -> Path:
    """x → s0 on cpu and s1 on gpu0, which are independent → s2 on cpu, which adds them."""
    return make_bundle(
        [
            part("s0", "cpu", "Neg", ("x",), "a"),
            part("s1", "gpu0", "Neg", ("x",), "b"),
            part("s2", "cpu", "Add", ("a", "b"), "c"),
        ],
        kinds={"gpu0": "chip"},
    )


@pytest.fixture
def chain(make_bundle, part) -> Path:
    """x → s0 on cpu → s1, s2 on gpu0 → s3 on cpu."""
    return make_bundle(
        [
            part("s0", "cpu", "Neg", ("x",), "a"),
            part("s1", "gpu0", "Neg", ("a",), "b"),
            part("s2", "gpu0", "Neg", ("b",), "c"),
            part("s3", "cpu", "Neg", ("c",), "d"),
        ],
        kinds={"gpu0": "chip"},
    )


def test_independent_segments_of_two_devices_run_at_the_same_time(diamond: Path, chip, neg_program):
    meeting = threading.Barrier(2, timeout=PATIENCE_S)
    chip.during = lambda segment: meeting.wait() if segment in ("s0", "s1") else None
    with neg_program(diamond) as program:
        assert isinstance(program._runner, Lanes)
        np.testing.assert_array_equal(program(x=X)["c"], 2 * X)
    threads = {segment: thread for segment, thread, _ in chip.launches}
    assert threads["s0"] == threads["s2"] == threading.get_ident() != threads["s1"]


def test_a_chain_stays_on_the_caller_s_thread(chain: Path, chip, neg_program):
    with neg_program(chain) as program:
        assert isinstance(program._runner, Inline)
        np.testing.assert_array_equal(program(x=X)["d"], X)
    assert {thread for _, thread, _ in chip.launches} == {threading.get_ident()}


def test_requests_in_flight_overlap(chain: Path, chip, neg_program):
    meeting = threading.Barrier(2, timeout=PATIENCE_S)
    chip.during = lambda segment: meeting.wait() if segment == "s1" else None
    with neg_program(chain) as program:
        futures = [program.submit(x=X * factor) for factor in (1, 2)]
        for factor, future in zip((1, 2), futures, strict=True):
            np.testing.assert_array_equal(future.result(PATIENCE_S)["d"], X * factor)


def test_many_requests_over_lanes_do_not_wait_for_each_other_forever(diamond: Path, neg_program):
    with neg_program(diamond, inflight=4) as program:
        futures = [program.submit(x=X * factor) for factor in range(100)]
        for factor, future in enumerate(futures):
            np.testing.assert_array_equal(future.result(PATIENCE_S)["c"], 2 * X * factor)


@pytest.mark.parametrize("where", ["s0", "s1", "s2"])
def test_a_failure_in_any_lane_reaches_the_caller(diamond: Path, chip, neg_program, where: str):
    def fail(segment: str) -> None:
        if segment == where:
            raise InputError("no", where=segment)

    with neg_program(diamond) as program:
        chip.during = fail
        with pytest.raises(InputError, match=f"{where}: no"):
            program(x=X)
        chip.during = lambda segment: None
        np.testing.assert_array_equal(program(x=X)["c"], 2 * X)


def test_a_value_that_stays_on_a_device_is_not_copied(chain: Path, chip, neg_program):
    with neg_program(chain, on_chip=["gpu0"]) as program:
        np.testing.assert_array_equal(program(x=X)["d"], X)
        assert chip.copies == ["upload", "download"]
        np.testing.assert_array_equal(program(x=-X)["d"], -X)
    assert chip.copies == ["upload", "download"] * 2 + ["free"] * 3


def test_memory_on_a_device_goes_with_the_plan_that_it_was_for(chain: Path, chip, neg_program):
    with neg_program(chain, on_chip=["gpu0"]) as program:
        for rows in (8, 7, 6, 5, 4, 3, 2, 1):
            program(x=np.repeat(X, rows, axis=0))
        assert "free" not in chip.copies
        program(x=np.repeat(X, 8, axis=0))
    assert chip.copies.count("free") == 3 * 8


def test_a_value_between_two_host_devices_is_not_copied_either(chain: Path, neg_program):
    with neg_program(chain) as program:
        steps = program._machinery.schedule.steps
        assert [step.id for step in steps if type(step).__name__ == "CopyStep"] == []


def test_values_of_unknown_size_cross_to_a_device_s_memory(make_bundle, part, chip, neg_program):
    bundle = make_bundle(
        [part("s0", "cpu", "Neg", ("x",), "a", ("n", None)), part("s1", "gpu0", "Neg", ("a",), "b", None)],
        kinds={"gpu0": "chip"},
    )
    with neg_program(bundle, on_chip=["gpu0"]) as program:
        for rows in (1, 2, 1):
            x = np.repeat(X, rows, axis=0)
            np.testing.assert_array_equal(program(x=x)["b"], x)


@pytest.mark.parametrize("on_chip", [[], ["gpu0"]])
def test_asynchronous_executors_get_the_events_they_depend_on(chain: Path, chip, neg_program, on_chip: list[str]):
    with neg_program(chain, on_chip=on_chip, asynchronous=True) as program:
        np.testing.assert_array_equal(program(x=X)["d"], X)
    waits = {segment: count for segment, _, count in chip.launches}
    assert waits["s0"] == 0
    assert waits["s2"] == 1


def test_closing_closes_every_executor(chain: Path, neg_program: Callable[..., Program]):
    program = neg_program(chain)
    program.close()
    assert all(executor.closed for executor in program._executors)


@pytest.mark.parametrize("shape", ["chain", "diamond"])
def test_a_trace_has_every_launch_and_run(request, shape: str, neg_program, tmp_path: Path):
    path: Path = request.getfixturevalue(shape)
    with neg_program(path) as program:
        program.trace = Trace()
        program(x=X)
        program(x=X)
        program.trace.write(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    spans = sorted((tracks[event["tid"]], event["name"]) for event in events if event["ph"] == "X")
    devices = {"chain": ["cpu", "gpu0", "gpu0", "cpu"], "diamond": ["cpu", "gpu0", "cpu"]}[shape]
    launches = [(device, f"s{index}") for index, device in enumerate(devices)]
    assert spans == sorted(2 * [*launches, ("program", "run")])
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in events if event["ph"] == "X")


def test_closing_finishes_requests_that_had_not_begun(chain: Path, neg_program):
    """The array is asked for by the request's own thread, which waits there until the program is closing."""
    program = neg_program(chain)

    class Late:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            while not program._closed:
                time.sleep(0.001)
            return X

    future = program.submit(x=Late())
    program.close()
    np.testing.assert_array_equal(future.result(PATIENCE_S)["d"], X)
