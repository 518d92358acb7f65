"""Small models for tests of fusions, written node by node, and what they compute before and after."""

from collections.abc import Mapping, Sequence
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
    """Nodes written one after another; numbers become constants, of `floats` where they are no integers."""

    def __init__(self, floats: type[np.floating[Any]] = np.float32) -> None:
        self.floats = floats
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, op_type: str, *inputs: str | float | Sequence[int], **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        self.nodes.append(helper.make_node(op_type, names, [name], **attributes))
        return name

    def constant(self, value: float | Sequence[int]) -> str:
        array = np.array(value, self.floats if isinstance(value, float) else np.int64)
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def model(self, inputs: dict[str, Sequence[int | str]], output: str, opset: int = OPSET) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.floats))
        given_values = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()]
        result = helper.make_tensor_value_info(output, kind, None)
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


def fused(
    model: onnx.ModelProto,
    shapes: Mapping[str, Sequence[int]],
    passes: Sequence[str] = FUSIONS,
    tolerance: float = 2e-5,
) -> list[str]:
    """What is left after the passes, which must compute what the model does."""
    module, ctx = imported(model)
    run_passes(module, ctx, (*passes, "dce"))
    generator = np.random.default_rng(0)
    kind = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    inputs = {name: generator.standard_normal(shape).astype(kind) for name, shape in shapes.items()}
    after = ir.to_proto(export_module(module, ctx))
    np.testing.assert_allclose(run(after, inputs), run(model, inputs), rtol=tolerance, atol=tolerance)
    return kinds(module)
