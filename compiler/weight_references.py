"""Where the weights of some IR are, in a file beside it: what a reproducer, or a later phase, needs besides its text.

    {"schema": 1,
     "weights": {"conv1": {"dtype": "float32", "shape": [64, 3, 7, 7], "file": "/models/m.onnx", "offset": 4096}}}

A weight of a file stays there. Others are copied into a file of their own, up to a number of bytes; of the rest, and
of those without values, only type and shape are known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp
from xdsl.ir import Attribute

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp
from gimlet.dialects.onnx.attributes import WeightAttr
from gimlet.dialects.onnx.weights import WeightStore
from gimlet.runtime.errors import InputError, UsageError
from gimlet.runtime.tensors import numpy_type, type_name

_SCHEMA = 1


def references_of(ir_file: Path) -> Path:
    """The file that `gimlet-compile --to PHASE -o FILE.mlir` writes beside the IR, and reads with it."""
    return ir_file.with_suffix(".weights.json")


def write_references(module: ModuleOp, store: WeightStore, path: Path, most_bytes: float = math.inf) -> bool:
    """Writes where the weights are that `module` uses. False, and nothing written, where it uses none of the store.

    Copies go to the file of the same name that ends in `.bin`.
    """
    keys = [key for key in dict.fromkeys(_keys(module)) if key in store]
    if not keys:
        return False
    # Here, as gimlet-opt would start a third slower: onnx_ir loads sympy.
    import onnx_ir as ir

    copies = path.with_suffix(".bin")
    entries: dict[str, dict[str, Any]] = {}
    left = most_bytes
    with copies.open("wb") as file:
        for key in keys:
            weight = store[key]
            entries[key] = {"dtype": type_name(weight.dtype), "shape": list(weight.shape)}
            kind = weight.identity[0] if isinstance(weight.identity, tuple) and weight.identity else None
            if kind == "file" and isinstance(weight.identity, tuple):
                entries[key] |= {"file": weight.identity[1], "offset": weight.identity[2]}
            elif weight.has_data and weight.nbytes <= left:
                left -= weight.nbytes
                entries[key] |= {"file": str(copies), "offset": file.tell()}
                file.write(ir.Tensor(weight.array()).tobytes())
    if not copies.stat().st_size:
        copies.unlink()
    path.write_text(json.dumps({"schema": _SCHEMA, "weights": entries}, indent=1) + "\n")
    return True


def _keys(module: ModuleOp) -> Iterator[str]:
    for op in module.walk():
        if isinstance(op, InitializerOp) and op.key is not None:
            yield op.key
        for attribute in (*op.properties.values(), *op.attributes.values()):
            yield from _keys_in(attribute)


def _keys_in(attribute: Attribute) -> Iterator[str]:
    if isinstance(attribute, WeightAttr):
        yield attribute.key.data
    elif isinstance(attribute, ArrayAttr | DictionaryAttr):
        items = attribute.data.values() if isinstance(attribute, DictionaryAttr) else attribute.data
        for item in items:
            yield from _keys_in(item)


def add_references(path: Path, ctx: GimletContext) -> None:
    """Adds the weights that a file of references names. InputError where it is malformed or a weight is not there."""
    try:
        data = json.loads(path.read_text())
        if data["schema"] != _SCHEMA:
            raise InputError(f"the references have schema {data['schema']}, not {_SCHEMA}", where=str(path))
        for key, entry in data["weights"].items():
            dtype, shape = numpy_type(entry["dtype"]), [int(size) for size in entry["shape"]]
            if "file" in entry:
                _require(key, ctx.weights.add_file(key, entry["file"], int(entry["offset"]), dtype, shape))
            else:
                _require(key, ctx.weights.add_meta(key, dtype, shape))
    except OSError as error:
        raise UsageError(f"the file cannot be read: {error.strerror or error}", where=str(path)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"it holds no references to weights: {error}", where=str(path)) from error


def _require(key: str, found: str) -> None:
    if key != found:
        raise InputError(f"the weight {key!r} is in the store already", hint="name each file of references once")
