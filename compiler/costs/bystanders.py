"""How busy other work keeps the cores of this process while something is timed.

A median forgives a disturbed run, but not a machine that is busy all the time: what wants all cores loses there to what
wants one, whatever it would be on a quiet machine.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE = (3, 4)
"""Of the times of a core in /proc/stat (proc(5)): idle, and waiting for a disk."""
_COUNTED = 8
"""user, nice, system, idle, iowait, irq, softirq, steal; what comes behind is in the first two."""
_SHORTEST_S = 0.2
"""The system counts in hundredths of a second: a shorter time says nothing."""


class Bystanders:
    """From when it is made on, what share of the cores that this process may use others had."""

    def __init__(self) -> None:
        self._busy = _busy_seconds()
        self._own = time.process_time()
        self._begin = time.perf_counter()

    def share(self) -> float | None:
        """From 0 to 1; None where the system does not say, or too little time has passed."""
        passed, own, busy = time.perf_counter() - self._begin, time.process_time() - self._own, _busy_seconds()
        if self._busy is None or busy is None or passed < _SHORTEST_S:
            return None
        cores = len(os.sched_getaffinity(0))
        return min(1.0, max(0.0, (busy - self._busy - own) / (passed * cores)))


def _busy_seconds() -> float | None:
    """Seconds that all who use the cores of this process have had of them, since the system started."""
    try:
        names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        lines = [line.split() for line in _STAT.read_text(encoding="ascii").splitlines()]
        ticks = [
            int(value)
            for name, *values in lines
            if name in names
            for place, value in enumerate(values[:_COUNTED])
            if place not in _IDLE
        ]
        return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None
    except (AttributeError, OSError, ValueError):
        return None
