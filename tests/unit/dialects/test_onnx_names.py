"""Names of values and nodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.dialects.onnx_cases import context, function, parse, text_of
from xdsl.dialects import test
from xdsl.dialects.builtin import f32
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue
from xdsl.transforms.common_subexpression_elimination import CommonSubexpressionElimination

from gimlet.dialects.onnx import assign_names, node_name, ops, set_value_name, tensor_type, value_name
from gimlet.dialects.onnx.names import decode_name, encode_name


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("conv1", "conv1"),
        ("/conv1/Conv_output_0", "$.conv1$.Conv_output_0$"),
        ("x:0", "x$3A$0"),
        ("123", "$31$23"),
        ("relu_1", "relu_1$"),
        ("a$", "a$24$"),
    ],
)
def test_spelling(name: str, spelled: str):
    assert encode_name(name) == spelled
    assert decode_name(spelled) == name


@given(st.text(min_size=1))
def test_every_name_survives(name: str):
    spelled = encode_name(name)
    assert SSAValue.is_valid_name(spelled)
    assert SSAValue.extract_valid_name(spelled) == spelled, "xDSL would cut it"
    assert decode_name(spelled) == name


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True))
def test_names_survive_text(names: list[str]):
    ctx = context()
    arguments = ", ".join(f"%{encode_name(name)}: tensor<4xf32>" for name in names)
    module = parse(f"func.func @main({arguments}) {{ func.return }}", ctx)
    again = parse(text_of(module), ctx)
    main = again.body.block.first_op
    assert isinstance(main, FuncOp)
    assert [value_name(argument) for argument in main.args] == names


def test_names_are_made_unique_in_a_function():
    module = function(
        "%a = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>"
        "%a_1 = onnx.Relu(%a) : (tensor<4xf32>) -> tensor<4xf32>"
        '%0 = onnx.Relu(%a_1) : (tensor<4xf32>) -> tensor<4xf32> loc("last")',
        "%x: tensor<4xf32>",
    )
    assign_names(module)
    names = [value_name(result) for op in module.walk() for result in op.results]
    assert names == ["a", "a_2", "last_output_0"] or names == ["a", "a_1", "last_output_0"]
    assert len(set(names)) == 3


def test_a_value_without_a_name_is_given_one():
    module = function("%0 = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>", "%x: tensor<4xf32>")
    (relu,) = [op for op in module.walk() if isinstance(op, ops.Relu)]
    assert relu.results[0].name_hint is None
    assert value_name(relu.results[0]) == "Relu_output_0"
    set_value_name(relu.results[0], "y")
    assert value_name(relu.results[0]) == "y"


def test_a_value_of_no_module_has_no_name():
    value = test.TestOp(result_types=[f32]).results[0]
    assert value_name(value) == "op_output_0"


def test_a_replaced_value_hands_its_name_on():
    old = ops.Relu.make([test.TestOp(result_types=[tensor_type(f32, [4])])], [tensor_type(f32, [4])])
    new = ops.Relu.make([old.operands[0]], [tensor_type(f32, [4])])
    set_value_name(old.results[0], "/act/Relu_0")
    old.results[0].replace_all_uses_with(new.results[0])
    assert value_name(new.results[0]) == "/act/Relu_0"


def test_equal_operations_of_different_names_are_merged():
    module = function(
        '%a = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("first")'
        '%b = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("second")'
        "%c = onnx.Add(%a, %b) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>"
        'onnx.custom "com.example", "Use"(%c) : (tensor<4xf32>) -> ()',
        "%x: tensor<4xf32>",
    )
    CommonSubexpressionElimination().apply(context(), module)
    assert [node_name(op) for op in module.walk() if isinstance(op, ops.Relu)] == ["first"]
