"""The queues of one core: when each instruction of a kernel starts, what it waits for, and how long it takes.

- A core has five queues (dma in, dma out, array, matrix, vector), each in order. An instruction starts when its unit
  is free, what it reads is there, and the copy of the tile that it writes is no longer read (a tile of depth d: the
  reader of d versions ago). That is what lets a load run under a product. A unit decodes an instruction while it runs
  the one before: it starts one every `issue_cycles` at most.
- A transfer that comes after other kernels waits in its queue for their semaphores.
- Array: the held tile goes from the core's SRAM into the array unless it is there already. With one tile in the array
  that waits for the product before; it never waits for what will be streamed against the tile.
- Matrix: `row_cycles` a streamed row, and what the last row needs to come out.
- Vector: `passes` a group of lanes. No unit is faster than the core's SRAM delivers its operands.
- Loops and rounds of items reach a steady state: some iterations are walked, the others take as long as the last
  of those.
- The tiles of a kernel may lie where those of an earlier one were: the first instruction that writes there waits until
  the core is done with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

from gimlet.runtime.sram.binding import BoundKernel, BoundStatement, Step, evaluate
from gimlet.runtime.sram.formats import moved_bytes
from gimlet.runtime.sram.functions import FUNCTIONS
from gimlet.runtime.sram.program import (
    REGISTER_PREFIX,
    Gather,
    Load,
    Map,
    Matmul,
    Program,
    Reduce,
    Scatter,
    Store,
    Transfer,
    read_tiles,
    written_tile,
)
from gimlet.runtime.sram.traffic import Routes, Traffic, moved
from gimlet.runtime.sram.verify import tile_bytes

UNITS: tuple[str, ...] = ("dma_in", "dma_out", "array", "matrix", "vector")
_WALKED = 4
"""Iterations of a loop, or items of a core, that are walked before the rest is taken to be alike.

