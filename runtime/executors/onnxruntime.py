"""Runs a segment's ONNX model by ONNX Runtime, on the CPU or on what one of its execution providers serves.

All segments share one environment with one thread pool. Segments of the same model share one session, and segments
over the same weights share those (`ort_weights`): a second use costs no second copy. A segment's buffers stay bound
between runs; only what the scheduler exchanges is bound again.

Artifact options: `threads`, how many compute a segment (0, the shared pool; 1, the caller's alone; more, a pool of its
own); `shares_cores`, for a bundle whose other segments have threads of another runtime: the pool then does not spin
after a run, where it would hold the cores; `provider`, the execution provider's name (`MIGraphX`, …) where it is not
the CPU's, and `provider_options`, its settings as strings. A variant that needs a provider says so in `requires`, as
`{"execution_provider": "MIGraphXExecutionProvider"}`. Providers but the CPU's were never run by this project.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections.abc import Mapping
from ctypes import byref, c_char_p, c_int64, c_size_t, c_void_p
from functools import partial
from math import prod
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np

from gimlet.runtime.errors import InputError, MissingError
from gimlet.runtime.executors.base import (
    AVAILABLE,
    Availability,
    Buffer,
    DeviceSpec,
    SegmentArtifact,
)
from gimlet.runtime.executors.c_library import CBindings, CExecutor, address_of
from gimlet.runtime.executors.ort_library import STRING_TYPE, OrtError, OrtLibrary, ort_library
from gimlet.runtime.executors.ort_structures import StructuredBindings
from gimlet.runtime.executors.ort_values import TensorReader, element_number, make_strings
from gimlet.runtime.executors.ort_weights import WeightPool
from gimlet.runtime.packed import BITS, pack
from gimlet.runtime.tensors import TensorSpec

EXTERNAL_DATA_FOLDER = b"session.model_external_initializers_file_folder_path"
STOP_SPINNING = b"session.force_spinning_stop"
FOUR_BIT_ACCURACY = b"session.qdq_matmulnbits_accuracy_level"
_FLOAT32 = b"1"
"""Products with weights of four bits are of floats: by its default (4) ONNX Runtime makes int8 of the activations."""


class OrtSession:
    """A session, shared by every segment that runs the same model from the same folder."""

    def __init__(self, model: bytes, artifact: SegmentArtifact, pool: WeightPool) -> None:
        self.library = library = pool.library
        self.pool = pool
        options = library.new("CreateSessionOptions")
        try:
            _set_threads(library, options, artifact)
            library.call("AddSessionConfigEntry", options, EXTERNAL_DATA_FOLDER, str(artifact.root).encode())
            library.call("AddSessionConfigEntry", options, FOUR_BIT_ACCURACY, _FLOAT32)
            if _append_provider(library, options, artifact.options):
                self.handle = library.new("CreateSessionFromArray", library.environment, model, len(model), options)
            else:
                pool.give(options, model, artifact)
                create = "CreateSessionFromArrayWithPrepackedWeightsContainer"
                arguments = (library.environment, model, len(model), options, pool.container)
                self.handle = library.new(create, *arguments)
                pool.give_back()
        finally:
            library.release("ReleaseSessionOptions", options)
        library.release_with(self, "ReleaseSession", self.handle)
        self.inputs = library.names(self.handle, "SessionGetInputCount", "SessionGetInputName")
        self.outputs = library.names(self.handle, "SessionGetOutputCount", "SessionGetOutputName")


def _set_threads(library: OrtLibrary, options: int, artifact: SegmentArtifact) -> None:
    threads = artifact.options.get("threads", 0)
    if not isinstance(threads, int) or threads < 0:
        raise InputError(f"threads is {threads!r}: at least 0", where=artifact.segment)
    if threads:
        library.call("SetIntraOpNumThreads", options, threads)
    else:
        library.call("DisablePerSessionThreads", options)
    if artifact.options.get("shares_cores"):
        library.call("AddSessionConfigEntry", options, STOP_SPINNING, b"1")


def _append_provider(library: OrtLibrary, options: int, artifact_options: Mapping[str, Any]) -> bool:
    """Whether the artifact is for another execution provider than the CPU's, which is then appended."""
    provider = str(artifact_options.get("provider", ""))
    if provider in ("", "CPU", "CPUExecutionProvider"):
        return False
    settings = {str(key): str(value) for key, value in artifact_options.get("provider_options", {}).items()}
    texts = c_char_p * len(settings)
    keys = texts(*(key.encode() for key in settings))
    values = texts(*(value.encode() for value in settings.values()))
    library.call("SessionOptionsAppendExecutionProvider", options, provider.encode(), keys, values, len(settings))
    return True


