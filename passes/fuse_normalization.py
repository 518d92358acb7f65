"""Finds normalisations that are written out: LayerNormalization and RMSNormalization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from gimlet.dialects.onnx import OnnxOp, dims_of, ops
from gimlet.dialects.onnx.types import element_of
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
    multiplied. In half precision the quotient may be computed in float32 between casts, before it is scaled, as both
    operators define it. It does not act below opset 17 and 23 respectively, where types are not one of float32, float16
    and bfloat16, the axes are not the last ones, scale or bias do not have their shape, or an operation outside reads
    one in between. Results differ in rounding.

    Requires: the types that infer-shapes gives, and cse. Ensures: nothing. Constants that nobody reads stay (dce).
    """

    name = "fuse-normalization"

    keep_parts: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        large = LargeOps(op, self.keep_parts)
        for nested in list(entry_function(op).walk()):
            if isinstance(nested, ops.Mul) and nested.parent is not None:
                _fuse(nested, large)


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
    scale: SSAValue
    narrowed: bool
    matched: list[OnnxOp]


def _fuse(root: OnnxOp, large: LargeOps) -> None:
    for quotient in _quotients(root.results[0]):
        found = _root_mean_square(quotient.divisor)
        if found is not None and found.of is quotient.of:
            _replace(root, quotient, found, large)
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
        last, bias = _with_bias(root, scale)
    widened = made_by(x, "Cast") if quotient.narrowed else None
    if quotient.narrowed:
        if widened is None or not is_float32(x):
            return
        x = widened.operands[0]
    dims, result = dims_of(x), last.results[0]
    if dims is None or dims_of(scale) != dims[found.axis :] or dims_of(result) != dims:
        return
    inputs = [x, scale, *([] if bias is None else [bias])]
    if not is_float(x) or any(element_of(each.type) != element_of(x.type) for each in (*inputs, result)):
        return
    cls, needed = (ops.RMSNormalization, _RMS_OPSET) if centred is None else (ops.LayerNormalization, _LAYER_OPSET)
    opset = large.opset_for(needed)
    if opset is not None and is_closed(matched, last):
        made = cls.make(inputs, [result.type], {"axis": found.axis, "epsilon": found.epsilon}, opset=opset)
        # Others may read what the model widens as well.
        large.replace(last, made, matched if widened is None else [*matched, widened])


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
