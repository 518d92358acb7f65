"""What OpenVINO runs, found by trying it, and the models it gets over the bundle's weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from gimlet.runtime.errors import MissingError
from gimlet.runtime.executors.base import DeviceSpec, SegmentArtifact
from gimlet.runtime.executors.openvino import OpenVinoExecutor
from gimlet.runtime.expr import Expr
from gimlet.runtime.tensors import TensorSpec
from gimlet.targets import registry
from gimlet.targets.api import Artifact, Reason, Target
from gimlet.targets.openvino import library
from gimlet.targets.openvino import target as module_under_test
from gimlet.targets.openvino.target import OpenVinoTarget
from gimlet.targets.worker import Worker, WorkerCrashError

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 22]> {text}')


@pytest.fixture(autouse=True)
def own_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIMLET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def answers(import_onnx, make_device):
    """What the target says about each op of a model, by operator."""

    def run(model: onnx.ModelProto) -> dict[str, str | None]:
        module, _ = import_onnx(model)
        ops = [op for op in module.body.block.first_op.body.block.ops if op.name.startswith("onnx.")]
        found = OpenVinoTarget().refuses_all(ops, make_device("openvino"), "fp32")
        return {op.op_type: reason and reason.message for op, reason in zip(ops, found, strict=True)}

    return run


@pytest.mark.parametrize(
    ("requests", "streams"), [(1, []), (2, [2]), (3, [2, 3]), (4, [2, 4]), (6, [2, 4, 6]), (16, [2, 4, 8, 16])]
)
def test_for_requests_in_flight_streams_are_a_setting(make_device, requests: int, streams: list[int]):
    found = OpenVinoTarget().settings(make_device("openvino"), requests)
    assert found == ({"threads": 0}, {"threads": 1}, *({"threads": 0, "streams": count} for count in streams))


def test_a_part_of_a_machine_has_no_more_streams_than_threads(make_device):
    found = OpenVinoTarget().settings(make_device("openvino", threads=3), 8)
    assert found == ({"threads": 3}, {"threads": 3, "streams": 2}, {"threads": 3, "streams": 3})


def test_it_is_a_target_by_its_name():
    assert isinstance(registry.load("openvino"), Target)


def test_what_runs(answers):
    found = answers(
        parse("""net (float[1, 4, 8, 8] x, int64[3] i) => (float[1, 4, 8, 8] y, float[3, 8] g) {
          s = Constant <value_ints = [32, 8]> ()
          y = HardSwish (x)
          r = Reshape (y, s)
          g = Gather (r, i)
        }""")
    )
    assert found == dict.fromkeys(["Constant", "HardSwish", "Reshape", "Gather"])


@pytest.mark.parametrize(
    ("body", "operator", "reason"),
    [
        ("(float16[4] x) => (float16[4] y) { y = Relu (x) }", "Relu", "computes float16 in float32"),
        ("(double[4] x) => (double[4] y) { y = Relu (x) }", "Relu", "computes double in float32"),
        ("(float[4] x) => (float8e4m3fn[4] y) { y = Cast <to = 17> (x) }", "Cast", "cannot be passed"),
        ("(uint8[4] x) => (uint8[4] y) { y = Add (x, x) }", "Add", "does not wrap around at 8 bits"),
        ("(int64[4] x) => (int64[4] y) { y = Mul (x, x) }", "Mul", "may need more"),
        (
            "(seq(float[4]) x) => (float[4] y) { y = ConcatFromSequence <axis = 0> (x) }",
            "ConcatFromSequence",
            "no form",
        ),
        ('(int32[4] x) => (int32[4] y) { y = BitShift <direction = "LEFT"> (x, x) }', "BitShift", "otherwise than"),
        ("(float[4, 4] x) => (float y) { y = Det (x) }", "Det", "No conversion rule"),
    ],
)
def test_what_is_refused_by_a_rule_or_by_the_library(answers, body: str, operator: str, reason: str):
    assert reason in answers(parse("net " + body))[operator]


@pytest.mark.parametrize(
    ("node", "shape", "reason"),
    [
        (helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=1), (1, 1, 8, 8), "other numbers"),
        (helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=2, mode="CRD"), (1, 2, 4, 4), "cannot be checked"),
    ],
    ids=["Resize", "SpaceToDepth"],
)
def test_what_builds_and_computes_something_else_is_found_by_trying(
    answers, node: onnx.NodeProto, shape: tuple[int, ...], reason: str
):
    """SpaceToDepth of opset 26 has an attribute that OpenVINO does not read."""
    scales = numpy_helper.from_array(np.array([1, 1, 0.6, 0.6], np.float32), "s")
    infos = [helper.make_tensor_value_info(name, FLOAT, dims) for name, dims in (("x", shape), ("y", None))]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:], [scales])
    opset = 26 if node.op_type == "SpaceToDepth" else 22
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    assert reason in answers(model)[node.op_type]


def test_a_trial_of_a_recurrent_layer_does_not_saturate_it(answers):
    """Weights of ones would drive its gates to zero, where two libraries agree about nothing but that."""
    infos = [helper.make_tensor_value_info(n, FLOAT, s) for n, s in (("x", (2, 1, 64)), ("y", None))]
    shapes = {"w": (1, 256, 64), "r": (1, 256, 64), "b": (1, 512)}
    tensors = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()]
    node = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=64)
    graph = helper.make_graph([node], "g", infos[:1], infos[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    assert answers(model)["LSTM"] is None


def test_scalars_are_tried_too(answers):
    body = "(float x, int32 i, bool b) => (float y, int32 j, bool c) { y = Neg (x) j = Abs (i) c = Not (b) }"
    assert answers(parse("net " + body)) == {"Neg": None, "Abs": None, "Not": None}


def test_integers_of_shapes_may_be_computed_with(answers):
    found = answers(
        parse("""net (float[n, 4] x) => (int64[2] y) {
          s = Shape (x)
          two = Constant <value_ints = [2]> ()
          y = Mul (s, two)
        }""")
    )
    assert found["Mul"] is None


def test_equal_ops_are_told_apart_by_where_their_integers_come_from(import_onnx, make_device):
    module, _ = import_onnx(
        parse("""net (float[n] x, int64[1] i) => (int64[1] y, int64[1] z) {
          s = Shape (x)
          y = Mul (s, s)
          z = Mul (i, i)
        }""")
    )
    ops = [op for op in module.body.block.first_op.body.block.ops if op.name == "onnx.Mul"]
    found = OpenVinoTarget().refuses_all(ops, make_device("openvino"), "fp32")
    assert [reason is None for reason in found] == [True, False]


def test_ops_of_different_opsets_are_tried_each_in_its_own(import_onnx, make_device):
    """Squeeze had its axes as an attribute until opset 13, and Shape had no `start` until 15."""
    texts = [
        (11, "(float[1, 3, 1] x) => (float[3, 1] y) { y = Squeeze <axes = [0]> (x) }"),
        (22, "(float[2, 3, 4] x) => (int64[1] y) { y = Shape <start = 2> (x) }"),
        (11, "(float[1, 3, 1] x) => (float[1, 3] y) { y = Squeeze <axes = [2]> (x) }"),
    ]
    modules = [
        import_onnx(onnx.parser.parse_model(f'<ir_version: 6, opset_import: ["": {opset}]> net {body}'))[0]
        for opset, body in texts
    ]
    ops = [module.body.block.first_op.body.block.first_op for module in modules]
    found = OpenVinoTarget().refuses_all(ops, make_device("openvino"), "fp32")
    assert found == [None] * len(ops)


def test_a_size_is_found_at_which_a_window_fits(answers):
    """Dynamic dimensions are 16 at first, less than the kernel."""
    weights = numpy_helper.from_array(np.ones((4, 1, 320), np.float32), "w")
    model = parse("net (float[1, 1, n] x, float[4, 1, 320] w) => (float[1, 4, m] y) { y = Conv (x, w) }")
    del model.graph.input[1]
    model.graph.initializer.append(weights)
    assert answers(model)["Conv"] is None


def test_an_op_that_cannot_work_takes_no_others_with_it(answers):
    """It is tried beside them with sizes that OpenVINO's Resize leaves, and all after it, uncomputed without a word."""
    found = answers(
        parse("""net (float[a, 4, b, c] x, int64[4] sizes) => (int64[4] s, float[a, 4, b, c] y, float[i, j, k, l] r) {
          s = Shape (x)
          r = Resize <coordinate_transformation_mode = "asymmetric", mode = "nearest", nearest_mode = "floor">
              (x, , , sizes)
          y = Relu (x)
        }""")
    )
    assert found["Resize"]
    assert found["Shape"] is None
    assert found["Relu"] is None


