"""The calls of the executor for engines, and their order, against stand-ins for the CUDA driver and for TensorRT.

The stand-in's device memory is host memory, so the values that arrive are checked too. What only a GPU can show is in
`tests/gpu`.
"""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from gimlet.runtime.errors import InputError, MissingError
from gimlet.runtime.executors import cuda
from gimlet.runtime.executors import tensorrt as under_test
from gimlet.runtime.executors.base import DeviceSpec, Event, SegmentArtifact
from gimlet.runtime.executors.tensorrt import TensorRTExecutor
from gimlet.runtime.expr import Expr
from gimlet.runtime.tensors import TensorSpec

SHAPE = (Expr.symbol("n"), Expr.const(3))


class FakeDriver:
    """libcuda with host memory: `calls` has the names of its functions as they were called."""

    def __init__(self, capabilities=((12, 0),)):
        self.calls = []
        self.capabilities = capabilities
        self.memory = {}
        self.pending = False
        self.fail = {}
        self.streams = {"upload": [], "download": [], "wait": []}

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            implementation = getattr(type(self), f"_{name}", None)
            if implementation is not None:
                implementation(self, *arguments)
            return self.fail.get(name, 600 if name == "cuEventQuery" and self.pending else 0)

        return call

    def _cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.capabilities)

    def _cuDeviceGetAttribute(self, value, attribute, index):  # noqa: N802
        value._obj.value = self.capabilities[index][attribute - 75]

    def _new(self, place, size):
        block = ctypes.create_string_buffer(size)
        place._obj.value = ctypes.addressof(block)
        self.memory[ctypes.addressof(block)] = block

    def _cuMemAlloc_v2(self, place, size):  # noqa: N802
        self._new(place, size.value)

    def _cuMemHostAlloc(self, place, size, flags):  # noqa: N802
        self._new(place, size.value)

    def _cuMemFree_v2(self, pointer):  # noqa: N802
        del self.memory[pointer.value]

    def _handle(self, place, *rest):
        place._obj.value = 1000 + len(self.calls)

    _cuStreamCreate = _cuEventCreate = _cuDevicePrimaryCtxRetain = _handle  # noqa: N815

    def _cuStreamWaitEvent(self, stream, event, flags):  # noqa: N802
        self.streams["wait"].append(stream.value)

    def _cuMemcpyHtoDAsync_v2(self, target, source, size, stream):  # noqa: N802
        self.streams["upload"].append(stream.value)
        ctypes.memmove(target.value, source.value, size.value)

    def _cuMemcpyDtoHAsync_v2(self, target, source, size, stream):  # noqa: N802
        self.streams["download"].append(stream.value)
        ctypes.memmove(target.value, source.value, size.value)


class FakeContext:
    """An execution context that doubles `x` into `y`."""

    def __init__(self, calls):
        self.calls = calls
        self.shapes, self.addresses = {}, {}
        self.missing = []
        self.runs = True

    def note(self, *what):
        self.calls.append(what)
        return True

    def set_optimization_profile_async(self, index, stream):
        return self.note("set_optimization_profile_async", index)

    def set_input_shape(self, name, shape):
        self.shapes[name] = tuple(shape)
        return self.note("set_input_shape", name, tuple(shape)) and shape[0] <= 8

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return self.note("set_tensor_address", name)

    def infer_shapes(self):
        self.note("infer_shapes")
        return self.missing

    def get_tensor_shape(self, name):
        return self.shapes["x"]

    def execute_async_v3(self, stream):
        self.note("execute_async_v3")
        size = int(np.prod(self.shapes["x"]))
        x, y = (
            np.ctypeslib.as_array((ctypes.c_float * size).from_address(self.addresses[name])) for name in ("x", "y")
        )
        y[:] = 2 * x
        return self.runs


class Severity:
    INTERNAL_ERROR, ERROR, WARNING = range(3)


class FakeTensorRT:
    __name__ = "tensorrt_rtx"
    __version__ = "1.7.1"

    class ILogger:
        Severity = Severity

        def __init__(self):
            pass

    def __init__(self):
        self.calls = []
        self.contexts = []
        self.loads = True
        self.logger = None

    def Runtime(self, logger):  # noqa: N802
        self.logger = logger
        return SimpleNamespace(deserialize_cuda_engine=self.deserialize)

    def deserialize(self, data):
        self.calls.append(("deserialize_cuda_engine", bytes(data)))
        if not self.loads:
            self.logger.log(Severity.ERROR, "version tag does not match")
            return None
        names = ["x", "y"]
        return SimpleNamespace(
            num_io_tensors=2, get_tensor_name=lambda index: names[index], create_execution_context=self.context
        )

    def context(self):
        self.calls.append(("create_execution_context",))
        self.contexts.append(FakeContext(self.calls))
        return self.contexts[-1]


