"""The cycle model: how long the machine takes for a program, and which unit is busy for how much of it.

It walks the same kernels as the emulator, by what each instruction costs and what it has to wait for:

- A core has five queues (dma in, dma out, array, matrix, vector), each in order. An instruction starts when its unit
  is free, what it reads is there, and the copy of the tile that it writes is no longer read (a tile of depth d: the
  reader of d versions ago). That is what lets a load run under a product. A unit decodes an instruction while it runs
  the one before: it starts one every `issue_cycles` at most.
- A DMA transfer moves what a core's port takes, and no more than its share of what all cores use together: LPDDR, and
  the links between chiplets. A load that several items share is read once and delivered to each; it crosses once to
  each chiplet that they are on.
- Array: the held tile goes from the core's SRAM into the array unless it is there already. With one tile in the array
  that waits for the product before; it never waits for what will be streamed against the tile.
- Matrix: `row_cycles` a streamed row, and what the last row needs to come out.
- Vector: `passes` a group of lanes. No unit is faster than the core's SRAM delivers its operands.
- Loops and rounds of items reach a steady state: some iterations are walked, the others take as long as the last
  of those.
- Kernels follow one another. A barrier is before the first load of each that another kernel may have written; loads of
  weights, and tiles of weights on their way into the array, do not wait for it.

A kernel takes as long as the core with the most items, all of them taken as full ones, and never less than what LPDDR,
the links or a core's SRAM need for its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from gimlet.runtime.sram.binding import (
    BoundAccess,
    BoundKernel,
    BoundProgram,
    BoundStatement,
    Step,
    evaluate,
)
from gimlet.runtime.sram.formats import stored_bytes
from gimlet.runtime.sram.functions import FUNCTIONS
from gimlet.runtime.sram.program import (
    REGISTER_PREFIX,
    Gather,
    Load,
    Map,
    Matmul,
    Program,
    Reduce,
    Store,
    read_tiles,
    written_tile,
)

UNITS: tuple[str, ...] = ("dma_in", "dma_out", "array", "matrix", "vector")
_WALKED = 4
"""Iterations of a loop, or items of a core, that are walked before the rest is taken to be alike.

As many more as a tile has copies: the first loads run ahead.
"""
_QUANTIZE_PASSES = 3
_ROUNDING = 1e-6
"""Cycles that sums of fractions may be off by."""


@dataclass(frozen=True)
class Traffic:
    """Bytes that one core moves for an item: in its own SRAM, and its part of what LPDDR and the chips' links carry."""

    sram: float = 0.0
    lpddr: float = 0.0
    die: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.sram + other.sram, self.lpddr + other.lpddr, self.die + other.die)

    def scaled(self, times: float) -> Traffic:
        return Traffic(self.sram * times, self.lpddr * times, self.die * times)


@dataclass(frozen=True)
class KernelTime:
    """One kernel: cycles, what decided them, the cycles each unit of all cores is busy together, and bytes moved.

    `limit` is `core` where the busiest core's queues decide, else `lpddr`, `die` or `sram`: the bytes of that one do.
    `stalls` are cycles of the busiest core in which a unit had an instruction and could not start it, by unit and
    reason.
    """

    name: str
    cycles: int
    limit: str
    items: int
    busy: Mapping[str, float]
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
        return found


@dataclass(frozen=True)
class Event:
    """What a unit of the busiest core did from cycle `start` to `end` of its kernel, after it had waited for `reason`.

    `what` is an instruction, or says how many repetitions were not walked.
    """

    unit: str
    what: str
    start: float
    end: float
    waited: float = 0.0
    reason: str = ""


def time_program(bound: BoundProgram, events: list[list[Event]] | None = None) -> Timing:
    """The cycles of a program at the sizes it is bound to. What each kernel does is appended to `events`."""
    program = bound.program
    machine = program.machine
    logs: list[list[Event]] = [[] for _ in bound.kernels]
    kernels = tuple(
        time_kernel(kernel, program, None if events is None else log)
        for kernel, log in zip(bound.kernels, logs, strict=True)
    )
    if events is not None:
        events += logs
    cycles = sum(kernel.cycles for kernel in kernels)
    return Timing(
        cycles=cycles,
        seconds=cycles / machine.clock_hz,
        cores=program.cores,
        kernels=kernels,
        lpddr_bytes_per_cycle=machine.lpddr_bytes_per_cycle,
        die_bytes_per_cycle=machine.die_bytes_per_cycle * chiplets_of(program),
        sram_bytes_per_cycle=machine.sram_bytes_per_cycle,
    )


