"""`host`, this machine: its own calibration where the user made one, else the generic description that is shipped.

A calibration belongs to a processor, its core count and the onnxruntime that was measured: another machine or another
release does not read it. A compile never measures by itself, so that it stays quick and repeatable.
"""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

from gimlet.compiler.options import default_cache

HOST = "host"
_GENERIC = Path(__file__).parent / "host.toml"


@cache
def processor() -> str:
    """The processor's name as the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def machine_key() -> str:
    """What a calibration is valid for, as 12 hexadecimal digits: processor, cores, onnxruntime."""
    facts = "\n".join((processor(), platform.machine(), str(cores()), version("onnxruntime")))
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


def calibration_file() -> Path:
    """Where this machine's calibration is kept, in the user's cache."""
    return default_cache() / f"host-{machine_key()}.toml"


def host_file() -> Path:
    """The description of this machine: its calibration if there is one, else the generic one."""
    own = calibration_file()
    return own if own.is_file() else _GENERIC
