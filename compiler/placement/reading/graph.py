"""The graph of a module as placement sees it: what is placed, what moves between, and which constants come along.

Constants are not placed: a copy stands in every segment that uses one. An op with subgraphs is one unit. Ops that
exchange something that cannot cross between segments (a sequence, an optional, a map) are one unit as well, with
everything on the paths between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute, BlockArgument, Operation, OpResult, SSAValue

from gimlet.dialects.onnx import InitializerOp, OnnxOp, node_name, value_name
from gimlet.dialects.onnx.provenance import source_of
from gimlet.dialects.onnx.types import dims_of, element_of
from gimlet.passes.dim_ranges import read_ranges
from gimlet.passes.entry import entry_function, is_constant, return_of
from gimlet.passes.mark_in_place import why_copied
from gimlet.passes.state_pairs import StatePair, held_bytes, state_pairs, update_of

ASSUMED_SIZE = 64
"""What a dimension counts that has no bounds because it depends on data (how many boxes were found, …)."""


@dataclass(frozen=True)
class Unit:
    """Ops that are placed as one, in the order of the IR, and the name it goes by: its first op's node name."""

    name: str
    ops: tuple[Operation, ...]

    @property
    def op_type(self) -> str:
        """The ONNX operator of the first op, or the name of another dialect's op."""
        op = self.ops[0]
        return op.op_type if isinstance(op, OnnxOp) else op.name

    @property
    def source(self) -> str:
        """The line of the model's source that the first op comes from, and the module; "" where it is not known."""
        return source_of(self.ops[0])


@dataclass(frozen=True)
class Constant:
    """A constant that ops use: its key in the weight store (or a name of its own), its bytes, and its users."""

    key: str
    size_bytes: int
    users: frozenset[int]


@dataclass(frozen=True)
class StateUse:
    """A state of the program: its name, the units that read it and the one that makes what it becomes, and its bytes.

    They share a device, where the state is: it does not move. It has its bytes twice there, unless the target updates
    it in place by `update`; `copied` says why no target could.
    """

    name: str
    units: tuple[int, ...]
    size_bytes: int
    update: Operation | None = None
    copied: str = ""


@dataclass
class ModuleGraph:
    """Units in topological order; `producer` and `consumers` of values by unit; sizes at the optimum of dimensions.

    `assumed` names the dimensions that nobody bounds, which are taken as `ASSUMED_SIZE`.
    """

    units: list[Unit] = field(default_factory=list[Unit])
    values: list[SSAValue] = field(default_factory=list[SSAValue])
    producer: dict[SSAValue, int | None] = field(default_factory=dict[SSAValue, int | None])
    consumers: dict[SSAValue, list[int]] = field(default_factory=dict[SSAValue, list[int]])
    outputs: set[SSAValue] = field(default_factory=set[SSAValue])
    constants: list[Constant] = field(default_factory=list[Constant])
    states: list[StateUse] = field(default_factory=list[StateUse])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    assumed: tuple[str, ...] = ()

    def size_bytes(self, value: SSAValue) -> int:
        """Bytes of a value at the optimum; 0 where its shape is not known."""
        return bytes_at(value.type, self.sizes)