class Mortal:
    """A worker that dies of models with an operator, so many times."""

    def __init__(self, deadly: str, times: int) -> None:
        self.deadly, self.left, self.worker = deadly, times, Worker("OpenVINO", "gimlet.targets.openvino.worker")

    def call(self, name: str, payloads: Sequence[bytes] = (), **arguments: object) -> object:
        operators = {node.op_type for node in onnx.load_from_string(payloads[0]).graph.node} if payloads else {"build"}
        if self.deadly in operators and self.left:
            self.left -= 1
            raise WorkerCrashError("OpenVINO ended with signal 11")
        return self.worker.call(name, payloads, **arguments)


@pytest.mark.parametrize(("times", "refusal"), [(2, None), (3, "OpenVINO ended with signal 11")])
def test_an_op_that_ends_the_process_is_tried_again_and_then_refused(answers, monkeypatch, times, refusal):
    """It fails beside the other op, alone, and once more."""
    mortal = Mortal("Tanh", times)
    monkeypatch.setattr("gimlet.targets.openvino.probes.worker", lambda: mortal)
    found = answers(parse("net (float[4] x) => (float[4] y) { t = Tanh (x) y = Relu (t) }"))
    mortal.worker.close()
    assert found == {"Tanh": refusal, "Relu": None}


