"""The scores of attention that is written out, their softmax, and heads that are repeated for groups of queries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import bf16, f32
from xdsl.ir import SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.onnx import (
    InitializerOp,
    OnnxOp,
    constant_value,
    dims_of,
    ops,
    opset_in_force,
    set_value_name,
    tensor_type,
    value_name,
)
from gimlet.dialects.onnx.types import Element, element_of
from gimlet.passes.match import Product, is_read_once, made_by, product_of, scalar_of
from gimlet.runtime.expr import ONE

_FAR_DOWN = -1e30
"""Beside it, a score of float32 up to 1e22 vanishes when it is added."""
_LARGEST_MASK = 1 << 22
"""Elements of a constant mask that is looked through for infinities."""


@dataclass(frozen=True)
class Weights:
    """softmax(scores) over the last of four dimensions, as the operations `matched` make it.

    `in_float32`: between casts. `guarded`: with zeros where that is not a number.
    """

    scores: SSAValue
    in_float32: bool
    guarded: bool
    matched: list[OnnxOp]


def weights_of(value: SSAValue) -> Weights | None:
    """What the weights `value` are the softmax of."""
    matched: list[OnnxOp] = []
    guard = made_by(value, "Where")
    if guard is not None:
        check = made_by(guard.operands[0], "IsNaN")
        if check is None or scalar_of(guard.operands[1]) != 0.0 or check.operands[0] is not guard.operands[2]:
            return None
        matched += [guard, check]
        value = guard.operands[2]
    cast = made_by(value, "Cast")
    if cast is not None:
        matched.append(cast)
        value = cast.operands[0]
    softmax = made_by(value, "Softmax")
    if softmax is None or softmax.attr("axis") not in (-1, 3):
        return None
    matched.append(softmax)
    scores = softmax.operands[0]
    if cast is None:
        return Weights(scores, False, guard is not None, matched)
    widened = made_by(scores, "Cast")
    element = element_of(scores.type)
    if widened is None or element is None or element.type != f32:
        return None
    return Weights(widened.operands[0], True, guard is not None, [*matched, widened])


@dataclass(frozen=True)
class Scores:
    """scale·query·keysᵀ + mask, as the operations `matched` make it.

    `turned` transposes the keys, behind what repeats their heads; `keys` are before both. With a `softcap` c the scaled
    products s are c·tanh(s/c) before the mask is added.
    """

    query: SSAValue
    keys: SSAValue
    turned: OnnxOp
    mask: SSAValue | None
    scale: float
    softcap: float
    matched: list[OnnxOp]

    def has_finite_mask(self) -> bool:
        """Whether no row of scores can be all −∞, of which a softmax is not a number."""
        if self.mask is None:
            return True
        known = constant_value(self.mask, None, _LARGEST_MASK)
        if known is not None and known.ndim:
            return bool(np.isfinite(known.astype(np.float64)).any(axis=-1).all())
        chosen = made_by(self.mask, "Where")
        values = [self.mask] if chosen is None else list(chosen.operands[1:])
        arrays = [constant_value(value, None, _LARGEST_MASK) for value in values]
        return all(array is not None and bool(np.all(np.isfinite(array.astype(np.float64)))) for array in arrays)


def added_mask(value: SSAValue) -> None:
    """Makes a mask that is added of one that chooses: Where(keep, scores, fill) is scores + Where(keep, 0, fill).

    That is exact for −∞, and for a fill so far down that a score vanishes beside it. It does not act elsewhere, nor
    where something else reads the scores, or the mask is as large as they are.
    """
    chosen = made_by(value, "Where")
    element = element_of(value.type)
    if chosen is None or element is None:
        return
    keep, *branches = chosen.operands
    fills = [scalar_of(branch) for branch in branches]
    at = next((index for index, fill in enumerate(fills) if fill is not None), None)
    fill = None if at is None else fills[at]
    if at is None or fill is None or not _hides(fill, element):
        return
    scores = branches[1 - at]
    kept = dims_of(keep)
    if kept is None or not is_read_once(scores) or dims_of(scores) != dims_of(value) or kept == dims_of(scores):
        return
    opset = opset_in_force(chosen, "")
    zero = InitializerOp.from_array(np.zeros((), element.dtype), f"{value_name(value)}_nothing")
    pair = [branches[at], zero.results[0]] if at == 0 else [zero.results[0], branches[at]]
    mask = ops.Where.make([keep, *pair], [tensor_type(element.type, kept)], opset=opset)
    total = ops.Add.make([scores, mask.results[0]], [value.type], opset=opset)
    set_value_name(mask.results[0], f"{value_name(value)}_mask")
    total.location = chosen.location
    Rewriter.insert_op([zero, mask, total], InsertPoint.before(chosen))
    value.replace_all_uses_with(total.results[0])
    chosen.detach()
    chosen.erase()


def _hides(fill: float, element: Element) -> bool:
    return fill == -math.inf or (element.type in (f32, bf16) and fill <= _FAR_DOWN)


def scores_of(value: SSAValue) -> Scores | None:
    """What the scores `value` are, with or without a mask that is added."""
    added = made_by(value, "Add")
    if added is None:
        return _scaled_product(value, None, [])
    for scores, mask in (added.operands, reversed(added.operands)):
        found = _scaled_product(scores, mask, [added]) if is_read_once(scores) else None
        if found is not None:
            return found
    return None


def _scaled_product(value: SSAValue, mask: SSAValue | None, matched: list[OnnxOp]) -> Scores | None:
    scaled, softcap = product_of(value), 0.0
    capped = made_by(scaled.only_factor(), "Tanh")
    if capped is not None and is_read_once(capped.operands[0]):
        softcap, matched = scaled.constant, [*matched, *scaled.ops, capped]
        scaled = product_of(capped.operands[0])
        scaled.constant *= softcap
    product = made_by(scaled.only_factor(), "MatMul")
    if product is None or softcap < 0:
        return None
    query, keys = _scaled(product.operands[0]), _scaled(product.operands[1])
    turned = made_by(keys.only_factor(), "Transpose")
    source = query.only_factor()
    if turned is None or source is None or turned.attr("perm") is None:
        return None
    single, repeats = repeated_heads(turned.operands[0]) if turned.attr("perm") == [0, 1, 3, 2] else (None, [])
    matched = [*matched, *scaled.ops, product, *query.ops, *keys.ops, turned, *repeats]
    scale = scaled.constant * query.constant * keys.constant
    # Attention takes the root of it, and its kernels refuse other ones.
    if scale <= 0:
        return None
    return Scores(source, single or turned.operands[0], turned, mask, scale, softcap, matched)


def _scaled(value: SSAValue) -> Product:
    """What is scaled by a number; the value itself where it is another product, or read elsewhere too."""
    found = product_of(value) if is_read_once(value) else None
    return found if found is not None and found.only_factor() is not None else Product(factors=[value])


def repeated_heads(value: SSAValue) -> tuple[SSAValue, list[OnnxOp]]:
    """What `value` [batch, heads·n, positions, size] has each head of n times in a row, with the operations that do.

    The value itself where that is not how it is made: Unsqueeze behind the heads, Expand there, Reshape.
    """
    joined = made_by(value, "Reshape")
    spread = made_by(joined.operands[0], "Expand") if joined is not None else None
    apart = made_by(spread.operands[0], "Unsqueeze") if spread is not None else None
    if joined is None or spread is None or apart is None:
        return value, []
    source = apart.operands[0]
    dims, one, many, wanted = map(dims_of, (source, apart.results[0], spread.results[0], value))
    if dims is None or one is None or many is None or wanted is None or (len(dims), len(wanted)) != (4, 4):
        return value, []
    batch, heads, *rest = dims
    if one != (batch, heads, ONE, *rest) or len(many) != 5 or many != (batch, heads, many[2], *rest):
        return value, []
    return (source, [joined, spread, apart]) if wanted == (batch, heads * many[2], *rest) else (value, [])
