"""What an executor is: the run side of one vendor's framework.

An `Executor` is one segment loaded on one device. The scheduler goes through five calls:

    executor = ExecutorClass.load(artifact, device)      # once; files are verified as they are first opened
    buffer = executor.alloc(dtype, shape)                # in the memory that the executor computes in
    bindings = executor.bind({"x": a}, {"y": buffer})    # names to buffers, kept between runs
    event = executor.submit(bindings, wait=[...])        # starts when every event of `wait` is done
    executor.synchronize(); executor.close()

A buffer in host memory is a C-contiguous numpy array, or the `Structure` of a sequence, an optional or a map, which
only executors get whose segments have such ports. One in a device's memory is a `DeviceBuffer`.
Executors whose `memory` is the same exchange buffers as they are; a transport copies between different memories.

Threads: `submit` of one `Bindings` is never called while an earlier submit of it runs. Different bindings of one
executor may be submitted from different threads at the same time, so whatever a run changes belongs to its bindings.

Errors: `load` raises `MissingError` (device or package absent), `InputError` (the artifact cannot be loaded) or
`CheckError` (a file's hash); `submit`, or the `wait` of its event, raises `InputError` with the segment in `where`
when the framework refuses the values it was given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gimlet.runtime.errors import InputError
from gimlet.runtime.structures import Structure
from gimlet.runtime.tensors import TensorSpec

HOST_MEMORY = "host"


class Event:
    """The completion of something that was submitted."""

    @property
    def done(self) -> bool:
        """Whether it has completed, without waiting."""
        return True

    def wait(self) -> None:
        """Returns when it has completed. Raises what the work raised."""


DONE = Event()
"""The event of work that was complete when `submit` returned."""


class DeviceBuffer(ABC):
    """A dense tensor in a device's memory."""

    memory: str
    dtype: np.dtype
    shape: tuple[int, ...]
    pointer: int

    @abstractmethod
    def upload(self, source: np.ndarray, wait: Sequence[Event]) -> Event:
        """Copies a C-contiguous host array of the same type and shape into this buffer."""

    @abstractmethod
    def download(self, target: np.ndarray, wait: Sequence[Event]) -> Event:
        """Copies this buffer into a C-contiguous host array of the same type and shape."""

    @abstractmethod
    def view(self, shape: tuple[int, ...]) -> DeviceBuffer:
        """A tensor of another shape, and no more bytes, at the beginning of this memory, which stays this buffer's."""

    @abstractmethod
    def free(self) -> None:
        """Gives the memory back. A second call does nothing, and nor does that of a view."""


Buffer = np.ndarray | DeviceBuffer | Structure


@dataclass(frozen=True)
class DeviceSpec:
    """A device as the bundle's manifest describes it.

    `name` is its name in the topology ("gpu0"), `kind` the hardware kind it was compiled for, `requires` what the
    artifacts need of the real one, for example `{"compute_capability": "12.0"}`. `settings` is what the caller of
    `load` said about it, for example `{"index": 1}`.
    """

    name: str
    kind: str
    requires: Mapping[str, Any] = field(default_factory=dict[str, Any])
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class SegmentArtifact:
    """One variant of one segment, as an executor loads it.

    `inputs` and `outputs` carry the names that bindings use, in the segment's order. `files` are the variant's own
    files, relative to the bundle; `open_file(path)` checks the file's size and hash on first use and returns where it
    lies (InputError if it is missing, CheckError if it was changed). `root` is the bundle's folder: external data of
    an ONNX model is named relative to it. `options` is what the target put into its artifact. `content` is the bundle's
    id: another bundle in the same folder has another one, and what is loaded of the one serves nothing of the other.
    """

    segment: str
    format: str
    root: Path
    files: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    open_file: Callable[[str], Path]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    content: str = ""

    @property
    def origin(self) -> tuple[str, str]:
        """What segments whose files may be shared have in common: the bundle's folder and what it held when opened."""
        return str(self.root), self.content

    def file_ending(self, suffix: str) -> Path:
        """Opens the variant's only file whose name ends in `suffix`. InputError where there is none, or several."""
        found = [name for name in self.files if name.endswith(suffix)]
        if len(found) != 1:
            raise InputError(f"expected one *{suffix} file, the manifest lists {len(found)}", where=self.segment)
        return self.open_file(found[0])


