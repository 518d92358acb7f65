"""What goes over links to and from the stretches of an order: graph inputs, outputs, and values from op to op."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.model.problem import Problem

Row = NDArray[np.float64]


class Carried:
    """Bytes that a stretch of consecutive nodes takes in and gives away. A value counts once a stretch that uses it."""

    def __init__(self, problem: Problem, order: Sequence[int]) -> None:
        rank = {node: position for position, node in enumerate(order)}
        self.count = len(order)
        uses: list[tuple[int, int, int, bool]] = []
        outputs, change = [0] * (self.count + 1), [0] * (self.count + 2)
        for value in problem.values:
            made = value.producer is not None
            before = rank[value.producer] if value.producer is not None else -1
            if value.is_output and made:
                outputs[before + 1] += value.size_bytes
            positions = sorted({rank[consumer] for consumer in value.consumers})
            if made and positions:
                change[before + 1] += value.size_bytes
                change[positions[-1] + 1] -= value.size_bytes
            for position in positions:
                uses.append((position, before, value.size_bytes, made))
                before = position
        uses.sort()
        self.position: NDArray[np.int64] = np.array([use[0] for use in uses], dtype=np.int64)
        self.before: NDArray[np.int64] = np.array([use[1] for use in uses], dtype=np.int64)
        """Where the value was used last before that, or made; -1 for graph inputs that were not."""
        self.sizes: Row = np.array([use[2] for use in uses], dtype=float)
        self.made: NDArray[np.bool_] = np.array([use[3] for use in uses], dtype=bool)
        self.outputs: Row = np.array(list(accumulate(outputs)), dtype=float)
        """Bytes of graph outputs that are made before each position."""
        self.alive: list[int] = list(accumulate(change))[: self.count + 1]
        """Bytes that were made before each position and are used from there on."""
        self._entering: dict[int, tuple[Row, Row]] = {}

    def entering(self, begin: int) -> tuple[Row, Row]:
        """Bytes of graph inputs, and of values made before it, for the stretches from `begin` to before each position.

        The first is to before `begin` itself, so it is zero.
        """
        if begin not in self._entering:
            first = int(np.searchsorted(self.position, begin))
            new = self.before[first:] < begin
            at, made = self.position[first:] - begin + 1, self.made[first:]
            size, length = self.sizes[first:] * new, self.count - begin + 1
            rows = [np.bincount(at, weights=size * own, minlength=length).cumsum() for own in (~made, made)]
            self._entering[begin] = rows[0], rows[1]
        return self._entering[begin]
