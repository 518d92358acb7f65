"""What a placement does over time, computed from the problem alone: the referee of every solver here.

The model, exactly: a segment is launched atomically. It starts when its device is free of all earlier segments (in
the order of their numbers) and when everything that it consumes has arrived; it takes its device's launch overhead,
plus its nodes' seconds, less what fusion saves inside it, plus what values cost that enter or leave it: casts where its
place stores them in another format, and putting them together where a group has a part of them on each member. A group
is free when all its members are, and they are busy while it is. Weights that its device's fast memory has no room for
are streamed (`streaming.py`), which makes their users longer. When a segment has ended, all its values that are
needed on another device leave for that device as one batch: the route's latency, plus all their bytes over the route's
bandwidth. A batch leaves when every link of its route is free of earlier batches, and holds each for its bytes over the
link's bandwidth. Links serve batches in the order of their segments, of one segment in the order of the devices they go
to, the host being the last. The model's inputs leave the host from time zero on, before anything else on a link: those
that a segment is the first to read on its device are one batch, and a segment waits for the inputs that it reads, not
for those of later ones. Its outputs must arrive at the host.

Latency is the time at which the last segment has ended and the last output has arrived. Throughput is the period of
a pipeline: the busy time of the busiest device or of the busiest direction of a link, where batches of different
requests contend. Energy is that of the ops plus idle power, over the latency, of the host and of every device in use.
Cost is the price of the same devices over the latency, plus the prices that ops and bytes on routes have of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gimlet.compiler.placement.model.problem import Objective, Placement, Problem
from gimlet.compiler.placement.model.streaming import Streamed, streamed_by
from gimlet.runtime.errors import InputError
from gimlet.runtime.units import bytes_text

LOSS_TOLERANCE = 1e-6
"""How far, relatively, a sum of losses may be above its budget: what the solver's integers cannot tell apart."""


@dataclass(frozen=True)
class Launch:
    """One segment on its place: when it runs, and its nodes."""

    segment: int
    place: int
    start_s: float
    end_s: float
    nodes: tuple[int, ...]

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Transfer:
    """One value on its way to a device. `seconds` is what it would take alone; the times are those of its batch."""

    value: int
    source: int
    destination: int
    size_bytes: int
    seconds: float
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Schedule:
    """A placement over time, with every figure that can be an objective (None where a figure is unknown).

    The energy is what segments take (`segment_j`), and what devices draw while they compute nothing (`idle_j`); the two
    are empty where it is not known.
    """

    launches: tuple[Launch, ...]
    transfers: tuple[Transfer, ...]
    latency_s: float
    period_s: float
    energy_j: float | None
    cost_usd: float | None
    device_busy_s: Mapping[int, float]
    link_busy_s: Mapping[str, float]
    memory_bytes: Mapping[int, int]
    streamed: Streamed = field(default_factory=Streamed)
    segment_j: Mapping[int, float] = field(default_factory=dict[int, float])
    idle_j: Mapping[int, float] = field(default_factory=dict[int, float])

    def figure(self, objective: Objective) -> float:
        """The value of `objective`, smaller being better; infinite where it is unknown."""
        figures = {
            "latency": self.latency_s,
            "throughput": self.period_s,
            "energy": self.energy_j,
            "cost": self.cost_usd,
        }
        value = figures[objective]
        return float("inf") if value is None else value


def memory_of(problem: Problem, place: tuple[int, ...]) -> dict[int, int]:
    """Bytes resident on each device in use: weights once a place, and the largest activations of any node on it."""
    resident: dict[int, int] = {}
    for weight in problem.weights:
        for used in {place[user] for user in weight.users}:
            for device in problem.units[problem.device_of[used]]:
                resident[device] = resident.get(device, 0) + weight.size_bytes.get(used, 0)
    largest: dict[int, int] = {}
    for node, used in enumerate(place):
        for device in problem.units[problem.device_of[used]]:
            largest[device] = max(largest.get(device, 0), problem.nodes[node].options[used].activation_bytes)
    return {device: resident.get(device, 0) + peak for device, peak in sorted(largest.items())}


def loss_of(problem: Problem, place: Sequence[int]) -> float:
    """The relative error (L2) that the outputs are expected to have: the nodes' own, added by their squares."""
    return math.hypot(*(node.options[used].loss for node, used in zip(problem.nodes, place, strict=True)))


