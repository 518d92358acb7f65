"""A topology as the IR spells it."""

from __future__ import annotations

from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr

from gimlet.dialects.placement import DeviceOp, GroupOp, LinkOp, TopologyOp, topology_of
from gimlet.runtime.errors import UsageError
from gimlet.targets.api import Group, Topology


def topology_op(topology: Topology) -> TopologyOp:
    """The `placement.topology` of a topology."""
    devices = [DeviceOp(device.name, device.kind.name) for device in topology.devices]
    links = [LinkOp(link.name, *link.between, link.kind, (link.latency_s, link.bandwidth)) for link in topology.links]
    groups = [GroupOp(group.name, group.members, [len(group.members)], _shard(group)) for group in topology.groups]
    return TopologyOp(topology.name, [*devices, *links, *groups], topology.host)


def _shard(group: Group) -> DictionaryAttr | None:
    return None if group.algorithm is None else DictionaryAttr({"algorithm": StringAttr(group.algorithm)})


def check_topology(module: ModuleOp, topology: Topology) -> None:
    """UsageError where the module is placed on a device that `topology` lacks, or has of another kind."""
    placed = topology_of(module)
    kinds = {device.name: device.kind.name for device in topology.devices}
    for name, device in placed.devices.items() if placed is not None else ():
        if kinds.get(name) != device.kind.data:
            raise UsageError(
                f"the IR is placed on {name} ({device.kind.data}), which the topology lacks",
                hint="--topology with the hardware that it was placed on",
            )


def set_topology(module: ModuleOp, topology: Topology) -> None:
    """Puts the topology at the top of the module, in place of the one that it has."""
    present = topology_of(module)
    if present is not None:
        present.detach()
        present.erase()
    first = module.body.block.first_op
    if first is None:
        module.body.block.add_op(topology_op(topology))
    else:
        module.body.block.insert_op_before(topology_op(topology), first)
