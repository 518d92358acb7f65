"""Chiplets in turn: the same numbers from fewer crossings, where one chiplet has no room for all weights."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import Runner, device, model_of, reference, relative_error, segment_of

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.sram.assembly import assemble, disassemble
from gimlet.passes.refusal import RefusedError
from gimlet.passes.sram_home_weights import Homes
from gimlet.runtime.sram.binding import bind
from gimlet.runtime.sram.cycles import time_program
from gimlet.runtime.sram.emulator import Emulator
from gimlet.runtime.sram.encoding import dumps, loads
from gimlet.runtime.sram.faults import MachineError
from gimlet.runtime.sram.memory import overlaps
from gimlet.runtime.sram.program import EVERYWHERE, Program
from gimlet.runtime.sram.verify import verify
from gimlet.targets.sram import codegen, target
from gimlet.targets.sram.codegen import generate, generate_on, kernels_for
from gimlet.targets.sram.target import machine_of, work_of_ops

F = TensorProto.FLOAT
SMALL = {
    "chiplets": 4,
    "cores": 16,
    "sram_bytes_per_core": 1 << 18,
    "die_latency_s": 5e-7,
    "lpddr_bytes_per_s": 1e10,
    "mx_error_budget": 1.0,
}
ON = device(**SMALL)
MACHINE = machine_of(ON.kind)
ERROR = {"fp32": 1e-6, "bf16": 0.02, "mxint8": 0.03}


def blocks(count: int, width: int = 256, last: int = 0):
    """A row through residual blocks, whose weights are `width` square, and an output of `last` columns."""
    random = np.random.default_rng(0)
    weights = {f"w{n}": random.standard_normal((width, width), np.float32) / 16 for n in range(count)}
    weights["scale"] = np.ones(width, np.float32)
    nodes, name = [], "x"
    for n in range(count):
        nodes += [
            helper.make_node("LayerNormalization", [name, "scale"], [f"n{n}"]),
            helper.make_node("MatMul", [f"n{n}", f"w{n}"], [f"p{n}"]),
            helper.make_node("Gelu", [f"p{n}"], [f"g{n}"]),
            helper.make_node("Add", [f"g{n}", name], [f"y{n}"]),
        ]
        name = f"y{n}"
    if last:
        weights["wide"] = random.standard_normal((width, last), np.float32)
        nodes.append(helper.make_node("MatMul", [name, "wide"], ["y"]))
        name = "y"
    return model_of(nodes, {"x": (F, [1, width])}, [name], weights, opset=20)


def work(model, fmt: str = "fp32"):
    ops = [op for op in segment_of(model, fmt=fmt).op.body.block.ops if isinstance(op, OnnxOp)]
    return work_of_ops(ops, {}, 1.0)


def chiplets_of(program: Program) -> list[int]:
    return [kernel.chiplet for kernel in program.kernels]


@pytest.mark.parametrize(("fmt", "count"), [("fp32", 8), ("bf16", 9), ("mxint8", 17)])
def test_blocks_on_chiplets_in_turn_compute_the_same_sooner(monkeypatch, fmt, count):
    model = blocks(count)
    runner = Runner(segment_of(model, fmt=fmt), fmt, ON)
    program = runner.executor.program
    places = chiplets_of(program)
    assert places == sorted(places)
    assert EVERYWHERE not in places
    assert len(set(places)) > 1
    x = np.random.default_rng(1).standard_normal((1, 256), np.float32)
    assert relative_error(runner(x=x)[0], reference(model, x=x)[0]) < ERROR[fmt]
    monkeypatch.setattr(codegen, "_MORE_CHIPLETS", ())
    apart = generate(work(model, fmt), MACHINE, fmt)
    assert set(chiplets_of(apart.program)) == {EVERYWHERE}
    assert runner.artifact.facts["cycles"] < 0.9 * apart.timing.cycles


def test_weights_that_no_chiplet_has_room_for_are_on_all_of_them(monkeypatch):
    model = blocks(4, last=1536)
    monkeypatch.setattr(target, "generate", lambda work, machine, fmt: generate_on(work, machine, fmt, 16, 0))
    runner = Runner(segment_of(model), "fp32", ON)
    places = chiplets_of(runner.executor.program)
    turns = places[: places.index(EVERYWHERE)]
    assert turns == sorted(turns)
    assert set(turns) == {0, 1}
    assert set(places[len(turns) :]) == {EVERYWHERE}
    x = np.random.default_rng(1).standard_normal((1, 256), np.float32)
    assert relative_error(runner(x=x)[0], reference(model, x=x)[0]) < 1e-6


def test_where_one_chiplet_has_room_it_has_all():
    assert generate(work(blocks(2)), MACHINE, "fp32").program.parts == 1


def test_more_weights_than_chiplets_take_in_turn():
    with pytest.raises(RefusedError, match="do not fit 4 chiplets in turn"):
        generate_on(work(blocks(18)), MACHINE, "fp32", MACHINE.cores_per_card, 0)


@pytest.fixture(scope="module")
def program() -> Program:
    found = generate_on(work(blocks(8)), MACHINE, "fp32", MACHINE.cores_per_card, 0).program
    assert set(chiplets_of(found)) == {0, 1, 2}
    return found


def test_it_round_trips_as_text_and_stored(program):
    assert assemble(disassemble(program)) == program
    assert loads(dumps(program)) == program


def test_tensors_of_other_chiplets_have_the_same_addresses(program):
    """Each has a whole tensor where the others have theirs: no two of one chiplet that live at once meet."""
    blocks_at = [(each.address, each.first) for each in program.tensors if each.space == "core"]
    assert len(set(blocks_at)) < len(blocks_at)
    chiplets = {each.name: each.chiplet for each in program.tensors}
    pairs = [(one, other) for one, others in overlaps(program).items() for other in others]
    assert pairs
    assert all(chiplets[one] == chiplets[other] for one, other in pairs)
    verify(program)
    on_one = tuple(replace(each, chiplet=0) if each.space == "core" else each for each in program.tensors)
    with pytest.raises(MachineError, match="overlap"):
        verify(replace(program, tensors=on_one))


def test_a_window_on_a_block_of_another_chiplet_is_a_fault(program):
    moved = tuple(replace(each, chiplet=(each.chiplet + 1) % 3) for each in program.kernels)
    wrong = replace(program, kernels=moved)
    emulator = Emulator(wrong, np.zeros(max(t.offset + t.capacity_bytes for t in program.tensors), np.uint8))
    with pytest.raises(MachineError, match=r"in place, which is on core"):
        emulator.run({program.inputs[0].name: np.zeros((1, 256), np.float32)}, {})


def test_what_crosses_takes_the_link(program):
    """The kernels of the second chiplet on the first, which then has no weights of its own: nothing crosses."""
    crossing = time_program(bind(program, {})).traffic.die
    steps = sum(a != b for a, b in zip(chiplets_of(program), chiplets_of(program)[1:], strict=False))
    row = prod((1, 256)) * 4
    assert steps == 2
    assert 2 * row <= crossing < 40 * row
    here = replace(
        program,
        kernels=tuple(replace(each, chiplet=0) for each in program.kernels),
        tensors=tuple(each if each.chiplet == EVERYWHERE else replace(each, chiplet=0) for each in program.tensors),
    )
    assert time_program(bind(here, {})).traffic.die == 0


def test_room_is_that_of_a_chiplet():
    homes = Homes(2, 100, 2)
    homes.chiplet = 1
    assert homes.take(2, 60) == (0, 0)
    assert homes.room == 40
    homes.chiplet = 0
    assert homes.room == 100
    homes.chiplet = EVERYWHERE
    assert homes.room == 40
    assert homes.take(2, 10) == (0, 60)
    homes.chiplet = 0
    assert homes.room == 30, "what is everywhere has one address on all chiplets"


def test_kernels_without_addresses_are_on_chiplets_too():
    made, _ = kernels_for(work(blocks(8)), MACHINE, "fp32", MACHINE.cores_per_card, 1 << 17, turns=0)
    assert {tensor.chiplet for tensor in made.tensors if tensor.space == "core"} == {0, 1, 2, 3}
