"""Softmax of a few long rows, each made by many cores."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import Runner, model_of, reference, relative_error, segment_of

from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.binding import bind
from gimlet.runtime.sram.cycles import time_program
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram import rules_reduce
from gimlet.targets.sram.builder import Bounds
from gimlet.targets.sram.softmax import pieces_of

F = TensorProto.FLOAT


def rows_of(*shape: int) -> np.ndarray:
    return 6 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def softmax(op: str, x: np.ndarray, length: int | str, **bounds: tuple[int, int, int]) -> Runner:
    model = model_of([helper.make_node(op, ["x"], ["y"], axis=-1)], {"x": (F, [*x.shape[:-1], length])}, ["y"])
    return Runner(segment_of(model, bounds), "fp32")


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("shape", [(3, 700), (2, 5, 1111), (1, 20011)], ids=str)
def test_rows_shared_by_cores(op, shape):
    x = rows_of(*shape)
    x[..., 64:200] = -np.inf
    runner = softmax(op, x, shape[-1])
    assert len(runner.executor.program.kernels) == 2
    expected = reference(model_of([helper.make_node(op, ["x"], ["y"])], {"x": (F, shape)}, ["y"]), x=x)[0]
    found = runner(x=x)[0]
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
    finite = np.isfinite(expected)
    assert relative_error(found[finite], expected[finite]) < 5e-6


@pytest.mark.parametrize("length", [1, 63, 700, 1500])
def test_a_row_whose_length_is_not_known(length):
    """The pieces are those of the length that code is tuned for; there are as many as the row has."""
    x = rows_of(2, length)
    runner = softmax("Softmax", x, "n", n=(1, 900, 1500))
    assert len(runner.executor.program.kernels) == 2
    expected = np.exp(x - x.max(-1, keepdims=True))
    assert relative_error(runner(x=x)[0], expected / expected.sum(-1, keepdims=True)) < 1e-6


def test_attention_of_one_query_over_many_keys():
    """Keys behind those that a mask lets through, whole pieces of them, add nothing; nor does a mask of all."""
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal(shape, np.float32) for shape in ((2, 3, 1, 16), (2, 3, 900, 16), (2, 3, 900, 16)))
    mask = np.arange(900)[None, None, None, :] < np.array([70, 0])[:, None, None, None]
    values = {"q": q, "k": k, "v": v}
    inputs = {name: (F, each.shape) for name, each in values.items()} | {"m": (TensorProto.BOOL, mask.shape)}
    model = model_of([helper.make_node("Attention", ["q", "k", "v", "m"], ["y"])], inputs, ["y"], opset=23)
    runner = Runner(segment_of(model), "fp32")
    assert any(kernel.name.startswith("softmax_pieces") for kernel in runner.executor.program.kernels)
    found = runner(m=mask, **values)[0]
    scores = np.einsum("bhqd,bhkd->bhqk", q, k)[:1, :, :, :70] / 4
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("bhqk,bhkd->bhqd", weights / weights.sum(-1, keepdims=True), v[:1, :, :70])
    assert relative_error(found[:1], expected) < 1e-5
    assert not found[1].any()


def test_two_kernels_take_fewer_cycles_than_one(monkeypatch):
    x = rows_of(32, 1024)
    shared = softmax("Softmax", x, 1024)
    monkeypatch.setattr(rules_reduce, "pieces_of", lambda *_: None)
    alone = softmax("Softmax", x, 1024)
    cycles = [time_program(bind(each.executor.program, {})).cycles for each in (shared, alone)]
    assert cycles[0] < 0.6 * cycles[1]


def test_many_or_short_rows_have_a_core_each():
    assert pieces(512, 1024) == 256
    assert pieces(513, 1024) is None
    assert pieces(512, 256) is None


def test_rows_that_lie_on_many_chiplets_are_shared_if_they_are_long():
    """The numbers of the pieces cross between chiplets, which takes longer than a short row."""
    assert pieces(8, 768) is None
    assert pieces(8, 1536) == 64
    assert pieces(9, 768) == 64


def pieces(rows: int, length: int) -> int | None:
    machine, bounds = Machine(), Bounds({}, {}, {})
    return pieces_of(machine, Dealing(2048, 8), bounds, Expr.const(rows), Expr.const(length))
