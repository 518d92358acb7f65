"""Writes out the layers that were traced as one node each, as copies of the first that is like them.

The nodes of a traced layer lie between its `Enter` and its `Leave`. Those that depend on what the layer is given, on
its parameters or on the model's inputs for this layer are its own, and are copied; what they read beside that is the
same for every layer. The inputs for a layer are those that stand at its place among as many others: `past[3][0]`. What
a layer's own nodes yield to the model's outputs is in the same way at `present[3][0]`.

That it is so, the last layer shows, which was traced too: under the same exchange of names it must be the first, node
for node, and so in its outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir
import torch
from torch.export import ExportedProgram

from gimlet.compiler.frontends.layers.marks import DOMAIN, ENTER, LAYER, LEAVE, NAME, NotRepeatedError, Repeat
from gimlet.compiler.frontends.layers.places import Places
from gimlet.compiler.frontends.layers.tensors import Tensors

_SCOPES: Final = ("pkg.torch.onnx.name_scopes", "namespace")
_GRAPHS: Final = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
Marks = Mapping[tuple[str, str], ir.Node]
Exchange = dict[ir.Value, ir.Value]


@dataclass(frozen=True)
class _Body:
    """A traced layer: its marks, and its own nodes among those between them."""

    enter: ir.Node
    leave: ir.Node
    own: tuple[ir.Node, ...]


def write_layers(model: ir.Model, program: ExportedProgram, source: torch.nn.Module, repeats: Sequence[Repeat]) -> None:
    """Replaces all nodes that `two_of_each` made: the graph is then as if every layer had been traced.

    NotRepeatedError where the last layer of a group is not what the first is; the graph is then spoilt.
    """
    graph = model.graph
    marks = {
        (node.op_type, node.attributes[NAME].as_string()): node
        for node in graph
        if node.domain == DOMAIN and node.op_type in (ENTER, LEAVE, LAYER)
    }
    order = {node: index for index, node in enumerate(graph)}
    tensors, places, names = Tensors(graph, source), Places(graph, program), _Names(graph)
    for repeat in repeats:
        _Writer(graph, order, marks, tensors, places, names, repeat).write()
    for (kind, _), node in marks.items():
        if kind != LAYER:
            node.outputs[0].replace_all_uses_with(_given(node)[0], replace_graph_outputs=True)
            graph.remove(node, safe=True)


class _Names:
    """The names of a graph's nodes and values, to which those of copies are added."""

    def __init__(self, graph: ir.Graph) -> None:
        self.taken = {node.name for node in graph}
        self.taken |= {value.name for node in graph for value in (*node.inputs, *node.outputs) if value is not None}

    def new(self, name: str | None, suffix: str) -> str:
        """The name with the suffix, and underscores where another has that name."""
        made = f"{name}_{suffix}"
        while made in self.taken:
            made += "_"
        self.taken.add(made)
        return made


