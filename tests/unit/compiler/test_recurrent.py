"""Recurrent modules of PyTorch are one operator a layer, for sequences of any length, with PyTorch's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.dialects.onnx_cases import context, exported, run

from gimlet.compiler.frontends import load
from gimlet.dialects.onnx import OnnxOp

BATCH, STEPS = torch.export.Dim("batch", min=1, max=8), torch.export.Dim("steps", min=2, max=64)
RNNS = [
    (torch.nn.LSTM, {"bidirectional": True, "num_layers": 2}),
    (torch.nn.LSTM, {"bias": False, "batch_first": True, "num_layers": 3}),
    (torch.nn.GRU, {"bidirectional": True, "num_layers": 2, "batch_first": True}),
    (torch.nn.RNN, {"nonlinearity": "relu", "bidirectional": True, "bias": False}),
]


class Tagger(torch.nn.Module):
    def __init__(self, rnn: torch.nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        steps, last = self.rnn(x)
        return steps, *(last if isinstance(last, tuple) else (last,))


def compare(model: torch.nn.Module, lengths: list[tuple[int, int]], shapes: Any) -> list[str]:
    """The operators of the model, after the numbers at every length were compared."""
    ctx = context()
    module = load(model, args=(torch.randn(*lengths[0], 6),), dynamic_shapes=shapes, ctx=ctx)
    written = exported(module, ctx)
    for length in lengths:
        x = torch.randn(*length, 6)
        with torch.no_grad():
            expected = model(x)
        for found, wanted in zip(run(written, {"x": x.numpy()}).values(), expected, strict=True):
            np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-6)
    return [op.op_type for op in module.walk() if isinstance(op, OnnxOp)]


@pytest.mark.parametrize(("kind", "options"), RNNS)
def test_sequences_of_any_length(kind: Any, options: dict[str, Any]):
    model = Tagger(kind(6, 4, **options)).eval()
    shapes = {"x": {0: BATCH, 1: STEPS} if options.get("batch_first") else {0: STEPS, 1: BATCH}}
    operators = compare(model, [(3, 5), (2, 3), (7, 4)], shapes)
    assert operators.count(kind.__name__) == options.get("num_layers", 1)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projection_is_written_out_for_one_length():
    operators = compare(Tagger(torch.nn.LSTM(6, 4, proj_size=3, num_layers=2)).eval(), [(5, 2)], None)
    assert "LSTM" not in operators
    assert operators.count("Sigmoid") == 3 * 5 * 2


def test_states_that_are_kept_in_buffers():
    class Stream(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.GRU(6, 4)
            self.register_buffer("state", torch.zeros(1, 2, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            steps, last = self.rnn(x, self.state)
            self.state.copy_(last)
            return steps

    module = load(Stream().eval(), args=(torch.randn(3, 2, 6),), dynamic_shapes={"x": {0: STEPS}}, ctx=context())
    assert [op.op_type for op in module.walk() if isinstance(op, OnnxOp)].count("GRU") == 1


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_a_program_that_was_exported_elsewhere():
    model = Tagger(torch.nn.RNN(6, 4)).eval()
    x = torch.randn(50, 2, 6)
    module = load(torch.export.export(model, (x,)), ctx=context())
    assert [op.op_type for op in module.walk() if isinstance(op, OnnxOp)].count("RNN") == 1


def test_pytorch_is_left_as_it_was():
    kernels = dict(torch.ops.aten.lstm.input.py_kernels)
    model = Tagger(torch.nn.LSTM(6, 4)).eval()
    load(model, args=(torch.randn(3, 2, 6),), ctx=context())
    assert dict(torch.ops.aten.lstm.input.py_kernels) == kernels
