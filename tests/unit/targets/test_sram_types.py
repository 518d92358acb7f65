"""Element types that the SRAM target refuses where the machine has no function for them."""

import pytest
from onnx import TensorProto, helper

from gimlet.compiler.hardware import load_kind
from gimlet.targets import registry
from gimlet.targets.api import Device


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64])
@pytest.mark.parametrize(
    ("op_type", "inputs"), [("MatMul", "ab"), ("Gemm", "ab"), ("Gemm", "abc"), ("PRelu", "ab"), ("ReduceL2", "a")]
)
def test_integers_where_the_machine_has_floats(import_onnx, op_type, inputs, kind):
    infos = [helper.make_tensor_value_info(name, kind, [4, 4]) for name in inputs]
    outputs = [helper.make_empty_tensor_value_info("y")]
    graph = helper.make_graph([helper.make_node(op_type, list(inputs), ["y"])], "g", infos, outputs)
    module, _ = import_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    op = next(op for op in module.body.block.first_op.body.block.ops if op.name.startswith("onnx."))
    device = Device("sram0", load_kind("d-matrix/corsair"))
    for fmt in registry.load("sram").formats(device):
        assert "is not generated" in str(registry.load("sram").refuses(op, device, fmt))
