"""The costs that a placement was made from, as JSON: written into the bundle, and read back with `--costs`.

    {"schema": 1, "devices": [{name, kind, memory_bytes, …}],
     "places": [{device, target, format, provider, launch_s, cast_s_per_byte?}],
     "routes": [{from, to, latency_s, seconds_per_byte, links, usd_per_byte?}], "reasons": [text],
     "nodes": {name: {"type", "flops",
                      "options": [[seconds, joules, activation_bytes, usd?, loss?] | index of a reason | null]}},
     "weights": {key: [bytes by place]},
     "streams": {key: [order, [[user, place, seconds]]]},
     "fusions": [[producer, consumer, [seconds by place], [joules by place]]],
     "gathers": {value: [seconds by place]}, "notes": [text]}

Figures are written so that they read back as the same floats: a rebuild from them decides the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gimlet.compiler.costs.provider import ANALYTIC
from gimlet.compiler.placement.model.problem import DeviceSpec, Fusion, Node, Option, Place, Problem, Route, Weight
from gimlet.compiler.placement.model.rules import read_json
from gimlet.compiler.placement.reading.graph import ModuleGraph
from gimlet.runtime.errors import InputError

SCHEMA = 1


def costs_to_json(problem: Problem) -> dict[str, Any]:
    """The costs of a problem, without its graph and its rules."""
    reasons: dict[str, int] = {}
    places = range(len(problem.places))
    names = [device.name for device in problem.devices]
    weights, values = problem.weights, problem.values
    return {
        "schema": SCHEMA,
        "devices": [_device_json(device) for device in problem.devices],
        "places": [
            _place_json(place, names, launch_s)
            for place, launch_s in zip(problem.places, problem.launch_s, strict=True)
        ],
        "routes": [_route_json(route, names, ends) for ends, route in sorted(problem.routes.items())],
        "nodes": {
            node.name: {
                "type": node.op_type,
                "flops": node.flops,
                "options": [_option(node, place, reasons) for place in places],
            }
            for node in problem.nodes
        },
        "weights": {weight.key: [weight.size_bytes.get(place, 0) for place in places] for weight in weights},
        "streams": {
            weight.key: _stream_json(weight, problem.nodes) for weight in weights if weight.stream_s or weight.order
        },
        "fusions": [_fusion_json(fusion, problem.nodes, places) for fusion in problem.fusions],
        "gathers": {value.name: [value.gather_s.get(place) for place in places] for value in values if value.gather_s},
        "reasons": list(reasons),
        "notes": list(problem.notes),
    }


def _place_json(place: Place, names: Sequence[str], launch_s: float) -> dict[str, Any]:
    return {
        "device": names[place.device],
        "target": place.target,
        "format": place.format,
        "provider": place.provider,
        "launch_s": launch_s,
    } | ({"cast_s_per_byte": place.cast_s_per_byte} if place.cast_s_per_byte else {})


def _route_json(route: Route, names: Sequence[str], ends: tuple[int, int]) -> dict[str, Any]:
    return {
        "from": names[ends[0]],
        "to": names[ends[1]],
        "latency_s": route.latency_s,
        "seconds_per_byte": route.seconds_per_byte,
        "links": [list(link) for link in route.links],
    } | ({"usd_per_byte": route.usd_per_byte} if route.usd_per_byte else {})


def _stream_json(weight: Weight, nodes: Sequence[Node]) -> list[Any]:
    streams = weight.stream_s.items()
    return [weight.order, [[nodes[user].name, place, s] for place, users in streams for user, s in users.items()]]


def _fusion_json(fusion: Fusion, nodes: Sequence[Node], places: Iterable[int]) -> list[Any]:
    saved = ([figures.get(place) for place in places] for figures in (fusion.seconds, fusion.joules))
    return [nodes[fusion.producer].name, nodes[fusion.consumer].name, *saved]


def _option(node: Node, place: int, reasons: dict[str, int]) -> list[float | int | None] | int | None:
    option = node.options.get(place)
    if option is not None:
        rest = [option.usd, option.loss] if option.loss else [option.usd] if option.usd else []
        return [option.seconds, option.joules, option.activation_bytes, *rest]
    reason = node.refusals.get(place)
    return None if reason is None else reasons.setdefault(reason, len(reasons))


def load_costs(path: Path) -> dict[str, Any]:
    """The costs in a file, which may be the manifest of a bundle. InputError where there are none."""
    data = read_json(path)
    if "costs" in data and "nodes" not in data:
        data = data["costs"]
    if not isinstance(data, dict) or data.get("schema") != SCHEMA or "nodes" not in data:
        raise InputError(f"holds no placement costs of schema {SCHEMA}", where=str(path))
    return data


def with_costs(problem: Problem, graph: ModuleGraph, data: dict[str, Any], where: str) -> Problem:
    """`problem`'s graph with the costs in `data`. InputError where they are of another model or other devices.

    `problem` needs devices, nodes (names and types) and values; its own costs, if any, are dropped.
    """
    try:
        return _with_costs(problem, graph, data, where)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"the costs are malformed: {error!r}", where=where) from error


def _device_json(device: DeviceSpec) -> dict[str, Any]:
    return asdict(device) | {"members": list(device.members), "formats": list(device.formats)}


def _device(entry: dict[str, Any]) -> DeviceSpec:
    return replace(
        DeviceSpec(**entry), members=tuple(entry.get("members", ())), formats=tuple(entry.get("formats", ()))
    )


def _with_costs(problem: Problem, graph: ModuleGraph, data: dict[str, Any], where: str) -> Problem:
    devices = tuple(_device(entry) for entry in data["devices"])
    names = [device.name for device in devices]
    if names != [device.name for device in problem.devices]:
        own = ", ".join(device.name for device in problem.devices)
        raise InputError(f"the costs are for the devices {', '.join(names)}, not {own}", where=where)
    nodes = tuple(_node(node, data["nodes"].get(node.name), data["reasons"], where) for node in problem.nodes)
    index = {node.name: number for number, node in enumerate(nodes)}
    gathers = data.get("gathers", {})
    return replace(
        problem,
        devices=devices,
        places=tuple(_place(entry, names) for entry in data["places"]),
        nodes=nodes,
        routes={(names.index(entry["from"]), names.index(entry["to"])): _route(entry) for entry in data["routes"]},
        values=tuple(replace(value, gather_s=_by_place(gathers.get(value.name, ()))) for value in problem.values),
        weights=_weights(graph, index, data),
        fusions=tuple(
            Fusion(index[producer], index[consumer], _by_place(seconds), _by_place(joules))
            for producer, consumer, seconds, joules in data["fusions"]
        ),
        notes=tuple(str(note) for note in data.get("notes", ())),
    )


def _place(entry: dict[str, Any], names: Sequence[str]) -> Place:
    return Place(
        names.index(entry["device"]),
        entry["target"],
        entry["format"],
        entry.get("provider", ANALYTIC),
        entry.get("launch_s"),
        entry.get("cast_s_per_byte", 0.0),
    )


def _route(entry: dict[str, Any]) -> Route:
    links = tuple((link, cost) for link, cost in entry["links"])
    return Route(entry["latency_s"], entry["seconds_per_byte"], links, entry.get("usd_per_byte", 0.0))


def _node(node: Node, entry: dict[str, Any] | None, reasons: Sequence[str], where: str) -> Node:
    """A node with the costs of an entry. InputError where it has none, or those of another operator."""
    if entry is None or entry["type"] != node.op_type:
        raise InputError(f"has no costs of {node.op_type} {node.name!r}: it is of another model", where=where)
    options: dict[int, Option] = {}
    refusals: dict[int, str] = {}
    for place, option in enumerate(entry["options"]):
        if isinstance(option, int):
            refusals[place] = reasons[option]
        elif option is not None:
            seconds, joules, activation_bytes, *rest = option
            options[place] = Option(float(seconds), joules, int(activation_bytes), *map(float, rest))
    return replace(node, options=options, refusals=refusals, flops=float(entry["flops"]))


def _weights(graph: ModuleGraph, index: dict[str, int], data: dict[str, Any]) -> tuple[Weight, ...]:
    """Weights by key; users come from the graph, and those that are not constants there belong to a single op."""
    users = {constant.key: tuple(sorted(constant.users)) for constant in graph.constants}
    users |= {f"state {state.name}": state.units[:1] for state in graph.states}
    found: list[Weight] = []
    for key, sizes in sorted(data["weights"].items()):
        own = users.get(key) or (index[key.removesuffix(" (inside)")],)
        order, entries = data.get("streams", {}).get(key, (0, ()))
        streams: dict[int, dict[int, float]] = {}
        for user, place, seconds in entries:
            streams.setdefault(int(place), {})[index[user]] = float(seconds)
        found.append(
            Weight(
                key,
                own,
                {place: size for place, size in enumerate(sizes) if size},
                streams,
                int(order),
            )
        )
    return tuple(found)


def _by_place(values: Sequence[float | None]) -> dict[int, float]:
    return {place: value for place, value in enumerate(values) if value is not None}
