"""The emulator: executes a program, and nothing else, in the number formats of the machine.

Items of a kernel are independent, so the emulator takes many of them at once: an instruction becomes one numpy call
over all items of a box (window.py), which is what makes real layers bearable. It still does what each instruction says
on operands no larger than the unit, faults on what the machine would not do, and never looks at a graph.

Accumulation: a matrix instruction sums its products over K (at most `matrix_rows` of them) in the order of the host's
matrix product, in float32; instructions accumulate in program order. Two hosts may therefore differ by
`matrix_rows` · 2⁻²⁴ relative to the sum of absolute products. Integer products are exact; reductions are numpy's
pairwise sums.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from typing import Any, NoReturn

import numpy as np

from gimlet.runtime.sram.binding import (
    BoundAccess,
    BoundKernel,
    BoundLoop,
    BoundProgram,
    BoundStatement,
    Step,
    bind,
    evaluate,
)
from gimlet.runtime.sram.cycles import cycle_of
from gimlet.runtime.sram.faults import MachineError, Place
from gimlet.runtime.sram.formats import CARRIERS, MX_BLOCK, round_to
from gimlet.runtime.sram.functions import FUNCTIONS, REDUCTIONS, UPDATES
from gimlet.runtime.sram.memory import Memory, Weights, overlaps
from gimlet.runtime.sram.program import (
    REGISTER_PREFIX,
    Fill,
    Gather,
    Iota,
    Load,
    Map,
    Matmul,
    Program,
    Reduce,
    Scatter,
    Store,
    Transfer,
)
from gimlet.runtime.sram.window import Box, Window, boxes, first_blocks, item_of, items_of, reach, window

Array = np.ndarray[Any, Any]

_BOX_ELEMENTS = 1 << 19
"""Elements of the largest tile over all items of a box: enough for numpy to be busy, few enough for a cache."""

_EXACT_DEPTH = 1 << 10
"""Products of two 8-bit integers (at most 2¹⁴) that add up exactly in the 24 bits of float32."""


class Emulator:
    """Runs one program. `weights` are the bytes of its weights file. Runs share nothing but decoded weights."""

    def __init__(self, program: Program, weights: Array) -> None:
        self.program = program
        self.weights = Weights(program, weights)
        self.shared = overlaps(program)
        self.bound: dict[tuple[int, ...], BoundProgram] = {}

    def bind(self, sizes: Mapping[str, int]) -> BoundProgram:
        """The program at `sizes`, remembered. InputError where a dimension is missing or out of bounds."""
        key = tuple(sizes.get(dim.name, -1) for dim in self.program.dims)
        if key not in self.bound:
            self.bound[key] = bind(self.program, sizes)
        return self.bound[key]

    def run(
        self, inputs: Mapping[str, Array], sizes: Mapping[str, int], in_place: Collection[str] = ()
    ) -> dict[str, Array]:
        """The outputs by name. MachineError where the program does what the machine does not.

        Of the states, the arrays of those `in_place` may be changed where they are; of the others a copy is.
        """
        bound = self.bind(sizes)
        memory = Memory(bound, self.weights, self.shared)
        for binding in self.program.inputs:
            values = inputs[binding.name]
            if values.size != prod(bound.given.get(binding.tensor, bound.shapes[binding.tensor])):
                raise MachineError(f"input {binding.name} has shape {list(values.shape)}")
            memory.place_input(binding.tensor, values, binding.name in in_place)
        with np.errstate(all="ignore"):
            self._run(bound, memory)
        place = Place("end", 0, "output")
        outputs: dict[str, Array] = {}
        for binding in self.program.outputs:
            outputs[binding.name] = memory.result(binding, place)
        return outputs

    def _run(self, bound: BoundProgram, memory: Memory) -> None:
        """Runs the kernels. A fault says in which cycle the cycle model starts the instruction for the first time."""
        done: set[str] = set()
        for kernel in bound.kernels:
            try:
                _KernelRun(kernel, memory, self.program, done).run()
            except MachineError as error:
                if error.place is None:
                    raise
                cycle = cycle_of(bound, error.place.kernel, error.place.instruction)
                place = replace(error.place, cycle=cycle)
                raise MachineError(error.message, place, from_data=error.from_data) from None
            done.add(kernel.kernel.name)


class _KernelRun:
    """One kernel, box by box. `tiles` hold a dimension for each range of the grid, then those of the tile."""

    def __init__(self, kernel: BoundKernel, memory: Memory, program: Program, done: Collection[str]) -> None:
        self.kernel = kernel
        self.memory = memory
        self.program = program
        self.dealing = program.dealing_on(kernel.kernel.chiplet)
        self.done = done
        self.tiles: dict[str, Array] = {}
        self.owned: set[str] = set()
        self.box = Box((), (), (), {})
        self.loops: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self.padding: dict[int, tuple[tuple[int, int], ...]] = {}

    def run(self) -> None:
        stores = [each for each in self.kernel.kernel.statements() if isinstance(each, Store)]
        stored = {each.access.tensor: each.adds for each in stores}
        place = Place(self.kernel.kernel.name, 0, "kernel")
        self.memory.begin_kernel(stored, place, works=self.kernel.items > 0)
        largest = max((prod(tile.shape) for tile in self.kernel.tiles.values()), default=1)
        for box in boxes(self.kernel, _BOX_ELEMENTS // max(1, largest)):
            self.box, self.sizes, self.loops = box, dict(box.sizes), {}
            self.tiles.clear()
            self.owned.clear()
            for statement in self.kernel.body:
                self.statement(statement)
        self.memory.end_kernel(place)

    def statement(self, statement: BoundStatement) -> None:
        if isinstance(statement, BoundLoop):
            self.loop(statement)
            return
        if isinstance(statement.instruction, Transfer):
            self.wait(statement, statement.instruction)
        match statement.instruction:
            case Load() as load:
                self.load(statement, load)
            case Store() as store:
                self.store(statement, store)
            case Matmul() as matmul:
                self.matmul(statement, matmul)
            case Map() as instruction:
                self.map(statement, instruction)
            case Reduce() as reduce:
                source = self.read(reduce.source, statement)
                axes = tuple(len(self.box.names) + axis for axis in reduce.axes)
                self.write(reduce.tile, REDUCTIONS[reduce.function](source, axes), statement)
            case Fill() as fill:
                shape = tuple(evaluate(size, self.sizes) for size in statement.sizes)
                carrier = CARRIERS[self.kernel.tiles[fill.tile].dtype]
                lead = (1,) * len(self.box.names)
                self.write(fill.tile, np.full(lead + shape, statement.operands[0], carrier), statement)
            case Iota() as iota:
                self.iota(statement, iota)
            case Gather() as gather:
                self.gather(statement, gather)
            case Scatter() as scatter:
                self.scatter(statement, scatter)

    def wait(self, step: Step, transfer: Transfer) -> None:
        """What a transfer waits for was done before: queues are in order, so nothing behind it can be what it needs."""
        for name in transfer.after:
            if name not in self.done:
                address = self.memory.tensors[transfer.access.tensor].address
                message = f"deadlock: waits for kernel {name}, whose items are behind it in the queues of the cores"
                raise MachineError(message, self.place(step, address=address))

    def loop(self, loop: BoundLoop) -> None:
        name = loop.range.name
        full, tail = loop.range.steps(self.sizes)
        for step in range(full + (tail > 0)):
            self.loops[name] = step
            self.sizes[f"{REGISTER_PREFIX}{name}.size"] = loop.range.step if step < full else tail
            for statement in loop.body:
                self.statement(statement)

    def load(self, step: Step, load: Load) -> None:
        seen, flat, valid = self.source(step, load)
        if seen.empty:
            self.write(load.tile, np.empty((*seen.grid_counts, *seen.tile_shape), flat.dtype), step)
            return
        if valid is not None and not seen.view(valid).all():
            missing = np.argwhere(~seen.view(valid))[0][: len(seen.grid)]
            self.fault(step, f"reads elements of tensor {load.access.tensor} that were never written", missing)
        if not self.kernel.tiles[load.tile].depth:
            self.check_home(step, load, seen)
        self.write(load.tile, seen.as_tile(seen.view(flat)), step)

    def check_home(self, step: Step, load: Load, seen: Window) -> None:
        """A window is on a block that lies on the core of the item."""
        tensor = self.memory.tensors[load.access.tensor]
        first, last = first_blocks(seen, tensor.block)
        here = self.core(items_of(self.kernel, self.box))
        blocks = -(-prod(seen.shape) // tensor.block)
        dealing = self.program.dealing_on(tensor.chiplet)
        homes = [
            dealing.cores_of(tensor.places_of(first, blocks, copy), blocks * tensor.copies, tensor.first)
            for copy in range(tensor.copies)
        ]
        wrong = (first != last) | np.logical_and.reduce([home != here for home in homes])
        if wrong.any():
            at = np.argwhere(wrong)[0]
            block = int(np.broadcast_to(first, wrong.shape)[tuple(at)])
            core = int(np.broadcast_to(homes[0], wrong.shape)[tuple(at)])
            where = f"core {core}" if not (first != last).any() else "more than one core"
            self.fault(step, f"reads block {block} of tensor {load.access.tensor} in place, which is on {where}", at)

    def source(self, step: Step, instruction: Load | Gather | Scatter) -> tuple[Window, Array, Array | None]:
        """What an access sees, the memory it sees it in, and which elements of that are valid (None if all are)."""
        access = step.access
        if access is None:
            raise MachineError("an access was not bound", self.place(step))
        flat = self.memory.read(access.tensor, self.place(step))
        valid = self.memory.valid.get(access.tensor)
        if prod(access.shape) != flat.size:
            self.fault(step, f"sees tensor {access.tensor} of {flat.size} elements as {list(access.shape)}")
        seen = window(access, self.box, self.loops, self.sizes)
        if access.fill is not None:
            if step.index not in self.padding:
                limits = zip(reach(access, self.kernel), access.shape, strict=True)
                self.padding[step.index] = tuple(
                    (max(0, -low), max(0, high - size + 1)) for (low, high), size in limits
                )
            padding = self.padding[step.index]
            if any(low or high for low, high in padding):
                flat = self.memory.pad(access.tensor, flat, access.shape, padding, access.fill)
                valid = None if valid is None else self.memory.pad(access.tensor, valid, access.shape, padding, True)
                seen = seen.shifted(padding)
        still = seen
        if isinstance(instruction, Gather | Scatter):
            still = seen.standing(sum(len(group) for group in access.axes[: instruction.axis]))
        if not seen.empty and (wrong := still.outside()) is not None:
            self.outside(step, still, *wrong)
        return seen, flat, valid

    def store(self, step: Step, store: Store) -> None:
        access = step.access
        if access is None:
            raise MachineError("an access was not bound", self.place(step))
        tile = self.read(store.tile, step)
        seen = window(access, self.box, self.loops, self.sizes)
        if tile.shape[len(self.box.names) :] != seen.tile_shape:
            shape = list(tile.shape[len(self.box.names) :])
            self.fault(step, f"stores tile {store.tile} of {shape} as {list(seen.tile_shape)}")
        if seen.empty:
            return
        if (wrong := seen.outside()) is not None:
            self.outside(step, seen, *wrong)
        if self.kernel.tiles[store.tile].dtype == "mxint8" and not seen.whole_blocks(MX_BLOCK):
            self.fault(step, f"stores a part of a block of {MX_BLOCK} to tensor {access.tensor}")
        if store.adds:
            self.add(step, access, seen, tile)
            return
        for (count, _), items, name in zip(seen.grid, self.box.counts, self.box.names, strict=True):
            if count != items:
                self.fault(step, f"all steps of {name} write the same elements of tensor {access.tensor}", None)
        flat = self.memory.values[access.tensor]
        if prod(access.shape) != flat.size:
            self.fault(step, f"sees tensor {access.tensor} of {flat.size} elements as {list(access.shape)}")
        target, marks = seen.view(flat), seen.view(self.memory.valid[access.tensor])
        if access.tensor in self.memory.bound.given and marks.any():
            at = np.argwhere(marks)[0][: len(seen.grid)]
            self.fault(step, f"stores to elements of state {access.tensor} that are there already", at)
        target[...] = seen.from_tile(tile)
        marks[...] = True
        self.memory.written[access.tensor] += target.size

    def add(self, step: Step, access: BoundAccess, seen: Window, tile: Array) -> None:
        """Adds what every item of the box has, in the order of the items."""
        flat = self.memory.values[access.tensor]
        if prod(access.shape) != flat.size:
            self.fault(step, f"sees tensor {access.tensor} of {flat.size} elements as {list(access.shape)}")
        target, marks = seen.view(flat), seen.view(self.memory.valid[access.tensor])
        shared = [
            range(1 if count == items else items) for (count, _), items in zip(seen.grid, self.box.counts, strict=True)
        ]
        for steps in product(*shared):
            part = tuple(
                slice(None) if len(each) == 1 else slice(at, at + 1) for at, each in zip(steps, shared, strict=True)
            )
            target += seen.from_tile(tile[part])
        marks[...] = True

    def gather(self, step: Step, gather: Gather) -> None:
        seen, flat, valid = self.source(step, gather)
        address = self.computed(step, gather, seen)
        lead = len(self.box.names)
        if valid is not None and not valid[address].all():
            self.fault(step, f"reads elements of tensor {gather.access.tensor} that were never written")
        # A dimension that repeats one element has a single address.
        address = np.broadcast_to(address, (*address.shape[:lead], *(size for _, _, size in seen.counters)))
        self.write(gather.tile, flat[address].reshape(*address.shape[:lead], *seen.tile_shape), step)

    def scatter(self, step: Step, scatter: Scatter) -> None:
        seen, flat, valid = self.source(step, scatter)
        tile = self.read(scatter.tile, step)
        lead = len(self.box.names)
        if tile.shape[lead:] != seen.tile_shape:
            self.fault(step, f"scatters tile {scatter.tile} of {list(tile.shape[lead:])} as {list(seen.tile_shape)}")
        if seen.empty:
            return
        address = self.computed(step, scatter, seen)
        address = np.broadcast_to(address, (*self.box.counts, *address.shape[lead:]))
        if valid is not None and not valid[address].all():
            self.fault(step, f"changes elements of tensor {scatter.access.tensor} that were never written")
        # Of several values for one element numpy keeps the last, and so does the machine within an item.
        new = np.broadcast_to(seen.from_tile(tile), address.shape)
        if scatter.function:
            UPDATES[scatter.function].at(flat, address, new)
        else:
            flat[address] = new
        items = items_of(self.kernel, self.box).reshape(self.box.counts + (1,) * len(seen.counters))
        self.memory.changed(scatter.access.tensor, address, np.broadcast_to(items, address.shape))

    def computed(self, step: Step, transfer: Gather | Scatter, seen: Window) -> Array:
        """The elements at the positions that a tile of indices gives: dimensions of the box, then of the counters."""
        access, lead = transfer.access, len(self.box.names)
        counter = sum(len(group) for group in access.axes[: transfer.axis])
        dim, stride, size = seen.counters[counter]
        indices = self.read(transfer.indices, step).astype(np.int64)
        if indices.shape[lead:] != (size,):
            what = type(transfer).__name__.lower()
            self.fault(step, f"{what}s {size} elements with {list(indices.shape[lead:])} indices")
        rest = len(seen.counters) - counter - 1
        indices = indices.reshape(indices.shape[:lead] + (1,) * counter + (size,) + (1,) * rest)
        positions = seen.positions(skip=counter)
        chosen = positions[dim] + stride * indices
        wrong = (chosen < 0) | (chosen >= seen.shape[dim])
        if wrong.any():
            first = np.argwhere(wrong)[0]
            value = int(np.broadcast_to(indices, wrong.shape)[tuple(first)])
            message = f"index {value} is outside dimension {dim} of size {seen.shape[dim]} of {access.tensor}"
            raise MachineError(message, self.place(step, first[:lead]), from_data=True)
        positions[dim] = chosen
        return seen.addresses(positions)

    def iota(self, step: Step, iota: Iota) -> None:
        shape = tuple(evaluate(size, self.sizes) for size in step.sizes)
        lead = len(self.box.names)
        moves = step.moves or {}
        values = np.array(step.base + sum(moves.get(name, 0) * at for name, at in self.loops.items()), np.int64)
        for axis, (name, first, count) in enumerate(zip(self.box.names, self.box.first, self.box.counts, strict=True)):
            if moves.get(name):
                steps = moves[name] * np.arange(first, first + count, dtype=np.int64)
                values = values + steps.reshape((-1,) + (1,) * (lead + len(shape) - axis - 1))
        counter = iota.step * np.arange(shape[iota.axis], dtype=np.int64)
        values = values + counter.reshape((-1,) + (1,) * (len(shape) - iota.axis - 1))
        values = values.reshape((1,) * (lead + len(shape) - values.ndim) + values.shape)
        self.write(iota.tile, np.broadcast_to(values, values.shape[:lead] + shape), step)

    def matmul(self, step: Step, matmul: Matmul) -> None:
        lhs, rhs = self.read(matmul.lhs, step), self.read(matmul.rhs, step)
        begins = self.loops.get(matmul.begins) == 0
        accumulator = None if begins else self.read(matmul.accumulator, step)
        into = (lhs.shape[-2], rhs.shape[-1]) if accumulator is None else accumulator.shape[-2:]
        if lhs.shape[-1] != rhs.shape[-2] or into != (lhs.shape[-2], rhs.shape[-1]):
            shapes = " · ".join(str(list(each.shape[-2:])) for each in (lhs, rhs))
            self.fault(step, f"multiplies {shapes} into {list(into)}")
        whole = np.issubdtype(lhs.dtype, np.integer)
        if lhs.dtype != np.float32:
            wide = np.float64 if lhs.shape[-1] > _EXACT_DEPTH else np.float32
            lhs, rhs = lhs.astype(wide), rhs.astype(wide)
        found = np.matmul(lhs, rhs)
        if whole:
            found = found.astype(np.int32)
        if accumulator is None:
            self.write(matmul.accumulator, found, step)
        elif matmul.accumulator in self.owned and accumulator.shape == found.shape:
            np.add(accumulator, found, out=accumulator, casting="unsafe")
            return
        else:
            self.write(matmul.accumulator, accumulator + found, step)
        self.owned.add(matmul.accumulator)

    def map(self, step: Step, instruction: Map) -> None:
        operands = [self.read(each, step) if isinstance(each, str) else each for each in step.operands]
        values = FUNCTIONS[instruction.function].compute(*operands, *instruction.parameters)
        if instruction.function == "copy" and isinstance(source := instruction.operands[0], str):
            self.owned.discard(source)
        self.write(instruction.tile, values, step)

    def read(self, tile: str, step: Step) -> Array:
        if tile not in self.tiles:
            self.fault(step, f"reads tile {tile} at {self.kernel.tiles[tile].address:#x} before anything wrote it")
        return self.tiles[tile]

    def write(self, tile: str, values: Array, step: Step) -> None:
        declared = self.kernel.tiles[tile]
        shape = values.shape[len(self.box.names) :]
        if len(shape) != len(declared.shape) or any(s > d for s, d in zip(shape, declared.shape, strict=True)):
            self.fault(step, f"writes {list(shape)} into tile {tile}, which holds {list(declared.shape)}")
        self.tiles[tile] = round_to(declared.dtype, values)
        self.owned.discard(tile)

    def place(self, step: Step, steps: Sequence[int] | None = None, address: int | None = None) -> Place:
        """Where a step is: on the core of the item at `steps` within the box, by default of the box's first item."""
        inside = [0] * len(self.box.names) if steps is None else list(steps)
        item = item_of(self.kernel, [first + at for first, at in zip(self.box.first, inside, strict=True)])
        opcode = type(step.instruction).__name__.lower()
        return Place(self.kernel.kernel.name, step.index, opcode, int(self.core(item)), address)

    def core(self, items: Array | int) -> Array:
        """The core that each item runs on."""
        return self.dealing.cores_of(items, self.kernel.items, self.kernel.kernel.first)

    def fault(self, step: Step, message: str, steps: Sequence[int] | None = None) -> NoReturn:
        raise MachineError(message, self.place(step, steps))

    def outside(self, step: Step, seen: Window, dim: int, side: int) -> NoReturn:
        low, high = seen.extremes(dim)
        tensor = "" if step.access is None else step.access.tensor
        position = low if side < 0 else high
        message = f"position {position} is outside dimension {dim} of size {seen.shape[dim]} of tensor {tensor}"
        element = sum(
            stride * (position if each == dim else base)
            for each, (stride, base) in enumerate(zip(seen.strides, seen.base, strict=True))
        )
        raise MachineError(message, self.place(step, seen.corner(dim, side), self.memory.address(tensor, element)))
