"""What a manifest means for the runtime, found once when a bundle is loaded: who owns which memory, who waits for whom.

Terms. A *place* is memory that holds one value during a run; values that a transfer connects share one place where both
devices compute in the same memory (host memory, for a CPU and for an emulated device), and that transfer is no step.
A place belongs to the caller (`INPUT`), is made anew for every run (`OUTPUT`), is kept between runs (`SCRATCH`), is a
part of the state that the run is on (`STATE`), or is allocated by the executor because only the run knows the size
(`OPEN`). Scratch places may share an *arena*, as the compiler's liveness analysis found, at different times.

Order. The manifest's steps and what each waits for are taken over. A step that writes into an arena waits, besides,
for everything that uses the value that the arena held before: the compiler's plan promises as much, and a plan that
does not must not be a race.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from gimlet.runtime.executors.base import HOST_MEMORY
from gimlet.runtime.manifest import Launch, Manifest, StateEntry, Transfer
from gimlet.runtime.packed import BITS
from gimlet.runtime.tensors import STRING, TensorSpec, symbol_of

# Strings, and elements of less than a byte: what they take in the executor's memory is the executor's to say.
_OF_ANY_SIZE = frozenset({STRING, *BITS})


class PlaceKind(Enum):
    """Whose memory a place is, and for how long."""

    INPUT = "input"
    OUTPUT = "output"
    SCRATCH = "scratch"
    OPEN = "open"
    STATE = "state"


@dataclass(frozen=True)
class Place:
    """Memory on `device` for a value of the form `spec`. `arena` names the memory that a scratch place is cut from."""

    index: int
    kind: PlaceKind
    spec: TensorSpec
    device: str
    memory: str
    arena: str


@dataclass(frozen=True)
class LaunchStep:
    """Runs a segment. Ports are (name in the segment, index of a place); `after` are indices of earlier steps."""

    index: int
    id: str
    device: str
    segment: str
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class CopyStep:
    """Copies one place to another, which is in a different memory."""

    index: int
    id: str
    device: str
    source: int
    target: int
    after: tuple[int, ...]


ScheduleStep = LaunchStep | CopyStep


@dataclass(frozen=True)
class StatePlaces:
    """The places that a state is read from and written to: two memories that change roles, or one."""

    entry: StateEntry
    read: int
    written: int


@dataclass(frozen=True)
class Schedule:
    """The places and steps of a program. `inputs` and `outputs` are the places of its ports, in their order.

    `concurrent` says whether two steps on different devices are ever independent: only then do threads pay.
    """

    places: tuple[Place, ...]
    steps: tuple[ScheduleStep, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    concurrent: bool
    states: tuple[StatePlaces, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that have steps, in the order of their first."""
        return tuple(dict.fromkeys(step.device for step in self.steps))


def build_schedule(manifest: Manifest, memories: Mapping[str, str]) -> Schedule:
    """The schedule of a manifest, where `memories` maps a device to the memory it computes in (absent: the host's)."""
    return _Builder(manifest, memories).build()


