"""Parts of a tensor are the outputs of one Split, and not items of a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from tests.unit.dialects.onnx_cases import context, exported, model_of, run

from gimlet.compiler.frontends import load
from gimlet.compiler.frontends.split_sequences import split_without_sequences
from gimlet.dialects.onnx import OnnxOp


class Parts(torch.nn.Module):
    def __init__(self, parts: Any) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = x.split(self.parts, dim=-1) if isinstance(self.parts, list) else x.chunk(self.parts, dim=-1)
        return tuple(part * index for index, part in enumerate(found))


@pytest.mark.parametrize("parts", [2, 3, [1, 4, 2]])
def test_chunks_and_splits(parts: Any):
    ctx, x = context(), torch.arange(14.0).reshape(2, 7)
    module = load(Parts(parts), args=(x,), ctx=ctx)
    kinds = [op.op_type for op in module.walk() if isinstance(op, OnnxOp)]
    assert kinds.count("Split") == 1
    assert "SplitToSequence" not in kinds
    for found, expected in zip(run(exported(module, ctx), {"x": x.numpy()}).values(), Parts(parts)(x), strict=True):
        np.testing.assert_array_equal(found, expected.numpy())


def sequence_model(length: Any, index: np.ndarray | None, keepdims: int = 1) -> ir.Model:
    nodes = [
        helper.make_node("SplitToSequence", ["x", "size"], ["s"], axis=0, keepdims=keepdims),
        helper.make_node("SequenceAt", ["s", "i"], ["y"]),
    ]
    weights = {"size": np.array(2, np.int64)} | ({} if index is None else {"i": index})
    model = model_of(nodes, {"x": [length, 3]}, {"y": None}, weights=weights)
    if index is None:
        model.graph.input.append(helper.make_tensor_value_info("i", TensorProto.INT64, []))
    return ir.from_proto(model)


@pytest.mark.parametrize(
    "model",
    [
        sequence_model("n", np.array(0, np.int64)),
        sequence_model(6, None),
        sequence_model(6, np.array(5, np.int64)),
    ],
    ids=["unknown length", "unknown index", "no such part"],
)
def test_parts_that_are_not_known_stay_a_sequence(model: ir.Model):
    split_without_sequences(model)
    assert [node.op_type for node in model.graph] == ["SplitToSequence", "SequenceAt"]


def test_an_index_from_the_end():
    model = sequence_model(5, np.array(-1, np.int64))
    split_without_sequences(model)
    assert [node.op_type for node in model.graph] == ["Constant", "Split"]
    (found,) = run(ir.to_proto(model), {"x": np.arange(15, dtype=np.float32).reshape(5, 3)}).values()
    np.testing.assert_array_equal(found, [[12, 13, 14]])
