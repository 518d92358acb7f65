"""The files that describe hardware: their schema, and errors that name the file and the key.

A kind of device, a kind of link and a topology are TOML files. Every figure of a kind has a source: `[sources]` maps
the figure's TOML path, or a table that holds it, to where the figure is from. A figure without one is an error, and so
is a source without a figure.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from gimlet.runtime.errors import GimletError, InputError, UsageError
from gimlet.targets.api import CollectiveFigures, CollectiveProtocol
from gimlet.targets.roofline import FORMAT_BITS

SCHEMA = 1
CLASSES = ("conv", "depthwise", "vector")
"""Op classes that may have an achieved fraction of their own. Depthwise convolutions and `vector` ops, which no matrix
unit can run, are measured against `peak.vector`."""


def _whole(given: object) -> object:
    """A number such as 24e9, which TOML has no other type for, as the integer that it is."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Fraction = Annotated[float, Field(gt=0, le=1, strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")]
Bytes = Annotated[int, BeforeValidator(_whole), Field(gt=0, strict=True)]
Schema = Annotated[Literal[1], Field(alias="schema")]

_Model = TypeVar("_Model", bound=BaseModel)


def _known(figures: Mapping[str, float], allowed: Iterable[str]) -> None:
    for name in figures:
        if name not in allowed:
            raise ValueError(f"{name!r} is not one of {', '.join(allowed)}")


class Table(BaseModel):
    """A TOML table: what it may hold is declared, anything else is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Memory(Table):
    """One level of memory, `bandwidth` in bytes per second."""

    name: Name
    capacity_bytes: Bytes
    bandwidth: Positive


class Power(Table):
    """Watts: ready but waiting, and under full load."""

    idle_w: NotNegative | None = None
    load_w: Positive | None = None

    @model_validator(mode="after")
    def idle_below_load(self) -> Power:
        if self.idle_w is not None and self.load_w is not None and self.idle_w > self.load_w:
            raise ValueError(f"idle_w = {self.idle_w:g} is more than load_w = {self.load_w:g}")
        return self


class Price(Table):
    """What the device costs to buy, and to have for an hour, in US dollars."""

    usd: NotNegative | None = None
    usd_per_hour: NotNegative | None = None


class Overhead(Table):
    """Seconds that a launch takes before any work is done: of a segment, and of each kernel in it."""

    segment_s: NotNegative = 0.0
    kernel_s: NotNegative = 0.0


class OperatingPoint(Table):
    """Figures that hold together and replace those above: `memory` maps a level's name to its bandwidth."""

    name: str
    default: bool = False
    peak: dict[str, Positive] = {}
    memory: dict[str, Positive] = {}
    power: Power = Power()
    options: dict[str, Any] = {}


