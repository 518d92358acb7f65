"""The topology that a module holds, with the kinds of its devices and links looked up."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp, StringAttr

from gimlet.compiler.hardware import link_names, load_kind, load_link
from gimlet.compiler.placement.reading.collectives import ALGORITHMS
from gimlet.dialects.placement import GroupOp, topology_of
from gimlet.runtime.errors import InputError
from gimlet.targets.api import Device, Group, Link, Topology


def read_topology(module: ModuleOp) -> Topology:
    """The module's `placement.topology`. InputError where it has none, UsageError for kinds that do not exist."""
    op = topology_of(module)
    if op is None:
        raise InputError(
            "the module says nothing about the hardware", hint="add a placement.topology op, or compile with --topology"
        )
    devices: list[Device] = []
    for name, device in op.devices.items():
        point = device.attributes.get("operating_point")
        kind = load_kind(
            device.kind.data,
            operating_point=point.data if isinstance(point, StringAttr) else None,
            where=f"placement.device @{name}",
        )
        devices.append(Device(name, kind))
    links: list[Link] = []
    for name, link in op.links.items():
        kind = link.kind.data
        latency_s, bandwidth = link.speed or _speed(name, kind)
        collectives = load_link(kind).collective_figures if kind in link_names() else None
        links.append(Link(name, kind, link.between, latency_s, bandwidth, collectives))
    groups = tuple(_group(name, group) for name, group in op.groups.items())
    return Topology(op.sym_name.data, tuple(devices), tuple(links), op.host_name, groups)


def _group(name: str, group: GroupOp) -> Group:
    """InputError where the group's collectives are of an algorithm that does not exist."""
    found = None if group.shard is None else group.shard.data.get("algorithm")
    name_given = found.data if isinstance(found, StringAttr) else ""
    known = ALGORITHMS[ALGORITHMS.index(name_given)] if name_given in ALGORITHMS else None
    if found is not None and known is None:
        raise InputError(f"there is no algorithm {found}", where=f"placement.group @{name}", hint="ring or direct")
    return Group(name, tuple(member.string_value() for member in group.members), known)


def _speed(name: str, kind: str) -> tuple[float, float]:
    """Latency in seconds and bytes per second of a kind of link."""
    described = load_link(kind, where=f"placement.link @{name}")
    return described.latency_s, described.bandwidth
