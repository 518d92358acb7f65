"""The memory and bindings of one request in flight.

A frame serves one run at a time. For each combination of input shapes that it meets it keeps a `ShapePlan`: shapes
evaluated, scratch cut from arenas, every segment bound. A run with shapes that were seen before then only exchanges
what belongs to the caller. Small inputs are copied into memory that stays bound, which is quicker than binding;
outputs are fresh arrays in every run, so no result is overwritten by the next one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gimlet.runtime.errors import InputError
from gimlet.runtime.executors.base import (
    DONE,
    HOST_MEMORY,
    Bindings,
    Buffer,
    DeviceBuffer,
    Event,
    Executor,
    alloc_host,
)
from gimlet.runtime.inputs import Signature
from gimlet.runtime.manifest import DimRange
from gimlet.runtime.packed import BITS
from gimlet.runtime.schedule import CopyStep, LaunchStep, Place, PlaceKind, Schedule
from gimlet.runtime.state_memory import Part, check_room
from gimlet.runtime.structures import Structure, copied
from gimlet.runtime.tensors import nbytes
from gimlet.runtime.transports.base import Transport

SMALL_BYTES = 32 << 10
"""Up to this size a copy is quicker than binding the caller's own memory (1 µs against 3 µs at 4 KiB)."""

KEPT_PLANS = 8
KEPT_BYTES = 64 << 20
"""A frame keeps this many plans, and no more than one where their inputs and outputs of the last run are larger."""

Setter = Callable[[str, Buffer], None]
Action = Callable[[Sequence[Event]], Event]


@dataclass(frozen=True)
class LoadedVariant:
    """An executor that holds a segment, and the sizes of dimensions that it serves."""

    executor: Executor
    profile: Mapping[str, DimRange]

    def serves(self, sizes: Mapping[str, int]) -> bool:
        """Whether every dimension of the profile is in its range."""
        return all(r.minimum <= sizes.get(name, r.optimum) <= r.maximum for name, r in self.profile.items())


@dataclass(frozen=True)
class Machinery:
    """What all frames of a program share: its schedule, its executors by segment and its transports by copy step."""

    schedule: Schedule
    variants: Mapping[str, tuple[LoadedVariant, ...]]
    transports: Mapping[int, Transport]
    output_names: tuple[str, ...]
    sizes_of: Callable[[Signature], dict[str, int]]

    def executor(self, segment: str, sizes: Mapping[str, int]) -> Executor:
        """The first variant of a segment that serves these sizes. InputError where none does."""
        for variant in self.variants[segment]:
            if variant.serves(sizes):
                return variant.executor
        given = ", ".join(f"{name}={size}" for name, size in sorted(sizes.items()))
        raise InputError(f"no variant of the segment serves {given}", where=segment)

    def allocate(self, place: Place, shape: tuple[int, ...]) -> Buffer:
        """Memory of its own for the elements of a place."""
        dtype = place.spec.numpy_type
        if place.memory == HOST_MEMORY:
            return alloc_host(dtype, shape)
        return self.allocator(place.device).alloc(dtype, shape)

    def allocator(self, device: str) -> Executor:
        """Any executor on `device`, to allocate in its memory."""
        launches = (s for s in self.schedule.steps if isinstance(s, LaunchStep) and s.device == device)
        return self.variants[next(launches).segment][0].executor


