"""The longest path of a program: what its last cycle waits for, and what that waits for, back to the first.

Stalls say for how long each unit waits, and many wait at once. The path has every cycle of the program once, and says
what it goes to: what a faster link, a faster unit or fewer bytes would take off, until another path is the longest.

It is walked backwards through what the cycle model has logged of the busiest core. From an instruction it goes to what
the instruction waited for, which has ended then: the one before it in its queue, the one that made its operand or read
the copy that it writes, or the last store of a kernel whose semaphore it needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gimlet.runtime.sram.binding import BoundProgram
from gimlet.runtime.sram.cycles import KernelTime, Timing, time_program
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.queues import Event

_EXACT = 1e-6
_UNITS = {
    "dma_in": "transfers",
    "dma_out": "transfers",
    "array": "tiles into the array",
    "matrix": "matrix unit",
    "vector": "vector unit",
}
_LIMITS = {
    "sram": "bytes of SRAM",
    "lpddr": "bytes of LPDDR",
    "die": "bytes of die links",
    "card": "bytes of card links",
}
_REPEATED = "repetitions"
_UNKNOWN = "not followed"


def longest_path(bound: BoundProgram) -> Mapping[str, float]:
    """The cycles of the longest path by what they go to, the most first. They add up to the last kernel's end.

    `repetitions` are those of loops and items that the cycle model takes to be like the last one that it walked, `not
    followed` is before an instruction whose cause it has no log of (on another chiplet than the first).
    """
    logs: list[list[Event]] = []
    timing = time_program(bound, logs)
    walk = _Walk(bound.program.machine, timing, logs)
    walk.run()
    return dict(sorted(walk.spent.items(), key=lambda each: -each[1]))


def path_summary(path: Mapping[str, float]) -> str:
    """One line of what the longest path goes to, in cycles."""
    return "longest path:  " + ("  ".join(f"{what} {cycles:.0f}" for what, cycles in path.items()) or "nothing")


@dataclass(frozen=True)
class _Place:
    """An event: its kernel's number, and its own in the log of that."""

    kernel: int
    index: int


@dataclass
class _Walk:
    machine: Machine
    timing: Timing
    logs: Sequence[Sequence[Event]]
    spent: dict[str, float] = field(default_factory=dict[str, float])

    def run(self) -> None:
        kernels = self.timing.kernels
        if not kernels:
            return
        last = max(range(len(kernels)), key=lambda number: kernels[number].end)
        at, place = kernels[last].end, self.landed(last, kernels[last].end)
        while place is not None:
            event = self.logs[place.kernel][place.index]
            at, place = event.start, self.before(place, event)
        self.spend(_UNKNOWN, at)

    def spend(self, what: str, cycles: float) -> None:
        if cycles > _EXACT:
            self.spent[what] = self.spent.get(what, 0.0) + cycles

    def landed(self, number: int, at: float) -> _Place | None:
        """The event that a kernel ends with at a time; its first one where bytes decide, which then are all of it."""
        kernel = self.timing.kernels[number]
        if kernel.limit != "core" and kernel.end <= at + _EXACT:
            self.spend(_LIMITS[kernel.limit], at - kernel.begin)
            return self.first(number, kernel)
        end = _Place(number, len(self.logs[number]))
        return self.ended(end, at, ("dma_out",), self.latencies) or self.ended(end, at, tuple(_UNITS), self.latencies)

    def first(self, number: int, kernel: KernelTime) -> _Place | None:
        """The first event of a kernel."""
        found = (index for index, each in enumerate(self.logs[number]) if abs(each.start - kernel.begin) < _EXACT)
        index = next(found, None)
        return None if index is None else _Place(number, index)

    def before(self, place: _Place, event: Event) -> _Place | None:
        """What an event has waited for; None where it began with the program, or where that is not known."""
        reason, none = event.reason, {"no latency": 0.0}
        if event.start < _EXACT:
            return None
        if reason == "semaphore":
            return self.signalled(place, event.start)
        if reason == "issue":
            return self.issued(place, event)
        if reason == "memory of another kernel":
            return self.earlier(place, event.start, tuple(_UNITS), {**self.latencies, **none})
        unit = event.unit if not reason else "matrix" if reason == "product before" else reason.rpartition(" ")[2]
        waits = self.latencies if reason == "operand from dma_in" else none
        found = self.ended(place, event.start, (unit,), waits)
        return found or self.earlier(place, event.start, (unit,), waits)

    def signalled(self, place: _Place, at: float) -> _Place | None:
        """The last event of the kernel whose semaphore is seen at a time."""
        cycles = self.machine.semaphore_cycles
        for number in reversed(range(place.kernel)):
            if abs(self.timing.kernels[number].end + cycles - at) < _EXACT:
                self.spend("semaphores", cycles)
                return self.landed(number, at - cycles)
        return None

    def issued(self, place: _Place, event: Event) -> _Place | None:
        """What the event right before one has waited for, which its unit could not decode any sooner."""
        for where, each, shift in self.back(place):
            if each.unit == event.unit:
                self.spend("issue", self.machine.issue_cycles)
                self.spend(_REPEATED, shift)
                # Only its start counts: what it waited for is what this one waited for.
                return self.before(where, each)
        return None

    def earlier(self, place: _Place, at: float, units: Sequence[str], waits: Mapping[str, float]) -> _Place | None:
        """An event of a kernel before that has ended at a time."""
        for number in reversed(range(place.kernel)):
            found = self.ended(_Place(number, len(self.logs[number])), at, units, waits)
            if found is not None:
                return found
        return None

    def ended(self, place: _Place, at: float, units: Sequence[str], waits: Mapping[str, float]) -> _Place | None:
        """The latest event before a place, in its kernel, of one of the units, that has ended `at` or a wait before."""
        for where, each, shift in self.back(place):
            for name, wait in waits.items():
                if each.unit in units and abs(each.end + shift + wait - at) < _EXACT:
                    self.wait(name, wait)
                    self.spend(_REPEATED, shift)
                    self.spend(_UNITS[each.unit], each.end - each.start)
                    return where
        return None

    def back(self, place: _Place) -> Iterator[tuple[_Place, Event, float]]:
        """The events before a place in its kernel, the latest first, and by how much repetitions since put them off."""
        shift = 0.0
        for index in reversed(range(place.index)):
            event = self.logs[place.kernel][index]
            if event.unit == "steady":
                shift += event.end - event.start
            else:
                yield _Place(place.kernel, index), event, shift

    @property
    def latencies(self) -> Mapping[str, float]:
        """How long after its last byte has left a transfer may arrive, the shortest way first."""
        machine = self.machine
        inside = float(machine.network_latency_cycles)
        die, card = (
            inside + machine.die_latency_cycles,
            inside + machine.die_latency_cycles + machine.card_latency_cycles,
        )
        return {"inside": inside, "die": die, "card": card, "lpddr": float(machine.lpddr_latency_cycles)}

    def wait(self, name: str, cycles: float) -> None:
        """Spends a latency: what crosses a link goes through the networks on both sides too."""
        machine = self.machine
        if name == "lpddr":
            self.spend("latency of LPDDR", cycles)
        elif name != "no latency":
            self.spend("latency inside chiplets", machine.network_latency_cycles)
            self.spend("latency between chiplets", machine.die_latency_cycles * (name in ("die", "card")))
            self.spend("latency between cards", machine.card_latency_cycles * (name == "card"))