def flops_of(problem: Problem, place: tuple[int, ...], device: int) -> float:
    """FLOPs of the nodes on `device`."""
    return sum(node.flops for node, used in zip(problem.nodes, place, strict=True) if problem.device_of[used] == device)


def violations(problem: Problem, placement: Placement, schedule: Schedule) -> list[tuple[float, str]]:
    """Every rule and capacity that the placement breaks: by how much (1 is all of it), and a sentence."""
    found: list[tuple[float, str]] = []
    rules = problem.rules
    for node, place in enumerate(placement.place):
        if place not in problem.allowed[node]:
            found.append((1.0, f"{problem.nodes[node].name} may not be on {problem.place_name(place)}"))
    for device, used in schedule.memory_bytes.items():
        capacity = problem.devices[device].memory_bytes
        if capacity is not None and used > capacity:
            name = problem.devices[device].name
            found.append(
                (used / max(capacity, 1) - 1, f"{name} needs {bytes_text(used)} and has {bytes_text(capacity)}")
            )
    for group in rules.together:
        if len({problem.device_of[placement.place[node]] for node in group}) > 1:
            names = ", ".join(problem.nodes[node].name for node in group)
            found.append((1.0, f"{names} must be on one device"))
    for left, right in rules.apart:
        devices = [{problem.device_of[placement.place[node]] for node in nodes} for nodes in (left, right)]
        for device in sorted(devices[0] & devices[1]):
            names = f"{problem.nodes[left[0]].name} and {problem.nodes[right[0]].name}"
            found.append((1.0, f"{names} must be apart, and both are on {problem.devices[device].name}"))
    for device, share in rules.min_share.items():
        part = flops_of(problem, placement.place, device) / max(problem.total_flops, 1.0)
        if part < share * (1 - 1e-9):
            name = problem.devices[device].name
            found.append((share - part, f"{name} has {part:.1%} of the FLOPs, not {share:.1%}"))
    for objective, bound in rules.bounds.items():
        figure = schedule.figure(objective)
        if figure > bound * (1 + 1e-9):
            found.append((figure / max(bound, 1e-30) - 1, f"{objective} is {figure:.6g}, above {bound:.6g}"))
    if rules.loss_budget is not None:
        loss = loss_of(problem, placement.place)
        if loss > rules.loss_budget * (1 + LOSS_TOLERANCE):
            excess = min(loss / max(rules.loss_budget, 1e-30) - 1, 1.0)
            found.append((excess, f"the loss is {loss:.3g}, above {rules.loss_budget:.3g}"))
    if rules.max_segments is not None and len(schedule.launches) > rules.max_segments:
        excess = (len(schedule.launches) - rules.max_segments) / max(rules.max_segments, 1)
        found.append((excess, f"{len(schedule.launches)} segments, above {rules.max_segments}"))
    return found