class KindFile(Table):
    """A kind of device. `peak` is dense operations per second by number format, a multiply-add counted as two."""

    version: Schema
    title: str
    name: str | None = None
    targets: Annotated[list[str], Field(min_length=1)]
    peak: Annotated[dict[str, Positive], Field(min_length=1)]
    memory: Annotated[list[Memory], Field(min_length=1)]
    power: Power = Power()
    price: Price = Price()
    overhead: Overhead = Overhead()
    fraction: dict[str, Fraction] = {}
    options: dict[str, Any] = {}
    operating_point: list[OperatingPoint] = []
    sources: dict[str, str]

    @field_validator("peak")
    @classmethod
    def known_formats(cls, peak: dict[str, float]) -> dict[str, float]:
        _known(peak, (*FORMAT_BITS, "vector"))
        return peak

    @field_validator("fraction")
    @classmethod
    def known_fractions(cls, fraction: dict[str, float]) -> dict[str, float]:
        _known(fraction, ("compute", "memory", *CLASSES, *FORMAT_BITS))
        return fraction

    @model_validator(mode="after")
    def consistent(self) -> KindFile:
        levels = [level.name for level in self.memory]
        if len(set(levels)) != len(levels):
            raise ValueError(f"memory: two levels are called {next(n for n in levels if levels.count(n) > 1)!r}")
        names = [point.name for point in self.operating_point]
        if len(set(names)) != len(names):
            raise ValueError("operating_point: two points have the same name")
        if names and sum(point.default for point in self.operating_point) != 1:
            raise ValueError("operating_point: exactly one point needs default = true")
        for point in self.operating_point:
            _known(point.peak, tuple(self.peak))
            _known(point.memory, levels)
        self.sourced()
        return self

    def figures(self) -> Iterator[str]:
        """The TOML path of every figure, a memory level and an operating point by its name."""
        data = self.model_dump(exclude_unset=True, by_alias=False, exclude_none=True)
        for table in ("peak", "power", "price", "overhead", "fraction", "options"):
            yield from _leaves(table, data.get(table, {}))
        for level in self.memory:
            yield f"memory.{level.name}.capacity_bytes"
            yield f"memory.{level.name}.bandwidth"
        for point in data.get("operating_point", []):
            for table in ("peak", "memory", "power", "options"):
                yield from _leaves(f"operating_point.{point['name']}.{table}", point.get(table, {}))

    def sourced(self) -> dict[str, str]:
        """The source of every figure: the one given for it, else for the nearest table around it."""
        found: dict[str, str] = {}
        used: set[str] = set()
        for figure in self.figures():
            covering = [key for key in self.sources if figure == key or figure.startswith(f"{key}.")]
            if not covering:
                raise ValueError(f"{figure} has no source: add it to [sources]")
            found[figure] = self.sources[max(covering, key=len)]
            used.add(max(covering, key=len))
        unused = sorted(set(self.sources) - used)
        if unused:
            raise ValueError(f"sources: {unused[0]!r} is the source of no figure")
        empty = sorted(figure for figure, source in found.items() if not source.strip())
        if empty:
            raise ValueError(f"{empty[0]} has an empty source")
        return found


class ProtocolTable(Table):
    """A protocol of collectives: seconds a step, bytes per second, and those of a member's own part."""

    name: Name
    step_s: NotNegative
    bandwidth: Positive
    own_bandwidth: Positive | None = None


class CollectivesTable(Table):
    """Collectives over a kind of link: seconds of a launch, and the protocols, of which the quickest is used."""

    launch_s: NotNegative
    protocol: Annotated[list[ProtocolTable], Field(min_length=1)]


class LinkFile(Table):
    """A kind of link: seconds before the first byte, and bytes per second one way that a copy reaches."""

    version: Schema
    title: str
    latency_s: NotNegative
    bandwidth: Positive
    collectives: CollectivesTable | None = None
    sources: dict[str, str]

    @property
    def collective_figures(self) -> CollectiveFigures | None:
        """What collectives take over such links; None where the file does not say."""
        if self.collectives is None:
            return None
        protocols = (CollectiveProtocol(p.step_s, p.bandwidth, p.own_bandwidth) for p in self.collectives.protocol)
        return CollectiveFigures(self.collectives.launch_s, tuple(protocols))

    @model_validator(mode="after")
    def sourced(self) -> LinkFile:
        figures = ["latency_s", "bandwidth", *(["collectives"] if self.collectives is not None else [])]
        for figure in figures:
            if not self.sources.get(figure, "").strip():
                raise ValueError(f"{figure} has no source: add it to [sources]")
        unused = sorted(set(self.sources) - set(figures))
        if unused:
            raise ValueError(f"sources: {unused[0]!r} is the source of no figure")
        return self


class DeviceTable(Table):
    """A device of a topology. `kind` is a shipped kind, or the path of a kind's file, relative to the topology's."""

    name: Name
    kind: str
    operating_point: str | None = None


class LinkTable(Table):
    """A link of a topology, the same in both directions."""

    between: Annotated[list[str], Field(min_length=2, max_length=2)]
    kind: str
    name: Name | None = None


