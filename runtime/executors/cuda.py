"""The part of CUDA that running an engine takes, through the driver's own library.

`libcuda` comes with every NVIDIA driver, so nothing else has to be installed: no CUDA toolkit, no Python package. Its
streams and device pointers are those of the CUDA runtime API too, which is what TensorRT speaks.

Written against the CUDA driver API's documentation (12 and 13); never run by this project on a GPU. A recording
stand-in checks the order of calls.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from functools import cache
from typing import Any

import numpy as np

from gimlet.runtime.errors import InputError, MissingError
from gimlet.runtime.executors.base import DeviceBuffer, Event, wait_all

_LIBRARY = "libcuda.so.1"
_NON_BLOCKING_STREAM = 1
_EVENT_WITHOUT_TIMING = 2
_NOT_READY = 600
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


class Driver:
    """The driver's functions, checked: a call that fails raises InputError with CUDA's own words."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function of the driver. InputError where it does not return success."""
        code = getattr(self._library, name)(*arguments)
        if code:
            raise InputError(f"{name}: {self._message(code)}", where="CUDA driver")

    def query(self, name: str, *arguments: Any) -> bool:
        """Calls a function that may say "not ready yet": False then, True where it is done."""
        code = getattr(self._library, name)(*arguments)
        if code not in (0, _NOT_READY):
            raise InputError(f"{name}: {self._message(code)}", where="CUDA driver")
        return code == 0

    def _message(self, code: int) -> str:
        text = c_char_p()
        self._library.cuGetErrorString(code, byref(text))
        return f"error {code}" if text.value is None else f"{text.value.decode()} ({code})"

    def capabilities(self) -> list[str]:
        """The compute capability of every GPU of the machine, in CUDA's order."""
        count = c_int()
        self.call("cuDeviceGetCount", byref(count))
        return [
            f"{self._attribute(_CAPABILITY_MAJOR, i)}.{self._attribute(_CAPABILITY_MINOR, i)}"
            for i in range(count.value)
        ]

    def _attribute(self, attribute: int, index: int) -> int:
        value = c_int()
        self.call("cuDeviceGetAttribute", byref(value), attribute, index)
        return value.value


@cache
def driver() -> Driver:
    """The driver. MissingError where the machine has none, or no GPU that it can talk to."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        return Driver(library)
    except OSError as error:
        raise MissingError(f"there is no NVIDIA driver here ({error})", hint="run on a machine with the GPU") from None
    except InputError as error:
        raise MissingError(
            f"the NVIDIA driver does not start: {error.message}", hint="nvidia-smi on this machine says more"
        ) from None


def compute_capabilities() -> list[str]:
    """The compute capability of every GPU here; empty where there is none. Never raises."""
    try:
        return driver().capabilities()
    except (MissingError, InputError):
        return []


def compute_capability() -> str | None:
    """The compute capability of the first GPU here, or None."""
    return next(iter(compute_capabilities()), None)


class Gpu:
    """One GPU's primary context, which all executors of the process share."""

    def __init__(self, index: int, cuda: Driver) -> None:
        self.index = index
        self.cuda = cuda
        self.memory = f"cuda:{index}"
        self._context = c_void_p()
        cuda.call("cuDevicePrimaryCtxRetain", byref(self._context), index)

    def enter(self) -> None:
        """Makes this GPU the current one of the calling thread, as every other call on it needs."""
        self.cuda.call("cuCtxSetCurrent", self._context)


@cache
def gpu(index: int) -> Gpu:
    """The GPU at `index`. MissingError where there is none."""
    return Gpu(index, driver())


class Stream:
    """A queue of work on a GPU: what is put into it runs in order."""

    def __init__(self, device: Gpu) -> None:
        self.gpu = device
        self._handle = c_void_p()
        device.enter()
        device.cuda.call("cuStreamCreate", byref(self._handle), c_uint(_NON_BLOCKING_STREAM))

    @property
    def handle(self) -> int:
        """The stream as TensorRT takes it."""
        return self._handle.value or 0

    def wait_for(self, events: Sequence[Event]) -> None:
        """What is put into the stream from now on waits for `events`: on the GPU for its own, here for all others."""
        for event in events:
            if isinstance(event, CudaEvent) and event.gpu is self.gpu:
                self.gpu.cuda.call("cuStreamWaitEvent", self._handle, event.handle, c_uint(0))
            else:
                event.wait()

    def record(self) -> CudaEvent:
        """The event of everything that is in the stream now."""
        event = CudaEvent(self.gpu)
        self.gpu.cuda.call("cuEventRecord", event.handle, self._handle)
        return event

    def synchronize(self) -> None:
        """Returns when the stream is empty."""
        self.gpu.enter()
        self.gpu.cuda.call("cuStreamSynchronize", self._handle)

    def close(self) -> None:
        """Destroys the stream once it is empty. A second call does nothing."""
        if self._handle.value:
            self.gpu.enter()
            self.gpu.cuda.call("cuStreamDestroy_v2", self._handle)
            self._handle = c_void_p()


class CudaEvent(Event):
    """The completion of what was in a stream when it was recorded."""

    def __init__(self, device: Gpu) -> None:
        self.gpu = device
        self.handle = c_void_p()
        device.cuda.call("cuEventCreate", byref(self.handle), c_uint(_EVENT_WITHOUT_TIMING))

    @property
    def done(self) -> bool:
        self.gpu.enter()
        return self.gpu.cuda.query("cuEventQuery", self.handle)

    def wait(self) -> None:
        self.gpu.enter()
        self.gpu.cuda.call("cuEventSynchronize", self.handle)

    def __del__(self) -> None:
        if self.handle.value:
            self.gpu.enter()
            self.gpu.cuda.call("cuEventDestroy_v2", self.handle)


