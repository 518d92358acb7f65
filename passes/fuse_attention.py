"""Finds scaled dot-product attention that is written out."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.onnx import OnnxOp, dims_of, ops, set_value_name, tensor_type, value_name
from gimlet.dialects.onnx.types import element_of
from gimlet.passes.attention_einsums import write_attention_einsums
from gimlet.passes.attention_scores import Scores, added_mask, repeated_heads, scores_of, weights_of
from gimlet.passes.entry import entry_function
from gimlet.passes.heads_apart import take_heads_apart
from gimlet.passes.large_ops import LargeOps
from gimlet.passes.match import is_closed, is_float
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
    dimensions. Keys and values may be repeated for groups of query heads (Unsqueeze, Expand, Reshape); Attention takes
    them as they are before. Products may have batch and heads joined to one dimension, where their operands had them
    apart and their results have them apart again (`bmm`). Scores may be capped, c·tanh(scores/c), before the mask is
    added. The softmax may be computed in float32 between casts, and zeros may stand where it is not a number, which a
    finite mask excludes. A mask that chooses between scores and −∞, or a number as far down, is added first. Products
    may be Einsums, with the dimensions of their operands and of the result in any order.

    It does not act below opset 23, where the scale is not positive, keys are not the result of a Transpose, batch and
    heads do not fit together, the mask is not of the scores' type or does not spread over them, or an operation outside
    reads one in between. Without `keep-parts`, nor where the mask is one for all queries or keys: frameworks want the
    last two dimensions in full. Results differ in rounding.

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
        write_attention_einsums(entry_function(op))
        take_heads_apart(entry_function(op))
        for nested in list(entry_function(op).walk()):
            if isinstance(nested, ops.MatMul) and nested.parent is not None:
                _fuse(nested, large, opset)


_TURNED = [0, 1, 3, 2]


def _fuse(root: OnnxOp, large: LargeOps, opset: int) -> None:
    weights = weights_of(root.operands[0])
    if weights is not None:
        added_mask(weights.scores)
        weights = weights_of(root.operands[0])
    scores = scores_of(weights.scores) if weights is not None else None
    if weights is None or scores is None or not is_float(root.results[0]):
        return
    values, repeats = repeated_heads(root.operands[1])
    if not _fits(scores, values, root, large) or (weights.guarded and not scores.has_finite_mask()):
        return
    matched = [*weights.matched, *scores.matched, *repeats]
    if not is_closed(matched, root):
        return
    keys = _keys(scores, root, large.opset)
    inputs = [scores.query, keys, values, *([] if scores.mask is None else [scores.mask])]
    attributes = {"scale": scores.scale} | ({"softmax_precision": 1} if weights.in_float32 else {})
    attributes |= {"softcap": scores.softcap} if scores.softcap else {}
    made = ops.Attention.make(inputs, [root.results[0].type], attributes, opset=opset)
    turned = scores.turned.results[0]
    instead: dict[SSAValue, SSAValue] = {}
    if keys is not scores.keys:
        instead[turned] = ops.Transpose.make([keys], [turned.type], {"perm": _TURNED}, opset=large.opset).results[0]
    large.replace(root, made, matched, instead)


def _keys(scores: Scores, root: OnnxOp, opset: int) -> SSAValue:
    """The keys with the last two dimensions the other way round, by a Transpose before `root` where that takes one."""
    perm: list[int] = scores.turned.attr("perm")
    if perm == _TURNED:
        return scores.keys
    type_ = scores.turned.results[0].type
    dims = dims_of(type_)
    if not isinstance(type_, TensorType) or dims is None:
        raise TypeError("keys of attention have a shape")
    behind = tensor_type(type_.element_type, [dims[0], dims[1], dims[3], dims[2]])
    keys = ops.Transpose.make([scores.keys], [behind], {"perm": [*perm[:2], perm[3], perm[2]]}, opset=opset)
    set_value_name(keys.results[0], f"{value_name(root.results[0])}_keys")
    Rewriter.insert_op(keys, InsertPoint.before(root))
    return keys.results[0]


def _fits(scores: Scores, values: SSAValue, root: OnnxOp, large: LargeOps) -> bool:
    query, turned, keys, read, result = map(
        dims_of, (scores.query, scores.turned.results[0], scores.keys, values, root.results[0])
    )
    if query is None or turned is None or keys is None or read is None or result is None:
        return False
    if {len(query), len(turned), len(keys), len(read)} != {4} or query[0] != turned[0] or query[:2] != result[:2]:
        return False
    # One head of keys is for all queries, as a product spreads it.
    if turned[1] not in (query[1], ONE):
        return False
    heads = keys[1] if scores.turned.attr("perm") == _TURNED else turned[1]
    if read[:2] != (query[0], heads) or not _divides(heads, query[1]):
        return False
    return scores.mask is None or _spreads(scores.mask, scores.query, (*query[:3], turned[3]), large.keep_parts)


def _divides(heads: Expr, query_heads: Expr) -> bool:
    if heads == query_heads:
        return True
    return heads.is_constant and query_heads.is_constant and query_heads.as_int() % heads.as_int() == 0


def _spreads(mask: SSAValue, query: SSAValue, scores: tuple[Expr, ...], keep_parts: bool) -> bool:
    dims = dims_of(mask)
    if dims is None or not 2 <= len(dims) <= 4 or not _same_element(mask, query):
        return False
    if not keep_parts and dims[-2:] != scores[-2:]:
        return False
    return all(dim in (ONE, wanted) for dim, wanted in zip(dims[::-1], scores[::-1], strict=False))


def _same_element(a: SSAValue, b: SSAValue) -> bool:
    first, second = element_of(a.type), element_of(b.type)
    return first is not None and second is not None and first.type == second.type
