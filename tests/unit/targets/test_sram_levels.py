"""The levels below kernels: gimlet-opt's passes, run one at a time on text, make what code generation makes."""

from dataclasses import replace
from io import StringIO
from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import Runner, device, model_of, segment_of
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import PassFailedException

from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.importer import import_model
from gimlet.dialects.sram import KernelOp, ProgramOp, Sram, TensorOp
from gimlet.dialects.sram.assembly import assemble, disassemble
from gimlet.passes.registry import load
from gimlet.runtime.sram.faults import MachineError
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.ordering import transfers
from gimlet.runtime.sram.program import UNPLACED, Program, Store
from gimlet.runtime.sram.verify import verify
from gimlet.targets.one_op import is_constant
from gimlet.targets.sram import codegen
from gimlet.targets.sram.levels import LEVELS
from gimlet.targets.sram.target import machine_of, work_of_ops

F = TensorProto.FLOAT
EMPTY = Program("empty", Machine(), "fp32", 1, 64, UNPLACED, (), (), (), (), ())
ON = device(chiplets=2, cores=16, mx_error_budget=1.0)


def layer(rows: int | str = 4):
    """Two products with weights, and what stands between and behind them."""
    random = np.random.default_rng(0)
    weights = {"v": random.standard_normal((256, 128), np.float32), "w": random.standard_normal((128, 256), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("Gelu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["c"]),
        helper.make_node("Add", ["c", "x"], ["d"]),
        helper.make_node("Softmax", ["d"], ["y"]),
    ]
    return model_of(nodes, {"x": (F, [rows, 256])}, ["y"], weights, opset=20)


def generated(monkeypatch, rows: int | str, fmt: str) -> tuple[Program, Program]:
    """A program of the layer before the levels and after them, the last one that code generation completed."""
    pairs: list[tuple[Program, Program]] = []

    def completed(program: Program) -> Program:
        after = original(program)
        pairs.append((program, after))
        return after

    original = codegen.completed
    monkeypatch.setattr(codegen, "completed", completed)
    bounds = {rows: (1, 4, 9)} if isinstance(rows, str) else None
    Runner(segment_of(layer(rows), bounds, fmt), fmt, ON)
    return pairs[-1]


def parsed(text: str) -> ModuleOp:
    ctx = Context()
    ctx.load_dialect(Builtin)
    ctx.load_dialect(Sram)
    return Parser(ctx, text).parse_module()


def text_of(program: Program) -> str:
    out = StringIO()
    Printer(out).print_op(disassemble(program))
    return out.getvalue()


@pytest.mark.parametrize(("rows", "fmt"), [(4, "fp32"), (4, "mxint8"), ("n", "bf16")], ids=str)
def test_the_passes_are_what_code_generation_does(monkeypatch, rows, fmt):
    before, after = generated(monkeypatch, rows, fmt)
    assert all(tensor.address == UNPLACED for tensor in before.tensors)
    assert any(tensor.space == "core" for tensor in before.tensors), "no weights are resident"
    module = parsed(text_of(before))
    for name in LEVELS:
        load(name)().apply(Context(), module)
        module.verify()
        module = parsed(str(module))
    (program,) = [op for op in module.walk() if isinstance(op, ProgramOp)]
    assert assemble(program) == after
    assert all(op.life is not None for op in program.walk() if isinstance(op, TensorOp))
    assert all(op.dealt is not None for op in program.walk() if isinstance(op, KernelOp))


def test_the_first_level_makes_the_kernels_that_code_generation_makes():
    """From ONNX operations on: the pass and the compiler's own call of the same choice of cores and room."""
    ctx = GimletContext()
    module = import_model(ir.from_proto(layer()), ctx)
    run_passes(module, ctx, NORMALIZE)
    machine = machine_of(ON.kind)
    (function,) = [op for op in module.walk() if isinstance(op, FuncOp)]
    function.attributes["sram.machine"] = disassemble(replace(EMPTY, machine=machine)).machine
    ops = [op for op in function.walk() if isinstance(op, OnnxOp) and not is_constant(op)]
    work = replace(work_of_ops(ops, {}), keeps_views=False)
    expected = codegen.generate_for(work, machine, "bf16", machine.cores, room=1 << 16).program
    load("sram-lower")(format="bf16", room=1 << 16).apply(ctx, module)
    for name in LEVELS:
        load(name)().apply(ctx, module)
    (program,) = [op for op in module.walk() if isinstance(op, ProgramOp)]
    assert assemble(program).kernels == expected.kernels
    assert assemble(program).tensors == expected.tensors


def test_every_level_but_the_last_is_refused_by_the_machine(monkeypatch):
    program, _ = generated(monkeypatch, 4, "fp32")
    for level in LEVELS.values():
        verify(program, complete=False)
        with pytest.raises(MachineError, match=r"private bytes and pages|has no address|does not wait for"):
            verify(program)
        program = level(program)
    verify(program)


def test_lives_that_share_memory_do_not_overlap(monkeypatch):
    _, after = generated(monkeypatch, 4, "fp32")
    module = parsed(text_of(after))
    load("sram-allocate")().apply(Context(), module)
    module.verify()
    tensors = [op for op in module.walk() if isinstance(op, TensorOp) and op.space.data == "sram"]
    ends = sorted((op.address.value.data, op.capacity_bytes.value.data) for op in tensors)
    assert any(first + size > second for (first, size), (second, _) in pairwise(ends)), "nothing shares memory"


def test_a_program_that_does_not_fit_names_itself():
    text = """
    sram.program @p as "fp32" on 1 attributes {page_bytes = 64, local_bytes = 0, dims = {n = array<i64: 1, 1, 999>},
        machine = {chiplets = 1, cores = 1, sram_bytes_per_core = 64, lpddr_bytes = 64}, inputs = {}, outputs = {}} {
      sram.tensor @x : "f32" <["n"]> in "sram" {role = "input"}
    }
    """
    with pytest.raises(PassFailedException, match="p: its tensors take 3996 bytes, the device has 64 of SRAM"):
        load("sram-allocate")().apply(Context(), parsed(text))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sram-home-weights", "p: its tiles have no address: run sram-place-tiles first"),
        ("sram-allocate", "p: its private bytes are not known: run sram-home-weights first"),
        ("sram-synchronise", "p: its tensors have no address: run sram-allocate first"),
    ],
)
def test_a_level_says_which_one_has_to_come_before_it(name, message):
    text = """
    sram.program @p as "fp32" on 1 attributes {page_bytes = 64, dims = {}, inputs = {}, outputs = {},
        machine = {chiplets = 1, cores = 1}} {
      sram.tensor @x : "f32" <[8]> in "sram" {role = "input"}
      sram.kernel @k [] attributes {sources = []} {
        %a = sram.tile "a" : "f32" [8] depth 1
      }
    }
    """
    with pytest.raises(PassFailedException, match=message):
        load(name)().apply(Context(), parsed(text))


def test_results_leave_in_the_order_of_their_op():
    """The same model gives the same program, whatever else is in memory."""
    nodes = [helper.make_node("Split", ["x"], ["a", "b", "c"], num_outputs=3)]
    model = model_of(nodes, {"x": (F, [6, 8])}, ["a", "b", "c"], opset=18)
    program = Runner(segment_of(model), "fp32", ON).executor.program
    stored = [each.access.tensor for kernel in program.kernels for each in transfers(kernel) if isinstance(each, Store)]
    assert stored == [binding.tensor for binding in program.outputs]
