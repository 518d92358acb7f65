"""The placement problem as data: what may run where, what it costs, what moves, and what is asked. No IR.

Terms: a *place* is a (device, target, number format) triple; a *node* is an op, or a group of ops that stay together;
a *value* goes from one producer (or from the host, as an input of the model) to its consumers and is sent at most once
to each device; a *segment* is a set of nodes on one place that is launched atomically: all inputs before, all outputs
after. Nodes are numbered in a topological order, and indices stand for nodes, places, devices, links and values.

All times are in seconds, sizes in bytes, energies in joules, money in US dollars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gimlet.runtime.errors import InputError

Objective = Literal["latency", "throughput", "energy", "cost"]
OBJECTIVES: Final[tuple[Objective, ...]] = ("latency", "throughput", "energy", "cost")
UNITS: Final[Mapping[Objective, str]] = {"latency": "s", "throughput": "s", "energy": "J", "cost": "USD"}


@dataclass(frozen=True)
class DeviceSpec:
    """A device as placement sees it. `memory_bytes` None means unlimited; an unknown figure is None.

    Idle power that is not known counts as none. A *group* has `members`, the devices that work as one in it: while it
    runs they run nothing else. Bytes of its places are those on each member, and power and prices are the members' own.
    `fast_bytes` is the part of the memory that weights are computed from; what it has no room for is *streamed* from
    the rest in every run. None is one level of memory. `formats` are all number formats that its targets can compute
    in, asked for or not, for advice.
    """

    name: str
    memory_bytes: int | None = None
    segment_overhead_s: float = 0.0
    idle_w: float | None = None
    load_w: float | None = None
    usd_per_hour: float | None = None
    kind: str = ""
    members: tuple[int, ...] = ()
    fast_bytes: int | None = None
    formats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a node can be: a device's index, the target that runs it there, and the number format it is computed in.

    `provider` says where the costs there are from. `launch_s` is a segment's launch overhead; None is the device's own.
    `cast_s_per_byte` is what a segment there takes for each byte that it has to cast at its edge: values are stored in
    another format inside of it than between segments.
    """

    device: int
    target: str = ""
    format: str = "fp32"
    provider: str = "analytic"
    launch_s: float | None = None
    cast_s_per_byte: float = 0.0


@dataclass(frozen=True)
class Option:
    """What a node costs on one place, a segment's launch not included. `joules` is None where power is unknown.

    `usd` is a price of the run itself (so much a token), besides the device's for an hour. Fusion saves none of it.
    `loss` is the relative error (L2) that the node's rounding there adds to the outputs; those of several nodes add up
    by their squares, as independent errors do.
    """

    seconds: float
    joules: float | None = None
    activation_bytes: int = 0
    usd: float = 0.0
    loss: float = 0.0


@dataclass(frozen=True)
class Node:
    """An op or a group of ops. `options` and `refusals` are by place; a place in neither has no target that was asked.

    `flops` only serves shares between devices. `source` is its line of the model's source, "model.py:12", or "".
    """

    name: str
    op_type: str = ""
    options: Mapping[int, Option] = field(default_factory=dict[int, Option])
    refusals: Mapping[int, str] = field(default_factory=dict[int, str])
    flops: float = 0.0
    source: str = field(default="", compare=False)


@dataclass(frozen=True)
class Value:
    """A tensor of `size_bytes` from a node, or from the host where `producer` is None.

    `is_output` says that the host needs it. `cast_bytes` are those of its bytes that a place with another format casts.
    `gather_s` is what it takes by place, where a group has it in parts, to put it together when it leaves a segment.
    """

    name: str
    size_bytes: int
    producer: int | None
    consumers: tuple[int, ...]
    is_output: bool = False
    cast_bytes: int = 0
    gather_s: Mapping[int, float] = field(default_factory=dict[int, float])


@dataclass(frozen=True)
class Weight:
    """Resident bytes that are counted once on each place where a user of them is: a weight, later a cache.

    `stream_s` is what users take longer where all of the bytes are streamed: seconds by place, then by user. Weights of
    a lower `order` are streamed first.
    """

    key: str
    users: tuple[int, ...]
    size_bytes: Mapping[int, int]
    stream_s: Mapping[int, Mapping[int, float]] = field(default_factory=dict[int, Mapping[int, float]])
    order: int = 0

    def streaming_s(self, user: int, place: int) -> float:
        """What a user takes longer on a place where all of the bytes are streamed."""
        return self.stream_s.get(place, {}).get(user, 0.0)