class GroupTable(Table):
    """Devices of one kind that can work as one."""

    name: Name
    members: Annotated[list[str], Field(min_length=2)]
    algorithm: Literal["ring", "direct"] | None = None


class TopologyFile(Table):
    """The hardware at hand. `host` is where inputs come from and outputs go to."""

    version: Schema = 1
    name: str | None = None
    host: str | None = None
    device: Annotated[list[DeviceTable], Field(min_length=1)]
    link: list[LinkTable] = []
    group: list[GroupTable] = []


def read_toml(path: Path, model: type[_Model]) -> _Model:
    """The file as `model`. UsageError if it cannot be read, InputError with file and key if it is not of that form."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read it: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError("is not text in UTF-8", where=str(path)) from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"is not TOML: {error}", where=str(path)) from error
    version = data.get("schema", SCHEMA)
    if isinstance(version, int) and version > SCHEMA:
        raise InputError(
            f"has schema {version}, and this gimlet reads up to {SCHEMA}", where=str(path), hint="upgrade gimlet"
        )
    return validated(data, model, path)


def validated(data: dict[str, Any], model: type[_Model], path: Path) -> _Model:
    """What a file holds as `model`. InputError with file and key if it is not of that form."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explained(error, path, data) from error


def unknown(what: str, name: str, known: Iterable[str], where: str | None = None) -> UsageError:
    """The error for a name that is none of `known`, with the closest of them, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    close = close or [other for other in names if other.rpartition("/")[2] == name.rpartition("/")[2]]
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"
    return UsageError(f"unknown {what} {name!r}", where=where, hint=hint)


def _leaves(path: str, value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner)
    else:
        yield path


def _explained(error: ValidationError, path: Path, data: dict[str, Any]) -> GimletError:
    problems = error.errors(include_url=False)
    first = problems[0]
    key = _key(first["loc"], data)
    given = repr(first["input"])
    limits = first.get("ctx", {})
    least, length = limits.get("min_length"), limits.get("actual_length")
    messages = {
        "missing": "is missing",
        "literal_error": f"must be {limits.get('expected')}, not {given}",
        "extra_forbidden": "is not a key that this file may have",
        "greater_than": f"must be more than 0, not {first['input']}",
        "greater_than_equal": f"must not be negative, but is {first['input']}",
        "finite_number": f"must be a finite number, not {first['input']}",
        "less_than_equal": f"must be at most {limits.get('le')}, not {first['input']}",
        "too_short": "must not be empty" if least == 1 else f"must have at least {least}, not {length}",
        "too_long": f"must have at most {limits.get('max_length')}, not {length}",
        "list_type": f"must be a list, not {given}",
        "dict_type": f"must be a table, not {given}",
        "model_type": f"must be a table, not {given}",
        "int_type": f"must be a whole number, not {given}",
        "float_type": f"must be a number, not {given}",
        "int_parsing": f"must be a whole number, not {given}",
        "int_from_float": f"must be a whole number, not {given}",
        "string_type": f"must be a text, not {given}",
        "string_pattern_mismatch": "must be letters, digits, '_' and '.', and not begin with a digit or a '.'",
    }
    message = messages.get(first["type"], str(first["msg"]).removeprefix("Value error, "))
    # A file of another schema has other keys too: that it is one says it all.
    more = f" (and {len(problems) - 1} more like this)" if len(problems) > 1 and key != "schema" else ""
    return InputError(f"{key} {message}{more}" if key else f"{message}{more}", where=str(path))


def _key(location: tuple[int | str, ...], data: dict[str, Any]) -> str:
    """The TOML path of a problem, with list items by their name where they have one."""
    parts: list[str] = []
    value: Any = data
    for part in location:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
        if isinstance(part, int):
            named = value.get("name") if isinstance(value, dict) else None
            parts[-1:] = [f"{parts[-1]}[{named if isinstance(named, str) else part}]"] if parts else [str(part)]
        else:
            parts.append(part)
    return ".".join(parts)