@dataclass
class _Builder:
    manifest: Manifest
    memories: Mapping[str, str]
    place_of: dict[str, int] = field(default_factory=dict[str, int])
    places: list[Place] = field(default_factory=list[Place])
    steps: list[ScheduleStep] = field(default_factory=list[ScheduleStep])
    waits: dict[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])

    def build(self) -> Schedule:
        manifest = self.manifest
        self.make_places()
        for step in manifest.steps:
            after = frozenset[int]().union(*(self.waits[name] for name in step.after))
            if isinstance(step, Launch):
                self.add(self.launch(step, after), step.id)
            elif self.place_of[step.source] == self.place_of[step.target]:
                self.waits[step.id] = after
            else:
                self.add(self.copy(step, after), step.id)
        self.order_arenas()
        return Schedule(
            places=tuple(self.places),
            steps=tuple(self.steps),
            inputs=tuple(self.place_of[port.value] for port in manifest.inputs),
            outputs=tuple(self.place_of[port.value] for port in manifest.outputs),
            concurrent=_is_concurrent(self.steps),
            states=tuple(
                StatePlaces(state, self.place_of[state.read], self.place_of[state.written]) for state in manifest.states
            ),
        )

    def memory(self, device: str) -> str:
        return self.memories.get(device, HOST_MEMORY)

    def make_places(self) -> None:
        """One place for each set of values that transfers within one memory connect."""
        manifest = self.manifest
        values = {value.id: value for value in manifest.values}
        owner = {name: name for name in values}
        for step in manifest.transfers:
            source, target = values[step.source], values[step.target]
            if self.memory(source.device) == self.memory(target.device) == HOST_MEMORY:
                owner[target.id] = owner[source.id]
        specs = [manifest.spec(port) for port in manifest.inputs]
        specs += [values[state.read].spec for state in manifest.states]
        shapes = [spec.shape or () for spec in specs if spec.is_tensor]
        known = {name for shape in shapes for dim in shape if (name := symbol_of(dim)) is not None}
        inputs = {owner[port.value] for port in manifest.inputs}
        outputs = {owner[port.value] for port in manifest.outputs}
        states = {owner[name] for state in manifest.states for name in (state.read, state.written)}
        for name, value in values.items():
            first = owner[name]
            if first != name:
                self.place_of[name] = self.place_of[first]
                continue
            spec = value.spec
            is_open = (
                spec.shape is None
                or None in spec.shape
                or not spec.symbols <= known
                or spec.dtype in _OF_ANY_SIZE
                or not spec.is_tensor
            )
            kind = (
                PlaceKind.STATE
                if name in states
                else PlaceKind.INPUT
                if name in inputs
                else PlaceKind.OPEN
                if is_open
                else PlaceKind.OUTPUT
                if name in outputs
                else PlaceKind.SCRATCH
            )
            self.place_of[name] = len(self.places)
            is_shared = kind is PlaceKind.SCRATCH and value.buffer is not None
            arena = f"buffer {value.buffer}" if is_shared else f"value {name}"
            self.places.append(Place(len(self.places), kind, spec, value.device, self.memory(value.device), arena))

    def add(self, step: ScheduleStep, name: str) -> None:
        self.steps.append(step)
        self.waits[name] = frozenset({step.index})

    def launch(self, step: Launch, after: frozenset[int]) -> LaunchStep:
        segment = self.manifest.segment(step.segment)
        return LaunchStep(
            index=len(self.steps),
            id=step.id,
            device=segment.device,
            segment=segment.id,
            inputs=self.ports(segment.inputs, step.inputs),
            outputs=self.ports(segment.outputs, step.outputs),
            after=tuple(sorted(after)),
        )

    def ports(self, specs: Sequence[TensorSpec], values: Sequence[str]) -> tuple[tuple[str, int], ...]:
        return tuple((spec.name, self.place_of[value]) for spec, value in zip(specs, values, strict=True))

    def copy(self, step: Transfer, after: frozenset[int]) -> CopyStep:
        source, target = self.place_of[step.source], self.place_of[step.target]
        # The copy is queued where the work waits for it: on the device that is not the host, if there is one.
        device = self.places[target if self.places[target].memory != HOST_MEMORY else source].device
        return CopyStep(len(self.steps), step.id, device, source, target, tuple(sorted(after)))

    def order_arenas(self) -> None:
        """Lets a step that overwrites an arena wait for the users of what it held, or takes the place out of it."""
        users: dict[int, list[int]] = {place.index: [] for place in self.places}
        for step in self.steps:
            for place in _touched(step):
                users[place].append(step.index)
        tenants: dict[str, list[int]] = {}
        for place in self.places:
            if place.kind is PlaceKind.SCRATCH and users[place.index]:
                tenants.setdefault(place.arena, []).append(place.index)
        extra: dict[int, set[int]] = {}
        for arena, indices in tenants.items():
            indices.sort(key=lambda index: users[index][0])
            held: int | None = None
            for index in indices:
                if held is not None and max(users[held]) >= users[index][0]:
                    self.places[index] = replace(self.places[index], arena=f"{arena} place {index}")
                    continue
                if held is not None:
                    extra.setdefault(users[index][0], set()).update(users[held])
                held = index
        for index, waits in extra.items():
            step = self.steps[index]
            self.steps[index] = replace(step, after=tuple(sorted({*step.after, *waits})))


def _touched(step: ScheduleStep) -> list[int]:
    if isinstance(step, CopyStep):
        return [step.source, step.target]
    return [place for _, place in (*step.inputs, *step.outputs)]


def _is_concurrent(steps: Sequence[ScheduleStep]) -> bool:
    """Whether two launches on different devices may run at the same time."""
    before: list[int] = []
    for step in steps:
        mask = 0
        for index in step.after:
            mask |= before[index] | 1 << index
        before.append(mask)
        for other in steps[: step.index]:
            both = isinstance(step, LaunchStep) and isinstance(other, LaunchStep)
            if both and other.device != step.device and not mask >> other.index & 1:
                return True
    return False
