"""Weights that several sessions use: mapped from the bundle's file once, and packed for the processor once.

By default every session copies the weights of its matrix products into a layout of its own. Here a session is given
its external weights as tensors over the mapped file, and all sessions of a bundle put their packed copies into one
container, so a second segment over the same weights (decode beside prefill) adds next to nothing: 1,054 MB for two
sessions over 512 MB became 542 MB, measured. Without packing at all it would be slower by a quarter.

Only weights that all of their readers take as a matrix, a kernel or a table are given so. ONNX Runtime moves transposes
through sums and the like, and then transposes a constant that one reads, or gives it another shape, under its old name:
a tensor that is given by this name would be read as it was before.

Which weights a model has outside, and who reads them, is read from the ONNX file itself, of which only these few fields
matter; the rest is skipped. What looks unusual is left to ONNX Runtime, which then loads it in its own way and reports
errors better.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections.abc import Iterator
from ctypes import c_int64
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from gimlet.runtime.errors import InputError
from gimlet.runtime.executors.base import SegmentArtifact
from gimlet.runtime.executors.ort_library import OrtLibrary
from gimlet.runtime.tensors import type_of_onnx

Field = tuple[int, int | memoryview]

# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 4, 5
_ATTRIBUTE_GRAPH = 6
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL_DATA = 1, 2, 8, 13
_KEY, _VALUE = 1, 2

# What reads a weight in the form that it has, whatever becomes of the other inputs.
_READ_AS_IT_IS = frozenset(
    {
        *("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulNBits", "MatMulInteger", "QLinearMatMul", "QGemm"),
        *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MoE", "QMoE"),
        *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv"),
        *("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"),
        *("Gather", "GatherBlockQuantized"),
    }
)


@dataclass(frozen=True)
class ExternalTensor:
    """An initializer whose bytes are in another file: `length` bytes from `offset` of `location`."""

    name: str
    onnx_type: int
    dims: tuple[int, ...]
    location: str
    offset: int
    length: int


def external_tensors(model: bytes) -> list[ExternalTensor]:
    """The initializers of a model's main graph that are in other files; none for bytes that are no model."""
    try:
        return [
            tensor
            for graph in _messages(memoryview(model), _MODEL_GRAPH)
            for initializer in _messages(graph, _GRAPH_INITIALIZER)
            if (tensor := _external(initializer)) is not None
        ]
    except (ValueError, IndexError, KeyError):
        return []


def changeable_names(model: bytes) -> frozenset[str]:
    """What nodes of a model, also of branches and loops, read that may give it another form.

    Nothing for bytes that are no model.
    """
    try:
        graphs = _messages(memoryview(model), _MODEL_GRAPH)
        return frozenset(name for graph in graphs for node in _nodes(graph) for name in _changeable(node))
    except (ValueError, IndexError):
        return frozenset()


def _nodes(graph: memoryview) -> Iterator[memoryview]:
    for node in _messages(graph, _GRAPH_NODE):
        yield node
        for attribute in _messages(node, _NODE_ATTRIBUTE):
            for inner in _messages(attribute, _ATTRIBUTE_GRAPH):
                yield from _nodes(inner)


def _changeable(node: memoryview) -> list[str]:
    operator, names = "", list[str]()
    for number, value in _fields(node):
        if number == _NODE_INPUT and isinstance(value, memoryview):
            names.append(str(value, "utf-8"))
        elif number == _NODE_OPERATOR and isinstance(value, memoryview):
            operator = str(value, "utf-8")
    return [] if operator in _READ_AS_IT_IS else names


def _external(tensor: memoryview) -> ExternalTensor | None:
    dims: list[int] = []
    name, onnx_type = "", 0
    entries: dict[str, str] = {}
    for number, value in _fields(tensor):
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif number == _DATA_TYPE and isinstance(value, int):
            onnx_type = value
        elif number == _NAME and isinstance(value, memoryview):
            name = str(value, "utf-8")
        elif number == _EXTERNAL_DATA and isinstance(value, memoryview):
            pair = {key: str(text, "utf-8") for key, text in _fields(value) if isinstance(text, memoryview)}
            entries[pair[_KEY]] = pair.get(_VALUE, "")
    if not entries:
        return None
    return ExternalTensor(
        name, onnx_type, tuple(dims), entries["location"], int(entries.get("offset", 0)), int(entries["length"])
    )


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, value in _fields(data):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _fields(data: memoryview) -> Iterator[Field]:
    """The fields of a protobuf message: number, and an integer or the bytes. ValueError or IndexError if malformed."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, position = _varint(data, position)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position + size > len(data):
            raise ValueError("cut short")
        yield tag >> 3, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def _packed(data: memoryview) -> list[int]:
    values: list[int] = []
    position = 0
    while position < len(data):
        value, position = _varint(data, position)
        values.append(value)
    return values


class WeightPool:
    """The mapped weight files of one bundle, and the container of packed copies. Sessions keep it alive."""

    def __init__(self, library: OrtLibrary) -> None:
        self.library = library
        self.container = library.new("CreatePrepackedWeightsContainer")
        self._maps: dict[str, np.memmap] = {}
        self._values: dict[ExternalTensor, int] = {}
        weakref.finalize(self, _release, library, self.container, self._values).atexit = False

    def give(self, options: int, model: bytes, artifact: SegmentArtifact) -> None:
        """Gives a session's options the weights that its model has in files of the artifact. OrtError if refused."""
        tensors = external_tensors(model)
        changeable = changeable_names(model) if tensors else frozenset[str]()
        for tensor in tensors:
            value = None if tensor.name in changeable else self._value(tensor, artifact)
            if value is not None:
                self.library.call("AddInitializer", options, tensor.name.encode(), value)

    def _value(self, tensor: ExternalTensor, artifact: SegmentArtifact) -> int | None:
        if tensor in self._values:
            return self._values[tensor]
        if tensor.location not in artifact.files:
            return None
        try:
            dtype = type_of_onnx(tensor.onnx_type)
        except InputError:
            return None
        mapped = self._mapped(artifact.open_file(tensor.location), tensor.location)
        plain = not dtype.hasobject and prod(tensor.dims) * dtype.itemsize == tensor.length and tensor.length > 0
        if not plain or tensor.offset % dtype.itemsize or tensor.offset + tensor.length > mapped.size:
            return None
        value = self.library.new(
            "CreateTensorWithDataAsOrtValue",
            self.library.cpu_memory,
            mapped.ctypes.data + tensor.offset,
            tensor.length,
            (c_int64 * len(tensor.dims))(*tensor.dims),
            len(tensor.dims),
            tensor.onnx_type,
        )
        self._values[tensor] = value
        return value

    def _mapped(self, path: Path, location: str) -> np.memmap:
        if location not in self._maps:
            self._maps[location] = np.memmap(path, np.uint8, "r")
        return self._maps[location]

    def give_back(self) -> None:
        """Gives memory back that only packing took: pages of the files, and what the C library keeps for later.

        Pages that are still used are mapped in again when they are read.
        """
        for mapped in self._maps.values():
            base = mapped.base
            if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                base.madvise(mmap.MADV_DONTNEED)
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if self._maps and trim is not None:
            trim(0)


def _release(library: OrtLibrary, container: int, values: dict[ExternalTensor, int]) -> None:
    for value in values.values():
        library.release_value(value)
    library.release("ReleasePrepackedWeightsContainer", container)
