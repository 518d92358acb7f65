"""Values of a program that are no tensors: sequences, optionals and maps.

The manifest spells their types `seq(float32)`, `optional(seq(int64))`, `map(string,float32)`, and so on.
In Python a sequence is a list of arrays, an optional is its value or None, and a map is a dict of numbers or texts.
They live in host memory, as a `Structure`, which tells a value that is None from one that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, TypeAlias, cast

import numpy as np

from gimlet.runtime.errors import InputError
from gimlet.runtime.tensors import STRING, is_element_type, numpy_type

KEY_TYPES = ("int64", STRING)
DEEPEST = 8
"""Types nested deeper than this are refused."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of any shape with elements of `dtype`."""

    dtype: str


@dataclass(frozen=True)
class Sequence:
    """A list of values of one type."""

    item: ValueType


@dataclass(frozen=True)
class Optional:
    """A value, or nothing."""

    item: ValueType


@dataclass(frozen=True)
class Map:
    """A table of scalars of type `value` by keys of type `key`."""

    key: str
    value: str


ValueType: TypeAlias = Tensor | Sequence | Optional | Map


@dataclass(frozen=True, eq=False)
class Structure:
    """A sequence, an optional or a map in host memory."""

    value: Any
    shape: ClassVar[tuple[int, ...]] = ()


@lru_cache(maxsize=256)
def parse_type(text: str, depth: int = 0) -> ValueType:
    """The type that a manifest spells `text`. InputError where it is none."""
    if is_element_type(text):
        return Tensor(text)
    kind, _, rest = text.partition("(")
    inner = rest[:-1]
    if not rest.endswith(")") or depth > DEEPEST:
        raise InputError(f"{text!r} is not an element type, nor a sequence, an optional or a map")
    if kind == "seq":
        return Sequence(parse_type(inner, depth + 1))
    if kind == "optional":
        return Optional(parse_type(inner, depth + 1))
    key, _, value = inner.partition(",")
    if kind == "map" and key in KEY_TYPES and is_element_type(value):
        return Map(key, value)
    raise InputError(f"{text!r} is not an element type, nor a sequence, an optional or a map")


def checked(given: Any, type_: ValueType, path: str) -> Any:
    """A caller's value with C-contiguous arrays of the right element types. InputError, with `path`, for any other."""
    if isinstance(type_, Optional):
        return None if given is None else checked(given, type_.item, path)
    if isinstance(type_, Tensor):
        return _checked_tensor(given, type_.dtype, path)
    if isinstance(type_, Map):
        return _checked_map(given, type_, path)
    if not isinstance(given, list | tuple):
        raise InputError(f"is a {type(given).__name__}, and the program takes a list", where=f"input {path!r}")
    items = cast("list[Any]", given)
    return [checked(item, type_.item, f"{path}[{index}]") for index, item in enumerate(items)]


def _checked_tensor(given: Any, dtype: str, path: str) -> np.ndarray:
    try:
        array = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"is no tensor: {error}", where=f"input {path!r}") from None
    if dtype == STRING and array.dtype.kind in "OUT":
        array = array.astype(object)
    if array.dtype != numpy_type(dtype):
        raise InputError(f"has elements of {array.dtype}, and the program takes {dtype}", where=f"input {path!r}")
    return np.ascontiguousarray(array).reshape(array.shape)


def _checked_map(given: Any, type_: Map, path: str) -> dict[Any, Any]:
    if not isinstance(given, Mapping):
        raise InputError(f"is a {type(given).__name__}, and the program takes a dict", where=f"input {path!r}")
    known = cast("Mapping[Any, Any]", given)
    wanted = str if type_.key == STRING else int | np.integer
    for key in known:
        if not isinstance(key, wanted) or isinstance(key, bool):
            raise InputError(f"has the key {key!r}, and the program takes keys of {type_.key}", where=f"input {path!r}")
    try:
        values = np.array(list(known.values()), numpy_type(type_.value))
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"has values that are no {type_.value}: {error}", where=f"input {path!r}") from None
    if values.ndim != 1:
        raise InputError("has values that are no scalars", where=f"input {path!r}")
    keys = [str(key) if type_.key == STRING else int(key) for key in known]
    return dict(zip(keys, values.tolist(), strict=True))


def copied(value: Any) -> Any:
    """A structure's value in memory of its own."""
    if isinstance(value, list):
        return [copied(item) for item in cast("list[Any]", value)]
    if isinstance(value, np.ndarray | dict):
        return cast("Any", value).copy()
    return value
