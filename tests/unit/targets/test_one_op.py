"""Models of one operation."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gimlet.targets.one_op import (
    is_constant,
    one_op_model,
    read_from_outside,
    signature_of,
    signature_text,
    untyped_refusal,
)

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


@pytest.fixture
def ops_of(import_onnx):
    def run(nodes, inputs, weights=(), outputs=("y",), opset=17):
        infos = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights]
        graph = helper.make_graph(nodes, "g", infos, results, tensors)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        module, _ = import_onnx(helper.make_model(graph, opset_imports=opsets, ir_version=8))
        modules.append(module)
        return [op for op in module.body.block.first_op.body.block.ops if op.name.startswith("onnx.")]

    modules = []
    return run


def model_of(op):
    found = one_op_model(op)
    proto = onnx.load_from_string(found.data)
    onnx.checker.check_model(proto)
    return proto, found


def test_operations_that_differ_in_names_alone_give_one_model(ops_of):
    first, second = ops_of(
        [helper.make_node("Relu", ["a"], ["b"], name="/one"), helper.make_node("Relu", ["b"], ["y"], name="/two")],
        [("a", FLOAT, ["rows", 8])],
    )
    assert signature_of(first) == signature_of(second)
    assert signature_text(first) == signature_text(second)
    assert one_op_model(first).data == one_op_model(second).data


@pytest.mark.parametrize(("floats", "alike"), [(32, True), (16, False)])
def test_values_of_many_floats_do_not_tell_operations_apart(ops_of, floats: int, alike: bool):
    nodes = [helper.make_node("Add", ["a", name], [f"y{name}"]) for name in ("one", "two")]
    weights = [("one", np.ones(floats, np.float32)), ("two", np.full(floats, 2, np.float32))]
    ops = [op for op in ops_of(nodes, [("a", FLOAT, [4, floats])], weights, ["yone", "ytwo"]) if not is_constant(op)]
    assert (len({signature_of(op) for op in ops}) == 1) == alike
    assert (len({signature_text(op) for op in ops}) == 1) == alike
    assert (len({one_op_model(op).data for op in ops}) == 1) == alike


def test_types_attributes_and_constants_tell_operations_apart(ops_of):
    nodes = [
        helper.make_node("Softmax", ["a"], ["s"], axis=0),
        helper.make_node("Softmax", ["a"], ["t"], axis=1),
        helper.make_node("Reshape", ["a", "one"], ["u"]),
        helper.make_node("Reshape", ["a", "two"], ["y"]),
    ]
    weights = [("one", np.array([8, 4])), ("two", np.array([2, 16]))]
    ops = [op for op in ops_of(nodes, [("a", FLOAT, [4, 8])], weights, "stuy") if not is_constant(op)]
    assert len({signature_of(op) for op in ops}) == 4
    assert len({signature_text(op) for op in ops}) == 4


def test_symbols_and_names_are_canonical(ops_of):
    (op,) = ops_of([helper.make_node("Relu", ["a"], ["y"])], [("a", FLOAT, ["rows", 3, "rows"])])
    proto, found = model_of(op)
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["d0", 3, "d0"]
    assert [proto.graph.input[0].name, proto.graph.output[0].name] == ["x0", "y0"]
    assert [str(dim) for dim in found.inputs["x0"]] == ["rows", "3", "rows"]


def test_a_weight_is_constant_without_its_values(ops_of):
    weight = np.full((8, 400), 7, np.float32)
    *_, op = ops_of([helper.make_node("MatMul", ["a", "w"], ["y"])], [("a", FLOAT, [4, 8])], [("w", weight)])
    proto, _ = model_of(op)
    (tensor,) = proto.graph.initializer
    assert (onnx.numpy_helper.to_array(tensor) == 1).all()


def test_indices_are_zero_so_that_they_are_inside(ops_of):
    *_, op = ops_of([helper.make_node("Gather", ["a", "i"], ["y"])], [("a", FLOAT, [4, 8])], [("i", np.full(2000, 3))])
    (tensor,) = model_of(op)[0].graph.initializer
    assert not onnx.numpy_helper.to_array(tensor).any()


def test_a_huge_weight_is_an_input(ops_of, monkeypatch):
    monkeypatch.setattr("gimlet.targets.one_op.LARGEST_CONSTANT", 8000)
    *_, op = ops_of(
        [helper.make_node("MatMul", ["a", "w"], ["y"])], [("a", FLOAT, [4, 8])], [("w", np.ones((8, 400), np.float32))]
    )
    proto, _ = model_of(op)
    assert [info.name for info in proto.graph.input] == ["x0", "x1"]
    assert not proto.graph.initializer


def test_a_small_constant_keeps_its_value(ops_of):
    *_, op = ops_of([helper.make_node("Reshape", ["a", "s"], ["y"])], [("a", FLOAT, [4, 8])], [("s", np.array([32]))])
    assert list(onnx.numpy_helper.to_array(model_of(op)[0].graph.initializer[0])) == [32]


def test_an_absent_input_stays_absent(ops_of):
    *_, op = ops_of([helper.make_node("Clip", ["a", "", "m"], ["y"])], [("a", FLOAT, [4]), ("m", FLOAT, [])])
    assert list(model_of(op)[0].graph.node[0].input) == ["x0", "", "x1"]


def test_what_a_body_reads_from_outside_is_an_input(ops_of):
    def branch(name, op_type):
        result = helper.make_tensor_value_info(name, FLOAT, [4])
        return helper.make_graph([helper.make_node(op_type, ["a"], [name])], name, [], [result])

    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch("t", "Neg"), else_branch=branch("e", "Relu"))]
    ops = ops_of(nodes, [("c", BOOL, []), ("a", FLOAT, [4])])
    op = next(op for op in ops if op.op_type == "If")
    assert len(list(read_from_outside(op))) == 2
    proto, _ = model_of(op)
    assert [info.name for info in proto.graph.input] == ["x0", "x1"]
    assert signature_of(op) != signature_of(op.clone())


def bodies(node):
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


def test_weights_of_a_body_have_stand_ins(ops_of):
    def branch(name, value):
        weight = onnx.numpy_helper.from_array(np.full((4, 400), value, np.float32), f"w{name}")
        result = helper.make_tensor_value_info(name, FLOAT, [4, 400])
        return helper.make_graph([helper.make_node("Add", ["a", f"w{name}"], [name])], name, [], [result], [weight])

    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch("t", 7), else_branch=branch("e", 8))]
    op = next(op for op in ops_of(nodes, [("c", BOOL, []), ("a", FLOAT, [4, 400])]) if op.op_type == "If")
    proto, _ = model_of(op)
    weights = [tensor for graph in (proto.graph, *bodies(proto.graph.node[0])) for tensor in graph.initializer]
    assert [(onnx.numpy_helper.to_array(weight) == 1).all() for weight in weights] == [True, True]


def test_a_value_without_a_type_is_named_with_what_makes_it(ops_of):
    make = helper.make_node("Tokenizer", ["a"], ["b"], domain="com.microsoft")
    maker, reader = ops_of([make, helper.make_node("Relu", ["b"], ["y"])], [("a", FLOAT, [4])])
    expected = "the type of 'b' is not known: no rule says what com.microsoft.Tokenizer makes; state it in the model"
    assert untyped_refusal(maker) == untyped_refusal(reader) == f"{expected} (value_info)"
