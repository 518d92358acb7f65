"""Hardware as data: kinds of devices and links, topologies, routes, and the calibration of this machine."""

from gimlet.compiler.hardware.kinds import kind_names, link_names, load_kind, load_link
from gimlet.compiler.hardware.routes import route, transfer_seconds
from gimlet.compiler.hardware.topology import default_topology, load_topology

__all__ = [
    "default_topology",
    "kind_names",
    "link_names",
    "load_kind",
    "load_link",
    "load_topology",
    "route",
    "transfer_seconds",
]
