"""Runs a segment by OpenVINO on the CPU.

The artifact is an OpenVINO model without weights, `model.xml`, over the weights file that the whole bundle shares,
which OpenVINO maps into memory. Segments of the same model share one compiled model. Each bindings has an infer request
of its own over the caller's buffers, so several requests may be in flight.

Artifact options: `threads` (0: every core that this process may use) and `streams` (how many requests compute at once;
1). It computes in float32 whatever the processor could do faster: bfloat16, dynamic quantisation and quantised caches
are OpenVINO's defaults on some processors, and are switched off by name.

OpenVINO's CPU plug-in holds 64-bit integers in 32 bits. A value that does not fit is refused when it comes in.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections.abc import Callable, Mapping
from ctypes import byref, c_int64, c_void_p
from functools import partial
from math import prod
from pathlib import Path
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
from gimlet.runtime.executors.ov_library import OvError, OvLibrary, Shape, ov_library
from gimlet.runtime.tensors import TensorSpec

EXACT: Mapping[str, str] = {
    "INFERENCE_PRECISION_HINT": "f32",
    "EXECUTION_MODE_HINT": "ACCURACY",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    "KV_CACHE_PRECISION": "f32",
}
"""Properties that keep OpenVINO from computing in fewer bits than the model says."""

_ELEMENTS: Mapping[str, int] = {
    "bool": 1,
    "float16": 3,
    "float32": 4,
    "int8": 7,
    "int16": 8,
    "int32": 9,
    "int64": 10,
    "uint8": 16,
    "uint16": 17,
}
"""`ov_element_type_e` in ov_common.h."""

_LEAST, _MOST = -(2**31), 2**31 - 1
_SHORT = 16


def settings_of(options: Mapping[str, Any]) -> dict[str, str]:
    """The properties of a compiled model for an artifact's options. InputError for an option that means nothing."""
    threads, streams = options.get("threads", 0), options.get("streams", 1)
    if not isinstance(threads, int) or threads < 0 or not isinstance(streams, int) or streams < 1:
        raise InputError(f"threads is {threads!r} and streams {streams!r}: at least 0 and 1")
    # Pinned threads would stay on the cores that another runtime's threads are pinned to.
    return {
        **EXACT,
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": str(streams),
        "ENABLE_CPU_PINNING": "NO",
    }


class OvModel:
    """A compiled model, shared by every segment that runs the same model in the same way."""

    def __init__(self, model: Path, weights: Path | None, settings: Mapping[str, str]) -> None:
        self.library = library = ov_library()
        place = str(weights).encode() if weights else b""
        source = library.new("ov_core_read_model", library.core, str(model).encode(), place)
        try:
            self.handle = library.compile(source, settings)
        finally:
            library.release("ov_model_free", source)
        library.release_with(self, "ov_compiled_model_free", self.handle)
        self.inputs = library.count("ov_compiled_model_inputs_size", self.handle)
        self.outputs = library.count("ov_compiled_model_outputs_size", self.handle)


_models: WeakValueDictionary[tuple[str, str, tuple[str, str]], OvModel] = WeakValueDictionary()
_models_lock = threading.Lock()


def _model(artifact: SegmentArtifact) -> OvModel:
    path = artifact.file_ending(".xml")
    others = [artifact.open_file(name) for name in artifact.files if not name.endswith(".xml")]
    if len(others) > 1:
        raise InputError(f"expected one file of weights, the manifest lists {len(others)}", where=artifact.segment)
    settings = settings_of(artifact.options)
    key = (hashlib.sha256(path.read_bytes()).hexdigest(), repr(settings), artifact.origin)
    with _models_lock:
        model = _models.get(key)
        if model is None:
            model = _models[key] = OvModel(path, others[0] if others else None, settings)
    return model


