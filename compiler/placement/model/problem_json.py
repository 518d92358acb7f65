"""A placement problem in a file of its own, without a model: devices, routes, nodes, values and what they cost.

    {"schema": 1, "about": text, "host": device,
     "devices": [{name, memory_bytes, launch_s, idle_w, load_w, usd_per_hour, members: [device],
                  fast_bytes, slow_s_per_byte}],
     "routes": [{from, to, latency_s, seconds_per_byte, usd_per_byte}],
     "nodes": [{name, type, flops, options: {device: {seconds, joules, activation_bytes, usd}}}],
     "values": [{name, size_bytes, producer, consumers: [node], is_output}],
     "weights": [{name, size_bytes, users: [node], read}]}

Nodes are in a topological order. A node may be where it has an option. `host` is the first device if left out; a value
without a producer comes from there. Weights that `fast_bytes` of a device have no room for are read in every run at
`slow_s_per_byte`, besides the node's seconds: the part `read` of them (all, if left out), those with the least first. A
route leads one way and is shared by what goes that way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from gimlet.compiler.hardware.schema import NotNegative, Schema, Table, unknown, validated
from gimlet.compiler.placement.model.problem import DeviceSpec, Node, Option, Place, Problem, Route, Value, Weight
from gimlet.runtime.errors import InputError

Size = Annotated[int, Field(ge=0)]


class FileDevice(Table):
    """A device, with one place. `launch_s` is what a segment's launch takes. `fast_bytes` is a part of the memory.

    A group has `members`: devices that work as one in it. Power and prices are theirs, so it has none of its own.
    """

    name: str
    memory_bytes: Size | None = None
    launch_s: NotNegative = 0.0
    idle_w: NotNegative | None = None
    load_w: NotNegative | None = None
    usd_per_hour: NotNegative | None = None
    members: tuple[str, ...] = ()
    fast_bytes: Size | None = None
    slow_s_per_byte: NotNegative = 0.0


class FileRoute(Table):
    """The way from one device to another."""

    source: Annotated[str, Field(alias="from")]
    to: str
    latency_s: NotNegative = 0.0
    seconds_per_byte: NotNegative = 0.0
    usd_per_byte: NotNegative = 0.0


class FileOption(Table):
    """What a node costs on a device; `usd` is the price of running it once. Without `joules`, load power counts."""

    seconds: NotNegative
    joules: NotNegative | None = None
    activation_bytes: Size = 0
    usd: NotNegative = 0.0


class FileNode(Table):
    """An op or a group of ops that stay together."""

    name: str
    type: str = ""
    flops: NotNegative = 0.0
    options: Annotated[dict[str, FileOption], Field(min_length=1)]


class FileValue(Table):
    """What goes from a node, or from the host, to other nodes, and to the host where `is_output`."""

    name: str
    size_bytes: Size
    producer: str | None = None
    consumers: tuple[str, ...] = ()
    is_output: bool = False


class FileWeight(Table):
    """Bytes that are once on each device that has a user of them."""

    name: str
    size_bytes: Size
    users: Annotated[list[str], Field(min_length=1)]
    read: Annotated[float, Field(ge=0, le=1)] = 1.0


class ProblemFile(Table):
    """The file. `about` says what the figures are and where they are from."""

    version: Schema
    about: str = ""
    host: str | None = None
    devices: Annotated[list[FileDevice], Field(min_length=1)]
    routes: tuple[FileRoute, ...] = ()
    nodes: tuple[FileNode, ...]
    values: tuple[FileValue, ...] = ()
    weights: tuple[FileWeight, ...] = ()


def problem_of(data: dict[str, Any], path: Path) -> Problem:
    """The problem in a file's object. InputError or UsageError, with the file and the key, where it is none."""
    file = validated(data, ProblemFile, path)
    try:
        return _problem(file, path)
    except InputError as error:
        if not (error.where or "").startswith(str(path)):
            error.where = f"{path}: {error.where}" if error.where else str(path)
        raise


