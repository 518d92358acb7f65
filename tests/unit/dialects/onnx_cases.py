"""What the tests of the onnx dialect share: a context, text to IR and back, and models run by onnxruntime."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.dialects.test import Test
from xdsl.parser import Parser
from xdsl.printer import Printer

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import Onnx, OnnxOp
from gimlet.dialects.onnx.exporter import export_module
from gimlet.dialects.onnx.importer import import_model


def context() -> GimletContext:
    ctx = GimletContext()
    for dialect in (Builtin, Func, Test, Onnx):
        ctx.load_dialect(dialect)
    return ctx


def parse(text: str, ctx: GimletContext | None = None) -> ModuleOp:
    return Parser(ctx or context(), text).parse_module()


def function(body: str, arguments: str = "", opset: int = 28) -> ModuleOp:
    """A module with one function of the given body."""
    return parse(
        f'builtin.module attributes {{onnx.opsets = {{"" = {opset} : i64}}}} {{'
        f"func.func @main({arguments}) {{ {body}\n func.return }} }}"
    )


def text_of(module: ModuleOp, **options: Any) -> str:
    stream = io.StringIO()
    Printer(stream, **options).print_op(module)
    return stream.getvalue()


def only(module: ModuleOp, name: str) -> OnnxOp:
    (found,) = [op for op in module.walk() if isinstance(op, OnnxOp) and op.name == name]
    return found


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str | None] | None],
    outputs: Mapping[str, Sequence[int | str | None] | None],
    *,
    weights: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
    dtype: int = TensorProto.FLOAT,
    **options: Any,
) -> onnx.ModelProto:
    """A model of float tensors."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *options.pop("opsets", ())]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **options)


def imported(model: onnx.ModelProto) -> tuple[ModuleOp, GimletContext]:
    ctx = context()
    module = import_model(ir.from_proto(model), ctx)
    module.verify()
    return module, ctx


def exported(module: ModuleOp, ctx: GimletContext) -> onnx.ModelProto:
    return ir.to_proto(export_module(module, ctx))


def run(model: onnx.ModelProto | Path, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a model by name."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feeds)), strict=True))