def bytes_at(type_: Attribute, sizes: Mapping[str, int]) -> int:
    """Bytes of a value with dimensions at `sizes`; 0 where that is not known."""
    dims, element = dims_of(type_), element_of(type_)
    if dims is None or element is None:
        return 0
    return -(-prod(dim.evaluate(sizes) for dim in dims) * element.bits // 8)


def read_graph(module: ModuleOp, sizes: Mapping[str, int]) -> ModuleGraph:
    """The graph of the module's entry function."""
    function = entry_function(module)
    block = function.body.block
    last = return_of(block)
    ops = [op for op in block.ops if op is not last and not is_constant(op)]
    pairs = state_pairs(function)
    graph = ModuleGraph()
    graph.sizes, graph.assumed = _sizes(module, sizes)
    index = {op: number for number, op in enumerate(ops)}

    def maker(value: SSAValue) -> int | None:
        return index.get(value.owner) if isinstance(value.owner, Operation) else None

    edges = [
        (before, number) for number, op in enumerate(ops) for v in outer_uses(op) if (before := maker(v)) is not None
    ]
    tied = [
        (before, number)
        for number, op in enumerate(ops)
        for value in outer_uses(op)
        if (before := maker(value)) is not None and not _can_move(value.type)
    ]
    groups = _units(len(ops), edges, tied)
    unit_of = {ops[member]: number for number, members in enumerate(groups) for member in members}
    taken: dict[str, int] = {}
    graph.units = [Unit(_unique(op_key(ops[members[0]]), taken), tuple(ops[m] for m in members)) for members in groups]
    for value in (*block.args, *(result for op in ops for result in op.results)):
        source = unit_of.get(value.owner) if isinstance(value.owner, Operation) else None
        graph.values.append(value)
        graph.producer[value] = source
        graph.consumers[value] = []
    left = {pair.result_index for pair in pairs}
    graph.outputs = {v for index, v in enumerate(last.operands) if index not in left and v in graph.producer}
    for number, unit in enumerate(graph.units):
        seen = dict.fromkeys(value for op in unit.ops for value in outer_uses(op))
        for value in seen:
            if value in graph.consumers and graph.producer[value] != number:
                graph.consumers[value].append(number)
    graph.constants = list(_constants(graph))
    ranges = read_ranges(module)
    graph.states = [_state(graph, pair, held_bytes(pair, ranges)) for pair in pairs]
    for pair in pairs:
        # What a state holds is there when a run begins: nothing brings it.
        graph.consumers[pair.argument] = []
    return graph


def outer_uses(op: Operation) -> Iterator[SSAValue]:
    """The operands of an op, and those that its regions take from outside."""
    yield from op.operands
    for region in op.regions:
        for nested in region.walk():
            for value in nested.operands:
                if not op.is_ancestor(value.owner):
                    yield value


def _can_move(type_: Attribute) -> bool:
    """Whether a value can cross between segments: a tensor."""
    return element_of(type_) is not None


def op_key(op: Operation) -> str:
    """The name that an op goes by in placements and refusals: its ONNX node's, else that of its first value."""
    return node_name(op) or (value_name(op.results[0]) if op.results else op.name)


def _unique(name: str, taken: dict[str, int]) -> str:
    count = taken[name] = taken.get(name, 0) + 1
    return name if count == 1 else _unique(f"{name}#{count}", taken)


def _sizes(module: ModuleOp, sizes: Mapping[str, int]) -> tuple[dict[str, int], tuple[str, ...]]:
    symbols = {
        symbol
        for op in module.walk()
        for value in (*op.results, *(arg for region in op.regions for block in region.blocks for arg in block.args))
        for dim in dims_of(value) or ()
        for symbol in dim.symbols
    }
    unknown = tuple(sorted(symbols - sizes.keys()))
    return {**sizes, **dict.fromkeys(unknown, ASSUMED_SIZE)}, unknown


def _units(count: int, edges: Sequence[tuple[int, int]], tied: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Groups of op indices: those that `tied` joins, with all that lies between, in a topological order of groups."""
    owner = list(range(count))

    def find(node: int) -> int:
        while owner[node] != node:
            owner[node] = owner[owner[node]]
            node = owner[node]
        return node

    for left, right in tied:
        owner[find(right)] = find(left)
    while True:
        following: dict[int, set[int]] = {find(node): set() for node in range(count)}
        for left, right in edges:
            if find(left) != find(right):
                following[find(left)].add(find(right))
        components = list(_components(following))
        if all(len(component) == 1 for component in components):
            break
        for component in components:
            for node in component[1:]:
                owner[find(node)] = find(component[0])
    order = [component[0] for component in reversed(components)]
    members: dict[int, list[int]] = {group: [] for group in order}
    for node in range(count):
        members[find(node)].append(node)
    return _in_order(members, following)


def _in_order(members: dict[int, list[int]], following: Mapping[int, set[int]]) -> list[list[int]]:
    """Groups in a topological order, and in the order of the IR as far as that allows."""
    waiting = dict.fromkeys(members, 0)
    for sources in following.values():
        for group in sources:
            waiting[group] += 1
    ordered: list[list[int]] = []
    pending = sorted(members, key=lambda group: members[group][0], reverse=True)
    ready = [group for group in pending if not waiting[group]]
    while ready:
        ready.sort(key=lambda group: -members[group][0])
        group = ready.pop()
        ordered.append(members[group])
        for after in following[group]:
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)
    return ordered


def _components(following: Mapping[int, set[int]]) -> Iterator[list[int]]:
    """Strongly connected components (Tarjan), those that nothing follows first."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in following:
        if root in number:
            continue
        work = [(root, iter(sorted(following[root])))]
        while work:
            node, rest = work[-1]
            if node not in number:
                number[node] = low[node] = len(number)
                stack.append(node)
                on_stack.add(node)
            after = next(rest, None)
            if after is not None:
                if after not in number:
                    work.append((after, iter(sorted(following[after]))))
                elif after in on_stack:
                    low[node] = min(low[node], number[after])
                continue
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[node])
            if low[node] == number[node]:
                component: list[int] = []
                while not component or component[-1] != node:
                    component.append(stack.pop())
                    on_stack.discard(component[-1])
                yield component


def _constants(graph: ModuleGraph) -> Iterator[Constant]:
    """Constants by key with their users. One that several initializers name is one."""
    sizes: dict[str, int] = {}
    users: dict[str, set[int]] = {}
    keys: dict[SSAValue, str] = {}
    for number, unit in enumerate(graph.units):
        for op in unit.ops:
            for value in outer_uses(op):
                if not isinstance(value, OpResult) or not is_constant(value.op):
                    continue
                key = keys.get(value)
                if key is None:
                    own = value.op.key if isinstance(value.op, InitializerOp) else None
                    key = keys[value] = own or f"constant {len(keys)}"
                sizes[key] = graph.size_bytes(value)
                users.setdefault(key, set()).add(number)
    for key, nodes in users.items():
        yield Constant(key, sizes[key], frozenset(nodes))


def _state(graph: ModuleGraph, pair: StatePair, size_bytes: int) -> StateUse:
    maker = graph.producer.get(pair.result)
    units = {*graph.consumers[pair.argument], *(() if maker is None else (maker,))}
    copied = "" if update_of(pair) is not None else why_copied(pair) or ""
    return StateUse(pair.name, tuple(sorted(units)), size_bytes, update_of(pair), copied)


def is_input(value: SSAValue) -> bool:
    """Whether the value is an argument of the entry function."""
    return isinstance(value, BlockArgument)