@dataclass(frozen=True)
class Fusion:
    """Two nodes that one kernel runs where both are in the same segment, and what that saves, by place."""

    producer: int
    consumer: int
    seconds: Mapping[int, float]
    joules: Mapping[int, float] = field(default_factory=dict[int, float])


@dataclass(frozen=True)
class Route:
    """The way from one device to another: latency, seconds a byte, and (link, seconds a byte on it) for each hop.

    A link's name carries its direction (`pcie0>`, `pcie0<`): the two directions do not contend. `usd_per_byte` is what
    traffic is charged.
    """

    latency_s: float
    seconds_per_byte: float
    links: tuple[tuple[str, float], ...] = ()
    usd_per_byte: float = 0.0

    def seconds(self, size_bytes: float) -> float:
        """Time for `size_bytes` sent as one batch."""
        return self.latency_s + size_bytes * self.seconds_per_byte


@dataclass(frozen=True)
class Rules:
    """What is asked of a placement.

    `bounds` limit figures that are not the objective; `min_share` asks that a device gets at least a fraction of all
    FLOPs; `pins` limits a node to places; `together` are nodes that share a device, `apart` pairs of nodes' groups no
    two of which may; `max_segments` caps the launches; `loss_budget` is the most that the nodes' losses may add up to.
    """

    objective: Objective = "latency"
    bounds: Mapping[Objective, float] = field(default_factory=dict[Objective, float])
    pins: Mapping[int, frozenset[int]] = field(default_factory=dict[int, frozenset[int]])
    together: tuple[tuple[int, ...], ...] = ()
    apart: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    min_share: Mapping[int, float] = field(default_factory=dict[int, float])
    max_segments: int | None = None
    loss_budget: float | None = None


