"""Reads JSON that was written by others: every access checks the type, and an error names the place by its path.

`steps[3].inputs[0]: expected a string, found 7` is what a reader of `manifest.json` gets. Keys that nobody asked for
are refused too, so that a misspelt key is not a silently ignored one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, cast

from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr


def parse_json(text: str | bytes, where: str) -> JsonObject:
    """The object that `text` holds. InputError for malformed JSON, a repeated key, NaN, or anything but an object."""

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for name in names if names.count(name) > 1)
            raise InputError(f"key {repeated!r} stands twice in one object", where=where)
        return found

    def no_constants(name: str) -> float:
        raise InputError(f"{name} is not a number in JSON", where=where)

    try:
        data = json.loads(text, object_pairs_hook=no_repeats, parse_constant=no_constants)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not valid JSON: {error}", where=where) from None
    if not isinstance(data, dict):
        raise InputError(f"expected an object, found {_shown(data)}", where=where)
    return JsonObject(cast(dict[str, Any], data), "", where)


def canonical_json(data: Any) -> bytes:
    """The one text of `data`: sorted keys, two spaces, floats at nine significant digits, one newline at the end."""
    text = json.dumps(_rounded(data), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def _rounded(data: Any) -> Any:
    if isinstance(data, float):
        if not math.isfinite(data):
            raise InputError(f"{data} cannot be written to JSON")
        return float(f"{data:.9g}")
    if isinstance(data, dict):
        return {str(key): _rounded(value) for key, value in cast(dict[Any, Any], data).items()}
    if isinstance(data, list | tuple):
        return [_rounded(value) for value in cast(list[Any], data)]
    return data


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


class JsonObject:
    """One object of a JSON file, read key by key. `done` refuses the keys that were not read."""

    __slots__ = ("_data", "_path", "_read", "_where")

    def __init__(self, data: dict[str, Any], path: str, where: str) -> None:
        self._data = data
        self._path = path
        self._where = where
        self._read: set[str] = set()

    def error(self, key: str, message: str) -> InputError:
        """The error that `message` is about this object's `key`."""
        return InputError(message, where=f"{self._where}: {self.path(key)}")

    def path(self, key: str) -> str:
        """Where `key` of this object stands in the file."""
        return f"{self._path}.{key}" if self._path else key

    def names(self) -> Iterator[str]:
        """The keys, in the file's order."""
        return iter(self._data)

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def _get(self, key: str) -> Any:
        self._read.add(key)
        if key not in self._data:
            raise self.error(key, "is missing")
        return self._data[key]

    def _wrong(self, key: str, wanted: str, value: Any) -> InputError:
        return self.error(key, f"expected {wanted}, found {_shown(value)}")

    def text(self, key: str) -> str:
        """A string."""
        value = self._get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return value

    def optional_text(self, key: str) -> str | None:
        """A string or null."""
        return None if self._get(key) is None else self.text(key)

    def scalar(self, key: str) -> bool | int | float | str | None:
        """A string, a number, true, false or null."""
        value = self._get(key)
        if isinstance(value, dict | list):
            raise self._wrong(key, "a string, a number, true, false or null", value)
        return value

    def flag(self, key: str) -> bool:
        """true or false."""
        value = self._get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def integer(self, key: str, minimum: int = 0) -> int:
        """An integer of at least `minimum`."""
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise self._wrong(key, f"an integer of at least {minimum}", value)
        return value

    def number(self, key: str) -> float:
        """A number that is not negative."""
        value = self._get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise self._wrong(key, "a number of at least 0", value)
        return float(value)

    def optional_number(self, key: str) -> float | None:
        """A number that is not negative, or null."""
        return None if self._get(key) is None else self.number(key)

    def expression(self, key: str) -> Expr:
        """An integer expression as text."""
        return self._expression(key, self.text(key))

    def _expression(self, key: str, text: str) -> Expr:
        try:
            return Expr.parse(text)
        except (InputError, RecursionError) as error:
            reason = error.message if isinstance(error, InputError) else "nested too deeply"
            raise self.error(key, f"not an integer expression: {reason}") from None

    def shape(self, key: str) -> tuple[Expr | None, ...] | None:
        """A shape: an expression a dimension, null for an unknown dimension; or null for an unknown rank."""
        if self._get(key) is None:
            return None
        dims: list[Expr | None] = []
        for index, value in enumerate(self._list(key)):
            place = f"{key}[{index}]"
            if value is not None and not isinstance(value, str):
                raise self._wrong(place, "an expression or null", value)
            dims.append(None if value is None else self._expression(place, value))
        return tuple(dims)

    def _list(self, key: str) -> list[Any]:
        value = self._get(key)
        if not isinstance(value, list):
            raise self._wrong(key, "a list", value)
        return cast(list[Any], value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self._list(key)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise self._wrong(f"{key}[{index}]", "a string", value)
        return tuple(values)

    def integers(self, key: str, count: int | None = None) -> tuple[int, ...]:
        """A list of `count` integers that are not negative; of any number of them without `count`."""
        values = self._list(key)
        good = all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values)
        if not good or count not in (None, len(values)):
            counted = "" if count is None else f"{count} "
            raise self._wrong(key, f"a list of {counted}integers of at least 0", values)
        return tuple(values)

    def object(self, key: str) -> JsonObject:
        """An object."""
        value = self._get(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return JsonObject(cast(dict[str, Any], value), self.path(key), self._where)

    def optional_object(self, key: str) -> JsonObject | None:
        """An object or null."""
        return None if self._get(key) is None else self.object(key)

    def objects(self, key: str) -> list[JsonObject]:
        """A list of objects."""
        found: list[JsonObject] = []
        for index, value in enumerate(self._list(key)):
            place = f"{key}[{index}]"
            if not isinstance(value, dict):
                raise self._wrong(place, "an object", value)
            found.append(JsonObject(cast(dict[str, Any], value), self.path(place), self._where))
        return found

    def plain(self, key: str) -> dict[str, Any]:
        """An object of any content, as plain Python data."""
        self.object(key)
        return self._data[key]

    def done(self) -> None:
        """InputError for a key that nothing read."""
        for key in self._data:
            if key not in self._read:
                raise self.error(key, "is not a key of this format")
