"""Shapes of ONNX Runtime's own operators (`com.microsoft`), where `onnx-shape-inference` has no rule or a wrong one.

Most are an operator of the standard on some of their inputs, so that operator's rule is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_shape_inference import ShapeInferenceContext, registry

DOMAIN = "com.microsoft"
# The standard's version whose rules are asked.
_VERSION = 21


@dataclass(frozen=True)
class Twin:
    """An operator of the standard with the same result.

    `inputs` says which of the node's it takes; all in their order, where it is empty. The results' type is that of the
    input `typed_by`, where the node has it, else `dtype`, else the twin's. `channels` is the attribute that says
    whether channels are last, or `last` where they always are.
    """

    op_type: str
    inputs: tuple[int, ...] = ()
    typed_by: int | None = None
    dtype: ir.DataType | None = None
    channels: str | None = None

    def infer(self, ctx: ShapeInferenceContext, node: ir.Node) -> None:
        """Sets what the twin's rule finds, in the node's own order of dimensions and with its own type."""
        given = [_input(node, index) for index in self.inputs] if self.inputs else list(node.inputs)
        copies = [value and _copy(value) for value in given]
        data, rule = copies[0], registry.get("", self.op_type, _VERSION)
        if rule is None or data is None or data.shape is None:
            return
        last = self.channels == "last" or (self.channels is not None and _flag(node, self.channels))
        if last:
            data.shape = ir.Shape([*data.shape[:1], *data.shape[-1:], *data.shape[1:-1]])
        twin = ir.Node("", self.op_type, copies, list(node.attributes.values()), num_outputs=len(node.outputs))
        rule(ctx, twin)
        for output, found in zip(node.outputs, twin.outputs, strict=True):
            typed_by = _input(node, self.typed_by)
            shape = found.shape
            if last and shape is not None:
                shape = ir.Shape([*shape[:1], *shape[2:], shape[1]])
            dtype = typed_by.dtype if typed_by is not None else self.dtype or found.dtype
            ctx.set_shape_and_dtype(output, shape, dtype)


def _input(node: ir.Node, index: int | None) -> ir.Value | None:
    return node.inputs[index] if index is not None and index < len(node.inputs) else None


def _flag(node: ir.Node, name: str) -> bool:
    return name in node.attributes and bool(node.attributes[name].as_int())


def _copy(value: ir.Value) -> ir.Value:
    """A value of the twin's own, for a node becomes a user of what it is given."""
    copied = ir.Value(name=value.name, shape=value.shape, type=value.type)
    copied.const_value = ir.convenience.get_const_tensor(value)
    copied.metadata_props.update(value.metadata_props)
    return copied


_FLOAT, _INT32 = ir.DataType.FLOAT, ir.DataType.INT32
_TWINS = {
    "DequantizeLinear": Twin("DequantizeLinear", typed_by=1),
    "DynamicQuantizeMatMul": Twin("MatMul", (0, 1), dtype=_FLOAT),
    "FusedConv": Twin("Conv", (0, 1)),
    "FusedGemm": Twin("Gemm", (0, 1)),
    "GatherND": Twin("GatherND"),
    "MatMulInteger16": Twin("MatMul", (0, 1), dtype=_INT32),
    "MatMulIntegerToFloat": Twin("MatMul", (0, 1), typed_by=2),
    "MaxpoolWithMask": Twin("MaxPool", (0,)),
    "NhwcMaxPool": Twin("MaxPool", (0,), channels="last"),
    "Pad": Twin("Pad"),
    "QGemm": Twin("Gemm", (0, 3), typed_by=8, dtype=_FLOAT),
    "QLinearAveragePool": Twin("AveragePool", (0,), channels="channels_last"),
    "QLinearGlobalAveragePool": Twin("GlobalAveragePool", (0,), channels="channels_last"),
    "QLinearReduceMean": Twin("ReduceMean", (0,)),
    "QuantizeLinear": Twin("QuantizeLinear", typed_by=2),
    "Range": Twin("Range"),
    "Trilu": Twin("Trilu"),
    "Unique": Twin("Unique"),
}


def extend_with_contrib() -> None:
    """Registers the rules, in place of the library's for the same operators."""
    registry.register(DOMAIN, "DynamicQuantizeLSTM", 1)(_quantized_lstm)
    for op_type, twin in _TWINS.items():
        registry.register(DOMAIN, op_type, 1)(twin.infer)
    # ONNX Runtime had this one in the standard's domain before the standard had it, and its optimizer still writes it.
    registry.register("", "LayerNormalization", 1)(_layer_normalization)
    registry.register(DOMAIN, "MatMulBnb4", 1)(_matmul_bnb4)
    registry.register(DOMAIN, "QEmbedLayerNormalization", 1)(_quantized_embedding)


def _quantized_lstm(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """ONNX Runtime's LSTM on quantized weights has the results of LSTM."""
    data, weights = node.inputs[0], node.inputs[1]
    hidden = node.attributes.get("hidden_size")
    if data is None or data.shape is None or weights is None or weights.shape is None or hidden is None:
        return
    steps, batch, directions, size = data.shape[0], data.shape[1], weights.shape[0], hidden.as_int()
    shapes = [[steps, directions, batch, size], [directions, batch, size], [directions, batch, size]]
    for output, dims in zip(node.outputs, shapes, strict=False):
        ctx.set_shape_and_dtype(output, ir.Shape(dims), data.dtype)


def _layer_normalization(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """Shapes as the standard has them since opset 17; the statistics have the type that an attribute says."""
    data, statistics = node.inputs[0], node.attributes.get("stash_type")
    if data is None or data.shape is None:
        return
    ctx.set_shape_and_dtype(node.outputs[0], data.shape, data.dtype)
    axis = node.attributes.get("axis")
    first = (axis.as_int() if axis is not None else -1) % len(data.shape)
    dtype = ir.DataType(statistics.as_int()) if statistics is not None else ir.DataType.FLOAT
    for output in node.outputs[1:]:
        ctx.set_shape_and_dtype(output, ir.Shape([*data.shape[:first], *[1] * (len(data.shape) - first)]), dtype)


def _matmul_bnb4(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """Rows of the first input times weights of K x N in packed NF4 or FP4."""
    data, columns = node.inputs[0], node.attributes.get("N")
    if data is not None and data.shape is not None and columns is not None:
        ctx.set_shape_and_dtype(node.outputs[0], ir.Shape([*data.shape[:-1], columns.as_int()]), data.dtype)


def _quantized_embedding(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """Rows of floats for ids of words, whose table is of integers; how many of each sequence the mask keeps."""
    words, table = node.inputs[0], node.inputs[2]
    if words is None or words.shape is None or table is None or table.shape is None:
        return
    ctx.set_shape_and_dtype(node.outputs[0], ir.Shape([*words.shape, table.shape[1]]), _FLOAT)
    for output in node.outputs[1:]:
        ctx.set_shape_and_dtype(output, ir.Shape([words.shape[0]]), _INT32)
