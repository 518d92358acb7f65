"""Segments with sequences, optionals or maps among their inputs or outputs, in ONNX Runtime.

An IoBinding takes no optional without a value, so these run by names and values. An input without a value is not
given at all, which is how ONNX Runtime spells that. Its C interface makes no empty sequence: a model of one
SequenceEmpty does.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from functools import lru_cache
from typing import Any, cast

import numpy as np

from gimlet.runtime.errors import InputError
from gimlet.runtime.executors.base import Buffer, DeviceBuffer
from gimlet.runtime.executors.c_library import CBindings
from gimlet.runtime.executors.ort_library import OrtError, OrtLibrary, ort_library
from gimlet.runtime.executors.ort_values import TensorReader, element_number, make_tensor
from gimlet.runtime.structures import Map, Optional, Structure, Tensor, ValueType, parse_type
from gimlet.runtime.structures import Sequence as SequenceType
from gimlet.runtime.tensors import TensorSpec, numpy_type

_TENSOR, _SEQUENCE, _MAP = 1, 2, 3


class StructuredBindings(CBindings):
    """The values of one run, by name. Every output is allocated by ONNX Runtime and copied to where it is wanted."""

    def __init__(
        self,
        library: OrtLibrary,
        handle: int,
        session: object,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        segment: str,
    ) -> None:
        self._library = library
        self._handle = handle
        self._session = session
        self._segment = segment
        self._types = {spec.name: parse_type(spec.dtype) for spec in (*inputs, *outputs)}
        self._given: dict[str, Any] = {}
        self._wanted: dict[str, np.ndarray | None] = {spec.name: None for spec in outputs}
        self._found: dict[str, Buffer] = {}
        self._results = (c_void_p * len(outputs))()
        names = [spec.name.encode() for spec in outputs]
        self._names = (c_char_p * len(names))(*names)
        self._reader = TensorReader(library)

    @property
    def is_plain(self) -> bool:
        return False

    def set_input(self, name: str, buffer: Buffer) -> None:
        if isinstance(buffer, DeviceBuffer):
            raise InputError(f"{name}: expected a value in host memory", where=self._segment)
        self._given[name] = buffer.value if isinstance(buffer, Structure) else buffer

    def set_output(self, name: str, buffer: Buffer | None) -> None:
        self._wanted[name] = buffer if isinstance(buffer, np.ndarray) else None

    def before(self) -> None:
        self._results = (c_void_p * len(self._wanted))()

    def run(self) -> int | None:
        library = self._library
        kept: list[np.ndarray] = []
        values: dict[bytes, int] = {}
        try:
            for name, given in self._given.items():
                if given is not None:
                    values[name.encode()] = _make(library, given, self._types[name], kept)
            return library.run(
                self._handle,
                None,
                (c_char_p * len(values))(*values),
                (c_void_p * len(values))(*values.values()),
                len(values),
                self._names,
                len(self._names),
                self._results,
            )
        finally:
            for value in values.values():
                library.release_value(value)

    def after(self) -> None:
        for index, name in enumerate(self._wanted):
            value = _read(self._reader, self._results[index] or 0, self._types[name])
            target = self._wanted[name]
            if not isinstance(self._types[name], Tensor):
                self._found[name] = Structure(value)
            elif target is None:
                self._found[name] = value
            elif target.shape != value.shape:
                made, planned = list(value.shape), list(target.shape)
                raise InputError(f"{name}: {made} came out where {planned} was planned", where=self._segment)
            else:
                target[...] = value
                self._found[name] = target

    def output(self, name: str) -> Buffer:
        if name not in self._found:
            raise InputError(f"output {name!r} was read before a run", where=self._segment)
        return self._found[name]


def _make(library: OrtLibrary, value: Any, type_: ValueType, kept: list[np.ndarray]) -> int:
    """The OrtValue of a value that is not None. OrtError for one that ONNX Runtime has no form for."""
    if isinstance(type_, Optional):
        return _make(library, value, type_.item, kept)
    if isinstance(type_, Tensor):
        return make_tensor(library, value, kept)
    if isinstance(type_, Map):
        table = cast("dict[Any, Any]", value)
        keys = np.array(list(table), numpy_type(type_.key))
        values = np.array(list(table.values()), numpy_type(type_.value))
        return _gathered(library, [make_tensor(library, part, kept) for part in (keys, values)], _MAP)
    items = cast("list[Any]", value)
    if items:
        return _gathered(library, [_make(library, item, type_.item, kept) for item in items], _SEQUENCE)
    if not isinstance(type_.item, Tensor):
        raise OrtError("a sequence of maps that is empty has no form in ONNX Runtime")
    return _run_once(library, _empty_sequence_session(element_number(type_.item.dtype)))


def _gathered(library: OrtLibrary, parts: list[int], kind: int) -> int:
    """A sequence or map, which keeps its parts."""
    try:
        return library.new("CreateValue", (c_void_p * len(parts))(*parts), len(parts), kind)
    finally:
        for part in parts:
            library.release_value(part)


def _read(reader: TensorReader, value: int, type_: ValueType) -> Any:
    """An OrtValue in Python, and releases it."""
    library = reader.library
    has_value, kind = c_int(), c_int()
    try:
        library.call("HasValue", value, byref(has_value))
        if has_value.value:
            library.call("GetValueType", value, byref(kind))
    except OrtError:
        library.release_value(value)
        raise
    if kind.value == _TENSOR:
        return _read_tensor(reader, value)
    try:
        if not has_value.value:
            return None
        parts = _parts(library, value)
    finally:
        library.release_value(value)
    inner = type_.item if isinstance(type_, Optional) else type_
    if isinstance(inner, SequenceType) and not isinstance(inner.item, Tensor):
        return [_read(reader, part, inner.item) for part in parts]
    found = [_read_tensor(reader, part) for part in parts]
    return dict(zip(found[0].tolist(), found[1].tolist(), strict=True)) if kind.value == _MAP else found


def _read_tensor(reader: TensorReader, value: int) -> np.ndarray:
    """The array of an OrtValue that is a tensor, and releases it unless the array is over its memory."""
    is_view = False
    try:
        array, is_view = reader.read(value)
    finally:
        if not is_view:
            reader.library.release_value(value)
    return array


def _parts(library: OrtLibrary, value: int) -> list[int]:
    """The values in a sequence, or a map's keys and values."""
    count, part = c_size_t(), c_void_p()
    library.call("GetValueCount", value, byref(count))
    get, place = library.function("GetValue"), byref(part)
    found: list[int] = []
    for index in range(count.value):
        library.check(get(value, index, library.allocator, place))
        found.append(part.value or 0)
    return found