@pytest.fixture
def driver(monkeypatch):
    fake = FakeDriver()
    loaded = cuda.Driver(fake)
    monkeypatch.setattr(cuda, "driver", lambda: loaded)
    for cached in (cuda.gpu, cuda.pinned_pool, cuda.upload_stream, cuda.download_stream):
        cached.cache_clear()
    yield fake
    for cached in (cuda.gpu, cuda.pinned_pool, cuda.upload_stream, cuda.download_stream):
        cached.cache_clear()


@pytest.fixture
def trt(monkeypatch):
    fake = FakeTensorRT()
    monkeypatch.setattr(under_test.importlib, "import_module", lambda name: fake)
    under_test._library.cache_clear()
    yield fake
    under_test._library.cache_clear()


DEVICE = DeviceSpec("gpu0", "nvidia/rtx-pro-6000", {"compute_capability": "12.0"})


@pytest.fixture
def artifact(tmp_path):
    (tmp_path / "engine.trt").write_bytes(b"engine")
    return SegmentArtifact(
        segment="s0",
        format="fp32",
        root=tmp_path,
        files=("engine.trt",),
        inputs=(TensorSpec("x", "float32", SHAPE),),
        outputs=(TensorSpec("y", "float32", SHAPE),),
        open_file=lambda name: tmp_path / name,
        options={"library": "tensorrt_rtx", "version": "1.7.0", "compute_capability": "12.0"},
    )


@pytest.fixture
def executor(driver, trt, artifact):
    loaded = TensorRTExecutor.load(artifact, DEVICE)
    yield loaded
    loaded.close()


def device_array(executor, array):
    buffer = executor.alloc(array.dtype, array.shape)
    buffer.upload(array, []).wait()
    return buffer


def downloaded(buffer, event):
    target = np.empty(buffer.shape, buffer.dtype)
    buffer.download(target, [event]).wait()
    return target


def test_the_calls_of_one_run_in_their_order(executor, trt):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    bindings = executor.bind({"x": device_array(executor, x)}, {"y": executor.alloc(np.dtype(np.float32), (2, 3))})
    event = executor.submit(bindings)
    assert [call[0] for call in trt.calls] == [
        "deserialize_cuda_engine",
        "create_execution_context",
        "set_optimization_profile_async",
        "set_input_shape",
        "set_tensor_address",
        "infer_shapes",
        "set_tensor_address",
        "execute_async_v3",
    ]
    np.testing.assert_array_equal(downloaded(bindings.output("y"), event), 2 * x)


def test_a_repeated_run_sets_no_shape_again(executor, trt):
    x = np.ones((2, 3), np.float32)
    bindings = executor.bind({"x": device_array(executor, x)}, {"y": None})
    executor.submit(bindings).wait()
    trt.calls.clear()
    bindings.set_input("x", device_array(executor, 3 * x))
    event = executor.submit(bindings)
    assert "set_input_shape" not in [call[0] for call in trt.calls]
    np.testing.assert_array_equal(downloaded(bindings.output("y"), event), 6 * x)
    bindings.set_input("x", device_array(executor, np.ones((4, 3), np.float32)))
    assert ("set_input_shape", "x", (4, 3)) in trt.calls


def test_an_output_of_unknown_shape_is_allocated_by_the_executor(executor):
    for rows in (2, 4):
        x = np.full((rows, 3), rows, np.float32)
        bindings = executor.bind({"x": device_array(executor, x)}, {"y": None})
        with pytest.raises(InputError, match="read before a run"):
            bindings.output("y")
        event = executor.submit(bindings)
        np.testing.assert_array_equal(downloaded(bindings.output("y"), event), 2 * x)


def test_work_waits_for_events_of_the_gpu_on_the_gpu_and_for_others_here(executor, driver):
    waited = []

    class HostEvent(Event):
        def wait(self):
            waited.append("host")

    x = device_array(executor, np.ones((2, 3), np.float32))
    uploaded = x.upload(np.ones((2, 3), np.float32), [])
    bindings = executor.bind({"x": x}, {"y": None})
    driver.calls.clear()
    done = executor.submit(bindings, [uploaded, HostEvent()])
    assert waited == ["host"]
    assert driver.calls.count("cuStreamWaitEvent") == 1
    assert "cuEventSynchronize" not in driver.calls
    assert driver.calls[-1] == "cuEventRecord"
    assert done.done


