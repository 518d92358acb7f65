"""Small models for tests of fusions, written node by node, and what they compute before and after."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession, SessionOptions
from xdsl.dialects.builtin import ModuleOp

from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.exporter import export_module

FLOAT = TensorProto.FLOAT
FUSIONS = ("fuse-normalization", "fuse-activations", "fuse-rotary", "fuse-attention")
OPSET = 24


class Writer:
    """Nodes written one after another; numbers become constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, op_type: str, *inputs: str | float | Sequence[int], **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        self.nodes.append(helper.make_node(op_type, names, [name], **attributes))
        return name

    def constant(self, value: float | Sequence[int]) -> str:
        array = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def model(self, inputs: dict[str, Sequence[int | str]], output: str, opset: int = OPSET) -> onnx.ModelProto:
        given_values = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()]
        result = helper.make_tensor_value_info(output, FLOAT, None)
        graph = helper.make_graph(self.nodes, "written", given_values, [result], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def imported(model: onnx.ModelProto) -> tuple[ModuleOp, GimletContext]:
    ctx = GimletContext()
    module = load(model, ctx=ctx)
    run_passes(module, ctx, ("infer-shapes", "cse"))
    return module, ctx


def kinds(module: ModuleOp) -> list[str]:
    """The operators that are left, but for what only arranges data."""
    found = [op.op_type for op in module.walk() if isinstance(op, OnnxOp)]
    return [kind for kind in found if kind not in ("initializer", "Constant", "Transpose")]


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    options = SessionOptions()
    options.intra_op_num_threads = 1
    return InferenceSession(model.SerializeToString(), options).run(None, inputs)[0]


def fused(model: onnx.ModelProto, shapes: dict[str, Sequence[int]], passes: Sequence[str] = FUSIONS) -> list[str]:
    """What is left after the passes, which must compute what the model does."""
    module, ctx = imported(model)
    run_passes(module, ctx, (*passes, "dce"))
    generator = np.random.default_rng(0)
    inputs = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    after = ir.to_proto(export_module(module, ctx))
    np.testing.assert_allclose(run(after, inputs), run(model, inputs), rtol=2e-5, atol=2e-5)
    return kinds(module)
