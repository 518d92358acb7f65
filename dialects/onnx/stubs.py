"""The text of `ops.pyi`: what type checkers know of the classes in `ops`."""

from __future__ import annotations

from collections.abc import Iterator

from gimlet.dialects.onnx.ops import accessors, namespace_name
from gimlet.dialects.onnx.schema import AttributeKind, OpSchema, SchemaTable

_HEAD = '''\
"""Written by `python -m gimlet.dialects.onnx.freeze` from {sources}. Do not edit."""
# ruff: noqa
# fmt: off

from typing import Any

import numpy as np
from xdsl.ir import Attribute, SSAValue

from gimlet.dialects.onnx.op import OnnxOp
from gimlet.dialects.onnx.schema import OpSchema

OPERATORS: dict[tuple[str, str], type[OnnxOp]]

def accessors(schema: OpSchema) -> dict[str, int | str]: ...
def op_name(domain: str, name: str) -> str: ...
def namespace_name(domain: str) -> str: ...
'''
_PYTHON_TYPES: dict[AttributeKind, str] = {
    "int": "int",
    "float": "float",
    "string": "str",
    "ints": "list[int]",
    "floats": "list[float]",
    "strings": "list[str]",
    "tensor": "np.ndarray[Any, Any] | Attribute",
    "tensors": "list[np.ndarray[Any, Any]]",
}


def stub_text(table: SchemaTable) -> str:
    """The stubs for the newest version of every operator."""
    sources = " and ".join(f"{name} {version}" for name, version in table.sources.items())
    return "\n".join([_HEAD.format(sources=sources), *_classes(table)]) + "\n"


def _classes(table: SchemaTable) -> Iterator[str]:
    domain = ""
    for key in sorted(table):
        if key[0] != domain:
            domain = key[0]
            yield f"class {namespace_name(domain)}:"
        yield from ("    " * bool(domain) + line for line in _class(table.newest(*key)))


def _class(schema: OpSchema) -> Iterator[str]:
    members = [
        f"    {name}: {_input_type(schema, what) if isinstance(what, int) else _attribute_type(schema, what)}"
        for name, what in accessors(schema).items()
    ]
    yield f"class {schema.name}(OnnxOp):" + ("" if members else " ...")
    yield from members


def _input_type(schema: OpSchema, index: int) -> str:
    return "SSAValue" if schema.inputs[index].option == "single" else "SSAValue | None"


def _attribute_type(schema: OpSchema, name: str) -> str:
    attribute = schema.attributes[name]
    type_ = _PYTHON_TYPES.get(attribute.kind, "Attribute")
    return type_ if attribute.required or attribute.default is not None else f"{type_} | None"
