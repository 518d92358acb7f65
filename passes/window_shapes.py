"""Sizes of what windows leave, for every size of the input: convolutions and pooling."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from onnx_shape_inference import ShapeInferenceContext

_Rule = Callable[[ShapeInferenceContext, ir.Node], None]
_SAME = ("SAME_UPPER", "SAME_LOWER")


def windows(infer: _Rule | None) -> _Rule:
    """The library's rule `infer`, asked of windows that are counted by rounding down where the node's are rounded up.

    Windows that are padded to fit are ceil(size / stride), and with `ceil_mode` the last one that starts within the
    input or the padding before it counts. The library leaves some of these sizes unknown and spells others with a
    `ceiling` that it cannot read itself. Windows of one element with as much padding in front are as many.
    """

    def rule(ctx: ShapeInferenceContext, node: ir.Node) -> None:
        data = node.inputs[0]
        added = _added(node, len(data.shape) - 2) if data is not None and data.shape is not None else None
        if infer is None:
            return
        if added is None:
            infer(ctx, node)
            return
        own = dict(node.attributes)
        for name in ("auto_pad", "ceil_mode"):
            node.attributes.pop(name, None)
        ones, padding = [1] * len(added), [*added, *[0] * len(added)]
        for name, values in {"kernel_shape": ones, "dilations": ones, "pads": padding}.items():
            node.attributes[name] = ir.AttrInt64s(name, values)
        infer(ctx, node)
        node.attributes.clear()
        node.attributes.update(own)

    return rule


def unpooled(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    """What MaxUnpool makes of known sizes: as the pool had, but for what it rounded down, or as a constant says."""
    del ctx
    data, kernel, output = node.inputs[0], node.attributes.get("kernel_shape"), node.outputs[0]
    if data is None or data.shape is None or kernel is None:
        return
    output.type = data.type
    given = node.inputs[2] if len(node.inputs) > 2 else None
    rank = len(data.shape) - 2
    if given is not None:
        known = ir.convenience.get_const_tensor(given)
        output.shape = ir.Shape([None] * (rank + 2) if known is None else known.numpy().tolist())
        return
    strides, pads = _ints(node, "strides", [1] * rank), _ints(node, "pads", [0] * (2 * rank))
    dims: list[int | ir.SymbolicDim | None] = list(data.shape[:2])
    for axis, size in enumerate(kernel.as_ints()):
        before = data.shape[axis + 2]
        grown = (
            (before - 1) * strides[axis] + size - pads[axis] - pads[axis + rank] if isinstance(before, int) else None
        )
        dims.append(grown)
    output.shape = ir.Shape(dims)


def _added(node: ir.Node, rank: int) -> list[int] | None:
    """What is added to each size before it is divided by the stride and rounded up. None where it is rounded down."""
    given = node.attributes.get("auto_pad")
    if given is not None and given.as_string() in _SAME:
        return [0] * rank
    rounds_up, kernel = node.attributes.get("ceil_mode"), node.attributes.get("kernel_shape")
    if rounds_up is None or not rounds_up.as_int() or kernel is None:
        return None
    sizes = kernel.as_ints()
    strides, dilations = (_ints(node, name, [1] * rank) for name in ("strides", "dilations"))
    pads = _ints(node, "pads", [0] * (2 * rank))
    if {len(sizes), len(strides), len(dilations)} != {rank} or len(pads) != 2 * rank:
        return None
    reach = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, sizes, strict=True)]
    before, after = pads[:rank], pads[rank:]
    return [
        begin + min(end - size + stride, 0)
        for begin, end, size, stride in zip(before, after, reach, strides, strict=True)
    ]


def _ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
    given = node.attributes.get(name)
    return list(given.as_ints()) if given is not None else default