def simulate(problem: Problem, placement: Placement, *, with_memory: bool = True) -> Schedule:
    """Runs the placement on paper. InputError where segments are not atomic: a cycle, or two places in one segment.

    Without `with_memory`, `memory_bytes` is left empty.
    """
    members: dict[int, list[int]] = {}
    for node, segment in enumerate(placement.segment):
        members.setdefault(segment, []).append(node)
    place_of_segment: dict[int, int] = {}
    for segment, nodes in members.items():
        places = {placement.place[node] for node in nodes}
        if len(places) != 1:
            raise InputError("one segment is on several places", where=f"segment {segment}")
        place_of_segment[segment] = places.pop()
    batches, wanted = _batches(problem, placement)
    streamed = streamed_by(problem, placement.place)
    duration = _durations(problem, placement, place_of_segment, streamed)

    arrival: dict[tuple[int, int], tuple[float, float]] = {}
    free_links: dict[str, float] = {}

    def send(segment: int, time: float) -> None:
        source = problem.host if segment < 0 else problem.device_of[place_of_segment[segment]]
        # What a later segment waits for goes before what only the host does, as the runtime has it.
        going = batches.get(segment, {})
        for destination in sorted(going, key=lambda device: (device == problem.host, device)):
            values = going[destination]
            size = sum(problem.values[value].size_bytes for value in values)
            route = problem.routes[source, destination]
            leaves = max([time, *(free_links.get(link, 0.0) for link, seconds in route.links if seconds)])
            free_links.update({link: leaves + size * seconds for link, seconds in route.links if seconds})
            arrival[segment, destination] = (leaves, leaves + route.seconds(size))

    for segment in sorted(members):
        send(~segment, 0.0)
    free: dict[int, float] = {}
    launches: list[Launch] = []
    for segment in sorted(members):
        device = problem.device_of[place_of_segment[segment]]
        start = max(free.get(unit, 0.0) for unit in problem.units[device])
        for source in wanted.get(segment, ()):
            start = max(start, arrival[source, device][1])
        end = start + duration[segment]
        free |= dict.fromkeys(problem.units[device], end)
        launches.append(Launch(segment, place_of_segment[segment], start, end, tuple(members[segment])))
        send(segment, end)

    transfers: list[Transfer] = []
    last = max(free.values(), default=0.0)
    for (segment, destination), (start, end) in arrival.items():
        source = problem.host if segment < 0 else problem.device_of[place_of_segment[segment]]
        for value in batches[segment][destination]:
            size = problem.values[value].size_bytes
            alone = problem.transfer_s(source, destination, size)
            transfers.append(Transfer(value, source, destination, size, alone, start, end))
            if destination == problem.host and problem.values[value].is_output:
                last = max(last, end)
    return _figures(problem, placement, tuple(launches), tuple(transfers), last, streamed, with_memory)


def _batches(problem: Problem, placement: Placement) -> tuple[dict[int, dict[int, list[int]]], dict[int, set[int]]]:
    """What each segment sends to each device, and which segments' batches each waits for.

    `~segment` is the host with the model's inputs for that segment: those that nothing before it reads on its device.
    """
    batches: dict[int, dict[int, list[int]]] = {}
    wanted: dict[int, set[int]] = {}
    for index, value in enumerate(problem.values):
        if value.producer is None:
            _input_batches(problem, placement, index, batches, wanted)
            continue
        segment = placement.segment[value.producer]
        source = problem.device_of[placement.place[value.producer]]
        destinations: set[int] = {problem.host} if value.is_output and source != problem.host else set()
        for consumer in value.consumers:
            reader = placement.segment[consumer]
            if reader < segment:
                names = f"{problem.nodes[consumer].name} before {value.name}"
                raise InputError(f"segments are not in an order in which they can run: {names}")
            device = problem.device_of[placement.place[consumer]]
            if device != source:
                destinations.add(device)
                wanted.setdefault(reader, set()).add(segment)
        for destination in sorted(destinations):
            batches.setdefault(segment, {}).setdefault(destination, []).append(index)
    return batches, wanted


def _input_batches(
    problem: Problem,
    placement: Placement,
    value: int,
    batches: dict[int, dict[int, list[int]]],
    wanted: dict[int, set[int]],
) -> None:
    """Adds an input of the model to the batch of the first segment on each device that reads it."""
    first: dict[int, int] = {}
    readers = sorted({(placement.segment[node], placement.place[node]) for node in problem.values[value].consumers})
    for reader, place in readers:
        device = problem.device_of[place]
        if device == problem.host:
            continue
        segment = ~first.setdefault(device, reader)
        wanted.setdefault(reader, set()).add(segment)
        if segment == ~reader:
            batches.setdefault(segment, {}).setdefault(device, []).append(value)


def _durations(
    problem: Problem, placement: Placement, place_of_segment: Mapping[int, int], streamed: Streamed
) -> dict[int, float]:
    duration = {segment: problem.launch_s[place] for segment, place in place_of_segment.items()}
    for node, (place, segment) in enumerate(zip(placement.place, placement.segment, strict=True)):
        duration[segment] += problem.nodes[node].options[place].seconds
    for fusion in problem.fusions:
        segment = placement.segment[fusion.producer]
        if segment == placement.segment[fusion.consumer]:
            duration[segment] -= fusion.seconds.get(place_of_segment[segment], 0.0)
    for segment, seconds in edges(problem, placement.segment, place_of_segment):
        duration[segment] += seconds
    for node, seconds in streamed.seconds.items():
        duration[placement.segment[node]] += seconds
    return duration


