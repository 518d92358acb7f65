"""What a convolution has to do at least, from its shapes: for the second bound (bound.py).

Positions in the padding are zero, so that no program has to multiply with them, and where strides are longer than the
kernel some of the input is never read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.dialects.onnx.types import element_bits


@dataclass(frozen=True)
class Least:
    """Of one convolution: what is multiplied and added, input that is read, in bytes, and the depth of a product."""

    multiply_adds: int
    input_bytes: float
    depth: int
    outputs: int
    rows: int
    """Of the input as ONNX has it, where each result needs what is in both halves of them; else 0."""


def least_of(op: OnnxOp, sizes: Mapping[str, int]) -> Least | None:
    """What a convolution has to do at least. None for one of groups, transposed, or of unknown shapes."""
    if op.op_type != "Conv" or op.domain or op.attr("group", 1) != 1:
        return None
    shapes = [None if value is None else dims_of(value) for value in (op.inputs[0], op.inputs[1], op.results[0])]
    if op.inputs[0] is None or None in shapes or op.attr("auto_pad", "NOTSET") not in ("NOTSET", "", None):
        return None
    given, weight, made = ([dim.evaluate(sizes) for dim in shape or ()] for shape in shapes)
    rank = len(given) - 2
    strides, dilations = (op.attr(name) or (1,) * rank for name in ("strides", "dilations"))
    pads = op.attr("pads") or (0,) * (2 * rank)
    pairs, read = 1, 1
    for dim in range(rank):
        size, taps, outputs = given[2 + dim], weight[2 + dim], made[2 + dim]
        used = [
            place
            for out in range(outputs)
            for tap in range(taps)
            if 0 <= (place := out * strides[dim] - pads[dim] + tap * dilations[dim]) < size
        ]
        pairs, read = pairs * len(used), read * len(set(used))
    return Least(
        multiply_adds=max(1, given[0] * given[1] * made[1] * pairs),
        input_bytes=given[0] * given[1] * read * element_bits(op.inputs[0].type) / 8,
        depth=prod(weight[1:]),
        outputs=weight[0],
        rows=prod(given[:-1]) if given[0] == 1 and given[1] > 1 else 0,
    )
