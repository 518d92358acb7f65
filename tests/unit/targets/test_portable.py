"""The portable form of a segment: CPU formats, and weights in a file of the bundle."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from gimlet.targets.api import WeightReference
from gimlet.targets.portable import FolderWeights, identity_of, segment_model, write_model, write_portable
from gimlet.targets.widen import widen_missing_formats

BF16, FLOAT, FP8 = TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.FLOAT8E4M3FN


def model_of(nodes, kind, outputs, *, weights=(), shape=(4, 8), opset=19, inner=()):
    infos = [helper.make_tensor_value_info("x", kind, shape)]
    results = [helper.make_tensor_value_info(name, code, shape) for name, code in outputs]
    tensors = [helper.make_tensor(n, kind, a.shape, a.tobytes(), raw=True) for n, a in weights]
    values = [helper.make_tensor_value_info(name, kind, None) for name in inner]
    graph = helper.make_graph(nodes, "g", infos, results, tensors, value_info=values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def widened(model):
    found = ir.from_proto(model)
    assert widen_missing_formats(found) == []
    proto = ir.to_proto(found)
    onnx.checker.check_model(proto)
    return proto


def run(proto, x):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def ops(proto):
    return [node.op_type for node in proto.graph.node]


def test_bfloat16_is_computed_in_float32_and_rounded_after_every_op():
    rng = np.random.default_rng(0)
    w = rng.standard_normal((8, 8)).astype(ml_dtypes.bfloat16)
    x = rng.standard_normal((4, 8), np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["b"], to=BF16),
        helper.make_node("MatMul", ["b", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("Add", ["r", "m"], ["a"]),
        helper.make_node("Cast", ["a"], ["y"], to=FLOAT),
    ]
    model = model_of(nodes, BF16, [("y", FLOAT)], weights=[("w", w)], inner="bmra")
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", FLOAT, (4, 8)))
    (y,) = run(widened(model), x)
    product = (x.astype(ml_dtypes.bfloat16).astype(np.float32) @ w.astype(np.float32)).astype(ml_dtypes.bfloat16)
    rounded = product.astype(np.float32)
    expected = (np.maximum(rounded, 0) + rounded).astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(y, expected)


def test_types_and_names_at_the_edge_stay():
    proto = widened(model_of([helper.make_node("Relu", ["x"], ["y"])], BF16, [("y", BF16)]))
    assert [proto.graph.input[0].name, proto.graph.output[0].name] == ["x", "y"]
    assert proto.graph.input[0].type.tensor_type.elem_type == BF16
    assert proto.graph.output[0].type.tensor_type.elem_type == BF16
    assert ops(proto) == ["Cast", "Relu", "Cast"]


def test_an_op_with_a_kernel_for_the_type_is_left_alone():
    nodes = [helper.make_node("Transpose", ["x"], ["t"]), helper.make_node("Cast", ["t"], ["y"], to=FLOAT)]
    assert ops(widened(model_of(nodes, BF16, [("y", FLOAT)], inner="t"))) == ["Transpose", "Cast"]


def test_a_value_is_cast_once_for_all_its_readers():
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["x"], ["y"])]
    assert ops(widened(model_of(nodes, BF16, [("a", BF16), ("y", BF16)]))).count("Cast") == 3


def test_bodies_are_rewritten_too():
    then = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["n"])], "t", [], [helper.make_tensor_value_info("n", BF16, (4, 8))]
    )
    other = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"])], "e", [], [helper.make_tensor_value_info("r", BF16, (4, 8))]
    )
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=condition),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    proto = widened(model_of(nodes, BF16, [("y", BF16)]))
    branch = next(a.g for a in proto.graph.node[-1].attribute if a.name == "then_branch")
    assert [node.op_type for node in branch.node] == ["Cast", "Neg", "Cast"]


def test_a_type_attribute_and_a_value_are_widened_with_their_op():
    value = helper.make_tensor("v", BF16, [1], np.array([2.5], ml_dtypes.bfloat16).tobytes(), raw=True)
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["c"], value=value),
        helper.make_node("Cast", ["c"], ["y"], to=FLOAT),
    ]
    model = model_of(nodes, FLOAT, [("y", FLOAT)], opset=21)
    model.graph.value_info.append(helper.make_tensor_value_info("c", BF16, None))
    (y,) = run(widened(model), np.zeros((4, 8), np.float32))
    np.testing.assert_array_equal(y, np.full((4, 8), 2.5, np.float32))


def test_the_quantised_side_of_an_op_keeps_its_type():
    nodes = [
        helper.make_node("Constant", [], ["s"], value=helper.make_tensor("s", FLOAT, [], [0.5])),
        helper.make_node("Cast", ["s"], ["sb"], to=BF16),
        helper.make_node("Constant", [], ["z"], value=helper.make_tensor("z", FP8, [], b"\0", raw=True)),
        helper.make_node("QuantizeLinear", ["x", "sb", "z"], ["q"]),
    ]
    model = model_of(nodes, BF16, [("q", FP8)], opset=21)
    model.graph.value_info.append(helper.make_tensor_value_info("sb", BF16, []))
    model.graph.value_info.append(helper.make_tensor_value_info("z", FP8, []))
    proto = widened(model)
    quantize = proto.graph.node[-1]
    assert quantize.op_type == "QuantizeLinear"
    assert list(quantize.input) == ["x$wide", "sb$wide", "z"]
    assert list(quantize.output) == ["q"]
    onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def test_a_format_that_nothing_casts_is_a_reason():
    model = model_of([helper.make_node("Relu", ["x"], ["y"], name="/r")], TensorProto.FLOAT4E2M1, [("y", FLOAT)])
    reasons = widen_missing_formats(ir.from_proto(model))
    assert [str(reason) for reason in reasons] == ["/r: nothing on a CPU casts tensor(float4e2m1)"]


def test_weights_lie_in_one_file_equal_ones_once(make_segment, tmp_path):
    w = np.random.default_rng(0).standard_normal((8, 400), np.float32)
    nodes = [helper.make_node("MatMul", ["x", "a"], ["m"]), helper.make_node("MatMul", ["x", "b"], ["n"])]
    nodes.append(helper.make_node("Add", ["m", "n"], ["y"]))
    segment = make_segment(model_of(nodes, FLOAT, [("y", FLOAT)], weights=[("a", w), ("b", w.copy())]))
    assert write_portable(segment, tmp_path) == ("model.onnx", "model.weights")
    assert (tmp_path / "model.weights").stat().st_size == w.nbytes
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    x = np.ones((4, 8), np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], 2 * x @ w, rtol=1e-5, atol=1e-5)


class SharedFile:
    """A bundle's weights file, as the compiler gives it to targets."""

    def __init__(self, root):
        self.root = root
        self.placed = []

    def place(self, weight):
        self.placed.append(weight.key)
        return WeightReference("weights/weights.bin", 4096, weight.nbytes)


