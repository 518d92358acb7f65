"""Routes between devices, and what a transfer over one costs.

A transfer stops at every device on its way (host-staged copies), so its time is the sum over the links of
latency + bytes / bandwidth. Which route is shortest therefore depends on the bytes.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from gimlet.runtime.errors import UsageError
from gimlet.targets.api import Link, Topology

REFERENCE_BYTES = 1 << 20
"""The transfer that `route` is the shortest for when nobody says how much is to be moved: 1 MiB."""


def transfer_seconds(links: Sequence[Link], bytes_moved: float) -> float:
    """Seconds that `bytes_moved` take over `links`, one after the other."""
    return sum(link.latency_s + bytes_moved / link.bandwidth for link in links)


def route(topology: Topology, source: str, target: str, bytes_moved: int = REFERENCE_BYTES) -> tuple[Link, ...]:
    """The links from `source` to `target` that take the least time for `bytes_moved`; none if they are one device.

    Of equally quick routes the one with fewer links, then the one whose links were named first. KeyError if a device is
    not in the topology, UsageError if no route joins the two.
    """
    topology.device(source)
    topology.device(target)
    order = {link.name: index for index, link in enumerate(topology.links)}
    queue: list[tuple[float, int, tuple[int, ...], str]] = [(0.0, 0, (), source)]
    reached: set[str] = set()
    while queue:
        seconds, hops, path, device = heapq.heappop(queue)
        if device == target:
            return tuple(topology.links[index] for index in path)
        if device in reached:
            continue
        reached.add(device)
        for link in topology.links:
            if device not in link.between:
                continue
            other = link.between[0] if link.between[1] == device else link.between[1]
            if other not in reached:
                cost = seconds + transfer_seconds((link,), bytes_moved)
                heapq.heappush(queue, (cost, hops + 1, (*path, order[link.name]), other))
    raise UsageError(
        f"no link leads from {source} to {target}",
        where=f"topology {topology.name}",
        hint=f'add a [[link]] with between = ["{source}", "{target}"]',
    )
