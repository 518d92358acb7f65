"""Whole models as engines, with their dynamic dimensions kept."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from gimlet.targets.api import Artifact
from gimlet.targets.portable import FolderWeights, segment_model, write_model
from gimlet.targets.tensorrt import builder_rtx
from gimlet.targets.tensorrt.target import TensorRTTarget
from gimlet.targets.widen import widen_missing_formats

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(builder_rtx.installed_version() is None, reason="tensorrt-rtx is not installed"),
]

MODELS = {
    "ch_PP-OCRv4_rec_infer": (48, (32, 320, 2048)),
    "ch_PP-OCRv4_det_infer": ((64, 640, 1280), (64, 640, 1280)),
    "ch_ppocr_mobile_v2.0_cls_infer": (48, 192),
}


@pytest.fixture(scope="module")
def models() -> Path:
    # Only its model files are wanted: importing the package takes OpenCV.
    package = find_spec("rapidocr_onnxruntime")
    if package is None or package.origin is None:
        pytest.skip("rapidocr-onnxruntime is not installed")
    return Path(package.origin).parent / "models"


def named(model: onnx.ModelProto, height, width) -> tuple[onnx.ModelProto, dict[str, tuple[int, int, int]]]:
    """The model with its input as [batch, 3, height, width], and the ranges of what is dynamic."""
    bounds = {"batch": (1, 1, 4)}
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for axis, name, size in ((0, "batch", None), (2, "height", height), (3, "width", width)):
        if isinstance(size, int):
            dims[axis].dim_value = size
        else:
            dims[axis].dim_param = name
            if size is not None:
                bounds[name] = size
    del model.graph.value_info[:]
    return model, bounds


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("fmt", ["fp32", "fp16", "bf16"])
def test_a_whole_model_is_one_engine(make_segment, make_device, models, tmp_path, name, fmt):
    model, bounds = named(onnx.load(models / f"{name}.onnx"), *MODELS[name])
    if fmt == "bf16" and model.opset_import[0].version < 13:
        model = onnx.version_converter.convert_version(model, 17)
    segment = make_segment(model, bounds, fmt=fmt)
    target, device = TensorRTTarget(), make_device(compute_capability="12.0")
    assert not any(target.refuses_all(list(segment.op.body.block.ops)[:-1], device, fmt))
    target.prepare(segment)
    artifact = target.emit(segment, device, fmt, tmp_path)
    assert isinstance(artifact, Artifact), artifact
    weights = sum(tensor.ByteSize() for tensor in onnx.load(models / f"{name}.onnx").graph.initializer) or sum(
        node.ByteSize() for node in model.graph.node if node.op_type == "Constant"
    )
    size = (tmp_path / "engine.trt").stat().st_size
    assert size >= 0.9 * weights * (1.0 if fmt == "fp32" else 0.5)
    assert artifact.facts["profile"]["x"]["max"][0] == 4
    assert artifact.facts["inputs"][0]["shape"][0] == -1
    assert artifact.facts["warnings"] == []


@pytest.mark.parametrize("capability", ["8.0", "8.6", "8.9", "12.1"])
def test_every_compute_capability(make_segment, make_device, models, tmp_path, capability):
    model, bounds = named(onnx.load(models / "ch_PP-OCRv4_rec_infer.onnx"), 48, (32, 320, 2048))
    segment = make_segment(model, bounds)
    artifact = TensorRTTarget().emit(segment, make_device(compute_capability=capability), "fp32", tmp_path)
    assert isinstance(artifact, Artifact), artifact


@pytest.mark.parametrize(("fmt", "tolerance"), [("fp16", 1e-2), ("bf16", 6e-2)])
def test_casts_keep_the_answer(make_segment, models, tmp_path, fmt, tolerance):
    """The segment with its casts, run on the CPU: what an engine of it should compute."""
    source = onnx.version_converter.convert_version(onnx.load(models / "ch_PP-OCRv4_rec_infer.onnx"), 17)
    model, bounds = named(source, 48, (32, 320, 2048))
    segment = make_segment(model, bounds, fmt=fmt)
    TensorRTTarget().prepare(segment)
    found = segment_model(segment)
    widen_missing_formats(found.model)
    write_model(found, FolderWeights(tmp_path), tmp_path / "model.onnx")
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 48, 160)).astype(np.float32)
    providers = ["CPUExecutionProvider"]
    (exact,) = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers).run(None, {"x": x})
    (halved,) = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=providers).run(None, {"x": x})
    error = np.linalg.norm(halved - exact) / np.linalg.norm(exact)
    assert 1e-6 < error <= tolerance
    assert (halved.argmax(-1) == exact.argmax(-1)).all()
