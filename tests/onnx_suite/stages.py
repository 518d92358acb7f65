"""What a case goes through, each stage from the model again, and what is wrong where it does not come out the same.

| stage | what it does |
|---|---|
| onnxruntime | ONNX Runtime on the model as it is |
| text | import → verify → print → parse → verify, in custom and in generic form: the same text again |
| structure | what was exported after that is the same model again (`compare.py`). All cases |
| export | ONNX Runtime on what was exported after that |
| normalized | the passes of the phase `normalize`, export, ONNX Runtime |
| compiled | `gimlet.compile` for this machine, `gimlet.load`, run |
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from tests.onnx_suite.cases import Case, difference
from tests.onnx_suite.compare import differences
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser
from xdsl.printer import Printer

import gimlet
from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.compiler.sources import load_dialects
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx.exporter import export_module
from gimlet.dialects.onnx.proto import to_proto

# What ONNX Runtime's Python interface cannot hand over is a constant on the way in, and cast on the way out.
_CAST_FOR_PYTHON = {
    **dict.fromkeys((TensorProto.INT2, TensorProto.INT4), TensorProto.INT8),
    **dict.fromkeys((TensorProto.UINT2, TensorProto.UINT4), TensorProto.UINT8),
    **dict.fromkeys(
        (
            TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2,
            TensorProto.FLOAT8E5M2FNUZ, TensorProto.FLOAT8E8M0, TensorProto.FLOAT4E2M1,
        ),
        TensorProto.FLOAT,
    ),
}  # fmt: skip


@dataclass
class Outcome:
    """How a case fared: what is wrong in each stage that was run, "" where nothing is."""

    name: str
    suite: str
    operators: tuple[str, ...]
    problems: dict[str, str] = field(default_factory=dict[str, str])


def run_case(case: Case, stages: Sequence[str]) -> Outcome:
    """Runs the stages of a case. Numerics are compared only where ONNX Runtime itself passes the case."""
    outcome = Outcome(case.name, case.suite, tuple(sorted(case.operators)))
    for stage in ("onnxruntime", *stages):
        if stage in ("text", "structure") or not outcome.problems.get("onnxruntime"):
            outcome.problems[stage] = _problem(STAGES[stage], case)
    return outcome


def _problem(stage: Callable[[Case], str], case: Case) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return stage(case)
        except Exception as error:  # what breaks is what the suite is there to find
            return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def onnxruntime(case: Case) -> str:
    return outputs_differ(case, case.model)


def text(case: Case) -> str:
    module, ctx = imported(case.model)
    printed = text_of(module)
    again = parse(printed, ctx)
    if text_of(again) != printed:
        return "the text is another one after parsing it"
    generic = parse(text_of(module, print_generic_format=True, print_debuginfo=True), ctx)
    return "" if text_of(generic) == printed else "the generic form reads as something else"


def structure(case: Case) -> str:
    module, ctx = imported(case.model)
    return "; ".join(differences(case.model, exported(parse(text_of(module), ctx), ctx)))


def export(case: Case) -> str:
    module, ctx = imported(case.model)
    return outputs_differ(case, exported(parse(text_of(module), ctx), ctx))


def normalized(case: Case) -> str:
    module, ctx = imported(case.model)
    run_passes(module, ctx, NORMALIZE)
    return outputs_differ(case, exported(module, ctx))


def compiled(case: Case) -> str:
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "case.gimlet"
        gimlet.compile(case.model, output=bundle, bind=_sizes(case), cache=folder)
        with gimlet.load(bundle) as program:
            for feeds, expected in case.data:
                given = {spec.name: feeds[spec.name] for spec in program.inputs if spec.name in feeds}
                if problem := _first_difference(case, program(**given), expected):
                    return problem
    return ""


STAGES: dict[str, Callable[[Case], str]] = {
    stage.__name__: stage for stage in (onnxruntime, text, structure, export, normalized, compiled)
}


def imported(model: onnx.ModelProto) -> tuple[ModuleOp, GimletContext]:
    ctx = GimletContext()
    load_dialects(ctx)
    return load(model, ctx=ctx), ctx


def exported(module: ModuleOp, ctx: GimletContext) -> onnx.ModelProto:
    return to_proto(export_module(module, ctx))


def parse(source: str, ctx: GimletContext) -> ModuleOp:
    module = Parser(ctx, source).parse_module()
    module.verify()
    return module


def text_of(module: ModuleOp, **options: Any) -> str:
    stream = io.StringIO()
    Printer(stream, **options).print_op(module)
    return stream.getvalue()


def outputs_differ(case: Case, model: onnx.ModelProto) -> str:
    """What is wrong with the outputs of a model on the case's inputs, "" if they are the expected ones."""
    for feeds, expected in case.data:
        if problem := _first_difference(case, run_onnxruntime(model, feeds), expected):
            return problem
    return ""


def _first_difference(case: Case, found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    for name, value in expected.items():
        if name not in found:
            return f"output {name!r} is missing"
        wanted = _as_python_sees(value, found[name])
        if problem := difference(found[name], wanted, case.rtol, case.atol):
            return f"output {name!r}: {problem}"
    return ""


def _as_python_sees(value: Any, found: Any) -> Any:
    """Small floats and integers in the type that ONNX Runtime gave them in (`_CAST_FOR_PYTHON`)."""
    if isinstance(value, np.ndarray) and _is_exotic(value.dtype) and isinstance(found, np.ndarray):
        return value.astype(found.dtype)
    return value


def _is_exotic(dtype: np.dtype[Any]) -> bool:
    return dtype.kind != "O" and helper.np_dtype_to_tensor_dtype(dtype) in _CAST_FOR_PYTHON


def run_onnxruntime(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a model by name, as ONNX Runtime's CPU provider computes them."""
    model, names = _for_python(model, feeds)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    results = session.run(None, {name: value for name, value in feeds.items() if name in wanted})
    return dict(zip(names, results, strict=True))


def _for_python(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> tuple[onnx.ModelProto, list[str]]:
    """The model with the inputs and outputs that Python can hand over, and the names of its outputs."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    for name, value in feeds.items():
        if isinstance(value, np.ndarray) and _is_exotic(value.dtype) and any(i.name == name for i in graph.input):
            graph.initializer.append(numpy_helper.from_array(value, name))
            graph.input.remove(next(i for i in graph.input if i.name == name))
    names = [output.name for output in graph.output]
    for output in graph.output:
        element = output.type.tensor_type.elem_type
        if element in _CAST_FOR_PYTHON:
            to = _CAST_FOR_PYTHON[element]
            graph.node.append(helper.make_node("Cast", [output.name], [f"{output.name}.cast"], to=to))
            output.name, output.type.tensor_type.elem_type = f"{output.name}.cast", to
    return changed, names


def _sizes(case: Case) -> dict[str, int | str]:
    """The sizes of the model's symbolic dimensions, over all of the case's inputs."""
    sizes: dict[str, set[int]] = {}
    for value in case.model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                seen = {feeds[value.name].shape[axis] for feeds, _ in case.data if value.name in feeds}
                sizes.setdefault(f"{value.name}[{axis}]", set()).update(seen)
    return {name: f"{min(seen)}:{max(seen)}:{max(seen)}" for name, seen in sizes.items() if seen}