class DownloadEvent(Event):
    """A copy from the GPU that goes through pinned memory: waiting for it puts the values where they belong."""

    def __init__(self, pool: PinnedPool, arrived: CudaEvent, pinned: PinnedMemory, target: np.ndarray) -> None:
        self._pool = pool
        self._arrived = arrived
        self._pinned: PinnedMemory | None = pinned
        self._target = target
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        if self._pinned is not None and self._arrived.done:
            self.wait()
        return self._pinned is None

    def wait(self) -> None:
        with self._lock:
            if self._pinned is None:
                return
            self._arrived.wait()
            target = self._target
            target.reshape(-1).view(np.uint8)[:] = self._pinned.array[: target.nbytes]
            self._pool.give_back(self._pinned)
            self._pinned = None


class PinnedMemory:
    """Page-locked host memory, which the GPU copies from and to while the processor does something else."""

    def __init__(self, device: Gpu, size: int) -> None:
        self.size = size
        self.pointer = c_void_p()
        device.enter()
        device.cuda.call("cuMemHostAlloc", byref(self.pointer), c_size_t(size), c_uint(0))
        self.array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.pointer.value or 0))


class PinnedPool:
    """Pinned memory of one GPU, kept by size: allocating it takes longer than most copies."""

    def __init__(self, device: Gpu) -> None:
        self.gpu = device
        self._lock = threading.Lock()
        self._free: dict[int, list[PinnedMemory]] = {}
        self._lent: list[tuple[CudaEvent, PinnedMemory]] = []

    def take(self, nbytes: int) -> PinnedMemory:
        """At least `nbytes` of pinned memory."""
        size = max(4096, 1 << max(0, nbytes - 1).bit_length())
        with self._lock:
            self._reclaim()
            kept = self._free.get(size)
            if kept:
                return kept.pop()
        return PinnedMemory(self.gpu, size)

    def give_back(self, memory: PinnedMemory, after: CudaEvent | None = None) -> None:
        """Keeps memory for another copy, once `after` is done."""
        with self._lock:
            if after is None:
                self._free.setdefault(memory.size, []).append(memory)
            else:
                self._lent.append((after, memory))

    def _reclaim(self) -> None:
        lent, self._lent = self._lent, []
        for event, memory in lent:
            if event.done:
                self._free.setdefault(memory.size, []).append(memory)
            else:
                self._lent.append((event, memory))


@cache
def pinned_pool(device: Gpu) -> PinnedPool:
    """The pinned memory of a GPU."""
    return PinnedPool(device)


@cache
def upload_stream(device: Gpu) -> Stream:
    """The stream that copies to a GPU go through, beside those that compute.

    Not that of downloads: an upload would wait behind an output that leaves only when its segment has ended.
    """
    return Stream(device)


@cache
def download_stream(device: Gpu) -> Stream:
    """The stream that copies from a GPU go through."""
    return Stream(device)


class CudaBuffer(DeviceBuffer):
    """A dense tensor in a GPU's memory."""

    def __init__(self, device: Gpu, dtype: np.dtype, shape: tuple[int, ...], within: CudaBuffer | None = None) -> None:
        self._gpu = device
        self._within = within
        self.memory = device.memory
        self.dtype = dtype
        self.shape = shape
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._handle = c_void_p() if within is None else c_void_p(within.pointer)
        if within is not None:
            self.pointer = within.pointer
            return
        device.enter()
        device.cuda.call("cuMemAlloc_v2", byref(self._handle), c_size_t(max(1, self.nbytes)))
        self.pointer = self._handle.value or 0

    def upload(self, source: np.ndarray, wait: Sequence[Event]) -> Event:
        stream, pool = upload_stream(self._gpu), pinned_pool(self._gpu)
        pinned = pool.take(self.nbytes)
        wait_all([event for event in wait if not isinstance(event, CudaEvent)])
        pinned.array[: self.nbytes] = source.reshape(-1).view(np.uint8)
        self._gpu.enter()
        stream.wait_for([event for event in wait if isinstance(event, CudaEvent)])
        size = c_size_t(self.nbytes)
        self._gpu.cuda.call("cuMemcpyHtoDAsync_v2", self._handle, pinned.pointer, size, c_void_p(stream.handle))
        arrived = stream.record()
        pool.give_back(pinned, after=arrived)
        return arrived

    def download(self, target: np.ndarray, wait: Sequence[Event]) -> Event:
        stream, pool = download_stream(self._gpu), pinned_pool(self._gpu)
        pinned = pool.take(self.nbytes)
        self._gpu.enter()
        stream.wait_for(wait)
        size = c_size_t(self.nbytes)
        self._gpu.cuda.call("cuMemcpyDtoHAsync_v2", pinned.pointer, self._handle, size, c_void_p(stream.handle))
        return DownloadEvent(pool, stream.record(), pinned, target)

    def view(self, shape: tuple[int, ...]) -> CudaBuffer:
        return CudaBuffer(self._gpu, self.dtype, shape, within=self)

    def free(self) -> None:
        if self._handle.value and self._within is None:
            self._gpu.enter()
            self._gpu.cuda.call("cuMemFree_v2", self._handle)
            self._handle = c_void_p()
            self.pointer = 0
