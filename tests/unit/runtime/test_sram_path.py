"""The longest path of a program has every cycle once, and says what would make the program quicker."""

from dataclasses import replace

import pytest
from tests.unit.runtime.sram_programs import MACHINE, matmul_program, resident_program, two_kernels

from gimlet.runtime.sram.binding import bind
from gimlet.runtime.sram.cycles import time_program
from gimlet.runtime.sram.path import longest_path, path_summary
from gimlet.runtime.sram.program import Program

INSIDE, CROSSING = "latency inside chiplets", "latency between chiplets"


def path_of(each: Program):
    return longest_path(bind(each, {}))


def cycles_of(each: Program) -> float:
    return max(kernel.end for kernel in time_program(bind(each, {})).kernels)


@pytest.mark.parametrize(
    "each",
    [
        matmul_program(100, 300, 100),
        matmul_program(300, 4000, 100),
        matmul_program(32, 64, 64, copies=1),
        resident_program(),
        resident_program(adds=True),
        two_kernels(),
        two_kernels(replace(MACHINE, sram_bytes_per_cycle=4)),
    ],
    ids=["loads", "repetitions", "one copy", "weights that stay", "adds", "semaphores", "bytes"],
)
def test_the_path_has_every_cycle_once(each: Program):
    path = path_of(each)
    assert sum(path.values()) == pytest.approx(cycles_of(each))
    assert "not followed" not in path


def test_dependent_kernels_have_two_hops_each_and_a_semaphore():
    path = path_of(two_kernels())
    machine = MACHINE
    assert path[INSIDE] == 4 * machine.network_latency_cycles
    assert path["semaphores"] == machine.semaphore_cycles
    assert path["vector unit"] > 0
    assert path["matrix unit"] > 0


@pytest.mark.parametrize(
    ("name", "what", "cycles"),
    [("network_latency_cycles", INSIDE, 60), ("semaphore_cycles", "semaphores", 8)],
)
def test_what_the_path_says_is_what_a_better_machine_saves(name: str, what: str, cycles: int):
    """A cycle less of a latency saves as many cycles as the path has of these latencies."""
    each, quicker = (two_kernels(replace(MACHINE, **{name: value})) for value in (cycles, cycles - 1))
    assert path_of(each)[what] == pytest.approx(cycles * (cycles_of(each) - cycles_of(quicker)))


def test_bytes_that_decide_are_said():
    assert path_of(two_kernels(replace(MACHINE, sram_bytes_per_cycle=4)))["bytes of SRAM"] > 0


def test_the_summary_is_one_line():
    assert path_summary({"matrix unit": 12.4, INSIDE: 60.0}) == f"longest path:  matrix unit 12  {INSIDE} 60"
    assert path_summary({}) == "longest path:  nothing"
