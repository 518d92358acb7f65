"""A traced operator's place taken by what a function of PyTorch computes of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch._guards import detect_fake_mode
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx

from gimlet.compiler.frontends.mutation import copied, rebuilt
from gimlet.compiler.frontends.quiet import quiet_torch


def _always(*_args: Any, **_kwargs: Any) -> bool:
    return True


@dataclass(frozen=True)
class Written:
    """What an operator is written as: `function` of its arguments, where `needed` says so of the same."""

    function: Callable[..., Any]
    needed: Callable[..., bool] = _always


def write_out(program: ExportedProgram, table: Mapping[Any, Written]) -> ExportedProgram:
    """The program with other operators in the place of each that the table has and that needs it.

    What takes its place has the operator's line of source and module, and gives what the program calls its result. A
    program without any is returned as it is.
    """
    if not any(True for _ in _found(program.graph_module, table)):
        return program
    module = copied(program)
    for graph, node in list(_found(module, table)):
        _replace(graph, node, table[node.target].function)
    for each in module.modules():
        if isinstance(each, torch.fx.GraphModule):
            each.recompile()
    return rebuilt(program, module)


def _found(
    module: torch.fx.GraphModule, table: Mapping[Any, Written]
) -> Iterator[tuple[torch.fx.Graph, torch.fx.Node]]:
    """Also in the graphs of branches and loops."""
    for each in module.modules():
        if not isinstance(each, torch.fx.GraphModule):
            continue
        for node in each.graph.nodes:
            written = table.get(node.target) if node.op == "call_function" else None
            if written is not None and written.needed(*_values(node.args), **_values(node.kwargs)):
                yield each.graph, node


def _values(arguments: Any, given: Mapping[torch.fx.Node, Any] | None = None) -> Any:
    """Arguments with the traced tensors and sizes for nodes, or what `given` has for them."""
    return torch.fx.map_arg(arguments, lambda node: node.meta["val"] if given is None else given[node])


def _replace(graph: torch.fx.Graph, node: torch.fx.Node, function: Callable[..., Any]) -> None:
    read = node.all_input_nodes

    def computed(*values: Any) -> Any:
        given = dict(zip(read, values, strict=True))
        return function(*_values(node.args, given), **_values(node.kwargs, given))

    examples = [each.meta["val"] for each in read]
    with quiet_torch(), torch.no_grad(), shapes_alone(graph, examples):
        traced = make_fx(computed, pre_dispatch=True)(*examples).graph
    made = insert_traced(traced, graph, node, read)
    result: Any = torch.fx.map_arg(traced.output_node().args[0], made.__getitem__)
    if isinstance(result, torch.fx.Node):
        _take_place(graph, node, result, read)
    else:
        for item in list(node.users):
            _take_place(graph, item, result[item.args[1]], read)
        graph.erase_node(node)
    for copy in reversed([each for each in made.values() if each not in read]):
        if not copy.users and not copy.is_impure():
            graph.erase_node(copy)


def shapes_alone(graph: torch.fx.Graph, examples: Sequence[Any]) -> AbstractContextManager[Any]:
    """The mode that the examples were traced in, or any tensor of the graph where there are none."""
    known = examples or [each.meta["val"] for each in graph.nodes if isinstance(each.meta.get("val"), torch.Tensor)][:1]
    return detect_fake_mode(known) or nullcontext()


def insert_traced(
    traced: torch.fx.Graph, graph: torch.fx.Graph, node: torch.fx.Node, read: list[torch.fx.Node]
) -> dict[torch.fx.Node, torch.fx.Node]:
    """What was traced, before the node: the new node of each."""
    given = [each for each in traced.nodes if each.op == "placeholder"]
    made = dict(zip(given, read, strict=True))
    with graph.inserting_before(node):
        for each in traced.nodes:
            if each.op != "call_function":
                continue
            made[each] = graph.node_copy(each, made.__getitem__)
            made[each].meta = {**node.meta, "val": each.meta["val"]}
            made[each].meta.pop("tensor_meta", None)
    return made


def _take_place(graph: torch.fx.Graph, node: torch.fx.Node, result: torch.fx.Node, read: list[torch.fx.Node]) -> None:
    """The program's signature knows a result by its node's name, which is why what is given is returned as a copy."""
    if result in read:
        with graph.inserting_before(node):
            result = graph.call_function(torch.ops.aten.clone.default, (result,))
        result.meta = dict(node.meta)
    node.replace_all_uses_with(result)
    graph.erase_node(node)
    result.name = node.name
