"""ONNX Runtime's C interface, called through ctypes: the shared library that the `onnxruntime` wheel carries.

Why not the package's own Python interface: its sessions have a thread pool each, and eight of them run a model that is
split in eight five times slower, because the idle pools spin. The package can share one pool, but from then on every
session that anything else in the process creates the ordinary way fails ("use_per_session_threads must be false").
An environment of our own has one pool for all segments and leaves everybody else's sessions alone. It also starts
sooner: the Python package is never imported.

The table of functions is append-only: a function keeps its index for ever (onnxruntime_c_api.h).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

from gimlet.runtime.errors import MissingError
from gimlet.runtime.executors.c_library import CLibrary, LibraryError, library_path

API_VERSION = 17
LOG_FATAL = 4
STRING_TYPE = 8

_OUT = POINTER(c_void_p)
_TEXTS = POINTER(c_char_p)

# Name: index in OrtApi, arguments. All of these return a status, NULL for success.
_FUNCTIONS: dict[str, tuple[int, tuple[Any, ...]]] = {
    "CreateSessionFromArray": (8, (c_void_p, c_char_p, c_size_t, c_void_p, _OUT)),
    "Run": (9, (c_void_p, c_void_p, _TEXTS, _OUT, c_size_t, _TEXTS, c_size_t, _OUT)),
    "CreateSessionOptions": (10, (_OUT,)),
    "SetIntraOpNumThreads": (24, (c_void_p, c_int)),
    "SessionGetInputCount": (30, (c_void_p, POINTER(c_size_t))),
    "SessionGetOutputCount": (31, (c_void_p, POINTER(c_size_t))),
    "SessionGetInputName": (36, (c_void_p, c_size_t, c_void_p, _OUT)),
    "SessionGetOutputName": (37, (c_void_p, c_size_t, c_void_p, _OUT)),
    "CreateTensorAsOrtValue": (48, (c_void_p, c_void_p, c_size_t, c_int, _OUT)),
    "CreateTensorWithDataAsOrtValue": (49, (c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_int, _OUT)),
    "IsTensor": (50, (c_void_p, POINTER(c_int))),
    "GetTensorMutableData": (51, (c_void_p, _OUT)),
    "FillStringTensor": (52, (c_void_p, _TEXTS, c_size_t)),
    "GetStringTensorDataLength": (53, (c_void_p, POINTER(c_size_t))),
    "GetStringTensorContent": (54, (c_void_p, c_void_p, c_size_t, POINTER(c_size_t), c_size_t)),
    "GetTensorElementType": (60, (c_void_p, POINTER(c_int))),
    "GetDimensionsCount": (61, (c_void_p, POINTER(c_size_t))),
    "GetDimensions": (62, (c_void_p, POINTER(c_int64), c_size_t)),
    "GetTensorTypeAndShape": (65, (c_void_p, _OUT)),
    "GetValueType": (67, (c_void_p, POINTER(c_int))),
    "CreateCpuMemoryInfo": (69, (c_int, c_int, _OUT)),
    "AllocatorFree": (76, (c_void_p, c_void_p)),
    "GetAllocatorWithDefaultOptions": (78, (_OUT,)),
    "GetValue": (80, (c_void_p, c_int, c_void_p, _OUT)),
    "GetValueCount": (81, (c_void_p, POINTER(c_size_t))),
    "CreateValue": (82, (_OUT, c_size_t, c_int, _OUT)),
    "CreateEnvWithGlobalThreadPools": (119, (c_int, c_char_p, c_void_p, _OUT)),
    "DisablePerSessionThreads": (120, (c_void_p,)),
    "CreateThreadingOptions": (121, (_OUT,)),
    "GetAvailableProviders": (125, (POINTER(_TEXTS), POINTER(c_int))),
    "AddSessionConfigEntry": (130, (c_void_p, c_char_p, c_char_p)),
    "RunWithBinding": (133, (c_void_p, c_void_p, c_void_p)),
    "CreateIoBinding": (134, (c_void_p, _OUT)),
    "BindInput": (136, (c_void_p, c_char_p, c_void_p)),
    "BindOutput": (137, (c_void_p, c_char_p, c_void_p)),
    "BindOutputToDevice": (138, (c_void_p, c_char_p, c_void_p)),
    "GetBoundOutputValues": (140, (c_void_p, c_void_p, POINTER(_OUT), POINTER(c_size_t))),
    "SetGlobalIntraOpNumThreads": (147, (c_void_p, c_int)),
    "AddInitializer": (150, (c_void_p, c_char_p, c_void_p)),
    "CreatePrepackedWeightsContainer": (166, (_OUT,)),
    "CreateSessionFromArrayWithPrepackedWeightsContainer": (
        169,
        (c_void_p, c_char_p, c_size_t, c_void_p, c_void_p, _OUT),
    ),
    "HasValue": (192, (c_void_p, POINTER(c_int))),
    "SessionOptionsAppendExecutionProvider": (216, (c_void_p, c_char_p, _TEXTS, _TEXTS, c_size_t)),
    "GetResizedStringTensorElementBuffer": (252, (c_void_p, c_size_t, c_size_t, _OUT)),
}
_RELEASES = {
    "ReleaseStatus": 93,
    "ReleaseSession": 95,
    "ReleaseValue": 96,
    "ReleaseTensorTypeAndShapeInfo": 99,
    "ReleaseSessionOptions": 100,
    "ReleaseThreadingOptions": 122,
    "ReleaseIoBinding": 135,
    "ReleasePrepackedWeightsContainer": 167,
}
# These take long enough for other Python threads to run meanwhile; the rest is shorter than handing over the lock.
_LONG = frozenset(
    {
        "CreateSessionFromArray",
        "CreateSessionFromArrayWithPrepackedWeightsContainer",
        "CreateEnvWithGlobalThreadPools",
        "Run",
        "RunWithBinding",
    }
)


class OrtError(LibraryError):
    """What ONNX Runtime said."""


class _ApiBase(ctypes.Structure):
    _fields_ = (
        ("GetApi", ctypes.CFUNCTYPE(c_void_p, c_uint32)),
        ("GetVersionString", ctypes.CFUNCTYPE(c_char_p)),
    )


class OrtLibrary(CLibrary):
    """The loaded library, its environment and what all sessions share. Get it from `ort_library`."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        library.OrtGetApiBase.restype = POINTER(_ApiBase)
        base = library.OrtGetApiBase().contents
        self.version: str = base.GetVersionString().decode()
        api = base.GetApi(API_VERSION)
        if not api:
            raise MissingError(f"ONNX Runtime {self.version} is too old", hint="pip install -U onnxruntime")
        self._table = ctypes.cast(api, POINTER(c_void_p))
        self._message = ctypes.PYFUNCTYPE(c_char_p, c_void_p)(self._table[2] or 0)
        self._releases = {
            name: ctypes.PYFUNCTYPE(None, c_void_p)(self._table[index] or 0) for name, index in _RELEASES.items()
        }
        self._functions = {name: self._function(name) for name in _FUNCTIONS}
        self.bind_input = self._functions["BindInput"]
        self.bind_output = self._functions["BindOutput"]
        self.create_value = self._functions["CreateTensorWithDataAsOrtValue"]
        self.run = self._functions["Run"]
        self.run_with_binding = self._functions["RunWithBinding"]
        self.release_value = self._releases["ReleaseValue"]
        options = self.new("CreateThreadingOptions")
        threads = allowed_cores()
        if threads is not None:
            self.call("SetGlobalIntraOpNumThreads", options, threads)
        self.environment = self.new("CreateEnvWithGlobalThreadPools", LOG_FATAL, b"gimlet", options)
        self.release("ReleaseThreadingOptions", options)
        self.allocator = self.new("GetAllocatorWithDefaultOptions")
        self.cpu_memory = self.new("CreateCpuMemoryInfo", 0, 0)

    def _function(self, name: str) -> Callable[..., int | None]:
        index, arguments = _FUNCTIONS[name]
        prototype = ctypes.CFUNCTYPE if name in _LONG else ctypes.PYFUNCTYPE
        return prototype(c_void_p, *arguments)(self._table[index] or 0)

    def check(self, status: int | None) -> None:
        """Raises what a status says. OrtError."""
        if status:
            message = (self._message(status) or b"").decode("utf-8", "replace")
            self._releases["ReleaseStatus"](status)
            raise OrtError(message)

    def names(self, session: int, count: str, get: str) -> list[str]:
        """The names of a session's inputs or outputs."""
        size = c_size_t()
        self.call(count, session, byref(size))
        found: list[str] = []
        for index in range(size.value):
            text = self.new(get, session, index, self.allocator)
            found.append(ctypes.string_at(text).decode())
            self.call("AllocatorFree", self.allocator, text)
        return found

    def providers(self) -> list[str]:
        """The execution providers that the library was built with."""
        texts, size = _TEXTS(), c_int()
        self.call("GetAvailableProviders", byref(texts), byref(size))
        return [(texts[index] or b"").decode() for index in range(size.value)]


def allowed_cores() -> int | None:
    """How many cores this process may use, where those are not all: the library's own pool has one thread each for all.

    More threads than cores wait for each other: a process bound to one of two cores ran networks up to twice as long.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:
        return None
    return allowed if allowed < (os.cpu_count() or 1) else None


@lru_cache(maxsize=1)
def ort_library() -> OrtLibrary:
    """The process's one library and environment. MissingError where onnxruntime is not installed or does not load."""
    path = library_path("onnxruntime", "capi", "libonnxruntime")
    if path is None:
        raise MissingError("onnxruntime is not installed", hint="pip install onnxruntime")
    try:
        return OrtLibrary(path)
    except (OSError, OrtError) as error:
        raise MissingError(f"{path} does not load: {error}", hint="pip install --force-reinstall onnxruntime") from None
