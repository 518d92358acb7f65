"""Weights that several sessions use are mapped once and packed once."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from gimlet.runtime.executors.base import DeviceSpec, SegmentArtifact
from gimlet.runtime.executors.onnxruntime import OnnxRuntimeExecutor
from gimlet.runtime.executors.ort_weights import ExternalTensor, changeable_names, external_tensors
from gimlet.runtime.expr import Expr
from gimlet.runtime.tensors import TensorSpec

FILE = "weights.bin"


def external(name: str, dims: list[int], offset: int, length: int, location: str = FILE, kind: int = 1) -> TensorProto:
    tensor = TensorProto(name=name, data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def model(op: str, width: int, weights: list[TensorProto]) -> bytes:
    """x · w₀ · w₁ · …, followed by `op`."""
    nodes, current = [], "x"
    for index, weight in enumerate(weights):
        nodes.append(helper.make_node("MatMul", [current, weight.name], [f"h{index}"]))
        current = f"h{index}"
    nodes.append(helper.make_node(op, [current], ["y"]))
    ports = [helper.make_tensor_value_info(name, 1, ["n", width]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def load(folder: Path, name: str, width: int) -> OnnxRuntimeExecutor:
    specs = [TensorSpec(port, "float32", (Expr.symbol("n"), Expr.const(width))) for port in ("x", "y")]
    item = SegmentArtifact(name, "fp32", folder, (name, FILE), (specs[0],), (specs[1],), lambda path: folder / path)
    return OnnxRuntimeExecutor.load(item, DeviceSpec("cpu", "host"))


def run(executor: OnnxRuntimeExecutor, x: np.ndarray) -> np.ndarray:
    bindings = executor.bind({"x": x}, {"y": None})
    executor.submit(bindings)
    return np.asarray(bindings.output("y"))


def test_external_initializers_are_found():
    weights = [external("a", [2, 3], 0, 24), external("β", [], 4096, 4, "weights/b.bin", 7)]
    inline = TensorProto(name="c", data_type=1, dims=[1], raw_data=bytes(4))
    assert external_tensors(model("Neg", 3, [*weights, inline])) == [
        ExternalTensor("a", 1, (2, 3), FILE, 0, 24),
        ExternalTensor("β", 7, (), "weights/b.bin", 4096, 4),
    ]


@given(st.data())
def test_bytes_that_are_no_model_have_none(data: st.DataObject):
    whole = model("Neg", 3, [external("a", [3, 3], 0, 36)])
    start = data.draw(st.integers(0, len(whole)))
    changed = whole[:start] + data.draw(st.binary(max_size=8)) + whole[data.draw(st.integers(start, len(whole))) :]
    assert isinstance(external_tensors(changed), list)


def test_a_constant_that_a_transpose_is_moved_over_stays_right(tmp_path: Path):
    """ONNX Runtime transposes what the sum reads, and keeps its name."""
    width = 32
    weights = np.random.default_rng(0).random((1, width, width), np.float32)
    weights.tofile(tmp_path / FILE)
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Add", ["turned", "added"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["kept"]),
        helper.make_node("Transpose", ["kept"], ["y"], perm=[0, 2, 1]),
    ]
    ports = [helper.make_tensor_value_info(name, 1, [2, width, width]) for name in ("x", "y")]
    given = [external("added", [1, width, width], 0, width * width * 4)]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], given)
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(whole)
    specs = [TensorSpec(port, "float32", tuple(map(Expr.const, (2, width, width)))) for port in ("x", "y")]
    files = ("m.onnx", FILE)
    item = SegmentArtifact("m.onnx", "fp32", tmp_path, files, (specs[0],), (specs[1],), lambda path: tmp_path / path)
    executor = OnnxRuntimeExecutor.load(item, DeviceSpec("cpu", "host"))
    x = np.random.default_rng(1).standard_normal((2, width, width)).astype(np.float32)
    expected = np.maximum(x.transpose(0, 2, 1) + weights, 0).transpose(0, 2, 1)
    np.testing.assert_allclose(run(executor, x), expected, rtol=1e-5)


def test_what_reads_a_weight_as_it_is():
    assert changeable_names(model("Neg", 3, [external("table", [3, 3], 0, 36)])) == {"h0"}


def test_what_a_branch_reads_counts():
    inner = helper.make_graph(
        [helper.make_node("Add", ["h", "captured"], ["o"])], "b", [], [helper.make_tensor_value_info("o", 1, None)]
    )
    nodes = [
        helper.make_node("MatMul", ["x", "captured"], ["h"]),
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
    ]
    ports = [helper.make_tensor_value_info(name, 1, None) for name in ("x", "c", "y")]
    graph = helper.make_graph(nodes, "g", ports[:2], ports[2:], [external("captured", [3, 3], 0, 36)])
    assert changeable_names(helper.make_model(graph).SerializeToString()) == {"h", "captured", "c"}


def test_bytes_that_are_no_model_have_no_readers():
    assert changeable_names(b"\xff\xff") == frozenset()


def test_two_models_over_the_same_weights_are_right(tmp_path: Path):
    width = 8
    values = np.random.default_rng(0).standard_normal((2, width, width), np.float32)
    (tmp_path / FILE).write_bytes(values.tobytes())
    weights = [
        external(f"w{index}", [width, width], index * width * width * 4, width * width * 4) for index in range(2)
    ]
    x = np.random.default_rng(1).standard_normal((3, width), np.float32)
    executors = []
    for op in ("Neg", "Abs"):
        (tmp_path / f"{op}.onnx").write_bytes(model(op, width, weights))
        executors.append(load(tmp_path, f"{op}.onnx", width))
    expected = x @ values[0] @ values[1]
    assert executors[0].session.pool is executors[1].session.pool
    np.testing.assert_allclose(run(executors[0], x), -expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(executors[1], x), np.abs(expected), rtol=1e-4, atol=1e-5)
    del executors[0]
    np.testing.assert_allclose(run(executors[0], x), np.abs(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("offset", [64, 2], ids=["aligned", "unaligned"])
def test_an_unusual_place_still_loads(tmp_path: Path, offset: int):
    values = np.arange(16, dtype=np.float32)
    (tmp_path / FILE).write_bytes(bytes(offset) + values.tobytes())
    (tmp_path / "m.onnx").write_bytes(model("Neg", 4, [external("w", [4, 4], offset, 64)]))
    x = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(run(load(tmp_path, "m.onnx", 4), x), -values.reshape(4, 4))


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from gimlet.runtime.executors.base import DeviceSpec, SegmentArtifact
from gimlet.runtime.executors.onnxruntime import OnnxRuntimeExecutor
folder = Path(sys.argv[1])
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
kept, used = [], [anonymous()]
for name in ("Neg.onnx", "Neg.onnx", "Abs.onnx"):
    files = (name, "weights.bin")
    item = SegmentArtifact(name, "fp32", folder, files, (), (), lambda path: folder / path)
    kept.append(OnnxRuntimeExecutor.load(item, DeviceSpec("cpu", "host")))
    used.append(anonymous())
print(*used)
"""


def test_a_second_use_of_weights_costs_next_to_nothing(tmp_path: Path):
    """The same model again, and another model over the same 32 MiB: each adds less than 5%."""
    width, count = 1024, 8
    np.random.default_rng(0).random((count, width, width), np.float32).tofile(tmp_path / FILE)
    size = width * width * 4
    weights = [external(f"w{index}", [width, width], index * size, size) for index in range(count)]
    for op in ("Neg", "Abs"):
        (tmp_path / f"{op}.onnx").write_bytes(model(op, width, weights))
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, first, same, other = (int(kib) for kib in done.stdout.split())
    assert first - before > 0.9 * count * size / 1024
    assert same - first < 0.05 * (first - before)
    assert other - same < 0.05 * (first - before)
