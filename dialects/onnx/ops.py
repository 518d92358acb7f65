"""One class for each operator of the frozen schemas: `ops.Conv`, `ops.com_microsoft.Gelu`, `ops.ai_onnx_ml.Scaler`.

Type checkers read `ops.pyi`, which `gimlet.dialects.onnx.freeze` writes from the same data. A class has a property for
each attribute of the newest signature (`conv.strides`) and for each input (`conv.X`).
"""

from __future__ import annotations

import keyword
from functools import cache
from types import SimpleNamespace
from typing import Any

from xdsl.ir import OpTraits
from xdsl.traits import Pure, RecursiveMemoryEffect

from gimlet.dialects.onnx.op import DrawsRandomNumbers, OnnxOp
from gimlet.dialects.onnx.schema import OpSchema, schema_table

_PURE = OpTraits(lambda: (Pure(),))
_AS_BODIES = OpTraits(lambda: (RecursiveMemoryEffect(),))
_RANDOM = OpTraits(lambda: (DrawsRandomNumbers(),))


class _InputProperty:
    """Reads the input at a position; None if it is absent."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __get__(self, op: OnnxOp | None, owner: type[OnnxOp]) -> Any:
        return self if op is None else op.input_at(self.index)


class _AttributeProperty:
    """Reads an ONNX attribute with the default of the op's schema; None if it has none."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, op: OnnxOp | None, owner: type[OnnxOp]) -> Any:
        return self if op is None else op.attr(self.name)


@cache
def _input_property(index: int) -> _InputProperty:
    return _InputProperty(index)


@cache
def _attribute_property(name: str) -> _AttributeProperty:
    return _AttributeProperty(name)


def accessors(schema: OpSchema) -> dict[str, int | str]:
    """The properties of an operator's class: an input's position, or an attribute's name. Attributes come first.

    A variadic input has none, nor has a name that Python or the base class takes.
    """
    names: dict[str, int | str] = {name: name for name, a in schema.attributes.items() if a.kind != "graph"}
    for index, parameter in enumerate(schema.inputs):
        if parameter.option != "variadic":
            names.setdefault(parameter.name, index)
    return {
        name: what
        for name, what in names.items()
        if name.isidentifier() and not keyword.iskeyword(name) and not hasattr(OnnxOp, name)
    }


def op_name(domain: str, name: str) -> str:
    """The name of an operator in the IR: `onnx.Conv`, `onnx.com.microsoft.Gelu`."""
    return f"onnx.{domain}.{name}" if domain else f"onnx.{name}"


def namespace_name(domain: str) -> str:
    """The name of the attribute of this module that holds the classes of a domain other than the default one."""
    return domain.replace(".", "_")


def _make_class(domain: str, name: str) -> type[OnnxOp]:
    schema = schema_table().newest(domain, name)
    members: dict[str, Any] = {
        "name": op_name(domain, name),
        "schema_domain": domain,
        "schema_name": name,
        "traits": _AS_BODIES if schema.graph_names else _PURE if schema.deterministic else _RANDOM,
        "__doc__": f"{domain or 'ai.onnx'}.{name}, since version {schema.since_version}.",
        "__module__": __name__,
    }
    for accessor, what in accessors(schema).items():
        members[accessor] = _input_property(what) if isinstance(what, int) else _attribute_property(what)
    return type(name, (OnnxOp,), members)


OPERATORS: dict[tuple[str, str], type[OnnxOp]] = {key: _make_class(*key) for key in schema_table()}

globals().update({name: cls for (domain, name), cls in OPERATORS.items() if not domain})
globals().update(
    {
        namespace_name(namespace): SimpleNamespace(
            **{name: cls for (domain, name), cls in OPERATORS.items() if domain == namespace}
        )
        for namespace, _ in schema_table()
        if namespace
    }
)
