"""The SRAM machine against figures that others published."""

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import model_of, segment_of

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.sram.machine import Machine, Stationary
from gimlet.targets.sram.codegen import generate
from gimlet.targets.sram.target import work_of_ops

FLOWS: tuple[Stationary, ...] = ("accumulator", "rhs", "lhs")
"""SCALE-Sim's output-, weight- and input-stationary arrays."""


def last_cycle(m: int, n: int, k: int, machine: Machine) -> int:
    weights = {"w": np.broadcast_to(np.float32(0), (k, n))}
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    segment = segment_of(model_of([node], {"x": (TensorProto.FLOAT, [m, k])}, ["y"], weights))
    ops = [op for op in segment.op.body.block.ops if isinstance(op, OnnxOp) and op.op_type == "MatMul"]
    return generate(work_of_ops(ops, {}), machine, "fp32").timing.last_cycle


def scale_sim(m: int, n: int, k: int, rows: int, columns: int, flow: Stationary) -> int:
    """The closed forms of SCALE-Sim (Samajdar et al., ISPASS 2020), which count cycles from 0."""
    if flow == "accumulator":
        return ceil(m / rows) * ceil(n / columns) * (k + rows + columns - 2) - 1
    streamed, held = (m, n) if flow == "rhs" else (n, m)
    return ceil(k / rows) * ceil(held / columns) * (streamed + 2 * rows + columns - 2) - 1


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((64, 64, 64), (503, 631, 631)),
        ((128, 32, 256), (1271, 1775, 4031)),
        ((100, 70, 50), (1343, 1163, 1311)),
    ],
)
def test_a_systolic_array_takes_the_cycles_of_scale_sim(sizes, expected):
    assert tuple(last_cycle(*sizes, Machine.systolic(32, 32, flow)) for flow in FLOWS) == expected


@given(
    m=st.integers(1, 300),
    n=st.integers(1, 300),
    k=st.integers(1, 300),
    rows=st.integers(1, 80),
    columns=st.integers(1, 80),
    flow=st.sampled_from(FLOWS),
)
@settings(max_examples=30, deadline=None)
def test_every_systolic_array_takes_the_cycles_of_scale_sim(m, n, k, rows, columns, flow):
    assert last_cycle(m, n, k, Machine.systolic(rows, columns, flow)) == scale_sim(m, n, k, rows, columns, flow)
