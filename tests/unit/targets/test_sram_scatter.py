"""Scatters on the SRAM machine against ONNX Runtime, and states that they change where they are."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference.ops.op_tensor_scatter import TensorScatter
from tests.unit.targets.sram_models import DEVICE, Runner, emit, model_of, segment_of
from tests.unit.targets.test_sram_ops import F, I, check
from xdsl.dialects.builtin import ArrayAttr, StringAttr, UnitAttr

from gimlet.dialects.onnx import OnnxOp, ops
from gimlet.passes.state_pairs import IN_PLACE
from gimlet.runtime.sram.faults import MachineError
from gimlet.targets.api import Reason, SegmentContext
from gimlet.targets.sram.bound import bound_of
from gimlet.targets.sram.target import machine_of


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


def scatter(reduction: str = "none", kind: int = F):
    node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"], name="scatter", reduction=reduction)
    return segment_of(model_of([node], {"x": (kind, (4, 2)), "i": (I, (1, 1)), "u": (kind, (1, 2))}, ["y"], opset=18))


def test_a_position_outside_is_a_fault_of_the_data():
    given = {"x": np.zeros((4, 2), np.float32), "u": np.ones((1, 2), np.float32)}
    with pytest.raises(MachineError, match="index 4 is outside dimension 0 of size 4") as fault:
        Runner(scatter(), "fp32")(**given, i=np.array([[4]]))
    assert fault.value.from_data
    assert "a cache of a fixed size that is full" in (fault.value.hint or "")


@pytest.mark.parametrize("reduction", ["add", "max", "min", "mul"])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_elements_at_one_position_are_put_together(reduction: str, dtype: type):
    random = np.random.default_rng(0)
    data, new = ((random.standard_normal(shape) * 4).astype(dtype) for shape in ((5, 3), (70, 3)))
    check("ScatterND", [data, random.integers(-5, 5, (70, 1)), new], opset=18, reduction=reduction)
    at = random.integers(0, 3, (5, 70))
    new = (random.standard_normal((5, 70)) * 2).astype(dtype)
    check("ScatterElements", [data, at, new], opset=18, axis=1, reduction=reduction)


def test_a_reduction_of_wide_integers_is_refused(tmp_path):
    found = emit(scatter("add", I), "fp32", tmp_path)
    assert isinstance(found, Reason)
    assert "ScatterND that puts i64 together by add is not generated" in found.message


def test_what_is_computed_for_it_alone_is_not_copied():
    nodes = [
        helper.make_node("Relu", ["x"], ["data"]),
        helper.make_node("ScatterND", ["data", "i", "u"], ["y"]),
    ]
    given = {"x": (F, (4, 2)), "i": (I, (1, 1)), "u": (F, (1, 2))}
    runner = Runner(segment_of(model_of(nodes, given, ["y"], opset=18)), "fp32")
    assert not [each for each in runner.executor.program.kernels if each.name.startswith("copy")]
    x = np.array([[1, -1]] * 4, np.float32)
    (found,) = runner(x=x, i=np.array([[2]]), u=np.full((1, 2), 5, np.float32))
    np.testing.assert_array_equal(found, [[1, 0], [1, 0], [5, 5], [1, 0]])


def tensor_scatter(past, new, begin=None, mode: str = "linear", axis: int = -2) -> SegmentContext:
    given = {"past": (F, past), "new": (F, new)} | ({} if begin is None else {"begin": (I, begin)})
    node = helper.make_node("TensorScatter", list(given), ["y"], mode=mode, axis=axis)
    return segment_of(model_of([node], given, ["y"], opset=24))


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_rows_of_a_cache(data: st.DataObject):
    """From the position of each sequence on, in the order of the standard's reference."""
    past = data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
    axis = data.draw(st.integers(1, len(past) - 1))
    new = [data.draw(st.integers(1, size)) if dim == axis else size for dim, size in enumerate(past)]
    mode = data.draw(st.sampled_from(["linear", "circular"]))
    last = past[axis] - 1 if mode == "circular" else past[axis] - new[axis]
    begin = np.array([data.draw(st.integers(0, last)) for _ in range(past[0])], np.int64)
    begin = data.draw(st.sampled_from([begin, None]))
    random = np.random.default_rng(0)
    x = {"past": random.standard_normal(past, np.float32), "new": random.standard_normal(new, np.float32)}
    x |= {} if begin is None else {"begin": begin}
    segment = tensor_scatter(past, new, None if begin is None else begin.shape, mode, axis - len(past))
    expected = TensorScatter.eval(*x.values(), mode=mode, axis=axis)
    np.testing.assert_array_equal(Runner(segment, "fp32")(**x)[0], expected)


