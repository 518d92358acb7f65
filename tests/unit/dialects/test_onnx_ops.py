"""Operations: how they are built, read and merged."""

import numpy as np
import pytest
from tests.unit.dialects.onnx_cases import context, function, only, parse, text_of
from xdsl.dialects.builtin import ArrayAttr, StringAttr, f32, i64
from xdsl.ir import Block, Region
from xdsl.transforms.common_subexpression_elimination import CommonSubexpressionElimination
from xdsl.transforms.dead_code_elimination import DeadCodeElimination
from xdsl.utils.exceptions import ParseError

from gimlet.dialects.onnx import (
    CustomOp,
    InitializerOp,
    OnnxOp,
    StringsAttr,
    WeightAttr,
    YieldOp,
    constant_value,
    ops,
    tensor_attr,
    tensor_type,
)
from gimlet.runtime.errors import InputError

F4 = tensor_type(f32, [4])


def values(count: int) -> list[OnnxOp]:
    return [ops.RandomNormal.make([], [F4], {"shape": [4]}) for _ in range(count)]


def test_inputs_and_attributes_by_name():
    x, w = values(2)
    conv = ops.Conv.make([x, w], [F4], {"strides": [2, 2], "group": 4}, node_name="conv1")
    assert conv.X is x.results[0]
    assert conv.W is w.results[0]
    assert conv.B is None
    assert (conv.strides, conv.group, conv.auto_pad, conv.dilations) == ([2, 2], 4, "NOTSET", None)
    assert conv.attr("dilations", [1, 1]) == [1, 1]
    assert (conv.op_type, conv.domain, conv.node_name) == ("Conv", "", "conv1")
    assert conv.since_version == conv.schema.since_version == 22


def test_a_default_list_is_not_shared():
    (x,) = values(1)
    scaler = ops.ai_onnx_ml.Normalizer.make([x], [F4])
    assert scaler.norm == "MAX"
    rnn = ops.LSTM.make([x, x, x], [F4], {"hidden_size": 4})
    rnn.attr("activations", []).append("Tanh")
    assert rnn.attr("activations", []) == []


def test_absent_inputs_and_outputs():
    x, high = values(2)
    clip = ops.Clip.make([x, None, high], [F4])
    assert [None if value is None else value.owner for value in clip.inputs] == [x, None, high]
    assert len(clip.operands) == 2
    assert clip.input_at(1) is None
    assert clip.input_at(7) is None
    trailing = ops.Clip.make([x, high, None], [F4])
    assert "absent_inputs" not in trailing.properties
    lstm = ops.LSTM.make([x, x, x, None, None, high], [None, F4, None], {"hidden_size": 4})
    assert [value is None for value in lstm.outputs] == [True, False]
    assert lstm.outputs[1] is lstm.results[0]


def test_an_older_version_says_so():
    (x,) = values(1)
    clip = ops.Clip.make([x], [F4], {"min": 0.0, "max": 6.0}, opset=10)
    assert clip.since_version == 6
    assert clip.attr("max") == 6.0
    assert ops.Clip.make([x], [F4], opset=28).properties == {}
    with pytest.raises(InputError, match=r"onnx\.Gelu does not exist at opset 19"):
        ops.Gelu.make([x], [F4], opset=19)


def test_an_attribute_that_the_operator_lacks():
    (x,) = values(1)
    with pytest.raises(InputError, match=r"Relu version 14 has no attribute 'alpha' \(it has: none\)"):
        ops.Relu.make([x], [F4], {"alpha": 1.0})


def test_subgraphs():
    def branch() -> Region:
        block = Block(values(1))
        block.add_op(YieldOp.create(operands=block.first_op.results))
        return Region(block)

    condition = InitializerOp.from_array(np.array(True))
    op = ops.If.make([condition], [F4], graphs={"then_branch": branch(), "else_branch": branch()})
    assert list(op.subgraphs) == ["else_branch", "then_branch"]
    assert "graphs" not in op.properties
    op.verify()


def test_a_custom_operation():
    (x,) = values(1)
    op = CustomOp.make_custom("com.example", "Op", [x, None, x], [F4], {"alpha": 2, "names": ["a"]}, overload="fast")
    assert (op.domain, op.op_type, op.overload, op.since_version, op.schema) == ("com.example", "Op", "fast", 1, None)
    assert op.attr("alpha") == 2
    assert len(op.inputs) == 3
    with pytest.raises(InputError, match="keeps the attribute name since_version for itself"):
        CustomOp.make_custom("com.example", "Op", [x], [F4], {"since_version": 2})


def test_random_numbers_are_erased_but_not_merged():
    body = (
        "".join(f"%{name} = onnx.RandomNormal {{shape = [4]}} : tensor<4xf32>" for name in ("a", "b", "unused"))
        + 'onnx.custom "com.example", "Use"(%a, %b) : (tensor<4xf32>, tensor<4xf32>) -> ()'
    )
    module = function(body)
    CommonSubexpressionElimination().apply(context(), module)
    DeadCodeElimination().apply(context(), module)
    assert sum(isinstance(op, ops.RandomNormal) for op in module.walk()) == 2


