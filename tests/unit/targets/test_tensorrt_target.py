"""Engines of TensorRT for RTX are built here, without a GPU."""

import json
from dataclasses import replace

import onnx
import pytest
from onnx import TensorProto, helper

from gimlet.runtime.errors import InputError, MissingError
from gimlet.targets.api import Artifact, Reason
from gimlet.targets.tensorrt import builder_rtx, builder_trt, target
from gimlet.targets.tensorrt.target import TensorRTTarget

pytestmark = pytest.mark.skipif(builder_rtx.installed_version() is None, reason="tensorrt-rtx is not installed")

BOUNDS = {"batch": (1, 2, 4), "width": (16, 64, 256)}


def one_node(op_type: str, inputs: dict[str, tuple[int, list]], outputs: list[str], opset=17, **attributes):
    graph = helper.make_graph(
        [helper.make_node(op_type, list(inputs), outputs, name=f"/{op_type.lower()}", **attributes)],
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def test_an_engine_with_dynamic_shapes(make_segment, make_device, conv_net, tmp_path):
    segment = make_segment(conv_net, BOUNDS)
    artifact = TensorRTTarget().emit(segment, make_device(compute_capability="12.0"), "fp32", tmp_path)
    assert isinstance(artifact, Artifact)
    assert artifact.undigested == artifact.files == ("engine.trt",)
    assert not artifact.deferred
    weights = sum(segment.ctx.weights[key].nbytes for key in segment.ctx.weights)
    assert (tmp_path / "engine.trt").stat().st_size > weights
    assert artifact.facts["inputs"] == [{"name": "x", "dtype": "float32", "shape": [-1, 3, 8, -1]}]
    assert artifact.facts["profile"] == {"x": {"min": [1, 3, 8, 16], "opt": [2, 3, 8, 64], "max": [4, 3, 8, 256]}}
    assert artifact.facts["allow_tf32"] is False
    assert artifact.facts["layers"]["CONVOLUTION"] == 1
    assert artifact.options["compute_capability"] == "12.0"


def test_a_warm_rebuild_copies_the_engine(make_segment, make_device, conv_net, tmp_path, monkeypatch):
    segment, device = make_segment(conv_net, BOUNDS), make_device(compute_capability="12.0")
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    cold = TensorRTTarget().emit(segment, device, "fp32", first)
    monkeypatch.setattr(target, "worker", lambda module: pytest.fail("a cached engine was built again"))
    warm = TensorRTTarget().emit(segment, device, "fp32", second)
    assert warm == cold
    assert (first / "engine.trt").read_bytes() == (second / "engine.trt").read_bytes()


def test_what_an_engine_is_built_from_decides_its_key(make_segment, make_device, conv_net, tmp_path):
    device = make_device(compute_capability="9.0")  # deferred: a key costs no build
    key = TensorRTTarget().emit(make_segment(conv_net, BOUNDS), device, "fp32", tmp_path).key
    same = TensorRTTarget().emit(make_segment(conv_net, BOUNDS), device, "fp32", tmp_path).key
    assert key == same
    wider = TensorRTTarget().emit(make_segment(conv_net, BOUNDS | {"batch": (1, 2, 8)}), device, "fp32", tmp_path).key
    tf32 = TensorRTTarget().emit(make_segment(conv_net, BOUNDS, allow_tf32=True), device, "fp32", tmp_path).key
    conv_net.graph.initializer[0].raw_data = b"\0" * len(conv_net.graph.initializer[0].raw_data)
    other_weights = TensorRTTarget().emit(make_segment(conv_net, BOUNDS), device, "fp32", tmp_path).key
    assert len({key, wider, tf32, other_weights}) == 4


@pytest.mark.parametrize(
    ("fmt", "layer_type", "ops"),
    [
        ("fp16", "f16", {"fp16": 4, "other": 2}),
        ("bf16", "bf16", {"bf16": 3, "fp32": 1, "other": 2}),  # Conv has no bfloat16 at opset 17
    ],
)
def test_sixteen_bits_by_explicit_casts(make_segment, make_device, conv_net, tmp_path, fmt, layer_type, ops):
    segment = make_segment(conv_net, BOUNDS, fmt=fmt)
    the_target = TensorRTTarget()
    the_target.prepare(segment)
    segment.op.verify()
    text = str(segment.op)
    assert f"tensor<32x24x{layer_type}>" in text
    assert [str(type_) for type_ in segment.op.function_type.inputs] == [str(segment.op.body.block.args[0].type)]
    artifact = the_target.emit(segment, make_device(compute_capability="12.0"), fmt, tmp_path)
    assert isinstance(artifact, Artifact), artifact
    assert {item["dtype"] for item in artifact.facts["inputs"] + artifact.facts["outputs"]} == {"float32"}
    assert artifact.facts["ops"] == ops


def test_attention_in_float32_is_decomposed(make_segment, make_device, tmp_path):
    shapes = {name: (TensorProto.FLOAT, [1, 2, 4, 8]) for name in "qkv"}
    model = one_node("Attention", shapes, ["y"], opset=23)
    device = make_device(compute_capability="12.0")
    segment = make_segment(model)
    assert TensorRTTarget().refuses(segment.op.body.block.first_op, device, "fp32") is None
    assert isinstance(TensorRTTarget().emit(segment, device, "fp32", tmp_path), Artifact)


def test_attention_of_any_length_is_tried_at_one(make_segment, make_device, tmp_path):
    shapes = {name: (TensorProto.FLOAT, ["batch", 2, "length", 8]) for name in "qkv"}
    model = one_node("Attention", shapes, ["y"], opset=23)
    segment = make_segment(model, {"batch": (1, 1, 2), "length": (1, 4, 8)})
    device = make_device(compute_capability="12.0")
    assert TensorRTTarget().refuses(segment.op.body.block.first_op, device, "fp32") is None


def test_a_build_that_fails_names_the_op(make_segment, make_device, conv_net, tmp_path):
    conv_net.graph.node.append(helper.make_node("Cast", ["y"], ["z"], name="/to_fp8", to=TensorProto.FLOAT8E4M3FN))
    conv_net.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("z", TensorProto.FLOAT8E4M3FN, ["batch", 8, "width", 24])
    )
    conv_net.opset_import[0].version = 19
    segment = make_segment(conv_net, BOUNDS)
    reason = TensorRTTarget().emit(segment, make_device(compute_capability="12.0"), "fp32", tmp_path)
    assert isinstance(reason, Reason)
    assert reason.op == "/to_fp8"
    assert "FP8" in reason.message
    assert not (tmp_path / "engine.trt").exists()


