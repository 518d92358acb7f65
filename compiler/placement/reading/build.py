"""From the IR to a placement problem: what each device's target takes, what each op costs there, what moves.

Every (device, target, number format) is a place: each target of a device that has a format competes for the ops there.
A format is the default of the device's first target unless others are asked for. Costs come from the device's provider
(`gimlet.compiler.costs`), by default the target's own model, with dimensions at their optimum; where the target says
that it fuses an op into its producer, the pair saves the op's kernel launch and the trip of the value between them
through memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gimlet.compiler.costs.provider import AnalyticCosts, CostProvider
from gimlet.compiler.hardware import route
from gimlet.compiler.placement.model.problem import (
    DeviceSpec,
    Fusion,
    Node,
    Option,
    Place,
    Problem,
    Route,
    Rules,
    Value,
    Weight,
)
from gimlet.compiler.placement.reading.graph import Constant, ModuleGraph, Unit
from gimlet.compiler.placement.reading.groups import (
    GroupPlan,
    group_plans,
    group_specs,
    with_gathers,
    with_group_routes,
)
from gimlet.compiler.placement.reading.levels import reading_of, with_fast_memory, with_streams
from gimlet.dialects.onnx import value_name
from gimlet.dialects.onnx.types import element_of
from gimlet.dialects.onnx.work import work_of
from gimlet.runtime.errors import UsageError
from gimlet.targets.api import Device, Link, Reason, Target, Topology
from gimlet.targets.forms import refusals

Targets = Mapping[str, Sequence[Target]]
Providers = Mapping[str, CostProvider]


@dataclass(frozen=True)
class Site:
    """A place with what serves it."""

    place: Place
    device: Device
    target: Target
    group: str = ""


@dataclass
class _Answers:
    """What targets and cost providers say: options and refusals by unit and place, the rest place by place.

    `weight_bytes` are resident bytes by a weight's key and the place. `scales` are what measured times were over the
    model's, by unit.
    """

    options: list[dict[int, Option]]
    refusals: list[dict[int, str]]
    places: list[Place] = field(default_factory=list[Place])
    scales: list[Mapping[int, float]] = field(default_factory=list[Mapping[int, float]])
    weight_bytes: dict[str, dict[int, int]] = field(default_factory=dict[str, dict[int, int]])
    notes: list[str] = field(default_factory=list[str])


def sites_of(
    topology: Topology, targets: Targets, formats: Mapping[str, Sequence[str]], *, deciding: bool = False
) -> list[Site]:
    """The places of a topology. `formats` lists number formats by device; without it, the first target's default.

    When `deciding`, a device that is not listed has all its formats, and an op is computed in the one that it is placed
    in.
    """
    known = [device.name for device in topology.devices]
    for name in formats:
        if name not in known:
            raise UsageError(f"there is no device {name!r}", hint=f"the devices are: {', '.join(known)}")
    sites: list[Site] = []
    for index, device in enumerate(topology.devices):
        offered: dict[str, list[Target]] = {}
        for target in targets[device.name]:
            for fmt in target.formats(device):
                offered.setdefault(fmt, []).append(target)
        wanted = formats.get(device.name) or list(offered)[: None if deciding else 1]
        for fmt in wanted:
            if fmt not in offered:
                raise UsageError(
                    f"device {device.name} ({device.kind.name}) does not compute in {fmt!r}",
                    hint=f"its formats are: {', '.join(offered) or 'none'}",
                )
            for target in offered[fmt]:
                launch_s, casts = target.segment_overhead_s(device), target.cast_s_per_byte(device, fmt)
                place = Place(index, target.name, fmt, launch_s=launch_s, cast_s_per_byte=casts)
                sites.append(Site(place, target.deciding(device) if deciding else device, target))
    for number, group in enumerate(topology.groups, len(topology.devices)):
        member = [device.name for device in topology.devices].index(group.members[0])
        own = [site for site in sites if site.place.device == member]
        sites += [replace(site, place=replace(site.place, device=number), group=group.name) for site in own]
    return sites


def structure(graph: ModuleGraph, topology: Topology) -> Problem:
    """The problem without places and costs: devices, ops and values."""
    return Problem(
        devices=(*map(device_spec, topology.devices), *group_specs(topology)),
        places=(),
        nodes=tuple(Node(unit.name, unit.op_type) for unit in graph.units),
        values=tuple(_values(graph)),
        routes={},
        host=[device.name for device in topology.devices].index(topology.host),
        rules=Rules(together=tuple(state.units for state in graph.states if len(state.units) > 1)),
    )


def build_problem(
    graph: ModuleGraph, topology: Topology, sites: Sequence[Site], providers: Providers | None = None
) -> Problem:
    """The problem of a module's graph on a topology, with what the targets say; no rules but those of the graph.

    `providers` say what ops cost, by device; a device without one has its targets' own model.
    """
    plain_routes = routes(topology)
    plans = group_plans(topology, graph, plain_routes)
    answers = _ask(graph, sites, plans, providers or {})
    options = answers.options
    base = structure(graph, topology)
    weights = [*_weights(graph, answers.weight_bytes), *_states(graph, sites, base)]
    stores = {index: store for index, site in enumerate(sites) if (store := site.target.weight_store(site.device))}
    if stores:
        weights = with_streams(weights, options, [reading_of(unit, graph.sizes) for unit in graph.units], stores)
    by_place = {index: plans[site.group] for index, site in enumerate(sites) if site.group}
    return replace(
        base,
        devices=_with_formats(with_fast_memory(base.devices, [site.place.device for site in sites], stores), sites),
        places=tuple(answers.places),
        values=tuple(with_gathers(base.values, graph, by_place)),
        nodes=tuple(
            Node(
                unit.name,
                unit.op_type,
                options[number],
                answers.refusals[number],
                _flops(unit, graph.sizes),
                unit.source,
            )
            for number, unit in enumerate(graph.units)
        ),
        routes=with_group_routes(plain_routes, base.units),
        weights=tuple(sorted(weights, key=lambda weight: weight.key)),
        fusions=tuple(_fusions(graph, sites, options, answers.scales)),
        notes=tuple(answers.notes),
    )


def _ask(graph: ModuleGraph, sites: Sequence[Site], plans: Mapping[str, GroupPlan], providers: Providers) -> _Answers:
    """What each place takes, and at what cost; a group's costs are those of its members' parts."""
    answers = _Answers([{} for _ in graph.units], [{} for _ in graph.units])
    by_user: dict[int, list[Constant]] = {}
    for constant in graph.constants:
        for user in constant.users:
            by_user.setdefault(user, []).append(constant)
    for index, site in enumerate(sites):
        taken: list[int] = []
        for number, reason in enumerate(_reasons(graph.units, site)):
            if reason is None:
                taken.append(number)
            else:
                answers.refusals[number][index] = reason.message
        provider = providers.get(site.device.name) or AnalyticCosts()
        found = provider.costs(graph, taken, site.target, site.device, site.place.format)
        if site.group:
            found = plans[site.group].costs(found)
        answers.scales.append(found.scale)
        answers.places.append(replace(site.place, provider=provider.name))
        answers.notes += found.notes
        for number, cost in found.costs.items():
            answers.options[number][index] = Option(cost.seconds, cost.joules, cost.activation_bytes)
            own = _inside(graph.units[number])
            _share_weights(answers.weight_bytes, by_user.get(number, ()), own, index, cost.weight_bytes)
    return answers


def _inside(unit: Unit) -> str:
    """The key of the weights that a unit has in its subgraphs."""
    return f"{unit.name} (inside)"


def _weights(graph: ModuleGraph, weight_bytes: Mapping[str, dict[int, int]]) -> list[Weight]:
    users = {_inside(unit): (number,) for number, unit in enumerate(graph.units)}
    users |= {constant.key: tuple(sorted(constant.users)) for constant in graph.constants}
    return [Weight(key, users[key], sizes) for key, sizes in weight_bytes.items()]


def device_spec(device: Device) -> DeviceSpec:
    kind = device.kind
    return DeviceSpec(
        name=device.name,
        memory_bytes=max((level.capacity_bytes for level in kind.memory), default=None),
        segment_overhead_s=kind.segment_overhead_s,
        idle_w=kind.idle_w,
        load_w=kind.load_w,
        usd_per_hour=kind.usd_per_hour,
        kind=kind.name,
    )


def _with_formats(devices: Sequence[DeviceSpec], sites: Sequence[Site]) -> tuple[DeviceSpec, ...]:
    """The devices with every format that a target of theirs offers, in the targets' order."""
    offered: dict[int, dict[str, None]] = {}
    for site in sites:
        offered.setdefault(site.place.device, {}).update(dict.fromkeys(site.target.formats(site.device)))
    return tuple(replace(spec, formats=tuple(offered.get(index, ()))) for index, spec in enumerate(devices))


