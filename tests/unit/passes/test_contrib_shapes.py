"""infer-shapes on ONNX Runtime's own operators: what it finds is what comes out of them."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from tests.unit.dialects.onnx_cases import imported
from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp, shape_of
from gimlet.dialects.onnx.types import element_of
from gimlet.passes.infer_shapes import InferShapesPass

RANDOM = np.random.default_rng(0)
SCALE, ZERO = np.array(0.1, np.float32), np.array(3, np.uint8)
BYTES = [SCALE, ZERO, SCALE, ZERO]


def f32(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def ui8(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 255, shape).astype(np.uint8)


def i16(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 9, shape).astype(np.int16)


POOL = {"kernel_shape": [3, 2], "strides": [3, 2]}
CASES: list[tuple[str, list[np.ndarray | None], dict[str, Any]]] = [
    ("QLinearAveragePool", [ui8(2, 4, 9, 8), *BYTES], POOL),
    ("QLinearAveragePool", [ui8(2, 4, 9, 8), *BYTES], {**POOL, "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ("QLinearAveragePool", [ui8(2, 9, 8, 4), *BYTES], {**POOL, "channels_last": 1}),
    ("QLinearGlobalAveragePool", [ui8(2, 4, 9, 8), *BYTES], {"channels_last": 0}),
    ("QLinearGlobalAveragePool", [ui8(2, 9, 8, 4), *BYTES], {"channels_last": 1}),
    ("QGemm", [ui8(3, 5), SCALE, ZERO, ui8(5, 7), SCALE, ZERO, None, SCALE, ZERO], {}),
    ("QGemm", [ui8(5, 3), SCALE, ZERO, ui8(7, 5), SCALE, ZERO], {"transA": 1, "transB": 1}),
    ("DynamicQuantizeMatMul", [f32(2, 3, 5), ui8(5, 7), SCALE, ZERO], {}),
    ("MatMulIntegerToFloat", [ui8(2, 3, 5), ui8(5, 7), SCALE, SCALE, ZERO, ZERO], {}),
    ("MatMulInteger16", [i16(3, 5), i16(5, 7)], {}),
    ("QuantizeLinear", [f32(3, 5), SCALE, ZERO], {}),
    ("DequantizeLinear", [ui8(3, 5), SCALE, ZERO], {}),
    ("FusedConv", [f32(1, 3, 8, 8), f32(4, 3, 3, 3)], {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    ("MatMulBnb4", [f32(2, 5, 32), ui8(32 * 6 // 2), f32(6)], {"K": 32, "N": 6, "block_size": 32, "quant_type": 1}),
    ("FusedGemm", [f32(5, 3), f32(5, 7), f32(7)], {"activation": "Relu", "transA": 1}),
    ("NhwcMaxPool", [ui8(1, 9, 8, 3)], POOL),
    ("MaxpoolWithMask", [f32(1, 1, 9, 8), np.ones((1, 1, 9, 8), np.int32)], POOL),
    ("GatherND", [f32(3, 4), np.array([[0], [1]])], {}),
    ("Trilu", [f32(4, 4)], {}),
]


def model_of(
    op_type: str, arrays: list[np.ndarray | None], attributes: dict[str, Any]
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of one operator, and what to feed it."""
    feeds = {f"x{index}": array for index, array in enumerate(arrays) if array is not None}
    names = ["" if array is None else f"x{index}" for index, array in enumerate(arrays)]
    node = helper.make_node(op_type, names, ["y"], domain="com.microsoft", **attributes)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), feeds


def inferred(model: onnx.ModelProto) -> SSAValue:
    module, ctx = imported(model)
    InferShapesPass().apply(ctx, module)
    (result,) = next(op for op in module.walk() if isinstance(op, OnnxOp)).results
    return result


@pytest.mark.parametrize(("op_type", "arrays", "attributes"), CASES, ids=[case[0] for case in CASES])
def test_shapes_are_those_that_come_out(op_type: str, arrays: list[np.ndarray | None], attributes: dict[str, Any]):
    model, feeds = model_of(op_type, arrays, attributes)
    (made,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    result = inferred(model)
    assert [dim and dim.as_int() for dim in shape_of(result) or ()] == list(made.shape)
    element = element_of(result.type)
    assert element is not None
    assert element.dtype == made.dtype


def test_a_quantised_mean_takes_its_axes_from_an_attribute():
    """ONNX Runtime has no kernel for it on a CPU."""
    model, _ = model_of("QLinearReduceMean", [ui8(2, 4, 9, 8), *BYTES], {"axes": [2, 3], "keepdims": 0})
    assert str(inferred(model).type) == "tensor<2x4xui8>"


def test_layer_normalization_before_the_standard_had_it():
    """ONNX Runtime's optimizer writes it into models of opset 14."""
    node = helper.make_node("LayerNormalization", ["x", "w", "b"], ["y"], axis=-1)
    x, w, b = (
        helper.make_tensor_value_info(name, 1, dims) for name, dims in (("x", ["n", 3, 8]), ("w", [8]), ("b", [8]))
    )
    graph = helper.make_graph([node], "g", [x, w, b], [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnxruntime.InferenceSession(model.SerializeToString())
    assert str(inferred(model).type) == 'tensor<?x3x8xf32, #onnx.dims<"n", "", "">>'


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "expected"),
    [
        ("ReorderInput", [["n", 32, "h", 9]], {}, '?x32x?x9xf32, #onnx.dims<"n", "", "h", "">'),
        ("ReorderInput", [["n", "h", 9, 32]], {"channels_last": 1}, '?x32x?x9xf32, #onnx.dims<"n", "", "h", "">'),
        ("ReorderInput", [["n", 20, 9, 9]], {}, '?x?x9x9xf32, #onnx.dims<"n", "?", "", "">'),
        ("ReorderOutput", [["n", 32, "h", 9]], {"channels": 20}, '?x20x?x9xf32, #onnx.dims<"n", "", "h", "">'),
        ("ReorderOutput", [[1, 32, 8, 9]], {"channels": 20, "channels_last": 1}, "1x8x9x20xf32"),
        ("Conv", [["n", 3, 9, 9], [16, 3, 3, 3]], {"strides": [2, 2]}, '?x16x4x4xf32, #onnx.dims<"n", "", "", "">'),
        ("MaxPool", [["n", 16, 8, 8]], {**POOL, "ceil_mode": 1}, '?x16x3x4xf32, #onnx.dims<"n", "", "", "">'),
        ("GlobalAveragePool", [["n", 16, 9, 8]], {}, '?x16x1x1xf32, #onnx.dims<"n", "", "", "">'),
        ("Upsample", [["n", 16, "h", 8]], {"scales": [1, 1, 2, 3]}, '?x16x?x24xf32, #onnx.dims<"n", "", "2*h", "">'),
    ],
)
def test_operators_on_blocks_of_channels(op_type: str, inputs: list[Any], attributes: dict[str, Any], expected: str):
    """No session: which processors have kernels for them differs, and so does the length of a block."""
    names = [f"x{index}" for index in range(len(inputs))]
    node = helper.make_node(op_type, names, ["y"], domain="com.microsoft.nchwc", **attributes)
    infos = [helper.make_tensor_value_info(name, 1, dims) for name, dims in zip(names, inputs, strict=True)]
    graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name="y")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft.nchwc", 1)]
    assert str(inferred(helper.make_model(graph, opset_imports=opsets, ir_version=8)).type) == f"tensor<{expected}>"
