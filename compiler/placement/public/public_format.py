"""The problem format of the NeurIPS 2020 placement benchmarks, and what a split of such a problem costs.

Tarnawski, Phanishayee, Devanur, Mahajan, Nina Paravecino: "Efficient Algorithms for Device Placement of DNN Graph
Operators". A file has `maxFPGAs` equal accelerators of `maxSizePerFPGA` bytes, `maxCPUs` CPU cores, nodes (`id`,
`supportedOnFpga`, `cpuLatency`, `fpgaLatency`, and where it is known `size`, `colorClass`: equal ones share a device,
and `isBackwardNode`) and edges (`sourceId`, `destId`, `cost`: the time to move the source's output between an
accelerator and host memory, the same in all edges of a source).

An accelerator pays for what it fetches and what it gives away, each value once; the CPU pays for nothing.

- Throughput (max-load): the largest load of any device, a load being its nodes and its transfers.
- Latency: an accelerator runs its subgraph atomically: it fetches, computes and gives away, after everything that it
  needs is there. CPU cores are as many as the graph is wide, and a node there starts when its inputs are there.
- Contiguous: the devices can be put in an order in which data only flows forward (each has one subgraph then). For the
  throughput of a training graph that is asked of the forward nodes only, as the authors do: the backward pass returns
  along the same devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from gimlet.compiler.placement.model.rules import read_json
from gimlet.runtime.errors import InputError

PublicObjective = Literal["throughput", "latency"]

# Sums of figures up to this are exact enough in floating point, and far from its end.
_LARGEST = 1e100
# Costs in the edges of one source that differ by less are the same, as in the authors' programs.
_SAME_COST = 1e-6


@dataclass(frozen=True)
class PublicNode:
    """A node: its id, seconds-like times on either kind of device, bytes on an accelerator."""

    id: int
    on_accelerator: bool
    cpu: float
    accelerator: float
    size: float
    colour: int | None
    backward: bool = False


@dataclass(frozen=True)
class PublicProblem:
    """A problem, with nodes by position in a topological order. `cost[n]` is what moving the output of `n` takes."""

    accelerators: int
    cpus: int
    capacity: float
    nodes: tuple[PublicNode, ...]
    edges: tuple[tuple[int, int], ...]
    cost: tuple[float, ...]

    @property
    def forward_edges(self) -> tuple[tuple[int, int], ...]:
        """Edges between nodes of the forward pass: all of them where nothing is trained."""
        return tuple((a, b) for a, b in self.edges if not (self.nodes[a].backward or self.nodes[b].backward))

    @cached_property
    def successors(self) -> tuple[tuple[int, ...], ...]:
        """Positions of each node's consumers, each once."""
        found: list[set[int]] = [set() for _ in self.nodes]
        for source, destination in self.edges:
            found[source].add(destination)
        return tuple(tuple(sorted(nodes)) for nodes in found)

    @cached_property
    def predecessors(self) -> tuple[tuple[int, ...], ...]:
        """Positions of each node's producers, each once."""
        found: list[set[int]] = [set() for _ in self.nodes]
        for source, destination in self.edges:
            found[destination].add(source)
        return tuple(tuple(sorted(nodes)) for nodes in found)


@dataclass(frozen=True)
class PublicSplit:
    """A split: for each node its device (accelerators from 0, then CPUs from `accelerators` on) and its subgraph.

    Subgraphs on accelerators are numbered in the order they run; a CPU node's number is not used.
    """

    device: tuple[int, ...]
    subgraph: tuple[int, ...]


def load_public(path: Path) -> PublicProblem:
    """Reads a problem. InputError, with the place in the file, where it is not one."""
    data = read_json(path)
    where = str(path)
    accelerators, cpus = (_whole(data, key, where) for key in ("maxFPGAs", "maxCPUs"))
    capacity = _number(data, "maxSizePerFPGA", where)
    nodes = [_node(entry, f"{where}: nodes[{number}]") for number, entry in enumerate(_list(data, "nodes", where))]
    index: dict[int, int] = {}
    for number, node in enumerate(nodes):
        first = index.setdefault(node.id, number)
        if first != number:
            raise InputError(f"nodes[{first}] has the id {node.id} already", where=f"{where}: nodes[{number}]")
    edges: set[tuple[int, int]] = set()
    cost: dict[int, float] = {}
    for number, entry in enumerate(_list(data, "edges", where)):
        place = f"{where}: edges[{number}]"
        source, destination = (_end(entry, key, index, place) for key in ("sourceId", "destId"))
        edges.add((source, destination))
        paid = _number(entry, "cost", place)
        if abs(cost.setdefault(source, paid) - paid) > _SAME_COST * max(1.0, paid):
            message = f"node {nodes[source].id} costs {cost[source]:g} in an edge before and {paid:g} here"
            raise InputError(message, where=place, hint="a value is moved once, so its edges have one cost")
    order = _topological(nodes, edges, where)
    position = {node: number for number, node in enumerate(order)}
    return PublicProblem(
        accelerators=accelerators,
        cpus=cpus,
        capacity=capacity,
        nodes=tuple(nodes[node] for node in order),
        edges=tuple(sorted((position[a], position[b]) for a, b in edges)),
        cost=tuple(cost.get(node, 0.0) for node in order),
    )