def test_locations_are_relative_to_the_bundle(make_segment, tmp_path, conv_net):
    shared = SharedFile(tmp_path)
    segment = make_segment(conv_net, weights=shared)
    folder = tmp_path / "segments" / "s0"
    assert write_portable(segment, folder) == ("model.onnx",)
    proto = onnx.load(folder / "model.onnx", load_external_data=False)
    entry = {item.key: item.value for item in proto.graph.initializer[0].external_data}
    assert entry["location"] == "weights/weights.bin"
    assert entry["offset"] == "4096"
    assert sorted(shared.placed) == ["kernel", "matrix"]


def test_writing_twice_gives_the_same_bytes(make_segment, tmp_path, conv_net):
    for name in ("a", "b"):
        write_portable(make_segment(conv_net), tmp_path / name)
    assert (tmp_path / "a/model.onnx").read_bytes() == (tmp_path / "b/model.onnx").read_bytes()
    assert (tmp_path / "a/model.weights").read_bytes() == (tmp_path / "b/model.weights").read_bytes()


def test_identity_does_not_depend_on_where_weights_lie(make_segment, tmp_path, conv_net):
    def identity(writer, change=lambda proto: None):
        changed = onnx.ModelProto()
        changed.CopyFrom(conv_net)
        change(changed)
        found = segment_model(make_segment(changed))
        return identity_of(write_model(found, writer, tmp_path / "m.onnx"), found.weights)

    def other_weights(proto):
        proto.graph.initializer[1].raw_data = bytes(len(proto.graph.initializer[1].raw_data))

    here = identity(FolderWeights(tmp_path))
    assert here == identity(SharedFile(tmp_path))
    assert here != identity(FolderWeights(tmp_path), other_weights)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.int4])
def test_a_folders_weights_are_stored_as_onnx_stores_them(make_segment, tmp_path, dtype):
    segment = make_segment(model_of([helper.make_node("Relu", ["x"], ["y"])], FLOAT, [("y", FLOAT)]))
    array = np.arange(-8, 8).astype(dtype)
    key = segment.ctx.weights.add("w", array)
    place = FolderWeights(tmp_path).place(segment.ctx.weights[key])
    data = (tmp_path / place.location).read_bytes()[place.offset : place.offset + place.length]
    assert data == ir.Tensor(array).tobytes()
    assert len(data) == segment.ctx.weights[key].nbytes