def test_a_build_that_does_not_fit_into_memory_is_not_begun(make_segment, make_device, conv_net, tmp_path, monkeypatch):
    monkeypatch.setattr(target, "available_bytes", lambda: 1 << 20)
    reason = TensorRTTarget().emit(
        make_segment(conv_net, BOUNDS), make_device(compute_capability="12.0"), "fp32", tmp_path
    )
    assert isinstance(reason, Reason)
    assert "MiB of memory, and 1 are free" in reason.message


def test_a_dimension_without_bounds_is_refused(make_segment, make_device, conv_net, tmp_path):
    segment = make_segment(conv_net, {"batch": (1, 1, 1)})
    reason = TensorRTTarget().emit(segment, make_device(compute_capability="12.0"), "fp32", tmp_path)
    assert isinstance(reason, Reason)
    assert "'width', which has no bound" in reason.message


def test_a_kind_without_compute_capability(make_device):
    with pytest.raises(InputError, match="states no compute capability"):
        TensorRTTarget().formats(make_device())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute_capability": 8.6}, r"has compute_capability = 8\.6(.|\n)*is a text such as"),
        ({"compute_capability": "banana"}, "has compute_capability = 'banana'"),
        ({"compute_capability": "8.6", "builder": "rtx"}, r"has builder = 'rtx'(.|\n)*is tensorrt-rtx or tensorrt"),
    ],
)
def test_options_of_a_kind_that_cannot_be(make_device, options, message):
    with pytest.raises(InputError, match=message):
        TensorRTTarget().formats(make_device(**options))


