"""Attention with windows, and with a length for each sequence, on the SRAM machine against ONNX's reference."""

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from tests.unit.targets.sram_models import Runner, model_of, relative_error, segment_of
from tests.unit.targets.test_sram_ops import F, I, normal

SHAPES = {"q": (2, 4, 3, 8), "k": (2, 2, 9, 8), "v": (2, 2, 9, 8)}
CACHE = {"past_k": (2, 2, 6, 8), "past_v": (2, 2, 6, 8)}


def check(names, values, outputs=1, **attributes):
    node = helper.make_node("Attention", names, ["y", "k2", "v2"][:outputs], name="attention", **attributes)
    given = {name: (I if value.dtype == np.int64 else F, value.shape) for name, value in values.items()}
    model = model_of([node], given, ["y", "k2", "v2"][:outputs], opset=25)
    expected = ReferenceEvaluator(model).run(None, values)
    for found, wanted in zip(Runner(segment_of(model), "fp32")(**values), expected, strict=True):
        assert relative_error(found, wanted) <= 1e-5


@pytest.mark.parametrize(
    "attributes",
    [
        {"left_window_size": 2},
        {"left_window_size": 1, "right_window_size": 3},
        {"right_window_size": 0},
        {"left_window_size": 2, "is_causal": 1},
    ],
)
@pytest.mark.parametrize("cached", [False, True])
def test_windows(attributes, cached):
    values = {name: normal(*shape) for name, shape in SHAPES.items()}
    if not cached:
        check(["q", "k", "v"], values, **attributes)
        return
    values |= {"k": normal(2, 2, 3, 8), "v": normal(2, 2, 3, 8)}
    values |= {name: normal(*shape) for name, shape in CACHE.items()}
    check(["q", "k", "v", "", "past_k", "past_v"], values, outputs=3, **attributes)


@pytest.mark.parametrize("attributes", [{}, {"is_causal": 1}, {"is_causal": 1, "left_window_size": 2}])
def test_a_length_for_each_sequence(attributes):
    values = {name: normal(*shape) for name, shape in SHAPES.items()} | {"lengths": np.array([9, 5])}
    check(["q", "k", "v", "", "", "", "lengths"], values, **attributes)