@dataclass
class _Writer:
    """For the layers of one group."""

    graph: ir.Graph
    order: Mapping[ir.Node, int]
    marks: Marks
    tensors: Tensors
    places: Places
    names: _Names
    repeat: Repeat

    def write(self) -> None:
        first, last = self.body(self.repeat.first), self.body(self.repeat.last)
        outputs = self.outputs_of(first)
        exchange = self.exchange(first, last.enter, self.repeat.last)
        self.check_same(first, last, exchange)
        if {self.moved(index, self.repeat.last): exchange[value] for index, value in outputs.items()} != (
            self.outputs_of(last)
        ):
            raise NotRepeatedError(f"{self.repeat.name(self.repeat.last)}: it yields other outputs than the first")
        for place in self.repeat.others:
            self.write_one(first, place, outputs)

    def body(self, place: int) -> _Body:
        name = self.repeat.name(place)
        enter, leave = self.marks[ENTER, name], self.marks[LEAVE, name]
        layer = self.repeat.layers[place]
        depending = {enter.outputs[0], *_given(enter), *self.inputs(place, place)}
        depending |= {value for value, _ in self.tensors.exchange(layer, layer)}
        own: list[ir.Node] = []
        between = sorted(self.order[mark] for mark in (enter, leave))
        for node, index in self.order.items():
            if not between[0] < index < between[1] or depending.isdisjoint(node.inputs):
                continue
            if any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
                raise NotRepeatedError(f"{name}: it has control flow")
            own.append(node)
            depending.update(node.outputs)
        return _Body(enter, leave, tuple(own))

    def inputs(self, first: int, place: int) -> Exchange:
        return self.places.inputs(first, place, self.repeat.group.places)

    def outputs_of(self, body: _Body) -> dict[int, ir.Value]:
        """Which of the layer's own values the model returns, by the numbers of the outputs. No other may leave it."""
        inside = {*body.own, body.leave}
        made = [value for node in body.own for value in node.outputs]
        if any(use.node not in inside for value in made for use in value.uses()):
            raise NotRepeatedError(f"{body.enter.attributes[NAME].as_string()}: other layers read values of it")
        own = set(made)
        return {index: value for index, value in enumerate(self.graph.outputs) if value in own}

    def moved(self, index: int, place: int) -> int:
        """The number of the output for the layer at `place`, of one for the first."""
        found = self.places.output(index, self.repeat.first, place, self.repeat.group.places)
        if found is None:
            raise NotRepeatedError(f"{self.repeat.name(place)}: there is no output for it")
        return found

    def exchange(self, first: _Body, mark: ir.Node, place: int) -> Exchange:
        """What the layer at `place`, which `mark` stands for or begins, has instead of what the first was given."""
        entered = mark.outputs[0] if mark.op_type == ENTER else _given(mark)[0]
        layers = self.repeat.layers
        pairs = [
            (first.enter.outputs[0], entered),
            *zip(_given(first.enter), _given(mark), strict=True),
            *self.tensors.exchange(layers[self.repeat.first], layers[place]),
            *self.inputs(self.repeat.first, place).items(),
        ]
        found: Exchange = {}
        for old, new in pairs:
            if found.setdefault(old, new) is not new or _form(old) != _form(new):
                raise NotRepeatedError(f"{self.repeat.name(place)}: it shares tensors otherwise than the first")
        return found

    def check_same(self, first: _Body, last: _Body, exchange: Exchange) -> None:
        pairs = list(zip(first.own, last.own, strict=False))
        if len(first.own) != len(last.own) or not all(self.same_node(*pair, exchange) for pair in pairs):
            raise NotRepeatedError(f"{self.repeat.name(self.repeat.last)}: its graph is not that of the first")
        if not self.same_value(_given(first.leave)[0], _given(last.leave)[0], exchange):
            raise NotRepeatedError(f"{self.repeat.name(self.repeat.last)}: its result is not that of the first")

    def same_node(self, one: ir.Node, other: ir.Node, exchange: Exchange) -> bool:
        if not _same_kind(one, other) or len(one.inputs) != len(other.inputs):
            return False
        same = all(self.same_value(*pair, exchange) for pair in zip(one.inputs, other.inputs, strict=True))
        exchange.update(zip(one.outputs, other.outputs, strict=True))
        return same and list(map(_form, one.outputs)) == list(map(_form, other.outputs))

    def same_value(self, one: ir.Value | None, other: ir.Value | None, exchange: Exchange) -> bool:
        """Whether `other` is what `one` is exchanged for, or both are made in the same way of what is not a layer's."""
        if one is None or other is None or one in exchange:
            return (None if one is None else exchange.get(one)) is other
        if one is other:
            return True
        nodes = one.producer(), other.producer()
        if nodes[0] is None or nodes[1] is None:
            return self.tensors.same_constant(one, other)
        return one.index() == other.index() and self.same_node(nodes[0], nodes[1], exchange)

    def write_one(self, first: _Body, place: int, outputs: Mapping[int, ir.Value]) -> None:
        mark = self.marks[LAYER, self.repeat.name(place)]
        exchange = self.exchange(first, mark, place)
        taken = {exchange[value] for value in self.inputs(self.repeat.first, place)}
        scopes = re.compile(re.escape(self.repeat.name(self.repeat.first)) + r"(?!\w)")
        copies: list[ir.Node] = []
        for node in first.own:
            copy = _copy(node, exchange, self.names, str(place))
            for key in _SCOPES:
                if key in copy.metadata_props:
                    copy.metadata_props[key] = scopes.sub(self.repeat.name(place), copy.metadata_props[key])
            copies.append(copy)
        self.graph.insert_before(mark, copies)
        for index, value in outputs.items():
            number = self.moved(index, place)
            if self.graph.outputs[number] not in taken:
                raise NotRepeatedError(f"{self.repeat.name(place)}: its output {number} is of something else")
            self.graph.outputs[number] = exchange[value]
        result = _given(first.leave)[0]
        mark.outputs[0].replace_all_uses_with(exchange.get(result, result), replace_graph_outputs=True)
        self.graph.remove(mark, safe=True)


def _copy(node: ir.Node, exchange: Exchange, names: _Names, suffix: str) -> ir.Node:
    """A copy that reads what values are exchanged for, and whose own results become exchanges."""
    copy = ir.Node(
        node.domain,
        node.op_type,
        [value and exchange.get(value, value) for value in node.inputs],
        node.attributes,
        overload=node.overload,
        num_outputs=len(node.outputs),
        name=names.new(node.name, suffix),
        metadata_props=dict(node.metadata_props),
    )
    for old, new in zip(node.outputs, copy.outputs, strict=True):
        new.name, new.type = names.new(old.name, suffix), old.type
        new.shape = None if old.shape is None else ir.Shape(list(old.shape))
        exchange[old] = new
    return copy


def _given(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None]


def _form(value: ir.Value) -> str:
    return f"{value.dtype}{value.shape}"


def _same_kind(one: ir.Node, other: ir.Node) -> bool:
    return (one.domain, one.op_type, one.overload) == (other.domain, other.op_type, other.overload) and (
        _attributes(one.attributes.values()) == _attributes(other.attributes.values())
    )


def _attributes(attributes: Iterable[ir.Attr]) -> list[tuple[str, object]]:
    return sorted((each.name, _plain(each)) for each in attributes)


def _plain(attribute: ir.Attr) -> object:
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return f"{tensor.dtype}{tensor.shape}{tensor.tobytes().hex()}"
    return repr(attribute.value)