def test_control_flow_is_as_its_bodies():
    def module(inner: str):
        return function(
            f"%c = onnx.initializer {{value = dense<true> : tensor<i1>}} : tensor<i1>"
            f"%y = onnx.If(%c) else_branch {{ {inner} onnx.yield %r : tensor<4xf32> }}"
            f" then_branch {{ {inner} onnx.yield %r : tensor<4xf32> }} : (tensor<i1>) -> tensor<4xf32>",
            "%x: tensor<4xf32>",
        )

    pure = module("%r = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>")
    unknown = module('%r = onnx.custom "com.example", "Launch"(%x) : (tensor<4xf32>) -> tensor<4xf32>')
    for ir in (pure, unknown):
        DeadCodeElimination().apply(context(), ir)
    assert not any(isinstance(op, ops.If) for op in pure.walk())
    assert any(isinstance(op, ops.If) for op in unknown.walk())


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("onnx.Constant {value = dense<[1, 2]> : tensor<2xi64>} : tensor<2xi64>", [1, 2]),
        ("onnx.initializer {value = dense<[1, 2]> : tensor<2xi64>} : tensor<2xi64>", [1, 2]),
        ("onnx.initializer {value = dense<> : tensor<0xi64>} : tensor<0xi64>", []),
        ("onnx.Constant {value_int = 3} : tensor<i64>", 3),
        ("onnx.Constant {value_floats = [0.5]} : tensor<1xf32>", [0.5]),
        ('onnx.Constant {value_strings = ["a"]} : tensor<1x!onnx.string>', ["a"]),
        ("onnx.RandomNormal {shape = [4]} : tensor<4xf32>", None),
    ],
)
def test_constants(constant: str, value: object):
    module = function(f"%c = {constant}")
    result = module.body.block.first_op.body.block.first_op.results[0]
    found = constant_value(result)
    assert (None if found is None else found.tolist()) == value
    if value not in (None, []):
        assert constant_value(result, max_elements=0) is None


def test_constants_in_the_store():
    ctx = context()
    key = ctx.weights.add("w", np.arange(4, dtype=np.float32))
    meta = ctx.weights.add_meta("m", np.dtype(np.float32), [4])
    stored, missing = InitializerOp.from_key(key, F4), InitializerOp.from_key(meta, F4)
    assert constant_value(stored.results[0], ctx).tolist() == [0, 1, 2, 3]
    assert constant_value(stored.results[0]) is None
    assert constant_value(missing.results[0], ctx) is None
    attribute = ops.Constant.make([], [F4], {"value": WeightAttr(StringAttr(key), F4)})
    assert constant_value(attribute.results[0], ctx).tolist() == [0, 1, 2, 3]


CASES = [
    "%y = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>",
    "%y = onnx.Clip(%x, _, %s) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>",
    "%y = onnx.Softmax(%x) {axis = -1} : (tensor<4xf32>) -> tensor<4xf32>",
    '%y = onnx.LeakyRelu(%x) {alpha = 1.0e-05, placement.device = @gpu0} : (tensor<4xf32>) -> tensor<4xf32> loc("a b")',
    '%y = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("n"("scope"("m.py":3:0)))',
    '%y = onnx.custom "com.example", "Op"(%x) {a = [1, 2], b = [0.5, 2.0], c = ["p", "q"]} : (tensor<4xf32>) -> ()',
    '%y:2 = onnx.custom "com.example", "Op", "fast" : (tensor<4xf32>, _, tensor<*xf32>)',
    "%y = onnx.com.microsoft.Gelu(%x) : (tensor<4xf32>) -> tensor<4xf32>",
    "%y = onnx.Cast(%x) {to = 10} : (tensor<4xf32>) -> tensor<4xf16>",
    '%y = onnx.Constant {value = #onnx.raw<"0000807F", tensor<f32>>} : tensor<f32>',
    '%y = onnx.initializer {key = "conv1.weight"} : tensor<8x3x3x3xf32>',
]


@pytest.mark.parametrize("case", CASES)
def test_both_text_forms_are_read_back(case: str):
    ctx = context()
    if "-> ()" in case:
        case = case.removeprefix("%y = ")
    module = parse(f"func.func @main(%x: tensor<4xf32>, %s: tensor<f32>) {{ {case}\n func.return }}", ctx)
    text = text_of(module)
    assert text_of(parse(text, ctx)) == text
    generic = text_of(module, print_generic_format=True, print_debuginfo=True)
    assert text_of(parse(generic, ctx)) == text


def test_what_is_not_a_version():
    with pytest.raises(ParseError, match="expected a version such as v11, or the operands"):
        function("%y = onnx.Relu eleven(%x) : (tensor<4xf32>) -> tensor<4xf32>", "%x: tensor<4xf32>")


def test_a_flexible_subgraph_may_be_left_out():
    name = "onnx.ai.onnx.preview.FlexAttention"
    module = function(f"%y = {name}(%x, %x, %x) : (!onnx.any, !onnx.any, !onnx.any) -> !onnx.any", "%x: !onnx.any")
    module.verify()
    assert only(module, name).subgraphs == {}
    assert text_of(parse(text_of(module))) == text_of(module)


def test_a_tensor_of_strings_is_an_attribute():
    assert isinstance(tensor_attr(np.array(["a"])), StringsAttr)
    assert isinstance(
        ops.Constant.make([], [tensor_type(i64, [1])], {"value_ints": [1]}).properties["value_ints"].data.data, bytes
    )
    assert isinstance(ops.LSTM.make(values(3), [F4], {"activations": ["Relu"]}).properties["activations"], ArrayAttr)
