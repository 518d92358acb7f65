"""The memory of the machine while a program runs: values, which of them were ever written, and who lives where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from gimlet.runtime.sram.binding import BoundProgram
from gimlet.runtime.sram.faults import MachineError, Place
from gimlet.runtime.sram.formats import CARRIERS, decode, stored_bytes
from gimlet.runtime.sram.program import Binding, Program, Tensor

Array = np.ndarray[Any, Any]


class Weights:
    """A program's weights, decoded from its weights file when they are first read, and kept."""

    def __init__(self, program: Program, data: Array) -> None:
        self.data = data
        self.tensors = {tensor.name: tensor for tensor in program.tensors if tensor.role == "weight"}
        self.decoded: dict[str, Array] = {}

    def flat(self, name: str) -> Array:
        """The elements of a weight in its carrier, one after the other."""
        if name not in self.decoded:
            tensor = self.tensors[name]
            shape = tuple(dim.as_int() for dim in tensor.shape)
            end = tensor.offset + stored_bytes(tensor.dtype, shape)
            if not 0 <= tensor.offset <= end <= self.data.nbytes:
                raise MachineError(f"weight {name} ends at byte {end} of a file of {self.data.nbytes}")
            values = decode(tensor.dtype, self.data[tensor.offset : end], shape)
            values.setflags(write=False)
            self.decoded[name] = values.reshape(-1)
        return self.decoded[name]


def overlaps(program: Program) -> dict[str, tuple[str, ...]]:
    """For each tensor those that share an address with it."""
    found: dict[str, list[str]] = {tensor.name: [] for tensor in program.tensors}
    parts = program.parts
    for space in ("sram", "lpddr"):
        open_until: list[Tensor] = []
        inside = [tensor for tensor in program.tensors if tensor.space == space and tensor.capacity_bytes]
        for tensor in sorted(inside, key=lambda each: each.address):
            open_until = [each for each in open_until if each.address + each.reach_bytes(parts) > tensor.address]
            for other in open_until:
                if tensor.meets(other):
                    found[other.name].append(tensor.name)
                    found[tensor.name].append(other.name)
            open_until.append(tensor)
    return {name: tuple(names) for name, names in found.items()}


