"""ScatterND on the SRAM machine against ONNX Runtime, at any numbers of coordinates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from tests.unit.targets.sram_models import Runner, emit, model_of, segment_of
from tests.unit.targets.test_sram_ops import F, I, check

from gimlet.runtime.sram.faults import MachineError
from gimlet.targets.api import Reason


@given(data=st.data())
@settings(max_examples=12)
def test_scattered_rows(data: st.DataObject):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    count = data.draw(st.integers(1, len(shape)))
    outer = data.draw(st.lists(st.integers(1, 4), max_size=2))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    at = np.stack([random.integers(-size, size, outer) for size in shape[:count]], axis=-1).astype(np.int64)
    new = random.standard_normal((*outer, *shape[count:])).astype(np.float32)
    check("ScatterND", [random.standard_normal(shape).astype(np.float32), at, new])


def test_of_several_updates_of_one_row_the_last_stays():
    new = np.arange(6, dtype=np.float32).reshape(3, 2)
    check("ScatterND", [np.full((4, 2), -1, np.float32), np.array([[2], [0], [2]]), new])


def scatter(reduction: str = "none"):
    node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"], name="scatter", reduction=reduction)
    return segment_of(model_of([node], {"x": (F, (4, 2)), "i": (I, (1, 1)), "u": (F, (1, 2))}, ["y"], opset=18))


def test_a_position_outside_is_a_fault_of_the_data():
    given = {"x": np.zeros((4, 2), np.float32), "u": np.ones((1, 2), np.float32)}
    with pytest.raises(MachineError, match="index 4 is outside dimension 0 of size 4") as fault:
        Runner(scatter(), "fp32")(**given, i=np.array([[4]]))
    assert fault.value.from_data
    assert "a cache of a fixed size that is full" in (fault.value.hint or "")


def test_a_reduction_is_refused(tmp_path):
    found = emit(scatter("add"), "fp32", tmp_path)
    assert isinstance(found, Reason)
    assert "puts elements together by add" in found.message
