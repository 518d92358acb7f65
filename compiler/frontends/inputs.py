"""The tensors that a traced program takes."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram


def input_sizes(program: ExportedProgram) -> list[tuple[torch.SymInt | int, ...]]:
    """The sizes of the program's input tensors, in their order."""
    return [tuple(getattr(node.meta["val"], "shape", ())) for node in _placeholders(program)]


def input_names(program: ExportedProgram) -> list[str]:
    """The names of the program's input tensors, in their order."""
    return [node.name for node in _placeholders(program)]


def _placeholders(program: ExportedProgram) -> list[torch.fx.Node]:
    names = set(program.graph_signature.user_inputs)
    return [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
