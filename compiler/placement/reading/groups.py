"""Groups of a topology in the placement problem: what they are, how they are reached, and what ops cost on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gimlet.compiler.costs.provider import SiteCosts
from gimlet.compiler.placement.model.problem import DeviceSpec, Route, Value
from gimlet.compiler.placement.reading.collectives import Collectives, collectives_of
from gimlet.compiler.placement.reading.graph import ModuleGraph
from gimlet.compiler.placement.reading.sharding import Sharding, Share
from gimlet.dialects.onnx import value_name
from gimlet.targets.api import CollectiveFigures, Cost, Device, Group, Topology

Routes = Mapping[tuple[int, int], Route]
_REFERENCE_BYTES = 1 << 20


@dataclass(frozen=True)
class GroupPlan:
    """How a group runs a module: its collectives, and each op's share."""

    group: Group
    member: Device
    collectives: Collectives
    sharding: Sharding

    def share(self, number: int) -> Share:
        """The share of a unit: all of it on every member where it is of several ops."""
        ops = self.sharding.graph.units[number].ops
        return self.sharding.shares[ops[0]] if len(ops) == 1 else Share()

    def costs(self, found: SiteCosts) -> SiteCosts:
        """What units cost on the group, from what they cost on one member: work and weights split, collectives added.

        Energy is that of all members, who draw their power during collectives too. A kernel's launch is not split.
        """
        costs: dict[int, Cost] = {}
        scale: dict[int, float] = {}
        for number, cost in found.costs.items():
            share = self.share(number)
            launch = min(self.member.kind.kernel_overhead_s, cost.seconds)
            seconds = launch + (cost.seconds - launch) * share.work + share.collective_s(self.collectives)
            if share.gathered and seconds >= cost.seconds:
                share, seconds = Share(), cost.seconds
            size = len(self.group.members)
            factor = size * seconds / cost.seconds if cost.seconds else float(size)
            costs[number] = Cost(
                seconds,
                None if cost.joules is None else cost.joules * factor,
                round(cost.weight_bytes * share.weights),
                cost.activation_bytes,
            )
            scale[number] = found.scale.get(number, 1.0) * share.work
        return SiteCosts(costs, scale, found.notes)


def group_plans(topology: Topology, graph: ModuleGraph, routes: Routes) -> dict[str, GroupPlan]:
    """The plan of each group of a topology, by its name."""
    names = [device.name for device in topology.devices]
    return {
        group.name: GroupPlan(
            group,
            topology.device(group.members[0]),
            collectives_of(
                [names.index(member) for member in group.members], routes, group.algorithm, _figures(topology, group)
            ),
            Sharding(graph, len(group.members)),
        )
        for group in topology.groups
    }


def _figures(topology: Topology, group: Group) -> CollectiveFigures | None:
    """What the links between members say of collectives, where every two have one and they all say the same."""
    found = {
        frozenset(link.between): link.collectives for link in topology.links if set(link.between) <= set(group.members)
    }
    every = len(group.members) * (len(group.members) - 1) // 2
    said = set(found.values())
    return said.pop() if len(found) == every and len(said) == 1 else None


def group_specs(topology: Topology) -> list[DeviceSpec]:
    """The groups as devices of a problem, behind the devices themselves. Power and prices are their members'."""
    names = [device.name for device in topology.devices]
    found: list[DeviceSpec] = []
    for group in topology.groups:
        members = tuple(names.index(member) for member in group.members)
        kind = topology.device(group.members[0]).kind
        found.append(
            DeviceSpec(group.name, None, kind.segment_overhead_s, 0.0, 0.0, 0.0, f"group of {kind.name}", members)
        )
    return found


def with_group_routes(routes: Routes, units: Sequence[Sequence[int]]) -> dict[tuple[int, int], Route]:
    """The routes between all devices, where `units` lists the members of each: every member of a group gets a copy.

    What leaves a group leaves from the member that is nearest.
    """
    found: dict[tuple[int, int], Route] = {}
    for source, senders in enumerate(units):
        for destination, receivers in enumerate(units):
            if source == destination:
                continue
            legs = [_nearest(routes, senders, receiver) for receiver in receivers if receiver not in senders]
            if all(leg is not None for leg in legs):
                found[source, destination] = _together([leg for leg in legs if leg is not None])
    return found


def _nearest(routes: Routes, senders: Sequence[int], receiver: int) -> Route | None:
    known = [routes[sender, receiver] for sender in senders if (sender, receiver) in routes]
    return min(known, key=lambda route: route.seconds(_REFERENCE_BYTES), default=None)


def _together(legs: Sequence[Route]) -> Route:
    """Several routes at once: a link that several use is slower by as much."""
    if len(legs) == 1:
        return legs[0]
    uses = Counter(link for leg in legs for link, _ in leg.links)
    speed = {link: seconds for leg in legs for link, seconds in leg.links}
    return Route(
        max((leg.latency_s for leg in legs), default=0.0),
        max((sum(seconds * uses[link] for link, seconds in leg.links) for leg in legs), default=0.0),
        tuple((link, seconds * uses[link]) for link, seconds in speed.items()),
        sum(leg.usd_per_byte for leg in legs),
    )


def with_gathers(values: Sequence[Value], graph: ModuleGraph, plans: Mapping[int, GroupPlan]) -> list[Value]:
    """The values with what it takes to put them together where a group has parts of them; `plans` are by place."""
    layouts = {place: _split_values(plan, graph) for place, plan in plans.items()}
    found: list[Value] = []
    for value in values:
        gather = {
            place: plans[place].collectives.all_gather_s(value.size_bytes)
            for place, names in layouts.items()
            if value.producer is not None and value.name in names
        }
        found.append(replace(value, gather_s=gather) if gather else value)
    return found


def _split_values(plan: GroupPlan, graph: ModuleGraph) -> set[str]:
    return {value_name(value) for value in graph.values if plan.sharding.layout.get(value) is not None}