As many more as a tile has copies: the first loads run ahead.
"""
_QUANTIZE_PASSES = 3
_DOT_PASSES = 2


@dataclass(frozen=True)
class Event:
    """What a unit of the busiest core did from cycle `start` to `end`, after it had waited for `reason`.

    `what` is an instruction, `index` its number in its kernel, or says how many repetitions were not walked.
    """

    unit: str
    what: str
    start: float
    end: float
    waited: float = 0.0
    reason: str = ""
    index: int = -1


@dataclass(frozen=True)
class Run:
    """One kernel on one core: when its first instruction starts and the last of what it stores has landed."""

    begin: float
    end: float
    busy: Mapping[str, float]
    traffic: Traffic
    stalls: Mapping[tuple[str, str], float]


class Core:
    """The queues of the busiest core of a chiplet, or of all. Times are cycles from the program's begin.

    `done` says when each kernel is done, which all cores see.
    """

    def __init__(self, program: Program, chiplets: int, done: dict[str, float]) -> None:
        self.program = program
        self.machine = program.machine
        self.chiplets = chiplets
        self.weights = {tensor.name for tensor in program.tensors if tensor.role == "weight"}
        self.clock = dict.fromkeys(UNITS, 0.0)
        self.begun = dict.fromkeys(UNITS, -float(self.machine.issue_cycles))
        self.held: list[tuple[str, str, int]] = []
        self.array_ends: list[float] = []
        self.memory: list[tuple[int, int, float]] = []
        self.done = done

    def done_at(self, name: str) -> float:
        """When a kernel is done and what waits for it may start. One that never is does not hold the model up."""
        return self.done[name] + self.machine.semaphore_cycles if name in self.done else 0.0

    def run(self, kernel: BoundKernel, rounds: int, events: list[Event] | None) -> Run:
        """Walks `rounds` items of a kernel, behind what the core has to do already."""
        self.kernel = kernel
        self.events = events
        self.opcode, self.index = "", -1
        self.walked = _WALKED + max((tile.depth for tile in kernel.kernel.tiles), default=0)
        self.sizes = dict(kernel.largest)
        self.steps: dict[str, int] = {}
        self.shapes = {tile.name: tile.shape for tile in kernel.kernel.tiles}
        self.busy = dict.fromkeys(UNITS, 0.0)
        self.stalls: dict[tuple[str, str], float] = {}
        self.ready: dict[str, tuple[float, str]] = {}
        self.versions: dict[str, list[tuple[float, str]]] = {}
        self.serials: dict[str, int] = {}
        self.traffic = Traffic()
        self.routes = Routes(kernel, self.program)
        self.free = {tile.name: self.free_at(tile.address, tile_bytes(tile)) for tile in kernel.kernel.tiles}
        self.first: float | None = None
        self.landed = 0.0
        self.repeat(kernel.body, rounds)
        begin = 0.0 if self.first is None else self.first
        end = max([begin, self.landed, *(at for at, _ in self.ready.values())])
        self.occupy()
        return Run(begin, end, self.busy, self.traffic, self.stalls)

    def free_at(self, address: int, size: int) -> float:
        """When the core is done with the memory from `address` on."""
        return max((at for begin, end, at in self.memory if begin < address + size and address < end), default=0.0)

    def occupy(self) -> None:
        """Remembers until when each tile of the kernel is in use."""
        used: list[tuple[int, int, float]] = []
        for tile in self.kernel.kernel.tiles:
            ends = [at for at, _ in self.versions.get(tile.name, ())]
            at = max([*ends, self.ready.get(tile.name, (0.0, ""))[0]])
            used.append((tile.address, tile.address + tile_bytes(tile), at))
        hidden = [(begin, end) for begin, end, _ in used]
        kept = [each for each in self.memory if not any(b <= each[0] and each[1] <= e for b, e in hidden)]
        self.memory = [*kept, *used]

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
        shift = max(self.clock[unit] - clock[unit] for unit in UNITS) * times
        if self.events is not None:
            at = max(self.clock.values())
            self.events.append(Event("steady", f"{times} more alike", at, at + shift))
        self.clock = {unit: at + shift for unit, at in self.clock.items()}
        self.begun = {unit: at + shift for unit, at in self.begun.items()}
        self.ready = {tile: (at + shift, unit) for tile, (at, unit) in self.ready.items()}
        self.versions = {tile: [(at + shift, unit) for at, unit in ends] for tile, ends in self.versions.items()}
        self.array_ends = [at + shift for at in self.array_ends]
        self.landed += shift
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
        self.opcode, self.index = type(instruction).__name__.lower(), step.index
        match instruction:
            case Load() | Gather() | Store() | Scatter():
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
        if self.first is None:
            self.first = start
        if self.events is not None:
            what = f"{self.opcode} {written or ' '.join(reads)}"
            self.events.append(Event(unit, what, start, end, start - self.clock[unit], reason, self.index))
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
        if self.serials[tile] <= depth:
            limits.append((self.free[tile], "memory of another kernel"))
        ends.append((0.0, "nothing"))
        del ends[: -depth - 1]
        return limits

    def read_until(self, tile: str, end: float, unit: str) -> None:
        ends = self.versions.setdefault(tile, [(0.0, "nothing")])
        ends[-1] = max(ends[-1], (end, unit))

    def transfer(self, step: Step, instruction: Transfer) -> None:
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
        size = moved_bytes(self.kernel.tiles[name].dtype, shape)
        adds = isinstance(instruction, Store | Scatter) and instruction.adds
        way, machine = self.routes.of(instruction, access), self.machine
        cores = self.program.dealing_on(self.kernel.kernel.chiplet).cores
        traffic, active = moved(size, way, adds), min(self.kernel.items, cores)
        links, cards = (1, 1) if way.one_link else (self.chiplets, machine.cards)
        cycles = max(
            size / machine.network_bytes_per_cycle,
            active * traffic.lpddr / machine.lpddr_bytes_per_cycle,
            active * traffic.die / (machine.die_bytes_per_cycle * links),
            active * traffic.card / (machine.card_bytes_per_cycle * cards),
        )
        self.traffic = self.traffic + traffic
        waits = [(self.done_at(each), "semaphore") for each in instruction.after]
        if isinstance(instruction, Store | Scatter):
            self.issue("dma_out", read_tiles(instruction), None, cycles, waits=waits)
            self.landed = max(self.landed, self.clock["dma_out"] + way.latency)
        else:
            self.issue("dma_in", read_tiles(instruction), name, cycles, way.latency, waits)

    def matmul(self, instruction: Matmul) -> None:
        lhs, rhs = self.shapes[instruction.lhs], self.shapes[instruction.rhs]
        self.shapes[instruction.accumulator] = (lhs[0], rhs[1])
        machine = self.machine
        dtype = self.kernel.tiles[instruction.lhs].dtype
        begins = self.steps.get(instruction.begins) == 0 and instruction.begins != ""
        if instruction.stationary == "nothing":
            self.dot(instruction, lhs, rhs, begins)
            return
        held, streamed, rows = _roles(instruction, lhs, rhs)
        waits: list[tuple[float, str]] = []
        if held is not None:
            waits.append((self.hold(held), "operand from array"))
        bytes_moved = sum(moved_bytes(dtype, self.shapes[each]) for each in streamed)
        cycles = max(rows * machine.row_cycles[dtype], bytes_moved / machine.sram_bytes_per_cycle)
        self.traffic = self.traffic + Traffic(sram=bytes_moved)
        reads = streamed if begins else (*streamed, instruction.accumulator)
        self.issue("matrix", reads, instruction.accumulator, cycles + machine.array_drain_cycles, waits=waits)
        if held is not None:
            self.array_ends[-1] = self.clock["matrix"]

    def dot(self, instruction: Matmul, lhs: tuple[int, ...], rhs: tuple[int, ...], begins: bool) -> None:
        """A product on the vector unit: a pass to multiply and one to add up."""
        bytes_moved = sum(
            moved_bytes(self.kernel.tiles[tile].dtype, self.shapes[tile]) for tile in (instruction.lhs, instruction.rhs)
        )
        bytes_moved += moved_bytes("f32", (lhs[0], rhs[1])) * (1 if begins else 2)
        lanes = ceil(lhs[0] * lhs[1] * rhs[1] / self.machine.vector_lanes) * _DOT_PASSES
        self.traffic = self.traffic + Traffic(sram=bytes_moved)
        cycles = max(lanes, ceil(bytes_moved / self.machine.sram_bytes_per_cycle))
        operands = (instruction.lhs, instruction.rhs)
        self.issue(
            "vector", operands if begins else (*operands, instruction.accumulator), instruction.accumulator, cycles
        )

    def hold(self, tile: str) -> float:
        """When the tile is in the array, to which it is brought if it is not there."""
        machine = self.machine
        version = (self.kernel.kernel.name, tile, self.serials.get(tile, 0))
        if version == (self.held[-1] if self.held else None):
            return self.clock["array"]
        size = moved_bytes(self.kernel.tiles[tile].dtype, self.shapes[tile])
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
        bytes_moved = float(moved_bytes(self.kernel.tiles[written].dtype, shape))
        bytes_moved += sum(moved_bytes(self.kernel.tiles[tile].dtype, self.shapes[tile]) for tile in reads)
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
