"""Products of one row in parts: the same numbers, sooner, and a load that waits only for what it reads."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import Runner, device, model_of, reference, relative_error, segment_of

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.sram.ordering import box, transfers
from gimlet.runtime.sram.program import Load
from gimlet.targets.sram import codegen
from gimlet.targets.sram.codegen import generate_for, generate_on
from gimlet.targets.sram.target import machine_of, work_of_ops

F = TensorProto.FLOAT
ON = device(chiplets=2, cores=16, mx_error_budget=1.0)
ERROR = {"fp32": 1e-6, "bf16": 0.02, "mxint8": 0.03}


def chain(*widths: int):
    """A row times a matrix for each further width."""
    random = np.random.default_rng(0)
    weights = {f"w{n}": random.standard_normal(each, np.float32) for n, each in enumerate(pairwise(widths))}
    names = ["x", *(f"y{n}" for n in range(len(weights)))]
    nodes = [helper.make_node("MatMul", [names[n], f"w{n}"], [names[n + 1]]) for n in range(len(weights))]
    return model_of(nodes, {"x": (F, [1, widths[0]])}, [names[-1]], weights)


@pytest.mark.parametrize("fmt", ["fp32", "bf16", "mxint8"])
@pytest.mark.parametrize(("widths", "kernels"), [((256, 512, 256), 4), ((512,) * 4, 7)], ids=str)
def test_a_chain_in_parts_computes_the_same(monkeypatch, widths, kernels, fmt):
    monkeypatch.setattr(codegen, "_best_of_variants", generate_for)
    model = chain(*widths)
    runner = Runner(segment_of(model, fmt=fmt), fmt, ON)
    x = np.random.default_rng(1).standard_normal((1, widths[0]), np.float32)
    assert relative_error(runner(x=x)[0], reference(model, x=x)[0]) < ERROR[fmt]
    assert len(runner.executor.program.kernels) == kernels


@pytest.mark.parametrize("widths", [(512, 512), (512, 500, 512), (256, 256, 256)], ids=str)
def test_no_parts(widths):
    """One product has nothing to wait for; tiles that are not full, or one tile a core, leave nothing to hide."""
    runner = Runner(segment_of(chain(*widths)), "fp32", ON)
    assert all(kernel.name.startswith(("matmul", "map")) for kernel in runner.executor.program.kernels)
    assert len(runner.executor.program.kernels) == len(widths) - 1


def test_a_load_waits_only_for_the_part_that_it_reads():
    program = Runner(segment_of(chain(256, 512, 256)), "fp32", ON).executor.program
    first, second, even, odd = (kernel.name for kernel in program.kernels)
    loads = [
        (kernel, transfer)
        for kernel in program.kernels
        for transfer in transfers(kernel)
        if isinstance(transfer, Load) and transfer.access.tensor == "t1"
    ]
    assert {kernel.name: transfer.after for kernel, transfer in loads} == {even: (first,), odd: (second,)}
    boxes = [box(transfer, kernel) for kernel, transfer in loads]
    assert boxes[0] is not None
    assert boxes[0].meets(boxes[0])
    assert not boxes[0].meets(boxes[1])
    assert boxes[0].meets(None)


@given(st.lists(st.sampled_from([64, 128, 256, 320, 512, 1024]), min_size=2, max_size=5))
@settings(max_examples=15, deadline=None)
def test_the_quicker_program_is_taken(widths):
    segment = segment_of(chain(*widths))
    ops = [op for op in segment.op.body.block.ops if isinstance(op, OnnxOp) and op.op_type == "MatMul"]
    work, machine = work_of_ops(ops, {}, 1.0), machine_of(ON.kind)
    room = machine.sram_bytes_per_core * 15 // 16
    whole = generate_for(work, machine, "bf16", machine.cores, room, parts=False)
    assert generate_on(work, machine, "bf16", machine.cores).timing.cycles <= whole.timing.cycles
