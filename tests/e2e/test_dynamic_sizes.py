"""One bundle for every size in a dimension's range, on each kind of device, and for sizes that data decide."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import gimlet
from gimlet.runtime.errors import InputError

TOPOLOGY = """
schema = 1
name = "rack"
host = "cpu"
[[device]]
name = "cpu"
kind = "host"
[[device]]
name = "sram0"
kind = "d-matrix/corsair"
[[device]]
name = "gpu0"
kind = "nvidia/rtx-pro-6000"
[[link]]
between = ["cpu", "sram0"]
kind = "pcie5x16"
[[link]]
between = ["cpu", "gpu0"]
kind = "pcie5x16"
"""
WEIGHT = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)


def layer(*, chosen: bool = False) -> onnx.ModelProto:
    """`relu(rows @ w)` of all rows, or of those that a mask chooses."""
    nodes = [
        helper.make_node("MatMul", ["rows" if chosen else "x", "w"], ["product"], "product"),
        helper.make_node("Relu", ["product"], ["y"], "curve"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])]
    if chosen:
        nodes.insert(0, helper.make_node("Compress", ["x", "mask"], ["rows"], "choose", axis=0))
        inputs.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, ["n"]))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None if chosen else ["n", 16])
    graph = helper.make_graph(nodes, "g", inputs, [output], [numpy_helper.from_array(WEIGHT, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def compiled(model: onnx.ModelProto, device: str, folder: Path) -> Any:
    if device == "gpu0":
        pytest.importorskip("tensorrt_rtx")
    (folder / "rack.toml").write_text(TOPOLOGY)
    pins = {"product|curve": device, **({"choose": "cpu"} if len(model.graph.input) > 1 else {})}
    options: dict[str, Any] = {"topology": folder / "rack.toml", "pins": pins, "bind": {"n": "1:8:40"}}
    return gimlet.compile(model, output=folder / "m.gimlet", **options)


@pytest.mark.parametrize("device", ["cpu", "sram0", "gpu0"])
def test_every_size_in_range(device: str, tmp_path: Path):
    bundle = compiled(layer(), device, tmp_path)
    assert [segment.device for segment in bundle.manifest.segments] == [device]
    with gimlet.load(bundle.path, emulate_missing=True) as program:
        for size in (1, 2, 8, 13, 39, 40):
            x = np.random.default_rng(size).standard_normal((size, 8)).astype(np.float32)
            np.testing.assert_allclose(program(x=x)["y"], np.maximum(x @ WEIGHT, 0), rtol=1e-5, atol=1e-5)
        with pytest.raises(InputError, match="compiled for 1 to 40"):
            program(x=np.zeros((41, 8), np.float32))
    profiles = [variant.facts.get("profile") for variant in bundle.manifest.segments[0].variants]
    wanted = {"x": {"min": [1, 8], "opt": [8, 8], "max": [40, 8]}} if device == "gpu0" else None
    assert profiles == [wanted]


@pytest.mark.parametrize("device", ["cpu", "sram0", "gpu0"])
def test_sizes_that_data_decide(device: str, tmp_path: Path):
    bundle = compiled(layer(chosen=True), device, tmp_path)
    assert bundle.manifest.dims["rows_d0"].maximum == 40
    x = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    with gimlet.load(bundle.path, emulate_missing=True) as program:
        for count in (8, 3, 1, 0):
            mask = np.arange(8) < count
            found = program(x=x, mask=mask)["y"]
            np.testing.assert_allclose(found, np.maximum(x[:count] @ WEIGHT, 0), rtol=1e-5, atol=1e-5)