@dataclass(frozen=True)
class Availability:
    """Whether a device is here; if not, why, and what would provide it. True in a boolean context if it is here."""

    reason: str = ""
    hint: str = ""

    def __bool__(self) -> bool:
        return not self.reason


AVAILABLE = Availability()


class Bindings(ABC):
    """The buffers that one run of a segment reads and writes.

    Buffers have concrete shapes. They may be exchanged between runs one by one; those that are not exchanged stay
    bound, which is what makes a repeated run cheap. An output may be bound to None: the executor then allocates it
    when the run knows its shape, and `output` returns it after the run.
    """

    @abstractmethod
    def set_input(self, name: str, buffer: Buffer) -> None:
        """Binds another buffer, of the same type and any shape that the segment allows, to an input."""

    @abstractmethod
    def set_output(self, name: str, buffer: Buffer | None) -> None:
        """Binds another buffer to an output; None lets the executor allocate."""

    @abstractmethod
    def output(self, name: str) -> Buffer:
        """The buffer that holds an output, after the event of the run is done."""

    def set_sizes(self, sizes: Mapping[str, int]) -> None:
        """Says the sizes of the model's dimensions, for executors that need more than the segment's inputs tell."""
        del sizes

    def close(self) -> None:
        """Frees what these bindings hold in the framework (an execution context). Buffers are not freed."""
        return


class Executor(ABC):
    """One segment loaded on one device."""

    name: ClassVar[str]
    memory: ClassVar[str] = HOST_MEMORY
    """The memory that buffers live in: executors with the same one share buffers without a copy."""

    asynchronous: ClassVar[bool] = False
    """Whether `submit` returns before the work is done. Where not, the scheduler gives it a thread when it pays."""

    emulation: ClassVar[bool] = False
    """Whether this computes what a device would, on the host. Said wherever results are shown."""

    @classmethod
    def available(cls, device: DeviceSpec) -> Availability:
        """Whether this machine has what running on `device` takes. Cheap, loads no segment and never raises."""
        del device
        return AVAILABLE

    @classmethod
    @abstractmethod
    def load(cls, artifact: SegmentArtifact, device: DeviceSpec) -> Executor:
        """Loads a segment. Errors as in the module's docstring."""

    def alloc(self, dtype: np.dtype, shape: tuple[int, ...]) -> Buffer:
        """An uninitialised buffer in the executor's memory. Host memory, aligned to 64 bytes, by default."""
        return alloc_host(dtype, shape)

    @abstractmethod
    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer | None]) -> Bindings:
        """Bindings of every input and output of the segment."""

    @abstractmethod
    def submit(self, bindings: Bindings, wait: Sequence[Event] = ()) -> Event:
        """Runs the segment once after every event of `wait`; the event says when its outputs are there."""

    def launcher(self, bindings: Bindings) -> Callable[[Sequence[Event]], Event]:
        """What the scheduler calls in every run instead of `submit(bindings, wait)`, looked up once.

        An executor overrides it where a shorter way is worth it; buffers of `bindings` may still be exchanged.
        """
        return partial(self.submit, bindings)

    def synchronize(self) -> None:
        """Returns when everything submitted is done. Nothing to do for a synchronous executor."""
        return

    def close(self) -> None:
        """Frees the segment. A second call does nothing."""
        return


def alloc_host(dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """An uninitialised C-contiguous host array whose data begins at a multiple of 64 bytes."""
    if dtype.hasobject:
        return np.empty(shape, dtype)
    size = dtype.itemsize
    for dim in shape:
        size *= dim
    raw = np.empty(size + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + size].view(dtype).reshape(shape)


def wait_all(events: Sequence[Event]) -> None:
    """Waits for every event in turn on the caller's thread."""
    for event in events:
        event.wait()
