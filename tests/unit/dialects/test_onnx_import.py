"""What an imported model is, and what is refused."""

import gc
import weakref
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from tests.unit.dialects.onnx_cases import context, exported, imported, model_of, only, run
from xdsl.dialects.func import FuncOp

from gimlet.dialects.onnx import CustomOp, InitializerOp, WeightAttr, dims_of, node_name, ops, value_name
from gimlet.dialects.onnx.exporter import export_module
from gimlet.dialects.onnx.importer import import_model
from gimlet.dialects.onnx.provenance import scope_of, user_metadata
from gimlet.runtime.errors import InputError

RELU = helper.make_node("Relu", ["x"], ["y"], name="relu")


def main(module) -> FuncOp:
    return module.body.block.first_op


def test_names_opsets_and_facts():
    model = model_of(
        [helper.make_node("Relu", ["x:0"], ["/act/Relu_output_0"], name="/act/Relu")],
        {"x:0": ["batch", 4]},
        {"/act/Relu_output_0": ["batch", 4]},
        producer_name="hand",
        doc_string="a test",
    )
    model.metadata_props.add(key="author", value="somebody é")
    module, ctx = imported(model)
    relu = only(module, "onnx.Relu")
    assert node_name(relu) == "/act/Relu"
    assert value_name(relu.results[0]) == "/act/Relu_output_0"
    assert value_name(main(module).args[0]) == "x:0"
    assert str(module.attributes["onnx.opsets"]) == '{"" = 17 : i64, com.microsoft = 1 : i64}'
    again = exported(module, ctx)
    assert (again.producer_name, again.doc_string, again.ir_version) == ("hand", "a test", 10)
    assert [(entry.key, entry.value) for entry in again.metadata_props] == [("author", "somebody é")]
    assert [node.name for node in again.graph.node] == ["/act/Relu"]
    assert [value.name for value in (*again.graph.input, *again.graph.output)] == ["x:0", "/act/Relu_output_0"]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([["batch", 3, "width"]], [["batch", "3", "width"]]),
        ([["batch", 3, None]], [["batch", "3", "x0_d2"]]),
        ([["unk__7", 4], ["unk__7", 4]], [["x0_d0", "4"], ["x0_d0", "4"]]),
        ([["p2o.DynamicDimension.0", 3], ["s77", 3]], [["x0_d0", "3"], ["x1_d0", "3"]]),
        ([["past", "seq"], ["past + seq", 2]], [["past", "seq"], ["past + seq", "2"]]),
        ([["past + 1", 2]], [["`past + 1`", "2"]]),
        ([["n", 2], ["floor(n/2)", 2]], [["n", "2"], ["floordiv(n, 2)", "2"]]),
        ([["seq-len", 2]], [["`seq-len`", "2"]]),
        ([["a/b", "3"]], [["`a/b`", "`3`"]]),
    ],
)
def test_dimensions(shapes, expected):
    names = [f"x{i}" for i in range(len(shapes))]
    nodes = [helper.make_node("Relu", [name], [f"y{name}"]) for name in names]
    model = model_of(nodes, dict(zip(names, shapes, strict=True)), {f"y{name}": None for name in names})
    module, _ = imported(model)
    assert [[str(dim) for dim in dims_of(argument)] for argument in main(module).args] == expected


