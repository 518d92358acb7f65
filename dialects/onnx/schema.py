"""Operator schemas, read from the frozen data file that `gimlet.dialects.onnx.freeze` writes.

The file holds every version of every operator of ONNX's own domains, and ONNX Runtime's `com.microsoft`, so that an
upgrade of either library cannot change the dialect unseen. It is read once (about 20 ms); an operator's versions are
decoded when they are first asked for.
"""

from __future__ import annotations

import gzip
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

DATA_FILE = Path(__file__).with_name("schemas.json.gz")

ParameterOption = Literal["single", "optional", "variadic"]
AttributeKind = Literal[
    "float", "int", "string", "tensor", "graph", "sparse_tensor", "type_proto",
    "floats", "ints", "strings", "tensors", "graphs", "sparse_tensors", "type_protos",
]  # fmt: skip
PARAMETER_OPTIONS: tuple[ParameterOption, ...] = ("single", "optional", "variadic")


@dataclass(frozen=True, slots=True)
class Parameter:
    """An input or output of an operator.

    `types` are ONNX type strings such as `tensor(float)`. Parameters that share a `type_var` must have one type; it is
    None where the schema names a type itself. A variadic parameter stands for `min_arity` or more values, all of one
    type if `homogeneous`.
    """

    name: str
    option: ParameterOption
    homogeneous: bool
    min_arity: int
    type_var: str | None
    types: frozenset[str]


@dataclass(frozen=True, slots=True)
class AttributeSchema:
    """An attribute of an operator. `default` is a Python value, or None where there is none."""

    name: str
    kind: AttributeKind
    required: bool
    default: Any


@dataclass(frozen=True)
class OpSchema:
    """One version of one operator. `deterministic` is false for operators that draw random numbers."""

    domain: str
    name: str
    since_version: int
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    attributes: dict[str, AttributeSchema]
    deterministic: bool
    deprecated: bool

    @cached_property
    def graph_names(self) -> tuple[str, ...]:
        """The names of attributes that are subgraphs, sorted."""
        return tuple(sorted(name for name, attribute in self.attributes.items() if attribute.kind == "graph"))

    @cached_property
    def input_arity(self) -> tuple[int, int | None]:
        """The least and the greatest number of inputs; None where there is no greatest."""
        return _arity(self.inputs)

    @cached_property
    def output_arity(self) -> tuple[int, int | None]:
        """The least and the greatest number of outputs; None where there is no greatest."""
        return _arity(self.outputs)

    @staticmethod
    def parameter(parameters: tuple[Parameter, ...], index: int) -> Parameter:
        """The parameter that the value at `index` belongs to: the last one takes all that follow it."""
        return parameters[index] if index < len(parameters) else parameters[-1]


def _arity(parameters: tuple[Parameter, ...]) -> tuple[int, int | None]:
    least = 0
    for index, parameter in enumerate(parameters):
        if parameter.option == "single":
            least = index + 1
        elif parameter.option == "variadic" and parameter.min_arity:
            least = index + parameter.min_arity
    variadic = bool(parameters) and parameters[-1].option == "variadic"
    return least, None if variadic else len(parameters)


class SchemaTable:
    """All frozen schemas, by domain and operator. Domains are spelled as ONNX does, the default one as ''."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.sources: dict[str, str] = data["sources"]
        self.opsets: dict[str, int] = data["opsets"]
        self._operators: dict[str, dict[str, list[Any]]] = data["operators"]
        strings: list[str] = data["types"]
        self._type_sets = [frozenset(strings[index] for index in members) for members in data["type_sets"]]
        self._decoded: dict[tuple[str, str], tuple[OpSchema, ...]] = {}

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """The (domain, name) of every operator, sorted."""
        for domain, operators in self._operators.items():
            for name in operators:
                yield domain, name

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key[1] in self._operators.get(key[0], ())

    def versions(self, domain: str, name: str) -> tuple[OpSchema, ...]:
        """Every version of an operator, oldest first; empty if it is unknown."""
        key = (domain, name)
        found = self._decoded.get(key)
        if found is None:
            raw = self._operators.get(domain, {}).get(name, ())
            found = self._decoded[key] = tuple(self._decode(domain, name, version) for version in raw)
        return found

    def newest(self, domain: str, name: str) -> OpSchema:
        """The newest version of an operator. KeyError if it is unknown."""
        versions = self.versions(domain, name)
        if not versions:
            raise KeyError(f"{domain or 'ai.onnx'}.{name}")
        return versions[-1]

    @cache  # noqa: B019  (the one table lives as long as the process)
    def in_force(self, domain: str, name: str, opset: int) -> OpSchema | None:
        """The version of an operator that holds at an opset; None if the operator is unknown or newer."""
        versions = self.versions(domain, name)
        index = bisect_right([version.since_version for version in versions], opset)
        return versions[index - 1] if index else None

    def _decode(self, domain: str, name: str, raw: dict[str, Any]) -> OpSchema:
        constraints: dict[str, int] = raw.get("constraints", {})
        return OpSchema(
            domain=domain,
            name=name,
            since_version=raw["since"],
            inputs=tuple(self._parameter(item, constraints) for item in raw["inputs"]),
            outputs=tuple(self._parameter(item, constraints) for item in raw["outputs"]),
            attributes={
                item[0]: AttributeSchema(item[0], item[1], bool(item[2]), item[3]) for item in raw.get("attributes", ())
            },
            deterministic=raw.get("deterministic", True),
            deprecated=raw.get("deprecated", False),
        )

    def _parameter(self, item: Sequence[Any], constraints: dict[str, int]) -> Parameter:
        name: str = item[0]
        variable: str | None = item[1] if isinstance(item[1], str) else None
        type_set: int = constraints[variable] if variable is not None else int(item[1])
        option, homogeneous, min_arity = PARAMETER_OPTIONS[item[2]], bool(item[3]), item[4]
        return Parameter(name, option, homogeneous, min_arity, variable, self._type_sets[type_set])


@cache
def schema_table() -> SchemaTable:
    """The frozen schemas of this package."""
    return SchemaTable(json.loads(gzip.decompress(DATA_FILE.read_bytes())))
