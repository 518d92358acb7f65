"""Executors that compute nothing much and record everything, for tests of the scheduler."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gimlet.runtime.bundle import open_bundle
from gimlet.runtime.executors.base import (
    DONE,
    HOST_MEMORY,
    Bindings,
    Buffer,
    DeviceBuffer,
    DeviceSpec,
    Event,
    Executor,
    SegmentArtifact,
    wait_all,
)
from gimlet.runtime.frame import LoadedVariant
from gimlet.runtime.loader import LoadedSegment
from gimlet.runtime.program import Program
from gimlet.runtime.tensors import TensorSpec


class ChipBuffer(DeviceBuffer):
    """Memory of a device that does not exist; it counts what is copied to and from it."""

    def __init__(self, chip: "Chip", dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self.chip = chip
        self.memory = "chip"
        self.dtype = dtype
        self.shape = shape
        self.data = np.zeros(shape, dtype)
        self.is_view = False
        self.pointer = id(self)

    def upload(self, source: np.ndarray, wait: Sequence[Event]) -> Event:
        wait_all(wait)
        self.chip.copies.append("upload")
        self.data[...] = source
        return DONE

    def download(self, target: np.ndarray, wait: Sequence[Event]) -> Event:
        wait_all(wait)
        self.chip.copies.append("download")
        target[...] = self.data
        return DONE

    def view(self, shape: tuple[int, ...]) -> "ChipBuffer":
        found = ChipBuffer(self.chip, self.dtype, shape)
        found.data = self.data.reshape(-1)[: prod(shape)].reshape(shape)
        found.is_view = True
        return found

    def free(self) -> None:
        if not self.is_view:
            self.chip.copies.append("free")


@dataclass
class Chip:
    """What all executors of one test record: launches as (segment, thread, events waited for), and copies."""

    launches: list[tuple[str, int, int]] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    during: Callable[[str], None] = lambda segment: None


class RecordedEvent(Event):
    """An event that is done once it was waited for."""

    def __init__(self) -> None:
        self.waited = False

    @property
    def done(self) -> bool:
        return self.waited

    def wait(self) -> None:
        self.waited = True


class NegBindings(Bindings):
    def __init__(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer | None]) -> None:
        self.inputs = dict(inputs)
        self.outputs = dict(outputs)

    def set_input(self, name: str, buffer: Buffer) -> None:
        self.inputs[name] = buffer

    def set_output(self, name: str, buffer: Buffer | None) -> None:
        self.outputs[name] = buffer

    def output(self, name: str) -> Buffer:
        buffer = self.outputs[name]
        assert buffer is not None
        return buffer


class NegExecutor(Executor):
    """Adds up its inputs and changes the sign, in host memory or on the chip, at once or behind an event."""

    name = "neg"

    def __init__(self, chip: Chip, segment: str, outputs: Sequence[TensorSpec], memory: str, is_async: bool) -> None:
        self.chip = chip
        self.segment = segment
        self.specs = outputs
        self.memory = memory
        self.asynchronous = is_async
        self.closed = False

    @classmethod
    def load(cls, artifact: SegmentArtifact, device: DeviceSpec) -> "NegExecutor":
        raise AssertionError("made by the test")

    def alloc(self, dtype: np.dtype, shape: tuple[int, ...]) -> Buffer:
        return super().alloc(dtype, shape) if self.memory == HOST_MEMORY else ChipBuffer(self.chip, dtype, shape)

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer | None]) -> NegBindings:
        return NegBindings(inputs, outputs)

    def submit(self, bindings: Bindings, wait: Sequence[Event] = ()) -> Event:
        assert isinstance(bindings, NegBindings)
        self.chip.launches.append((self.segment, threading.get_ident(), len(wait)))
        wait_all(wait)
        self.chip.during(self.segment)
        total = -sum(data_of(buffer) for buffer in bindings.inputs.values())
        for name, buffer in bindings.outputs.items():
            if buffer is None:
                buffer = bindings.outputs[name] = self.alloc(total.dtype, total.shape)
            data_of(buffer)[...] = total
        return RecordedEvent() if self.asynchronous else DONE

    def close(self) -> None:
        self.closed = True


def data_of(buffer: Any) -> np.ndarray:
    return buffer.data if isinstance(buffer, ChipBuffer) else buffer


@pytest.fixture
def chip() -> Chip:
    """The record of `neg_program`."""
    return Chip()


@pytest.fixture
def neg_program(chip: Chip) -> Callable[..., Program]:
    """Loads a bundle with every segment run by a `NegExecutor`; `on_chip` are the devices with their own memory."""

    def load(path: Path, *, on_chip: Sequence[str] = (), asynchronous: bool = False, inflight: int = 2) -> Program:
        bundle = open_bundle(path)
        segments: dict[str, LoadedSegment] = {}
        for segment in bundle.manifest.segments:
            memory = "chip" if segment.device in on_chip else HOST_MEMORY
            executor = NegExecutor(chip, segment.id, segment.outputs, memory, asynchronous)
            segments[segment.id] = LoadedSegment(segment.device, "fp32", (LoadedVariant(executor, {}),), False)
        return Program(bundle, segments, inflight)

    return load


@pytest.fixture
def neg_executor(chip: Chip) -> NegExecutor:
    """An executor with the chip's memory."""
    return NegExecutor(chip, "s0", (), "chip", False)