def test_copies_go_through_pinned_memory_that_is_used_again(executor, driver):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    buffer = device_array(executor, x)
    for _ in range(5):
        buffer.upload(x, []).wait()
        np.testing.assert_array_equal(downloaded(buffer, buffer.upload(x, [])), x)
    assert driver.calls.count("cuMemHostAlloc") <= 2
    driver.pending = True
    for _ in range(4):
        buffer.upload(x, [])
    assert driver.calls.count("cuMemHostAlloc") >= 4  # what an unfinished copy reads is not given to the next


def test_a_download_is_done_when_the_values_are_where_they_belong(executor, driver):
    buffer = device_array(executor, np.ones((2, 3), np.float32))
    target = np.zeros((2, 3), np.float32)
    driver.pending = True
    event = buffer.download(target, [])
    assert not event.done
    assert not target.any()
    driver.pending = False
    assert event.done
    assert target.all()
    event.wait()


def test_an_upload_does_not_wait_behind_an_output_of_a_segment_that_runs(executor, driver):
    buffer = device_array(executor, np.ones((2, 3), np.float32))
    event = executor.submit(executor.bind({"x": buffer}, {"y": None}))
    buffer.download(np.zeros((2, 3), np.float32), [event])
    buffer.upload(np.ones((2, 3), np.float32), [])
    (waiting,) = driver.streams["wait"]
    assert driver.streams["download"] == [waiting]
    assert waiting not in driver.streams["upload"]


def test_bindings_have_contexts_and_streams_of_their_own(executor, trt, driver):
    x = device_array(executor, np.ones((2, 3), np.float32))
    executor.bind({"x": x}, {"y": None})
    executor.bind({"x": x}, {"y": None})
    assert len(trt.contexts) == 2
    assert driver.calls.count("cuStreamCreate") == 3  # and one for copies


def test_two_memories_of_a_state_change_roles_and_are_seen_in_other_shapes(executor, driver):
    first, second = (executor.alloc(np.dtype(np.float32), (24,)) for _ in range(2))
    x = first.view((2, 3))
    assert (x.pointer, x.shape, x.nbytes) == (first.pointer, (2, 3), 24)
    x.upload(np.ones((2, 3), np.float32), []).wait()
    bindings = executor.bind({"x": x}, {"y": second.view((2, 3))})
    executor.submit(bindings).wait()
    bindings.set_input("x", second.view((2, 3)))
    bindings.set_output("y", first.view((2, 3)))
    event = executor.submit(bindings)
    np.testing.assert_array_equal(downloaded(bindings.output("y"), event), np.full((2, 3), 4, np.float32))
    before = driver.calls.count("cuMemFree_v2")
    x.free()
    assert driver.calls.count("cuMemFree_v2") == before
    first.free()
    second.free()
    assert driver.calls.count("cuMemFree_v2") == before + 2


def test_close_frees_what_the_executor_allocated(executor, driver):
    x = device_array(executor, np.ones((2, 3), np.float32))
    bindings = executor.bind({"x": x}, {"y": None})
    executor.submit(bindings).wait()
    executor.synchronize()
    before = driver.calls.count("cuMemFree_v2")
    executor.close()
    bindings.close()
    assert driver.calls.count("cuMemFree_v2") == before + 1
    assert driver.calls.count("cuStreamDestroy_v2") == 1
    x.free()
    x.free()
    assert driver.calls.count("cuMemFree_v2") == before + 2


def test_a_shape_outside_the_profile_is_refused_in_the_librarys_words(executor, trt):
    trt.logger.log(Severity.ERROR, "kMAX is 8")
    trt.logger.log(Severity.WARNING, "chatter")
    with pytest.raises(InputError, match=r"refused shape \[9, 3\] of input 'x': kMAX is 8") as caught:
        executor.bind({"x": executor.alloc(np.dtype(np.float32), (9, 3))}, {"y": None})
    assert caught.value.where == "s0"


def test_values_of_another_memory_or_type_are_refused(executor):
    with pytest.raises(InputError, match="not in the memory of cuda:0"):
        executor.bind({"x": np.ones((2, 3), np.float32)}, {"y": None})
    with pytest.raises(InputError, match="holds int32, expected float32"):
        executor.bind({"x": executor.alloc(np.dtype(np.int32), (2, 3))}, {"y": None})


def test_an_output_buffer_of_another_shape_is_refused(executor):
    x = device_array(executor, np.ones((2, 3), np.float32))
    bindings = executor.bind({"x": x}, {"y": executor.alloc(np.dtype(np.float32), (3, 3))})
    with pytest.raises(InputError, match=r"has the shape \[2, 3\], its buffer \[3, 3\]"):
        executor.submit(bindings)


