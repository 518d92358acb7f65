"""Ops of small networks, and a host, for tests of what the host's kernels cost."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.unit.targets.conftest import main_of

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.importer import import_model
from gimlet.targets.api import Device, HardwareKind, MemoryLevel

KIND = HardwareKind(
    name="host",
    targets=("onnxruntime",),
    peak={"fp32": 2e11, "vector": 4e10},
    memory=(MemoryLevel("cache", 1 << 25, 6e10), MemoryLevel("dram", 1 << 33, 2.5e10)),
    load_w=10.0,
    segment_overhead_s=1e-5,
    kernel_overhead_s=1e-6,
    options={"cores": 2},
)
HOST = Device("cpu", KIND)
Node = tuple[str, Sequence[str], str, dict[str, Any]]


def weight(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def ops_of(
    nodes: Sequence[Node], shape: Sequence[int | str], *weights: TensorProto, dtype: int = TensorProto.FLOAT
) -> dict[str, OnnxOp]:
    """The ops of a network from `x` by the names of their results; everything that nobody reads is an output.

    `x`, weights of floats and outputs are of `dtype`.
    """
    import onnx_ir as ir

    if dtype != TensorProto.FLOAT:
        own = helper.tensor_dtype_to_np_dtype(dtype)
        weights = tuple(numpy_helper.from_array(numpy_helper.to_array(each).astype(own), each.name) for each in weights)

    read = {name for _, names, _, _ in nodes for name in names}
    graph = helper.make_graph(
        [helper.make_node(op, list(names), [result], **attributes) for op, names, result, attributes in nodes],
        "g",
        [helper.make_tensor_value_info("x", dtype, list(shape))],
        [helper.make_tensor_value_info(n[2], dtype, None) for n in nodes if n[2] not in read],
        list(weights),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    module = import_model(ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True)), GimletContext())
    kept.append(module)
    found = [op for op in main_of(module).body.block.ops if isinstance(op, OnnxOp) and op.op_type and op.operands]
    return dict(zip([node[2] for node in nodes], found, strict=True))


kept: list[object] = []
"""Modules whose ops are looked at: an op does not keep its module."""


def one_op(model: onnx.ModelProto) -> OnnxOp:
    """The one op of a model that is a single node."""
    import onnx_ir as ir

    module = import_model(ir.from_proto(model), GimletContext())
    kept.append(module)
    return next(op for op in main_of(module).body.block.ops if isinstance(op, OnnxOp) and op.op_type and op.operands)
