"""The cycle model: how long the machine takes for a program, and which unit is busy for how much of it.

It walks the same kernels as the emulator, by what each instruction costs and what it has to wait for (queues.py). A
core goes from kernel to kernel without a break: what orders them are the semaphores that transfers wait for, and the
memory of tiles, which the units of the core have to be done with. The program's time is that of the core that has most
to do in every kernel, all its items taken as full ones, and never less than what LPDDR, the links between chiplets or a
core's SRAM need for all their bytes: those are resources of all kernels together, taken in the program's order. Where
kernels are on one chiplet each, the busiest core of every chiplet is walked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from gimlet.runtime.sram.binding import BoundKernel, BoundProgram
from gimlet.runtime.sram.ordering import transfers
from gimlet.runtime.sram.program import EVERYWHERE, Program
from gimlet.runtime.sram.queues import UNITS, Core, Event, Run
from gimlet.runtime.sram.traffic import Traffic

_ROUNDING = 1e-6
"""Cycles that sums of fractions may be off by."""


@dataclass(frozen=True)
class KernelTime:
    """One kernel: when it ends, what decided that, the cycles all cores' units are busy together, and bytes moved.

    `busiest` are the cycles for which the units of the busiest core are busy.

    `cycles` are those by which it makes the program longer; it may have begun before the kernel before it ended.
    `limit` is `core` where the busiest core's queues decide, else `lpddr`, `die`, `card` or `sram`: its bytes do.
    `stalls` are cycles of the busiest core in which a unit had an instruction and could not start it, by unit and
    reason.
    """

    name: str
    cycles: int
    begin: float
    end: float
    limit: str
    items: int
    busy: Mapping[str, float]
    busiest: Mapping[str, float]
    traffic: Traffic
    stalls: Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Timing:
    """A program at one set of sizes: cycles from first to last, and its kernels in order."""

    cycles: int
    seconds: float
    cores: int
    kernels: tuple[KernelTime, ...]
    lpddr_bytes_per_cycle: float
    die_bytes_per_cycle: float
    card_bytes_per_cycle: float
    sram_bytes_per_cycle: float

    @property
    def last_cycle(self) -> int:
        """The number of the last cycle, counted from 0, which is what some simulators report."""
        return self.cycles - 1

    @property
    def traffic(self) -> Traffic:
        """Bytes moved by the whole program."""
        total = Traffic()
        for kernel in self.kernels:
            total = total + kernel.traffic
        return total

    @property
    def utilisation(self) -> dict[str, float]:
        """For each unit the share of all cores' cycles in which it is busy; for each memory, of its bandwidth."""
        cycles = max(1, self.cycles)
        found = {unit: sum(kernel.busy[unit] for kernel in self.kernels) / (cycles * self.cores) for unit in UNITS}
        traffic = self.traffic
        found["sram"] = traffic.sram / (cycles * self.sram_bytes_per_cycle * self.cores)
        found["lpddr"] = traffic.lpddr / (cycles * self.lpddr_bytes_per_cycle)
        found["die"] = traffic.die / (cycles * self.die_bytes_per_cycle)
        found["card"] = traffic.card / (cycles * self.card_bytes_per_cycle)
        return found


def time_program(bound: BoundProgram, events: list[list[Event]] | None = None) -> Timing:
    """The cycles of a program at the sizes it is bound to. What each kernel does is appended to `events`."""
    program = bound.program
    machine = program.machine
    timeline = _Timeline(program, events)
    kernels = tuple(timeline.kernel(kernel) for kernel in bound.kernels)
    cycles = ceil(timeline.end - _ROUNDING)
    return Timing(
        cycles=cycles,
        seconds=cycles / machine.clock_hz,
        cores=program.cores,
        kernels=kernels,
        lpddr_bytes_per_cycle=machine.lpddr_bytes_per_cycle,
        die_bytes_per_cycle=machine.die_bytes_per_cycle * chiplets_of(program),
        card_bytes_per_cycle=machine.card_bytes_per_cycle * machine.cards,
        sram_bytes_per_cycle=machine.sram_bytes_per_cycle,
    )


