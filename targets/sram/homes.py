"""Which core holds which block of the weights that stay where they are used."""

from __future__ import annotations

import numpy as np


class Homes:
    """The private bytes of every core of a group that resident weights have taken so far, out of `room` bytes each.

    All groups are alike: each has a run of the blocks of a tensor (dealing.py), or all of them.
    """

    def __init__(self, cores: int, room: int) -> None:
        self._taken = np.zeros(cores, np.int64)
        self._limit = room
        self.demand = 0.0
        """What one copy of all weights that may be resident takes of a core."""

    @property
    def room(self) -> int:
        """Bytes that every core has left."""
        return self._limit - int(self._taken.max())

    def spare(self, size: float) -> int:
        """Bytes of a core for more copies of weights of `size`: their part of what one copy of all weights leaves."""
        left = self._limit - self.demand
        return int(left * size / self.demand) if left > 0 < self.demand else 0

    def take(self, blocks: int, block_bytes: int) -> tuple[int, int]:
        """The core of block 0 of a run and the address of the blocks on every core; block b goes b cores further.

        Blocks have one address on all cores: the run begins where that is lowest, and where least is left free below.
        """
        cores = len(self._taken)
        if blocks >= cores:
            first = 0
        else:
            windows = np.lib.stride_tricks.sliding_window_view(np.tile(self._taken, 2)[: cores + blocks - 1], blocks)
            address = windows.max(axis=1)
            first = int(np.lexsort((-windows.sum(axis=1), address))[0])
        used = (first + np.arange(min(blocks, cores))) % cores
        begin = int(self._taken[used].max())
        self._taken[used] = begin + -(-blocks // cores) * block_bytes
        return first, begin
