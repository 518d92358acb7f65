"""Gives 8-bit weights the sign of what they are multiplied with, so that a CPU's sums of products are exact.

    y = MatMulInteger(a, w)                  y = MatMulInteger(a, w', none, 128)
    (a of uint8, w of int8)         →        (w' = w + 128, of uint8)

Without dot products of 8-bit integers (VNNI), ONNX Runtime adds two products of unsigned by signed numbers in 16 bits,
and what does not fit is cut off: a QDQ model's outputs were up to 14% off. Products of unsigned by unsigned numbers it
adds in 32 bits. The numbers that weights stand for stay the same, since the zero point moves with them. A ConvInteger
of int8 by uint8 is computed there as one of uint8, so its weights become int8.

Of Q/DQ pairs the weights' DequantizeLinear is rewritten, where a product or convolution alone reads it and the other
operand is dequantized from uint8, or from what a QuantizeLinear makes (ONNX Runtime takes that to uint8 by itself).
Weights that are no constants stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from gimlet.dialects.onnx.weights import Array, Weight

_UINT8, _INT8 = ir.DataType.UINT8, ir.DataType.INT8
_FLIP: Final = {_INT8: (_UINT8, np.uint8), _UINT8: (_INT8, np.int8)}
_HIGH_BIT: Final = np.uint8(0x80)


@dataclass(frozen=True)
class _Operands:
    """Where a node has the weights, their zero point and the other operand (None: uint8, made within the node)."""

    weight: int
    zero_point: int
    other: int | None = 0


_INTEGER_OPS: Final = {
    ("", "MatMulInteger"): _Operands(1, 3),
    ("", "ConvInteger"): _Operands(1, 3),
    ("", "QLinearMatMul"): _Operands(3, 5),
    ("", "QLinearConv"): _Operands(3, 5),
    ("com.microsoft", "MatMulIntegerToFloat"): _Operands(1, 5),
    ("com.microsoft", "DynamicQuantizeMatMul"): _Operands(1, 3, None),
}
_EXACT: Final = {("ConvInteger", _UINT8, _INT8), ("MatMulInteger", _INT8, _UINT8)}
"""Mixed signs that ONNX Runtime (1.32) computes exactly everywhere."""
_PRODUCTS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


class UnsignedWeights:
    """Rewrites a model in place. `weights` are those of the store among its initializers, by name."""

    def __init__(self, model: ir.Model, weights: dict[str, Weight]) -> None:
        self._graph = model.graph
        self._weights = weights
        self._made: dict[str, ir.Value] = {}

    def rewrite(self) -> None:
        for node in tuple(self._graph.all_nodes()):
            operands = _INTEGER_OPS.get((node.domain, node.op_type))
            if operands is not None:
                self._integer_op(node, operands)
            elif node.op_type in _PRODUCTS and not node.domain:
                self._dequantized(node)

    def _integer_op(self, node: ir.Node, operands: _Operands) -> None:
        weight = _input(node, operands.weight)
        other = _UINT8 if operands.other is None else getattr(_input(node, operands.other), "dtype", None)
        if weight is None or other not in _FLIP or weight.dtype not in _FLIP or other == weight.dtype:
            return
        if (node.op_type, other, weight.dtype) not in _EXACT:
            self._flip(node, operands.weight, operands.zero_point, shape=())

    def _dequantized(self, node: ir.Node) -> None:
        other, weight = (_dequantize(_input(node, index)) for index in (0, 1))
        if other is None or weight is None or len(weight.outputs[0].uses()) != 1:
            return
        values, scale = (_input(weight, index) for index in (0, 1))
        if values is None or values.dtype != _INT8 or scale is None or scale.shape is None or not _is_unsigned(other):
            return
        if all(isinstance(size, int) for size in scale.shape):
            self._flip(weight, 0, 2, shape=tuple(int(size) for size in scale.shape if isinstance(size, int)))

    def _flip(self, node: ir.Node, weight_index: int, zero_index: int, shape: tuple[int, ...]) -> None:
        """Exchanges both inputs of a node for those of the other sign. An absent zero point gets the shape given."""
        weight, zero = _input(node, weight_index), _input(node, zero_index)
        if weight is None or not self._is_constant(weight) or (zero is not None and not self._is_constant(zero)):
            return
        flipped = self._flipped(weight)
        if zero is None:
            dtype, numpy_type = _FLIP[ir.DataType(weight.dtype or _INT8)]
            values = np.full(shape, _HIGH_BIT).view(numpy_type)
            zero_flipped = self._add(f"{weight.name}$zero_point", ir.TensorType(dtype), values)
        else:
            zero_flipped = self._flipped(zero)
        node.resize_inputs(max(len(node.inputs), zero_index + 1))
        node.replace_input_with(weight_index, flipped)
        node.replace_input_with(zero_index, zero_flipped)
        for value in (weight, zero):
            if value is not None and value.name and not value.uses() and not value.is_graph_output():
                self._graph.initializers.pop(value.name, None)
                self._weights.pop(value.name, None)

    def _is_constant(self, value: ir.Value) -> bool:
        known = self._weights.get(value.name or "")
        if known is not None:
            return known.has_data
        return value.name in self._graph.initializers and value.const_value is not None

    def _flipped(self, value: ir.Value) -> ir.Value:
        name = f"{value.name}$flipped"
        if name in self._made:
            return self._made[name]
        dtype, numpy_type = _FLIP[ir.DataType(value.dtype or _INT8)]
        weight = self._weights.get(value.name or "")
        if weight is None:
            tensor = value.const_value
            return self._add(name, ir.TensorType(dtype), _other_sign(np.asarray(tensor and tensor.numpy()), numpy_type))
        made = Weight(
            f"{weight.key}$flipped",
            np.dtype(numpy_type),
            weight.shape,
            lambda: _other_sign(weight.array(), numpy_type),
        )
        added = self._add(name, ir.TensorType(dtype), None, weight.shape)
        self._weights[name] = made
        return added

    def _add(
        self, name: str, type_: ir.TensorType, values: Array | None, shape: tuple[int, ...] | None = None
    ) -> ir.Value:
        if name not in self._made:
            tensor = None if values is None else ir.tensor(values, name=name)
            dims = ir.Shape(values.shape if values is not None else shape or ())
            value = ir.Value(name=name, type=type_, shape=dims, const_value=tensor)
            self._graph.initializers[name] = value
            self._made[name] = value
        return self._made[name]


def _other_sign(values: Array, numpy_type: type[np.integer]) -> Array:
    """The same numbers moved by 128, which is their highest bit."""
    return (np.ascontiguousarray(values).view(np.uint8) ^ _HIGH_BIT).view(numpy_type).reshape(values.shape)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _dequantize(value: ir.Value | None) -> ir.Node | None:
    maker = None if value is None else value.producer()
    return maker if maker is not None and maker.op_type == "DequantizeLinear" and not maker.domain else None


def _is_unsigned(dequantize: ir.Node) -> bool:
    """Whether ONNX Runtime multiplies what is dequantized there as uint8."""
    value = _input(dequantize, 0)
    if value is None or value.dtype not in _FLIP:
        return False
    maker = value.producer()
    return value.dtype == _UINT8 or (maker is not None and maker.op_type == "QuantizeLinear")
