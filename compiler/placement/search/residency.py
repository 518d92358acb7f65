"""Which weights are where while nodes move: bytes on each device, and what streaming the rest of them takes.

It answers as `streaming.streamed_by` and `schedule.memory_of` do, but a move costs microseconds: counts are kept by
weight and place, and only what a move touches is counted again. A weight in a group of devices counts on the group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.model.problem import Problem


class Residency:
    """The weights and the largest activations of each device under the current places."""

    def __init__(self, problem: Problem, place: Sequence[int]) -> None:
        self.problem = problem
        self.limits = {
            device: spec.memory_bytes
            for device, spec in enumerate(problem.devices)
            if spec.memory_bytes is not None and problem.memory_can_bind
        }
        self.devices = {*self.limits, *problem.streaming}
        self.bytes = dict.fromkeys(self.devices, 0)
        self.peaks: dict[int, dict[int, int]] = {device: {} for device in self.devices}
        self.stores = {device: _Store(problem, device) for device in problem.streaming}
        self.weights: list[list[int]] = [[] for _ in problem.nodes]
        for number, weight in enumerate(problem.weights if self.devices else ()):
            for user in weight.users:
                self.weights[user].append(number)
        self.users: dict[tuple[int, int], int] = {}
        for node, used in enumerate(place):
            self._change(node, used, 1)

    def move(self, node: int, before: int, after: int) -> None:
        """The node leaves one place for another."""
        if before != after and self.devices:
            self._change(node, before, -1)
            self._change(node, after, 1)

    def _change(self, node: int, place: int, sign: int) -> None:
        device = self.problem.device_of[place]
        if device not in self.devices:
            return
        peaks = self.peaks[device]
        activation = self.problem.nodes[node].options[place].activation_bytes
        peaks[activation] = peaks.get(activation, 0) + sign
        if not peaks[activation]:
            del peaks[activation]
        for number in self.weights[node]:
            count = self.users.get((number, place), 0) + sign
            self.users[number, place] = count
            if count == (sign > 0):
                self.bytes[device] += sign * self.problem.weights[number].size_bytes.get(place, 0)
            if device in self.stores:
                self.stores[device].change(number, place, node, sign, count)

    def peak(self, device: int) -> int:
        """The largest activations of any node on a device, in bytes."""
        return max(self.peaks[device], default=0)

    def excess(self, device: int) -> int:
        """Bytes that a device has no room for."""
        limit = self.limits.get(device)
        return 0 if limit is None else max(self.bytes[device] + self.peak(device) - limit, 0)

    def streaming_s(self, device: int) -> float:
        """What a device takes for weights that its fast memory does not keep."""
        store = self.stores.get(device)
        return 0.0 if store is None else store.seconds(self.peak(device))

    def streamed(self, place: Sequence[int]) -> dict[int, float]:
        """What nodes take for weights that are streamed, as `streamed_by` has it; `place` is where they are now."""
        found: dict[int, float] = {}
        for device, store in self.stores.items():
            for number, used, part in store.parts(self.peak(device)):
                weight = self.problem.weights[number]
                for user in weight.users:
                    if place[user] == used:
                        found[user] = found.get(user, 0.0) + part * weight.streaming_s(user, used)
        return found


class _Store:
    """The weights that a device could stream, in the order in which it does."""

    def __init__(self, problem: Problem, device: int) -> None:
        self.problem = problem
        self.room = problem.devices[device].fast_bytes or 0
        places = [place for place, on in enumerate(problem.device_of) if on == device]
        order = [
            (number, place)
            for number in problem.streamed_first
            for place in places
            if problem.weights[number].size_bytes.get(place, 0)
        ]
        self.order = order
        self.position = {key: index for index, key in enumerate(order)}
        self.sizes = np.array([problem.weights[n].size_bytes[p] for n, p in order], dtype=np.float64)
        self.present = np.zeros(len(order))
        self.longer = np.zeros(len(order))

    def change(self, number: int, place: int, node: int, sign: int, count: int) -> None:
        """A user of a weight comes or goes; `count` of them are there after that."""
        position = self.position.get((number, place))
        if position is None:
            return
        weight = self.problem.weights[number]
        self.present[position] = self.sizes[position] if count else 0.0
        # Without users nothing is left of what rounding added up to.
        self.longer[position] = self.longer[position] + sign * weight.streaming_s(node, place) if count else 0.0

    def seconds(self, peak: int) -> float:
        return float((self._parts(peak) * self.longer).sum())

    def parts(self, peak: int) -> list[tuple[int, int, float]]:
        """Weights with their place and the part of them that is streamed."""
        parts = self._parts(peak)
        return [(*self.order[index], float(parts[index])) for index in np.flatnonzero(parts).tolist()]

    def _parts(self, peak: int) -> NDArray[np.float64]:
        excess = float(self.present.sum()) + peak - self.room
        if excess <= 0:
            return np.zeros(len(self.present))
        left = excess - (np.cumsum(self.present) - self.present)
        return np.clip(left, 0.0, self.present) / self.sizes
