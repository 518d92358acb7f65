"""The cases that the `onnx` package carries: a model, its inputs, and what its outputs must be."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case import node as node_cases
from onnx.backend.test.loader import load_model_tests

FOLDERS = ("simple", "pytorch-operator", "pytorch-converted")
SUITES = ("node", *FOLDERS)


@dataclass(frozen=True)
class Case:
    """One case. `feeds` and `expected` are arrays, lists of arrays (sequences) or None (optionals) by name."""

    name: str
    suite: str
    model: onnx.ModelProto
    data: tuple[tuple[dict[str, Any], dict[str, Any]], ...]
    rtol: float
    atol: float

    @property
    def operators(self) -> set[str]:
        """The operators in the model, in its subgraphs and in its own functions: `Add`, `ai.onnx.ml.Scaler`."""
        nodes = [*self.model.graph.node, *(node for function in self.model.functions for node in function.node)]
        found: set[str] = set()
        while nodes:
            node = nodes.pop()
            found.add(f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type)
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    nodes.extend(graph.node)
        return found


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case, in the order of the suites."""
    return (*_node_cases(), *(case for folder in FOLDERS for case in _folder_cases(folder)))


def _node_cases() -> Iterator[Case]:
    with warnings.catch_warnings():
        # onnx's generators divide by zero and overflow on purpose.
        warnings.simplefilter("ignore")
        found = node_cases.collect_testcases(None)
    for case in found:
        data = tuple(_named(case.model, inputs, outputs) for inputs, outputs in case.data_sets)
        yield Case(case.name, "node", case.model, data, case.rtol, case.atol)


def _folder_cases(folder: str) -> Iterator[Case]:
    for case in load_model_tests(kind=folder):
        root = Path(case.model_dir)
        model = onnx.load(root / "model.onnx")
        data = tuple(
            _named(model, _values(path, "input", model.graph.input), _values(path, "output", model.graph.output))
            for path in sorted(root.glob("test_data_set_*"))
        )
        yield Case(case.name, folder, model, data, case.rtol, case.atol)


def _named(
    model: onnx.ModelProto, inputs: Sequence[Any], outputs: Sequence[Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs that are left out are the last ones, which have initializers."""
    feeds = {value.name: _array(given) for value, given in zip(model.graph.input, inputs, strict=False)}
    return feeds, {value.name: _array(given) for value, given in zip(model.graph.output, outputs, strict=True)}


def _array(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_array(item) for item in value]
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value if value is None else np.asarray(value)


def _values(folder: Path, kind: str, values: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    paths = sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.rpartition("_")[2]))
    return [_value(path.read_bytes(), value.type) for path, value in zip(paths, values, strict=False)]


def _value(data: bytes, type_: onnx.TypeProto) -> Any:
    if type_.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if type_.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def difference(found: Any, expected: Any, rtol: float, atol: float) -> str:
    """How a value differs from the expected one, "" where it does not. Types, shapes and strings must be equal."""
    if expected is None or found is None:
        return "" if found is expected else "one is nothing"
    if isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            return "not a sequence of the same length"
        reasons = (difference(*pair, rtol, atol) for pair in zip(found, expected, strict=True))
        return next(filter(None, reasons), "")
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return f"shape {list(found.shape)}, not {list(expected.shape)}"
    if expected.dtype.kind in "OUS":
        return "" if [*map(str, found.ravel())] == [*map(str, expected.ravel())] else "other strings"
    if found.dtype != expected.dtype:
        return f"type {found.dtype}, not {expected.dtype}"
    if np.array_equal(found, expected):
        return ""
    if expected.dtype.kind in "iub":
        return f"{int(np.sum(found != expected))} of {found.size} elements differ"
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    found, expected = found.astype(wide), expected.astype(wide)
    close = np.isclose(found, expected, rtol=rtol, atol=atol, equal_nan=True)
    return "" if close.all() else f"{int(np.sum(~close))} of {found.size} elements differ"
