"""From all cuts of a block to all others, at once: the cuts as a grid with one axis for each part of the block.

What lies between two cuts takes as long as the slowest part does, and a cut leads only to those that hold it. So cuts
are taken together that differ in the longest axis alone: they lead to the same piece of the grid, mostly a small one,
and the other parts take the same time from each of them.
"""

from __future__ import annotations

import time
from functools import reduce
from itertools import product

import numpy as np

from gimlet.compiler.placement.public.joint_blocks import Block, Floats, Indices

# How many times are compared at once.
_AT_ONCE = 2_000_000
# The clock is read once in so many groups of cuts.
_CLOCKED = 16


class Grid:
    """The cuts of a block on a grid. Row 0 stands for the joint before the block, row c + 1 for cut c; column c stands
    for cut c, the last one for the joint behind the block."""

    def __init__(self, block: Block) -> None:
        lengths = [len(part.ideals) for part in block.parts]
        self.order = sorted(range(len(lengths)), key=lambda axis: lengths[axis])
        self.parts = [block.parts[axis] for axis in self.order]
        self.shape = tuple(lengths[axis] for axis in self.order)
        self.size = int(np.prod(self.shape, dtype=np.int64))
        strides = np.array([int(np.prod(self.shape[axis + 1 :], dtype=np.int64)) for axis in range(len(self.shape))])
        self.cut = strides @ block.place[self.order] if len(self.shape) else np.zeros(len(block.holds), np.int64)

    def times(self, ready: Floats, *, helped: bool, at_most: float, until: float) -> tuple[Floats, Indices]:
        """When what lies before each column is done, and the row that it is done soonest from.

        `ready` says when each row is, and rows that are not ready before `at_most` do not count. TimeoutError when
        `time.perf_counter()` passes `until`.
        """
        start = np.full(self.size, np.inf)
        row = np.zeros(self.size, dtype=np.int64)
        start[self.cut] = ready[1:]
        row[self.cut] = 1 + np.arange(len(self.cut))
        if ready[0] <= start[0]:
            start[0], row[0] = ready[0], 0
        start[start >= at_most] = np.inf
        value, origin = self._spread(start, helped, until)
        columns = np.append(self.cut, self.size - 1)
        return value[columns], row[origin[columns]]

    def _spread(self, start: Floats, helped: bool, until: float) -> tuple[Floats, Indices]:
        if not self.shape:
            return start.copy(), np.zeros(1, dtype=np.int64)
        tables = [part.helped if helped else part.alone for part in self.parts]
        value = np.full(self.shape, np.inf)
        origin = np.zeros(self.shape, dtype=np.int64)
        length = self.shape[-1]
        begun = start.reshape(-1, length)
        leads = product(*(range(count) for count in self.shape[:-1]))
        for group, lead in enumerate(leads):
            if group % _CLOCKED == 0 and time.perf_counter() > until:
                raise TimeoutError
            rows = np.flatnonzero(np.isfinite(begun[group]))
            if not len(rows):
                continue
            reached = [np.flatnonzero(np.isfinite(table[b])) for table, b in zip(tables, lead, strict=False)]
            others = [table[b, to] for table, b, to in zip(tables, lead, reached, strict=False)]
            slowest = reduce(np.maximum.outer, others) if others else np.zeros(())
            piece = np.ix_(*reached, np.arange(length))
            step = max(1, _AT_ONCE // max(slowest.size * length, 1))
            for first in range(0, len(rows), step):
                if time.perf_counter() > until:
                    raise TimeoutError
                some = rows[first : first + step]
                last = tables[-1][some].reshape(len(some), *(1 for _ in lead), length)
                done = np.maximum(last, slowest[..., None])
                done += begun[group, some].reshape(-1, *(1 for _ in self.shape))
                best = done.argmin(axis=0)
                least = np.take_along_axis(done, best[None], axis=0)[0]
                better = least < value[piece]
                value[piece] = np.where(better, least, value[piece])
                origin[piece] = np.where(better, group * length + some[best], origin[piece])
        return value.reshape(-1), origin.reshape(-1)
