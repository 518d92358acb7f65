"""Which core has what: items, blocks of weights and elements of tensors are dealt by one rule.

A program's cores are `parts` groups of neighbours, one a chiplet. A sequence is cut into as many runs, equal but for
the last; run r goes to group r, and is dealt round-robin there. So what is next to each other stays on one chiplet:
item i of an elementwise kernel and the elements that it works on, the rows of a result and the items that make them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def within(values: Array, low: int, high: int) -> Array:
    """What np.clip gives, at a fifth of its price where there are few numbers, as here."""
    return np.minimum(np.maximum(values, low), high)


@dataclass(frozen=True)
class Dealing:
    """`cores` in `parts` groups, every group as large as the others, the first of them core `begin`."""

    cores: int
    parts: int
    begin: int = 0

    @property
    def group(self) -> int:
        """Cores of one group."""
        return self.cores // self.parts

    def run(self, count: int) -> int:
        """How many of `count` things one group gets."""
        return max(1, -(-count // self.parts))

    def most(self, count: int) -> int:
        """How many of `count` things the core with most of them has."""
        return -(-count // self.cores)

    def groups(self, index: Array | int, count: int) -> Array:
        """The group that each of `count` things is on. What is outside is taken for the nearest."""
        return within(np.asarray(index) // self.run(count), 0, self.parts - 1)

    def cores_of(self, index: Array | int, count: int, first: int = 0) -> Array:
        """The core that each of `count` things is on, a run beginning `first` cores further in its group."""
        group = self.groups(index, count)
        return self.begin + group * self.group + (first + np.asarray(index) - group * self.run(count)) % self.group
