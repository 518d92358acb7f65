"""Writes docs/support-matrix.md: what each target runs, operator by operator and type by type.

    python -m gimlet.tools.support_matrix [--check]

Asked are the targets themselves, about the operators of ONNX's own domain as ONNX's node tests use them: each test of a
single node is imported, retyped to every element type that the operator's schema allows, and put to the target. What
is small and not the first input (axes, shapes, scales) is a constant, as it is in models. An operator that can be
written out in others is one that a target takes if it takes those.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from gimlet.compiler.hardware import load_kind
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import CustomOp, OnnxOp
from gimlet.dialects.onnx.importer import import_model
from gimlet.dialects.onnx.schema import OpSchema, schema_table
from gimlet.dialects.onnx.types import element_by_code
from gimlet.passes.entry import entry_function
from gimlet.passes.write_out_operators import WriteOutOperatorsPass
from gimlet.runtime.errors import GimletError
from gimlet.targets import registry
from gimlet.targets.api import Device, Target
from gimlet.targets.forms import refusals

PAGE = Path(__file__).resolve().parents[1] / "docs" / "support-matrix.md"
COLUMNS = (
    ("onnxruntime", "host"),
    ("openvino", "host"),
    ("tensorrt", "nvidia/rtx-pro-6000"),
    ("sram", "d-matrix/corsair"),
)
TYPES = {
    "float": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "double": "f64",
    "int8": "i8",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "bool": "bool",
}
"""The element types that the page speaks about: ONNX's spelling, and the page's."""

_CODES = {
    "float": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "double": TensorProto.DOUBLE,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}
_LARGEST_CONSTANT = 16
_COMPUTED = ".computed"
_OF_SHAPES = frozenset({"ConstantOfShape", "Range"})
_WITH_NUMBERS = frozenset({"CumSum", "OneHot", "Pad"})
"""Operators with a number among their inputs that models have as a constant, and not as a value of any type."""

_HEAD = """# Support matrix

Written by `python -m gimlet.tools.support_matrix`; not to be edited. For each operator of ONNX's own domain at opset
{opset}: the element types (of its first input) that a target takes, as ONNX's {cases} node tests use the operator. In
parentheses are types that it takes in some of the tests only; `–` is none of them. "Takes" means that the target does
not refuse the op, or, where it is [written out](normalize.md) in others, none of those: a build may still fail, and
then goes back to placement.

- **onnxruntime** on `host`: the CPU provider. bf16 is computed in float32, rounded after every op.
- **openvino** on `host`: the CPU plug-in of OpenVINO {openvino}, each op tried on made-up values against ONNX Runtime.
- **tensorrt** on `nvidia/rtx-pro-6000`: TensorRT for RTX {tensorrt}, compute capability 12.0.
- **sram** on `d-matrix/corsair`.

| operator | onnxruntime | openvino | tensorrt | sram |
|---|---|---|---|---|
"""


@dataclass
class Answers:
    """How often a target was asked about an operator and a type, and how often it took the op."""

    asked: Counter[str] = field(default_factory=Counter[str])
    taken: Counter[str] = field(default_factory=Counter[str])

    def cell(self) -> str:
        """The types as the page writes them."""
        found: list[str] = []
        for name, short in TYPES.items():
            if self.taken[name] and self.taken[name] == self.asked[name]:
                found.append(short)
            elif self.taken[name]:
                found.append(f"({short})")
        return " ".join(found) or "–"


def node_tests() -> Iterator[tuple[str, onnx.ModelProto]]:
    """ONNX's node tests of a single node of its own domain, constants inlined: the operator, and the model."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases: list[Any] = collect_testcases(None)
    for case in cases:
        model = case.model
        if model is None or len(model.graph.node) != 1 or model.graph.node[0].domain:
            continue
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        operator = copy.graph.node[0].op_type
        if case.data_sets:
            _inline_constants(copy, case.data_sets[0][0])
        if operator in _OF_SHAPES:
            _compute_inputs(copy)
        yield operator, copy


def _inline_constants(model: onnx.ModelProto, values: list[Any]) -> None:
    inputs = list(model.graph.input)
    kinds = (np.ndarray, np.generic) if model.graph.node[0].op_type in _WITH_NUMBERS else np.ndarray
    for info, value in list(zip(inputs, values, strict=False))[1:]:
        if isinstance(value, kinds) and value.ndim <= 1 and value.size <= _LARGEST_CONSTANT:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), info.name))
            model.graph.input.remove(info)