@pytest.mark.parametrize("times", [1, 2])
def test_a_build_that_ends_the_process_is_tried_again(make_segment, make_device, monkeypatch, tmp_path, times):
    mortal = Mortal("build", times)
    monkeypatch.setattr("gimlet.targets.openvino.client.worker", lambda: mortal)
    segment = make_segment(parse("net (float[4] x) => (float[4] y) { y = Relu (x) }"))
    found = OpenVinoTarget().emit(segment, make_device("openvino"), "fp32", tmp_path)
    mortal.worker.close()
    assert isinstance(found, Artifact) if times == 1 else "OpenVINO ended with signal 11" in str(found)


def test_answers_are_kept_on_disk(answers, monkeypatch: pytest.MonkeyPatch):
    model = parse("net (float[4] x) => (float[4] y) { y = Relu (x) }")
    assert answers(model) == {"Relu": None}

    def unwanted(*arguments: object) -> None:
        raise RuntimeError("asked again")

    monkeypatch.setattr("gimlet.targets.openvino.probes._computed", unwanted)
    assert answers(model) == {"Relu": None}


def test_without_the_package_every_op_is_refused_with_what_would_help(
    answers, make_segment, make_device, tmp_path, monkeypatch
):
    for module in (library, module_under_test):
        monkeypatch.setattr(module, "installed_version", lambda: None)
    model = parse("net (float[4] x) => (float[4] y) { y = Relu (x) }")
    assert "pip install 'gimlet-compiler[openvino]'" in answers(model)["Relu"]
    with pytest.raises(MissingError, match="openvino is not installed"):
        OpenVinoTarget().emit(make_segment(model), make_device("openvino"), "fp32", tmp_path)


def dense_model() -> onnx.ModelProto:
    """[batch, 4] times a weight that is there twice, and one of its own."""
    weight = np.arange(16, dtype=np.float32).reshape(4, 4)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "again"], ["y"], name="second"),
    ]
    infos = [helper.make_tensor_value_info(name, FLOAT, ["batch", 4]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(weight, name) for name in ("w", "again")]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def emitted(make_segment, make_device, folder: Path, **bounds: tuple[int, int, int]) -> Artifact | Reason:
    segment = make_segment(dense_model(), bounds)
    return OpenVinoTarget().emit(segment, make_device("openvino"), "fp32", folder)


def test_a_segment_is_a_model_over_one_file_of_weights(make_segment, make_device, tmp_path: Path):
    found = emitted(make_segment, make_device, tmp_path / "s0", batch=(1, 2, 8))
    assert isinstance(found, Artifact)
    assert found.files == ("model.xml", "model.weights")
    assert sorted(path.name for path in (tmp_path / "s0").iterdir()) == ["model.weights", "model.xml"]
    assert (tmp_path / "s0/model.weights").stat().st_size == 64
    model = openvino.Core().read_model(tmp_path / "s0/model.xml", tmp_path / "s0/model.weights")
    assert str(model.inputs[0].partial_shape) == "[1..8,4]"
    assert "rt_info" not in (tmp_path / "s0/model.xml").read_text()


def test_the_same_segment_gives_the_same_bytes(make_segment, make_device, tmp_path: Path):
    texts = []
    for name in ("a", "b"):
        emitted(make_segment, make_device, tmp_path / name)
        texts.append((tmp_path / name / "model.xml").read_bytes())
    assert texts[0] == texts[1]


def test_what_it_makes_computes_what_the_model_says(make_segment, make_device, tmp_path: Path):
    found = emitted(make_segment, make_device, tmp_path / "s0")
    assert isinstance(found, Artifact)
    specs = [TensorSpec(name, "float32", (Expr.symbol("batch"), Expr.const(4))) for name in ("x", "y")]
    item = SegmentArtifact(
        "s0", "fp32", tmp_path / "s0", found.files, (specs[0],), (specs[1],), lambda path: tmp_path / "s0" / path
    )
    x = np.random.default_rng(0).random((3, 4), np.float32)
    executor = OpenVinoExecutor.load(item, DeviceSpec("cpu", "host"))
    bindings = executor.bind({"x": x}, {"y": None})
    executor.submit(bindings).wait()
    weight = np.arange(16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_allclose(np.asarray(bindings.output("y")), x @ weight @ weight, rtol=1e-6)


def test_a_segment_that_does_not_convert_is_refused(make_segment, make_device, tmp_path: Path):
    model = parse("net (float[4, 4] x) => (float y) { y = Det (x) }")
    found = OpenVinoTarget().emit(make_segment(model), make_device("openvino"), "fp32", tmp_path / "s0")
    assert isinstance(found, Reason)
    assert "No conversion rule" in found.message
    assert not list((tmp_path / "s0").glob("*.xml"))