class ShapePlan:
    """Everything about a run that depends on the inputs' shapes only. `actions` are the schedule's steps, callable."""

    def __init__(self, frame: Frame, signature: Signature, parts: Sequence[Part]) -> None:
        machinery = frame.machinery
        schedule = machinery.schedule
        self._schedule = schedule
        self._sizes = sizes = machinery.sizes_of(signature)
        self._shapes = [place.spec.resolve(sizes) if _is_sized(place) else None for place in schedule.places]
        self._memory: list[Buffer | None] = [None] * len(schedule.places)
        self._setters: list[list[tuple[Setter, str]]] = [[] for _ in schedule.places]
        self._bindings: list[Bindings] = []
        self._small_inputs: list[tuple[np.ndarray, int]] = []
        self._large_inputs: list[tuple[int, int]] = []
        self._fresh: list[tuple[int, tuple[int, ...], np.dtype]] = []
        self._states = [(s, self._shape_of(s.read), self._shape_of(s.written)) for s in schedule.states]
        for places, _, written in self._states:
            check_room(places, written)
        self._own_memory(frame, signature)
        self._take(parts)
        self.actions: list[Action] = [
            self._launch(machinery, step) if isinstance(step, LaunchStep) else self._copy(machinery, step)
            for step in schedule.steps
        ]
        self._outputs = [
            (name, place, self._is_copied(place))
            for name, place in zip(machinery.output_names, schedule.outputs, strict=True)
        ]

    def _own_memory(self, frame: Frame, signature: Signature) -> None:
        """Fills in the memory that stays the same from run to run, and stand-ins for what every run brings."""
        given: dict[int, np.ndarray | None] = {}
        for position, place in enumerate(self._schedule.inputs):
            spec = self._schedule.places[place].spec
            dtype = spec.numpy_type
            shape = signature[position]
            # What an executor converts when it is bound is bound for every run.
            if nbytes(dtype, shape) <= SMALL_BYTES and not dtype.hasobject and spec.dtype not in BITS:
                given[place] = kept_input = alloc_host(dtype, shape)
                self._small_inputs.append((kept_input, position))
            else:
                self._large_inputs.append((place, position))
                given[place] = np.zeros(shape, dtype) if spec.is_tensor else None
        kept: list[tuple[Place, tuple[int, ...]]] = []
        for place, shape in zip(self._schedule.places, self._shapes, strict=True):
            dtype = place.spec.numpy_type
            if place.kind is PlaceKind.INPUT:
                self._memory[place.index] = given[place.index]
            elif shape is None or place.kind is PlaceKind.STATE:
                continue
            elif place.kind is PlaceKind.OUTPUT and nbytes(dtype, shape) > SMALL_BYTES:
                self._fresh.append((place.index, shape, dtype))
                self._memory[place.index] = np.empty(shape, dtype)
            else:
                kept.append((place, shape))
        frame.reserve(kept)
        for place, shape in kept:
            self._memory[place.index] = frame.scratch(place, shape)

    def _launch(self, machinery: Machinery, step: LaunchStep) -> Action:
        executor = machinery.executor(step.segment, self._sizes)
        opened = [(port, place) for port, place in step.outputs if self._memory[place] is None]
        waiting = [(port, place) for port, place in step.inputs if self._memory[place] is None]
        if waiting:
            return self._late_launch(executor, step, opened)
        bindings = self._bind(executor, step)
        submit = executor.launcher(bindings)
        if not opened:
            return submit

        def launch(wait: Sequence[Event]) -> Event:
            submit(wait).wait()
            self._collect(bindings, opened)
            return DONE

        return launch

    def _bind(self, executor: Executor, step: LaunchStep) -> Bindings:
        inputs = {port: self._buffer(place) for port, place in step.inputs}
        bindings = executor.bind(inputs, {port: self._memory[place] for port, place in step.outputs})
        bindings.set_sizes(self._sizes)
        self._bindings.append(bindings)
        for port, place in step.inputs:
            self._setters[place].append((bindings.set_input, port))
        for port, place in step.outputs:
            self._setters[place].append((bindings.set_output, port))
        return bindings

    def _late_launch(self, executor: Executor, step: LaunchStep, opened: list[tuple[str, int]]) -> Action:
        """A launch that can be bound only once the steps before it have made its inputs."""
        bound: list[Bindings] = []

        def launch(wait: Sequence[Event]) -> Event:
            if not bound:
                bound.append(self._bind(executor, step))
            event = executor.submit(bound[0], wait)
            if opened:
                event.wait()
                self._collect(bound[0], opened)
            return event

        return launch

    def _collect(self, bindings: Bindings, opened: Sequence[tuple[str, int]]) -> None:
        """Hands what the executor allocated to those who read it."""
        for port, place in opened:
            buffer = self._memory[place] = bindings.output(port)
            for setter, name in self._setters[place]:
                if setter != bindings.set_output:
                    setter(name, buffer)

    def _copy(self, machinery: Machinery, step: CopyStep) -> Action:
        transport = machinery.transports[step.index]
        target = self._schedule.places[step.target]

        def copy(wait: Sequence[Event]) -> Event:
            source = self._buffer(step.source)
            if self._shapes[step.target] is None:
                self._make_target(machinery, target, source)
            return transport.copy(source, self._buffer(step.target), wait)

        return copy

    def _make_target(self, machinery: Machinery, place: Place, source: Buffer) -> None:
        """Allocates the target of a copy whose size only this run knows, and binds it where it is read."""
        if isinstance(source, Structure):
            raise InputError(f"{place.spec} cannot be copied to the memory of {place.device}", where=place.device)
        if place.memory == HOST_MEMORY:
            buffer: Buffer = alloc_host(source.dtype, source.shape)
        else:
            buffer = machinery.allocator(place.device).alloc(source.dtype, source.shape)
        self._memory[place.index] = buffer
        for setter, name in self._setters[place.index]:
            setter(name, buffer)

    def _buffer(self, place: int) -> Buffer:
        buffer = self._memory[place]
        if buffer is None:
            raise RuntimeError(f"{self._schedule.places[place]} is read before it is made")
        return buffer

    def _is_copied(self, place: int) -> bool:
        """Whether an output is handed out as a copy: it lies in memory that the next run writes, or the caller's."""
        kind = self._schedule.places[place].kind
        is_fresh = kind is PlaceKind.OPEN or any(place == fresh for fresh, _, _ in self._fresh)
        return not is_fresh or self._schedule.outputs.count(place) > 1

    def _shape_of(self, place: int) -> tuple[int, ...]:
        shape = self._shapes[place]
        if shape is None:
            raise RuntimeError(f"{self._schedule.places[place]} has no shape before the run")
        return shape

    def _take(self, parts: Sequence[Part]) -> None:
        """Lets the run read what the state holds, and write what it becomes."""
        memory = self._memory
        for part, (places, read, written) in zip(parts, self._states, strict=True):
            for place, view in ((places.read, part.now.view(read)), (places.written, part.next.view(written))):
                if memory[place] is not view:
                    self._exchange(place, view)

    def leave(self, parts: Sequence[Part]) -> None:
        """What the run has written is what the state holds."""
        for part, (_, _, written) in zip(parts, self._states, strict=True):
            part.written(written)

    def feed(self, arrays: list[np.ndarray | Structure], parts: Sequence[Part] = ()) -> None:
        """Takes over the inputs of a run and its state, and makes the arrays that its outputs go to."""
        if parts:
            self._take(parts)
        for kept, position in self._small_inputs:
            kept[...] = arrays[position]
        memory = self._memory
        for place, position in self._large_inputs:
            if memory[place] is not arrays[position]:
                self._exchange(place, arrays[position])
        for place, shape, dtype in self._fresh:
            self._exchange(place, np.empty(shape, dtype))

    def _exchange(self, place: int, array: Buffer) -> None:
        self._memory[place] = array
        for setter, name in self._setters[place]:
            setter(name, array)

    def results(self) -> dict[str, Any]:
        """The outputs of the run by name."""
        memory = self._memory
        outputs: dict[str, Any] = {}
        for name, place, is_copied in self._outputs:
            array: Any = memory[place]
            if type(array) is Structure:
                outputs[name] = copied(array.value) if is_copied else array.value
            else:
                outputs[name] = array.copy() if is_copied else array
        return outputs

    @property
    def kept_bytes(self) -> int:
        """Bytes of the caller's arrays that stay referenced until the next run of this plan."""
        places = [place for place, _ in self._large_inputs] + [place for place, _, _ in self._fresh]
        arrays = (self._memory[place] for place in places)
        return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))

    def close(self) -> None:
        """Frees what the plan holds in the frameworks and in devices' memory."""
        for bindings in self._bindings:
            bindings.close()
        for buffer in self._memory:
            if isinstance(buffer, DeviceBuffer):
                buffer.free()


