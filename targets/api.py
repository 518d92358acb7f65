"""What a target is: the compile side of one vendor's framework.

A target says what it can run (`refuses`), what that would cost (`op_cost`, `estimate`) and how it is made (`prepare`,
`emit`). Everything vendor-specific lives behind this class and in the hardware files; nothing else names a vendor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from xdsl.context import Context
from xdsl.ir import Attribute, Operation

from gimlet.dialects.onnx.types import dims_of, element_of
from gimlet.dialects.onnx.weights import Weight
from gimlet.dialects.placement import SegmentOp
from gimlet.runtime.errors import InputError


@dataclass(frozen=True)
class MemoryLevel:
    """One level of a device's memory: `capacity_bytes`, and `bandwidth` in bytes per second."""

    name: str
    capacity_bytes: int
    bandwidth: float


@dataclass(frozen=True)
class HardwareKind:
    """A kind of device as its TOML file describes it.

    `peak` maps a number format (`fp32`, `tf32`, `bf16`, `fp16`, `fp8`, `int8`, `mxint8`, `fp4`) to dense operations
    per second, a multiply-add counted as two; its key `vector` is the rate of the units that do everything but matrix
    products. `compute_fraction` and `memory_fraction` are what real kernels reach of the peaks; `fractions` has the
    compute fractions that differ, by class of op (`conv`, `vector`) or by format. `memory` goes from the fastest level
    to the largest. A figure that the file leaves out is None, and an objective that needs it is refused by its name.
    `options` are the target's own (for example a compute capability or a grid of cores); `sources` maps each figure's
    TOML path to where it is from.
    """

    name: str
    targets: tuple[str, ...]
    peak: Mapping[str, float]
    memory: tuple[MemoryLevel, ...]
    idle_w: float | None = None
    load_w: float | None = None
    price_usd: float | None = None
    usd_per_hour: float | None = None
    segment_overhead_s: float = 0.0
    kernel_overhead_s: float = 0.0
    compute_fraction: float = 1.0
    memory_fraction: float = 1.0
    fractions: Mapping[str, float] = field(default_factory=dict[str, float])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sources: Mapping[str, str] = field(default_factory=dict[str, str])

    def level_for(self, bytes_held: float) -> MemoryLevel:
        """The fastest level of memory with room for `bytes_held`, else the largest."""
        return next((level for level in self.memory if level.capacity_bytes >= bytes_held), self.memory[-1])


@dataclass(frozen=True)
class Device:
    """A device of a topology: its name there, and its kind."""

    name: str
    kind: HardwareKind

    @property
    def thread_options(self) -> dict[str, int]:
        """What artifacts are told where the device is a part of a machine: as many threads as its kind's options say.

        Empty where they say nothing: all cores. InputError for anything but a whole number from 1 on.
        """
        threads = self.kind.options.get("threads")
        if threads is None:
            return {}
        if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
            raise InputError(f"options.threads is {threads!r}: at least 1", where=f"device kind {self.kind.name}")
        return {"threads": threads}


@dataclass(frozen=True)
class CollectiveProtocol:
    """A way in which a collective moves data: seconds a step, and bytes per second.

    `own_bandwidth` is that of a member's own part, which it handles once besides; None where that costs nothing.
    """

    step_s: float
    bandwidth: float
    own_bandwidth: float | None = None


@dataclass(frozen=True)
class CollectiveFigures:
    """What a library's collectives take over a kind of link: a launch, and the quickest of its protocols."""

    launch_s: float
    protocols: tuple[CollectiveProtocol, ...]


@dataclass(frozen=True)
class Link:
    """A link between two devices, the same in both directions. `bandwidth` is bytes per second one way."""

    name: str
    kind: str
    between: tuple[str, str]
    latency_s: float
    bandwidth: float
    collectives: CollectiveFigures | None = None


@dataclass(frozen=True)
class Group:
    """Devices of one kind that can work as one. `algorithm` is that of its collectives, None for the links' own."""

    name: str
    members: tuple[str, ...]
    algorithm: Literal["ring", "direct"] | None = None


