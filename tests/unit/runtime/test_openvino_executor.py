"""The executor on OpenVINO's C interface: the caller's own buffers, exact float32, several requests at once."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from onnx import TensorProto, helper

from gimlet.runtime.errors import InputError, MissingError
from gimlet.runtime.executors import ov_library
from gimlet.runtime.executors.base import DONE, DeviceSpec, Event, SegmentArtifact
from gimlet.runtime.executors.openvino import EXACT, OpenVinoExecutor
from gimlet.runtime.executors.registry import load_executor
from gimlet.runtime.expr import Expr
from gimlet.runtime.tensors import TensorSpec, onnx_type

CPU = DeviceSpec("cpu", "host")
N = (Expr.symbol("n"),)


def artifact(
    folder: Path,
    op: str = "Neg",
    dtype: str = "float32",
    options: Mapping[str, Any] | None = None,
    shape: tuple[str, ...] = ("n",),
    result: tuple[Expr | None, ...] | None = N,
    **attributes: Any,
) -> SegmentArtifact:
    """A segment of one op from `x` to `y`."""
    ports = [helper.make_tensor_value_info(name, onnx_type(dtype), shape) for name in ("x", "y")]
    if op == "NonZero":
        ports[1] = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], **attributes)], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    read = openvino.Core().read_model(model.SerializeToString())
    openvino.serialize(read, str(folder / "model.xml"), str(folder / "model.bin"))
    x = TensorSpec("x", dtype, tuple(Expr.symbol(name) for name in shape))
    y = TensorSpec("y", "int64" if op == "NonZero" else dtype, x.shape if result is N else result)
    return SegmentArtifact("s0", "fp32", folder, ("model.xml",), (x,), (y,), lambda path: folder / path, options or {})


def run(item: SegmentArtifact, x: np.ndarray) -> np.ndarray:
    executor = OpenVinoExecutor.load(item, CPU)
    bindings = executor.bind({"x": x}, {"y": executor.alloc(item.outputs[0].numpy_type, x.shape)})
    executor.submit(bindings).wait()
    found = bindings.output("y")
    assert isinstance(found, np.ndarray)
    return found


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "bool"])
def test_every_type_goes_through(tmp_path: Path, dtype: str):
    item = artifact(tmp_path, "Identity", dtype)
    x = np.array([0, 1, 1]).astype(item.inputs[0].numpy_type)
    np.testing.assert_array_equal(run(item, x), x)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 1)])
def test_scalars_and_empty_tensors_go_through(tmp_path: Path, shape: tuple[int, ...]):
    item = artifact(tmp_path, shape=tuple("abc"[: len(shape)]))
    x = np.ones(shape, np.float32)
    np.testing.assert_array_equal(run(item, x), -x)


def test_it_reads_and_writes_the_callers_own_memory(tmp_path: Path):
    executor = OpenVinoExecutor.load(artifact(tmp_path), CPU)
    x, y = np.ones(4, np.float32), np.empty(4, np.float32)
    bindings = executor.bind({"x": x}, {"y": y})
    launch = executor.launcher(bindings)
    assert launch(()) is DONE
    np.testing.assert_array_equal(y, -x)
    x[:] = 5
    launch(())
    np.testing.assert_array_equal(y, -x)
    assert bindings.output("y") is y


def test_buffers_are_exchanged_one_by_one(tmp_path: Path):
    executor = OpenVinoExecutor.load(artifact(tmp_path), CPU)
    first, second = np.ones(4, np.float32), np.empty(4, np.float32)
    bindings = executor.bind({"x": np.zeros(2, np.float32)}, {"y": np.empty(2, np.float32)})
    executor.submit(bindings)
    bindings.set_input("x", first)
    bindings.set_output("y", second)
    executor.submit(bindings)
    np.testing.assert_array_equal(second, -first)


def test_what_openvino_allocates_is_not_overwritten_by_the_next_run(tmp_path: Path):
    item = artifact(tmp_path, "NonZero", result=(None, None))
    executor = OpenVinoExecutor.load(item, CPU)
    bindings = executor.bind({"x": np.array([0, 1, 1], np.float32)}, {"y": None})
    executor.submit(bindings)
    first = np.asarray(bindings.output("y"))
    bindings.set_input("x", np.array([1, 0, 0, 1, 1], np.float32))
    executor.launcher(bindings)(())
    np.testing.assert_array_equal(first, [[1, 2]])
    np.testing.assert_array_equal(np.asarray(bindings.output("y")), [[0, 3, 4]])
    bindings.set_input("x", np.zeros(2, np.float32))
    executor.submit(bindings)
    assert np.asarray(bindings.output("y")).shape == (1, 0)


def test_it_waits_for_the_events_that_it_is_given(tmp_path: Path):
    class Recorded(Event):
        waited = 0

        def wait(self) -> None:
            Recorded.waited += 1

    executor = OpenVinoExecutor.load(artifact(tmp_path), CPU)
    bindings = executor.bind({"x": np.ones(2, np.float32)}, {"y": np.empty(2, np.float32)})
    executor.launcher(bindings)([Recorded()])
    executor.submit(bindings, [Recorded()])
    assert Recorded.waited == 2


def test_bindings_of_one_executor_run_at_the_same_time(tmp_path: Path):
    executor = OpenVinoExecutor.load(artifact(tmp_path, options={"streams": 2}), CPU)
    inputs = [np.full(1000, index, np.float32) for index in range(4)]
    outputs = [np.empty(1000, np.float32) for _ in inputs]

    def work(index: int) -> None:
        bindings = executor.bind({"x": inputs[index]}, {"y": outputs[index]})
        for _ in range(50):
            executor.submit(bindings)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for x, y in zip(inputs, outputs, strict=True):
        np.testing.assert_array_equal(y, -x)


def test_a_model_is_shared_by_segments_that_run_it_alike(tmp_path: Path):
    item = artifact(tmp_path)
    first = OpenVinoExecutor.load(item, CPU)
    assert OpenVinoExecutor.load(replace(item, segment="s1"), CPU).model is first.model
    assert OpenVinoExecutor.load(replace(item, options={"threads": 1}), CPU).model is not first.model


def test_it_computes_in_the_bits_that_the_model_says(tmp_path: Path):
    """As OpenVINO took the properties, on any processor: one with bfloat16 units would use them by itself."""
    model = OpenVinoExecutor.load(artifact(tmp_path, options={"threads": 1, "streams": 1}), CPU).model
    settings = {key: model.library.setting(model.handle, key) for key in EXACT}
    assert settings == dict(EXACT)
    assert model.library.setting(model.handle, "INFERENCE_NUM_THREADS") == "1"
    assert model.library.setting(model.handle, "ENABLE_CPU_PINNING") == "NO"


@pytest.mark.parametrize("size", [1, 100])
def test_an_integer_that_does_not_fit_is_refused(tmp_path: Path, size: int):
    item = artifact(tmp_path, "Identity", "int64")
    fits = np.full(size, -(2**31), np.int64)
    np.testing.assert_array_equal(run(item, fits), fits)
    with pytest.raises(InputError, match="32 bits do not hold"):
        run(item, fits - 1)


@pytest.mark.parametrize("options", [{"threads": -1}, {"threads": "2"}, {"streams": 0}])
def test_options_that_mean_nothing(tmp_path: Path, options: dict[str, Any]):
    with pytest.raises(InputError, match="at least 0 and 1"):
        OpenVinoExecutor.load(artifact(tmp_path, options=options), CPU)


def test_artifacts_that_cannot_be_loaded(tmp_path: Path):
    item = artifact(tmp_path)
    with pytest.raises(InputError, match="uint64, which cannot be passed"):
        OpenVinoExecutor.load(replace(item, inputs=(TensorSpec("x", "uint64", N),)), CPU)
    with pytest.raises(InputError, match="1 inputs and 1 outputs, the manifest says"):
        OpenVinoExecutor.load(replace(item, outputs=()), CPU)
    with pytest.raises(InputError, match="expected one file of weights"):
        OpenVinoExecutor.load(replace(item, files=("model.xml", "a", "b")), CPU)
    with pytest.raises(InputError, match=r"expected one \*\.xml file"):
        OpenVinoExecutor.load(replace(item, files=()), CPU)
    (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(InputError, match="OpenVINO cannot load the model"):
        OpenVinoExecutor.load(item, CPU)


def test_buffers_that_do_not_fit(tmp_path: Path):
    executor = OpenVinoExecutor.load(artifact(tmp_path), CPU)
    x, y = np.ones(4, np.float32), np.empty(4, np.float32)
    for wrong in (np.ones(4), np.ones(8, np.float32)[::2]):
        with pytest.raises(InputError, match="expected a C-contiguous float32 array"):
            executor.bind({"x": wrong}, {"y": y})
    with pytest.raises(InputError, match="OpenVINO refused a buffer"):
        executor.bind({"x": np.ones((2, 2), np.float32)}, {"y": y})
    bindings = executor.bind({"x": x}, {"y": None})
    with pytest.raises(InputError, match="was read before a run"):
        bindings.output("y")
    with pytest.raises(TypeError, match="bindings of another executor"):
        executor.submit(object())  # type: ignore[arg-type]


def test_values_that_openvino_refuses_name_the_segment(tmp_path: Path):
    executor = OpenVinoExecutor.load(artifact(tmp_path), CPU)
    bindings = executor.bind({"x": np.ones(4, np.float32)}, {"y": np.empty(3, np.float32)})
    for run_once in (lambda: executor.submit(bindings), lambda: executor.launcher(bindings)(())):
        with pytest.raises(InputError, match="OpenVINO refused the values") as caught:
            run_once()
        assert caught.value.where == "s0"


def test_without_the_package_a_device_is_not_available(monkeypatch: pytest.MonkeyPatch):
    ov_library.ov_library.cache_clear()
    monkeypatch.setattr(ov_library, "library_path", lambda *_: None)
    try:
        found = load_executor("openvino").available(CPU)
        assert not found
        assert (found.reason, found.hint) == ("openvino is not installed", "pip install openvino")
    finally:
        ov_library.ov_library.cache_clear()


def test_a_library_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = tmp_path / "libopenvino_c.so"
    broken.write_bytes(b"no library")
    ov_library.ov_library.cache_clear()
    monkeypatch.setattr(ov_library, "library_path", lambda *_: broken)
    try:
        with pytest.raises(MissingError, match="does not load"):
            ov_library.ov_library()
    finally:
        ov_library.ov_library.cache_clear()
