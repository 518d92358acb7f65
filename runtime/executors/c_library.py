"""What executors share that call a vendor's C library on arrays of this process, through ctypes.

A library has functions that return a status, and handles that are released by functions of their own. A segment on one
is synchronous: the caller's thread takes part in the computation.
"""

from __future__ import annotations

import ctypes
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from ctypes import byref, c_void_p
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gimlet.runtime.errors import InputError
from gimlet.runtime.executors.base import DONE, Bindings, Buffer, Event, Executor, wait_all
from gimlet.runtime.tensors import TensorSpec


class LibraryError(Exception):
    """What a library said. Executors translate it into an error that names the segment."""


class CLibrary(ABC):
    """A library's functions by name: those in `_functions` return a status, those in `_releases` nothing."""

    _functions: Mapping[str, Callable[..., int | None]]
    _releases: Mapping[str, Callable[[int], None]]

    @abstractmethod
    def check(self, status: int | None) -> None:
        """Raises what a status says. LibraryError."""

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function. LibraryError with the library's message where it fails."""
        self.check(self._functions[name](*arguments))

    def function(self, name: str) -> Callable[..., int | None]:
        """A function that is called often. `check` says what its status means."""
        return self._functions[name]

    def new(self, name: str, *arguments: Any) -> int:
        """Calls a function whose last argument is the handle that it makes, and returns that."""
        handle = c_void_p()
        self.call(name, *arguments, byref(handle))
        return handle.value or 0

    def release(self, name: str, handle: int) -> None:
        """Releases a handle by the function `name`."""
        self._releases[name](handle)

    def release_with(self, owner: object, release: str, handle: int) -> None:
        """Releases a handle when `owner` is collected; what is alive at exit goes with the process."""
        weakref.finalize(owner, self.release, release, handle).atexit = False


def library_path(package: str, folder: str, stem: str) -> Path | None:
    """Where a package's shared library lies, without importing the package; None if it is not installed."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    for place in (spec.submodule_search_locations or []) if spec else []:
        libraries = Path(place) / folder
        found = sorted([*libraries.glob(f"{stem}.so*"), *libraries.glob(f"{stem}.*dylib")])
        if found:
            return found[0]
    return None


def address_of(array: np.ndarray) -> int:
    """Where an array's data begins. The short way is for writable arrays of numpy's own types that are not empty."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
    except (TypeError, ValueError, BufferError):
        return array.ctypes.data


class CBindings(Bindings):
    """Bindings that a library runs with `run`, which returns a status."""

    run: Callable[[], int | None]

    @property
    @abstractmethod
    def is_plain(self) -> bool:
        """Whether `run` alone is a launch: nothing is to do before and after it."""

    @abstractmethod
    def before(self) -> None:
        """What has to be done before a run. InputError for values that the library would compute wrongly."""

    @abstractmethod
    def after(self) -> None:
        """Takes over the outputs that a run allocated."""


class CExecutor(Executor):
    """A segment that a C library computes. `title` is the library's name for people."""

    title: ClassVar[str]
    segment: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    @abstractmethod
    def library(self) -> CLibrary:
        """The library that the segment is loaded in."""

    @abstractmethod
    def new_bindings(self) -> CBindings:
        """Bindings without buffers. LibraryError."""

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer | None]) -> CBindings:
        try:
            bindings = self.new_bindings()
            for name, buffer in inputs.items():
                bindings.set_input(name, buffer)
            for spec in self.outputs:
                bindings.set_output(spec.name, outputs[spec.name])
        except LibraryError as error:
            raise InputError(f"{self.title} refused a buffer: {error}", where=self.segment) from None
        return bindings

    def submit(self, bindings: Bindings, wait: Sequence[Event] = ()) -> Event:
        own = _own(bindings)
        if wait:
            wait_all(wait)
        try:
            own.before()
            self.library.check(own.run())
            own.after()
        except LibraryError as error:
            raise self._refusal(error) from None
        return DONE

    def launcher(self, bindings: Bindings) -> Callable[[Sequence[Event]], Event]:
        own = _own(bindings)
        if not own.is_plain:
            return super().launcher(bindings)
        run, check = own.run, self.library.check

        def launch(wait: Sequence[Event]) -> Event:
            if wait:
                wait_all(wait)
            status = run()
            if status:
                try:
                    check(status)
                except LibraryError as error:
                    raise self._refusal(error) from None
            return DONE

        return launch

    def _refusal(self, error: LibraryError) -> InputError:
        return InputError(f"{self.title} refused the values: {error}", where=self.segment)


def _own(bindings: Bindings) -> CBindings:
    if not isinstance(bindings, CBindings):
        raise TypeError(f"bindings of another executor: {type(bindings).__name__}")
    return bindings
