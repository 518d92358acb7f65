"""Freezes the operator schemas of the installed `onnx` and `onnxruntime` into this package, with stubs for checkers.

For the dialect's maintainer, after an upgrade of either library: `python -m gimlet.dialects.onnx.freeze`, then review
the difference. The output depends only on the libraries' versions.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnx.defs
import onnx.numpy_helper

from gimlet.dialects.onnx.schema import DATA_FILE, PARAMETER_OPTIONS, SchemaTable
from gimlet.dialects.onnx.stubs import stub_text

MICROSOFT = "com.microsoft"
STUB_FILE = DATA_FILE.with_name("ops.pyi")


class _TypeTable:
    """Numbers type strings, and sets of them, in the order of first use."""

    def __init__(self) -> None:
        self.strings: dict[str, int] = {}
        self.sets: dict[tuple[int, ...], int] = {}

    def add(self, types: Iterable[str]) -> int:
        members = tuple(self.strings.setdefault(text, len(self.strings)) for text in sorted(types))
        return self.sets.setdefault(members, len(self.sets))


def collect() -> dict[str, Any]:
    """The content of the data file."""
    import onnxruntime.capi.onnxruntime_pybind11_state as onnxruntime_state

    schemas: list[Any] = list(onnx.defs.get_all_schemas_with_history())
    schemas += [s for s in onnxruntime_state.get_all_operator_schema() if s.domain == MICROSOFT]
    schemas.sort(key=lambda schema: (schema.domain, schema.name, schema.since_version))
    types = _TypeTable()
    operators: dict[str, dict[str, list[Any]]] = {}
    for schema in schemas:
        operators.setdefault(schema.domain, {}).setdefault(schema.name, []).append(_schema(schema, types))
    opsets = {domain: last for domain, (_, last) in onnx.defs.C.schema_version_map().items() if domain in operators}
    newest = max(s.since_version for s in schemas if s.domain == MICROSOFT)
    return {
        "sources": {name: version(name) for name in ("onnx", "onnxruntime")},
        "opsets": dict(sorted({**opsets, MICROSOFT: newest}.items())),
        "types": list(types.strings),
        "type_sets": [list(members) for members in types.sets],
        "operators": operators,
    }


def _schema(schema: Any, types: _TypeTable) -> dict[str, Any]:
    variables = {constraint.type_param_str for constraint in schema.type_constraints}
    raw: dict[str, Any] = {
        "since": schema.since_version,
        "inputs": [_parameter(parameter, variables, types) for parameter in schema.inputs],
        "outputs": [_parameter(parameter, variables, types) for parameter in schema.outputs],
    }
    if variables:
        raw["constraints"] = {
            constraint.type_param_str: types.add(constraint.allowed_type_strs)
            for constraint in sorted(schema.type_constraints, key=lambda constraint: constraint.type_param_str)
        }
    if schema.attributes:
        raw["attributes"] = [_attribute(schema.attributes[name]) for name in sorted(schema.attributes)]
    if not _deterministic(schema):
        raw["deterministic"] = False
    if schema.deprecated:
        raw["deprecated"] = True
    return raw


def _parameter(parameter: Any, variables: set[str], types: _TypeTable) -> list[Any]:
    type_name = _either(parameter, "type_str", "typeStr")
    # ONNX Runtime's schemas do not say how many values a variadic parameter needs.
    return [
        parameter.name.removesuffix("..."),
        type_name if type_name in variables else types.add(parameter.types or [type_name]),
        PARAMETER_OPTIONS.index(str(parameter.option).rsplit(".", 1)[-1].lower()),  # pyright: ignore[reportArgumentType]
        int(_either(parameter, "is_homogeneous", "isHomogeneous")),
        getattr(parameter, "min_arity", 0),
    ]


def _either(parameter: Any, onnx_name: str, onnxruntime_name: str) -> Any:
    return getattr(parameter, onnx_name) if hasattr(parameter, onnx_name) else getattr(parameter, onnxruntime_name)


def _attribute(attribute: Any) -> list[Any]:
    kind = str(attribute.type).rsplit(".", 1)[-1].lower()
    return [attribute.name, kind, int(attribute.required), _default(attribute)]


def _default(attribute: Any) -> Any:
    if hasattr(attribute, "default_value"):
        proto = attribute.default_value
    else:
        proto = onnx.AttributeProto.FromString(attribute._default_value)
    if not proto.type:
        return None
    value: Any = onnx.helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        array = onnx.numpy_helper.to_array(value)
        return {"dtype": str(array.dtype), "shape": list(array.shape), "data": array.ravel().tolist()}
    if isinstance(value, float):
        return _shortest_float(value)
    if isinstance(value, int):
        return value
    return [_shortest_float(v) if isinstance(v, float) else v.decode() if isinstance(v, bytes) else v for v in value]


def _shortest_float(value: float) -> float:
    """The shortest decimal that is the same float32, since that is what an attribute holds."""
    return float(str(np.float32(value)))


def _deterministic(schema: Any) -> bool:
    # ONNX marks operators with subgraphs as not deterministic, because their bodies may not be. Theirs decide.
    if any(str(attribute.type).endswith("GRAPH") for attribute in schema.attributes.values()):
        return True
    if str(getattr(schema, "node_determinism", "")).endswith("NonDeterministic"):
        return False
    return "seed" not in schema.attributes and all(parameter.name != "seed" for parameter in schema.inputs)


def freeze(folder: Path) -> None:
    """Writes the data file and the stubs into `folder`."""
    data = collect()
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    (folder / DATA_FILE.name).write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    (folder / STUB_FILE.name).write_text(stub_text(SchemaTable(data)))


@click.command()
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=DATA_FILE.parent, show_default=True)
def main(output: Path) -> None:
    """Freeze the schemas of the installed libraries."""
    freeze(output)
    for name in (DATA_FILE.name, STUB_FILE.name):
        click.echo(f"{output / name}: {(output / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
