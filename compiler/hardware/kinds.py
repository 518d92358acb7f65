"""Kinds of devices and links by name: the shipped files, a user's own, and `host`, this machine."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gimlet.compiler.hardware.host import HOST, host_file
from gimlet.compiler.hardware.schema import CLASSES, KindFile, LinkFile, OperatingPoint, read_toml, unknown
from gimlet.runtime.errors import InputError, UsageError
from gimlet.targets.api import HardwareKind, MemoryLevel
from gimlet.targets.registry import TARGETS, target_exists
from gimlet.targets.roofline import FORMAT_BITS

_FOLDER = Path(__file__).parent
_LINKS = "links"


@cache
def kind_names() -> tuple[str, ...]:
    """The kinds that gimlet knows, sorted: `host`, and one `vendor/part` for each shipped file."""
    shipped = (path.relative_to(_FOLDER).with_suffix("").as_posix() for path in _FOLDER.glob("*/*.toml"))
    return (HOST, *sorted(name for name in shipped if not name.startswith(f"{_LINKS}/")))


@cache
def link_names() -> tuple[str, ...]:
    """The kinds of links that gimlet knows, sorted."""
    return tuple(sorted(path.stem for path in (_FOLDER / _LINKS).glob("*.toml")))


def load_kind(
    name: str, *, operating_point: str | None = None, base: Path | None = None, where: str | None = None
) -> HardwareKind:
    """The kind of device called `name`, or described by the file `name` if that ends in `.toml`.

    A relative path starts at `base` (else at the working directory). Of a kind with operating points, `operating_point`
    selects one, and without it the kind's own default is taken. `where` is what an error gives as its place. UsageError
    if there is no such kind or point, InputError if the file is not a valid description.
    """
    path = _kind_path(name, base, where)
    described = read_toml(path, KindFile)
    for target in described.targets:
        _check_target(target, path)
    point = _select(described, operating_point, where or str(path))
    return _kind(described, point, described.name or _name_of(path))


def _check_target(name: str, path: Path) -> None:
    """InputError, with the file, for the name of a target that neither gimlet nor an installed package has."""
    if target_exists(name):
        return
    close = difflib.get_close_matches(name, TARGETS, n=1)
    guess = f"did you mean {close[0]!r}? " if close else f"gimlet's own are: {', '.join(TARGETS)}. "
    raise InputError(
        f"targets: no target is called {name!r}",
        where=str(path),
        hint=f"{guess}A package may have others, in the entry-point group gimlet.targets",
    )


def load_link(name: str, *, base: Path | None = None, where: str | None = None) -> LinkFile:
    """The kind of link called `name`, or described by the file `name` if that ends in `.toml`.

    A relative path starts at `base` (else at the working directory). UsageError if there is none, InputError if the
    file is not a valid description.
    """
    if name.endswith(".toml"):
        return read_toml(_own_file(name, base, where), LinkFile)
    if name not in link_names():
        raise unknown("link", name, link_names(), where)
    return read_toml(_FOLDER / _LINKS / f"{name}.toml", LinkFile)


def _own_file(name: str, base: Path | None, where: str | None) -> Path:
    path = (base or Path()) / name
    if not path.is_file():
        raise UsageError(f"there is no file {path}", where=where)
    return path


def _kind_path(name: str, base: Path | None, where: str | None) -> Path:
    if name == HOST:
        return host_file()
    if name.endswith(".toml"):
        return _own_file(name, base, where)
    if name not in kind_names():
        raise unknown("kind", name, kind_names(), where)
    return _FOLDER / f"{name}.toml"


def _name_of(path: Path) -> str:
    if path.is_relative_to(_FOLDER):
        return path.relative_to(_FOLDER).with_suffix("").as_posix()
    return path.stem


def _select(described: KindFile, name: str | None, where: str) -> OperatingPoint | None:
    points = {point.name: point for point in described.operating_point}
    if name is None:
        return next((point for point in points.values() if point.default), None)
    if not points:
        raise UsageError(f"{described.title} has no operating points, so none is called {name!r}", where=where)
    if name not in points:
        raise unknown(f"operating point of {described.title}", name, points, where)
    return points[name]


def _kind(described: KindFile, point: OperatingPoint | None, name: str) -> HardwareKind:
    peak = dict(described.peak)
    bandwidths: dict[str, float] = {}
    power = described.power
    options: dict[str, Any] = dict(described.options)
    sources = described.sourced()
    if point is not None:
        peak |= point.peak
        bandwidths = point.memory
        power = power.model_copy(update=point.power.model_dump(exclude_none=True))
        options |= point.options
        options["operating_point"] = point.name
        sources = _sources_at(sources, point)
    fraction = described.fraction
    return HardwareKind(
        name=name,
        targets=tuple(described.targets),
        peak=peak,
        memory=tuple(
            MemoryLevel(level.name, level.capacity_bytes, bandwidths.get(level.name, level.bandwidth))
            for level in described.memory
        ),
        idle_w=power.idle_w,
        load_w=power.load_w,
        price_usd=described.price.usd,
        usd_per_hour=described.price.usd_per_hour,
        segment_overhead_s=described.overhead.segment_s,
        kernel_overhead_s=described.overhead.kernel_s,
        compute_fraction=fraction.get("compute", 1.0),
        memory_fraction=fraction.get("memory", 1.0),
        fractions={key: fraction[key] for key in (*CLASSES, *FORMAT_BITS) if key in fraction},
        options=options,
        sources=sources,
    )


def _sources_at(sources: Mapping[str, str], point: OperatingPoint) -> dict[str, str]:
    """The sources of the figures in force at `point`, by the paths that they have without one."""
    prefix = f"operating_point.{point.name}."
    found = {figure: source for figure, source in sources.items() if not figure.startswith("operating_point.")}
    for figure, source in sources.items():
        if figure.startswith(prefix):
            own = figure.removeprefix(prefix)
            found[f"{own}.bandwidth" if own.startswith("memory.") else own] = source
    return found