@dataclass(frozen=True)
class Topology:
    """The hardware at hand: devices, links, groups, and the device that inputs come from and outputs go to."""

    name: str
    devices: tuple[Device, ...]
    links: tuple[Link, ...]
    host: str
    groups: tuple[Group, ...] = ()

    def device(self, name: str) -> Device:
        """The device called `name`. KeyError if there is none."""
        for device in self.devices:
            if device.name == name:
                return device
        raise KeyError(name)


@dataclass(frozen=True)
class Reason:
    """Why something was refused: the op (or segment) it is tied to, and a sentence."""

    op: str
    message: str

    def __str__(self) -> str:
        return f"{self.op}: {self.message}"


@dataclass(frozen=True)
class Cost:
    """What running something once costs: seconds, joules (None where power is unknown), bytes that stay resident."""

    seconds: float
    joules: float | None = None
    weight_bytes: int = 0
    activation_bytes: int = 0


@dataclass(frozen=True)
class WeightStore:
    """How a device keeps weights: `room_bytes` of memory to compute from, the rest read at `seconds_per_byte`.

    What is read meanwhile computes, so an op that streams its weights takes the longer of both.
    """

    room_bytes: int
    seconds_per_byte: float


@dataclass(frozen=True)
class Rounding:
    """What computing an op in a number format does to its float32 values, everything else being float32.

    `operands` has the format that each is rounded to before it is used, None where it is not; `results` the format that
    the results are rounded to. A block format has its blocks along `axes[i]` of operand i, by default the last.
    """

    operands: tuple[str | None, ...]
    results: str | None = None
    axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class DimBound:
    """The range of one symbolic dimension: minimum, the value that costs are taken at, and maximum."""

    minimum: int
    optimum: int
    maximum: int


@dataclass(frozen=True)
class Artifact:
    """What a target made of one segment.

    `files` are paths relative to the folder that `emit` was given; those in `undigested` (engines, whose bytes differ
    from build to build) stay outside the bundle's digest and are identified by `key`, the hash of what they are built
    from. `deferred` means that `gimlet-compile finish` completes it on the device's own host. `options` goes to the
    executor as it is. `facts` is for people: engine size, layers, cycles, tool versions. `cost` is of a target that
    knows it when it has built (`costs_when_built`), one launch included.
    """

    executor: str
    format: str
    files: tuple[str, ...]
    undigested: tuple[str, ...] = ()
    key: str = ""
    deferred: bool = False
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    cost: Cost | None = None


@dataclass(frozen=True)
class WeightReference:
    """Where a weight's bytes are: a file relative to the bundle's folder, an offset and a length in bytes."""

    location: str
    offset: int
    length: int


class WeightsWriter(Protocol):
    """Puts weights into the file that all segments of a bundle share, equal ones once.

    `root` is the bundle's folder as it is being written. ONNX libraries refuse external data above the model's own
    folder. So locations are relative to the bundle, and whoever loads a model names the bundle's folder as the place of
    its data.
    """

    @property
    def root(self) -> Path: ...

    def place(self, weight: Weight) -> WeightReference:
        """Writes the weight unless its bytes are there already. They can be read from the file when this returns."""
        ...


@dataclass(frozen=True)
class SegmentContext:
    """A segment on its way to a target: the op, the IR context (its weights), opsets and bounds of dimensions.

    `opsets` maps a domain to the version in force; `bounds` maps each symbolic dimension to its range. `cache` is a
    folder that outlives the compile, for engines and probes. `weights` is where an artifact's weights go;
    without it they go into a file beside the artifact, and locations are relative to the segment's own folder.
    """

    op: SegmentOp
    ctx: Context
    opsets: Mapping[str, int]
    bounds: Mapping[str, DimBound]
    cache: Path
    allow_tf32: bool = False
    weights: WeightsWriter | None = None


