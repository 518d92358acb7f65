"""What collectives take on a group of n devices, for a value of S bytes in all.

An *all-gather* puts together on every member what each has a part of; an *all-reduce* adds up what each has a summand
of. By the algorithm, with the latency a and the seconds a byte b of the slowest step:

- `ring`: n - 1 steps, each of S / n bytes to the next member; an all-reduce goes round twice.
- `direct`: every member sends to all others at once over one port: one step of S (n - 1) / n bytes; an all-reduce has
  two, the first of which adds up parts.

Both move the same bytes, the least there is (Patarasuk and Yuan, 2009: 2 S (n - 1) / n for an all-reduce); they differ
in how often the latency is paid. On a ring over shared links (through the host) every link is as slow as the number of
neighbours that use it in one direction makes it.

A kind of link may say more than its latency: what the library's collectives take over it (`CollectiveFigures`). They
then run in a ring by the quickest of the library's *protocols*, one with short steps at a fraction of the bandwidth
(every few bytes carry a flag, so nobody waits for a whole chunk) and one with long steps at all of it:

    launch + min over protocols(steps * step + traffic / bandwidth + S / n / own bandwidth)

with n - 1 steps and S (n - 1) / n of traffic for an all-gather, twice as much for an all-reduce.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gimlet.compiler.placement.model.problem import Route
from gimlet.targets.api import CollectiveFigures

Algorithm = Literal["ring", "direct"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("ring", "direct")


@dataclass(frozen=True)
class Collectives:
    """The collectives of one group: its size, its algorithm, and the slowest step's latency and seconds a byte."""

    members: int
    algorithm: Algorithm
    latency_s: float
    seconds_per_byte: float
    figures: CollectiveFigures | None = None

    def all_gather_s(self, size_bytes: float) -> float:
        """Seconds until every member has all of a value of `size_bytes`, of which each had an equal part."""
        if self.figures is not None:
            return self._by_protocol(self.figures, size_bytes, rounds=1)
        steps = self.members - 1 if self.algorithm == "ring" else 1
        return steps * self.latency_s + size_bytes * (self.members - 1) / self.members * self.seconds_per_byte

    def all_reduce_s(self, size_bytes: float) -> float:
        """Seconds until every member has the sum of the values of `size_bytes` that each had."""
        if self.figures is not None:
            return self._by_protocol(self.figures, size_bytes, rounds=2)
        return 2 * self.all_gather_s(size_bytes)

    def _by_protocol(self, figures: CollectiveFigures, size_bytes: float, rounds: int) -> float:
        steps, part = rounds * (self.members - 1), size_bytes / self.members
        return figures.launch_s + min(
            steps * (protocol.step_s + part / protocol.bandwidth)
            + (part / protocol.own_bandwidth if protocol.own_bandwidth else 0.0)
            for protocol in figures.protocols
        )


def collectives_of(
    members: Sequence[int],
    routes: Mapping[tuple[int, int], Route],
    algorithm: Algorithm | None = None,
    figures: CollectiveFigures | None = None,
) -> Collectives:
    """The collectives of devices with these routes; `direct` by default where every two have a link of their own.

    `figures` are what the members' links say of collectives. They hold where no algorithm is asked for.
    """
    if algorithm is not None:
        figures = None
    pairs = [(a, b) for a in members for b in members if a != b]
    if algorithm is None:
        algorithm = "direct" if all(len(routes[pair].links) == 1 for pair in pairs) else "ring"
    if algorithm == "direct":
        slowest = [(routes[pair].latency_s, routes[pair].seconds_per_byte) for pair in pairs]
    else:
        ring = [(a, members[(index + 1) % len(members)]) for index, a in enumerate(members)]
        uses = Counter(link for pair in ring for link, _ in routes[pair].links)
        slowest = [
            (routes[pair].latency_s, sum(seconds * uses[link] for link, seconds in routes[pair].links)) for pair in ring
        ]
    return Collectives(len(members), algorithm, max(a for a, _ in slowest), max(b for _, b in slowest), figures)
