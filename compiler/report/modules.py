"""The data of a report's outline: which module of the model each op is in, and which ops use what it makes.

A module is a path of names. It comes from the location that PyTorch's exporter left (`layers.3.attn`), else from the
op's own name (`/layers.3/attn/MatMul`); the part that names the op itself, and parts that all ops share, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from xdsl.dialects.builtin import ModuleOp, NameLoc

from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.reading.graph import op_key
from gimlet.dialects.onnx import OnnxOp

Path = tuple[str, ...]


def outline(problem: Problem, module: ModuleOp) -> dict[str, Any]:
    """`paths` of modules, for each op the index of its own in `at`, and `edges` as pairs of ops: maker, user."""
    scopes = _scopes(module)
    found = _without_common([path_of(node.name, node.op_type, scopes.get(node.name, "")) for node in problem.nodes])
    paths = list(dict.fromkeys(found))
    index = {path: number for number, path in enumerate(paths)}
    edges = {
        (value.producer, user) for value in problem.values if value.producer is not None for user in value.consumers
    }
    return {
        "paths": [list(path) for path in paths],
        "at": [index[path] for path in found],
        "edges": [end for edge in sorted(edges) for end in edge],
    }


def path_of(name: str, op_type: str, scope: str = "") -> Path:
    """The modules around an op, outermost first. Empty where neither its scope nor its name tells."""
    if scope:
        return tuple(part for part in scope.split(".") if part)
    separator = "/" if "/" in name else "."
    own = re.compile(rf"{re.escape(op_type)}(_\d+)?", re.IGNORECASE)
    return tuple(part for part in name.split(separator)[:-1] if part and not own.fullmatch(part))


def _scopes(module: ModuleOp) -> Mapping[str, str]:
    """The PyTorch module of each op that has one, by the name that placement knows the op by."""
    found: dict[str, str] = {}
    for op in module.walk():
        inner = op.location.location if isinstance(op, OnnxOp) and isinstance(op.location, NameLoc) else None
        if isinstance(inner, NameLoc):
            found[op_key(op)] = inner.desc.data
    return found


def _without_common(paths: Sequence[Path]) -> list[Path]:
    """The paths without the parts that all of them start with."""
    shared = sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))
    return [path[shared:] for path in paths]
