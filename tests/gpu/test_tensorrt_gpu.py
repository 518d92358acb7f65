"""Bundles on a real NVIDIA GPU: `make gpu-test`, which leaves its transcript in artifacts/gpu-test.txt.

Nothing here was ever run by this project, which had no GPU. A failure is news: the transcript says what the machine is
and how far each output was from the same model on the CPU. Engines are built by TensorRT for RTX where it builds for
the GPU, and by TensorRT (`pip install tensorrt`) through a deferred bundle where not.
"""

import platform
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import gimlet
from gimlet.compiler.finish import finish_bundle
from gimlet.runtime.executors import cuda
from gimlet.targets.tensorrt import builder_rtx, builder_trt

pytestmark = pytest.mark.gpu

TOPOLOGY = """
schema = 1
[[device]]
name = "cpu"
kind = "host"
[[device]]
name = "gpu0"
kind = "gpu.toml"
[[link]]
between = ["cpu", "gpu0"]
kind = "pcie4x16"
"""

KIND = """
schema = 1
title = "The GPU of this machine"
targets = ["tensorrt"]
[peak]
fp32 = 5e13
fp16 = 1e14
bf16 = 1e14
vector = 5e13
[[memory]]
name = "gpu"
capacity_bytes = 8_000_000_000
bandwidth = 5e11
[options]
compute_capability = "{capability}"
builder = "{builder}"
[sources]
peak = "made up: the tests pin every op"
memory = "made up: the tests pin every op"
options = "the driver of this machine"
"""


@pytest.fixture(scope="session")
def capability(report) -> str:
    found = cuda.compute_capabilities()
    assert found, "there is no GPU or driver here; this suite is for a machine that has one"
    report(f"python {platform.python_version()}, {platform.platform()}")
    report(f"GPUs of compute capability {', '.join(found)}")
    report(f"tensorrt-rtx {builder_rtx.installed_version()}, tensorrt {builder_trt.installed_version()}")
    return found[0]


