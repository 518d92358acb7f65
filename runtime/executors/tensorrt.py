"""Runs an engine of TensorRT for RTX or of TensorRT, whichever built it.

Artifact options: `library`, the module that the engine is for (`tensorrt_rtx` or `tensorrt`), its `version`, the
`compute_capability` and the names of `inputs` and `outputs`. Every set of bindings has an execution context and a
stream of its own, so that several requests are in flight at once; work of one request is ordered by CUDA events, and
the host waits only where it needs values.

Written against the documented Python API of TensorRT 10 and TensorRT for RTX 1.7, and never run by this project on a
GPU. What is tested is the order of its calls, against a recording stand-in; `make gpu-test` is for whoever has a GPU.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from gimlet.runtime.errors import InputError, MissingError
from gimlet.runtime.executors import cuda
from gimlet.runtime.executors.base import (
    AVAILABLE,
    Availability,
    Bindings,
    Buffer,
    DeviceBuffer,
    DeviceSpec,
    Event,
    Executor,
    SegmentArtifact,
)

LIBRARIES = {"tensorrt_rtx": "pip install tensorrt-rtx", "tensorrt": "pip install tensorrt"}
_PROFILE = 0


class _Log:
    """What a library logged since it was last read; the library keeps one logger for the whole process."""

    def __init__(self, trt: Any) -> None:
        self._errors: list[str] = []
        self._lock = threading.Lock()
        severities = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)
        log = self

        class Recorder(trt.ILogger):
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in severities:
                    log.add(msg)

        self.logger: Any = Recorder()

    def add(self, message: str) -> None:
        with self._lock:
            self._errors.append(message)

    def take(self) -> str:
        with self._lock:
            errors, self._errors = self._errors, []
        return "; ".join(dict.fromkeys(errors)) or "the library gave no reason"


class _Library:
    """A loaded library, its log, and its runtime."""

    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.version = str(trt.__version__)
        self.log = _Log(trt)
        self.runtime: Any = trt.Runtime(self.log.logger)


@cache
def _library(name: str) -> _Library:
    try:
        return _Library(importlib.import_module(name))
    except (ImportError, OSError) as error:
        raise MissingError(
            f"{name} cannot be loaded: {error}", hint=f"on the machine with the GPU: {LIBRARIES.get(name, name)}"
        ) from None


class TensorRTBindings(Bindings):
    """An execution context of the engine, the stream that it runs in, and the buffers it reads and writes."""

    def __init__(self, executor: TensorRTExecutor) -> None:
        self._executor = executor
        self._gpu = executor.gpu
        self._gpu.enter()
        self.stream = cuda.Stream(executor.gpu)
        self.context: Any = executor.engine.create_execution_context()
        if self.context is None:
            raise executor.refused("no execution context")
        if not self.context.set_optimization_profile_async(_PROFILE, self.stream.handle):
            raise executor.refused("its optimisation profile")
        self._inputs: dict[str, DeviceBuffer] = {}
        self._outputs: dict[str, DeviceBuffer | None] = {}
        self._allocated: dict[str, DeviceBuffer] = {}

    def set_input(self, name: str, buffer: Buffer) -> None:
        known = self._inputs.get(name)
        found = self._checked(name, buffer)
        self._inputs[name] = found
        self._gpu.enter()
        if (known is None or known.shape != found.shape) and not self.context.set_input_shape(name, found.shape):
            raise self._executor.refused(f"shape {list(found.shape)} of input {name!r}")
        if not self.context.set_tensor_address(name, found.pointer):
            raise self._executor.refused(f"the buffer of input {name!r}")

    def set_output(self, name: str, buffer: Buffer | None) -> None:
        self._outputs[name] = None if buffer is None else self._checked(name, buffer)

    def _checked(self, name: str, buffer: Buffer) -> DeviceBuffer:
        if not isinstance(buffer, DeviceBuffer) or buffer.memory != self._gpu.memory:
            raise InputError(f"{name!r} is not in the memory of {self._gpu.memory}", where=self._executor.segment)
        wanted = self._executor.types[name]
        if buffer.dtype != wanted:
            raise InputError(f"{name!r} holds {buffer.dtype}, expected {wanted}", where=self._executor.segment)
        return buffer

    def bind_outputs(self) -> None:
        """Gives every output an address, now that the shapes of all inputs are set."""
        missing = self.context.infer_shapes()
        if missing:
            raise self._executor.refused(f"the shapes of {', '.join(missing)}")
        for name, bound in self._outputs.items():
            shape = tuple(self.context.get_tensor_shape(name))
            if bound is not None and bound.shape != shape:
                message = f"output {name!r} has the shape {list(shape)}, its buffer {list(bound.shape)}"
                raise InputError(message, where=self._executor.segment)
            buffer = bound or self._own(name, shape)
            if not self.context.set_tensor_address(name, buffer.pointer):
                raise self._executor.refused(f"the buffer of output {name!r}")

    def _own(self, name: str, shape: tuple[int, ...]) -> DeviceBuffer:
        kept = self._allocated.get(name)
        if kept is None or kept.shape != shape:
            if kept is not None:
                kept.free()
            kept = self._allocated[name] = cuda.CudaBuffer(self._gpu, self._executor.types[name], shape)
        return kept

    def output(self, name: str) -> Buffer:
        found = self._outputs[name] or self._allocated.get(name)
        if found is None:
            raise InputError(f"output {name!r} was read before a run", where=self._executor.segment)
        return found

    def close(self) -> None:
        if self.context is None:
            return
        self.stream.synchronize()
        self.context = None
        for buffer in self._allocated.values():
            buffer.free()
        self._allocated.clear()
        self.stream.close()
        self._executor.forget(self)


class TensorRTExecutor(Executor):
    """An engine on a GPU. `submit` only puts work into a stream."""

    name: ClassVar[str] = "tensorrt"
    asynchronous: ClassVar[bool] = True

    def __init__(self, artifact: SegmentArtifact, gpu: cuda.Gpu, library: _Library, engine: Any) -> None:
        self.segment = artifact.segment
        self.gpu = gpu
        self.memory = gpu.memory  # pyright: ignore[reportAttributeAccessIssue]  (each GPU is a memory of its own)
        self.engine: Any = engine
        self.types = {spec.name: spec.numpy_type for spec in (*artifact.inputs, *artifact.outputs)}
        self._inputs = artifact.inputs
        self._outputs = artifact.outputs
        self._library = library
        self._open: list[TensorRTBindings] = []
        self._lock = threading.Lock()

    @classmethod
    def available(cls, device: DeviceSpec) -> Availability:
        wanted = str(device.requires.get("compute_capability", ""))
        found = cuda.compute_capabilities()
        if not found:
            return Availability("there is no NVIDIA GPU or driver here", "run the bundle on the machine with the GPU")
        if wanted and wanted not in found:
            return Availability(
                f"it needs a GPU of compute capability {wanted}, and this machine has {', '.join(found)}",
                "compile for the kind of GPU that is here",
            )
        if not any(find_spec(name) for name in LIBRARIES):
            return Availability("neither TensorRT for RTX nor TensorRT is installed", " or ".join(LIBRARIES.values()))
        return AVAILABLE

    @classmethod
    def load(cls, artifact: SegmentArtifact, device: DeviceSpec) -> TensorRTExecutor:
        library = _library(str(artifact.options.get("library", "tensorrt_rtx")))
        gpu = cuda.gpu(_index_of(device))
        data = artifact.file_ending(".trt").read_bytes()
        gpu.enter()
        engine = library.runtime.deserialize_cuda_engine(data)
        if engine is None:
            built_with = artifact.options.get("version", "unknown")
            raise InputError(
                f"the engine cannot be loaded: {library.log.take()}",
                where=artifact.segment,
                hint=f"it was built with {library.trt.__name__} {built_with}, here is {library.version}",
            )
        names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        for spec in (*artifact.inputs, *artifact.outputs):
            if spec.name not in names:
                raise InputError(f"the engine has no tensor {spec.name!r}", where=artifact.segment)
        return cls(artifact, gpu, library, engine)

    def alloc(self, dtype: np.dtype, shape: tuple[int, ...]) -> Buffer:
        return cuda.CudaBuffer(self.gpu, dtype, shape)

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer | None]) -> TensorRTBindings:
        bindings = TensorRTBindings(self)
        with self._lock:
            self._open.append(bindings)
        for spec in self._inputs:
            bindings.set_input(spec.name, inputs[spec.name])
        for spec in self._outputs:
            bindings.set_output(spec.name, outputs.get(spec.name))
        return bindings

    def submit(self, bindings: Bindings, wait: Sequence[Event] = ()) -> Event:
        if not isinstance(bindings, TensorRTBindings):
            raise TypeError(f"bindings of another executor: {type(bindings).__name__}")
        self.gpu.enter()
        bindings.bind_outputs()
        bindings.stream.wait_for(wait)
        if not bindings.context.execute_async_v3(bindings.stream.handle):
            raise self.refused("to run")
        return bindings.stream.record()

    def refused(self, what: str) -> InputError:
        """The error for something that the library would not do, in its own words."""
        return InputError(
            f"{self._library.trt.__name__} refused {what}: {self._library.log.take()}", where=self.segment
        )

    def synchronize(self) -> None:
        for bindings in list(self._open):
            bindings.stream.synchronize()

    def forget(self, bindings: TensorRTBindings) -> None:
        """Called by bindings that are closed."""
        with self._lock:
            if bindings in self._open:
                self._open.remove(bindings)

    def close(self) -> None:
        for bindings in list(self._open):
            bindings.close()
        self.engine = None


def _index_of(device: DeviceSpec) -> int:
    """Which of the machine's GPUs a device is.

    The one that the caller's settings name (`index`, in CUDA's order), else, of those with the compute capability that
    is needed, the one that the device's name ends in: gpu1 is the second.
    """
    capabilities = cuda.compute_capabilities()
    wanted = str(device.requires.get("compute_capability", ""))
    fitting = [index for index, found in enumerate(capabilities) if wanted in ("", found)]
    if not fitting:
        raise MissingError(
            f"there is no GPU of compute capability {wanted or 'any'} here",
            where=device.name,
            hint="run the bundle on the machine with that GPU",
        )
    chosen = device.settings.get("index")
    if chosen is not None:
        if chosen not in fitting:
            raise MissingError(
                f"GPU {chosen} is not one of compute capability {wanted or 'any'}",
                where=device.name,
                hint=f"those are: {', '.join(map(str, fitting))}",
            )
        return chosen
    digits = device.name[len(device.name.rstrip("0123456789")) :]
    return fitting[int(digits) % len(fitting)] if digits else fitting[0]
