"""Shapes that come from outside a segment, computed inside it."""

import numpy as np
import onnxruntime
import pytest
from xdsl.dialects.builtin import ModuleOp, f32, i64
from xdsl.ir import Block, Region

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, ops, tensor_type
from gimlet.dialects.placement import SegmentOp, YieldOp
from gimlet.targets.api import SegmentContext
from gimlet.targets.portable import FolderWeights, segment_model, write_model
from gimlet.targets.shape_operands import compute_shapes_inside, shapes_from_outside


def constant(block, elements):
    op = InitializerOp.from_array(np.array(elements, np.int64))
    block.add_op(op)
    return op.results[0]


@pytest.fixture
def segment_of(tmp_path):
    """A segment that `fill` builds from its arguments; the builder's result is what it yields."""

    def run(argument_types, fill, opset=17):
        block = Block(arg_types=argument_types)
        op = fill(block, *block.args)
        if op.parent is None:
            block.add_op(op)
        block.add_op(YieldOp([op.results[0]]))
        names = [f"a{index}" for index in range(len(argument_types))]
        segment = SegmentOp("s0", "dev", "fp32", Region(block), names, ["y"])
        from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr

        from gimlet.dialects.onnx import OPSETS

        opsets = DictionaryAttr({"": IntegerAttr(opset, 64)})
        holders.append(ModuleOp([segment], attributes={OPSETS: opsets}))
        return SegmentContext(segment, GimletContext(), {"": opset}, {}, tmp_path)

    holders = []
    return run


def run(segment, tmp_path, *inputs):
    write_model(segment_model(segment), FolderWeights(tmp_path), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {f"a{index}": array for index, array in enumerate(inputs)})[0]


WRONG = np.array([77, 77, 77], np.int64)
X = tensor_type(f32, ["batch", "seq", 64])
VECTOR3 = tensor_type(i64, [3])


@pytest.mark.parametrize("opset", [13, 17])
def test_a_reshape_computes_its_target(segment_of, tmp_path, opset):
    result = tensor_type(f32, ["batch", "8*seq", 8])
    segment = segment_of([X, VECTOR3], lambda block, x, s: ops.Reshape.make([x, s], [result], opset=opset), opset)
    assert len(list(shapes_from_outside(segment.op.body.block))) == 1
    assert compute_shapes_inside(segment.op.body.block) == 1
    segment.op.verify()
    assert list(shapes_from_outside(segment.op.body.block)) == []
    x = np.arange(2 * 5 * 64, dtype=np.float32).reshape(2, 5, 64)
    np.testing.assert_array_equal(run(segment, tmp_path, x, WRONG), x.reshape(2, 40, 8))


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        (["batch * seq", 64], (10, 64)),
        (["floordiv(64*batch*seq, 4)", 4], (160, 4)),
        (["ceildiv(batch*seq, 3)", "mod(seq, 3)", None], (4, 2, 80)),
        (["seq + batch - 2", "2*batch", 32], (5, 4, 32)),
    ],
)
def test_dimensions_are_computed_whatever_their_expression(segment_of, tmp_path, dims, expected):
    result = tensor_type(f32, dims)
    segment = segment_of([X, VECTOR3], lambda block, x, s: ops.Reshape.make([x, s], [result], opset=17))
    assert compute_shapes_inside(segment.op.body.block) == 1
    x = np.zeros((2, 5, 64), np.float32)
    assert run(segment, tmp_path, x, WRONG).shape == expected


def test_what_made_the_shape_inside_goes(segment_of, tmp_path):
    def fill(block, x, part):
        whole = ops.Concat.make([part, constant(block, [64])], [tensor_type(i64, [3])], {"axis": 0}, opset=17)
        block.add_op(whole)
        return ops.Reshape.make([x, whole.results[0]], [tensor_type(f32, ["seq", "batch", 64])], opset=17)

    segment = segment_of([X, tensor_type(i64, [2])], fill)
    assert compute_shapes_inside(segment.op.body.block) == 1
    assert [op.name for op in segment.op.body.block.ops if op.name == "onnx.Concat"] == ["onnx.Concat"]
    assert not segment.op.body.block.args[1].uses
    assert run(segment, tmp_path, np.zeros((2, 5, 64), np.float32), WRONG[:2]).shape == (5, 2, 64)


