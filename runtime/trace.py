"""Records what ran where and when, as a trace that Perfetto and chrome://tracing open."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from time import perf_counter_ns
from typing import Any

PROGRAM_TRACK = "program"


class Trace:
    """Spans of time on named tracks: one track a device, and one for whole runs. Safe to use from several threads.

    Spans of one track come from one thread: where several requests are in flight, a device has a track for each thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tracks: dict[tuple[str, int], int] = {}
        self._events: list[dict[str, Any]] = []
        self._start_ns = perf_counter_ns()

    def add(self, track: str, name: str, start_ns: int, end_ns: int, **details: Any) -> None:
        """Adds a span; times are `perf_counter_ns`."""
        with self._lock:
            number = self._tracks.setdefault((track, threading.get_ident()), len(self._tracks) + 1)
            self._events.append(
                {
                    "name": name,
                    "ph": "X",
                    "pid": os.getpid(),
                    "tid": number,
                    "ts": (start_ns - self._start_ns) / 1e3,
                    "dur": (end_ns - start_ns) / 1e3,
                    "args": details,
                }
            )

    def to_json(self) -> dict[str, Any]:
        """The trace in Chrome's format, times in microseconds."""
        with self._lock:
            names = [
                {"name": "thread_name", "ph": "M", "pid": os.getpid(), "tid": number, "args": {"name": track}}
                for (track, _), number in self._tracks.items()
            ]
            return {"displayTimeUnit": "ms", "traceEvents": names + self._events}

    def write(self, path: Path) -> None:
        """Writes the trace. OSError as the file system has it."""
        path.write_text(json.dumps(self.to_json()))