def _compute_inputs(model: onnx.ModelProto) -> None:
    """Makes the inputs of the node results of other nodes: an input of the model cannot decide a shape everywhere."""
    node = model.graph.node[0]
    for info in model.graph.input:
        inner = model.graph.value_info.add()
        inner.CopyFrom(info)
        inner.name = info.name + _COMPUTED
        node.input[list(node.input).index(info.name)] = inner.name
        model.graph.node.append(helper.make_node("Identity", [info.name], [inner.name]))
    model.graph.node.extend([model.graph.node.pop(0)])


def retyped(model: onnx.ModelProto, schema: OpSchema, name: str) -> onnx.ModelProto | None:
    """The model with another type for its first input and what the schema ties to it; None where that may not be."""
    node = model.graph.node[-1]
    infos = _infos(model)
    if not node.input or node.input[0] not in infos or not schema.inputs:
        return None
    first = schema.inputs[0]
    old = infos[node.input[0]].type.tensor_type.elem_type
    if not old or f"tensor({name})" not in first.types:
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if element_by_code(old).onnx == name:
        return copy
    if first.type_var is None or any(tensor.data_type == old for tensor in copy.graph.initializer):
        return None
    infos = _infos(copy)
    for parameters, names in ((schema.inputs, node.input), (schema.outputs, node.output)):
        for index, value in enumerate(names):
            info = infos.get(value)
            if info is not None and OpSchema.parameter(parameters, index).type_var == first.type_var:
                if info.type.tensor_type.elem_type != old:
                    return None
                for same in (info, infos.get(value.removesuffix(_COMPUTED))):
                    if same is not None:
                        same.type.tensor_type.elem_type = _CODES[name]
    return copy


def _infos(model: onnx.ModelProto) -> dict[str, ValueInfoProto]:
    return {info.name: info for info in (*model.graph.value_info, *model.graph.input, *model.graph.output)}


def ask(target: Target, device: Device, ops: list[OnnxOp]) -> list[bool]:
    """Whether the target takes each op in the device's first format, as it is or in parts."""
    fmt = target.formats(device)[0]
    return [reason is None for reason in refusals(target, ops, device, fmt)]


def matrix() -> tuple[int, dict[str, dict[str, Answers]]]:
    """The number of tests, and for each operator and target what was answered."""
    table, opset = schema_table(), schema_table().opsets[""]
    schemas = {name: table.in_force("", name, opset) for domain, name in table if not domain}
    found = {
        name: {target: Answers() for target, _ in COLUMNS} for name, s in schemas.items() if s and not s.deprecated
    }
    questions: list[tuple[str, str, OnnxOp]] = []
    modules: list[Any] = []
    tests = 0
    for operator, model in node_tests():
        schema = schemas.get(operator)
        if schema is None or operator not in found:
            continue
        tests += 1
        for name in TYPES:
            variant = retyped(model, schema, name)
            if variant is None:
                continue
            ctx = GimletContext()
            try:
                module = import_model(ir.from_proto(variant), ctx)
                WriteOutOperatorsPass(keep_parts=True).apply(ctx, module)
            except (GimletError, ValueError, TypeError):
                continue
            modules.append(module)
            op = next(op for op in entry_function(module).walk() if isinstance(op, OnnxOp) and op.op_type == operator)
            if not isinstance(op, CustomOp):
                questions.append((operator, name, op))
    for target_name, kind in COLUMNS:
        target, device = registry.load(target_name), Device("device", load_kind(kind))
        taken = ask(target, device, [op for _, _, op in questions])
        for (operator, name, _), takes in zip(questions, taken, strict=True):
            answers = found[operator][target_name]
            answers.asked[name] += 1
            answers.taken[name] += takes
    return tests, found


def page(tests: int, found: Mapping[str, Mapping[str, Answers]]) -> str:
    """The text of the page. MissingError where a package is not installed whose answers are on it."""
    from gimlet.targets.openvino.library import require as require_openvino
    from gimlet.targets.tensorrt.builder_rtx import require as require_tensorrt

    head = _HEAD.format(
        opset=schema_table().opsets[""], cases=f"{tests:,}", openvino=require_openvino(), tensorrt=require_tensorrt()
    )
    rows = [
        f"| {name} | " + " | ".join(answers[target].cell() for target, _ in COLUMNS) + " |"
        for name, answers in sorted(found.items())
        if any(answer.asked for answer in answers.values())
    ]
    return head + "\n".join(rows) + "\n"


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Write nothing; exit with 4 where the page is not what it should be.")
def main(check: bool) -> None:
    """Writes or checks the page."""
    text = page(*matrix())
    if not check:
        PAGE.write_text(text)
    elif PAGE.read_text() != text:
        click.echo(f"{PAGE} is out of date: python -m gimlet.tools.support_matrix", err=True)
        sys.exit(4)


if __name__ == "__main__":
    main()
