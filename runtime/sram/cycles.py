"""The cycle model: how long the machine takes for a program, and which unit is busy for how much of it.

It walks the same kernels as the emulator, by what each instruction costs and what it has to wait for:

- A core has four queues (dma in, dma out, matrix, vector), each in order. An instruction starts when its unit is free,
  what it reads is there, and the copy of the tile that it writes is no longer read (a tile of depth d: the reader of d
  versions ago). That is what lets a load run under a product.
- A DMA transfer moves what a core's port takes, and no more than its share of what all cores use together: LPDDR, and
  the links between chiplets. A load that several items share is read once and delivered to each.
- Matrix: the held tile is loaded into the array unless it is there already, then `row_cycles` a streamed row.
- Vector: `passes` a group of lanes. No unit is faster than the core's SRAM delivers its operands.
- Loops and rounds of items reach a steady state: some iterations are walked, the others take as long as the last
  of those.
- Kernels follow one another; a barrier lies between them.

A kernel takes as long as the core with the most items, all of them taken as full ones, and never less than what LPDDR,
the links or a core's SRAM need for its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

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

UNITS: tuple[str, ...] = ("dma_in", "dma_out", "matrix", "vector")
_WALKED = 4
"""Iterations of a loop, or items of a core, that are walked before the rest is taken to be alike."""
_QUANTIZE_PASSES = 3


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
    """

    name: str
    cycles: int
    limit: str
    items: int
    busy: Mapping[str, float]
    traffic: Traffic


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


def time_program(bound: BoundProgram) -> Timing:
    """The cycles of a program at the sizes it is bound to."""
    program = bound.program
    machine = program.machine
    kernels = tuple(time_kernel(kernel, program) for kernel in bound.kernels)
    cycles = sum(kernel.cycles for kernel in kernels) + machine.barrier_cycles * len(kernels)
    return Timing(
        cycles=cycles,
        seconds=cycles / machine.clock_hz,
        cores=program.cores,
        kernels=kernels,
        lpddr_bytes_per_cycle=machine.lpddr_bytes_per_cycle,
        die_bytes_per_cycle=machine.die_bytes_per_cycle * chiplets_of(program),
        sram_bytes_per_cycle=machine.sram_bytes_per_cycle,
    )


def time_kernel(kernel: BoundKernel, program: Program) -> KernelTime:
    """The cycles of one kernel, without the barrier after it."""
    items = kernel.items
    if not items:
        return KernelTime(kernel.kernel.name, 0, "core", 0, dict.fromkeys(UNITS, 0.0), Traffic())
    machine = program.machine
    rounds = ceil(items / program.cores)
    core = _Core(kernel, program)
    core.repeat(kernel.body, rounds)
    traffic = core.traffic.scaled(items / rounds)
    limits = {
        "core": core.finished,
        "sram": core.traffic.sram / machine.sram_bytes_per_cycle,
        "lpddr": traffic.lpddr / machine.lpddr_bytes_per_cycle,
        "die": traffic.die / (machine.die_bytes_per_cycle * chiplets_of(program)),
    }
    limit = max(limits, key=lambda name: limits[name])
    busy = {unit: cycles * items / rounds for unit, cycles in core.busy.items()}
    return KernelTime(kernel.kernel.name, ceil(limits[limit]), limit, items, busy, traffic)


def chiplets_of(program: Program) -> int:
    """How many chiplets the program's cores are on."""
    return ceil(program.cores / program.machine.cores_per_chiplet)


