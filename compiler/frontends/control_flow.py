"""Branches and loops of a traced program, brought into the form that PyTorch's ONNX exporter takes.

`torch.cond`, `while_loop`, `scan` and `map` are nodes with graphs of their own. PyTorch traces them again when it
decomposes a program, and fails at three things that it wrote itself: constants inside of such a graph, what one
changes in place that it was given, and memory that is given or returned twice. The first become operands, the second
results that are copied back, and the third copies.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, cast

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

from gimlet.compiler.frontends.mutation import copied, origin_of, rebuilt, written
from gimlet.compiler.frontends.origin import place_of
from gimlet.runtime.errors import InputError

_COND: Final = torch.ops.higher_order.cond
# Which argument is what a loop carries.
_CARRIED: Final[dict[Any, int]] = {torch.ops.higher_order.while_loop: 2, torch.ops.higher_order.scan: 1}
# Which argument is the tuple of what the graphs are given, behind what the operation itself gives them.
_OPERANDS: Final[dict[Any, int]] = {
    _COND: 3,
    torch.ops.higher_order.while_loop: 3,
    torch.ops.higher_order.scan: 3,
    torch.ops.higher_order.map_impl: 2,
}


def without_hidden_state(program: ExportedProgram) -> ExportedProgram:
    """The program with graphs that hold no constants and change nothing that is not their own.

    InputError, with the line of PyTorch source, where a loop changes in place what it is given.
    """
    if not any(True for _ in _nodes_with_graphs(program.graph_module)):
        return program
    module = copied(program)
    _settle(module)
    lifted: list[InputSpec] = []
    constants = dict(program.constants)
    first = next(iter(module.graph.nodes))
    for node in _constants(module):
        with module.graph.inserting_before(first):
            given = module.graph.placeholder(f"c_{node.name}")
        given.meta = {"val": node.meta["val"]}
        constants[str(node.target)] = getattr(module, str(node.target))
        lifted.append(InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(given.name), str(node.target)))
        node.replace_all_uses_with(given)
        module.graph.erase_node(node)
    _forget(module)
    specs = [*lifted, *program.graph_signature.input_specs]
    return rebuilt(program, module, input_specs=specs, constants=constants)


def _nodes_with_graphs(module: torch.fx.GraphModule) -> Iterator[tuple[torch.fx.Node, list[torch.fx.GraphModule]]]:
    """The branches and loops of a graph, each with its own graphs."""
    for node in list(module.graph.nodes):
        if node.target not in _OPERANDS:
            continue
        targets = [each.target for each in node.args if isinstance(each, torch.fx.Node) and each.op == "get_attr"]
        graphs = [getattr(module, str(target)) for target in targets]
        yield node, [each for each in graphs if isinstance(each, torch.fx.GraphModule)]


def _settle(module: torch.fx.GraphModule) -> None:
    """Takes constants and changes out of all graphs inside of this one, the innermost first."""
    for node, graphs in _nodes_with_graphs(module):
        for graph in graphs:
            _settle(graph)
        _changes_as_results(module, node, graphs)
        _give_once(module, node)
        for graph in graphs:
            _return_own(graph)
        for graph in graphs:
            for constant in _constants(graph):
                _lift(module, node, graphs, graph, constant)
            _forget(graph)
    module.recompile()


def _constants(module: torch.fx.GraphModule) -> list[torch.fx.Node]:
    found = [node for node in module.graph.nodes if node.op == "get_attr"]
    return [node for node in found if isinstance(getattr(module, str(node.target), None), torch.Tensor)]


def _forget(module: torch.fx.GraphModule) -> None:
    """Drops tensors that nothing reads any more: a program is refused that holds others than its signature has."""
    for name, _ in list(module.named_buffers(recurse=False)):
        delattr(module, name)


def _lift(
    module: torch.fx.GraphModule,
    node: torch.fx.Node,
    graphs: list[torch.fx.GraphModule],
    owner: torch.fx.GraphModule,
    constant: torch.fx.Node,
) -> None:
    """Gives a constant of one of the graphs of `node` to all of them, as its last operand."""
    name = f"{node.name}_{constant.name}"
    while hasattr(module, name):
        name += "_"
    module.register_buffer(name, getattr(owner, str(constant.target)), persistent=False)
    with module.graph.inserting_before(node):
        operand = module.graph.get_attr(name)
    operand.meta = {"val": constant.meta["val"]}
    place = _OPERANDS[node.target]
    node.update_arg(place, (*cast("tuple[Any, ...]", node.args[place]), operand))
    for graph in graphs:
        last = [each for each in graph.graph.nodes if each.op == "placeholder"][-1:]
        begin = last[0].next if last else next(iter(graph.graph.nodes))
        with graph.graph.inserting_before(begin):
            given = graph.graph.placeholder(name)
        given.meta = {"val": constant.meta["val"]}
        if graph is owner:
            constant.replace_all_uses_with(given)
            graph.graph.erase_node(constant)


def _changes_as_results(module: torch.fx.GraphModule, node: torch.fx.Node, graphs: list[torch.fx.GraphModule]) -> None:
    """Has a branch work on copies of what it would change, and copies them back behind it."""
    changed: set[int] = set()
    for graph in graphs:
        given = [each for each in graph.graph.nodes if each.op == "placeholder"]
        for each in graph.graph.nodes:
            places = {given.index(origin) for value in written(each) if (origin := origin_of(value)) in given}
            if places and node.target is not _COND:
                raise InputError(
                    f"a loop ({node.target}) changes in place what it is given",
                    where=place_of(node),
                    hint="change a copy (x.clone()), and return it as a value that the loop carries",
                )
            changed |= places
    if not changed:
        return
    operands = cast("tuple[torch.fx.Node, ...]", node.args[_OPERANDS[node.target]])
    results = node.meta["val"]
    for graph in graphs:
        _on_copies(graph, sorted(changed))
    node.meta["val"] = (*results, *(operands[place].meta["val"] for place in sorted(changed)))
    behind = node.next
    for index, place in enumerate(sorted(changed), len(results)):
        with module.graph.inserting_before(behind):
            value = module.graph.call_function(operator.getitem, (node, index))
            value.meta = {**node.meta, "val": operands[place].meta["val"]}
            back = module.graph.call_function(torch.ops.aten.copy_.default, (operands[place], value))
            back.meta = {**node.meta, "val": operands[place].meta["val"]}


def _give_once(module: torch.fx.GraphModule, node: torch.fx.Node) -> None:
    """Gives a copy of each value that the node is given already.

    InputError where a loop carries one twice: PyTorch takes the two for one all through the loop.
    """
    carried = cast("tuple[Any, ...]", node.args[_CARRIED[node.target]]) if node.target in _CARRIED else ()
    if len({id(value) for value in carried}) < len(carried):
        raise InputError(
            f"a loop ({node.target}) begins with one tensor for two of the values that it carries",
            where=place_of(node),
            hint="give it a copy (x.clone()): PyTorch would take the two for one in every step",
        )
    given: set[torch.fx.Node] = set()

    def once(value: torch.fx.Node) -> torch.fx.Node:
        if value.op == "get_attr" or value not in given:
            given.add(value)
            return value
        with module.graph.inserting_before(node):
            return _copy_of(module, value)

    node.args = torch.fx.map_arg(node.args, once)


def _return_own(graph: torch.fx.GraphModule) -> None:
    """Returns a copy of each result that is a view of what the graph is given, or of another result."""
    taken = {each for each in graph.graph.nodes if each.op == "placeholder"}
    output = graph.graph.output_node()

    def own(value: torch.fx.Node) -> torch.fx.Node:
        origin = origin_of(value)
        if origin not in taken:
            taken.add(origin)
            return value
        with graph.graph.inserting_before(output):
            return _copy_of(graph, value)

    output.args = torch.fx.map_arg(output.args, own)


def _copy_of(graph: torch.fx.GraphModule, value: torch.fx.Node) -> torch.fx.Node:
    if not isinstance(value.meta.get("val"), torch.Tensor):
        return value
    made = graph.graph.call_function(torch.ops.aten.clone.default, (value,))
    made.meta = {"val": value.meta["val"]}
    return made


def _on_copies(graph: torch.fx.GraphModule, places: list[int]) -> None:
    given = [each for each in graph.graph.nodes if each.op == "placeholder"]
    copies: list[torch.fx.Node] = []
    for place in places:
        with graph.graph.inserting_before(given[-1].next):
            made = _copy_of(graph, given[place])
        given[place].replace_all_uses_with(made, delete_user_cb=partial(operator.is_not, made))
        copies.append(made)
    output = graph.graph.output_node()
    output.args = ((*cast("tuple[Any, ...]", output.args[0]), *copies),)