def _reasons(units: Sequence[Unit], site: Site) -> list[Reason | None]:
    """For each unit the first refusal among its ops."""
    ops = [op for unit in units for op in unit.ops]
    answers = iter(refusals(site.target, ops, site.device, site.place.format))
    return [
        next((reason for reason in [next(answers) for _ in unit.ops] if reason is not None), None) for unit in units
    ]


def _flops(unit: Unit, sizes: Mapping[str, int]) -> float:
    return float(sum(work_of(op).flops.evaluate(sizes) for op in unit.ops))


def _share_weights(
    shares: dict[str, dict[int, int]], constants: Sequence[Constant], own: str, place: int, size_bytes: int
) -> None:
    """Notes a unit's resident bytes on a place: spread over the constants it uses, else (in a subgraph) its own."""
    if not size_bytes:
        return
    stored = sum(constant.size_bytes for constant in constants)
    if not stored:
        sizes = shares.setdefault(own, {})
        sizes[place] = max(sizes.get(place, 0), size_bytes)
        return
    for constant in constants:
        sizes = shares.setdefault(constant.key, {})
        sizes[place] = max(sizes.get(place, 0), -(-size_bytes * constant.size_bytes // stored))


def _states(graph: ModuleGraph, sites: Sequence[Site], problem: Problem) -> list[Weight]:
    """States as resident bytes, wherever their users are; a group's members share each."""
    found: list[Weight] = []
    for state in graph.states:
        sizes: dict[int, int] = {}
        for place, site in enumerate(sites):
            in_place = state.update is not None and site.target.updates_in_place(state.update)
            size = state.size_bytes if in_place else 2 * state.size_bytes
            sizes[place] = -(-size // len(problem.units[site.place.device]))
        if state.units and state.size_bytes:
            found.append(Weight(f"state {state.name}", state.units[:1], sizes))
    return found


def _values(graph: ModuleGraph) -> list[Value]:
    found: list[Value] = []
    for value in graph.values:
        consumers, producer = tuple(graph.consumers[value]), graph.producer[value]
        is_output = value in graph.outputs and producer is not None
        if consumers or is_output:
            size, element = graph.size_bytes(value), element_of(value.type)
            cast = size if element is not None and element.onnx == "float" else 0
            found.append(Value(value_name(value), size, producer, consumers, is_output, cast))
    return found


def routes(topology: Topology) -> dict[tuple[int, int], Route]:
    """Routes between all devices; where a topology leaves two apart, `Problem` says so."""
    routes: dict[tuple[int, int], Route] = {}
    for source, first in enumerate(topology.devices):
        for destination, second in enumerate(topology.devices):
            if source == destination:
                continue
            path = route(topology, first.name, second.name)
            links = tuple(_directions(path, first.name))
            latency = sum(link.latency_s for link in path)
            routes[source, destination] = Route(latency, sum(seconds for _, seconds in links), links)
    return routes


def _directions(path: Iterable[Link], start: str) -> Iterable[tuple[str, float]]:
    """The directions of links on a path from the device `start`, each with its seconds a byte."""
    position = start
    for link in path:
        forward = link.between[0] == position
        position = link.between[1] if forward else link.between[0]
        yield f"{link.name}{'>' if forward else '<'}", 1.0 / link.bandwidth


def _fusions(
    graph: ModuleGraph,
    sites: Sequence[Site],
    options: Sequence[Mapping[int, Option]],
    scales: Sequence[Mapping[int, float]],
) -> list[Fusion]:
    """For each unit, the producer that most places fuse it into, with what that saves there."""
    found: list[Fusion] = []
    producers: list[dict[int, int]] = [{} for _ in graph.units]
    for value in graph.values:
        source = graph.producer[value]
        if source is not None and value not in graph.outputs and len(graph.consumers[value]) == 1:
            consumer = graph.consumers[value][0]
            size = graph.size_bytes(value)
            producers[consumer][source] = producers[consumer].get(source, 0) + size
    for number, sources in enumerate(producers):
        unit = graph.units[number]
        candidates: list[Fusion] = []
        for source, size in sources.items():
            before = graph.units[source]
            seconds: dict[int, float] = {}
            joules: dict[int, float] = {}
            for index, site in enumerate(sites):
                own = options[number].get(index)
                if own is None or index not in options[source] or not own.seconds:
                    continue
                saving = site.target.fusion_saving(before.ops[-1], unit.ops[0], site.device, size)
                if not saving:
                    continue
                seconds[index] = min(own.seconds, saving * scales[index].get(number, 1.0))
                joules[index] = (own.joules or 0.0) * seconds[index] / own.seconds
            if seconds:
                candidates.append(Fusion(source, number, seconds, joules))
        if candidates:
            found.append(max(candidates, key=lambda fusion: (sum(fusion.seconds.values()), -fusion.producer)))
    return found