def _is_sized(place: Place) -> bool:
    return place.kind in (PlaceKind.OUTPUT, PlaceKind.SCRATCH, PlaceKind.STATE)


class Frame:
    """The arenas of one request in flight and the plans that were cut from them."""

    def __init__(self, machinery: Machinery) -> None:
        self.machinery = machinery
        self._plans: OrderedDict[Signature, ShapePlan] = OrderedDict()
        self.known_plan = self._plans.get
        self._arenas: dict[str, np.ndarray] = {}

    def plan(self, signature: Signature, parts: Sequence[Part] = ()) -> ShapePlan:
        """The plan for these shapes of inputs and of the state, made on the first use.

        InputError where a shape is not allowed, and where a state has no room for what the run would leave.
        """
        plan = self._plans.get(signature)
        if plan is None:
            plan = ShapePlan(self, signature, parts)
            self._plans[signature] = plan
            while len(self._plans) > 1 and self._is_full():
                _, oldest = self._plans.popitem(last=False)
                oldest.close()
        return plan

    def _is_full(self) -> bool:
        return len(self._plans) > KEPT_PLANS or sum(plan.kept_bytes for plan in self._plans.values()) > KEPT_BYTES

    def close(self) -> None:
        """Frees every plan. The frame may be used again."""
        for plan in self._plans.values():
            plan.close()
        self._plans.clear()

    def reserve(self, places: Iterable[tuple[Place, tuple[int, ...]]]) -> None:
        """Makes every arena as large as the largest of these places."""
        sizes: dict[str, int] = {}
        for place, shape in places:
            if place.memory == HOST_MEMORY:
                sizes[place.arena] = max(sizes.get(place.arena, 0), nbytes(place.spec.numpy_type, shape))
        for name, size in sizes.items():
            if name not in self._arenas or self._arenas[name].nbytes < size:
                # Plans that were cut from the smaller arena would keep it: they go, and memory stays what is needed.
                self.close()
                self._arenas[name] = alloc_host(np.dtype(np.uint8), (size,))

    def scratch(self, place: Place, shape: tuple[int, ...]) -> Buffer:
        """Memory of a place that stays from run to run: cut from its arena, or the device's own."""
        if place.memory != HOST_MEMORY:
            return self.machinery.allocate(place, shape)
        dtype = place.spec.numpy_type
        return self._arenas[place.arena][: nbytes(dtype, shape)].view(dtype).reshape(shape)
