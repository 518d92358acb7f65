"""Topologies: the devices at hand, the links between them, and the device that is the host."""

from __future__ import annotations

from pathlib import Path

from gimlet.compiler.hardware.host import HOST
from gimlet.compiler.hardware.kinds import load_kind, load_link
from gimlet.compiler.hardware.schema import GroupTable, LinkTable, TopologyFile, read_toml, unknown
from gimlet.runtime.errors import UsageError
from gimlet.targets.api import Device, Group, Link, Topology


def default_topology() -> Topology:
    """This machine alone: one device `cpu`."""
    return Topology("cpu", (Device("cpu", load_kind(HOST)),), (), "cpu")


def load_topology(path: str | Path) -> Topology:
    """The topology that a TOML file describes.

    UsageError for a kind, link, operating point or device that does not exist, and for names given twice; InputError,
    with file and key, for a file that is not a valid topology.
    """
    path = Path(path)
    described = read_toml(path, TopologyFile)
    where = str(path)
    devices: dict[str, Device] = {}
    for table in described.device:
        if table.name in devices:
            raise UsageError(f"two devices are called {table.name!r}", where=f"{where}: device[{table.name}]")
        place = f"{where}: device[{table.name}].kind"
        kind = load_kind(table.kind, operating_point=table.operating_point, base=path.parent, where=place)
        devices[table.name] = Device(table.name, kind)
    links: dict[str, Link] = {}
    for table in described.link:
        link = _link(table, devices, links, path)
        links[link.name] = link
    groups: dict[str, Group] = {}
    for table in described.group:
        groups[table.name] = _group(table, devices, {*devices, *links, *groups}, where)
    return Topology(
        name=described.name or path.stem,
        devices=tuple(devices.values()),
        links=tuple(links.values()),
        host=_host(described.host, devices, where),
        groups=tuple(groups.values()),
    )


def _link(table: LinkTable, devices: dict[str, Device], links: dict[str, Link], path: Path) -> Link:
    first, second = table.between
    place = f"{path}: link[{first}, {second}]"
    for end in (first, second):
        if end not in devices:
            raise unknown("device", end, devices, f"{place}.between")
    if first == second:
        raise UsageError(f"joins {first!r} with itself", where=f"{place}.between")
    if table.name is not None and (table.name in links or table.name in devices):
        raise UsageError(f"the name {table.name!r} is given twice", where=f"{place}.name")
    described = load_link(table.kind, base=path.parent, where=f"{place}.kind")
    name = table.name or _free_name(f"{first}_{second}", {*links, *devices})
    return Link(
        name,
        table.kind.removesuffix(".toml"),
        (first, second),
        described.latency_s,
        described.bandwidth,
        described.collective_figures,
    )


def _group(table: GroupTable, devices: dict[str, Device], taken: set[str], where: str) -> Group:
    place = f"{where}: group[{table.name}]"
    if table.name in taken:
        raise UsageError(f"the name {table.name!r} is given twice", where=f"{place}.name")
    for member in table.members:
        if member not in devices:
            raise unknown("device", member, devices, f"{place}.members")
    if len(set(table.members)) != len(table.members):
        raise UsageError("names a device twice", where=f"{place}.members")
    kinds = sorted({devices[member].kind.name for member in table.members})
    if any(devices[member].kind != devices[table.members[0]].kind for member in table.members):
        raise UsageError(
            f"its devices are not alike: {', '.join(kinds)}",
            where=f"{place}.members",
            hint="work is split evenly, so a group is of equal devices",
        )
    return Group(table.name, tuple(table.members), table.algorithm)


def _free_name(name: str, taken: set[str]) -> str:
    number = 2
    free = name
    while free in taken:
        free = f"{name}_{number}"
        number += 1
    return free


def _host(name: str | None, devices: dict[str, Device], where: str) -> str:
    if name is not None:
        if name not in devices:
            raise unknown("device", name, devices, f"{where}: host")
        return name
    host = next((device.name for device in devices.values() if device.kind.name == HOST), None)
    if host is None:
        raise UsageError(
            "no device is the host, where inputs come from",
            where=where,
            hint='add a device with kind = "host", or say which one it is: host = "NAME"',
        )
    return host
