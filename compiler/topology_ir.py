"""A topology as the IR spells it."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from gimlet.dialects.placement import DeviceOp, LinkOp, TopologyOp, topology_of
from gimlet.targets.api import Topology


def topology_op(topology: Topology) -> TopologyOp:
    """The `placement.topology` of a topology."""
    devices = [DeviceOp(device.name, device.kind.name) for device in topology.devices]
    links = [LinkOp(link.name, *link.between, link.kind, (link.latency_s, link.bandwidth)) for link in topology.links]
    return TopologyOp(topology.name, [*devices, *links], topology.host)


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
