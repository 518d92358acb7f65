"""What a traced program changes in place and does not own: its inputs and its buffers."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from gimlet.compiler.frontends.origin import place_of
from gimlet.runtime.errors import InputError

_WHAT = {InputKind.USER_INPUT: "input", InputKind.BUFFER: "buffer", InputKind.PARAMETER: "parameter"}


def refuse_mutation(program: ExportedProgram) -> None:
    """InputError, with the line of PyTorch source, for a program that changes an input or a buffer in place.

    A bundle keeps nothing from one run to the next and writes to no caller's array, so the change would be lost.
    """
    owners = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    for node in program.graph.nodes:
        for changed in written(node):
            spec = owners.get(origin_of(changed).name)
            if spec is None or spec.kind not in _WHAT:
                continue
            what = _WHAT[spec.kind]
            raise InputError(
                f"{what} {spec.target or spec.arg.name!r} is changed in place, and a bundle keeps nothing between runs",
                where=place_of(node),
                hint="give it as an input, return its new value as an output, and change a copy (x = x + 1)",
            )


def written(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The arguments that an operation writes to."""
    return [value for value, info in _aliases(node) if info.is_write]


def _aliases(node: torch.fx.Node) -> list[tuple[torch.fx.Node, Any]]:
    """The arguments that an operation writes to or whose memory its result shares, by its schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return []
    pairs = [
        (node.args[index] if index < len(node.args) else node.kwargs.get(argument.name), argument.alias_info)
        for index, argument in enumerate(schema.arguments)
    ]
    return [(value, info) for value, info in pairs if info is not None and isinstance(value, torch.fx.Node)]


def origin_of(node: torch.fx.Node) -> torch.fx.Node:
    """What a node is a view of."""
    while aliases := _aliases(node):
        node = aliases[0][0]
    return node
