"""Finds normalisations that are written out: LayerNormalization and RMSNormalization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.onnx import InitializerOp, OnnxOp, dims_of, ops, value_name
from gimlet.dialects.onnx.types import Element, element_of
from gimlet.passes.entry import entry_function
from gimlet.passes.large_ops import LargeOps
from gimlet.passes.match import (
    is_closed,
    is_float,
    is_float32,
    is_read_once,
    made_by,
    plus_constant,
    product_of,
    reduced_axes,
    scalar_of,
)

_LAYER_OPSET, _RMS_OPSET = 17, 23
_MOST_ONES: Final = 1 << 20
"""Elements of a scale that is made for a norm without one: a wider one is larger than what it would gain."""


@dataclass(frozen=True)
class FuseNormalizationPass(ModulePass):
    """Replaces the operations that divide by a standard deviation or a root mean square by one normalisation.

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
      func.func @main(%x: tensor<2x8xf32>, %scale: tensor<8xf32>, %bias: tensor<8xf32>) -> tensor<2x8xf32> {
        %two = onnx.initializer {value = dense<2.0> : tensor<f32>} : tensor<f32>
        %eps = onnx.initializer {value = dense<1.0e-05> : tensor<f32>} : tensor<f32>
        %mean = onnx.ReduceMean v13(%x) {axes = [-1]} : (tensor<2x8xf32>) -> tensor<2x1xf32>
        %c = onnx.Sub(%x, %mean) : (tensor<2x8xf32>, tensor<2x1xf32>) -> tensor<2x8xf32>
        %sq = onnx.Pow(%c, %two) : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
        %var = onnx.ReduceMean v13(%sq) {axes = [-1]} : (tensor<2x8xf32>) -> tensor<2x1xf32>
        %sum = onnx.Add(%var, %eps) : (tensor<2x1xf32>, tensor<f32>) -> tensor<2x1xf32>
        %dev = onnx.Sqrt(%sum) : (tensor<2x1xf32>) -> tensor<2x1xf32>
        %div = onnx.Div(%c, %dev) : (tensor<2x8xf32>, tensor<2x1xf32>) -> tensor<2x8xf32>
        %mul = onnx.Mul(%div, %scale) : (tensor<2x8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
        %y = onnx.Add(%mul, %bias) : (tensor<2x8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
        func.return %y : tensor<2x8xf32>
      }
    }
    ```

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
      func.func @main(%x: tensor<2x8xf32>, %scale: tensor<8xf32>, %bias: tensor<8xf32>) -> tensor<2x8xf32> {
        %two = onnx.initializer {value = dense<2.0> : tensor<f32>} : tensor<f32>
        %eps = onnx.initializer {value = dense<1.0e-05> : tensor<f32>} : tensor<f32>
        %y = onnx.LayerNormalization(%x, %scale, %bias) {axis = -1, epsilon = 1.0e-05}
            : (tensor<2x8xf32>, tensor<8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
        func.return %y : tensor<2x8xf32>
      }
    }
    ```

    Without the mean it is RMSNormalization, which has no bias. Factors may stand in any order, reciprocals be
    multiplied; TensorFlow's x·f + (bias - mean·f) with f = scale / deviation is one too. Where nothing is scaled, the
    scale is ones, up to 2^20 of them. In half precision the quotient may be computed in float32 between casts, before
    it is scaled, as both operators define it. It does not act below opset 17 and 23 respectively, where types are not
    one of float32, float16 and bfloat16, the axes are not the last ones, scale or bias do not have their shape, or an
    operation outside reads one in between. Results differ in rounding.

    Requires: the types that infer-shapes gives, and cse. Ensures: nothing. Constants that nobody reads stay (dce).
    """

    name = "fuse-normalization"

    keep_parts: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        large = LargeOps(op, self.keep_parts)
        found = [nested for nested in entry_function(op).walk() if isinstance(nested, ops.Mul | ops.Div | ops.Add)]
        # A quotient is a norm by itself only where what it is multiplied by is no scale.
        for fuse in (_fuse_scaled, _fuse_folded, _fuse_bare):
            for nested in found:
                if nested.parent is not None:
                    fuse(nested, large)


@dataclass(frozen=True)
class _Root:
    """The square root of the mean of the squares of `of`, over the last axes from `axis` on, with what makes it."""

    of: SSAValue
    axis: int
    epsilon: float
    matched: list[OnnxOp]


@dataclass(frozen=True)
class _Quotient:
    """scale · of / divisor, as `matched` make it: with `narrowed`, the quotient is cast before it is scaled."""

    of: SSAValue
    divisor: SSAValue
    scale: SSAValue | None
    narrowed: bool
    matched: list[OnnxOp]


def _fuse_scaled(root: OnnxOp, large: LargeOps) -> None:
    if not isinstance(root, ops.Mul):
        return
    for quotient in _quotients(root.results[0]):
        found = _root_mean_square(quotient.divisor)
        if found is not None and found.of is quotient.of:
            _replace(root, quotient, found, large)
            return


def _fuse_bare(root: OnnxOp, large: LargeOps) -> None:
    """of / divisor, which nothing scales."""
    product = product_of(root.results[0])
    if (len(product.factors), len(product.divisors), product.constant) != (1, 1, 1.0):
        return
    quotient = _Quotient(product.factors[0], product.divisors[0], None, False, product.ops)
    found = _root_mean_square(quotient.divisor)
    if found is not None and found.of is quotient.of:
        _replace(root, quotient, found, large)


def _fuse_folded(root: OnnxOp, large: LargeOps) -> None:
    """x·f + (bias - mean·f), where f is a scale over the deviation."""
    if not isinstance(root, ops.Add):
        return
    for scaled, shift in (root.operands, reversed(root.operands)):
        times, minus = made_by(scaled, "Mul"), made_by(shift, "Sub")
        mean_times = made_by(minus.operands[1], "Mul") if minus is not None else None
        if times is None or minus is None or mean_times is None:
            continue
        for x, factor in (times.operands, reversed(times.operands)):
            if factor not in mean_times.operands:
                continue
            product = product_of(factor)
            found = _root_mean_square(product.divisors[0]) if len(product.divisors) == 1 else None
            if found is None or len(product.factors) != 1 or product.constant != 1.0:
                continue
            centred = _centred(found)
            if centred is None or centred[0] is not x or centred[1][1].results[0] not in mean_times.operands:
                continue
            matched = [times, minus, mean_times, *product.ops, *found.matched, *centred[1]]
            _make(root, x, product.factors[0], minus.operands[0], found, matched, large)
            return


def _quotients(value: SSAValue) -> Iterator[_Quotient]:
    """What `value` can be read as."""
    product = product_of(value)
    if len(product.factors) != 2 or product.constant != 1.0:
        return
    for of, scale in (product.factors, product.factors[::-1]):
        if len(product.divisors) == 1:
            yield _Quotient(of, product.divisors[0], scale, False, product.ops)
        cast = made_by(of, "Cast") if not product.divisors and is_read_once(of) else None
        inner = product_of(cast.operands[0]) if cast is not None and is_read_once(cast.operands[0]) else None
        if cast is None or inner is None or (len(inner.factors), len(inner.divisors), inner.constant) != (1, 1, 1.0):
            continue
        yield _Quotient(inner.factors[0], inner.divisors[0], scale, True, [*product.ops, cast, *inner.ops])


def _replace(root: OnnxOp, quotient: _Quotient, found: _Root, large: LargeOps) -> None:
    x, scale, last, bias = found.of, quotient.scale, root, None
    matched = [*quotient.matched, *found.matched]
    centred = _centred(found)
    if centred is not None:
        x, more = centred
        matched += [*more, root]
        last, bias = (root, None) if scale is None else _with_bias(root, scale)
    widened = made_by(x, "Cast") if quotient.narrowed else None
    if quotient.narrowed:
        if widened is None or not is_float32(x):
            return
        x = widened.operands[0]
    _make(last, x, scale, bias, found, matched, large, widened)


def _make(
    root: OnnxOp,
    x: SSAValue,
    scale: SSAValue | None,
    bias: SSAValue | None,
    found: _Root,
    matched: list[OnnxOp],
    large: LargeOps,
    widened: OnnxOp | None = None,
) -> None:
    """Puts a normalisation of `x` in the place of `root`, where the types and shapes are the operator's."""
    dims, result, element = dims_of(x), root.results[0], element_of(x.type)
    if dims is None or element is None or dims_of(result) != dims or not is_float(x):
        return
    cls, needed = (
        (ops.RMSNormalization, _RMS_OPSET) if _centred(found) is None else (ops.LayerNormalization, _LAYER_OPSET)
    )
    opset, normal = large.opset_for(needed), dims[found.axis :]
    given = [each for each in (scale, bias) if each is not None]
    if opset is None or any(dims_of(each) != normal for each in given):
        return
    if any(element_of(each.type) != element for each in (*given, result)) or not is_closed(matched, root):
        return
    sizes = [dim.as_int() for dim in normal if dim.is_constant]
    if scale is None and (len(sizes) < len(normal) or prod(sizes) > _MOST_ONES):
        return
    ones = [] if scale is not None else [_ones(sizes, element, root)]
    attributes = {"axis": found.axis, "epsilon": found.epsilon}
    made = cls.make([x, *ones, *given], [result.type], attributes, opset=opset)
    # Others may read what the model widens as well.
    large.replace(root, made, matched if widened is None else [*matched, widened])


def _ones(shape: list[int], element: Element, root: OnnxOp) -> SSAValue:
    ones = InitializerOp.from_array(np.ones(shape, element.dtype), f"{value_name(root.results[0])}_scale")
    Rewriter.insert_op(ones, InsertPoint.before(root))
    return ones.results[0]


def _root_mean_square(value: SSAValue) -> _Root | None:
    root = made_by(value, "Sqrt")
    added = plus_constant(root.operands[0]) if root is not None else None
    mean = made_by(added[1], "ReduceMean") if added is not None else None
    if root is None or added is None or mean is None:
        return None
    square = made_by(mean.operands[0], "Pow", "Mul")
    if square is None:
        return None
    of, power = square.operands
    if (power is not of) if square.op_type == "Mul" else (scalar_of(power) != 2.0):
        return None
    axis = _last_axes(mean)
    return None if axis is None else _Root(of, axis, added[2], [root, added[0], mean, square])


def _last_axes(op: OnnxOp) -> int | None:
    """The first, negative, of the axes that a reduction takes, if they are the last ones."""
    axes, dims = reduced_axes(op), dims_of(op.operands[0])
    if axes is None or dims is None:
        return None
    found = sorted(axis - len(dims) if axis >= 0 else axis for axis in axes)
    return found[0] if found and found == list(range(-len(found), 0)) else None


def _centred(found: _Root) -> tuple[SSAValue, list[OnnxOp]] | None:
    """What a mean over the same axes is taken from to give `found.of`, with the operations that do."""
    minus = made_by(found.of, "Sub")
    mean = made_by(minus.operands[1], "ReduceMean") if minus is not None else None
    if minus is None or mean is None or mean.operands[0] is not minus.operands[0]:
        return None
    return (minus.operands[0], [minus, mean]) if _last_axes(mean) == found.axis else None


def _with_bias(root: OnnxOp, scale: SSAValue) -> tuple[OnnxOp, SSAValue | None]:
    """The Add that is all that reads the product, with what it adds, if that has the shape of `scale`."""
    result = root.results[0]
    reader = next(iter(result.uses)).operation if is_read_once(result) else None
    if not isinstance(reader, ops.Add):
        return root, None
    bias = reader.operands[0] if reader.operands[1] is result else reader.operands[1]
    return (reader, bias) if dims_of(bias) == dims_of(scale) and dims_of(bias) is not None else (root, None)
