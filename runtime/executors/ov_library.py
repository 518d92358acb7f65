"""OpenVINO's C interface, called through ctypes: the shared library that the `openvino` wheel carries.

The package's own Python interface takes 0.2 s to import and tens of microseconds a call; here a launch is one call. The
functions are those of the headers in the wheel, `openvino/include/openvino/c/`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

from gimlet.runtime.errors import MissingError
from gimlet.runtime.executors.c_library import CLibrary, LibraryError, library_path

DEVICE = b"CPU"
_OUT = POINTER(c_void_p)


class Shape(ctypes.Structure):
    """`ov_shape_t`: the rank and the dimensions of a tensor."""

    _fields_ = (("rank", c_int64), ("dims", POINTER(c_int64)))


class _Property(ctypes.Structure):
    _fields_ = (("key", c_char_p), ("value", c_char_p))


# All of these return a status, 0 for success.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "ov_core_create": (_OUT,),
    "ov_core_read_model": (c_void_p, c_char_p, c_char_p, _OUT),
    "ov_core_compile_model_props": (c_void_p, c_void_p, c_char_p, c_size_t, POINTER(_Property), _OUT),
    "ov_compiled_model_create_infer_request": (c_void_p, _OUT),
    "ov_compiled_model_inputs_size": (c_void_p, POINTER(c_size_t)),
    "ov_compiled_model_outputs_size": (c_void_p, POINTER(c_size_t)),
    "ov_compiled_model_get_property": (c_void_p, c_char_p, POINTER(c_void_p)),
    "ov_infer_request_set_input_tensor_by_index": (c_void_p, c_size_t, c_void_p),
    "ov_infer_request_set_output_tensor_by_index": (c_void_p, c_size_t, c_void_p),
    "ov_infer_request_get_output_tensor_by_index": (c_void_p, c_size_t, _OUT),
    "ov_infer_request_infer": (c_void_p,),
    "ov_tensor_create": (c_int, Shape, _OUT),
    "ov_tensor_create_from_host_ptr": (c_int, Shape, c_void_p, _OUT),
    "ov_tensor_data": (c_void_p, _OUT),
    "ov_tensor_get_shape": (c_void_p, POINTER(Shape)),
    "ov_shape_free": (POINTER(Shape),),
}
_RELEASES = ("ov_model_free", "ov_compiled_model_free", "ov_infer_request_free", "ov_tensor_free", "ov_free")
# These take long enough for other Python threads to run meanwhile; the rest is shorter than handing over the lock.
_LONG = frozenset(
    {
        "ov_core_create",
        "ov_core_read_model",
        "ov_core_compile_model_props",
        "ov_compiled_model_create_infer_request",
        "ov_infer_request_infer",
    }
)


class OvError(LibraryError):
    """What OpenVINO said."""


class OvLibrary(CLibrary):
    """The loaded library and its one core. Get it from `ov_library`."""

    def __init__(self, path: Path) -> None:
        self._long, self._short = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
        self._message = self._short.ov_get_last_err_msg
        self._message.restype = c_void_p
        self._releases = {name: self._release_function(name) for name in _RELEASES}
        self._functions = {name: self._function(name) for name in _FUNCTIONS}
        self.infer = self._functions["ov_infer_request_infer"]
        self.set_input = self._functions["ov_infer_request_set_input_tensor_by_index"]
        self.set_output = self._functions["ov_infer_request_set_output_tensor_by_index"]
        self.make_tensor = self._functions["ov_tensor_create_from_host_ptr"]
        self.free_tensor = self._releases["ov_tensor_free"]
        # What it would print (a fallback for lack of huge pages, a slow kernel) has no place in a user's output.
        self._short.ov_util_set_log_callback(None)
        self.core = self.new("ov_core_create")

    def _function(self, name: str) -> Callable[..., int]:
        function = getattr(self._long if name in _LONG else self._short, name)
        function.argtypes = _FUNCTIONS[name]
        function.restype = c_int
        return function

    def _release_function(self, name: str) -> Callable[[int], None]:
        function = getattr(self._short, name)
        function.argtypes = (c_void_p,)
        function.restype = None
        return function

    def check(self, status: int | None) -> None:
        """Raises what a status says. OvError."""
        if not status:
            return
        text = self._message()
        message = ctypes.string_at(text).decode("utf-8", "replace") if text else ""
        if text:
            self._releases["ov_free"](text)
        raise OvError(_tidy(message) or f"status {status}")

    def compile(self, model: int, settings: Mapping[str, str]) -> int:
        """Compiles a model for the CPU with these properties. OvError."""
        properties = (_Property * len(settings))(*((k.encode(), v.encode()) for k, v in settings.items()))
        return self.new("ov_core_compile_model_props", self.core, model, DEVICE, len(settings), properties)

    def count(self, name: str, handle: int) -> int:
        """Calls a function that gives a number."""
        size = c_size_t()
        self.call(name, handle, byref(size))
        return size.value

    def setting(self, compiled: int, key: str) -> str:
        """A property of a compiled model, as OpenVINO took it."""
        text = self.new("ov_compiled_model_get_property", compiled, key.encode())
        value = ctypes.string_at(text).decode()
        self.release("ov_free", text)
        return value

    def shape_of(self, tensor: int) -> tuple[int, ...]:
        """The shape of a tensor."""
        shape = Shape()
        self.call("ov_tensor_get_shape", tensor, byref(shape))
        dims = tuple(shape.dims[: shape.rank])
        self.call("ov_shape_free", byref(shape))
        return dims


def _tidy(message: str) -> str:
    """The library's message without the places in its own sources."""
    lines = (line.strip() for line in message.splitlines())
    return " ".join(line for line in lines if line and not line.startswith(("Exception from src", "Check '")))[:400]


@lru_cache(maxsize=1)
def ov_library() -> OvLibrary:
    """The process's one library and core. MissingError where openvino is not installed or does not load."""
    path = library_path("openvino", "libs", "libopenvino_c")
    if path is None:
        raise MissingError("openvino is not installed", hint="pip install openvino")
    try:
        return OvLibrary(path)
    except (OSError, AttributeError, OvError) as error:
        raise MissingError(f"{path} does not load: {error}", hint="pip install --force-reinstall openvino") from None
