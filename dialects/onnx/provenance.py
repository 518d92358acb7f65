"""Where a node comes from: what exporters write into a node's metadata, as a location.

PyTorch's exporter leaves a stack trace with absolute paths, and the names of the modules around, on every node. The
location keeps the innermost of each, with the path made relative: `loc("node_conv2d"("features.0"("model.py":12:0)))`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePath

import onnx_ir as ir
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, NameLoc, NoneAttr, StringAttr, UnknownLoc
from xdsl.ir import Operation

from gimlet.dialects.onnx.names import named_location

METADATA = "onnx.metadata"
SCOPE_KEY = "namespace"
_STACK_KEY = "pkg.torch.onnx.stack_trace"
_SCOPES_KEY = "pkg.torch.onnx.name_scopes"
_FRAME = re.compile(r'File "([^"]+)", line (\d+)|^(\S+\.py)\((\d+)\)', re.MULTILINE)
_PACKAGES = ("site-packages", "dist-packages")


def user_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata without what exporters keep there for their own debugging."""
    return {key: text for key, text in metadata.items() if not key.startswith("pkg.") and key != SCOPE_KEY}


def node_location(node: ir.Node) -> NameLoc | UnknownLoc:
    """The location of the operation that stands for a node."""
    metadata = node.metadata_props if node.metadata_props else {}
    source = _source(metadata.get(_STACK_KEY) or node.doc_string or "")
    scope = _scope(metadata)
    inner = NameLoc(StringAttr(scope), source or NoneAttr()) if scope else source
    return named_location(node.name or "", inner)


def scope_of(op: Operation) -> str:
    """The name of the module of the model that an operation was traced in, or ""."""
    location = op.location.location if isinstance(op.location, NameLoc) else None
    return location.desc.data if isinstance(location, NameLoc) else ""


def _scope(metadata: Mapping[str, str]) -> str:
    scopes = _name_scopes(metadata.get(_SCOPES_KEY, ""))
    return scopes or metadata.get(SCOPE_KEY, "")


@lru_cache(maxsize=4096)
def _name_scopes(text: str) -> str:
    """The innermost module of a list such as "['', 'features', 'features.0', 'conv2d']": its last name is the op's."""
    try:
        names = ast.literal_eval(text) if text else []
    except (SyntaxError, ValueError):
        return ""
    return str(names[-2]) if isinstance(names, list) and len(names) > 1 else ""


@lru_cache(maxsize=4096)
def _source(trace: str) -> FileLineColLoc | None:
    frames = _FRAME.findall(trace) if trace else []
    if not frames:
        return None
    path, line, short_path, short_line = frames[-1]
    return FileLineColLoc(StringAttr(_relative(path or short_path)), IntAttr(int(line or short_line)), IntAttr(0))


def _relative(path: str) -> str:
    """A path relative to the working directory or to the packages' folder, else the file's name alone."""
    pure = PurePath(path)
    for packages in _PACKAGES:
        if packages in pure.parts:
            return str(PurePath(*pure.parts[pure.parts.index(packages) + 1 :]))
    if not pure.is_absolute():
        return path
    return str(pure.relative_to(Path.cwd())) if pure.is_relative_to(Path.cwd()) else pure.name