class _Core:
    """The queues of the busiest core of a kernel. All times are cycles from the kernel's begin."""

    def __init__(self, kernel: BoundKernel, program: Program) -> None:
        self.kernel = kernel
        self.program = program
        self.machine = program.machine
        self.spaces = {tensor.name: tensor.space for tensor in program.tensors}
        self.chiplets = chiplets_of(program)
        self.sizes = dict(kernel.largest)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.clock = dict.fromkeys(UNITS, 0.0)
        self.busy = dict.fromkeys(UNITS, 0.0)
        self.ready: dict[str, float] = {}
        self.versions: dict[str, list[float]] = {}
        self.held: tuple[str, float] | None = None
        self.traffic = Traffic()

    @property
    def finished(self) -> float:
        return max(*self.clock.values(), *self.ready.values())

    def repeat(self, body: Sequence[BoundStatement], times: int) -> None:
        """Walks the first few of `times` repetitions, and takes the others to last as long as the last of those."""
        for index in range(min(times, _WALKED)):
            before = dict(self.clock), dict(self.busy), self.traffic
            for statement in body:
                self.statement(statement)
            if index == _WALKED - 1 and times > _WALKED:
                self.skip(times - _WALKED, *before)

    def skip(self, times: int, clock: Mapping[str, float], busy: Mapping[str, float], traffic: Traffic) -> None:
        moved = max(self.clock[unit] - clock[unit] for unit in UNITS) * times
        self.clock = {unit: at + moved for unit, at in self.clock.items()}
        self.ready = {tile: at + moved for tile, at in self.ready.items()}
        self.versions = {tile: [at + moved for at in ends] for tile, ends in self.versions.items()}
        if self.held is not None:
            self.held = (self.held[0], self.held[1] + moved)
        self.busy = {unit: at + (at - busy[unit]) * times for unit, at in self.busy.items()}
        self.traffic = self.traffic + (self.traffic + traffic.scaled(-1)).scaled(times)

    def statement(self, statement: BoundStatement) -> None:
        if isinstance(statement, Step):
            self.step(statement)
            return
        full, tail = statement.range.steps(self.sizes)
        register = f"{REGISTER_PREFIX}{statement.range.name}.size"
        if full:
            self.sizes[register] = statement.range.step
            self.repeat(statement.body, full)
        if tail:
            self.sizes[register] = tail
            self.repeat(statement.body, 1)

    def step(self, step: Step) -> None:
        instruction = step.instruction
        match instruction:
            case Load() | Gather() | Store():
                self.transfer(step, instruction)
            case Matmul():
                self.matmul(instruction)
            case _:
                self.vector(step)

    def issue(self, unit: str, reads: Sequence[str], written: str | None, cycles: float, latency: float) -> None:
        """Puts an instruction at the end of its unit's queue."""
        start = self.clock[unit]
        for tile in reads:
            start = max(start, self.ready.get(tile, 0.0))
        if written is not None and written not in reads:
            ends = self.versions.setdefault(written, [])
            depth = self.kernel.tiles[written].depth
            if len(ends) >= depth:
                start = max(start, ends[-depth])
            ends.append(0.0)
            del ends[: -depth - 1]
        end = start + self.machine.issue_cycles + cycles
        self.clock[unit] = end
        self.busy[unit] += self.machine.issue_cycles + cycles
        for tile in reads:
            ends = self.versions.setdefault(tile, [0.0])
            ends[-1] = max(ends[-1], end)
        if written is not None:
            self.ready[written] = end + latency

    def transfer(self, step: Step, instruction: Load | Gather | Store) -> None:
        access = step.access
        if access is None:
            return
        shape = tuple(prod(evaluate(axis.size, self.sizes) for axis in group) for group in access.axes)
        name = instruction.tile
        size = stored_bytes(self.kernel.tiles[name].dtype, shape)
        self.shapes[name] = shape
        readers = 1 if isinstance(instruction, Store) else self.readers(access)
        machine = self.machine
        active = min(self.kernel.items, self.program.cores)
        cycles = size / machine.network_bytes_per_cycle
        if self.spaces[access.tensor] == "lpddr":
            traffic = Traffic(sram=size, lpddr=size / readers)
            latency = float(machine.lpddr_latency_cycles)
            cycles = max(cycles, active * traffic.lpddr / machine.lpddr_bytes_per_cycle)
        else:
            remote = (self.chiplets - 1) / self.chiplets
            crossing = size * remote * min(readers, self.chiplets) / readers
            traffic = Traffic(sram=2 * size, die=crossing)
            latency = machine.network_latency_cycles + (machine.die_latency_cycles if self.chiplets > 1 else 0)
            cycles = max(cycles, active * crossing / (machine.die_bytes_per_cycle * self.chiplets))
        self.traffic = self.traffic + traffic
        if isinstance(instruction, Store):
            self.issue("dma_out", (name,), None, cycles, 0.0)
        else:
            self.issue("dma_in", read_tiles(instruction), name, cycles, latency)

    def readers(self, access: BoundAccess) -> int:
        """How many items read the same elements."""
        total = 1
        for each in self.kernel.grid:
            if each.name not in access.moves:
                total *= self.kernel.counts[each.name]
        return total

    def matmul(self, instruction: Matmul) -> None:
        lhs, rhs = self.shapes[instruction.lhs], self.shapes[instruction.rhs]
        self.shapes[instruction.accumulator] = (lhs[0], rhs[1])
        held, rows = (instruction.lhs, rhs[1]) if instruction.stationary == "lhs" else (instruction.rhs, lhs[0])
        dtype = self.kernel.tiles[held].dtype
        streamed = instruction.rhs if instruction.stationary == "lhs" else instruction.lhs
        bytes_moved = float(stored_bytes(dtype, self.shapes[streamed]))
        cycles = max(rows * self.machine.row_cycles[dtype], bytes_moved / self.machine.sram_bytes_per_cycle)
        version = (held, self.ready.get(held, 0.0))
        if version != self.held:
            loaded = stored_bytes(dtype, self.shapes[held])
            cycles += ceil(loaded / self.machine.sram_bytes_per_cycle)
            bytes_moved += loaded
            self.held = version
        self.traffic = self.traffic + Traffic(sram=bytes_moved)
        self.issue("matrix", read_tiles(instruction), instruction.accumulator, cycles, 0.0)

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
        self.issue("vector", reads, written, cycles, 0.0)

    def written_shape(self, step: Step, reads: Sequence[str]) -> tuple[int, ...]:
        """The shape that a vector instruction gives its tile."""
        instruction = step.instruction
        if step.sizes:
            return tuple(evaluate(size, self.sizes) for size in step.sizes)
        shapes = [self.shapes[tile] for tile in reads]
        if isinstance(instruction, Reduce):
            return tuple(1 if axis in instruction.axes else size for axis, size in enumerate(shapes[0]))
        return tuple(max(sizes) for sizes in zip(*shapes, strict=True))
