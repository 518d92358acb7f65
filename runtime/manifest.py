"""The one definition of `manifest.json`, schema 5.

A manifest says what a bundle computes (inputs, outputs, ranges of dimensions), on what (topology), in which pieces
(segments, with the artifacts of each), in which order (steps), where values live (devices and buffers), what the
placement promised, and which files belong to it. `manifest_check` holds what must be true of all of it together.

Engines are the exception to hashing: their bytes differ from build to build, so a variant names them in `undigested`
and `engines.json` lists them instead. The manifest of a warm rebuild is therefore the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gimlet.runtime.expr import ZERO, Expr
from gimlet.runtime.signature import Signature
from gimlet.runtime.tensors import TensorSpec

SCHEMA = 5
OLDEST_SCHEMA = 1
"""Schema 1 has no `signature`; schema 2 has tensors only, and no `default` of inputs; schema 3 has no states;
schema 4 has of a placement only the objective's figure."""
ENGINES_SCHEMA = 1


@dataclass(frozen=True)
class ModelInfo:
    """The source model: its name, the file or import path it came from, and the sha256 of its bytes."""

    name: str
    source: str
    digest: str


@dataclass(frozen=True)
class DimRange:
    """The sizes that a dimension may have, and the one that costs and random inputs are taken at."""

    minimum: int
    optimum: int
    maximum: int


@dataclass(frozen=True)
class Default:
    """The tensor that an input is where the caller gives none: `bytes` from `offset` on in `file`, as weights are."""

    file: str
    offset: int
    bytes: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """An input or output of the whole program: its name there, and the value that it is."""

    name: str
    value: str
    default: Default | None = None


@dataclass(frozen=True)
class DeviceEntry:
    """A device of the topology. `requires` says what the real one must have, e.g. a compute capability."""

    name: str
    kind: str
    requires: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class LinkEntry:
    """A link of the topology. `bandwidth` is bytes per second one way."""

    name: str
    kind: str
    between: tuple[str, str]
    latency_s: float
    bandwidth: float


@dataclass(frozen=True)
class TopologyEntry:
    """The hardware that the bundle was placed on. Inputs come from `host` and outputs go there."""

    name: str
    host: str
    devices: tuple[DeviceEntry, ...]
    links: tuple[LinkEntry, ...] = ()


@dataclass(frozen=True)
class Value:
    """A tensor (or a sequence, an optional or a map) that exists while the program runs, in one device's memory.

    `id` is unique; `name` is the ONNX value name, which the copies of one value on several devices share. `buffer` is
    the planned memory that it shares with others, or None for inputs, outputs and values of unknown size.
    """

    id: str
    name: str
    dtype: str
    shape: tuple[Expr | None, ...] | None
    device: str
    buffer: str | None = None

    @property
    def spec(self) -> TensorSpec:
        """The value's name, type and shape."""
        return TensorSpec(self.name, self.dtype, self.shape)


@dataclass(frozen=True)
class BufferEntry:
    """Memory on one device that holds one value at a time."""

    id: str
    device: str
    bytes: Expr


@dataclass(frozen=True)
class StateEntry:
    """A tensor that the program keeps from run to run, in the memory of one device.

    A run finds it as the value `read` and leaves the value `written`, which with `in_place` are in the same memory.
    `name` and `result` are the names of the input and the output that it is of the model. `capacity` is the largest
    shape that it has room for.
    """

    name: str
    result: str
    read: str
    written: str
    capacity: tuple[int, ...]
    in_place: bool = False


@dataclass(frozen=True)
class Variant:
    """One artifact of a segment, for one kind of device.

    `files` are all files that running it takes, relative to the bundle and shared weights included; those in
    `undigested` are engines. `key` is the hash of what they are built from. `deferred` means that an engine is still
    to be built on the device's own host. `profile` narrows the dimensions that the variant serves. `options` goes to
    the executor as it is, `facts` to people.
    """

    executor: str
    format: str
    files: tuple[str, ...]
    undigested: tuple[str, ...] = ()
    key: str = ""
    deferred: bool = False
    device_kind: str = ""
    requires: Mapping[str, Any] = field(default_factory=dict[str, Any])
    profile: Mapping[str, DimRange] = field(default_factory=dict[str, DimRange])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Segment:
    """A part of the model that runs on one device as a whole.

    Variants stand in the order of preference. `portable` is the form that a CPU can run where the device is absent.
    `seconds` and `joules` are what placement's schedule has for one run at the optimum of every dimension, launch
    included; `weight_bytes` are the weights and states that it uses on its device. Where nothing was placed (IR that
    was split before) the target's estimate stands there instead, and of a segment that is in no schedule, because it
    only returns constants, nothing.
    """

    id: str
    device: str
    format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    variants: tuple[Variant, ...]
    portable: Variant | None = None
    ops: int = 0
    flops: Expr = ZERO
    weight_bytes: int = 0
    seconds: float = 0.0
    joules: float | None = None


@dataclass(frozen=True)
class Launch:
    """Runs a segment once on the values named, in the order of its inputs and outputs, after the steps `after`."""

    id: str
    segment: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transfer:
    """Copies the value `source` to another device, as the value `target`, over the links of `route`.

    `seconds` is what it takes alone; in placement's schedule, what leaves a segment for one device goes together.
    """

    id: str
    source: str
    target: str
    route: tuple[str, ...] = ()
    bytes: Expr = ZERO
    after: tuple[str, ...] = ()
    seconds: float = 0.0


Step = Launch | Transfer


@dataclass(frozen=True)
class PlacementSummary:
    """What the placement promised: the objective's value, a proven lower bound, and the gap between the two.

    The four figures are those of one run in its schedule, whatever the objective; None where a device's power or price
    is not known, or nothing was placed.
    """

    objective: str = "latency"
    value: float = 0.0
    bound: float = 0.0
    gap: float = 0.0
    status: str = "forced"
    latency_s: float | None = None
    period_s: float | None = None
    energy_j: float | None = None
    cost_usd: float | None = None


@dataclass(frozen=True)
class FileEntry:
    """A file's hash and size. `key` is only for engines: the hash of what they are built from."""

    sha256: str
    bytes: int
    key: str = ""


@dataclass(frozen=True)
class Manifest:
    """Everything that `manifest.json` says. `signature` is how the module is called that the model was traced from."""

    producer: Mapping[str, str]
    model: ModelInfo
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    dims: Mapping[str, DimRange]
    topology: TopologyEntry
    values: tuple[Value, ...]
    segments: tuple[Segment, ...]
    steps: tuple[Step, ...]
    buffers: tuple[BufferEntry, ...] = ()
    states: tuple[StateEntry, ...] = ()
    placement: PlacementSummary = field(default_factory=PlacementSummary)
    costs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    signature: Signature | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict[str, FileEntry])

    def segment(self, name: str) -> Segment:
        """The segment called `name`. KeyError if there is none."""
        for segment in self.segments:
            if segment.id == name:
                return segment
        raise KeyError(name)

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """The steps that copy a value to another device."""
        return tuple(step for step in self.steps if isinstance(step, Transfer))

    @property
    def undigested(self) -> dict[str, Variant]:
        """The engines: their paths, and the variant each belongs to."""
        variants = [variant for segment in self.segments for variant in segment.variants]
        return {path: variant for variant in variants for path in variant.undigested}

    def spec(self, port: Port) -> TensorSpec:
        """The type and shape of an input or output, under its name in the program."""
        value = next(value for value in self.values if value.id == port.value)
        return TensorSpec(port.name, value.dtype, value.shape)