def chiplets_of(program: Program) -> int:
    """How many chiplets the program's cores are on."""
    return ceil(program.cores / program.machine.cores_per_chiplet)


def cycle_of(bound: BoundProgram, kernel: str, instruction: int) -> int:
    """The cycle in which an instruction of a kernel starts for the first time, or the kernel, if it never does."""
    events: list[list[Event]] = []
    timing = time_program(bound, events)
    for time, each, log in zip(timing.kernels, bound.kernels, events, strict=True):
        if each.kernel.name == kernel:
            starts = [event.start for event in log if event.index == instruction]
            return ceil(min(starts, default=time.begin))
    return timing.cycles


class _Timeline:
    """All kernels so far: the queues of the busiest core, what all cores share, and which kernels are done when."""

    def __init__(self, program: Program, events: list[list[Event]] | None) -> None:
        self.program = program
        self.events = events
        self.done: dict[str, float] = {}
        places = {kernel.chiplet for kernel in program.kernels} - {EVERYWHERE} or {EVERYWHERE}
        self.cores = {place: Core(program, chiplets_of(program), self.done) for place in sorted(places)}
        self.end = 0.0
        self.taken: dict[tuple[str, int], float] = {}
        """Until when the bytes of the kernels so far keep a resource busy, a core's SRAM on each chiplet."""

    def kernel(self, kernel: BoundKernel) -> KernelTime:
        log: list[Event] = []
        if self.events is not None:
            self.events.append(log)
        machine, items, on = self.program.machine, kernel.items, kernel.kernel.chiplet
        cores = {on: self.cores[on]} if on in self.cores else self.cores
        core = next(iter(cores.values()))
        waited = max((core.done_at(name) for each in transfers(kernel.kernel) for name in each.after), default=0.0)
        rounds = self.program.dealing_on(on).most(items)
        told = min(cores) if self.events is not None else None
        runs = {place: each.run(kernel, rounds, log if place == told else None) for place, each in cores.items()}
        run = max(runs.values(), key=lambda each: each.end)
        traffic = run.traffic.scaled(items / rounds) if rounds else Traffic()
        needs = {
            "sram": run.traffic.sram / machine.sram_bytes_per_cycle,
            "lpddr": traffic.lpddr / machine.lpddr_bytes_per_cycle,
            "die": traffic.die / (machine.die_bytes_per_cycle * (chiplets_of(self.program) if on == EVERYWHERE else 1)),
            "card": traffic.card / (machine.card_bytes_per_cycle * (machine.cards if on == EVERYWHERE else 1)),
        }
        ends = {"core": run.end}
        for name, cycles in needs.items():
            if cycles:
                ends[name] = self.take(name, runs, cycles)
        limit = max(ends, key=lambda name: ends[name])
        done = max(waited, ends[limit])
        self.done[kernel.kernel.name] = done
        before, self.end = self.end, max(self.end, done)
        busy = {unit: cycles * items / rounds if rounds else 0.0 for unit, cycles in run.busy.items()}
        cycles = ceil(self.end - _ROUNDING) - ceil(before - _ROUNDING)
        return KernelTime(
            kernel.kernel.name, cycles, run.begin, done, limit, items, busy, run.busy, traffic, run.stalls
        )

    def take(self, name: str, runs: Mapping[int, Run], cycles: float) -> float:
        """Keeps a resource busy for so many cycles more, of each chiplet's core that has run; says until when."""
        begins = {place: run.begin for place, run in runs.items()}
        if name != "sram":
            begins = {EVERYWHERE: next(iter(begins.values()))}
        for place, begin in begins.items():
            self.taken[name, place] = max(self.taken.get((name, place), 0.0), begin) + cycles
        return max(self.taken[name, place] for place in begins)
