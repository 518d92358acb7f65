"""Models that compute in narrow formats of their own, on devices that do and do not know those formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tests.e2e.test_pytorch import RACK, Block

import gimlet
from gimlet.compiler.checking.numerics import deviation
from gimlet.compiler.checking.verify import verify_bundle
from gimlet.compiler.sources import open_source

FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.mark.parametrize("device", ["cpu", "gpu0", "sram0"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_module_in_its_own_format(fmt: str, device: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Block().to(FORMATS[fmt]).eval()
    args = (torch.randn(2, 8, 64, dtype=FORMATS[fmt]),)
    kwargs = {"mask": torch.zeros(2, 8, dtype=FORMATS[fmt])}
    bundle = gimlet.compile(
        model, args, kwargs=kwargs, topology=RACK, pins={".*": device}, output=tmp_path / "block.gimlet"
    )
    (segment,) = bundle.manifest.segments
    assert segment.portable is not None
    assert (segment.format, segment.portable.format) == ("fp32", fmt)
    for found in verify_bundle(bundle.path, open_source(model, args=args, kwargs=kwargs)):
        assert found.format == fmt
        assert found.ok, found.outputs
        assert all(each.relative_l2 > 0 for each in found.outputs.values())


def test_values_between_ops_without_kernels(tmp_path: Path) -> None:
    """Each op is computed in float32 and rounded: the bfloat16 values between two of them are seen too."""
    weights = np.random.default_rng(0).normal(size=(32, 32)) * 0.2
    kept = helper.make_tensor("w", TensorProto.BFLOAT16, weights.shape, weights.flatten())
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Gelu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ["n", 32]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "narrow", ends[:1], ends[1:], [kept])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "narrow.onnx")
    bundle = gimlet.compile(str(tmp_path / "narrow.onnx"), bind={"n": "1:4:8"}, output=tmp_path / "narrow.gimlet")
    for found in verify_bundle(bundle.path, open_source(str(tmp_path / "narrow.onnx"))):
        assert found.ok, found.outputs


def test_a_quantised_model_is_held_to_its_steps(tmp_path: Path) -> None:
    """What is rounded to int8 may be a step off where another library adds in another order."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    weights = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    kept = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [0.05]),
        helper.make_tensor("zero", TensorProto.INT8, [], [3]),
        helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.flatten()),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 16]) for name in ("x", "y")]
    model = helper.make_model(
        helper.make_graph(nodes, "q", ends[:1], ends[1:], kept),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.save(model, tmp_path / "q.onnx")
    bundle = gimlet.compile(str(tmp_path / "q.onnx"), output=tmp_path / "q.gimlet")
    assert [each.portable and each.portable.format for each in bundle.manifest.segments] == ["int8"]
    x = np.random.default_rng(1).uniform(-1, 1, (4, 16)).astype(np.float32)
    with gimlet.load(bundle.path) as program:
        (found,) = program(x=x).values()
    rounded = (np.clip(np.rint(x / np.float32(0.05)) + 3, -128, 127) - 3) * np.float32(0.05)
    assert deviation(found, rounded @ weights).within("fp32")