@pytest.mark.parametrize(
    ("capability", "formats"),
    [("12.0", ("fp32", "fp16", "bf16")), ("7.5", ("fp16",)), ("9.0", ("fp32", "fp16", "bf16"))],
)
def test_formats_of_a_compute_capability(make_device, capability, formats):
    assert TensorRTTarget().formats(make_device(compute_capability=capability)) == formats


def test_a_gpu_that_is_not_here_and_cannot_be_built_for_is_deferred(make_segment, make_device, conv_net, tmp_path):
    segment = make_segment(conv_net, BOUNDS)
    artifact = TensorRTTarget().emit(segment, make_device(compute_capability="9.0"), "fp32", tmp_path)
    assert isinstance(artifact, Artifact)
    assert artifact.deferred
    assert artifact.undigested == ("engine.trt",)
    assert not (tmp_path / "engine.trt").exists()
    settings = json.loads((tmp_path / "build.json").read_text())
    assert settings["compute_capability"] == "9.0"
    line = settings["trtexec"][1]
    assert "--noTF32" in line
    assert "--minShapes=x:1x3x8x16" in line
    assert "--maxShapes=x:4x3x8x256" in line
    onnx.checker.check_model(str(tmp_path / settings["model"]))


def test_tf32_is_left_on_only_when_it_is_allowed(make_segment, make_device, conv_net, tmp_path):
    device = make_device(compute_capability="9.0")
    TensorRTTarget().emit(make_segment(conv_net, BOUNDS, allow_tf32=True), device, "fp32", tmp_path)
    assert "--noTF32" not in (tmp_path / "build.json").read_text()


def test_finish_needs_the_library_and_the_gpu(make_segment, make_device, conv_net, tmp_path, monkeypatch):
    segment = make_segment(conv_net, BOUNDS)
    folder = tmp_path / "segments" / "s0"
    folder.mkdir(parents=True)
    TensorRTTarget().emit(segment, make_device(compute_capability="9.0"), "fp32", folder)
    files = ["segments/s0/build.json"]
    monkeypatch.setattr(builder_trt, "installed_version", lambda: None)
    with pytest.raises(MissingError, match="TensorRT is not installed"):
        TensorRTTarget().finish(tmp_path, files, tmp_path)
    monkeypatch.setattr(builder_trt, "installed_version", lambda: "10.13")
    monkeypatch.setattr(builder_trt, "capability_at_hand", lambda: "8.9")
    with pytest.raises(MissingError, match=r"compute capability 9\.0, and this machine's is 8\.9"):
        TensorRTTarget().finish(tmp_path, files, tmp_path)


def test_without_the_package_a_capability_is_an_error_that_says_what_to_install(make_device, import_onnx, monkeypatch):
    monkeypatch.setattr(builder_rtx, "installed_version", lambda: None)
    module, _ = import_onnx(one_node("Relu", {"x": (TensorProto.FLOAT, [4])}, ["y"]))
    op = next(iter(module.body.block.first_op.body.block.ops))
    with pytest.raises(MissingError, match="TensorRT for RTX is not installed") as caught:
        TensorRTTarget().refuses(op, make_device(compute_capability="12.0"), "fp32")
    assert "gimlet-compiler[tensorrt]" in caught.value.hint


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (one_node("NonZero", {"x": (FLOAT, [4])}, ["y"]), "NonZero has a data-dependent shape"),
        (one_node("Relu", {"x": (TensorProto.DOUBLE, [4])}, ["y"]), "no double tensors"),
        (one_node("Identity", {"x": (TensorProto.STRING, [4])}, ["y"]), "no string tensors"),
        (one_node("Gelu", {"x": (FLOAT, [4])}, ["y"], domain="com.microsoft"), "not an operator of ONNX's own domain"),
        (one_node("Reshape", {"x": (FLOAT, [4]), "s": (INT64, [2])}, ["y"]), "'s' decides a shape"),
        (one_node("Det", {"x": (FLOAT, [4, 4])}, ["y"]), "Det: the parser does not support this operator"),
        (one_node("MaxPool", {"x": (FLOAT, [1, 1, 4, 4])}, ["y", "i"], kernel_shape=[2, 2]), "MaxPool"),
    ],
)
def test_what_is_refused_and_why(make_device, import_onnx, model, reason):
    if model.graph.node[0].domain:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    module, _ = import_onnx(model)
    op = next(iter(module.body.block.first_op.body.block.ops))
    refusal = TensorRTTarget().refuses(op, make_device(compute_capability="12.0"), "fp32")
    assert refusal is not None
    assert reason in refusal.message
    assert refusal.op == op.node_name


