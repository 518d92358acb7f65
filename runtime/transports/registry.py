"""Which transport connects two kinds of devices: through the host, unless something better is installed.

Packages register `KIND_A--KIND_B = "module:Class"` (with `/` in a kind as `.`) in the entry-point group
`gimlet.transports`. It is scanned only where a value goes between two devices neither of which is the host.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import cast

from gimlet.runtime.executors.base import HOST_MEMORY
from gimlet.runtime.transports.base import Transport
from gimlet.runtime.transports.host import HostTransport

TRANSPORTS: dict[tuple[str, str], str] = {}
_HOST = HostTransport()


@lru_cache(maxsize=64)
def load_transport(source_kind: str, target_kind: str, source_memory: str, target_memory: str) -> Transport:
    """The transport from a device of one hardware kind to one of another."""
    if HOST_MEMORY in (source_memory, target_memory):
        return _HOST
    path = TRANSPORTS.get((source_kind, target_kind)) or _entry_point(source_kind, target_kind)
    if path is None:
        return _HOST
    module, _, attribute = path.partition(":")
    return cast(type[Transport], getattr(import_module(module), attribute))()


def _entry_point(source_kind: str, target_kind: str) -> str | None:
    from importlib.metadata import entry_points

    name = f"{source_kind}--{target_kind}".replace("/", ".")
    for point in entry_points(group="gimlet.transports", name=name):
        return point.value
    return None
