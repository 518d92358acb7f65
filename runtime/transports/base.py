"""What a transport is: the way of a value from the memory of one kind of device to another's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from gimlet.runtime.executors.base import Buffer, Event


class Transport(ABC):
    """Copies buffers between two kinds of devices. Stateless: one instance serves every program."""

    @abstractmethod
    def copy(self, source: Buffer, target: Buffer, wait: Sequence[Event]) -> Event:
        """Copies `source` to `target`, of the same type and shape, after every event of `wait`."""