def test_large_tensors_go_to_the_store_and_small_ones_do_not():
    large, small = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32), np.ones(4, np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Mul", ["h", "s"], ["y"])]
    model = model_of(nodes, {"x": [2, 32]}, {"y": None}, weights={"w": large, "s": np.resize(small, 32)})
    module, ctx = imported(model)
    found = {value_name(op.results[0]): op for op in module.walk() if isinstance(op, InitializerOp)}
    assert found["w"].key == "w"
    assert found["s"].key is None
    assert np.array_equal(ctx.weights["w"].array(), large)
    assert "9." not in str(found["w"])


def test_a_large_constant_goes_to_the_store():
    table = helper.make_tensor("t", TensorProto.FLOAT, [512], np.arange(512, dtype=np.float32))
    nodes = [helper.make_node("Constant", [], ["c"], value=table), helper.make_node("Add", ["x", "c"], ["y"])]
    module, ctx = imported(model_of(nodes, {"x": [512]}, {"y": [512]}))
    assert only(module, "onnx.initializer").key == "c"
    assert ctx.weights["c"].array()[-1] == 511


def test_a_large_tensor_attribute_goes_to_the_store():
    values = helper.make_tensor("v", TensorProto.FLOAT, [512], np.zeros(512, np.float32))
    keys = helper.make_tensor("k", TensorProto.INT64, [512], np.arange(512))
    node = helper.make_node(
        "LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_tensor=keys, values_tensor=values, name="encode"
    )
    model = model_of([node], {"x": [4]}, {"y": [4]}, opsets=[helper.make_opsetid("ai.onnx.ml", 4)])
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    module, ctx = imported(model)
    op = only(module, "onnx.ai.onnx.ml.LabelEncoder")
    assert isinstance(op.properties["keys_tensor"], WeightAttr)
    assert sorted(ctx.weights) == ["encode.keys_tensor", "encode.values_tensor"]
    assert run(exported(module, ctx), {"x": np.arange(4)})["y"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("ir_version", "names"), [(3, ["x"]), (4, ["x", "w"])])
def test_an_input_with_an_initializer_is_a_constant_before_ir_version_4(ir_version: int, names: list[str]):
    model = model_of(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        {"x": [4], "w": [4]},
        {"y": [4]},
        weights={"w": np.ones(4, np.float32)},
    )
    model.ir_version = ir_version
    module, ctx = imported(model)
    assert [value_name(argument) for argument in main(module).args] == names
    again = exported(module, ctx)
    assert [value.name for value in again.graph.input] == ["x", "w"]
    assert [tensor.name for tensor in again.graph.initializer] == ["w"]


def test_external_data_is_mapped(tmp_path: Path):
    weights = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    onnx.save(
        model_of(nodes, {"x": [2, 32]}, {"y": [2, 32]}, weights={"w": weights}),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
    )
    ctx = context()
    module = import_model(ir.load(tmp_path / "m.onnx"), ctx)
    assert np.array_equal(ctx.weights["w"].array(), weights)
    x = np.ones((2, 32), np.float32)
    assert np.allclose(run(exported(module, ctx), {"x": x})["y"], x @ weights, atol=1e-5)


@pytest.mark.parametrize("location", ["../outside.data", "link.data"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.data").write_bytes(bytes(1 << 13))
    (folder / "link.data").symlink_to(tmp_path / "outside.data")
    tensor = ir.ExternalTensor(
        location, 0, 4096, ir.DataType.FLOAT, shape=ir.Shape([32, 32]), name="w", base_dir=str(folder)
    )
    weight = ir.Value(name="w", const_value=tensor, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([32, 32]))
    model = ir.Model(
        ir.Graph([], [weight], nodes=[], initializers=[weight], opset_imports={"": 17}, name="g"), ir_version=10
    )
    with pytest.raises(InputError, match=r"external tensor 'w' is in .*outside\.data, outside the model's folder"):
        import_model(model, context())
    assert import_model(model, context(), data_roots=[tmp_path])


def test_external_data_of_another_size_is_refused(tmp_path: Path):
    (tmp_path / "w.data").write_bytes(bytes(1 << 13))
    tensor = ir.ExternalTensor(
        "w.data", 0, 4000, ir.DataType.FLOAT, shape=ir.Shape([32, 32]), name="w", base_dir=str(tmp_path)
    )
    weight = ir.Value(name="w", const_value=tensor)
    graph = ir.Graph([], [weight], nodes=[], initializers=[weight], opset_imports={"": 17}, name="g")
    with pytest.raises(InputError, match=r"takes 4096 bytes, but says 4000"):
        import_model(ir.Model(graph, ir_version=10), context())


def tensor_model(*tensors: ir.TensorProtocol) -> ir.Model:
    values = [
        ir.Value(name=f"w{i}", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
        for i, tensor in enumerate(tensors)
    ]
    graph = ir.Graph([], values, nodes=[], initializers=values, opset_imports={"": 17}, name="g")
    return ir.Model(graph, ir_version=10)


def test_torch_tensors_stay_where_they_are():
    weight = torch.ones(64, 64)
    tensors = [ir.tensor_adapters.TorchTensor(tensor) for tensor in (weight, weight, weight.T, weight.bfloat16())]
    ctx = context()
    module = import_model(tensor_model(*tensors), ctx)
    keys = [op.key for op in module.walk() if isinstance(op, InitializerOp)]
    assert keys == ["w0", "w0", "w2", "w3"]
    weight[0, 0] = 7
    assert ctx.weights["w0"].array()[0, 0] == 7
    assert ctx.weights["w3"].array().dtype == ml_dtypes.bfloat16


def test_a_tensor_that_is_gone_is_not_taken_for_another():
    """An address tells tensors apart only while the store keeps what is there."""
    ctx = context()
    meta = torch.empty(512, device="meta")
    proto = onnx.numpy_helper.from_array(np.zeros((32, 32), np.float32), "w")
    import_model(tensor_model(ir.tensor_adapters.TorchTensor(meta), ir.serde.TensorProtoTensor(proto)), ctx)
    held = weakref.ref(meta)
    del meta
    gc.collect()
    assert held() is not None
    assert ctx.weights["w1"].identity is None


def test_tensors_on_the_meta_device():
    ctx = context()
    large, small = (ir.tensor_adapters.TorchTensor(torch.empty(size, device="meta")) for size in (4096, 2))
    module = import_model(tensor_model(large, small), ctx)
    assert [op.key for op in module.walk() if isinstance(op, InitializerOp)] == ["w0", "w1"]
    assert not ctx.weights["w0"].has_data
    exported_model = export_module(module, ctx)
    with pytest.raises(InputError, match="has a shape but no values"):
        exported_model.graph.outputs[0].producer().inputs[0].const_value.numpy()


def test_subgraphs_read_values_around_them():
    def branch(name: str, op: str) -> onnx.GraphProto:
        node = helper.make_node(op, ["h", "x"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], then_branch=branch("a", "Add"), else_branch=branch("b", "Sub")),
    ]
    model = model_of(nodes, {"x": [4]}, {"y": [4]})
    module, ctx = imported(model)
    captured = [op for op in only(module, "onnx.If").walk() if isinstance(op, ops.Add)]
    assert captured[0].A is only(module, "onnx.Relu").results[0]
    for x in (np.array([1, -2, 3, 4], np.float32), np.zeros(4, np.float32)):
        assert np.array_equal(run(exported(module, ctx), {"x": x})["y"], run(model, {"x": x})["y"])


def test_functions_are_kept():
    def function() -> onnx.FunctionProto:
        leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
        attribute = leaky.attribute.add()
        attribute.name, attribute.ref_attr_name, attribute.type = "alpha", "slope", onnx.AttributeProto.FLOAT
        return helper.make_function(
            "com.example", "Act", ["a"], ["b"], [leaky], [helper.make_opsetid("", 17)], attributes=["slope"]
        )

    model = model_of(
        [helper.make_node("Act", ["x"], ["y"], domain="com.example", slope=0.5)],
        {"x": [4]},
        {"y": [4]},
        opsets=[helper.make_opsetid("com.example", 1)],
        functions=[function()],
    )
    module, ctx = imported(model)
    assert [op.sym_name.data for op in module.body.block.ops] == ["main", "com.example.Act"]
    assert isinstance(only(module, "onnx.custom"), CustomOp)
    again = exported(module, ctx)
    assert [item.name for item in again.functions] == ["Act"]
    x = np.array([-2, -1, 0, 1], np.float32)
    assert run(again, {"x": x})["y"].tolist() == run(model, {"x": x})["y"].tolist() == [-1, -0.5, 0, 1]


def test_quantisation_annotations_are_kept():
    model = model_of([RELU], {"x": [4]}, {"y": [4]})
    annotation = model.graph.quantization_annotation.add(tensor_name="y")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="y_scale")
    module, ctx = imported(model)
    assert 'y = {SCALE_TENSOR = "y_scale"}' in str(module.attributes["onnx.quantization"])
    assert exported(module, ctx).graph.quantization_annotation == model.graph.quantization_annotation


def test_nodes_need_not_be_sorted():
    nodes = [helper.make_node("Neg", ["h"], ["y"]), helper.make_node("Relu", ["x"], ["h"])]
    module, _ = imported(model_of(nodes, {"x": [4]}, {"y": [4]}))
    assert [op.name for op in main(module).body.block.ops] == ["onnx.Relu", "onnx.Neg", "func.return"]


def test_unknown_operators_are_kept():
    nodes = [
        helper.make_node("Mystery", ["x", "", "x"], ["h", ""], domain="com.example", name="m", level=3),
        helper.make_node("ATen", ["h"], ["y"], operator="foo"),
    ]
    module, ctx = imported(model_of(nodes, {"x": [4]}, {"y": [4]}, opsets=[helper.make_opsetid("com.example", 2)]))
    mystery, aten = [op for op in module.walk() if isinstance(op, CustomOp)]
    assert (mystery.domain, mystery.op_type, mystery.attr("level"), mystery.node_name) == (
        "com.example",
        "Mystery",
        3,
        "m",
    )
    assert [value is None for value in mystery.inputs] == [False, True, False]
    assert aten.attr("operator") == "foo"
    again = exported(module, ctx).graph.node
    assert [(node.domain, node.op_type, list(node.input)) for node in again] == [
        ("com.example", "Mystery", ["x", "", "x"]),
        ("", "ATen", ["h"]),
    ]


def test_a_text_attribute_that_is_not_unicode():
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")
    node.attribute.add(name="ep_cache_context", type=onnx.AttributeProto.STRING, s=b"\xff\x00blob")
    node.attribute.add(name="main_context", type=onnx.AttributeProto.INT, i=1)
    module, ctx = imported(model_of([node], {"x": [4]}, {"y": [4]}, opsets=[helper.make_opsetid("com.microsoft", 1)]))
    assert only(module, "onnx.com.microsoft.EPContext").attr("ep_cache_context") == b"\xff\x00blob"
    assert exported(module, ctx).graph.node[0].attribute[0].s == b"\xff\x00blob"


TRACE = """File "/home/me/model.py", line 10, in forward
  return self.features(x)
File "/env/site-packages/torch/nn/modules/conv.py", line 5, in forward"""


def test_where_a_node_comes_from():
    model = model_of([RELU], {"x": [4]}, {"y": [4]})
    for key, text in {
        "pkg.torch.onnx.stack_trace": TRACE,
        "pkg.torch.onnx.name_scopes": "['', 'features', 'features.0', 'relu']",
        "note": "mine",
    }.items():
        model.graph.node[0].metadata_props.add(key=key, value=text)
    module, ctx = imported(model)
    relu = only(module, "onnx.Relu")
    assert str(relu.location) == 'loc("relu"("features.0"("torch/nn/modules/conv.py":5:0)))'
    assert scope_of(relu) == "features.0"
    assert "/home" not in str(module)
    kept = {entry.key: entry.value for entry in exported(module, ctx).graph.node[0].metadata_props}
    assert kept == {"note": "mine", "namespace": "features.0"}
    assert user_metadata({"pkg.x": "a", "namespace": "b", "c": "d"}) == {"c": "d"}


@pytest.mark.parametrize("scopes", ["['', 'relu']", "['', '_empty_nn_module_stack_from_metadata_hook', 'relu']"])
def test_a_node_of_the_model_itself_is_in_no_module(scopes):
    """PyTorch writes a namespace too, which says ": Net/relu: aten.relu.default" then."""
    model = model_of([RELU], {"x": [4]}, {"y": [4]})
    for key, text in {"pkg.torch.onnx.name_scopes": scopes, "namespace": ": Net/relu: aten.relu.default"}.items():
        model.graph.node[0].metadata_props.add(key=key, value=text)
    module, _ = imported(model)
    assert scope_of(only(module, "onnx.Relu")) == ""


@pytest.mark.parametrize(
    ("trace", "place"),
    [
        (f'File "{Path.cwd()}/models/net.py", line 3, in forward', '"models/net.py":3:0'),
        ('File "/elsewhere/net.py", line 3, in forward', '"net.py":3:0'),
        ("net.py(3): forward", '"net.py":3:0'),
    ],
)
def test_source_paths_are_relative(trace: str, place: str):
    model = model_of([RELU], {"x": [4]}, {"y": [4]})
    model.graph.node[0].doc_string = trace
    assert str(only(imported(model)[0], "onnx.Relu").location) == f'loc("relu"({place}))'


def test_a_value_that_nothing_makes():
    model = model_of([helper.make_node("Add", ["x", "ghost"], ["y"], name="add")], {"x": [4]}, {"y": [4]})
    with pytest.raises(InputError, match=r"node 'add' \(ai\.onnx\.Add\): 'ghost' is read, but neither an input"):
        imported(model)


def test_a_cycle():
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    with pytest.raises(InputError, match="form a cycle"):
        imported(model_of(nodes, {"x": [4]}, {"b": [4]}))


def test_an_opset_of_the_future():
    with pytest.raises(InputError, match=r"imports opset 99 of ai\.onnx, and the newest known is 28"):
        imported(model_of([RELU], {"x": [4]}, {"y": [4]}, opset=99))
