"""Einsum written out in other operators, against numpy's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp, is_own
from gimlet.dialects.onnx.exporter import export_module
from gimlet.passes.entry import entry_function
from gimlet.passes.write_out_operators import WriteOutOperatorsPass

SIZES: Mapping[str, int] = {"a": 2, "b": 3, "c": 1, "d": 5, "e": 2, "f": 7}


def model_of(equation: str, shapes: Sequence[Sequence[int | str]], opset: int = 17) -> onnx.ModelProto:
    names = [f"x{index}" for index in range(len(shapes))]
    node = helper.make_node("Einsum", names, ["y"], "op", equation=equation)
    values = [
        helper.make_tensor_value_info(*each)
        for each in zip(names, [TensorProto.FLOAT] * len(names), shapes, strict=True)
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "alone", values, [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def written_out(model: onnx.ModelProto) -> tuple[Any, onnx.ModelProto]:
    ctx = GimletContext()
    module = load(model, ctx=ctx)
    run_passes(module, ctx, [*NORMALIZE, WriteOutOperatorsPass()])
    return module, ir.to_proto(export_module(module, ctx))


def operators(module: Any) -> list[str]:
    return [op.op_type for op in module.walk() if isinstance(op, OnnxOp) and op.op_type != "initializer"]


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_it_computes_what_numpy_does(data: st.DataObject):
    """One to three operands, labels in any order and up to twice in one, every size fixed or left open."""
    letters = st.sampled_from(sorted(SIZES))
    terms = data.draw(st.lists(st.lists(letters, min_size=1, max_size=4), min_size=1, max_size=3))
    terms = [[label for at, label in enumerate(term) if term[:at].count(label) < 2] for term in terms]
    labels = sorted({label for term in terms for label in term})
    result = data.draw(st.lists(st.sampled_from(labels), unique=True))
    open_ = data.draw(st.sets(st.sampled_from(labels)))
    equation = ",".join("".join(term) for term in terms) + "->" + "".join(result)
    shapes = [[f"size_{label}" if label in open_ else SIZES[label] for label in term] for term in terms]
    module, after = written_out(model_of(equation, shapes))
    assert "Einsum" not in operators(module)
    generator = np.random.default_rng(0)
    values = [generator.standard_normal([SIZES[label] for label in term]).astype(np.float32) for term in terms]
    session = InferenceSession(after.SerializeToString())
    (found,) = session.run(None, {f"x{index}": value for index, value in enumerate(values)})
    np.testing.assert_allclose(found, np.einsum(equation, *values), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("bqhd,bkhd->bhqk", [("n", 3, 2, 7), ("n", "m", 2, 7)], ["Transpose", "Transpose", "MatMul"]),
        ("bsd,de->bse", [("n", "m", 7), (7, 5)], ["MatMul"]),
        ("bsd,dhk->bshk", [("n", "m", 7), (7, 3, 5)], ["Reshape", "MatMul", "Reshape"]),
        ("bij,bjk->bik", [(1, 3, 5), (1, 5, 7)], ["MatMul"]),
        ("i,i->", [(7,), (7,)], ["Mul", "ReduceSum"]),
        ("ij->ji", [(3, 5)], ["Transpose"]),
    ],
)
def test_common_equations_take_few_operators(equation: str, shapes: Any, expected: list[str]):
    module, _ = written_out(model_of(equation, shapes))
    assert operators(module) == expected


@pytest.mark.parametrize(
    ("equation", "opset", "is_written"),
    [("ij,jk->ik", 12, False), ("iJ,Jk", 17, True), ("iJ,Jk->ik", 17, True), ("ij,jK", 17, False)],
)
def test_old_opsets_and_an_order_that_is_not_said_are_left(equation: str, opset: int, is_written: bool):
    ctx = GimletContext()
    module = load(model_of(equation, [(2, 3), (3, 5)], opset), ctx=ctx)
    run_passes(module, ctx, [*NORMALIZE, WriteOutOperatorsPass(keep_parts=True)])
    (left,) = (op for op in entry_function(module).walk() if isinstance(op, OnnxOp))
    assert is_own(left) == is_written