@lru_cache(maxsize=32)
def _empty_sequence_session(element: int) -> int:
    """A session that gives a sequence `y` without tensors, of ONNX's element type `element`. Never released."""
    library = ort_library()
    tensor_type = _field(1, _varint(1, element))
    attribute = _text(1, "dtype") + _varint(3, element) + _varint(20, 2)
    node = _text(2, "y") + _text(4, "SequenceEmpty") + _field(5, attribute)
    output = _text(1, "y") + _field(2, _field(4, _field(1, tensor_type)))
    graph = _field(1, node) + _text(2, "empty") + _field(12, output)
    model = _varint(1, 8) + _field(7, graph) + _field(8, _text(1, "") + _varint(2, 11))
    options = library.new("CreateSessionOptions")
    library.call("DisablePerSessionThreads", options)
    try:
        return library.new("CreateSessionFromArray", library.environment, model, len(model), options)
    finally:
        library.release("ReleaseSessionOptions", options)


def _varint(number: int, value: int) -> bytes:
    """A protobuf field with a number below 128."""
    return _tag(number, 0) + bytes([value])


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field with a message, or a text, of less than 128 bytes."""
    return _tag(number, 2) + bytes([len(content)]) + content


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _tag(number: int, kind: int) -> bytes:
    tag = number << 3 | kind
    return bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])


def _run_once(library: OrtLibrary, session: int) -> int:
    results = (c_void_p * 1)()
    library.check(library.run(session, None, (c_char_p * 0)(), (c_void_p * 0)(), 0, (c_char_p * 1)(b"y"), 1, results))
    return results[0] or 0
