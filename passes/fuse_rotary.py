"""Finds rotary position embeddings that are written out."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp, dims_of, ops
from gimlet.passes.entry import entry_function
from gimlet.passes.large_ops import LargeOps
from gimlet.passes.match import is_closed, is_float32, made_by
from gimlet.passes.rotary_caches import RotaryCaches, integers_of, joins_two, last_size
from gimlet.passes.rotary_parts import PARTS_OPSET, rotated

_OPSET = 23


@dataclass(frozen=True)
class FuseRotaryPass(ModulePass):
    """Replaces x·cos + rotate_half(x)·sin over four dimensions by RotaryEmbedding.

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

    rotate_half is Concat(Neg(second half), first half) over the last dimension, the halves by Slice or Split. The
    operator takes half of the cosines and sines: both halves must be provably equal, as a Concat of one value with
    itself or a constant is, behind Cos, Sin, Cast, Unsqueeze, a Gather of rows, and Mul by what is the same along the
    last dimension. Caches of one batch are spread over the batches of x, which frameworks want. It does not act below
    opset 23, on other types than float32, where cosines or sines differ between heads, or an operation outside reads
    one in between. Results differ in rounding.

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
            if isinstance(nested, ops.Add) and nested.parent is not None:
                _fuse(nested, caches, large, opset)


@dataclass(frozen=True)
class _Rotation:
    """x·cos + rotate_half(x)·sin, as the operations `matched` make it."""

    x: SSAValue
    cos: SSAValue
    sin: SSAValue
    matched: list[OnnxOp]


def _fuse(root: OnnxOp, caches: RotaryCaches, large: LargeOps, opset: int) -> None:
    left, right = (made_by(operand, "Mul") for operand in root.operands)
    if left is None or right is None:
        return
    found = _rotation(left, right) or _rotation(right, left)
    if found is None or not is_closed(found.matched, root):
        return
    if not all(map(is_float32, (found.x, found.cos, found.sin))):
        return
    if not (caches.fits(found.cos, found.x) and caches.fits(found.sin, found.x)):
        return
    cos, sin = (caches.cache(angle, found.x, root) for angle in (found.cos, found.sin))
    made = ops.RotaryEmbedding.make([found.x, cos, sin], [root.results[0].type], opset=opset)
    large.replace(root, made, found.matched, {root.results[0]: rotated(found.x, cos, sin, large.opset)})


def _rotation(plain: OnnxOp, across: OnnxOp) -> _Rotation | None:
    for turned, sin in (across.operands, reversed(across.operands)):
        concat = made_by(turned, "Concat")
        if concat is None or not joins_two(concat):
            continue
        negated = made_by(concat.operands[0], "Neg")
        found = _halves(concat.operands[1], negated.operands[0]) if negated is not None else None
        if negated is not None and found is not None and found[0] in plain.operands:
            x, parts = found
            cos = plain.operands[1] if plain.operands[0] is x else plain.operands[0]
            return _Rotation(x, cos, sin, [plain, across, concat, negated, *parts])
    return None


def _halves(first: SSAValue, second: SSAValue) -> tuple[SSAValue, list[OnnxOp]] | None:
    """What the two are the first and the second half of along the last dimension, with the operations that part it."""
    if not (isinstance(first, OpResult) and isinstance(second, OpResult)):
        return None
    parts: list[OnnxOp] = [each.op for each in (first, second) if isinstance(each.op, ops.Slice | ops.Split)]
    if len(parts) != 2 or parts[0].operands[0] is not parts[1].operands[0]:
        return None
    size = last_size(parts[0].operands[0])
    if size is None or size % 2:
        return None
    wanted = [(0, size // 2), (size // 2, size)]
    if [_range(part, size) for part in (first, second)] != wanted:
        return None
    return parts[0].operands[0], parts


def _range(part: OpResult, size: int) -> tuple[int, int] | None:
    """Where a part of the last dimension, of `size` elements, begins and ends; None for parts of another one."""
    op, dims = part.op, dims_of(part.op.operands[0])
    if not isinstance(op, OnnxOp) or dims is None:
        return None
    if op.op_type == "Split":
        whole = len(op.results) == 2 and op.attr("axis") in (-1, len(dims) - 1) and last_size(part) == size // 2
        return (part.index * size // 2, (part.index + 1) * size // 2) if whole else None
    start, end, axis = (integers_of(op.input_at(index)) for index in (1, 2, 3))
    step = [1] if op.input_at(4) is None else integers_of(op.input_at(4))
    if step != [1] or axis not in ([-1], [len(dims) - 1]) or start is None or end is None:
        return None
    begin, stop, _ = slice(start[0], end[0]).indices(size)
    return begin, stop
