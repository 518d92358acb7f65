"""How much host memory a build takes, and how much there is.

Peaks of 3 to 4.4 times the weights were measured (recognition network 15 MB, SmolLM2-135M in float32 561 MB), on top of
what the library itself takes once it is loaded.
"""

from __future__ import annotations

from pathlib import Path

PEAK_PER_WEIGHT_BYTE = 4.4
LIBRARY_BYTES = 400 << 20

_CGROUP = Path("/sys/fs/cgroup")


def predicted_bytes(weight_bytes: int) -> int:
    """The peak of host memory while an engine with this many bytes of weights is built."""
    return int(PEAK_PER_WEIGHT_BYTE * weight_bytes) + LIBRARY_BYTES


def available_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int | None:
    """The memory that this process may still take: the machine's, or its control group's where that is less.

    None where the system does not say.
    """
    found: list[int] = []
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) << 10)
    except (OSError, ValueError):
        pass
    try:
        limit = int((cgroup / "memory.max").read_text())
        found.append(max(0, limit - int((cgroup / "memory.current").read_text())))
    except (OSError, ValueError):
        pass
    return min(found, default=None)
