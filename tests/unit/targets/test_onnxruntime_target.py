"""What ONNX Runtime runs, and the sub-models it gets."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from gimlet.runtime.errors import InputError, MissingError
from gimlet.targets import registry
from gimlet.targets.api import Target
from gimlet.targets.onnxruntime import target as module_under_test
from gimlet.targets.onnxruntime.kernels import has_kernel, kernels
from gimlet.targets.onnxruntime.target import OnnxRuntimeTarget
from gimlet.targets.openvino.target import OpenVinoTarget

FLOAT, BF16 = TensorProto.FLOAT, TensorProto.BFLOAT16


def node_model(op_type, kind=FLOAT, *, inputs=("x",), shape=(4, 4), domain="", opset=22, attributes=None):
    node = helper.make_node(op_type, list(inputs), ["y"], name=f"/{op_type}", domain=domain, **(attributes or {}))
    infos = [helper.make_tensor_value_info(name, kind, shape) for name in inputs]
    outputs = [helper.make_tensor_value_info("y", kind, shape)]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(domain or "com.microsoft", 1)]
    return helper.make_model(helper.make_graph([node], "g", infos, outputs), opset_imports=opsets, ir_version=10)


@pytest.fixture
def only_op(import_onnx):
    def run(model):
        module, _ = import_onnx(model)
        modules.append(module)
        return next(op for op in module.body.block.first_op.body.block.ops if op.name.startswith("onnx."))

    modules = []
    return run


@pytest.fixture
def host(make_device):
    return make_device("onnxruntime")


@pytest.mark.parametrize(
    "model",
    [
        node_model("Relu"),
        node_model("Relu", TensorProto.FLOAT16),  # no kernel: ONNX Runtime itself casts
        node_model("Relu", BF16),  # no kernel: the portable form casts
        node_model("HardSwish"),  # a function of other operators
        node_model("FastGelu", domain="com.microsoft"),
        node_model("Add", TensorProto.INT64, inputs=("a", "b")),
    ],
    ids=lambda model: model.graph.node[0].op_type,
)
def test_what_runs_on_the_cpu(only_op, host, model):
    assert OnnxRuntimeTarget().refuses(only_op(model), host, "fp32") is None


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (node_model("Relu", domain="com.example"), "com.example"),
        (node_model("Softsign", TensorProto.DOUBLE), "Softsign"),
        (node_model("Neg", TensorProto.FLOAT4E2M1, opset=23), "casts tensor(float4e2m1)"),
    ],
    ids=lambda model: model.graph.node[0].op_type if isinstance(model, onnx.ModelProto) else "",
)
def test_what_does_not(only_op, host, model, reason):
    refusal = OnnxRuntimeTarget().refuses(only_op(model), host, "fp32")
    assert refusal is not None
    assert refusal.op == model.graph.node[0].name
    assert reason in refusal.message


@pytest.mark.parametrize(
    ("mask", "taken"), [([2, 1, 3, 5], True), ([3, 5], True), ([2, 1, 1, 5], False), ([1, 5], False)]
)
@pytest.mark.parametrize("past", [0, 2])
def test_attention_wants_its_mask_in_full(only_op, host, mask, taken, past):
    keys = [2, 4, 5 - past, 8]
    inputs = {"q": [2, 4, 3, 8], "k": keys, "v": keys, "m": mask}
    inputs |= {name: [2, 4, past, 8] for name in ("pk", "pv") if past}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    outputs = ["y", *(["pk2", "pv2"] if past else [])]
    graph = helper.make_graph(
        [helper.make_node("Attention", list(inputs), outputs, name="/attention")],
        "g",
        infos,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    refusal = OnnxRuntimeTarget().refuses(only_op(model), host, "fp32")
    assert (refusal is None) == taken
    assert taken or "in full" in str(refusal)


CACHES = {
    "": ("Attention", [(1, 4, 3, 8)] * 3 + [None] + [(1, 4, 5, 8)] * 2, {}, ["y", "k", "v"]),
    "com.microsoft": (
        "MultiHeadAttention",
        [(1, 3, 32)] * 3 + [None] * 3 + [(1, 4, 5, 8)] * 2,
        {"num_heads": 4},
        "ykv",
    ),
}


@pytest.mark.parametrize("domain", CACHES)
@pytest.mark.parametrize("given", [1, 2, 3])
def test_an_attention_with_a_past_gives_it_with_what_is_new(only_op, host, domain, given):
    op_type, shapes, attributes, outputs = CACHES[domain]
    names = [f"x{index}" if shape else "" for index, shape in enumerate(shapes)]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(names, shapes, strict=True)
        if shape
    ]
    results = list(outputs[:given])
    node = helper.make_node(op_type, names, results, name="/attention", domain=domain, **attributes)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results]
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([node], "g", infos, ends), opset_imports=opsets, ir_version=10)
    refusal = OnnxRuntimeTarget().refuses(only_op(model), host, "fp32")
    assert (refusal is None) == (given == 3)
    assert given == 3 or "takes a past only where it gives the keys and values so far" in str(refusal)


def test_a_session_is_built_once_for_equal_operations(only_op, host, monkeypatch):
    built = []
    session = module_under_test.InferenceSession
    monkeypatch.setattr(module_under_test, "InferenceSession", lambda *a, **k: built.append(1) or session(*a, **k))
    target = OnnxRuntimeTarget()
    for _ in range(3):
        target.refuses(only_op(node_model("HardSwish")), host, "fp32")
    target.refuses(only_op(node_model("Relu")), host, "fp32")
    assert len(built) == 1


def test_the_list_of_kernels_is_the_librarys():
    assert len(kernels()) > 300
    float_in, double_in = {"T": frozenset({"tensor(float)"})}, {"T": frozenset({"tensor(bfloat16)"})}
    assert has_kernel("", "MatMul", 13, float_in)
    assert not has_kernel("", "MatMul", 13, double_in)
    assert not has_kernel("", "Attention", 22, {"T1": frozenset({"tensor(float)"})})


def test_the_segment_computes_what_the_model_does(make_segment, host, conv_net, tmp_path):
    artifact = OnnxRuntimeTarget().emit(make_segment(conv_net), host, "fp32", tmp_path)
    assert (artifact.executor, artifact.files, artifact.deferred) == (
        "onnxruntime",
        ("model.onnx", "model.weights"),
        False,
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 16), np.float32)
    whole = onnxruntime.InferenceSession(conv_net.SerializeToString(), providers=["CPUExecutionProvider"])
    part = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(part.run(["y"], {"x": x})[0], whole.run(["y"], {"x": x})[0])


def test_another_provider_is_emitted_and_deferred(make_segment, make_device, conv_net, tmp_path):
    device = make_device("onnxruntime", execution_provider="migraphx")
    artifact = OnnxRuntimeTarget().emit(make_segment(conv_net), device, "fp32", tmp_path)
    assert artifact.deferred
    assert artifact.options == {"provider": "MIGraphX"}
    assert artifact.files == ("native.onnx", "model.weights")
    assert OnnxRuntimeTarget().finish(tmp_path, artifact.files, tmp_path) == {}


def test_a_provider_that_is_not_known(make_device, make_segment, conv_net, tmp_path):
    device = make_device("onnxruntime", execution_provider="abacus")
    with pytest.raises(InputError, match="unknown execution provider 'abacus'"):
        OnnxRuntimeTarget().emit(make_segment(conv_net), device, "fp32", tmp_path)


def test_every_target_of_the_table_loads_or_is_somebody_elses():
    for name in ("onnxruntime", "tensorrt"):
        loaded = registry.load(name)
        assert isinstance(loaded, Target)
        assert loaded.name == name
        assert registry.load(name) is loaded


def test_an_unknown_target_lists_the_known_ones():
    with pytest.raises(MissingError, match=r"'no-such-target' \(known: onnxruntime, tensorrt, openvino, sram\)"):
        registry.load("no-such-target")


def test_a_target_of_another_distribution_is_found(monkeypatch):
    class EntryPoint:
        value = "gimlet.targets.onnxruntime.target:OnnxRuntimeTarget"

    monkeypatch.setattr("importlib.metadata.entry_points", lambda **query: [EntryPoint()] if query else [])
    assert isinstance(registry.load("another"), OnnxRuntimeTarget)
    registry.load.cache_clear()


@pytest.mark.parametrize("target", [OnnxRuntimeTarget(), OpenVinoTarget()], ids=lambda target: target.name)
def test_a_part_of_a_machine_has_its_threads(make_segment, make_device, conv_net, tmp_path, target):
    part = make_device(target.name, threads=1)
    assert target.settings(part) == ({"threads": 1},)
    assert target.emit(make_segment(conv_net), part, "fp32", tmp_path / "part").options == {"threads": 1}
    whole = make_device(target.name)
    assert [each["threads"] for each in target.settings(whole)] == [0, 1]
    assert target.emit(make_segment(conv_net), whole, "fp32", tmp_path / "whole").options == {}


@pytest.mark.parametrize("threads", [0, -1, "two", True])
def test_threads_that_are_none(make_device, threads):
    with pytest.raises(InputError, match="at least 1"):
        OnnxRuntimeTarget().settings(make_device(threads=threads))


def test_a_body_that_is_not_for_the_fixed_sizes(only_op, host):
    """Of two bodies for two lengths one is wrong for either, as silero's for 8 and 16 kHz."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    axis = helper.make_node("Constant", [], ["axis"], value_ints=[1])
    bodies = [
        helper.make_graph([axis, helper.make_node("Squeeze", ["x", "axis"], ["y"])], "one", [], [y]),
        helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "two", [], [y]),
    ]
    node = helper.make_node("If", ["flag"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    graph = helper.make_graph([node], "g", [flag, x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    refusal = OnnxRuntimeTarget().refuses(only_op(model), host, "fp32")
    assert refusal is not None
    assert "a body that is not for the sizes that are fixed needs them as a range" in refusal.message