def test_rows_behind_a_cache_that_is_not_circular_are_a_fault():
    runner = Runner(tensor_scatter((1, 4, 2), (1, 2, 2), (1,)), "fp32")
    with pytest.raises(MachineError, match="index 4 is outside dimension 1 of size 4"):
        runner(past=np.zeros((1, 4, 2), np.float32), new=np.ones((1, 2, 2), np.float32), begin=np.array([3]))


def test_rows_along_the_batch_are_refused(tmp_path):
    found = emit(tensor_scatter((4, 2), (4, 2), axis=0), "fp32", tmp_path)
    assert isinstance(found, Reason)
    assert "TensorScatter along the batch is not generated" in found.message


def test_caches_that_are_states_get_rows_where_they_are_at_one_position():
    nodes = [helper.make_node("TensorScatter", [name, "new", "begin"], [f"{name}1"]) for name in ("k", "v")]
    sizes = {"k": (F, (2, 3, 8, 4)), "v": (F, (2, 3, 8, 4)), "new": (F, (2, 3, 1, 4)), "begin": (I, (2,))}
    segment = segment_of(model_of(nodes, sizes, ["k1", "v1"], opset=24))
    for op in segment.op.body.block.ops:
        if op.name == "onnx.TensorScatter":
            op.attributes[IN_PLACE] = UnitAttr()
    runner = Runner(segment, "fp32")
    assert [each.role for each in runner.executor.program.tensors].count("state") == 2
    assert [each.name.rsplit("_", 1)[0] for each in runner.executor.program.kernels] == [
        "indices",
        "scatter",
        "scatter",
    ]
    k, v = np.ones((2, 2, 3, 8, 4), np.float32)
    new = np.random.default_rng(0).standard_normal((2, 3, 1, 4), np.float32)
    bindings = runner.executor.bind({"k": k, "v": v, "new": new, "begin": np.array([7, 2])}, {"k1": k, "v1": v})
    runner.executor.submit(bindings)
    expected = np.ones((2, 3, 8, 4), np.float32)
    expected[0, :, 7], expected[1, :, 2] = new[0, :, 0], new[1, :, 0]
    np.testing.assert_array_equal(k, expected)
    np.testing.assert_array_equal(v, expected)


def elements(shape, at_shape, axis: int, seed: int) -> list[np.ndarray]:
    """Data, a different position along the axis for each element of a line, and what is new."""
    random = np.random.default_rng(seed)
    at = np.argsort(random.random((*at_shape[:axis], shape[axis], *at_shape[axis + 1 :])), axis=axis)
    at = np.take(at, range(at_shape[axis]), axis=axis) - shape[axis] * random.integers(0, 2)
    return [random.standard_normal(size).astype(np.float32) if size else at for size in (shape, None, at_shape)]


@given(data=st.data())
@settings(max_examples=10)
def test_scattered_elements(data: st.DataObject):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    at_shape = [data.draw(st.integers(1, size)) for size in shape]
    axis = data.draw(st.integers(0, len(shape) - 1))
    check("ScatterElements", elements(shape, at_shape, axis, data.draw(st.integers(0, 99))), axis=axis)


def cache(rows: int = 8, marked: bool = True, length: int | str = "n", kind: int = F):
    """A cache [2, 3, rows, 4] that gets rows at positions [n, 1], as `scatter-states` leaves it."""
    nodes = [
        helper.make_node("Unsqueeze", ["at", "axes"], ["row"]),
        helper.make_node("Shape", ["new"], ["sizes"]),
        helper.make_node("Expand", ["row", "sizes"], ["positions"]),
        helper.make_node("ScatterElements", ["past", "positions", "new"], ["present"], axis=2),
    ]
    inputs = {"at": (I, (length,)), "new": (kind, (2, 3, length, 4)), "past": (kind, (2, 3, rows, 4))}
    weights = {"axes": np.array([0, 1, 3])}
    bounds = {"n": (1, 1, rows)} if length == "n" else {}
    segment = segment_of(model_of(nodes, inputs, ["present"], weights, opset=18), bounds)
    if marked:
        update = next(op for op in segment.op.body.block.ops if op.name == "onnx.ScatterElements")
        update.attributes[IN_PLACE] = UnitAttr()
    return segment