def test_products_in_float32_are_refused_for_compute_capability_7_5(make_device, import_onnx):
    module, _ = import_onnx(one_node("MatMul", {"x": (FLOAT, [4, 4]), "w": (FLOAT, [4, 4])}, ["y"]))
    op = next(iter(module.body.block.first_op.body.block.ops))
    assert "no float32 matrix products" in str(
        TensorRTTarget().refuses(op, make_device(compute_capability="7.5"), "fp16")
    )


def test_pointwise_operations_fuse_with_what_is_before_them(import_onnx, conv_net):
    module, _ = import_onnx(conv_net)
    conv, relu, transpose, matmul = (
        op for op in module.body.block.first_op.body.block.ops if op.name.startswith("onnx.") and op.operands
    )
    assert TensorRTTarget().fusable(conv, relu)
    assert not TensorRTTarget().fusable(transpose, matmul)
    assert not TensorRTTarget().fusable(relu, transpose)


def test_a_segment_costs_more_than_its_dearest_op(make_segment, make_device, conv_net):
    def costs(width: int) -> tuple[float, float]:
        dims = conv_net.graph.input[0].type.tensor_type.shape.dim
        dims[0].dim_value, dims[3].dim_value = 2, width
        segment, device = make_segment(conv_net), make_device(compute_capability="12.0")
        ops = [op for op in segment.op.body.block.ops if op.name.startswith("onnx.") and op.operands]
        single = [TensorRTTarget().op_cost(op, device, "fp32", {}).seconds for op in ops]
        return max(single), TensorRTTarget().estimate(ops, device, "fp32", {}).seconds

    dearest, whole = costs(64)
    assert whole > dearest
    assert costs(4096)[1] > whole


def test_the_reason_of_a_failure_is_tied_to_the_longest_name_in_it(make_segment, conv_net):
    segment = make_segment(conv_net, BOUNDS)
    assert target._reason(segment, ["layer /matmul: not supported"]).op == "/matmul"
    assert target._reason(replace(segment), ["nothing is named"]).op == "s0"


def test_a_shape_that_is_known_only_when_running_is_refused_by_name(make_segment, make_device, tmp_path):
    model = one_node("Reshape", {"x": (FLOAT, [4, 6]), "s": (INT64, [2])}, ["y"])
    reason = TensorRTTarget().emit(make_segment(model), make_device(compute_capability="12.0"), "fp32", tmp_path)
    assert str(reason) == "/reshape: 's' decides the shape of its result, and is known only when running"


def test_a_format_that_no_op_has_is_a_reason(make_segment, make_device, conv_net, tmp_path):
    conv_net.opset_import[0].version = 11  # bfloat16 came later
    segment = make_segment(conv_net, BOUNDS, fmt="bf16")
    TensorRTTarget().prepare(segment)
    reason = TensorRTTarget().emit(segment, make_device(compute_capability="12.0"), "bf16", tmp_path)
    assert isinstance(reason, Reason)
    assert "no op of it computes in bf16" in reason.message
