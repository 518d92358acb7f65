"""The executor on ONNX Runtime's C interface: one thread pool, shared sessions, and nobody else's sessions touched."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from gimlet.runtime.errors import InputError, MissingError
from gimlet.runtime.executors import ort_library, ort_values
from gimlet.runtime.executors.base import DONE, DeviceSpec, Event, SegmentArtifact
from gimlet.runtime.executors.onnxruntime import STOP_SPINNING, OnnxRuntimeExecutor
from gimlet.runtime.executors.registry import load_executor
from gimlet.runtime.expr import Expr
from gimlet.runtime.tensors import TensorSpec, onnx_type

CPU = DeviceSpec("cpu", "host")


def artifact(
    folder: Path, op: str = "Neg", dtype: str = "float32", options: Mapping[str, Any] | None = None, **attributes: Any
) -> SegmentArtifact:
    """A segment of one op from `x` to `y`, both [n]."""
    ports = [helper.make_tensor_value_info(name, onnx_type(dtype), ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], **attributes)], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    specs = [TensorSpec(name, dtype, (Expr.symbol("n"),)) for name in ("x", "y")]
    files = ("model.onnx",)
    return SegmentArtifact(
        "s0", "fp32", folder, files, (specs[0],), (specs[1],), lambda path: folder / path, options or {}
    )


def run(item: SegmentArtifact, x: np.ndarray) -> np.ndarray:
    executor = OnnxRuntimeExecutor.load(item, CPU)
    bindings = executor.bind({"x": x}, {"y": executor.alloc(x.dtype, x.shape)})
    executor.submit(bindings).wait()
    found = bindings.output("y")
    assert isinstance(found, np.ndarray)
    return found


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float64", "float16", "int8", "int32", "int64", "uint8", "uint32", "uint64", "bool", "bfloat16"],
)
def test_every_type_goes_through(tmp_path: Path, dtype: str):
    item = artifact(tmp_path, "Identity", dtype)
    x = np.array([0, 1, 1]).astype(item.inputs[0].numpy_type)
    np.testing.assert_array_equal(run(item, x), x)


def test_a_session_is_shared_by_segments_of_the_same_model(tmp_path: Path):
    first = OnnxRuntimeExecutor.load(artifact(tmp_path), CPU)
    second = OnnxRuntimeExecutor.load(replace(artifact(tmp_path), segment="s1"), CPU)
    assert first.session is second.session
    other = OnnxRuntimeExecutor.load(artifact(tmp_path, "Abs"), CPU)
    assert other.session is not first.session


def test_segments_share_one_thread_pool_and_leave_other_sessions_alone(tmp_path: Path):
    """In a process of its own: eight segments add no thread after the first, and plain sessions still work."""
    for index in range(9):
        (tmp_path / str(index)).mkdir()
        artifact(tmp_path / str(index), "LeakyRelu", alpha=index / 10)
    code = f"""
import os
from pathlib import Path
from gimlet.runtime.executors.base import DeviceSpec, SegmentArtifact
from gimlet.runtime.executors.onnxruntime import STOP_SPINNING, OnnxRuntimeExecutor
def load(index):
    folder = Path({str(tmp_path)!r}) / str(index)
    return OnnxRuntimeExecutor.load(
        SegmentArtifact("s", "fp32", folder, ("model.onnx",), (), (), lambda path: folder / path), DeviceSpec("c", "h")
    )