_pools: WeakValueDictionary[tuple[str, str], WeightPool] = WeakValueDictionary()
_sessions: WeakValueDictionary[tuple[str, str, tuple[str, str]], OrtSession] = WeakValueDictionary()
_sessions_lock = threading.Lock()


def _session(artifact: SegmentArtifact) -> OrtSession:
    model = artifact.file_ending(".onnx").read_bytes()
    settings = [artifact.options.get(name) for name in ("provider", "provider_options", "threads", "shares_cores")]
    key = (hashlib.sha256(model).hexdigest(), repr(settings), artifact.origin)
    with _sessions_lock:
        session = _sessions.get(key)
        if session is None:
            pool = _pools.get(artifact.origin)
            if pool is None:
                pool = _pools[artifact.origin] = WeightPool(ort_library())
            session = _sessions[key] = OrtSession(model, artifact, pool)
    return session


class _Port:
    """An input or output of a session: what binding an array to it takes, kept for arrays of the same shape."""

    __slots__ = (
        *("array", "bits", "dims", "dtype", "is_converted", "is_open", "name", "nbytes", "onnx_type", "rank"),
        *("shape", "size"),
    )

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name.encode()
        self.dtype = spec.numpy_type
        self.onnx_type = element_number(spec.dtype)
        self.bits = BITS.get(spec.dtype, 0)
        self.is_converted = self.onnx_type == STRING_TYPE or self.bits > 0
        self.array: np.ndarray | None = None
        self.is_open = False
        """Whether ONNX Runtime allocates it: an output whose size only the run can tell, or that is converted."""
        self.set_shape(())

    def set_shape(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.rank = len(shape)
        self.dims = (c_int64 * self.rank)(*shape)
        self.size = prod(shape)
        self.nbytes = self.size * self.dtype.itemsize if not self.bits else (self.size * self.bits + 7) // 8


class OrtBindings(CBindings):
    """An IoBinding and the arrays that it refers to."""

    def __init__(self, executor: OnnxRuntimeExecutor) -> None:
        self._library = library = executor.session.library
        self._segment = executor.segment
        self.handle = library.new("CreateIoBinding", executor.session.handle)
        library.release_with(self, "ReleaseIoBinding", self.handle)
        self._session = executor.session
        self._inputs = {spec.name: _Port(spec) for spec in executor.inputs}
        self._outputs = {spec.name: _Port(spec) for spec in executor.outputs}
        self._value = c_void_p()
        self._value_place = byref(self._value)
        self._open: list[_Port] = []
        self._bind_input, self._bind_output = library.bind_input, library.bind_output
        self._create, self._release = library.create_value, library.release_value
        self._memory = library.cpu_memory
        self._reader = TensorReader(library)
        self._bind_to_device = library.function("BindOutputToDevice")
        self._bound_values = library.function("GetBoundOutputValues")
        self._values, self._count = ctypes.POINTER(c_void_p)(), c_size_t()
        self._values_place, self._count_place = byref(self._values), byref(self._count)
        self.run = partial(library.run_with_binding, executor.session.handle, None, self.handle)

    @property
    def is_plain(self) -> bool:
        return not self._open

    def set_input(self, name: str, buffer: Buffer) -> None:
        self._bind(self._bind_input, self._inputs[name], buffer)

    def set_output(self, name: str, buffer: Buffer | None) -> None:
        port = self._outputs[name]
        is_open = buffer is None or port.is_converted
        if is_open is not port.is_open:
            port.is_open = is_open
            self._open = [each for each in self._outputs.values() if each.is_open]
        if buffer is None or is_open:
            self._release_output(port)
        else:
            self._bind(self._bind_output, port, buffer)

    def _release_output(self, port: _Port) -> None:
        self._library.check(self._bind_to_device(self.handle, port.name, self._memory))

    def before(self) -> None:
        """Lets go of what the last run allocated: ONNX Runtime would write the next outputs into it."""
        for port in self._open:
            self._release_output(port)

    def _bind(self, function: Any, port: _Port, buffer: Buffer) -> None:
        """Binds an OrtValue over the array's own memory, and keeps the array alive."""
        if not isinstance(buffer, np.ndarray) or buffer.dtype != port.dtype or not buffer.flags.c_contiguous:
            raise InputError(f"{port.name.decode()}: expected a C-contiguous {port.dtype} array", where=self._segment)
        if buffer.shape != port.shape:
            port.set_shape(buffer.shape)
        if port.onnx_type == STRING_TYPE:
            self._value.value = make_strings(self._library, buffer)
        else:
            port.array = pack(buffer, port.bits) if port.bits else buffer
            place = address_of(port.array)
            status = self._create(
                self._memory, place, port.nbytes, port.dims, port.rank, port.onnx_type, self._value_place
            )
            if status:
                self._library.check(status)
        status = function(self.handle, port.name, self._value)
        self._release(self._value)
        if status:
            self._library.check(status)

    def output(self, name: str) -> Buffer:
        array = self._outputs[name].array
        if array is None:
            raise InputError(f"output {name!r} was read before a run", where=self._segment)
        return array

    def after(self) -> None:
        if self._open:
            self._collect()

    def _collect(self) -> None:
        library, values = self._library, self._values
        library.check(self._bound_values(self.handle, library.allocator, self._values_place, self._count_place))
        handles = values[: self._count.value]
        library.call("AllocatorFree", library.allocator, values)
        kept: set[int] = set()
        try:
            for port, handle in zip(self._outputs.values(), handles, strict=True):
                if port.is_open:
                    port.array, is_view = self._reader.read(handle)
                    if is_view:
                        kept.add(handle)
        finally:
            for handle in handles:
                if handle not in kept:
                    library.release_value(handle)


def _short_name(provider: str) -> str:
    """A provider as device kinds spell it: `migraphx` for MIGraphXExecutionProvider."""
    return provider.lower().removesuffix("executionprovider")


class OnnxRuntimeExecutor(CExecutor):
    """A segment's model in a session. Synchronous: the caller's thread takes part in the computation."""

    name: ClassVar[str] = "onnxruntime"
    title: ClassVar[str] = "ONNX Runtime"

    def __init__(self, artifact: SegmentArtifact, session: OrtSession) -> None:
        self.segment = artifact.segment
        self.session = session
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs

    @classmethod
    def available(cls, device: DeviceSpec) -> Availability:
        try:
            providers = ort_library().providers()
        except MissingError as error:
            return Availability(error.message, error.hint or "")
        needed = str(device.requires.get("execution_provider", "CPUExecutionProvider"))
        if _short_name(needed) in map(_short_name, providers):
            return AVAILABLE
        hint = f"install the build of onnxruntime that has {needed}, on the machine that has the device"
        return Availability(f"ONNX Runtime here has no {needed} (it has {', '.join(providers)})", hint)

    @classmethod
    def load(cls, artifact: SegmentArtifact, device: DeviceSpec) -> OnnxRuntimeExecutor:
        del device
        for path in artifact.files:
            artifact.open_file(path)
        try:
            session = _session(artifact)
        except OrtError as error:
            raise InputError(f"ONNX Runtime cannot load the model: {error}", where=artifact.segment) from None
        for kind, specs, names in (
            ("input", artifact.inputs, session.inputs),
            ("output", artifact.outputs, session.outputs),
        ):
            for spec in specs:
                if spec.name not in names:
                    raise InputError(f"the model has no {kind} {spec.name!r}", where=artifact.segment)
        return cls(artifact, session)

    @property
    def library(self) -> OrtLibrary:
        return self.session.library

    def new_bindings(self) -> CBindings:
        if all(spec.is_tensor for spec in (*self.inputs, *self.outputs)):
            return OrtBindings(self)
        session = self.session
        return StructuredBindings(self.library, session.handle, session, self.inputs, self.outputs, self.segment)
