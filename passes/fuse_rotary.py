"""Finds rotary position embeddings that are written out."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, OpResult
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp, dims_of, ops, set_value_name, value_name
from gimlet.dialects.onnx.types import element_of
from gimlet.passes.entry import entry_function
from gimlet.passes.large_ops import LargeOps
from gimlet.passes.match import is_closed, is_float
from gimlet.passes.rotary_caches import RotaryCaches
from gimlet.passes.rotary_parts import PARTS_OPSET, reshaped, rotated, with_dims
from gimlet.passes.rotary_patterns import Rotation, rotations

_OPSET = 23


@dataclass(frozen=True)
class FuseRotaryPass(ModulePass):
    """Replaces x·cos + rotate(x)·sin over four dimensions by RotaryEmbedding.

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
      func.func @main(%x: tensor<1x2x3x8xf32>, %angles: tensor<1x3x4xf32>) -> tensor<1x2x3x8xf32> {
        %one = onnx.initializer {value = dense<1> : tensor<1xi64>} : tensor<1xi64>
        %twice = onnx.Concat(%angles, %angles) {axis = -1}
            : (tensor<1x3x4xf32>, tensor<1x3x4xf32>) -> tensor<1x3x8xf32>
        %cos = onnx.Cos(%twice) : (tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
        %sin = onnx.Sin(%twice) : (tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
        %cos1 = onnx.Unsqueeze(%cos, %one) : (tensor<1x3x8xf32>, tensor<1xi64>) -> tensor<1x1x3x8xf32>
        %sin1 = onnx.Unsqueeze(%sin, %one) : (tensor<1x3x8xf32>, tensor<1xi64>) -> tensor<1x1x3x8xf32>
        %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x3x8xf32>, tensor<1x1x3x8xf32>) -> tensor<1x2x3x8xf32>
        %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2}
            : (tensor<1x2x3x8xf32>) -> (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>)
        %neg = onnx.Neg(%high) : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
        %turned = onnx.Concat(%neg, %low) {axis = -1}
            : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x8xf32>
        %across = onnx.Mul(%turned, %sin1) : (tensor<1x2x3x8xf32>, tensor<1x1x3x8xf32>) -> tensor<1x2x3x8xf32>
        %y = onnx.Add(%plain, %across) : (tensor<1x2x3x8xf32>, tensor<1x2x3x8xf32>) -> tensor<1x2x3x8xf32>
        func.return %y : tensor<1x2x3x8xf32>
      }
    }
    ```

    After `fuse-rotary,dce`:

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
      func.func @main(%x: tensor<1x2x3x8xf32>, %angles: tensor<1x3x4xf32>) -> tensor<1x2x3x8xf32> {
        %cos_half = onnx.Cos(%angles) : (tensor<1x3x4xf32>) -> tensor<1x3x4xf32>
        %sin_half = onnx.Sin(%angles) : (tensor<1x3x4xf32>) -> tensor<1x3x4xf32>
        %y = onnx.RotaryEmbedding(%x, %cos_half, %sin_half)
            : (tensor<1x2x3x8xf32>, tensor<1x3x4xf32>, tensor<1x3x4xf32>) -> tensor<1x2x3x8xf32>
        func.return %y : tensor<1x2x3x8xf32>
      }
    }
    ```

    rotate(x) is Concat(Neg(second half), first half) over the last dimension, the halves by Slice or Split, or the same
    of neighbours (GPT-J), by Slices of step 2, Unsqueeze, Concat and Reshape, which makes it `interleaved`. Or both of
    each pair, a·cos − b·sin and b·cos + a·sin, are computed by themselves and joined. Heads may be in front of the
    positions or behind them; these are joined with the sizes, in which form the operator takes them.

    The operator takes one cosine and sine for each pair: where there are two, they must be provably equal, as a Concat
    of one value with itself (a repetition of each element, for neighbours) or a constant is, behind Cos, Sin, Cast,
    Unsqueeze, a Gather of rows, and Mul by what is the same along the last dimension. Caches of one batch are spread
    over the batches of x, which frameworks want. It does not act below opset 23, where x, cosines and sines are not of
    one of float32, float16 and bfloat16, cosines or sines differ between heads, or an operation outside reads one in
    between. Results differ in rounding.

    Requires: the types that infer-shapes gives, and cse. Ensures: nothing. What nobody reads any more stays (dce), and
    so do slices of constants (fold-constants).
    """

    name = "fuse-rotary"

    keep_parts: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if not isinstance(ctx, GimletContext):
            raise PassFailedException("fuse-rotary needs gimlet's context, which holds the weights")
        large = LargeOps(op, self.keep_parts)
        opset = large.opset_for(_OPSET)
        if opset is None or large.opset < PARTS_OPSET:
            return
        caches = RotaryCaches(ctx, large.opset)
        for nested in list(entry_function(op).walk()):
            if isinstance(nested, ops.Add | ops.Concat | ops.Reshape) and nested.parent is not None:
                _fuse(nested, caches, large, opset)


def _fuse(root: OnnxOp, caches: RotaryCaches, large: LargeOps, opset: int) -> None:
    for found in rotations(root):
        given = found.x, found.cos, found.sin
        kinds = {element.type for value in given if (element := element_of(value.type)) is not None}
        if len(kinds) != 1 or not is_float(found.x) or not is_closed(found.matched, root):
            continue
        if all(caches.fits(angle, found.x, found.form) for angle in (found.cos, found.sin)):
            _replace(root, found, caches, large, opset)
            return


def _replace(root: OnnxOp, found: Rotation, caches: RotaryCaches, large: LargeOps, opset: int) -> None:
    x, form = found.x, found.form
    dims = dims_of(x)
    flat = form.heads_axis == 2
    if dims is None or (flat and not (dims[2].is_constant and dims[3].is_constant)):
        return
    cos, sin = (caches.cache(angle, x, root, form) for angle in (found.cos, found.sin))
    attributes = {"interleaved": 1} if form.pairs else {}
    if not flat:
        made = ops.RotaryEmbedding.make([x, cos, sin], [root.results[0].type], attributes, opset=opset)
        large.replace(root, made, found.matched, {root.results[0]: rotated(x, cos, sin, large.opset, form)})
        return
    heads, size = dims[2].as_int(), dims[3].as_int()
    joined, split = [0, 0, heads * size], [0, 0, heads, size]
    type_ = with_dims(x, [dims[0], dims[1], heads * size])
    source = reshaped(x, type_, joined, large.opset)
    result = reshaped(root.results[0], type_, joined, large.opset)
    back = reshaped(result, x.type, split, large.opset)
    root.results[0].replace_uses_with_if(back, lambda use: use.operation is not result.owner)
    _place(source, f"{value_name(back)}_joined", InsertPoint.before(root))
    _place(back, value_name(root.results[0]), InsertPoint.after(root))
    _place(result, f"{value_name(back)}_turned", InsertPoint.after(root))
    made = ops.RotaryEmbedding.make([source, cos, sin], [type_], {**attributes, "num_heads": heads}, opset=opset)
    parts = rotated(reshaped(source, x.type, split, large.opset), cos, sin, large.opset, form)
    if isinstance(result.op, OnnxOp):
        large.replace(result.op, made, [root, *found.matched], {result: reshaped(parts, type_, joined, large.opset)})


def _place(value: OpResult, name: str, where: InsertPoint) -> None:
    """Puts the Reshape that makes `value`, and its sizes, into the block."""
    sizes = value.op.operands[1].owner
    Rewriter.insert_op([*([sizes] if isinstance(sizes, Operation) else []), value.op], where)
    set_value_name(value, name)
