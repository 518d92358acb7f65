"""PyTorch's `split` and `chunk` come as a sequence of which elements are taken, and few frameworks have sequences."""

from __future__ import annotations

import numpy as np
from xdsl.ir import Attribute, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from gimlet.dialects.onnx import (
    InitializerOp,
    OnnxOp,
    constant_value,
    dims_of,
    ops,
    opset_in_force,
    tensor_type,
    value_name,
)
from gimlet.dialects.onnx.types import element_of

_SPLIT_TAKES_INPUT_SINCE = 13


def split_at_once(op: OnnxOp) -> None:
    """Replaces SplitToSequence, and the SequenceAts that read it, by Split.

    It does not act where the sizes of the parts are not known, where a part is read by a computed position, or where
    something else reads the sequence.
    """
    opset = opset_in_force(op, "")
    sizes = _sizes(op)
    readers = [use.operation for use in op.results[0].uses]
    if sizes is None or (opset is not None and opset < _SPLIT_TAKES_INPUT_SINCE):
        return
    positions = [_position(reader, len(sizes)) for reader in readers]
    if None in positions:
        return
    lengths = InitializerOp.from_array(np.array(sizes, dtype=np.int64), f"{value_name(op.results[0])}_sizes")
    axis = op.attr("axis", 0)
    types = [_part_type(op.operands[0], axis, size) for size in sizes]
    split = ops.Split.make([op.operands[0], lengths], types, {"axis": axis}, opset=opset)
    split.location = op.location
    Rewriter.insert_op([lengths, split], InsertPoint.before(op))
    for reader, position in zip(readers, positions, strict=True):
        if position is not None:
            reader.results[0].replace_all_uses_with(split.results[position])
            reader.detach()
            reader.erase()
    op.detach()
    op.erase()


def _sizes(op: OnnxOp) -> list[int] | None:
    """The sizes of the parts along the axis; None if they are not known, or the parts lose the axis."""
    dims = dims_of(op.operands[0])
    if dims is None or not dims[op.attr("axis", 0)].is_constant or not op.attr("keepdims", 1):
        return None
    size = dims[op.attr("axis", 0)].as_int()
    given = op.input_at(1)
    if given is None:
        return None
    lengths = constant_value(given)
    if lengths is None:
        return None
    if lengths.ndim:
        return [int(length) for length in lengths]
    part = int(lengths)
    return [min(part, size - start) for start in range(0, size, part)]


def _position(reader: object, count: int) -> int | None:
    if not isinstance(reader, ops.SequenceAt):
        return None
    index = constant_value(reader.operands[1])
    position = int(index) if index is not None else count
    return position % count if -count <= position < count else None


def _part_type(value: SSAValue, axis: int, size: int) -> Attribute:
    element, dims = element_of(value.type), dims_of(value)
    if element is None or dims is None:
        raise TypeError("the sizes of the parts came from the type")
    at = axis % len(dims)
    return tensor_type(element.type, [*dims[:at], size, *dims[at + 1 :]])
