"""Which core holds which block of the weights that stay where they are used."""

from __future__ import annotations


class Homes:
    """The private bytes of every core of a group that resident weights have taken so far, out of `room` bytes each.

    All groups are alike: each has a run of the blocks of a tensor (dealing.py), or all of them.
    """

    def __init__(self, cores: int, room: int) -> None:
        self._taken = [0] * cores
        self._limit = room
        self._next = 0
        self.demand = 0.0
        """What one copy of all weights that may be resident takes of a core."""

    @property
    def room(self) -> int:
        """Bytes that every core has left."""
        return self._limit - max(self._taken)

    def spare(self, size: float) -> int:
        """Bytes of a core for more copies of weights of `size`: their part of what one copy of all weights leaves."""
        left = self._limit - self.demand
        return int(left * size / self.demand) if left > 0 < self.demand else 0

    def take(self, blocks: int, block_bytes: int) -> tuple[int, int]:
        """The core of block 0 of a run and the address of the blocks on every core; block b goes b cores further.

        The cores after those of the tensor before come first, so that small tensors fill all cores alike.
        """
        cores = len(self._taken)
        first = self._next if blocks < cores else 0
        used = [(first + block) % cores for block in range(min(blocks, cores))]
        address = max(self._taken[core] for core in used)
        for core in used:
            self._taken[core] = address + -(-blocks // cores) * block_bytes
        self._next = (first + blocks) % cores
        return first, address
