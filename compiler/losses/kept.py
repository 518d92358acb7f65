"""Measured losses on disk, so that a second compile of the same model measures nothing.

A file holds the losses of one *content*: the ops with their wiring, types and sizes, the values of all weights, the
inputs that were measured on, and the version of the library that ran them. Within it, a loss is kept by the roundings
that it is of, so that other devices and formats add to the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from gimlet.compiler.costs.shape_class import digest, shape_class
from gimlet.compiler.hardware.host import processor
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx.values import constant_value
from gimlet.passes.entry import entry_function, is_constant, return_of
from gimlet.targets.answers import keep_text
from gimlet.targets.api import Rounding

_SCHEMA: Final = 1

Measured = tuple[float, ...]


@dataclass
class KeptLosses:
    """The losses of one content by their roundings. Without a `file` nothing outlives this object."""

    file: Path | None
    known: dict[str, Measured] = field(default_factory=dict[str, Measured])
    changed: bool = False

    def get(self, key: str, measure: Callable[[], Measured]) -> Measured:
        """What is kept under `key`, else what `measure` finds."""
        if key not in self.known:
            self.known[key] = measure()
            self.changed = True
        return self.known[key]

    def write(self) -> None:
        """Keeps what is new."""
        if self.file is None or not self.changed:
            return
        keep_text(self.file, json.dumps({"schema": _SCHEMA, "losses": self.known}))
        self.changed = False


def kept_losses(folder: Path | None, content: Callable[[], str]) -> KeptLosses:
    """The losses that are kept of a content; none where there is no folder, or nothing that can be read in it."""
    if folder is None:
        return KeptLosses(None)
    file = folder / "losses" / f"{content()}.json"
    try:
        data = json.loads(file.read_text())
        found = data["losses"] if data["schema"] == _SCHEMA else {}
        return KeptLosses(file, {key: tuple(map(float, losses)) for key, losses in found.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return KeptLosses(file)


def content_of(
    module: ModuleOp,
    ctx: GimletContext,
    sizes: Mapping[str, int],
    inputs: Mapping[str, NDArray[Any]] | None,
    seed: int,
) -> str:
    """What losses hang on besides roundings, as a hash: see the module."""
    block = entry_function(module).body.block
    last = return_of(block)
    ops = [op for op in block.ops if op is not last and not is_constant(op)]
    values = hashlib.sha256()
    for op in module.walk():
        for result in op.results if is_constant(op) else ():
            array = constant_value(result, ctx)
            values.update(b"none" if array is None else _bytes(array))
    for name, array in sorted((inputs or {}).items()):
        values.update(name.encode() + _bytes(array))
    measured_on = "given" if inputs is not None else str(seed)
    return digest(
        shape_class(ops, list(last.operands), sizes), values.hexdigest(), measured_on, ort.__version__, processor()
    )


def _bytes(array: NDArray[Any]) -> bytes:
    text = f"{array.dtype} {array.shape}".encode()
    return text + (str(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).tobytes())


def roundings_key(groups: Iterable[Mapping[Operation, Rounding]], number: Mapping[Operation, int]) -> str:
    """A key for roundings in groups of ops, by the ops' numbers in the module."""
    parts = [sorted((number[op], repr(rounding)) for op, rounding in group.items()) for group in groups]
    return digest(repr(parts))