def _problem(file: ProblemFile, path: Path) -> Problem:
    device = _numbers([device.name for device in file.devices], "device", path)
    node = _numbers([node.name for node in file.nodes], "node", path)
    return Problem(
        tuple(
            _device(entry, tuple(_number(device, name, "device", path) for name in entry.members))
            for entry in file.devices
        ),
        tuple(Place(number) for number in range(len(file.devices))),
        tuple(
            Node(
                entry.name,
                entry.type,
                {
                    number: _option(option, _load_w(file.devices, number, device))
                    for name, option in entry.options.items()
                    for number in [_number(device, name, "device", path)]
                },
                flops=entry.flops,
            )
            for entry in file.nodes
        ),
        tuple(
            Value(
                entry.name,
                entry.size_bytes,
                None if entry.producer is None else _number(node, entry.producer, "node", path),
                tuple(_number(node, name, "node", path) for name in entry.consumers),
                entry.is_output,
            )
            for entry in file.values
        ),
        _routes(file, device, path),
        tuple(_weights(file, node, device, path)),
        host=0 if file.host is None else _number(device, file.host, "device", path),
    )


def _routes(file: ProblemFile, device: dict[str, int], path: Path) -> dict[tuple[int, int], Route]:
    routes: dict[tuple[int, int], Route] = {}
    for number, entry in enumerate(file.routes):
        where = f"{path}: routes[{number}]"
        ends = _number(device, entry.source, "device", path), _number(device, entry.to, "device", path)
        if entry.source == entry.to:
            raise InputError(f"leads from {entry.source} to itself", where=where, hint="leave it out")
        if ends in routes:
            raise InputError(f"there is a route from {entry.source} to {entry.to} already", where=where)
        link = f"{entry.source}>{entry.to}", entry.seconds_per_byte
        routes[ends] = Route(entry.latency_s, entry.seconds_per_byte, (link,), entry.usd_per_byte)
    return routes


def _weights(file: ProblemFile, node: dict[str, int], device: dict[str, int], path: Path) -> Iterable[Weight]:
    """The weights; on a group each member reads all of them, at the rate of the first."""
    rates = [
        (file.devices[device[entry.members[0]]] if entry.members else entry).slow_s_per_byte for entry in file.devices
    ]
    order = sorted(range(len(file.weights)), key=lambda number: (file.weights[number].read, number))
    rank = {number: position for position, number in enumerate(order)}
    for number, entry in enumerate(file.weights):
        users = tuple(_number(node, name, "node", path) for name in entry.users)
        read = entry.size_bytes * entry.read
        streams = {place: dict.fromkeys(users, read * rate) for place, rate in enumerate(rates) if read * rate}
        sizes = dict.fromkeys(range(len(rates)), entry.size_bytes)
        yield Weight(entry.name, users, sizes, streams, rank[number])


def _device(entry: FileDevice, members: tuple[int, ...]) -> DeviceSpec:
    if not members:
        return DeviceSpec(
            entry.name,
            entry.memory_bytes,
            entry.launch_s,
            entry.idle_w,
            entry.load_w,
            entry.usd_per_hour,
            fast_bytes=entry.fast_bytes,
        )
    return DeviceSpec(entry.name, None, entry.launch_s, 0.0, 0.0, 0.0, members=members)


def _load_w(devices: Sequence[FileDevice], number: int, numbers: dict[str, int]) -> float | None:
    """What a device draws under load, or all members of a group; None where that is not known."""
    members = [devices[numbers[name]] for name in devices[number].members] or [devices[number]]
    known = [member.load_w for member in members if member.load_w is not None]
    return sum(known) if len(known) == len(members) else None


def _option(option: FileOption, load_w: float | None) -> Option:
    joules = option.joules
    if joules is None and load_w is not None:
        joules = load_w * option.seconds
    return Option(option.seconds, joules, option.activation_bytes, option.usd)


def _numbers(names: Sequence[str], what: str, path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        if name in found:
            raise InputError(f"two {what}s have the name {name!r}", where=str(path))
        found[name] = len(found)
    return found


def _number(numbers: dict[str, int], name: str, what: str, path: Path) -> int:
    if name not in numbers:
        raise unknown(what, name, numbers, str(path))
    return numbers[name]
