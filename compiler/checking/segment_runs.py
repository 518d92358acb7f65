"""Runs the segments of a bundle one by one on host arrays, keeping every value that crosses between them."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gimlet.runtime.bundle import Bundle
from gimlet.runtime.defaults import read_defaults
from gimlet.runtime.executors.base import Buffer, DeviceBuffer, Executor, alloc_host
from gimlet.runtime.inputs import InputChecker
from gimlet.runtime.loader import LoadedSegment, load_segments
from gimlet.runtime.manifest import Launch, Manifest, Segment
from gimlet.runtime.structures import Structure, copied

Array = NDArray[Any]
Arrays = Mapping[str, Any]
"""Host arrays by name; a sequence, an optional or a map is a list, its value or None, or a dict."""


@dataclass
class SegmentRunner:
    """The loaded segments of a bundle. Values are named by their ONNX names, whichever device they are on."""

    manifest: Manifest
    segments: Mapping[str, LoadedSegment]
    defaults: Arrays

    def launches(self) -> Iterator[Segment]:
        """The segments in the order of their launches."""
        for step in self.manifest.steps:
            if isinstance(step, Launch):
                yield self.manifest.segment(step.segment)

    def run(self, segment: Segment, inputs: Arrays) -> dict[str, Any]:
        """The outputs of one segment on host arrays, by name."""
        sizes = sizes_of(segment, inputs)
        variants = self.segments[segment.id].variants
        variant = next((variant for variant in variants if variant.serves(sizes)), variants[0])
        return run_once(variant.executor, segment, {spec.name: inputs[spec.name] for spec in segment.inputs})

    def run_all(self, inputs: Arrays, states: Arrays | None = None) -> dict[str, Any]:
        """Every value of the program, by ONNX name, from the program's inputs by port name, and `states` by theirs."""
        names = {value.id: value.name for value in self.manifest.values}
        specs = [self.manifest.spec(port) for port in self.manifest.inputs]
        checker = InputChecker(specs, self.manifest.dims, self.defaults)
        arrays, signature = checker.arrays(inputs)
        checker.sizes(signature)
        values = {names[port.value]: _plain(array) for port, array in zip(self.manifest.inputs, arrays, strict=True)}
        values |= {names[state.read]: (states or {})[state.name] for state in self.manifest.states}
        for segment in self.launches():
            values.update(self.run(segment, values))
        return values


@contextmanager
def segment_runner(bundle: Bundle) -> Generator[SegmentRunner]:
    """The bundle's segments, loaded; those of an absent device in their portable form."""
    segments = load_segments(bundle, emulate_missing=True, devices={})
    try:
        yield SegmentRunner(bundle.manifest, segments, read_defaults(bundle))
    finally:
        for loaded in segments.values():
            for variant in loaded.variants:
                variant.executor.close()


def sizes_of(segment: Segment, inputs: Arrays) -> dict[str, int]:
    """The size of each dimension that is by itself a dimension of an input."""
    sizes: dict[str, int] = {}
    for spec in segment.inputs:
        if not spec.is_tensor:
            continue
        for dim, size in zip(spec.shape or (), inputs[spec.name].shape, strict=False):
            if dim is not None and len(dim.symbols) == 1 and str(dim) in dim.symbols:
                sizes[str(dim)] = size
    return sizes


def run_once(executor: Executor, segment: Segment, inputs: Arrays) -> dict[str, Any]:
    """Runs a segment's executor on host arrays and returns host arrays, whatever memory it computes in."""
    structured = {spec.name for spec in segment.inputs if not spec.is_tensor}
    buffers = {
        name: Structure(value) if name in structured else _to_device(executor, value) for name, value in inputs.items()
    }
    bindings = executor.bind(buffers, {spec.name: None for spec in segment.outputs})
    try:
        executor.submit(bindings).wait()
        return {spec.name: _to_host(bindings.output(spec.name)) for spec in segment.outputs}
    finally:
        bindings.close()


def _to_device(executor: Executor, array: Array) -> Buffer:
    host = np.ascontiguousarray(array).reshape(array.shape)
    buffer = executor.alloc(host.dtype, host.shape)
    if not isinstance(buffer, DeviceBuffer):
        return host
    buffer.upload(host, ()).wait()
    return buffer


def _plain(value: Array | Structure) -> Any:
    return value.value if isinstance(value, Structure) else value


def _to_host(buffer: Buffer) -> Any:
    if isinstance(buffer, Structure):
        return copied(buffer.value)
    if isinstance(buffer, np.ndarray):
        return buffer.copy()
    host = alloc_host(buffer.dtype, buffer.shape)
    buffer.download(host, ()).wait()
    return host