def time_kernel(kernel: BoundKernel, program: Program, events: list[Event] | None = None) -> KernelTime:
    """The cycles of one kernel, with the barrier before it. What the busiest core does is appended to `events`."""
    items = kernel.items
    machine = program.machine
    if not items:
        idle = dict.fromkeys(UNITS, 0.0)
        return KernelTime(kernel.kernel.name, machine.barrier_cycles, "core", 0, idle, Traffic(), {})
    rounds = ceil(items / program.cores)
    core = _Core(kernel, program, events)
    core.repeat(kernel.body, rounds)
    cleared = _cleared(kernel, program)
    traffic = core.traffic.scaled(items / rounds) + cleared
    limits = {
        "core": max(core.finished, float(machine.barrier_cycles)),
        "sram": (core.traffic.sram + cleared.sram / program.cores) / machine.sram_bytes_per_cycle,
        "lpddr": traffic.lpddr / machine.lpddr_bytes_per_cycle,
        "die": traffic.die / (machine.die_bytes_per_cycle * chiplets_of(program)),
    }
    limit = max(limits, key=lambda name: limits[name])
    busy = {unit: cycles * items / rounds for unit, cycles in core.busy.items()}
    cycles = ceil(limits[limit] - _ROUNDING)
    return KernelTime(kernel.kernel.name, cycles, limit, items, busy, traffic, core.stalls)


def _cleared(kernel: BoundKernel, program: Program) -> Traffic:
    """The bytes of the tensors that the kernel adds to, which all cores together clear first."""
    added = {each.access.tensor for each in kernel.kernel.statements() if isinstance(each, Store) and each.adds}
    total = Traffic()
    for tensor in (program.tensor(name) for name in sorted(added)):
        size = tensor.capacity_bytes
        total = total + (Traffic(lpddr=size) if tensor.space == "lpddr" else Traffic(sram=size))
    return total


def chiplets_of(program: Program) -> int:
    """How many chiplets the program's cores are on."""
    return ceil(program.cores / program.machine.cores_per_chiplet)