def test_a_run_that_does_not_start(executor, trt):
    bindings = executor.bind({"x": device_array(executor, np.ones((2, 3), np.float32))}, {"y": None})
    trt.contexts[-1].runs = False
    with pytest.raises(InputError, match="refused to run: the library gave no reason"):
        executor.submit(bindings)
    trt.contexts[-1].missing = ["x"]
    with pytest.raises(InputError, match="refused the shapes of x"):
        executor.submit(bindings)


def test_an_engine_of_another_version_says_both(driver, trt, artifact):
    trt.loads = False
    with pytest.raises(InputError, match="version tag does not match") as caught:
        TensorRTExecutor.load(artifact, DEVICE)
    assert caught.value.hint == "it was built with tensorrt_rtx 1.7.0, here is 1.7.1"


def test_an_engine_without_the_segments_tensors(driver, trt, artifact):
    from dataclasses import replace

    with pytest.raises(InputError, match="no tensor 'z'"):
        TensorRTExecutor.load(replace(artifact, inputs=(TensorSpec("z", "float32", SHAPE),)), DEVICE)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(cuda, "compute_capabilities", list)
    assert "no NVIDIA GPU or driver" in TensorRTExecutor.available(DEVICE).reason
    monkeypatch.setattr(cuda, "compute_capabilities", lambda: ["8.9", "9.0"])
    assert "compute capability 12.0, and this machine has 8.9, 9.0" in TensorRTExecutor.available(DEVICE).reason
    monkeypatch.setattr(cuda, "compute_capabilities", lambda: ["12.0"])
    monkeypatch.setattr(under_test, "find_spec", lambda name: None)
    assert "neither TensorRT for RTX nor TensorRT" in TensorRTExecutor.available(DEVICE).reason
    monkeypatch.setattr(under_test, "find_spec", lambda name: object())
    assert TensorRTExecutor.available(DEVICE)


@pytest.mark.parametrize(("name", "index"), [("gpu0", 1), ("gpu1", 3), ("gpu2", 1), ("blackwell", 1)])
def test_a_device_is_the_gpu_that_its_name_ends_in(monkeypatch, name, index):
    monkeypatch.setattr(cuda, "compute_capabilities", lambda: ["8.9", "12.0", "9.0", "12.0"])
    assert under_test._index_of(DeviceSpec(name, "k", {"compute_capability": "12.0"})) == index
    with pytest.raises(MissingError, match=r"no GPU of compute capability 7\.5"):
        under_test._index_of(DeviceSpec(name, "k", {"compute_capability": "7.5"}))


def test_the_caller_may_say_which_gpu_is_meant(monkeypatch):
    monkeypatch.setattr(cuda, "compute_capabilities", lambda: ["8.9", "12.0", "12.0"])
    needs = {"compute_capability": "12.0"}
    assert under_test._index_of(DeviceSpec("gpu0", "k", needs, {"index": 2})) == 2
    with pytest.raises(MissingError, match=r"GPU 0 is not one of compute capability 12\.0") as caught:
        under_test._index_of(DeviceSpec("gpu0", "k", needs, {"index": 0}))
    assert caught.value.hint == "those are: 1, 2"


def test_compute_capabilities_come_from_the_driver(driver):
    driver.capabilities = ((8, 9), (12, 0))
    assert cuda.compute_capabilities() == ["8.9", "12.0"]
    assert cuda.compute_capability() == "8.9"


def test_a_driver_that_fails_says_what_failed(driver):
    driver.fail["cuMemAlloc_v2"] = 2
    with pytest.raises(InputError, match=r"cuMemAlloc_v2: error 2"):
        cuda.CudaBuffer(cuda.gpu(0), np.dtype(np.float32), (4,))


def test_a_machine_without_a_driver(monkeypatch):
    cuda.driver.cache_clear()

    def no_library(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cuda.ctypes, "CDLL", no_library)
    with pytest.raises(MissingError, match="there is no NVIDIA driver here"):
        cuda.driver()
    assert cuda.compute_capabilities() == []


def test_a_library_that_is_not_installed(driver, artifact):
    from dataclasses import replace

    under_test._library.cache_clear()
    absent = replace(artifact, options={"library": "tensorrt_of_tomorrow"})
    with pytest.raises(MissingError, match="tensorrt_of_tomorrow cannot be loaded"):
        TensorRTExecutor.load(absent, DEVICE)