def test_a_shape_of_something_inside_is_left_alone(segment_of):
    def fill(block, x, y):
        shape = ops.Shape.make([y], [tensor_type(i64, [3])], opset=17)
        block.add_op(shape)
        return ops.Reshape.make([x, shape.results[0]], [X], opset=17)

    segment = segment_of([X, X], fill)
    assert compute_shapes_inside(segment.op.body.block) == 0


VECTOR1, SCALAR = tensor_type(i64, [1]), tensor_type(i64, [])


@pytest.mark.parametrize(
    ("types", "fill", "inputs", "expected"),
    [
        (
            [tensor_type(f32, ["n", 1]), tensor_type(f32, ["m"]), tensor_type(i64, [2])],
            lambda b, x, m, s: ops.Expand.make([x, s], [tensor_type(f32, ["n", "m"])], opset=17),
            [np.ones((3, 1), np.float32), np.ones(4, np.float32), WRONG[:2]],
            np.ones((3, 4)),
        ),
        (
            [tensor_type(f32, ["n"]), VECTOR1],
            lambda b, x, e: ops.Slice.make([x, constant(b, [2]), e], [tensor_type(f32, ["n - 3"])], opset=17),
            [np.arange(9, dtype=np.float32), WRONG[:1]],
            np.arange(2, 8),
        ),
        (
            [tensor_type(f32, ["n", 1]), tensor_type(i64, [2])],
            lambda b, x, r: ops.Tile.make([x, r], [tensor_type(f32, ["n", "n"])], opset=17),
            [np.ones((3, 1), np.float32), WRONG[:2]],
            np.ones((3, 3)),
        ),
        (
            [tensor_type(f32, ["n"]), VECTOR1],
            lambda b, x, s: ops.ConstantOfShape.make([s], [tensor_type(f32, ["2*n"])], opset=17),
            [np.ones(3, np.float32), WRONG[:1]],
            np.zeros(6),
        ),
    ],
    ids=["Expand", "Slice", "Tile", "ConstantOfShape"],
)
def test_other_operators(segment_of, tmp_path, types, fill, inputs, expected):
    segment = segment_of(types, fill)
    assert compute_shapes_inside(segment.op.body.block) == 1
    np.testing.assert_array_equal(run(segment, tmp_path, *inputs), expected)


def test_a_range_ends_where_its_length_says(segment_of, tmp_path):
    def fill(block, x, limit):
        zero, one = (InitializerOp.from_array(np.array(value, np.int64)) for value in (0, 1))
        block.add_ops([zero, one])
        return ops.Range.make([zero.results[0], limit, one.results[0]], [tensor_type(i64, ["n"])], opset=17)

    segment = segment_of([tensor_type(f32, ["n"]), SCALAR], fill)
    assert compute_shapes_inside(segment.op.body.block) == 1
    np.testing.assert_array_equal(run(segment, tmp_path, np.ones(5, np.float32), np.array(77)), np.arange(5))


@pytest.mark.parametrize(
    ("types", "fill"),
    [
        (  # two dimensions that nobody knows
            [X, VECTOR3],
            lambda b, x, s: ops.Reshape.make([x, s], [tensor_type(f32, [None, None, 64])], opset=17),
        ),
        (  # a symbol that is no dimension of anything here
            [X, VECTOR3],
            lambda b, x, s: ops.Reshape.make([x, s], [tensor_type(f32, ["heads", "seq", 64])], opset=17),
        ),
        (  # a slice that starts anywhere
            [tensor_type(f32, ["n"]), VECTOR1, VECTOR1],
            lambda b, x, s, e: ops.Slice.make([x, s, e], [tensor_type(f32, ["n - 3"])], opset=17),
        ),
    ],
)
def test_what_the_type_does_not_tell_stays_and_is_found(segment_of, types, fill):
    segment = segment_of(types, fill)
    assert compute_shapes_inside(segment.op.body.block) == 0
    (op, _), *_ = shapes_from_outside(segment.op.body.block)
    assert op.op_type in ("Reshape", "Slice")


def test_an_element_is_computed_once_for_all_who_read_it(segment_of):
    def fill(block, x, s):
        first = ops.Reshape.make([x, s], [tensor_type(f32, ["batch", "8*seq", 8])], opset=17)
        block.add_op(first)
        return ops.Reshape.make([first.results[0], s], [tensor_type(f32, ["8*seq", "batch", 8])], opset=17)

    segment = segment_of([X, VECTOR3], fill)
    assert compute_shapes_inside(segment.op.body.block) == 2
    assert sum(op.name == "onnx.Mul" for op in segment.op.body.block.ops) <= 1