def _node(entry: Any, where: str) -> PublicNode:
    data: dict[str, Any] = entry if isinstance(entry, dict) else {}
    return PublicNode(
        id=_whole(entry, "id", where, least=-_LARGEST),
        on_accelerator=_flag(entry, "supportedOnFpga", where),
        cpu=_number(entry, "cpuLatency", where),
        accelerator=_number(entry, "fpgaLatency", where),
        size=_number(entry, "size", where) if "size" in data else 0.0,
        colour=None if data.get("colorClass") is None else _whole(entry, "colorClass", where, least=-_LARGEST),
        backward="isBackwardNode" in data and _flag(entry, "isBackwardNode", where),
    )


def _end(entry: Any, key: str, index: Mapping[int, int], where: str) -> int:
    """Which node an edge begins or ends at."""
    node = _whole(entry, key, where, least=-_LARGEST)
    if node not in index:
        raise InputError(f"there is no node {node}", where=where)
    return index[node]


def _field(entry: Any, key: str) -> Any:
    return cast("dict[str, Any]", entry).get(key) if isinstance(entry, dict) else None


def _number(entry: Any, key: str, where: str) -> float:
    value = _field(entry, key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
        raise InputError(f"needs {key!r}, a number from 0 to {_LARGEST:g}", where=where)
    return float(value)


def _whole(entry: Any, key: str, where: str, least: float = 0) -> int:
    value = _field(entry, key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= _LARGEST or value % 1:
        kind = "a whole number" if least < 0 else "a whole number that is not negative"
        raise InputError(f"needs {key!r}, {kind}", where=where)
    return int(value)


def _flag(entry: Any, key: str, where: str) -> bool:
    value = _field(entry, key)
    if value not in (0, 1):
        raise InputError(f"needs {key!r}, true or false (or 1 or 0)", where=where)
    return bool(value)


def _list(entry: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = entry.get(key)
    if not isinstance(value, list):
        raise InputError(f"needs {key!r}, a list", where=where)
    return [*value]


def _topological(nodes: Sequence[PublicNode], edges: set[tuple[int, int]], where: str) -> list[int]:
    count = len(nodes)
    waiting = [0] * count
    after: list[list[int]] = [[] for _ in range(count)]
    for source, destination in sorted(edges):
        waiting[destination] += 1
        after[source].append(destination)
    ready = [node for node in range(count) if not waiting[node]]
    order: list[int] = []
    while ready:
        node = ready.pop()
        order.append(node)
        for following in after[node]:
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)
    if len(order) < count:
        cycle = " -> ".join(str(nodes[node].id) for node in _cycle(waiting, edges))
        raise InputError(f"the graph has a cycle: {cycle}", where=f"{where}: edges")
    return order


def _cycle(waiting: Sequence[int], edges: set[tuple[int, int]]) -> list[int]:
    """A cycle of nodes that wait, the first one again at its end: each of them has a source that waits as well."""
    source_of = {destination: source for source, destination in sorted(edges) if waiting[source]}
    node = next(node for node, count in enumerate(waiting) if count)
    seen: list[int] = []
    while node not in seen:
        seen.append(node)
        node = source_of[node]
    return [node, *reversed(seen[seen.index(node) :])]


def max_load(problem: PublicProblem, split: PublicSplit) -> float:
    """The largest load of any device."""
    loads = [0.0] * (problem.accelerators + problem.cpus)
    for node, device in zip(problem.nodes, split.device, strict=True):
        loads[device] += node.accelerator if device < problem.accelerators else node.cpu
    for source, cost in enumerate(problem.cost):
        here = split.device[source]
        reached = {split.device[node] for node in problem.successors[source]} - {here}
        paying = reached | ({here} if reached else set())
        for device in paying:
            if device < problem.accelerators:
                loads[device] += cost
    return max(loads, default=0.0)


def latency(problem: PublicProblem, split: PublicSplit) -> float:
    """The time of one sample. InputError where subgraphs wait for each other."""
    members: dict[int, list[int]] = {}
    for node, device in enumerate(split.device):
        if device < problem.accelerators:
            members.setdefault(split.subgraph[node], []).append(node)
    done: dict[int, float] = {}
    ended: dict[int, float] = {}
    free: dict[int, float] = {}
    waiting = sorted(members)
    open_nodes = [node for node, device in enumerate(split.device) if device >= problem.accelerators]
    while waiting or open_nodes:
        progress = False
        for node in list(open_nodes):
            if all(source in done for source in problem.predecessors[node]):
                start = max((done[source] for source in problem.predecessors[node]), default=0.0)
                done[node] = start + problem.nodes[node].cpu
                open_nodes.remove(node)
                progress = True
        for subgraph in list(waiting):
            nodes = set(members[subgraph])
            device = split.device[members[subgraph][0]]
            fetched = {s for node in nodes for s in problem.predecessors[node]} - nodes
            earlier = [s for s in waiting if s < subgraph and split.device[members[s][0]] == device]
            if earlier or not all(source in done for source in fetched):
                continue
            given = [node for node in nodes if any(after not in nodes for after in problem.successors[node])]
            start = max([free.get(device, 0.0), *(done[source] for source in fetched)])
            seconds = sum(problem.nodes[node].accelerator for node in nodes)
            seconds += sum(problem.cost[node] for node in (*fetched, *given))
            free[device] = ended[subgraph] = start + seconds
            done.update(dict.fromkeys(nodes, start + seconds))
            waiting.remove(subgraph)
            progress = True
        if not progress:
            raise InputError("subgraphs wait for each other")
    return max(done.values(), default=0.0)


def memory(problem: PublicProblem, split: PublicSplit) -> list[float]:
    """Bytes on each accelerator."""
    used = [0.0] * problem.accelerators
    for node, device in zip(problem.nodes, split.device, strict=True):
        if device < problem.accelerators:
            used[device] += node.size
    return used
