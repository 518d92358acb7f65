"""TopK, ArgMax and CumSum on the SRAM machine against ONNX Runtime."""

import numpy as np
import pytest
from onnx import helper
from tests.unit.targets.sram_models import Runner, emit, model_of, segment_of
from tests.unit.targets.test_sram_ops import F, I, check, ints, normal

from gimlet.targets.api import Reason

RNG = np.random.default_rng(3)


@pytest.mark.parametrize(("axis", "largest"), [(-1, 1), (-1, 0), (0, 1), (1, 0)])
def test_top_k(axis, largest):
    check("TopK", [normal(4, 7, 9)], {1: ints(3)}, outputs=2, axis=axis, largest=largest)


@pytest.mark.parametrize("op", ["TopK", "ArgMax"])
def test_a_row_with_nan_finds_nan_at_its_beginning(op):
    values = np.array([[1, np.nan, 3], [4, 6, 5]], np.float32)
    model = model_of(
        [helper.make_node(op, ["x", "k"][: 1 + (op == "TopK")], ["y", "i"][-1 - (op == "TopK") :], axis=1)],
        {"x": (F, values.shape)},
        ["y", "i"][-1 - (op == "TopK") :],
        {"k": ints(1)} if op == "TopK" else {},
    )
    assert Runner(segment_of(model), "fp32")(x=values)[-1].tolist() == [[0], [1]]


def test_of_equal_elements_the_first_comes_first():
    check("TopK", [np.array([[1, 2, 2, 1, 2, -np.inf]], np.float32)], {1: ints(6)}, outputs=2)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("attributes", [{}, {"axis": 2, "keepdims": 0}, {"axis": -1, "select_last_index": 1}])
def test_where_the_largest_is(op, attributes):
    check(op, [RNG.integers(0, 3, (3, 5, 8)).astype(np.float32)], **attributes)


@pytest.mark.parametrize("attributes", [{}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}])
@pytest.mark.parametrize("axis", [0, -1])
def test_cumulative_sums(axis, attributes):
    check("CumSum", [normal(5, 3, 7)], {1: np.array(axis, np.int64)}, **attributes)
    check("CumSum", [RNG.integers(-9, 9, (4, 6))], {1: np.array(axis, np.int64)}, **attributes)


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "reason"),
    [
        ("ArgMax", [(2, 20000)], {"axis": 1}, "longer than the 16384 that are ordered"),
        ("CumSum", [(3, 4), ()], {}, "the axis of CumSum is computed"),
    ],
)
def test_what_is_refused(op, shapes, attributes, reason, tmp_path):
    names = [f"x{index}" for index in range(len(shapes))]
    node = helper.make_node(op, names, ["y"], name=op, **attributes)
    given = {name: (I if name == "x1" else F, shape) for name, shape in zip(names, shapes, strict=True)}
    found = emit(segment_of(model_of([node], given, ["y"], opset=18)), "fp32", tmp_path)
    assert isinstance(found, Reason)
    assert reason in found.message


def test_integers_are_not_ordered(tmp_path):
    node = helper.make_node("ArgMax", ["x"], ["y"], name="order")
    found = emit(segment_of(model_of([node], {"x": (I, (3, 4))}, ["y"])), "fp32", tmp_path)
    assert isinstance(found, Reason)
    assert "ArgMax of i64 is not generated" in found.message
