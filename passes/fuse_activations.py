"""Finds activation functions that are written out: Gelu and Swish."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from gimlet.dialects.onnx import OnnxOp, dims_of, ops
from gimlet.passes.entry import entry_function
from gimlet.passes.large_ops import LargeOps
from gimlet.passes.match import (
    Product,
    is_closed,
    is_float,
    is_near,
    made_by,
    plus_constant,
    product_of,
    scalar_of,
)

_GELU_OPSET, _SWISH_OPSET = 20, 24


@dataclass(frozen=True)
class FuseActivationsPass(ModulePass):
    """Replaces the operations of x/2·(1 + erf(x/√2)), of its tanh form and of x·sigmoid(αx) by Gelu and Swish.

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 24 : i64}} {
      func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
        %root = onnx.initializer {value = dense<1.41421354> : tensor<f32>} : tensor<f32>
        %one = onnx.initializer {value = dense<1.0> : tensor<f32>} : tensor<f32>
        %half = onnx.initializer {value = dense<0.5> : tensor<f32>} : tensor<f32>
        %a = onnx.Div(%x, %root) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
        %b = onnx.Erf(%a) : (tensor<4xf32>) -> tensor<4xf32>
        %c = onnx.Add(%b, %one) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
        %d = onnx.Mul(%x, %c) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
        %gelu = onnx.Mul(%d, %half) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
        %gate = onnx.Sigmoid(%gelu) : (tensor<4xf32>) -> tensor<4xf32>
        %y = onnx.Mul(%gelu, %gate) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
        func.return %y : tensor<4xf32>
      }
    }
    ```

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 24 : i64}} {
      func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
        %root = onnx.initializer {value = dense<1.41421354> : tensor<f32>} : tensor<f32>
        %one = onnx.initializer {value = dense<1.0> : tensor<f32>} : tensor<f32>
        %half = onnx.initializer {value = dense<0.5> : tensor<f32>} : tensor<f32>
        %gelu = onnx.Gelu(%x) : (tensor<4xf32>) -> tensor<4xf32>
        %y = onnx.Swish(%gelu) : (tensor<4xf32>) -> tensor<4xf32>
        func.return %y : tensor<4xf32>
      }
    }
    ```

    Factors may stand in any order, and halves and roots be multiplied or divided by. It does not act below opset 20
    (Gelu) and 24 (Swish), on other types than float32, float16 and bfloat16, where a constant is another one as far as
    the type tells, or where an operation outside reads one in between. Results differ in rounding.

    Requires: the types that infer-shapes gives. Ensures: nothing. Constants that are no longer read stay (dce).
    """

    name = "fuse-activations"

    keep_parts: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        large = LargeOps(op, self.keep_parts)
        for nested in list(entry_function(op).walk()):
            if isinstance(nested, ops.Mul) and nested.parent is not None:
                _fuse(nested, large)


def _fuse(root: OnnxOp, large: LargeOps) -> None:
    result = root.results[0]
    product = product_of(result)
    if len(product.factors) != 2 or product.divisors or not is_float(result):
        return
    for x, other in (product.factors, product.factors[::-1]):
        found = _gelu(x, other, product) or _swish(x, other, product)
        if found is None or dims_of(x) is None or dims_of(x) != dims_of(result):
            continue
        cls, attributes, inner = found
        opset = large.opset_for(_GELU_OPSET if cls is ops.Gelu else _SWISH_OPSET)
        if opset is not None and is_closed([*product.ops, *inner], root):
            large.replace(root, cls.make([x], [result.type], attributes, opset=opset), [*product.ops, *inner])
        return


_Found = tuple[type[OnnxOp], dict[str, Any], list[OnnxOp]] | None


def _gelu(x: SSAValue, other: SSAValue, product: Product) -> _Found:
    """Gelu of `x` and the operations of `other` if that is 1 + erf(x/√2), or its approximation by tanh."""
    added = plus_constant(other)
    if added is None or added[2] != 1.0 or not is_near(product.constant, 0.5, x):
        return None
    curve = made_by(added[1], "Erf", "Tanh")
    if curve is None:
        return None
    inner = product_of(curve.operands[0])
    matched = [added[0], curve, *inner.ops]
    if curve.op_type == "Erf":
        if inner.only_factor() is not x or not is_near(inner.constant, math.sqrt(0.5), x):
            return None
        return ops.Gelu, {}, matched
    cubic = _cubic(x, inner.only_factor()) if is_near(inner.constant, math.sqrt(2 / math.pi), x) else None
    return None if cubic is None else (ops.Gelu, {"approximate": "tanh"}, [*matched, *cubic])


def _cubic(x: SSAValue, value: SSAValue | None) -> list[OnnxOp] | None:
    """The operations of x + 0.044715·x³."""
    added = made_by(value, "Add")
    if added is None:
        return None
    for linear, rest in (added.operands, reversed(added.operands)):
        cube = product_of(rest)
        if linear is not x or cube.divisors or not is_near(cube.constant, 0.044715, x):
            continue
        power = made_by(cube.only_factor(), "Pow")
        if power is not None and power.operands[0] is x and scalar_of(power.operands[1]) == 3.0:
            return [added, *cube.ops, power]
        if Counter(cube.factors) == {x: 3}:
            return [added, *cube.ops]
    return None


def _swish(x: SSAValue, other: SSAValue, product: Product) -> _Found:
    sigmoid = made_by(other, "Sigmoid")
    if sigmoid is None or product.constant != 1.0:
        return None
    if sigmoid.operands[0] is x:
        return ops.Swish, {}, [sigmoid]
    inner = product_of(sigmoid.operands[0])
    if inner.only_factor() is not x:
        return None
    return ops.Swish, {"alpha": inner.constant}, [sigmoid, *inner.ops]