class _Core:
    """The queues of the busiest core of a kernel. All times are cycles from the kernel's begin."""

    def __init__(self, kernel: BoundKernel, program: Program, events: list[Event] | None) -> None:
        self.kernel = kernel
        self.events = events
        self.opcode = ""
        self.program = program
        self.machine = program.machine
        self.tensors = {tensor.name: tensor for tensor in program.tensors}
        self.chiplets = chiplets_of(program)
        self.walked = _WALKED + max((tile.depth for tile in kernel.kernel.tiles), default=0)
        self.sizes = dict(kernel.largest)
        self.steps: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.clock = dict.fromkeys(UNITS, 0.0)
        self.begun = dict.fromkeys(UNITS, 0.0)
        self.busy = dict.fromkeys(UNITS, 0.0)
        self.stalls: dict[tuple[str, str], float] = {}
        self.ready: dict[str, tuple[float, str]] = {}
        self.versions: dict[str, list[tuple[float, str]]] = {}
        self.serials: dict[str, int] = {}
        self.held: list[tuple[str, int]] = []
        self.array_ends: list[float] = []
        self.traffic = Traffic()
        self.spans: dict[int, int] = {}

    @property
    def finished(self) -> float:
        return max(*self.clock.values(), *(at for at, _ in self.ready.values()))

    def repeat(self, body: Sequence[BoundStatement], times: int, loop: str = "") -> None:
        """Walks the first few of `times` repetitions, and takes the others to last as long as the last of those."""
        for index in range(min(times, self.walked)):
            before = dict(self.clock), dict(self.busy), self.traffic, dict(self.stalls)
            self.steps[loop] = index
            for statement in body:
                self.statement(statement)
            if index == self.walked - 1 and times > self.walked:
                self.skip(times - self.walked, *before)

    def skip(
        self,
        times: int,
        clock: Mapping[str, float],
        busy: Mapping[str, float],
        traffic: Traffic,
        stalls: Mapping[tuple[str, str], float],
    ) -> None:
        moved = max(self.clock[unit] - clock[unit] for unit in UNITS) * times
        if self.events is not None:
            at = max(self.clock.values())
            self.events.append(Event("steady", f"{times} more alike", at, at + moved))
        self.clock = {unit: at + moved for unit, at in self.clock.items()}
        self.begun = {unit: at + moved for unit, at in self.begun.items()}
        self.ready = {tile: (at + moved, unit) for tile, (at, unit) in self.ready.items()}
        self.versions = {tile: [(at + moved, unit) for at, unit in ends] for tile, ends in self.versions.items()}
        self.array_ends = [at + moved for at in self.array_ends]
        self.busy = {unit: at + (at - busy[unit]) * times for unit, at in self.busy.items()}
        self.stalls = {key: at + (at - stalls.get(key, 0.0)) * times for key, at in self.stalls.items()}
        self.traffic = self.traffic + (self.traffic + traffic.scaled(-1)).scaled(times)

    def statement(self, statement: BoundStatement) -> None:
        if isinstance(statement, Step):
            self.step(statement)
            return
        name = statement.range.name
        full, tail = statement.range.steps(self.sizes)
        register = f"{REGISTER_PREFIX}{name}.size"
        if full:
            self.sizes[register] = statement.range.step
            self.repeat(statement.body, full, name)
        if tail:
            self.sizes[register] = tail
            self.steps[name] = full
            for each in statement.body:
                self.statement(each)

    def step(self, step: Step) -> None:
        instruction = step.instruction
        self.opcode = type(instruction).__name__.lower()
        match instruction:
            case Load() | Gather() | Store():
                self.transfer(step, instruction)
            case Matmul():
                self.matmul(instruction)
            case _:
                self.vector(step)

    def issue(
        self,
        unit: str,
        reads: Sequence[str],
        written: str | None,
        cycles: float,
        latency: float = 0.0,
        waits: Sequence[tuple[float, str]] = (),
    ) -> None:
        """Puts an instruction at the end of its unit's queue. `waits` are times before which it may not start."""
        limits = [(self.clock[unit], ""), (self.begun[unit] + self.machine.issue_cycles, "issue"), *waits]
        for tile in reads:
            at, producer = self.ready.get(tile, (0.0, "nothing"))
            limits.append((at, f"operand from {producer}"))
        if written is not None and written not in reads:
            limits += self.new_version(written)
        start, reason = max(limits, key=lambda limit: limit[0])
        if start > self.clock[unit]:
            self.stalls[unit, reason] = self.stalls.get((unit, reason), 0.0) + start - self.clock[unit]
        end = start + cycles
        if self.events is not None:
            what = f"{self.opcode} {written or ' '.join(reads)}"
            self.events.append(Event(unit, what, start, end, start - self.clock[unit], reason))
        self.clock[unit], self.begun[unit] = end, start
        self.busy[unit] += cycles
        for tile in reads:
            self.read_until(tile, end, unit)
        if written is not None:
            self.ready[written] = (end + latency, unit)

    def new_version(self, tile: str) -> list[tuple[float, str]]:
        """A tile gets new contents, once the copy that they go to is no longer read."""
        self.serials[tile] = self.serials.get(tile, 0) + 1
        ends = self.versions.setdefault(tile, [])
        depth = self.kernel.tiles[tile].depth
        limits = [(ends[-depth][0], f"copy read by {ends[-depth][1]}")] if len(ends) >= depth > 0 else []
        ends.append((0.0, "nothing"))
        del ends[: -depth - 1]
        return limits

    def read_until(self, tile: str, end: float, unit: str) -> None:
        ends = self.versions.setdefault(tile, [(0.0, "nothing")])
        ends[-1] = max(ends[-1], (end, unit))

    def transfer(self, step: Step, instruction: Load | Gather | Store) -> None:
        access = step.access
        if access is None:
            return
        shape = tuple(prod(evaluate(axis.size, self.sizes) for axis in group) for group in access.axes)
        name = instruction.tile
        self.shapes[name] = shape
        if not self.kernel.tiles[name].depth:
            self.new_version(name)
            self.ready[name] = (0.0, "nothing")
            return
        size = stored_bytes(self.kernel.tiles[name].dtype, shape)
        adds = isinstance(instruction, Store) and instruction.adds
        readers = 1 if isinstance(instruction, Store) else self.readers(access)
        machine, tensor = self.machine, self.tensors[access.tensor]
        active = min(self.kernel.items, self.program.cores)
        cycles = size / machine.network_bytes_per_cycle
        if tensor.space == "lpddr":
            traffic = Traffic(sram=size, lpddr=size * (2 if adds else 1) / readers)
            latency = float(machine.lpddr_latency_cycles)
            cycles = max(cycles, active * traffic.lpddr / machine.lpddr_bytes_per_cycle)
        else:
            remote = (self.chiplets - 1) / self.chiplets
            crossing = size * remote * self.chiplets_reading(access) / readers if readers > 1 else size * remote
            traffic = Traffic(sram=(3 if adds else 2) * size, die=crossing)
            latency = machine.network_latency_cycles + (machine.die_latency_cycles if self.chiplets > 1 else 0)
            cycles = max(cycles, active * crossing / (machine.die_bytes_per_cycle * self.chiplets))
        self.traffic = self.traffic + traffic
        if isinstance(instruction, Store):
            self.issue("dma_out", (name,), None, cycles)
            return
        waits = [] if tensor.role == "weight" else [(float(machine.barrier_cycles), "barrier")]
        self.issue("dma_in", read_tiles(instruction), name, cycles, latency, waits)

    def readers(self, access: BoundAccess) -> int:
        """How many items read the same elements."""
        total = 1
        for each in self.kernel.grid:
            if each.name not in access.moves:
                total *= self.kernel.counts[each.name]
        return total

    def chiplets_reading(self, access: BoundAccess) -> int:
        """On how many chiplets the items are that read the same elements as the first one."""
        known = self.spans.get(id(access))
        if known is None:
            items = np.zeros(1, np.int64)
            for each in self.kernel.grid:
                steps = np.arange(1 if each.name in access.moves else self.kernel.counts[each.name])
                items = (items[:, None] * self.kernel.counts[each.name] + steps).reshape(-1)
            cores = (items + self.kernel.kernel.first) % self.program.cores
            known = self.spans[id(access)] = len(np.unique(cores // self.machine.cores_per_chiplet))
        return known

    def matmul(self, instruction: Matmul) -> None:
        lhs, rhs = self.shapes[instruction.lhs], self.shapes[instruction.rhs]
        self.shapes[instruction.accumulator] = (lhs[0], rhs[1])
        machine = self.machine
        dtype = self.kernel.tiles[instruction.lhs].dtype
        held, streamed, rows = _roles(instruction, lhs, rhs)
        waits: list[tuple[float, str]] = []
        if held is not None:
            waits.append((self.hold(held), "operand from array"))
        bytes_moved = sum(stored_bytes(dtype, self.shapes[each]) for each in streamed)
        cycles = max(rows * machine.row_cycles[dtype], bytes_moved / machine.sram_bytes_per_cycle)
        self.traffic = self.traffic + Traffic(sram=bytes_moved)
        begins = self.steps.get(instruction.begins) == 0 and instruction.begins != ""
        reads = streamed if begins else (*streamed, instruction.accumulator)
        self.issue("matrix", reads, instruction.accumulator, cycles + machine.array_drain_cycles, waits=waits)
        if held is not None:
            self.array_ends[-1] = self.clock["matrix"]

    def hold(self, tile: str) -> float:
        """When the tile is in the array, to which it is brought if it is not there."""
        machine = self.machine
        version = (tile, self.serials.get(tile, 0))
        if version == (self.held[-1] if self.held else None):
            return self.clock["array"]
        size = stored_bytes(self.kernel.tiles[tile].dtype, self.shapes[tile])
        cycles = max(size / machine.sram_bytes_per_cycle, float(machine.array_hold_cycles))
        self.traffic = self.traffic + Traffic(sram=size)
        ends = self.array_ends
        waits = [(ends[-machine.array_tiles], "product before")] if len(ends) >= machine.array_tiles else []
        self.issue("array", (tile,), None, cycles, waits=waits)
        self.held = [version]
        self.array_ends = [*ends[1 - machine.array_tiles :], 0.0] if machine.array_tiles > 1 else [0.0]
        return self.clock["array"]

    def vector(self, step: Step) -> None:
        instruction = step.instruction
        reads, written = read_tiles(instruction), written_tile(instruction)
        if written is None:
            return
        shape = self.written_shape(step, reads)
        self.shapes[written] = shape
        work = max([prod(shape), *(prod(self.shapes[tile]) for tile in reads)])
        passes = 1
        if isinstance(instruction, Map):
            quantizes = self.kernel.tiles[written].dtype == "mxint8"
            passes = _QUANTIZE_PASSES if quantizes else FUNCTIONS[instruction.function].passes
        bytes_moved = float(stored_bytes(self.kernel.tiles[written].dtype, shape))
        bytes_moved += sum(stored_bytes(self.kernel.tiles[tile].dtype, self.shapes[tile]) for tile in reads)
        cycles = max(
            ceil(work / self.machine.vector_lanes) * passes, ceil(bytes_moved / self.machine.sram_bytes_per_cycle)
        )
        self.traffic = self.traffic + Traffic(sram=bytes_moved)
        self.issue("vector", reads, written, cycles)

    def written_shape(self, step: Step, reads: Sequence[str]) -> tuple[int, ...]:
        """The shape that a vector instruction gives its tile."""
        instruction = step.instruction
        if step.sizes:
            return tuple(evaluate(size, self.sizes) for size in step.sizes)
        shapes = [self.shapes[tile] for tile in reads]
        if isinstance(instruction, Reduce):
            return tuple(1 if axis in instruction.axes else size for axis, size in enumerate(shapes[0]))
        return tuple(max(sizes) for sizes in zip(*shapes, strict=True))


def _roles(instruction: Matmul, lhs: tuple[int, ...], rhs: tuple[int, ...]) -> tuple[str | None, tuple[str, ...], int]:
    """The tile that is held (None: the accumulator), those that stream, and how many rows do."""
    if instruction.stationary == "lhs":
        return instruction.lhs, (instruction.rhs,), rhs[1]
    if instruction.stationary == "rhs":
        return instruction.rhs, (instruction.lhs,), lhs[0]
    return None, (instruction.lhs, instruction.rhs), lhs[1]
