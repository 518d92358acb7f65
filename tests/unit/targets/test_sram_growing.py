"""Caches that grow by Concat: states that get what is new where they are, as if the cache were copied."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.unit.targets.sram_models import DEVICE, Runner, device, model_of, segment_of
from tests.unit.targets.test_sram_ops import F
from xdsl.dialects.builtin import ArrayAttr, StringAttr, UnitAttr

from gimlet.dialects.onnx import OnnxOp, ops
from gimlet.passes.state_pairs import IN_PLACE
from gimlet.runtime.errors import InputError
from gimlet.runtime.sram.program import Growth, Tensor
from gimlet.targets.api import SegmentContext
from gimlet.targets.sram.bound import bound_of
from gimlet.targets.sram.target import SramTarget, machine_of

SMALL = device(chiplets=2, cores=16)
BOUNDS = {"past": (0, 4, 10), "new": (1, 1, 4)}
HEADS, SIZE = 2, 8
LAYOUTS = {"heads first": (2, (1, HEADS, "past", SIZE)), "positions first": (1, (1, "past", HEADS, SIZE))}


def nodes_of(layout: str) -> list[onnx.NodeProto]:
    """Attention of four heads over keys and values of two, with the keys and values of the tokens before."""
    axis = LAYOUTS[layout][0]
    turned = [("present.k", [0, 1, 3, 2]), ("present.v", None)] if axis == 2 else []
    turned = turned or [("present.k", [0, 2, 3, 1]), ("present.v", [0, 2, 1, 3])]
    made: list[onnx.NodeProto] = []
    for name, (value, order) in zip("kv", turned, strict=True):
        made += [
            helper.make_node("Concat", [f"past.{name}", f"new.{name}"], [f"present.{name}"], axis=axis - 4),
            helper.make_node("Transpose", [value], [f"turned.{name}"], perm=order)
            if order
            else helper.make_node("Identity", [value], [f"turned.{name}"]),
            helper.make_node("Unsqueeze", [f"turned.{name}", "two"], [f"one.{name}"]),
        ]
    return [
        *made,
        helper.make_node("MatMul", ["q", "one.k"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "one.v"], ["y"]),
    ]


def step(layout: str = "heads first", marked: bool = True, extra: list[onnx.NodeProto] | None = None) -> SegmentContext:
    """A decode step [1, heads, group, new, size] as a segment whose caches are states, or (not `marked`) are not."""
    _, past = LAYOUTS[layout]
    new = tuple("new" if size == "past" else size for size in past)
    given = {f"{what}.{name}": (F, past if what == "past" else new) for name in "kv" for what in ("past", "new")}
    given |= {"q": (F, (1, HEADS, 2, "new", SIZE))}
    outputs = ["y", "present.k", "present.v", *(name for node in extra or () for name in node.output)]
    model = model_of([*nodes_of(layout), *(extra or [])], given, outputs, {"two": np.array([2])})
    segment = segment_of(model, BOUNDS)
    for op in concats(segment) if marked else ():
        op.attributes[IN_PLACE] = UnitAttr()
    return segment


def concats(segment: SegmentContext) -> list[OnnxOp]:
    found = (op for op in segment.op.body.block.ops if isinstance(op, OnnxOp))
    return [op for op in found if op.op_type == "Concat"]


def states(runner: Runner) -> list[Tensor]:
    return [tensor for tensor in runner.executor.program.tensors if tensor.role == "state"]


def at(layout: str, positions: int) -> tuple[int, ...]:
    """The shape of keys or values of so many positions."""
    return tuple(positions if isinstance(size, str) else size for size in LAYOUTS[layout][1])


def decoded(runner: Runner, layout: str, lengths: list[int]) -> list[np.ndarray]:
    """What each step of so many tokens gives; each begins with what the one before has left."""
    random, axis = np.random.default_rng(0), LAYOUTS[layout][0]
    kept = {name: np.zeros(at(layout, 0), np.float32) for name in ("past.k", "past.v")}
    found: list[np.ndarray] = []
    for length in lengths:
        new = {name: random.standard_normal(at(layout, length), np.float32) for name in ("new.k", "new.v")}
        query = random.standard_normal((1, HEADS, 2, length, SIZE), np.float32)
        y, *after = runner(**kept, **new, q=query)
        for name, left in zip("kv", after, strict=True):
            np.testing.assert_array_equal(left, np.concatenate([kept[f"past.{name}"], new[f"new.{name}"]], axis))
            kept[f"past.{name}"] = left
        found.append(y)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_steps_of_a_cache_in_place_are_those_of_one_that_is_copied(layout: str):
    here, copied = (Runner(step(layout, marked), "fp32", SMALL) for marked in (True, False))
    lengths = [3, 1, 1, 4, 1]
    for found, expected in zip(decoded(here, layout, lengths), decoded(copied, layout, lengths), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not states(copied)
    assert len(states(here)) == 2
    for tensor in states(here):
        assert isinstance(tensor.growth, Growth)
        assert tensor.growth.dim == LAYOUTS[layout][0]
        assert [dim.as_int() for dim in tensor.shape] == list(at(layout, 10))
        assert tensor.capacity_bytes == 10 * HEADS * SIZE * 4


def test_what_is_full_takes_nothing_more():
    runner = Runner(step(), "fp32", SMALL)
    decoded(runner, "heads first", [4, 4, 2])
    with pytest.raises(InputError, match="would grow from 10 to 11 in dimension 2, and has room for 10"):
        decoded(runner, "heads first", [4, 4, 2, 1])


def test_what_is_there_is_not_moved():
    """A step on a long cache stores as little as on a short one, and takes less time and room than one that copies."""
    bounds = {"past": (0, 4000, 4096), "new": (1, 1, 4)}
    given = {"past": (F, (1, HEADS, "past", SIZE)), "new": (F, (1, HEADS, "new", SIZE))}
    model = model_of([helper.make_node("Concat", ["past", "new"], ["present"], axis=2)], given, ["present"])
    found = []
    for marked in (True, False):
        segment = segment_of(model, bounds)
        for op in concats(segment) if marked else ():
            op.attributes[IN_PLACE] = UnitAttr()
        found.append(Runner(segment, "fp32", SMALL))
    here, copied = found
    assert len(here.executor.program.kernels) == 1
    held = [sum(each.capacity_bytes for each in runner.executor.program.tensors) for runner in found]
    assert held[0] < 0.6 * held[1]
    cycles = [runner.artifact.facts["cycles"] for runner in (here, copied)]
    assert isinstance(cycles[0], int)
    assert isinstance(cycles[1], int)
    assert 4 * cycles[0] < cycles[1]


def test_a_cache_that_is_read_elsewhere_is_copied():
    """Reading its sizes is none: a traced decoder takes the first position from the shape of a cache."""
    elsewhere = Runner(step(extra=[helper.make_node("Relu", ["past.k"], ["z"])]), "fp32", SMALL)
    assert [tensor.name for tensor in states(elsewhere)] == ["in2"]
    sizes = helper.make_node("Shape", ["past.k"], ["z"])
    assert len(states(Runner(step(extra=[sizes]), "fp32", SMALL))) == 2


def test_the_target_says_what_it_makes_longer_in_place():
    past = concats(step())[0].operands[0]
    assert SramTarget().updates_in_place(concats(step())[0])
    assert not SramTarget().updates_in_place(ops.Relu.make([past], [past.type]))


def test_placement_sees_what_a_cache_in_place_costs():
    def seconds(marked: bool) -> float:
        (op,) = concats(step(marked=marked))[:1]
        return SramTarget().op_cost(op, DEVICE, "fp32", {"past": 1 << 14, "new": 1}).seconds

    assert 2 * seconds(True) < seconds(False)


def test_the_bound_is_that_of_what_is_new():
    def bound(marked: bool) -> float:
        segment = step(marked=marked)
        op = concats(segment)[0]
        return bound_of([op], op.results, machine_of(DEVICE.kind), "fp32", {"past": 99, "new": 1}).cycles

    assert bound(False) == 100 * bound(True) > 0


def test_what_is_computed_is_stored_where_it_belongs():
    """A state that is an output of its own too, and rows that a product makes."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["row"]),
        helper.make_node("Concat", ["past", "row"], ["present"], axis=0),
        helper.make_node("Relu", ["present"], ["y"]),
    ]
    weights = np.random.default_rng(1).standard_normal((64, 32), np.float32)
    given = {"x": (F, ("new", 64)), "past": (F, ("past", 32))}
    segment = segment_of(model_of(nodes, given, ["y", "present"], {"w": weights}), BOUNDS)
    (op,) = concats(segment)
    op.attributes[IN_PLACE] = UnitAttr()
    end = segment.op.body.block.last_op
    assert end is not None
    end.operands = [*end.operands, end.operands[1]]
    segment.op.res_names = ArrayAttr([StringAttr(name) for name in ("y", "present", "again")])
    runner = Runner(segment, "fp32", SMALL)
    assert [kernel.name.rsplit("_", 1)[0] for kernel in runner.executor.program.kernels] == ["matmul", "map"]
    past, x = np.ones((5, 32), np.float32), np.random.default_rng(2).standard_normal((2, 64), np.float32)
    y, present, again = runner(x=x, past=past)
    np.testing.assert_allclose(present, np.concatenate([past, x @ weights]), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(present, again)
    np.testing.assert_array_equal(y, np.maximum(present, 0))