class _Port:
    """An input or output of a model: what binding an array to it takes, kept for arrays of the same shape."""

    __slots__ = ("array", "dims", "dtype", "element", "index", "name", "shape", "struct", "wide")

    def __init__(self, index: int, spec: TensorSpec) -> None:
        self.index = index
        self.name = spec.name
        self.dtype = spec.numpy_type
        self.element = _ELEMENTS[spec.dtype]
        self.wide = spec.dtype == "int64"
        self.array: np.ndarray | None = None
        self.set_shape(())

    def set_shape(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.dims = (c_int64 * len(shape))(*shape)
        self.struct = Shape(len(shape), self.dims)


class OvBindings(CBindings):
    """An infer request, and the arrays that it reads and writes."""

    def __init__(self, executor: OpenVinoExecutor) -> None:
        self._model = executor.model
        self._library = library = executor.model.library
        self._segment = executor.segment
        self.handle = library.new("ov_compiled_model_create_infer_request", executor.model.handle)
        library.release_with(self, "ov_infer_request_free", self.handle)
        self._inputs = {spec.name: _Port(index, spec) for index, spec in enumerate(executor.inputs)}
        self._outputs = {spec.name: _Port(index, spec) for index, spec in enumerate(executor.outputs)}
        self._made: dict[str, tuple[int, ...]] = {}
        self.wide = [port for port in self._inputs.values() if port.wide]
        self.allocates: dict[str, int] = {}
        self.run = partial(library.infer, self.handle)
        self._tensor = c_void_p()
        self._tensor_place = byref(self._tensor)

    @property
    def is_plain(self) -> bool:
        return not self.allocates and not self.wide

    def set_input(self, name: str, buffer: Buffer) -> None:
        self._bind(self._library.set_input, self._inputs[name], buffer)

    def set_output(self, name: str, buffer: Buffer | None) -> None:
        if buffer is None:
            self._made.setdefault(name, self._shape_made(self._outputs[name]))
            self.allocates.setdefault(name, 0)
            return
        self.allocates.pop(name, None)
        self._bind(self._library.set_output, self._outputs[name], buffer)

    def _shape_made(self, port: _Port) -> tuple[int, ...]:
        """The shape of the tensor that a request has for an output before a run; zeros where it is not known yet."""
        tensor = self._library.new("ov_infer_request_get_output_tensor_by_index", self.handle, port.index)
        try:
            return self._library.shape_of(tensor)
        finally:
            self._library.free_tensor(tensor)

    def _bind(self, function: Callable[..., int], port: _Port, buffer: Buffer) -> None:
        """Makes a tensor over the array's own memory, hands it to the request, and keeps the array alive."""
        if not isinstance(buffer, np.ndarray) or buffer.dtype != port.dtype or not buffer.flags.c_contiguous:
            raise InputError(f"{port.name}: expected a C-contiguous {port.dtype} array", where=self._segment)
        if buffer.shape != port.shape:
            port.set_shape(buffer.shape)
        library = self._library
        status = library.make_tensor(port.element, port.struct, address_of(buffer), self._tensor_place)
        library.check(status)
        status = function(self.handle, port.index, self._tensor)
        library.free_tensor(self._tensor.value or 0)
        library.check(status)
        port.array = buffer

    def _check_integers(self) -> None:
        """InputError for an integer that 32 bits do not hold."""
        for port in self.wide:
            array = port.array
            if array is None or not array.size:
                continue
            values = array.ravel().tolist() if array.size <= _SHORT else (int(array.min()), int(array.max()))
            if min(values) < _LEAST or max(values) > _MOST:
                raise InputError(
                    f"{port.name} has a value that 32 bits do not hold, and OpenVINO computes int64 in 32",
                    where=self._segment,
                    hint="place what reads it on onnxruntime",
                )

    def before(self) -> None:
        self._check_integers()
        self._allocate()

    def _allocate(self) -> None:
        """Gives each output that OpenVINO allocates a new tensor: it would write the next outputs into the last."""
        library = self._library
        for name in self.allocates:
            port = self._outputs[name]
            made = self._made[name]
            shape = Shape(len(made), (c_int64 * len(made))(*made))
            tensor = library.new("ov_tensor_create", port.element, shape)
            self.allocates[name] = tensor
            library.check(library.set_output(self.handle, port.index, tensor))

    def after(self) -> None:
        """Takes over the outputs that the run allocated: arrays over the tensors, which go with the arrays."""
        library = self._library
        for name, tensor in self.allocates.items():
            port = self._outputs[name]
            shape = library.shape_of(tensor)
            size = prod(shape) * port.dtype.itemsize
            if not size:
                port.array = np.empty(shape, port.dtype)
                library.free_tensor(tensor)
                continue
            memory = (ctypes.c_char * size).from_address(library.new("ov_tensor_data", tensor))
            library.release_with(memory, "ov_tensor_free", tensor)
            port.array = np.frombuffer(memoryview(memory), port.dtype).reshape(shape)

    def output(self, name: str) -> Buffer:
        array = self._outputs[name].array
        if array is None:
            raise InputError(f"output {name!r} was read before a run", where=self._segment)
        return array


class OpenVinoExecutor(CExecutor):
    """A segment in a compiled model. Synchronous: the caller's thread takes part in the computation."""

    name: ClassVar[str] = "openvino"
    title: ClassVar[str] = "OpenVINO"

    def __init__(self, artifact: SegmentArtifact, model: OvModel) -> None:
        self.segment = artifact.segment
        self.model = model
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs

    @classmethod
    def available(cls, device: DeviceSpec) -> Availability:
        del device
        try:
            ov_library()
        except MissingError as error:
            return Availability(error.message, error.hint or "")
        return AVAILABLE

    @classmethod
    def load(cls, artifact: SegmentArtifact, device: DeviceSpec) -> OpenVinoExecutor:
        del device
        for spec in (*artifact.inputs, *artifact.outputs):
            if spec.dtype not in _ELEMENTS:
                raise InputError(f"{spec.name!r} is {spec.dtype}, which cannot be passed", where=artifact.segment)
        try:
            model = _model(artifact)
        except OvError as error:
            raise InputError(f"OpenVINO cannot load the model: {error}", where=artifact.segment) from None
        counts = (len(artifact.inputs), len(artifact.outputs))
        if counts != (model.inputs, model.outputs):
            message = f"the model has {model.inputs} inputs and {model.outputs} outputs, the manifest says {counts}"
            raise InputError(message, where=artifact.segment)
        return cls(artifact, model)

    @property
    def library(self) -> OvLibrary:
        return self.model.library

    def new_bindings(self) -> OvBindings:
        return OvBindings(self)