def edges(problem: Problem, segment: Sequence[int], place: Mapping[int, int]) -> Iterator[tuple[int, float]]:
    """Segments with the seconds that each value which enters them takes there, and each of theirs that leaves."""
    if not problem.has_edges:
        return
    for value in problem.values:
        home = None if value.producer is None else segment[value.producer]
        readers = {segment[consumer] for consumer in value.consumers} - {home}
        for reader in readers:
            yield reader, problem.edge_s(value, place[reader], leaving=False)
        if home is not None and (readers or value.is_output):
            yield home, problem.edge_s(value, place[home], leaving=True)


def _figures(
    problem: Problem,
    placement: Placement,
    launches: tuple[Launch, ...],
    transfers: tuple[Transfer, ...],
    latency: float,
    streamed: Streamed,
    with_memory: bool,
) -> Schedule:
    busy: dict[int, float] = {}
    overhead: dict[int, float] = {}
    for launch in launches:
        for device in problem.units[problem.device_of[launch.place]]:
            busy[device] = busy.get(device, 0.0) + launch.seconds
            overhead[device] = overhead.get(device, 0.0) + problem.launch_s[launch.place]
    links: dict[str, float] = {}
    for transfer in transfers:
        for link, seconds_per_byte in problem.routes[transfer.source, transfer.destination].links:
            links[link] = links.get(link, 0.0) + transfer.size_bytes * seconds_per_byte
    in_use = sorted({*busy, problem.host})
    active = {device: busy.get(device, 0.0) - overhead.get(device, 0.0) for device in in_use}
    segment_j = _segment_joules(problem, placement, streamed)
    idle_j = {device: (problem.devices[device].idle_w or 0.0) * max(latency - active[device], 0.0) for device in in_use}
    return Schedule(
        launches,
        transfers,
        latency_s=latency,
        period_s=max([*busy.values(), *links.values()], default=0.0),
        energy_j=None if segment_j is None else sum(segment_j.values()) + sum(idle_j.values()),
        cost_usd=_cost(problem, placement, in_use, transfers, latency),
        device_busy_s=dict(sorted(busy.items())),
        link_busy_s=dict(sorted(links.items())),
        memory_bytes=memory_of(problem, placement.place) if with_memory else {},
        streamed=streamed,
        segment_j=segment_j or {},
        idle_j=idle_j if segment_j is not None else {},
    )


def load_w(problem: Problem, device: int) -> float:
    """What a device, or all members of a group, draw under load; nothing where it is not known."""
    return sum(problem.devices[unit].load_w or 0.0 for unit in problem.units[device])


def _segment_joules(problem: Problem, placement: Placement, streamed: Streamed) -> dict[int, float] | None:
    """What each segment takes, its launch not included; None where an op's energy is unknown."""
    total = dict.fromkeys(placement.segment, 0.0)
    for node, (place, segment) in enumerate(zip(placement.place, placement.segment, strict=True)):
        joules = problem.nodes[node].options[place].joules
        if joules is None:
            return None
        total[segment] += joules
    for fusion in problem.fusions:
        segment = placement.segment[fusion.producer]
        if segment == placement.segment[fusion.consumer]:
            total[segment] -= fusion.joules.get(placement.place[fusion.producer], 0.0)
    place_of = dict(zip(placement.segment, placement.place, strict=True))
    for segment, seconds in edges(problem, placement.segment, place_of):
        total[segment] += seconds * load_w(problem, problem.device_of[place_of[segment]])
    for node, seconds in streamed.seconds.items():
        total[placement.segment[node]] += seconds * load_w(problem, problem.device_of[placement.place[node]])
    return total


def _cost(
    problem: Problem, placement: Placement, in_use: list[int], transfers: tuple[Transfer, ...], latency: float
) -> float | None:
    total = sum(node.options[place].usd for node, place in zip(problem.nodes, placement.place, strict=True))
    for transfer in transfers:
        total += transfer.size_bytes * problem.routes[transfer.source, transfer.destination].usd_per_byte
    for device in in_use:
        price = problem.devices[device].usd_per_hour
        if price is None:
            return None
        total += price / 3600.0 * latency
    return total
