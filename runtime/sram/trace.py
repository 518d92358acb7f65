"""What a program's time is made of: a trace that Perfetto opens, and a table of units and stalls.

All cores of a kernel run the same stream, so the trace has one core, the busiest: a track for each of its units, one
for the kernels (each for the cycles by which it makes the program longer), and one for repetitions that the cycle model
did not walk because they are like the last one walked. A cycle of the machine is a microsecond of the trace, since the
format has nothing smaller in whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gimlet.runtime.sram.binding import BoundProgram
from gimlet.runtime.sram.cycles import Timing, time_program
from gimlet.runtime.sram.queues import UNITS, Event

_TRACKS = ("kernels", *UNITS, "steady")


def trace(bound: BoundProgram) -> dict[str, Any]:
    """The events of a program in the form of chrome's trace viewer, which ui.perfetto.dev opens."""
    logs: list[list[Event]] = []
    timing = time_program(bound, logs)
    found: list[dict[str, Any]] = [
        {"ph": "M", "pid": 0, "tid": track, "name": "thread_name", "args": {"name": name}}
        for track, name in enumerate(_TRACKS)
    ]
    begin = 0.0
    for kernel, source, log in zip(timing.kernels, bound.kernels, logs, strict=True):
        arguments = {"limit": kernel.limit, "items": kernel.items, "sources": ", ".join(source.kernel.sources)}
        found.append(_span("kernels", kernel.name, begin, float(kernel.cycles), arguments))
        begin += kernel.cycles
        for event in log:
            waited = {"waited": event.waited, "for": event.reason} if event.waited > 0 else {}
            found.append(_span(event.unit, event.what, event.start, event.end - event.start, waited))
    return {"traceEvents": found, "displayTimeUnit": "ms"}


def _span(track: str, name: str, start: float, duration: float, arguments: Mapping[str, Any]) -> dict[str, Any]:
    place = {"ph": "X", "pid": 0, "tid": _TRACKS.index(track), "name": name}
    return {**place, "ts": round(start, 3), "dur": round(duration, 3), "args": dict(arguments)}


def summary(timing: Timing, longest: int = 8) -> str:
    """Cycles, the share in which each unit and memory is busy, why the units of the busiest core wait, long kernels."""
    lines = [
        f"{timing.cycles} cycles, {timing.seconds * 1e6:.1f} µs, {len(timing.kernels)} kernels on {timing.cores} cores"
    ]
    lines.append("busy:  " + "  ".join(f"{name} {share:.1%}" for name, share in timing.utilisation.items()))
    for unit in UNITS:
        waits = stalls(timing, unit)
        parts = [f"{reason} {cycles / max(1, timing.cycles):.1%}" for reason, cycles in waits if cycles]
        lines.append(f"{unit} waits for:  " + ("  ".join(parts) or "nothing"))
    for kernel in sorted(timing.kernels, key=lambda each: -each.cycles)[:longest]:
        lines.append(f"{kernel.cycles:10}  {kernel.name}  {kernel.items} items, limit {kernel.limit}")
    return "\n".join(lines)


def stalls(timing: Timing, unit: str) -> Sequence[tuple[str, float]]:
    """What a unit of the busiest core waits for in all kernels together, in cycles, the longest first."""
    total: dict[str, float] = {}
    for kernel in timing.kernels:
        for (stalled, reason), cycles in kernel.stalls.items():
            if stalled == unit:
                total[reason] = total.get(reason, 0.0) + cycles
    return sorted(total.items(), key=lambda each: -each[1])