class Target(ABC):
    """The compile side of one framework. Stateless but for caches: one instance serves a whole compile."""

    name: ClassVar[str]
    executor: ClassVar[str]

    option_names: ClassVar[frozenset[str] | None] = None
    """The keys of a kind's `[options]` that it reads. Others are refused; None leaves them open."""

    told_apart_by_measuring: ClassVar[bool] = False
    """Whether its model of costs cannot tell it from the other targets of its device. It then takes part where costs
    are measured, or where a pin or a placement names it."""

    costs_when_built: ClassVar[bool] = False
    """Whether `emit` says in the artifact what the segment costs, so that it is not estimated before."""

    @abstractmethod
    def formats(self, device: Device) -> tuple[str, ...]:
        """The number formats that `device` computes in under this target, the default one first."""

    def deciding(self, device: Device) -> Device:
        """`device` where placement decides the format of every op: one that is placed in a format is computed in it.

        By default that is so anyway. A target that keeps a measure of its own within a segment drops it here.
        """
        return device

    def rounding(self, op: Operation, device: Device, fmt: str, ctx: Context) -> Rounding | None:
        """What `fmt` does to the values of `op` on `device`, as `deciding` has it; None where it does nothing.

        By default every operand and result is rounded, but for float32.
        """
        del device, ctx
        return None if fmt == "fp32" else Rounding((fmt,) * len(op.operands), fmt)

    def cast_s_per_byte(self, device: Device, fmt: str) -> float:
        """Seconds for each byte of float32 that a segment in `fmt` casts where a value enters or leaves it.

        Nothing where values are stored as float32 inside of it too.
        """
        del device, fmt
        return 0.0

    def segment_overhead_s(self, device: Device) -> float:
        """What a launch of one segment costs on `device` under this target: by default what the hardware file says."""
        return device.kind.segment_overhead_s

    def weight_store(self, device: Device) -> WeightStore | None:
        """How `device` keeps weights that its fastest memory has no room for.

        By default None: what an op costs does not hang on the weights of others.
        """
        del device
        return None

    def settings(self, device: Device, requests: int = 1) -> Sequence[Mapping[str, Any]]:
        """Options of artifacts to choose from where costs are measured (threads, streams), the default first.

        `requests` is how many are in flight at once.
        """
        del device, requests
        return ({},)

    def requires(self, device: Device) -> Mapping[str, str]:
        """What the real device must have to run what is made for `device`, as the executor checks it."""
        del device
        return {}

    def versions(self) -> Mapping[str, str]:
        """The versions of the libraries that decide how quick its artifacts are: times are kept by them."""
        return {}

    def large_operators(self, device: Device) -> frozenset[str]:
        """Operators that the framework is better given as one, where they stand for several of the model's.

        By default none: an optimiser that knows the patterns gets what the model has. See `gimlet.targets.forms`.
        """
        del device
        return frozenset()

    @abstractmethod
    def refuses(self, op: Operation, device: Device, fmt: str) -> Reason | None:
        """Why `op` cannot run on `device` in `fmt`, or None where it can."""

    def refuses_all(self, ops: Sequence[Operation], device: Device, fmt: str) -> list[Reason | None]:
        """`refuses` for many ops at once, where a target can answer them together."""
        return [self.refuses(op, device, fmt) for op in ops]

    def updates_in_place(self, op: Operation) -> bool:
        """Whether what is made of `op`, marked `placement.in_place`, writes its result over its first operand.

        That is so where both are bound to the same memory. By default it is not: a state then has two memories.
        """
        del op
        return False

    def fusable(self, producer: Operation, consumer: Operation) -> bool:
        """Whether the framework runs `consumer` in the same kernel as `producer`, without a pass over memory."""
        del producer, consumer
        return False

    @abstractmethod
    def op_cost(self, op: Operation, device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost:
        """What `op` alone costs on `device`, with symbolic dimensions at `sizes`. Launch of a segment not included."""

    def op_costs(self, ops: Sequence[Operation], device: Device, fmt: str, sizes: Mapping[str, int]) -> list[Cost]:
        """What each of `ops`, in their order, costs where all of them are on `device`: by default what it costs alone.

        A target whose `fusion_saving` is nothing counts fusion here.
        """
        return [self.op_cost(op, device, fmt, sizes) for op in ops]

    def fusion_saving(self, producer: Operation, consumer: Operation, device: Device, size_bytes: int) -> float:
        """Seconds that running `consumer` in the producer's kernel saves, at most all that it costs alone.

        By default a kernel's launch, and a value of `size_bytes` that is neither written nor read again. Nothing where
        they do not fuse.
        """
        if not self.fusable(producer, consumer):
            return 0.0
        kind = device.kind
        if not kind.memory:
            return kind.kernel_overhead_s
        bandwidth = kind.level_for(2 * size_bytes).bandwidth * kind.memory_fraction
        return kind.kernel_overhead_s + 2 * size_bytes / bandwidth

    def has_tables(self, device: Device) -> bool:
        """Whether there are published measurements of `device`."""
        del device
        return False

    def table_cost(self, op: Operation, device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost | None:
        """What published measurements say that `op` costs on a device that has some; None where they do not have it.

        MissingError where the package that carries them is not installed.
        """
        del op, device, fmt, sizes
        return None

    def estimate(self, ops: Sequence[Operation], device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost:
        """What the ops cost as one segment: by default their sum less what fusion saves, and one segment launch."""
        costs = [self.op_cost(op, device, fmt, sizes) for op in ops]
        saved = fusion_savings(self, ops, [cost.seconds for cost in costs], device, sizes)
        joules = [
            None if cost.joules is None else cost.joules * (1 - less / cost.seconds if cost.seconds else 1)
            for cost, less in zip(costs, saved, strict=True)
        ]
        return Cost(
            seconds=self.segment_overhead_s(device) + sum(cost.seconds for cost in costs) - sum(saved),
            joules=None if None in joules else sum(j for j in joules if j is not None),
            weight_bytes=sum(cost.weight_bytes for cost in costs),
            activation_bytes=max((cost.activation_bytes for cost in costs), default=0),
        )

    def prepare(self, segment: SegmentContext) -> None:
        """Rewrites the segment in place with the target's own passes, before `emit`."""
        del segment

    @abstractmethod
    def emit(self, segment: SegmentContext, device: Device, fmt: str, folder: Path) -> Artifact | Reason:
        """Writes the segment's artifact into `folder`, or says why it could not be built."""

    def finish(self, root: Path, files: Sequence[str], folder: Path) -> Mapping[str, Path] | Reason:
        """Completes a deferred artifact on its device's own host.

        `root` is the bundle and `files` are the artifact's, relative to it. What was deferred is written into `folder`
        and returned by its path in the bundle. MissingError where the host lacks the device or a package.
        """
        del folder
        return Reason(files[0] if files else root.name, f"target {self.name} defers nothing")


def fusion_savings(
    target: Target, ops: Sequence[Operation], seconds: Sequence[float], device: Device, sizes: Mapping[str, int]
) -> list[float]:
    """For each of `ops` as one segment, the seconds that fusing it into a producer saves of its own `seconds`.

    An op fuses with one producer, the one that saves most, and only where it alone uses the value.
    """
    inside = {op: index for index, op in enumerate(ops)}
    saved = [0.0] * len(ops)
    for consumer, index in inside.items():
        for value in consumer.operands:
            producer = value.owner
            if not isinstance(producer, Operation) or producer not in inside or value.uses.get_length() != 1:
                continue
            saving = target.fusion_saving(producer, consumer, device, bytes_of(value.type, sizes))
            saved[index] = max(saved[index], min(saving, seconds[index]))
    return saved


def bytes_of(type_: Attribute, sizes: Mapping[str, int]) -> int:
    """Bytes of a tensor with dimensions at `sizes`; 0 where its shape, or the size of a dimension, is not known."""
    dims, element = dims_of(type_), element_of(type_)
    if dims is None or element is None or any(not dim.symbols <= sizes.keys() for dim in dims):
        return 0
    return -(-prod(dim.evaluate(sizes) for dim in dims) * element.bits // 8)
