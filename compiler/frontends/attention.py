"""Attention as PyTorch's ONNX exporter takes it: of four dimensions, the first of which is the same everywhere.

PyTorch also takes tensors without heads, and broadcasts a single head, or a batch of one, of keys and values. The
exporter takes a single head as a group of heads, and writes a batch of one as an operator that is refused when it runs.
"""

from __future__ import annotations

from typing import Any, Final, cast

import torch
from torch.export import ExportedProgram

from gimlet.compiler.frontends.mutation import copied, rebuilt

_ATTENTION: Final = torch.ops.aten.scaled_dot_product_attention.default
_UNSQUEEZE: Final = torch.ops.aten.unsqueeze.default
_MASK: Final = 3
_RANK: Final = 4


def attention_with_heads(program: ExportedProgram) -> ExportedProgram:
    """The program with every attention of two or three dimensions, or that broadcasts, written so."""
    if not any(_needed(node) for graph in _graphs(program.graph_module) for node in graph.nodes):
        return program
    module = copied(program)
    for graph in _graphs(module):
        for node in list(graph.nodes):
            if _needed(node):
                _write(graph, node)
    for each in module.modules():
        if isinstance(each, torch.fx.GraphModule):
            each.recompile()
    return rebuilt(program, module)


def _graphs(module: torch.fx.GraphModule) -> list[torch.fx.Graph]:
    return [each.graph for each in module.modules() if isinstance(each, torch.fx.GraphModule)]


def _shape(node: Any) -> torch.Size:
    return node.meta["val"].shape


def _needed(node: torch.fx.Node) -> bool:
    if node.target is not _ATTENTION:
        return False
    query, key, value = map(_shape, node.args[:_MASK])
    if len(query) != _RANK:
        return len(query) < _RANK and len(query) == len(key) == len(value)
    if len(key) != _RANK or len(value) != _RANK:
        return False
    one_head = _is_broadcast(query, key, 1) and _is_broadcast(query, value, 1) and not node.kwargs.get("enable_gqa")
    return one_head or _is_broadcast(query, key, 0) or _is_broadcast(query, value, 0)


def _is_broadcast(query: torch.Size, other: torch.Size, axis: int) -> bool:
    sizes: tuple[Any, Any] = query[axis], other[axis]
    return type(sizes[1]) is int and sizes[1] == 1 and (type(sizes[0]) is not int or sizes[0] != 1)


def _write(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    rank = len(_shape(node.args[0]))
    if rank == _RANK:
        _write_broadcasts(graph, node)
        return
    # The dimension of the heads, and that of the batch before it.
    axes = [0] * (_RANK - 1 - rank) + [1]
    given = list(node.args)
    for place, value in enumerate(given):
        mask_without_batch = place == _MASK and isinstance(value, torch.fx.Node) and len(_shape(value)) < rank
        if place <= _MASK and isinstance(value, torch.fx.Node) and not mask_without_batch:
            given[place] = _with_axes(graph, node, value, axes)
    node.args = tuple(given)
    result = node
    before = list(node.users)
    with graph.inserting_before(node.next):
        for axis in reversed(axes):
            result = graph.call_function(torch.ops.aten.squeeze.dim, (result, axis))
            result.meta = dict(node.meta)
    node.replace_all_uses_with(result, delete_user_cb=before.__contains__)
    # The program's signature knows the result by this name.
    node.name, result.name = f"{node.name}_with_heads", node.name


def _write_broadcasts(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    given = cast("list[torch.fx.Node]", list(node.args))
    query, key, value = map(_shape, given[:_MASK])
    if _is_broadcast(query, key, 1) and _is_broadcast(query, value, 1):
        node.kwargs = {**node.kwargs, "enable_gqa": True}
    with graph.inserting_before(node):
        for place in range(1, _MASK):
            if _is_broadcast(query, _shape(given[place]), 0):
                batch = graph.call_function(torch.ops.aten.sym_size.int, (given[0], 0))
                batch.meta = {**node.meta, "val": query[0]}
                made = graph.call_function(torch.ops.aten.expand.default, (given[place], [batch, -1, -1, -1]))
                made.meta = dict(node.meta)
                given[place] = made
    node.args = tuple(given)


def _with_axes(graph: torch.fx.Graph, node: torch.fx.Node, value: torch.fx.Node, axes: list[int]) -> torch.fx.Node:
    with graph.inserting_before(node):
        for axis in axes:
            made = graph.call_function(_UNSQUEEZE, (value, axis))
            made.meta = dict(value.meta)
            value = made
    return value
