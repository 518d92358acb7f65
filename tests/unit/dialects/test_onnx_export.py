"""Round trips: a model that was imported and exported computes the same."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from tests.unit.dialects.onnx_cases import context, exported, function, imported, model_of, only, parse, run
from xdsl.dialects.func import FuncOp

from gimlet.dialects.onnx import ops
from gimlet.dialects.onnx.exporter import export_block, export_module, function_inputs, function_outputs, read_opsets
from gimlet.dialects.onnx.names import named_location
from gimlet.runtime.errors import InputError

OCR = ("ch_PP-OCRv4_det_infer", "ch_PP-OCRv4_rec_infer", "ch_ppocr_mobile_v2.0_cls_infer")


@pytest.mark.parametrize("name", OCR)
def test_real_models(name: str):
    spec = find_spec("rapidocr_onnxruntime")
    if spec is None or spec.origin is None:
        pytest.skip("the models are not installed")
    model = onnx.load(Path(spec.origin).parent / "models" / f"{name}.onnx")
    module, ctx = imported(model)
    again = exported(module, ctx)
    onnx.checker.check_model(again)
    height = 64 if "det" in name else 48
    x = np.random.default_rng(0).standard_normal((1, 3, height, 192)).astype(np.float32)
    expected, found = run(model, {"x": x}), run(again, {"x": x})
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[key], found[key]) for key in expected)
    assert [node.name for node in again.graph.node if node.op_type == "Conv"] == [
        node.name for node in model.graph.node if node.op_type == "Conv"
    ]


def chain():
    """relu → neg → exp over 4 floats."""
    body = (
        "%a = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>"
        "%b = onnx.Neg(%a) : (tensor<4xf32>) -> tensor<4xf32>"
        "%c = onnx.Exp(%b) : (tensor<4xf32>) -> tensor<4xf32>"
    )
    module = function(body, "%x: tensor<4xf32>")
    return module, module.body.block.first_op


def test_part_of_a_block():
    module, main = chain()
    relu, neg, exp = (only(module, f"onnx.{name}") for name in ("Relu", "Neg", "Exp"))
    for op in (relu, neg, exp):
        op.results[0].name_hint = None
    exp.detach()
    relu.results[0].replace_uses_with_if(main.args[0], lambda use: use.operation is neg)
    relu.detach()
    model = export_block(
        main, [("in", main.args[0])], [("out", neg.results[0])], {"": 17}, context(), "part", ir_version=9
    )
    proto = ir.to_proto(model)
    assert [node.op_type for node in proto.graph.node] == ["Neg"]
    assert (proto.graph.name, proto.ir_version, proto.opset_import[0].version) == ("part", 9, 17)
    assert run(proto, {"in": np.ones(4, np.float32)})["out"].tolist() == [-1] * 4


def test_a_value_from_outside_must_be_an_input():
    _, main = chain()
    block = main.body.block
    with pytest.raises(InputError, match=r"onnx\.Relu: value %x is not among the model's inputs"):
        export_block(block, [], [], {"": 17}, context(), "part")


def test_constants_from_outside_are_taken_along():
    ctx = context()
    key = ctx.weights.add("w", np.arange(4, dtype=np.float32))
    module = parse(
        f'func.func @main(%x: tensor<4xf32>) {{ %w = onnx.initializer {{key = "{key}"}} : tensor<4xf32>'
        "%k = onnx.Constant {value_floats = [1.0, 2.0, 3.0, 4.0]} : tensor<4xf32>"
        "%a = onnx.Add(%x, %w) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>"
        "%b = onnx.Mul(%a, %k) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> func.return }",
        ctx,
    )
    main = module.body.block.first_op
    result = only(module, "onnx.Mul").results[0]
    for name in ("onnx.initializer", "onnx.Constant"):
        only(module, name).detach()
    proto = ir.to_proto(export_block(main, [("x", main.args[0])], [("y", result)], {"": 17}, ctx, "part"))
    assert run(proto, {"x": np.ones(4, np.float32)})["y"].tolist() == [1, 4, 9, 16]


def test_equal_names_are_told_apart():
    module, main = chain()
    for op in main.body.block.ops:
        for result in op.results:
            result.name_hint = "same"
    proto = ir.to_proto(
        export_block(
            main, [("same", main.args[0])], [("out", only(module, "onnx.Exp").results[0])], {"": 17}, context(), "g"
        )
    )
    names = [name for node in proto.graph.node for name in node.output]
    assert names == ["same_1", "same_2", "out"]


def test_nodes_of_one_name_are_told_apart_for_a_runtime_and_left_alone_in_a_copy():
    module, main = chain()
    for op in main.body.block.ops:
        op.location = named_location("same")
    result = only(module, "onnx.Exp").results[0]
    proto = ir.to_proto(export_block(main, [("x", main.args[0])], [("y", result)], {"": 17}, context(), "g"))
    assert [node.name for node in proto.graph.node] == ["same", "same_2", "same_3"]


def test_a_foreign_operation():
    module = parse('func.func @main() { "test.op"() : () -> () func.return }')
    with pytest.raises(InputError, match=r"test\.op is not an ONNX operation"):
        export_module(module, context())


def test_a_module_without_main():
    with pytest.raises(InputError, match="the module has no function @main"):
        export_module(parse("func.func @other() { func.return }"), context())


@pytest.mark.parametrize("outputs", [("x",), ("y", "y2"), ("w",), ("z",)])
def test_outputs_that_are_not_made_by_a_node(outputs: tuple[str, ...]):
    """An input, a value twice, and a constant: each is copied where ONNX needs it."""
    sources = {"x": "%x", "y": "%r", "y2": "%r", "w": "%w", "z": "%x"}
    names = ", ".join(f'tensor<4xf32> {{onnx.name = "{name}"}}' for name in outputs)
    values = ", ".join(sources[name] for name in outputs)
    module = parse(
        'builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {'
        f'func.func @main(%x: tensor<4xf32> {{onnx.name = "x"}}) -> ({names}) {{'
        "%w = onnx.initializer {value = dense<3.0> : tensor<4xf32>} : tensor<4xf32>"
        "%r = onnx.Relu v14(%x) : (tensor<4xf32>) -> tensor<4xf32>"
        f"func.return {values} : {', '.join(['tensor<4xf32>'] * len(outputs))} }} }}"
    )
    module.verify()
    x = np.array([-1, 0, 1, 2], np.float32)
    found = run(exported(module, context()), {"x": x})
    expected = {"x": x, "z": x, "w": np.full(4, 3, np.float32), "y": np.maximum(x, 0), "y2": np.maximum(x, 0)}
    assert list(found) == list(outputs)
    assert all(np.array_equal(found[name], expected[name]) for name in outputs)


def test_a_loop_that_passes_values_through():
    inner = helper.make_graph(
        [helper.make_node("Add", ["sum", "x"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [4]),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [4]),
        ],
    )
    nodes = [
        helper.make_node("Constant", [], ["n"], value_int=3),
        helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True])),
        helper.make_node("Loop", ["n", "yes", "x"], ["y"], body=inner),
    ]
    module, ctx = imported(model_of(nodes, {"x": [4]}, {"y": [4]}))
    assert run(exported(module, ctx), {"x": np.ones(4, np.float32)})["y"].tolist() == [4] * 4


def test_tied_weights_are_written_once():
    shared = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    ctx = context()
    keys = [ctx.weights.add(name, shared) for name in ("a", "b")]
    module = parse(
        'builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {'
        "func.func @main(%x: tensor<2x32xf32>) -> tensor<2x32xf32> {"
        + "".join(f'%w{i} = onnx.initializer {{key = "{key}"}} : tensor<32x32xf32>' for i, key in enumerate(keys))
        + "%h = onnx.MatMul v13(%x, %w0) : (tensor<2x32xf32>, tensor<32x32xf32>) -> tensor<2x32xf32>"
        "%y = onnx.MatMul v13(%h, %w1) : (tensor<2x32xf32>, tensor<32x32xf32>) -> tensor<2x32xf32>"
        "func.return %y : tensor<2x32xf32> } }",
        ctx,
    )
    assert len(exported(module, ctx).graph.initializer) == 1


def test_names_of_inputs_and_outputs():
    module, main = chain()
    assert isinstance(main, FuncOp)
    assert [name for name, _ in function_inputs(main)] == ["x"]
    assert function_outputs(main) == []
    assert isinstance(only(module, "onnx.Relu"), ops.Relu)
    with pytest.raises(InputError, match=r"@main does not end with func\.return"):
        function_outputs(parse('func.func @main() { "test.termop"() : () -> () }').body.block.first_op)


@pytest.mark.parametrize(
    ("opsets", "message"),
    [
        ('{"" = "17"}', "has \"17\" for the domain '', not a version"),
        ("{my = i64}", "has i64 for the domain 'my', not a version"),
        ("17 : i64", "is 17 : i64, not a table of versions by domain"),
    ],
)
def test_opsets_that_are_no_versions(opsets: str, message: str):
    module = parse(f"builtin.module attributes {{onnx.opsets = {opsets}}} {{}}")
    with pytest.raises(InputError, match=message):
        read_opsets(module)
