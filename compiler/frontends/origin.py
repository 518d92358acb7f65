"""Where in the PyTorch source a traced operation comes from."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from torch.export import ExportedProgram

from gimlet.compiler.frontends.quiet import quiet_torch
from gimlet.dialects.onnx.provenance import relative_path

# What runs while a branch or a loop is traced has no file.
_FRAME: Final = re.compile(r'File "([^"<]+)", line (\d+)')
_TORCH: Final = str(Path(torch.__file__).parent) + "/"
_NODE: Final = re.compile(r"translating node %(\w+).*?target=torch\.ops\.([\w.]+)", re.DOTALL)


def place_of(node: torch.fx.Node) -> str:
    """The innermost line of source that is not PyTorch's, and the module of the model: "model.py:12, in layers.0.mlp".

    Where all of them are PyTorch's, as in a Sequential, it is the innermost.
    """
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    frames = [frame for frame in frames if not frame[0].startswith(_TORCH)] or frames
    line = f"{relative_path(frames[-1][0])}:{frames[-1][1]}" if frames else f"operation {node.name!r}"
    scopes = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path]
    return f"{line}, in {scopes[-1]}" if scopes else line


def failed_line(error: BaseException) -> str | None:
    """The innermost line that is not PyTorch's or ours of what a trace ran when it failed: "model.py:12"."""
    own = (_TORCH, str(Path(__file__).parents[2]))
    for cause in _causes(error):
        said = _FRAME.findall(str(cause))
        ran = [(frame.filename, str(frame.lineno)) for frame in traceback.extract_tb(cause.__traceback__)]
        for frames in (said, ran):
            outside = [frame for frame in frames if not frame[0].startswith(("<", *own))]
            if outside:
                return ":".join((relative_path(outside[-1][0]), outside[-1][1]))
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error after those that caused it."""
    if error is not None:
        yield from _causes(error.__cause__)
        yield error


def failed_node(program: ExportedProgram, error: BaseException | None) -> tuple[str, str] | None:
    """The operator that PyTorch's ONNX exporter failed at, and its place, as far as the error says it."""
    while error is not None:
        if found := _NODE.search(str(error)):
            name, operator = found.groups()
            node = _named(program, name, operator)
            if node is None:
                with quiet_torch():
                    node = _named(program.run_decompositions(), name, operator)
            return operator, place_of(node) if node is not None else f"operation {name!r}"
        error = error.__cause__
    return None


def _named(program: ExportedProgram, name: str, operator: str) -> torch.fx.Node | None:
    """The node of that name, or else the first of that operator, which decomposing may have put in another's place."""
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    named = (node for node in nodes if node.name == name)
    return next(named, None) or next((node for node in nodes if str(node.target) == operator), None)
