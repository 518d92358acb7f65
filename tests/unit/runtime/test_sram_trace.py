"""The trace of a program, the summary of its units and stalls, and the command that prints them."""

import json
from itertools import pairwise

import pytest
from tests.unit.runtime.sram_programs import matmul_program, resident_program

from gimlet.runtime.sram.__main__ import main
from gimlet.runtime.sram.binding import bind
from gimlet.runtime.sram.cycles import time_program
from gimlet.runtime.sram.encoding import dumps
from gimlet.runtime.sram.program import Instruction, Loop, Program
from gimlet.runtime.sram.queues import UNITS
from gimlet.runtime.sram.trace import stalls, summary, trace


def spans(each: Program, track: str, **sizes: int):
    data = trace(bind(each, sizes))
    names = {event["tid"]: event["args"]["name"] for event in data["traceEvents"] if event["ph"] == "M"}
    return [event for event in data["traceEvents"] if event["ph"] == "X" and names[event["tid"]] == track]


def test_kernels_follow_one_another_and_cover_all_cycles():
    each = matmul_program(100, 100, 100)
    (kernel,) = spans(each, "kernels")
    assert (kernel["ts"], kernel["dur"]) == (0, time_program(bind(each, {})).cycles)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_does_one_thing_at_a_time(unit):
    found = spans(matmul_program(100, 300, 100), unit)
    assert found
    for before, after in pairwise(found):
        assert after["ts"] >= before["ts"] + before["dur"] - 1e-2


def test_a_wait_says_what_for():
    (load, *_), (product, *_) = (spans(resident_program(), unit) for unit in ("dma_in", "matrix"))
    assert load["args"] == {}
    assert product["args"] == {"waited": pytest.approx(64 * 64 * 4 / 61, abs=1e-3), "for": "operand from array"}


def instructions(each: Program) -> list[Instruction]:
    """The instructions of the first item, in the order in which the emulator executes them."""

    def walk(body):
        for statement in body:
            if isinstance(statement, Loop):
                steps = -(-statement.range.extent.as_int() // statement.range.step)
                for _ in range(steps):
                    yield from walk(statement.body)
            else:
                yield statement

    return list(walk(each.kernels[0].body))


def test_the_cycle_model_walks_the_order_that_the_emulator_executes():
    """Each unit of the trace has the instructions of the program's order that are for it, none left out."""
    each = matmul_program(32, 200, 64)
    expected = [type(instruction).__name__.lower() for instruction in instructions(each)]
    units = {"load": "dma_in", "store": "dma_out", "matmul": "matrix", "fill": "vector"}
    for unit in ("dma_in", "dma_out", "matrix", "vector"):
        walked = [event["name"].partition(" ")[0] for event in spans(each, unit)]
        assert walked == [opcode for opcode in expected if units[opcode] == unit]


def test_the_summary_names_units_and_reasons():
    timing = time_program(bind(matmul_program(100, 300, 100), {}))
    text = summary(timing)
    assert all(f"{unit} waits for:" in text for unit in UNITS)
    assert "operand from array" in text
    assert stalls(timing, "dma_in")[0][1] >= stalls(timing, "dma_in")[-1][1]


def test_the_command(tmp_path, capsys):
    program, out = tmp_path / "program.sram", tmp_path / "t.json"
    program.write_text(dumps(matmul_program()))
    assert main([str(program), "--size", "m=100", "--trace", str(out)]) == 0
    assert "cycles" in capsys.readouterr().out
    assert json.loads(out.read_text())["traceEvents"]


@pytest.mark.parametrize(
    ("text", "more", "code", "message"),
    [
        ("{", (), 1, "is JSON, this is not"),
        (dumps(matmul_program()), ("--size", "m"), 2, "--size takes DIM=N, not 'm'"),
        (dumps(matmul_program()), ("--size", "m=900"), 1, "was compiled for 1 to 300"),
        (None, (), 1, "No such file"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, capsys, text, more, code, message):
    program = tmp_path / "program.sram"
    if text is not None:
        program.write_text(text)
    assert main([str(program), *more]) == code
    assert message in capsys.readouterr().err
