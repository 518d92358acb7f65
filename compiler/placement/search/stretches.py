"""What consecutive nodes of an order need of a device's memory, and what the weights that it streams take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.model.problem import Problem


class Stretches:
    """Stretches of one order on one place. A weight counts once a stretch, however many of its nodes use it."""

    def __init__(self, problem: Problem, order: Sequence[int], place: int) -> None:
        device = problem.device_of[place]
        spec = problem.devices[device]
        self.capacity = float("inf") if spec.memory_bytes is None else float(spec.memory_bytes)
        self.room = float(spec.fast_bytes or 0) if device in problem.streaming else float("inf")
        rank = {node: position for position, node in enumerate(order)}
        held = [number for number in problem.streamed_first if problem.weights[number].size_bytes.get(place, 0)]
        uses = [
            (rank[user], index, problem.weights[number].streaming_s(user, place))
            for index, number in enumerate(held)
            for user in problem.weights[number].users
        ]
        uses.sort()
        self.sizes: NDArray[np.float64] = np.array([problem.weights[n].size_bytes[place] for n in held], dtype=float)
        self.positions: NDArray[np.int64] = np.array([position for position, *_ in uses], dtype=np.int64)
        self.weights: NDArray[np.int64] = np.array([index for _, index, _ in uses], dtype=np.int64)
        self.longer: NDArray[np.float64] = np.array([seconds for *_, seconds in uses], dtype=float)
        options = [problem.nodes[node].options.get(place) for node in order]
        self.activations: NDArray[np.float64] = np.array(
            [0 if option is None else option.activation_bytes for option in options], dtype=float
        )

    @property
    def matters(self) -> bool:
        """Whether some stretch could be short of memory or stream a weight."""
        most = float(self.sizes.sum()) + float(self.activations.max(initial=0.0))
        return most > min(self.capacity, self.room)

    def seconds(self, begin: int, end: int) -> float:
        """What positions from `begin` to before `end` take for streamed weights; infinite where memory is short."""
        first, last = np.searchsorted(self.positions, (begin, end))
        users = self.weights[first:last]
        present = np.zeros(len(self.sizes))
        present[users] = self.sizes[users]
        needed = float(present.sum()) + float(self.activations[begin:end].max(initial=0.0))
        if needed > self.capacity:
            return float("inf")
        if needed <= self.room:
            return 0.0
        longer = np.bincount(users, weights=self.longer[first:last], minlength=len(self.sizes))
        left = needed - self.room - (np.cumsum(present) - present)
        return float((np.clip(left, 0.0, present) / self.sizes * longer).sum())