threads = lambda: len(os.listdir("/proc/self/task"))
kept = [load(0)]
before = threads()
kept += [load(index) for index in range(1, 9)]
assert threads() == before, (before, threads())
import onnxruntime
plain = onnxruntime.InferenceSession(str(Path({str(tmp_path)!r}) / "0" / "model.onnx"))
print(len(set(executor.session.handle for executor in kept)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "9"


def test_outputs_of_unknown_size_are_allocated_for_every_run(tmp_path: Path):
    executor = OnnxRuntimeExecutor.load(artifact(tmp_path), CPU)
    x = np.ones(3, np.float32)
    bindings = executor.bind({"x": x}, {"y": None})
    executor.submit(bindings)
    first = bindings.output("y")
    bindings.set_input("x", np.ones(5, np.float32))
    executor.submit(bindings)
    assert first.shape == (3,)
    assert isinstance(first, np.ndarray)
    np.testing.assert_array_equal(first, -x)
    assert bindings.output("y").shape == (5,)
    bindings.set_input("x", np.zeros(0, np.float32))
    executor.submit(bindings)
    assert bindings.output("y").shape == (0,)


def test_the_type_of_an_allocated_output_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """numpy takes longer to name a type than ONNX Runtime for a small model."""
    executor = OnnxRuntimeExecutor.load(artifact(tmp_path, dtype="int16"), CPU)
    bindings = executor.bind({"x": np.ones(3, np.int16)}, {"y": None})
    executor.submit(bindings)

    def looked_up(number: int) -> np.dtype:
        raise AssertionError(f"type {number} was looked up again")

    monkeypatch.setattr(ort_values, "type_of_onnx", looked_up)
    executor.submit(bindings)
    found = bindings.output("y")
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.int16


def test_texts_are_read_from_one_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every use of `raw` copies the texts of the whole tensor."""
    copies: list[int] = []
    make = ctypes.create_string_buffer

    class Counted:
        def __init__(self, size: int) -> None:
            self._as_parameter_ = make(size)

        @property
        def raw(self) -> bytes:
            copies.append(1)
            return self._as_parameter_.raw

    monkeypatch.setattr(ctypes, "create_string_buffer", Counted)
    texts = np.array(["one", "", "three", "für"], dtype=object)
    assert run(artifact(tmp_path, "Identity", "string"), texts).tolist() == texts.tolist()
    assert len(copies) == 1


def test_a_text_may_have_a_zero_byte(tmp_path: Path):
    texts = np.array(["a\0b", "\0", "c"], dtype=object)
    assert run(artifact(tmp_path, "Identity", "string"), texts).tolist() == texts.tolist()


def test_an_allocated_output_outlives_its_bindings(tmp_path: Path):
    executor = OnnxRuntimeExecutor.load(artifact(tmp_path), CPU)
    bindings = executor.bind({"x": np.ones(1000, np.float32)}, {"y": None})
    executor.submit(bindings)
    found = bindings.output("y")
    del bindings, executor
    assert isinstance(found, np.ndarray)
    assert found.sum() == -1000


def test_an_output_goes_where_it_is_bound_and_can_be_moved(tmp_path: Path):
    executor = OnnxRuntimeExecutor.load(artifact(tmp_path), CPU)
    x = np.ones(3, np.float32)
    places = [executor.alloc(x.dtype, x.shape) for _ in range(2)]
    bindings = executor.bind({"x": x}, {"y": places[0]})
    launch = executor.launcher(bindings)
    launch(())
    bindings.set_output("y", places[1])
    x *= 2
    launch(())
    assert [np.asarray(place).tolist() for place in places] == [[-1] * 3, [-2] * 3]
    assert bindings.output("y") is places[1]


@pytest.mark.parametrize(
    "buffer",
    [np.ones(3), np.ones(3, ml_dtypes.bfloat16), np.ones((3, 2), np.float32)[:, 0]],
    ids=["type", "extended type", "strides"],
)
def test_a_wrong_buffer_is_refused(tmp_path: Path, buffer: np.ndarray):
    executor = OnnxRuntimeExecutor.load(artifact(tmp_path), CPU)
    with pytest.raises(InputError, match="s0: x: expected a C-contiguous float32 array"):
        executor.bind({"x": buffer}, {"y": None})


@pytest.mark.parametrize("count", [1, 2])
def test_a_tensor_beside_a_sequence_is_as_large_as_was_planned(tmp_path: Path, count: int):
    """One element would fill all three places."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    ys = helper.make_tensor_sequence_value_info("ys", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("SequenceConstruct", ["y"], ["ys"])]
    graph = helper.make_graph(nodes, "g", [x], [y, ys])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    item = artifact(tmp_path)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    item = replace(item, outputs=(*item.outputs, TensorSpec("ys", "seq(float32)", None)))
    executor = OnnxRuntimeExecutor.load(item, CPU)
    bindings = executor.bind({"x": np.ones(count, np.float32)}, {"y": np.zeros(3, np.float32), "ys": None})
    with pytest.raises(InputError, match=rf"y: \[{count}\] came out where \[3\] was planned"):
        executor.submit(bindings)


def test_an_output_before_a_run_is_an_error(tmp_path: Path):
    executor = OnnxRuntimeExecutor.load(artifact(tmp_path), CPU)
    bindings = executor.bind({"x": np.ones(1, np.float32)}, {"y": None})
    with pytest.raises(InputError, match="output 'y' was read before a run"):
        bindings.output("y")


def test_work_starts_after_what_it_waits_for(tmp_path: Path):
    x = np.ones(3, np.float32)

    class Late(Event):
        def wait(self) -> None:
            x[:] = 5

    executor = OnnxRuntimeExecutor.load(artifact(tmp_path), CPU)
    for start in (executor.submit, lambda bindings, wait: executor.launcher(bindings)(wait)):
        x[:] = 1
        y = np.empty(3, np.float32)
        assert start(executor.bind({"x": x}, {"y": y}), [Late()]) is DONE
        assert y.tolist() == [-5, -5, -5]


def test_a_model_that_does_not_load_names_the_segment(tmp_path: Path):
    item = artifact(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match="s0: ONNX Runtime cannot load the model"):
        OnnxRuntimeExecutor.load(item, CPU)


def test_ports_are_compared_with_the_model(tmp_path: Path):
    item = artifact(tmp_path)
    with pytest.raises(InputError, match="s0: the model has no input 'z'"):
        OnnxRuntimeExecutor.load(replace(item, inputs=(replace(item.inputs[0], name="z"),)), CPU)
    with pytest.raises(InputError, match=r"expected one \*\.onnx file, the manifest lists 0"):
        OnnxRuntimeExecutor.load(replace(item, files=()), CPU)


def test_an_execution_provider_that_is_not_here_is_named(tmp_path: Path):
    device = replace(CPU, requires={"execution_provider": "MIGraphXExecutionProvider"})
    answer = OnnxRuntimeExecutor.available(device)
    assert not answer
    assert "no MIGraphXExecutionProvider" in answer.reason
    assert OnnxRuntimeExecutor.available(CPU)
    with pytest.raises(InputError, match="s0: ONNX Runtime cannot load the model: MIGraphX"):
        OnnxRuntimeExecutor.load(artifact(tmp_path, options={"provider": "MIGraphX"}), CPU)


def test_a_provider_may_be_spelled_as_device_kinds_do():
    assert OnnxRuntimeExecutor.available(replace(CPU, requires={"execution_provider": "cpu"}))
    assert not OnnxRuntimeExecutor.available(replace(CPU, requires={"execution_provider": "migraphx"}))


def test_without_the_package_the_device_is_not_available(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("gimlet.runtime.executors.onnxruntime.ort_library", ort_library.ort_library.__wrapped__)
    answer = OnnxRuntimeExecutor.available(CPU)
    assert (answer.reason, answer.hint) == ("onnxruntime is not installed", "pip install onnxruntime")


def test_a_library_that_does_not_load_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "libonnxruntime.so").write_bytes(b"no library")
    monkeypatch.setattr(ort_library, "library_path", lambda *_: tmp_path / "libonnxruntime.so")
    with pytest.raises(MissingError, match=r"libonnxruntime\.so does not load"):
        ort_library.ort_library.__wrapped__()


def test_executors_are_found_by_name():
    assert load_executor("onnxruntime") is OnnxRuntimeExecutor
    with pytest.raises(MissingError, match=r"no executor is called 'abacus' \(known: onnxruntime, "):
        load_executor("abacus")


def test_external_weights_are_found_relative_to_the_bundle(tmp_path: Path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "segments").mkdir()
    (tmp_path / "weights" / "w.bin").write_bytes(bytes(64) + np.array([10], np.float32).tobytes())
    weight = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "weights/w.bin"), ("offset", 64), ("length", 4)):
        weight.external_data.add(key=key, value=str(value))
    ports = [helper.make_tensor_value_info(name, 1, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    item = replace(artifact(tmp_path), files=("segments/model.onnx", "weights/w.bin"))
    (tmp_path / "segments" / "model.onnx").write_bytes(model.SerializeToString())
    opened: list[str] = []
    item = replace(item, open_file=lambda path: (opened.append(path), tmp_path / path)[1])
    assert run(item, np.ones(2, np.float32)).tolist() == [11, 11]
    assert sorted(set(opened)) == ["segments/model.onnx", "weights/w.bin"]
    assert os.path.samefile(item.root, tmp_path)


def test_threads_and_spinning_are_options_of_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One thread is the caller's own; a bundle that shares its cores stops the pool's spinning."""
    calls: list[tuple[object, ...]] = []
    library = ort_library.ort_library()
    plain = library.call

    def recorded(name: str, *arguments: object) -> None:
        if name in ("SetIntraOpNumThreads", "DisablePerSessionThreads", "AddSessionConfigEntry"):
            calls.append((name, *arguments[1:]))
        plain(name, *arguments)

    monkeypatch.setattr(library, "call", recorded)
    sessions = []
    for options in ({}, {"threads": 0}, {"threads": 1}, {"threads": 1, "shares_cores": True}):
        calls.clear()
        executor = OnnxRuntimeExecutor.load(artifact(tmp_path, options=options), CPU)
        sessions.append(executor.session)
        assert (("SetIntraOpNumThreads", 1) in calls) == (options.get("threads") == 1)
        assert (("DisablePerSessionThreads",) in calls) == (not options.get("threads"))
        assert (("AddSessionConfigEntry", STOP_SPINNING, b"1") in calls) == ("shares_cores" in options)
    assert len(set(map(id, sessions))) == 4
    x = np.ones(4, np.float32)
    np.testing.assert_array_equal(run(artifact(tmp_path, options={"threads": 2}), x), -x)


def test_products_with_weights_of_four_bits_are_computed_in_float32(tmp_path: Path):
    """ONNX Runtime fuses them with their DequantizeLinear, and made int8 of the activations then."""
    rows, columns, block = 256, 64, 32
    draw = np.random.default_rng(0)
    stored = draw.integers(-8, 8, (rows, columns)).astype(ml_dtypes.int4)
    scales = draw.random((rows // block, columns), dtype=np.float32)
    weights = [
        helper.make_tensor("w", TensorProto.INT4, stored.shape, stored.astype(np.int8).ravel()),
        helper.make_tensor("s", TensorProto.FLOAT, scales.shape, scales.ravel()),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=block),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    ports = {"x": (1, rows), "y": (1, columns)}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in ports.items()]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    item = artifact(tmp_path)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    specs = [TensorSpec(name, "float32", tuple(map(Expr.of, dims))) for name, dims in ports.items()]
    executor = OnnxRuntimeExecutor.load(replace(item, inputs=(specs[0],), outputs=(specs[1],)), CPU)
    x = draw.standard_normal(ports["x"], dtype=np.float32)
    bindings = executor.bind({"x": x}, {"y": executor.alloc(np.dtype(np.float32), ports["y"])})
    executor.submit(bindings).wait()
    exact = x.astype(np.float64) @ (stored.astype(np.float64) * scales.repeat(block, axis=0))
    found = bindings.output("y")
    assert isinstance(found, np.ndarray)
    assert np.abs(found - exact).max() <= 1e-5 * np.abs(exact).max()


def test_threads_that_mean_nothing(tmp_path: Path):
    with pytest.raises(InputError, match="threads is -1"):
        OnnxRuntimeExecutor.load(artifact(tmp_path, options={"threads": -1}), CPU)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_the_pool_has_no_more_threads_than_the_process_has_cores():
    """Threads of a pool that share one core spin while they wait for each other."""
    program = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
from gimlet.runtime.executors.ort_library import ort_library
before = len(os.listdir("/proc/self/task"))
ort_library()
print(len(os.listdir("/proc/self/task")) - before)
"""
    one, two = (
        subprocess.run([sys.executable, "-c", program, cores], capture_output=True, text=True, check=True)
        for cores in ("1", "2")
    )
    assert int(two.stdout) - int(one.stdout) == 1