CACHE = Runner(cache(), "fp32")


def run_on(runner: Runner, at, past: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Puts new rows at positions, with the memory of a state before and after; what the rows are."""
    new = np.random.default_rng(len(at)).standard_normal((2, 3, len(at), 4)).astype(np.float32)
    bindings = runner.executor.bind({"at": np.array(at, np.int64), "new": new, "past": past}, {"present": present})
    runner.executor.submit(bindings)
    return new


@given(at=st.lists(st.integers(-8, 7), min_size=1, max_size=8, unique_by=lambda each: each % 8))
@settings(max_examples=25)
@example(at=[0])
@example(at=[7])
@example(at=[-1])
@example(at=list(range(8)))
def test_a_state_is_changed_where_it_is(at: list[int]):
    past = np.arange(2 * 3 * 8 * 4, dtype=np.float32).reshape(2, 3, 8, 4)
    expected = past.copy()
    expected[:, :, at] = run_on(CACHE, at, past, past)
    np.testing.assert_array_equal(past, expected)


def test_with_two_memories_the_first_stays_as_it_was():
    past, present = np.ones((2, 3, 8, 4), np.float32), np.zeros((2, 3, 8, 4), np.float32)
    new = run_on(CACHE, [2], past, present)
    assert (past == 1).all()
    np.testing.assert_array_equal(present[:, :, 2], new[:, :, 0])
    assert (np.delete(present, 2, axis=2) == 1).all()


@pytest.mark.parametrize("at", [[8], [-9], [0, 8]])
def test_a_position_behind_a_state_is_a_fault(at: list[int]):
    past = np.ones((2, 3, 8, 4), np.float32)
    with pytest.raises(MachineError, match="is outside dimension 2 of size 8") as fault:
        run_on(CACHE, at, past, past)
    assert fault.value.from_data


def test_a_state_is_one_tensor_and_nothing_is_as_large():
    tensors = CACHE.executor.program.tensors
    (state,) = (each for each in tensors if each.role == "state")
    assert state.capacity_bytes == 2 * 3 * 8 * 4 * 4
    wide = Runner(cache(rows=4096, length=1), "fp32").executor.program
    (state,) = (each for each in wide.tensors if each.role == "state")
    assert sum(each.capacity_bytes for each in wide.tensors if each is not state) < state.capacity_bytes / 100


def test_without_the_mark_it_is_copied():
    tensors = Runner(cache(marked=False), "fp32").executor.program.tensors
    assert {"input", "output"} <= {each.role for each in tensors} <= {"input", "output", "temporary", "weight"}


def test_a_state_that_something_else_reads_is_copied():
    segment = cache()
    block = segment.op.body.block
    past, end = block.args[2], block.last_op
    assert end is not None
    block.insert_op_before(read := ops.Relu.make([past], [past.type]), end)
    end.operands = [*end.operands, read.results[0]]
    segment.op.res_names = ArrayAttr([StringAttr("present"), StringAttr("y")])
    assert not [each for each in Runner(segment, "fp32").executor.program.tensors if each.role == "state"]


def test_the_bound_of_a_state_is_that_of_what_is_new():
    def bound(marked: bool) -> float:
        op = cache(1 << 16, marked, 1).op
        ops = [each for each in op.body.block.ops if isinstance(each, OnnxOp)]
        return bound_of(ops, op.results_yielded, machine_of(DEVICE.kind), "fp32", {}).cycles

    assert bound(False) == (1 << 16) * bound(True) > 0
    cycles = Runner(cache(1 << 16, True, 1), "fp32").artifact.facts["cycles"]
    assert isinstance(cycles, int)
    assert bound(True) <= cycles


def test_a_step_takes_as_long_with_a_longer_state():
    def cycles(rows: int, marked: bool) -> int:
        found = Runner(cache(rows, marked, 1), "fp32").artifact.facts["cycles"]
        assert isinstance(found, int)
        return found

    assert cycles(64, True) == cycles(1 << 16, True) < cycles(64, False) < cycles(1 << 16, False)
