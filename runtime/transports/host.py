"""The transport that always works: through host memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gimlet.runtime.errors import InputError
from gimlet.runtime.executors.base import DONE, Buffer, Event, alloc_host, wait_all
from gimlet.runtime.structures import Structure
from gimlet.runtime.transports.base import Transport


class HostTransport(Transport):
    """Copies by way of the host: one copy where one end is host memory, two where neither is."""

    def copy(self, source: Buffer, target: Buffer, wait: Sequence[Event]) -> Event:
        if isinstance(source, Structure) or isinstance(target, Structure):
            raise InputError("a sequence, an optional or a map cannot be copied to another memory")
        if isinstance(source, np.ndarray):
            if not isinstance(target, np.ndarray):
                return target.upload(source, wait)
            wait_all(wait)
            np.copyto(target, source)
            return DONE
        if isinstance(target, np.ndarray):
            return source.download(target, wait)
        staged = alloc_host(source.dtype, source.shape)
        source.download(staged, wait).wait()
        arrived = target.upload(staged, ())
        # The staging memory goes when this returns, so the copy out of it must be done.
        arrived.wait()
        return DONE
