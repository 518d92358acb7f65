"""Which module an op of a report is in."""

import pytest
from tests.unit.compiler.report.test_report import result
from xdsl.dialects.builtin import ModuleOp

from gimlet.compiler.report.modules import outline, path_of
from gimlet.tools.testing import parse


@pytest.mark.parametrize(
    ("name", "op_type", "scope", "expected"),
    [
        ("/model/layers.0/attn/MatMul_3", "MatMul", "", ("model", "layers.0", "attn")),
        ("node_linear_3", "Gemm", "model.layers.0.mlp", ("model", "layers", "0", "mlp")),
        ("p2o.Conv.127", "Conv", "", ("p2o",)),
        ("p2o.conv_1.127", "Conv", "", ("p2o",)),
        ("a.b.c", "Relu", "", ("a", "b")),
        ("Relu@0", "Relu", "", ()),
        ("", "Relu", "", ()),
        ("//", "Relu", "", ()),
    ],
)
def test_the_path_of_an_op(name: str, op_type: str, scope: str, expected: tuple[str, ...]):
    assert path_of(name, op_type, scope) == expected


def test_scopes_of_the_module_win_and_what_all_share_is_left_out():
    module = parse(
        """func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
          %a = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("conv1"("net.head"("m.py":1:0)))
          %b = onnx.Relu(%a) : (tensor<4xf32>) -> tensor<4xf32> loc("relu1"("net.tail"("m.py":2:0)))
          %c = onnx.Relu(%b) : (tensor<4xf32>) -> tensor<4xf32> loc("softmax1"("net.tail"("m.py":3:0)))
          func.return %c : tensor<4xf32>
        }"""
    )
    assert outline(result().problem, module) == {
        "paths": [["head"], ["tail"]],
        "at": [0, 1, 1],
        "edges": [0, 1, 0, 2, 1, 2],
    }


def test_without_scopes_all_ops_are_at_the_top():
    assert outline(result().problem, ModuleOp([]))["paths"] == [[]]
