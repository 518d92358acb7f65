"""Rewrites a traced program so that each tensor of complex numbers is two of real ones, of its parts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten

from gimlet.compiler.frontends.complex_numbers.pair import REAL_OF, Pair
from gimlet.compiler.frontends.complex_numbers.rules import cast_values, rule_of
from gimlet.compiler.frontends.complex_numbers.short_time import short_time_in_shapes
from gimlet.compiler.frontends.mutation import copied, rebuilt, written
from gimlet.compiler.frontends.origin import place_of
from gimlet.compiler.frontends.quiet import quiet_torch
from gimlet.compiler.frontends.written_out.inline import insert_traced, shapes_alone
from gimlet.runtime.errors import InputError

_HINT: Final = "write it with the real and imaginary parts: torch.view_as_real, z.real and z.imag, torch.complex"
_IGNORED: Final = frozenset({torch.ops.aten._assert_tensor_metadata.default})
_ERRORS: Final = (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError)
_Parts = Any
"""Of a node: a `Pair` of nodes, or a list of pairs and nodes."""


def pairs_for_complex(program: ExportedProgram) -> ExportedProgram:
    """The program without complex numbers. One that has none is returned as it is.

    InputError, with the line of PyTorch source, for an operator that is not known for complex numbers.
    """
    nodes = [node for node in program.graph.nodes if _is_complex(node)]
    if not nodes:
        return program
    if any(_is_complex(value) for node in program.graph.nodes for value in written(node)):
        with quiet_torch(), torch.no_grad(), short_time_in_shapes():
            program = program.run_decompositions({})
    module = copied(program)
    _decompose(module.graph)
    _Rewriter(module.graph).rewrite()
    module.recompile()
    return rebuilt(program, module, state_dict=_in_pairs(program.state_dict), constants=_in_pairs(program.constants))


def complex_type(node: torch.fx.Node | None) -> torch.dtype | None:
    """The type of the complex numbers that a node yields; None where it yields none."""
    value = node.meta.get("val") if node is not None else None
    return value.dtype if isinstance(value, Tensor) and value.dtype in REAL_OF else None


def _is_complex(node: torch.fx.Node) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.dtype in REAL_OF for leaf in tree_leaves(node.meta.get("val")))


def _touches(node: torch.fx.Node) -> bool:
    return node.op == "call_function" and (_is_complex(node) or any(map(_is_complex, node.all_input_nodes)))


def _in_pairs(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _in_pair(each) if isinstance(each, Tensor) else each for name, each in tensors.items()}


def _in_pair(tensor: Tensor) -> Tensor:
    if tensor.dtype not in REAL_OF:
        return tensor
    with torch.no_grad():
        made = torch.view_as_real(tensor.detach().resolve_conj()).contiguous()
    return torch.nn.Parameter(made, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else made


def _decompose(graph: torch.fx.Graph) -> None:
    """Puts what PyTorch decomposes an operator into in the place of each that has no rule."""
    for node in graph.nodes:
        if _touches(node) and any("val" not in each.meta for each in node.all_input_nodes):
            raise _refusal(node, "give its branches and steps torch.view_as_real(z)")
    todo = [node for node in graph.nodes if _touches(node) and not _has_rule(node)]
    while todo:
        node = todo.pop()
        made, result = _traced(graph, node, None, node.target)
        if any(each.target is node.target for each in made):
            raise _refusal(node)
        _take_place(graph, node, result)
        todo += [each for each in made if each.users and _touches(each) and not _has_rule(each)]


def _has_rule(node: torch.fx.Node) -> bool:
    target = node.target
    return target is operator.getitem or target in _IGNORED or rule_of(target) is not None


def _take_place(graph: torch.fx.Graph, node: torch.fx.Node, result: Any) -> None:
    """The program's signature knows a result by its node's name."""
    if isinstance(result, torch.fx.Node):
        result = _own(graph, node, result)
        node.replace_all_uses_with(result)
        graph.erase_node(node)
        result.name = node.name
        return
    for item in list(node.users):
        _take_place(graph, item, result[item.args[1]])
    graph.erase_node(node)


def _own(graph: torch.fx.Graph, node: torch.fx.Node, result: torch.fx.Node) -> torch.fx.Node:
    """The result, or a copy of one that is an argument."""
    if result not in node.all_input_nodes and result.op != "placeholder":
        return result
    with graph.inserting_before(node):
        made = graph.call_function(torch.ops.aten.clone.default, (result,))
    made.meta = dict(node.meta)
    return made


def _traced(
    graph: torch.fx.Graph,
    node: torch.fx.Node,
    parts: Mapping[torch.fx.Node, _Parts] | None,
    function: Callable[..., Any],
) -> tuple[list[torch.fx.Node], Any]:
    """The nodes, put before `node`, that compute `function` of its arguments, and what of them is the result.

    An argument that has `parts` is given as these.
    """
    known = parts or {}
    read = list(dict.fromkeys(leaf for each in node.all_input_nodes for leaf in tree_leaves(known.get(each, each))))
    form: list[TreeSpec] = []

    def computed(*values: Any) -> list[Any]:
        given = dict(zip(read, values, strict=True))

        def argument(each: torch.fx.Node) -> Any:
            return tree_map(given.__getitem__, known.get(each, each))

        result = function(*torch.fx.map_arg(node.args, argument), **torch.fx.map_arg(node.kwargs, argument))
        leaves, spec = tree_flatten(result)
        form[:] = [spec]
        return leaves

    examples = [each.meta["val"] for each in read]
    try:
        with quiet_torch(), torch.no_grad(), shapes_alone(graph, examples):
            made = make_fx(computed, pre_dispatch=parts is not None)(*examples).graph
    except _ERRORS as error:
        raise _refusal(node, str(error)) from error
    nodes = insert_traced(made, graph, node, read)
    leaves = [
        nodes[each] if isinstance(each, torch.fx.Node) else each
        for each in cast(Sequence[Any], made.output_node().args[0])
    ]
    found = [each for each in nodes.values() if each not in read]
    for each in reversed(found):
        if not each.users and each not in leaves:
            graph.erase_node(each)
    return [each for each in found if each.users or each in leaves], tree_unflatten(leaves, form[0])


def _refusal(node: torch.fx.Node, said: str = "") -> InputError:
    because = f": {said.strip().splitlines()[0]}" if said.strip() else ""
    message = f"{node.target} of complex numbers is not supported{because}"
    return InputError(message, where=place_of(node), hint=_HINT)


class _Rewriter:
    """Goes through a graph once, and knows the parts of each node that it has passed."""

    def __init__(self, graph: torch.fx.Graph) -> None:
        self._graph = graph
        self._parts: dict[torch.fx.Node, _Parts] = {}
        self._whole: dict[torch.fx.Node, torch.fx.Node] = {}

    def rewrite(self) -> None:
        nodes = list(self._graph.nodes)
        first = next(node for node in nodes if node.op != "placeholder")
        for node in nodes:
            if node.op == "placeholder" and _is_complex(node):
                self._take_in(node, first)
            elif node.op == "output":
                node.args = torch.fx.map_arg(node.args, self._given_out)
            elif _touches(node) or not self._parts.keys().isdisjoint(node.all_input_nodes):
                self._write(node)
        for node in reversed(nodes):
            if node.op == "call_function" and not node.users and node in self._parts:
                self._graph.erase_node(node)
        for node, whole in self._whole.items():
            if whole is not node:
                whole.name = node.name

    def _take_in(self, node: torch.fx.Node, before: torch.fx.Node) -> None:
        value = node.meta["val"]
        node.meta["val"] = value.new_empty([*value.shape, 2], dtype=REAL_OF[value.dtype])
        node.meta.pop("tensor_meta", None)
        made: list[torch.fx.Node] = []
        for place in (0, 1):
            with self._graph.inserting_before(before):
                part = self._graph.call_function(torch.ops.aten.select.int, (node, -1, place))
            part.meta = {**node.meta, "val": node.meta["val"].select(-1, place)}
            made.append(part)
        self._parts[node], self._whole[node] = Pair(*made), node  # type: ignore[arg-type]

    def _write(self, node: torch.fx.Node) -> None:
        target: Any = node.target
        if target in _IGNORED:
            self._graph.erase_node(node)
            return
        if target is operator.getitem:
            source, index = node.args
            self._parts[node] = self._parts[source][index]  # type: ignore[index]
            return
        rule = rule_of(target)
        if rule is None:
            raise _refusal(node)
        _, result = _traced(self._graph, node, self._parts, _promoted(rule, node.meta["val"]))
        if _is_complex(node):
            self._parts[node] = result
        else:
            _take_place(self._graph, node, result)

    def _given_out(self, node: torch.fx.Node) -> torch.fx.Node:
        if node not in self._parts or node in self._whole:
            return self._whole.get(node, node)
        with self._graph.inserting_before(self._graph.output_node()):
            whole = self._graph.call_function(torch.ops.aten.stack.default, (list(tree_leaves(self._parts[node])), -1))
        value = node.meta["val"]
        whole.meta = {**node.meta, "val": value.new_empty([*value.shape, 2], dtype=REAL_OF[value.dtype])}
        self._whole[node] = whole
        return whole


def _promoted(rule: Callable[..., Any], wanted: Any) -> Callable[..., Any]:
    """The rule, computed in the type of its result."""
    types = {REAL_OF[leaf.dtype] for leaf in tree_leaves(wanted) if isinstance(leaf, Tensor) and leaf.dtype in REAL_OF}
    if len(types) != 1:
        return rule
    (dtype,) = types

    def computed(*args: Any, **kwargs: Any) -> Any:
        return cast_values(rule(*cast_values(args, dtype), **kwargs), dtype)

    return computed