@dataclass(frozen=True)
class Problem:
    """A placement problem. `host` is the index of the device that inputs come from and outputs go to.

    `notes` say where its costs are from, as far as a user has to know.

    Raises InputError where indices do not fit together, where nodes are not in topological order, where a figure is
    negative, or where two devices have no route between them.
    """

    devices: tuple[DeviceSpec, ...]
    places: tuple[Place, ...]
    nodes: tuple[Node, ...]
    values: tuple[Value, ...]
    routes: Mapping[tuple[int, int], Route]
    weights: tuple[Weight, ...] = ()
    fusions: tuple[Fusion, ...] = ()
    host: int = 0
    rules: Rules = field(default_factory=Rules)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self)

    def with_rules(self, rules: Rules) -> Problem:
        """The same problem with other rules."""
        return replace(self, rules=rules)

    @cached_property
    def allowed(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the places that take it and that no pin excludes."""
        pins = self.rules.pins
        return tuple(
            tuple(place for place in sorted(node.options) if index not in pins or place in pins[index])
            for index, node in enumerate(self.nodes)
        )

    @cached_property
    def device_of(self) -> tuple[int, ...]:
        """The device of each place."""
        return tuple(place.device for place in self.places)

    @cached_property
    def units(self) -> tuple[tuple[int, ...], ...]:
        """For each device the devices that are busy while it is: itself, or the members of a group."""
        return tuple(device.members or (number,) for number, device in enumerate(self.devices))

    def edge_s(self, value: Value, place: int, *, leaving: bool) -> float:
        """What a segment on `place` takes for a value that enters or leaves it: a cast, or putting it together."""
        cast = value.cast_bytes * self.places[place].cast_s_per_byte
        return cast + value.gather_s.get(place, 0.0) if leaving else cast

    @cached_property
    def has_edges(self) -> bool:
        """Whether anything is paid at the edges of segments."""
        return any(place.cast_s_per_byte for place in self.places) or any(value.gather_s for value in self.values)

    @cached_property
    def launch_s(self) -> tuple[float, ...]:
        """The launch overhead of a segment on each place."""
        return tuple(
            self.devices[place.device].segment_overhead_s if place.launch_s is None else place.launch_s
            for place in self.places
        )

    def least_launch_s(self, device: int) -> float:
        """The least launch overhead of any place on a device."""
        here = [launch for launch, found in zip(self.launch_s, self.device_of, strict=True) if found == device]
        return min(here, default=0.0)

    @cached_property
    def seconds(self) -> NDArray[np.float64]:
        """Seconds of node by place, infinite where not allowed."""
        table = np.full((len(self.nodes), len(self.places)), np.inf)
        for index, places in enumerate(self.allowed):
            for place in places:
                table[index, place] = self.nodes[index].options[place].seconds
        return table

    @cached_property
    def fused_seconds(self) -> NDArray[np.float64]:
        """Seconds of node by place where fusion saves all that it can; infinite where not allowed."""
        table = self.seconds.copy()
        for fusion in self.fusions:
            for place, saved in fusion.seconds.items():
                table[fusion.consumer, place] = max(table[fusion.consumer, place] - saved, 0.0)
        return table

    @cached_property
    def inputs_of(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the values it consumes."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for index, value in enumerate(self.values):
            for consumer in value.consumers:
                found[consumer].append(index)
        return tuple(tuple(values) for values in found)

    @cached_property
    def outputs_of(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the values it produces."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for index, value in enumerate(self.values):
            if value.producer is not None:
                found[value.producer].append(index)
        return tuple(tuple(values) for values in found)

    @cached_property
    def predecessors(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the nodes whose values it consumes, each once."""
        return tuple(
            tuple(sorted({p for value in values if (p := self.values[value].producer) is not None}))
            for values in self.inputs_of
        )

    @cached_property
    def successors(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the nodes that consume its values, each once."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for index, sources in enumerate(self.predecessors):
            for source in sources:
                found[source].append(index)
        return tuple(tuple(nodes) for nodes in found)

    @cached_property
    def memory_can_bind(self) -> bool:
        """Whether some placement could need more memory than a device has."""
        for device, spec in enumerate(self.devices):
            places = [place for place, found in enumerate(self.device_of) if device in self.units[found]]
            most = sum(weight.size_bytes.get(place, 0) for weight in self.weights for place in places)
            peaks = (option.activation_bytes for node in self.nodes for option in node.options.values())
            if spec.memory_bytes is not None and places and most + max(peaks, default=0) > spec.memory_bytes:
                return True
        return False

    @cached_property
    def streaming(self) -> tuple[int, ...]:
        """The devices whose fast memory some placement could fill, so that weights are streamed there."""
        if not any(weight.stream_s for weight in self.weights):
            return ()
        found: list[int] = []
        for device, spec in enumerate(self.devices):
            places = {place for place, on in enumerate(self.device_of) if device in self.units[on]}
            most = sum(weight.size_bytes.get(place, 0) for weight in self.weights for place in places)
            peaks = (
                option.activation_bytes for node in self.nodes for p, option in node.options.items() if p in places
            )
            if spec.fast_bytes is not None and most and most + max(peaks, default=0) > spec.fast_bytes:
                found.append(device)
        return tuple(found)

    @cached_property
    def streamed_first(self) -> tuple[int, ...]:
        """The weights in the order in which they give up fast memory."""
        return tuple(sorted(range(len(self.weights)), key=lambda number: (self.weights[number].order, number)))

    @cached_property
    def total_flops(self) -> float:
        """FLOPs of all nodes."""
        return sum(node.flops for node in self.nodes)

    def transfer_s(self, source: int, destination: int, size_bytes: float) -> float:
        """Seconds to move `size_bytes` between two devices; zero within one."""
        return 0.0 if source == destination else self.routes[source, destination].seconds(size_bytes)

    def place_name(self, place: int) -> str:
        """A place for people: `gpu0 (fp32)`, or `cpu (openvino, fp32)` where several targets have the format there."""
        found = self.places[place]
        rivals = [other for other in self.places if (other.device, other.format) == (found.device, found.format)]
        target = f"{found.target}, " if len(rivals) > 1 else ""
        return f"{self.devices[found.device].name} ({target}{found.format})"


def check(problem: Problem) -> None:
    """Raises InputError where `problem` is not well formed."""
    devices = len(problem.devices)
    if not 0 <= problem.host < devices:
        raise InputError(f"the host is device {problem.host}, but there are {devices} devices")
    for place in problem.places:
        if not 0 <= place.device < devices:
            raise InputError(f"a place names device {place.device}, but there are {devices} devices")
        if not (place.launch_s or 0.0) >= 0 or not place.cast_s_per_byte >= 0:
            raise InputError("an overhead is negative", where=f"device {problem.devices[place.device].name}")
    for device in problem.devices:
        _check_figures(device)
        _check_members(problem, device)
    for node in problem.nodes:
        _check_options(problem, node)
    for value in problem.values:
        _check_value(value, len(problem.nodes))
    for weight in problem.weights:
        if any(not seconds >= 0 for users in weight.stream_s.values() for seconds in users.values()):
            raise InputError("the time that a weight takes to stream is negative", where=weight.key)
    _check_fusions(problem)
    _check_routes(problem)


def _check_figures(device: DeviceSpec) -> None:
    watts = device.idle_w, device.load_w
    figures = *watts, device.memory_bytes, device.fast_bytes, device.segment_overhead_s, device.usd_per_hour
    if any(figure is not None and not figure >= 0 for figure in figures):
        raise InputError("a figure is negative", where=f"device {device.name}")


def _check_options(problem: Problem, node: Node) -> None:
    places = len(problem.places)
    for place, option in node.options.items():
        if not 0 <= place < places:
            raise InputError(f"an option names place {place}, but there are {places} places", where=node.name)
        figures = (option.seconds, option.activation_bytes, option.joules or 0.0, option.usd, option.loss)
        if not all(figure >= 0 for figure in figures):
            raise InputError(f"a cost on {problem.place_name(place)} is negative", where=node.name)


def _check_value(value: Value, nodes: int) -> None:
    """InputError where a value takes less than no time, or is made behind its use or by none of so many nodes."""
    first = -1 if value.producer is None else value.producer
    if any(not seconds >= 0 for seconds in value.gather_s.values()):
        raise InputError("the time that a value takes to put together is negative", where=value.name)
    if not -1 <= first < nodes or any(not first < consumer < nodes for consumer in value.consumers):
        raise InputError(
            "nodes are not in topological order",
            where=f"value {value.name!r}",
            hint="its producer must come before all of its consumers",
        )


def _check_fusions(problem: Problem) -> None:
    """InputError where fusion saves less than nothing, or in all more than an op takes."""
    saved: dict[tuple[int, int], float] = {}
    for fusion in problem.fusions:
        for place, seconds in fusion.seconds.items():
            key = fusion.consumer, place
            saved[key] = saved.get(key, 0.0) + seconds
            option = problem.nodes[fusion.consumer].options.get(place)
            if seconds < 0 or option is None or saved[key] > option.seconds * (1 + 1e-9):
                raise InputError("fusion saves more than the op costs", where=problem.nodes[fusion.consumer].name)


def _check_routes(problem: Problem) -> None:
    """InputError where two devices that may be used have no route, or one pays for what is sent."""
    for ends, route in problem.routes.items():
        if not route.usd_per_byte >= 0:
            raise InputError(f"the price of a byte between {devices_named(problem, ends)} is negative")
    used = {place.device for place in problem.places} | {problem.host}
    for source in used:
        for destination in used - {source}:
            if (source, destination) in problem.routes:
                continue
            ends = devices_named(problem, (source, destination))
            # A device of a problem in a file has no kind, and its file has routes instead of links.
            more = "a link to the topology" if problem.devices[source].kind else "a route each way to the problem"
            raise InputError(f"no link leads from one to the other of {ends}", hint=f"add {more}")


def _check_members(problem: Problem, device: DeviceSpec) -> None:
    """InputError where a group is not of two plain devices or more, each once."""
    if not device.members:
        return
    where = f"group {device.name}"
    if len(set(device.members)) != len(device.members) or len(device.members) < 2:
        raise InputError("a group has two devices at least, each once", where=where)
    if any(not 0 <= m < len(problem.devices) or problem.devices[m].members for m in device.members):
        raise InputError("the members of a group are devices, not groups", where=where)


def devices_named(problem: Problem, devices: Sequence[int]) -> str:
    """Names of devices, for a message."""
    return ", ".join(problem.devices[device].name for device in devices)


@dataclass(frozen=True)
class Placement:
    """An answer: the place of each node, and its segment. Segments are numbered in an order in which they can run."""

    place: tuple[int, ...]
    segment: tuple[int, ...]


def require_figures(problem: Problem, objective: Objective) -> None:
    """Raises InputError where `objective` needs a figure that a device lacks, by the figure's name."""
    for index in sorted({place.device for place in problem.places} | {problem.host}):
        device = problem.devices[index]
        figures = {"energy": ("power.load_w", device.load_w), "cost": ("price.usd_per_hour", device.usd_per_hour)}
        name, figure = figures.get(objective, ("", 0.0))
        if figure is not None:
            continue
        named = f"device {device.name}" + (f" ({device.kind})" if device.kind else "")
        # A device of a problem in a file has no kind, and so no file of its own.
        source = "hardware file" if device.kind else "problem"
        own = name if device.kind else name.rpartition(".")[2]
        raise InputError(
            f"the objective {objective!r} needs {own}, which the {source} leaves out",
            where=named,
            hint=f"add the figure to the {source}, or choose another objective",
        )
