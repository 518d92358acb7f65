"""The memory of one sequence's state, part by part.

A part has two banks, one that a run reads and one that it writes, which change roles; or one, where the segment writes
in place. A bank has room for the largest shape, and holds the present one without gaps from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from gimlet.runtime.errors import InputError
from gimlet.runtime.executors.base import DONE, Buffer, DeviceBuffer, alloc_host
from gimlet.runtime.schedule import Place, StatePlaces

Shape = tuple[int, ...]
Allocator = Callable[[Place, Shape], Buffer]
RESET = "reset() starts again"


class Bank:
    """One memory of a part of a state, on its device, seen in the shapes that runs have."""

    def __init__(self, memory: Buffer) -> None:
        self.memory = memory
        self._shape: Shape | None = None
        self._view = memory

    def view(self, shape: Shape) -> Buffer:
        """The beginning of the memory as a tensor; the same object while the shape is the same."""
        if shape != self._shape:
            self._shape = shape
            memory = self.memory
            if isinstance(memory, np.ndarray):
                self._view = memory[: prod(shape)].reshape(shape)
            elif isinstance(memory, DeviceBuffer):
                self._view = memory.view(shape)
        return self._view

    def write(self, array: np.ndarray) -> None:
        """Puts an array in, as a tensor of its shape."""
        view = self.view(array.shape)
        if isinstance(view, np.ndarray):
            view[...] = array
        elif isinstance(view, DeviceBuffer):
            view.upload(array, ()).wait()

    def read(self, shape: Shape) -> np.ndarray:
        """A copy of what it holds."""
        view = self.view(shape)
        if isinstance(view, np.ndarray):
            return view.copy()
        if not isinstance(view, DeviceBuffer):
            raise TypeError("a state is an array, or in a device's memory")
        array = alloc_host(view.dtype, shape)
        view.download(array, (DONE,)).wait()
        return array

    def free(self) -> None:
        """Gives a device's memory back."""
        if isinstance(self.memory, DeviceBuffer):
            self.memory.free()


class Part:
    """One tensor of a state: the bank that holds it, the one that the next run writes, and its shape."""

    def __init__(self, allocate: Allocator, place: Place, places: StatePlaces) -> None:
        self.places = places
        self.spec = place.spec
        room = (prod(places.entry.capacity),)
        self.now = Bank(allocate(place, room))
        self.next = self.now if places.entry.in_place else Bank(allocate(place, room))
        self.shape: Shape = ()

    @property
    def name(self) -> str:
        return self.places.entry.name

    def shape_at(self, sizes: Mapping[str, int]) -> Shape:
        """What the state's shape is at these sizes of dimensions. InputError where they do not tell it."""
        shape = self.spec.resolve(sizes)
        if shape is None:
            raise InputError(f"the inputs do not tell the shape of {self.spec}", where=f"state {self.name!r}")
        return shape

    def put(self, array: np.ndarray) -> None:
        """Makes an array of the right type and shape what the state holds."""
        self.now.write(array)
        self.shape = array.shape

    def written(self, shape: Shape) -> None:
        """What the run has written is what the state holds from now on."""
        self.now, self.next = self.next, self.now
        self.shape = shape

    def checked(self, values: Mapping[str, Any]) -> np.ndarray:
        """What `values` has for it. InputError where that is nothing, or of another type, or too large."""
        where = f"state {self.name!r}"
        if self.name not in values:
            raise InputError(f"is missing; it is {self.spec}", where=where)
        array = np.ascontiguousarray(values[self.name]).reshape(np.shape(values[self.name]))
        capacity = self.places.entry.capacity
        if array.dtype != self.spec.numpy_type or array.ndim != len(capacity):
            raise InputError(f"is {array.dtype}{list(array.shape)}, and the state {self.spec}", where=where)
        if any(size > room for size, room in zip(array.shape, capacity, strict=True)):
            raise InputError(f"has shape {list(array.shape)}, and there is room for {list(capacity)}", where=where)
        return array

    def free(self) -> None:
        """Gives a device's memory back."""
        for bank in {self.now, self.next}:
            bank.free()


def check_room(places: StatePlaces, shape: Shape) -> None:
    """InputError where a run would leave more in a state than it has room for."""
    entry = places.entry
    for axis, (size, room) in enumerate(zip(shape, entry.capacity, strict=True)):
        if size > room:
            raise InputError(
                f"it would hold {size} in dimension {axis}, and has room for {room}",
                where=f"state {entry.name!r}",
                hint=f"{RESET}; compile with --bind for more room",
            )
