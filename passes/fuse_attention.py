"""Finds scaled dot-product attention that is written out."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.onnx import OnnxOp, dims_of, ops, set_value_name, tensor_type, value_name
from gimlet.passes.entry import entry_function
from gimlet.passes.large_ops import LargeOps
from gimlet.passes.match import Product, is_closed, is_float32, is_read_once, made_by, product_of
from gimlet.runtime.expr import ONE, Expr

_OPSET = 23


@dataclass(frozen=True)
class FuseAttentionPass(ModulePass):
    """Replaces softmax(scale·Q·Kᵀ + mask)·V over four dimensions by Attention.

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
      func.func @main(%q: tensor<1x2x3x4xf32>, %k: tensor<1x2x5x4xf32>, %v: tensor<1x2x5x4xf32>,
                      %mask: tensor<1x1x3x5xf32>) -> tensor<1x2x3x4xf32> {
        %two = onnx.initializer {value = dense<2.0> : tensor<f32>} : tensor<f32>
        %t = onnx.Transpose(%k) {perm = [0, 1, 3, 2]} : (tensor<1x2x5x4xf32>) -> tensor<1x2x4x5xf32>
        %s = onnx.MatMul(%q, %t) : (tensor<1x2x3x4xf32>, tensor<1x2x4x5xf32>) -> tensor<1x2x3x5xf32>
        %scaled = onnx.Div(%s, %two) : (tensor<1x2x3x5xf32>, tensor<f32>) -> tensor<1x2x3x5xf32>
        %masked = onnx.Add(%scaled, %mask) : (tensor<1x2x3x5xf32>, tensor<1x1x3x5xf32>) -> tensor<1x2x3x5xf32>
        %p = onnx.Softmax(%masked) {axis = -1} : (tensor<1x2x3x5xf32>) -> tensor<1x2x3x5xf32>
        %y = onnx.MatMul(%p, %v) : (tensor<1x2x3x5xf32>, tensor<1x2x5x4xf32>) -> tensor<1x2x3x4xf32>
        func.return %y : tensor<1x2x3x4xf32>
      }
    }
    ```

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
      func.func @main(%q: tensor<1x2x3x4xf32>, %k: tensor<1x2x5x4xf32>, %v: tensor<1x2x5x4xf32>,
                      %mask: tensor<1x1x3x5xf32>) -> tensor<1x2x3x4xf32> {
        %two = onnx.initializer {value = dense<2.0> : tensor<f32>} : tensor<f32>
        %y = onnx.Attention(%q, %k, %v, %mask) {scale = 0.5}
            : (tensor<1x2x3x4xf32>, tensor<1x2x5x4xf32>, tensor<1x2x5x4xf32>, tensor<1x1x3x5xf32>)
            -> tensor<1x2x3x4xf32>
        func.return %y : tensor<1x2x3x4xf32>
      }
    }
    ```

    The scale may be on the scores, the queries or the keys. Keys are transposed as they were, but for the last two
    dimensions. It does not act below opset 23, on
    other types than float32, where keys are not the result of a Transpose, batch and heads of the three differ, the
    mask is not a float32 tensor of two to four dimensions that spreads over batch and heads alone (frameworks want the
    last two in full), or an operation outside reads one in between. Results differ in rounding.

    Requires: the types that infer-shapes gives. Ensures: nothing. Constants that are no longer read stay (dce).
    """

    name = "fuse-attention"

    keep_parts: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        large = LargeOps(op, self.keep_parts)
        opset = large.opset_for(_OPSET)
        if opset is None:
            return
        for nested in list(entry_function(op).walk()):
            if isinstance(nested, ops.MatMul) and nested.parent is not None:
                _fuse(nested, large, opset)


@dataclass(frozen=True)
class _Scores:
    """constant·query·keysᵀ + mask, as the operations `matched` make it."""

    query: SSAValue
    keys: OnnxOp
    mask: SSAValue | None
    scale: float
    matched: list[OnnxOp]


def _fuse(root: OnnxOp, large: LargeOps, opset: int) -> None:
    weights, values = root.operands
    softmax = made_by(weights, "Softmax")
    if softmax is None or not is_float32(weights) or softmax.attr("axis") not in (-1, 3):
        return
    scores = _scores(softmax.operands[0])
    if scores is None or not _fits(scores, values, root):
        return
    matched = [softmax, *scores.matched]
    if not is_closed(matched, root):
        return
    keys = _keys(scores, root, large.opset)
    inputs = [scores.query, keys, values, *([] if scores.mask is None else [scores.mask])]
    made = ops.Attention.make(inputs, [root.results[0].type], {"scale": scores.scale}, opset=opset)
    transposed = ops.Transpose.make([keys], [scores.keys.results[0].type], {"perm": [0, 1, 3, 2]}, opset=large.opset)
    large.replace(root, made, matched, {scores.keys.results[0]: transposed.results[0]})


def _keys(scores: _Scores, root: OnnxOp, opset: int) -> SSAValue:
    """The keys with the last two dimensions the other way round, by a Transpose before `root` where that takes one."""
    perm: list[int] = scores.keys.attr("perm")
    perm = [*perm[:2], perm[3], perm[2]]
    source = scores.keys.operands[0]
    type_ = scores.keys.results[0].type
    dims = dims_of(type_)
    if not isinstance(type_, TensorType) or dims is None:
        raise TypeError("keys of attention have a shape")
    if perm == [0, 1, 2, 3]:
        return source
    turned = tensor_type(type_.element_type, [dims[0], dims[1], dims[3], dims[2]])
    keys = ops.Transpose.make([source], [turned], {"perm": perm}, opset=opset)
    set_value_name(keys.results[0], f"{value_name(root.results[0])}_keys")
    Rewriter.insert_op(keys, InsertPoint.before(root))
    return keys.results[0]


def _scores(value: SSAValue) -> _Scores | None:
    added = made_by(value, "Add")
    if added is None:
        return _scaled_product(value, None, [])
    for scores, mask in (added.operands, reversed(added.operands)):
        found = _scaled_product(scores, mask, [added]) if is_read_once(scores) else None
        if found is not None:
            return found
    return None


def _scaled_product(value: SSAValue, mask: SSAValue | None, matched: list[OnnxOp]) -> _Scores | None:
    scaled = product_of(value)
    product = made_by(scaled.only_factor(), "MatMul")
    if product is None:
        return None
    query, keys = _scaled(product.operands[0]), _scaled(product.operands[1])
    transposed = made_by(keys.only_factor(), "Transpose")
    source = query.only_factor()
    if transposed is None or source is None or transposed.attr("perm") is None:
        return None
    matched = [*matched, *scaled.ops, product, *query.ops, *keys.ops, transposed]
    return _Scores(source, transposed, mask, scaled.constant * query.constant * keys.constant, matched)


def _scaled(value: SSAValue) -> Product:
    """What is scaled by a number; the value itself where it is another product, or read elsewhere too."""
    found = product_of(value) if is_read_once(value) else None
    return found if found is not None and found.only_factor() is not None else Product(factors=[value])


def _fits(scores: _Scores, values: SSAValue, root: OnnxOp) -> bool:
    query, keys, read, result = map(dims_of, (scores.query, scores.keys.results[0], values, root.results[0]))
    if query is None or keys is None or read is None or result is None or {len(query), len(keys), len(read)} != {4}:
        return False
    if not (query[:2] == keys[:2] == read[:2] == result[:2]):
        return False
    return scores.mask is None or _spreads(scores.mask, (*query[:3], keys[3]))


def _spreads(mask: SSAValue, scores: tuple[Expr, ...]) -> bool:
    dims = dims_of(mask)
    if dims is None or not 2 <= len(dims) <= 4 or dims[-2:] != scores[-2:] or not is_float32(mask):
        return False
    return all(dim in (ONE, wanted) for dim, wanted in zip(dims[::-1], scores[::-1], strict=False))