@pytest.fixture(scope="session")
def report(pytestconfig):
    """Prints into the transcript, past pytest's capture."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def write(line: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stdout.write(f"\n  {line}")
            sys.stdout.flush()

    return write


@pytest.fixture(params=["tensorrt-rtx", "tensorrt"])
def topology(request, capability, tmp_path) -> Path:
    if request.param == "tensorrt-rtx" and not (builder_rtx.installed_version() and builder_rtx.builds_for(capability)):
        pytest.skip(f"TensorRT for RTX does not build for {capability}, or is not installed")
    if request.param == "tensorrt" and not builder_trt.installed_version():
        pytest.skip("tensorrt is not installed")
    (tmp_path / "gpu.toml").write_text(KIND.format(capability=capability, builder=request.param))
    (tmp_path / "rack.toml").write_text(TOPOLOGY)
    return tmp_path / "rack.toml"


def network(opset: int = 17) -> onnx.ModelProto:
    """A small convolutional network with two dynamic dimensions and a shape that is computed."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return helper.make_tensor(name, TensorProto.FLOAT, shape, rng.standard_normal(shape, np.float32).ravel() / 4)

    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c"], name="/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="/relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], name="/pool"),
        helper.make_node("Mul", ["r", "g"], ["m"], name="/scale"),
        helper.make_node("Transpose", ["m"], ["t"], name="/transpose", perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["t", "w1"], ["h"], name="/head"),
        helper.make_node("Softmax", ["h"], ["y"], name="/softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16, "width", 10])],
        [weight("w0", 32, 3, 3, 3), weight("w1", 32, 10)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


BIND = {"batch": "1:2:8", "width": "16:64:512"}


def compiled(model, topology: Path, name: str, **options) -> Path:
    bundle = gimlet.compile(model, output=topology.parent / name, topology=topology, **options).path
    finish_bundle(bundle)
    return bundle


def reference(model: onnx.ModelProto, **inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def check(report, name, outputs, expected, tolerance) -> None:
    error = float(np.abs(outputs - expected).max() / max(1e-30, np.ptp(expected)))
    report(f"{name}: largest error {error:.1e} of the output's range, at most {tolerance:.0e}")
    assert error <= tolerance


@pytest.mark.parametrize(("fmt", "tolerance"), [("fp32", 1e-4), ("fp16", 1e-2), ("bf16", 5e-2)])
def test_a_model_on_the_gpu_alone(topology, report, fmt, tolerance):
    model = network()
    bundle = compiled(model, topology, f"{fmt}.gimlet", bind=BIND, pins={".*": "gpu0"}, formats={"gpu0": fmt})
    with gimlet.load(bundle) as program:
        for batch, width in ((1, 16), (2, 64), (8, 512), (2, 64)):
            x = np.random.default_rng(width).standard_normal((batch, 3, 16, width), np.float32)
            (expected,) = reference(model, x=x)
            check(report, f"{fmt} at {x.shape}", program(x=x)["y"], expected, tolerance)


def test_tf32_is_off_unless_it_is_allowed(topology, report):
    """TF32 has 10 bits of mantissa: without it, a product of 512 terms is within 1e-5 of float32."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((512, 256), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="/product")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 256])],
        [helper.make_tensor("w", TensorProto.FLOAT, w.shape, w.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = rng.standard_normal((64, 512), np.float32)
    (expected,) = reference(model, x=x)
    bundle = compiled(model, topology, "exact.gimlet", pins={".*": "gpu0"})
    with gimlet.load(bundle) as program:
        check(report, "without TF32", program(x=x)["y"], expected, 1e-5)
    bundle = compiled(model, topology, "tf32.gimlet", pins={".*": "gpu0"}, allow_tf32=True)
    with gimlet.load(bundle) as program:
        check(report, "with TF32", program(x=x)["y"], expected, 1e-2)


def test_a_model_split_between_host_and_gpu(topology, report):
    model = network()
    pins = {".*": "gpu0", "/pool|/scale": "cpu"}
    bundle = compiled(model, topology, "split.gimlet", bind=BIND, pins=pins)
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 64), np.float32)
    (expected,) = reference(model, x=x)
    with gimlet.load(bundle) as program:
        check(report, "split", program(x=x)["y"], expected, 1e-4)


def test_requests_in_flight_do_not_mix(topology, report):
    model = network()
    bundle = compiled(model, topology, "many.gimlet", bind=BIND, pins={".*": "gpu0"})
    inputs = [np.random.default_rng(i).standard_normal((1 + i % 8, 3, 16, 64), np.float32) for i in range(32)]
    with gimlet.load(bundle, inflight=4) as program:
        results = [program.submit(x=x) for x in inputs]
        for x, result in zip(inputs, results, strict=True):
            (expected,) = reference(model, x=x)
            assert np.abs(result.result()["y"] - expected).max() <= 1e-4
    report("32 requests, 4 in flight")


def test_recognition_of_a_line_of_text(topology, report):
    package = find_spec("rapidocr_onnxruntime")
    if package is None or package.origin is None:
        pytest.skip("rapidocr-onnxruntime is not installed")
    path = Path(package.origin).parent / "models" / "ch_PP-OCRv4_rec_infer.onnx"
    bind = {"x[0]": "1:1:4", "x[2]": "48", "x[3]": "32:320:2048"}
    bundle = compiled(path, topology, "ocr.gimlet", bind=bind, pins={".*": "gpu0"})
    with gimlet.load(bundle) as program:
        for width in (32, 320, 2048):
            x = np.random.default_rng(width).standard_normal((1, 3, 48, width), np.float32)
            (expected,) = reference(onnx.load(path), x=x)
            (output,) = program(x=x).values()
            check(report, f"recognition at width {width}", output, expected, 1e-4)
