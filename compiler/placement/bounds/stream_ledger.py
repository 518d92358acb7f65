"""What a way through a problem takes of devices' memory: allowances of fast memory at a rate, and bytes of all of it.

The terms are those of `stream_bound`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Node, Problem

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_APART = 1.25


def rates_of(problem: Problem) -> list[float]:
    """Rates that the weights' own say: of streaming seconds to bytes, at quarters of all bytes; 0 without any."""
    own: list[tuple[float, int]] = []
    for weight in problem.weights:
        for place, users in weight.stream_s.items():
            size = weight.size_bytes.get(place, 0)
            if problem.device_of[place] in problem.streaming and size and any(users.values()):
                own.append((sum(users.values()) / size, size))
    if not own:
        return [0.0]
    own.sort()
    bytes_below = np.cumsum([size for _, size in own])
    numbers = np.searchsorted(bytes_below, [part * bytes_below[-1] for part in (0.25, 0.5, 0.75, 1.0)])
    rates = [own[min(int(number), len(own) - 1)][0] for number in numbers]
    return [rate for number, rate in enumerate(rates) if not number or rate > _APART * rates[number - 1]]


@dataclass(frozen=True)
class Key:
    """Where a joint is, devices of a class being alike: a class, and the place on a device of it. -1 is the host."""

    kind: int
    place: int


HOST = Key(-1, -1)


@dataclass
class Ledger:
    """What can be taken from devices at one rate, as columns of an array.

    The members of a class take turns: the one in use, or used last, is at position 0. `segments` is the column of
    launches where they are limited, else -1.
    """

    problem: Problem
    rate: float
    classes: list[list[int]] = field(init=False)
    first: list[int] = field(init=False)
    width: list[int] = field(init=False)
    limit: Floats = field(init=False)
    is_time: NDArray[np.bool_] = field(init=False)
    segments: int = field(init=False)

    def __post_init__(self) -> None:
        problem = self.problem
        self.classes = [members for members in device_classes(problem) if any(d in problem.device_of for d in members)]
        self.first, self.width, limits, times = [], [], list[float](), list[bool]()
        for members in self.classes:
            own = list(self._limits(members[0]))
            self.first.append(len(limits))
            self.width.append(len(own))
            limits += [limit for limit, _ in own] * len(members)
            times += [is_time for _, is_time in own] * len(members)
        self.segments = -1 if problem.rules.max_segments is None else len(limits)
        if problem.rules.max_segments is not None:
            limits.append(float(problem.rules.max_segments))
            times.append(False)
        self.limit, self.is_time = np.array(limits), np.array(times, dtype=bool)

    def _limits(self, device: int) -> Iterator[tuple[float, bool]]:
        """The allowance in seconds and the memory in bytes, as far as a device has them and they could bind."""
        problem = self.problem
        spec = problem.devices[device]
        if self.streams(device):
            yield self.rate * (spec.fast_bytes or 0), True
        places = [place for place, found in enumerate(problem.device_of) if found == device]
        most = sum(max((w.size_bytes.get(place, 0) for place in places), default=0) for w in problem.weights)
        # A group's memory is its members'.
        if spec.memory_bytes is not None and not spec.members and most > spec.memory_bytes:
            yield float(spec.memory_bytes), False

    def streams(self, device: int) -> bool:
        return device in self.problem.streaming and self.rate > 0

    def places(self, kind: int, member: int = 0) -> list[int]:
        device = self.classes[kind][member]
        return [place for place, found in enumerate(self.problem.device_of) if found == device]

    def charged(self, device: int) -> Problem:
        """The problem in which nodes on one device are as much longer as their charges."""
        more: dict[tuple[int, int], float] = {}
        for weight in self.problem.weights:
            for place, users in weight.stream_s.items():
                total = sum(users.values())
                if self.problem.device_of[place] != device or not total:
                    continue
                part = min(1.0, self.rate * weight.size_bytes.get(place, 0) / total)
                for user, seconds in users.items():
                    more[user, place] = more.get((user, place), 0.0) + part * seconds

        def longer(number: int, node: Node) -> Node:
            return replace(
                node,
                options={
                    place: replace(option, seconds=option.seconds + more.get((number, place), 0.0))
                    for place, option in node.options.items()
                },
            )

        return replace(self.problem, nodes=tuple(longer(n, node) for n, node in enumerate(self.problem.nodes)))

    def swapped(self, kind: int, position: int) -> Integers:
        """The order of columns in which a member of a class comes to position 0."""
        order = np.arange(len(self.limit))
        width, first = self.width[kind], self.first[kind]
        other = first + position * width
        order[first : first + width], order[other : other + width] = (
            np.arange(other, other + width),
            np.arange(first, first + width),
        )
        return order

    def untouched(self, taken: Floats, kind: int, position: int) -> NDArray[np.bool_]:
        """Where nothing has been taken of the member at a position."""
        start = self.first[kind] + position * self.width[kind]
        return np.logical_not(taken[:, start : start + self.width[kind]].any(axis=1))
