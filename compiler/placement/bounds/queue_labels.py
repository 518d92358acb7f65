"""What `queue_bound` knows of segments: how they follow each other, when they can have ended, and queues on links."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.model.problem import Route

_INFINITE = float("inf")
_PARTS = 2
_MOST_PARTS = 256
_MOST_CELLS = 800_000
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """A way to divide a block: bytes of inputs and outputs in the segment before and in the one after it.

    `third` says that some node is in neither. `sent` are bytes of inputs that such nodes read and that go on to the
    segment after it, so cross its link besides its own inputs.
    """

    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    third: bool = False
    sent: int = 0


@dataclass(frozen=True)
class Change:
    """From a segment on one place to one on another, `onto`, which `state` stands for: equal devices are exchanged."""

    left: int
    onto: int
    state: int
    same_device: bool = False


@dataclass(frozen=True)
class Queue:
    """What segments right before on the same device have on its links, in seconds.

    `inward_s` is how long the way from the host is taken, `outward_s` until when the way to it is.
    """

    inward_s: float = 0.0
    outward_s: float = 0.0


@dataclass(frozen=True)
class Entry:
    """A segment that starts with joint `step` on the place `onto`: what it has of its first block, and what was before.

    `state` is the place that stands for `change.onto`. `before` is (place, side, part) where the segment before ended:
    `part` is that of its `Kept`, or -1 for the first to end. `side` is how the block between them is divided.
    """

    step: int
    change: Change
    head: tuple[int, int]
    queue: Queue
    before: tuple[int, int, int] | None
    side: int

    @property
    def state(self) -> int:
        return self.change.state


@dataclass(frozen=True)
class Ended:
    """By last joint of a segment and side of the block behind it: when it can have ended, and its links' queues."""

    seconds: Array
    inward_s: Array
    outward_s: Array


@dataclass(frozen=True)
class Links:
    """The ways from the host to a device and back, and the most that the first could carry. The host has none."""

    inward: Route
    outward: Route
    bytes_in: float

    @property
    def held_in(self) -> float:
        return max((seconds for _, seconds in self.inward.links), default=0.0)

    @property
    def held_out(self) -> float:
        return max((seconds for _, seconds in self.outward.links), default=0.0)


class Kept:
    """What is known of segments by last joint and side, for those that follow on the same device.

    `first` has the first to end. The others are in parts by how long the way from the host is taken and until when the
    one to it is; of a part only the least of everything is kept.
    """

    def __init__(self, count: int, width: int, links: Links, deadline: float) -> None:
        longest_s = links.held_in * links.bytes_in
        many = min(max(_MOST_CELLS // (_PARTS * count * width), 1), _MOST_PARTS) if links.held_out else 1
        self.shape = _PARTS if longest_s else 1, many
        self.most_s = longest_s or 1.0, deadline or 1.0
        parts = self.shape[0] * self.shape[1]
        self.first = np.full((count, width), _INFINITE)
        self.chosen = np.full((count, width), -1)
        self.seconds, self.inward_s, self.outward_s = (np.full((count, width, parts), _INFINITE) for _ in range(3))
        self.chosen_by_part = np.full((count, width, parts), -1)

    def add(self, number: int, step: int, ended: Ended) -> None:
        """Adds a segment, the entry `number`, that starts with a joint."""
        better = ended.seconds < self.first[step:]
        self.first[step:][better] = ended.seconds[better]
        self.chosen[step:][better] = number
        rows, sides = np.nonzero(ended.seconds < _INFINITE)
        seconds, inward, outward = (each[rows, sides] for each in (ended.seconds, ended.inward_s, ended.outward_s))
        first, second = (
            np.minimum((each / most * parts).astype(np.int64), parts - 1)
            for each, most, parts in zip((inward, outward), self.most_s, self.shape, strict=True)
        )
        part = first * self.shape[1] + second
        cells = rows + step, sides, part
        sooner = seconds < self.seconds[cells]
        self.chosen_by_part[cells] = np.where(sooner, number, self.chosen_by_part[cells])
        self.seconds[cells] = np.minimum(self.seconds[cells], seconds)
        self.inward_s[cells] = np.minimum(self.inward_s[cells], inward)
        self.outward_s[cells] = np.minimum(self.outward_s[cells], outward)

    def before(self, step: int, side: int, same_device: bool) -> Iterator[tuple[int, float, Queue]]:
        """Part, seconds and queue of segments that ended before a joint."""
        if not same_device:
            yield -1, float(self.first[step - 1, side]), Queue()
            return
        for part in np.nonzero(self.seconds[step - 1, side] < _INFINITE)[0].tolist():
            cell = step - 1, side, part
            yield part, float(self.seconds[cell]), Queue(float(self.inward_s[cell]), float(self.outward_s[cell]))

    def entry(self, step: int, side: int, part: int) -> int:
        """The entry of what `before` gave."""
        return int(self.chosen[step, side] if part < 0 else self.chosen_by_part[step, side, part])


def undominated(ways: Iterable[tuple[float, Entry]]) -> Iterator[tuple[float, Entry]]:
    """Those that no other is sooner than and has shorter queues."""
    kept: list[Queue] = []
    for time, entry in sorted(ways, key=lambda way: (way[0], way[1].queue.inward_s, way[1].queue.outward_s)):
        queue = entry.queue
        if not any(q.inward_s <= queue.inward_s and q.outward_s <= max(queue.outward_s, time) for q in kept):
            kept.append(queue)
            yield time, entry