class Memory:
    """Tensors of one run. A tensor comes to life when it is first written, and dies when one in its place does."""

    def __init__(self, bound: BoundProgram, weights: Weights, shared: Mapping[str, tuple[str, ...]]) -> None:
        self.bound = bound
        self.tensors = {tensor.name: tensor for tensor in bound.program.tensors}
        self.weights = weights
        self.shared = shared
        self.values: dict[str, Array] = {}
        self.valid: dict[str, Array] = {}
        self.filled: dict[str, int] = {}
        self.written: dict[str, int] = {}
        self.summed: list[str] = []
        self.added: set[str] = set()
        self.overwritten: dict[str, str] = {}
        self.padded: dict[tuple[object, ...], Array] = {}
        self.changes: dict[str, list[tuple[Array, Array]]] = {}

    def place_input(self, name: str, values: Array, in_place: bool = False) -> None:
        """Puts an input where the program expects it. A state is changed in a copy unless it may be `in_place`."""
        self._bury(name)
        tensor = self.tensors[name]
        placed = np.ascontiguousarray(values).astype(CARRIERS[tensor.dtype], copy=False).reshape(-1)
        if tensor.growth is not None:
            self._place_beginning(name, placed)
            return
        if tensor.role == "state" and not in_place and np.may_share_memory(placed, values):
            placed = placed.copy()
        self.values[name] = placed

    def _place_beginning(self, name: str, values: Array) -> None:
        """Puts what is there of a state that grows into a tensor of its capacity."""
        shape, given = self.bound.shapes[name], self.bound.given[name]
        there = tuple(map(slice, given))
        self.values[name] = np.zeros(prod(shape), values.dtype)
        self.values[name].reshape(shape)[there] = values.reshape(given)
        self.valid[name] = np.zeros(prod(shape), np.bool_)
        self.valid[name].reshape(shape)[there] = True
        self.filled[name] = values.size

    def result(self, output: Binding, place: Place) -> Array:
        """What an output holds, in its shape. MachineError if it is not complete."""
        name = output.tensor
        values = self.read(name, place).reshape(self.bound.shapes[name])
        if self.tensors[name].growth is not None:
            return self._beginning(name, values, place)
        if name in self.valid:
            raise MachineError(f"output {output.name} is not complete", place)
        return values

    def _beginning(self, name: str, values: Array, place: Place) -> Array:
        """What is there of a state that grows, copied. MachineError where that is more or less than there should be."""
        left = self.bound.left[name]
        there = tuple(map(slice, left))
        valid = self.valid.get(name)
        if valid is not None and not valid.reshape(values.shape)[there].all():
            raise MachineError(f"state {name} is not complete: it should have grown to {list(left)}", place)
        if self.filled[name] > prod(left):
            raise MachineError(f"state {name} was written behind the {list(left)} that it should have grown to", place)
        return values[there].copy()

    def read(self, name: str, place: Place) -> Array:
        """All elements of a tensor that is alive. Whether those that are used were written is `check_valid`'s."""
        if name in self.values:
            return self.values[name]
        if self.tensors[name].role == "weight" and name not in self.overwritten:
            self.values[name] = self.weights.flat(name)
            return self.values[name]
        killer = self.overwritten.get(name)
        what = "was never written" if killer is None else f"was overwritten by {killer}, which shares its address"
        raise MachineError(f"reads tensor {name}, which {what}", place)

    def begin_kernel(self, stored: Mapping[str, bool], place: Place, *, works: bool = True) -> None:
        """Brings the tensors that a kernel stores to life, and ends those whose place they take.

        Those that it adds to (`stored` says which) begin at zero, but for what kernels before have added. One that does
        not work, as it has no items at these sizes (an empty part of a Concat), stores nothing that could be too much.
        """
        self.padded.clear()
        self.changes.clear()
        self.written = {name: 0 for name, adds in stored.items() if not adds}
        self.summed = [name for name, adds in stored.items() if adds]
        for tensor, adds in stored.items():
            size = prod(self.bound.shapes[tensor])
            if tensor in self.values and adds and tensor not in self.added:
                raise MachineError(f"adds to tensor {tensor}, which another kernel has written", place)
            if tensor in self.values and tensor in self.added and not adds:
                raise MachineError(f"writes tensor {tensor}, to which another kernel has added", place)
            if tensor in self.values and tensor not in self.valid and works and not adds:
                raise MachineError(f"writes tensor {tensor}, which is complete, a second time", place)
            if tensor in self.values:
                self.valid.setdefault(tensor, np.ones(size, np.bool_))
                continue
            self._bury(tensor)
            if adds:
                self.added.add(tensor)
            begin = np.zeros if adds else np.empty
            self.values[tensor] = begin(size, CARRIERS[self.tensors[tensor].dtype])
            self.valid[tensor] = np.zeros(size, np.bool_)
            self.filled[tensor] = 0

    def end_kernel(self, place: Place) -> None:
        """Checks that no element was written twice, and marks what is complete."""
        for name, changes in self.changes.items():
            self._check_changes(name, changes, place)
        for name in self.summed:
            if self.valid[name].all():
                del self.valid[name]
        for name, count in self.written.items():
            expected = self.filled[name] + count
            valid = self.valid[name]
            now = int(np.count_nonzero(valid))
            if now != expected:
                raise MachineError(f"{expected - now} elements of tensor {name} have two writers", place)
            self.filled[name] = now
            if now == valid.size:
                del self.valid[name]

    def changed(self, name: str, elements: Array, items: Array) -> None:
        """Notes which elements of a tensor which items of the kernel change."""
        self.changes.setdefault(name, []).append((elements.reshape(-1), items.reshape(-1)))

    def _check_changes(self, name: str, changes: Sequence[tuple[Array, Array]], place: Place) -> None:
        elements, items = (np.concatenate(each) for each in zip(*changes, strict=True))
        order = np.lexsort((items, elements))
        elements, items = elements[order], items[order]
        twice = (elements[1:] == elements[:-1]) & (items[1:] != items[:-1])
        if twice.any():
            element = int(elements[1:][twice][0])
            raise MachineError(f"two items change element {element} of tensor {name}", place)

    def pad(
        self, name: str, flat: Array, shape: tuple[int, ...], padding: tuple[tuple[int, int], ...], fill: float | bool
    ) -> Array:
        """A tensor with a border of `fill`, made once a kernel. The machine's DMA makes the values without a copy."""
        key = (name, flat.dtype, shape, padding, fill)
        if key not in self.padded:
            bordered = np.full([size + sum(p) for size, p in zip(shape, padding, strict=True)], fill, flat.dtype)
            inside = tuple(slice(low, low + size) for size, (low, _) in zip(shape, padding, strict=True))
            bordered[inside] = flat.reshape(shape)
            self.padded[key] = bordered.reshape(-1)
        return self.padded[key]

    def address(self, name: str, element: int) -> int:
        """The byte address of an element, in its tensor's space."""
        tensor = self.tensors[name]
        return tensor.address + stored_bytes(tensor.dtype, (max(0, element),))

    def _bury(self, name: str) -> None:
        for other in self.shared[name]:
            if other in self.values or self.tensors[other].role in ("weight", "input", "state"):
                self.added.discard(other)
                self.values.pop(other, None)
                self.valid.pop(other, None)
                self.overwritten[other] = name
        self.overwritten.pop(name, None)
