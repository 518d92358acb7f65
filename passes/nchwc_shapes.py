"""Shapes of the operators on blocks of channels (`com.microsoft.nchwc`), which ONNX Runtime writes into the models that
it saves for one processor: values have the dimensions that they had, but for channels that fill the last block.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_shape_inference import ShapeInferenceContext, registry

from gimlet.passes.contrib_shapes import Twin

DOMAIN = "com.microsoft.nchwc"
# A block is as long as the processor's vectors: 8 floats, or 16 with AVX-512. What 16 divides needs no filling.
_LONGEST_BLOCK = 16
_TWINS = {
    "AveragePool": Twin("AveragePool", (0,)),
    "Conv": Twin("Conv", (0, 1)),
    "GlobalAveragePool": Twin("GlobalAveragePool", (0,)),
    "GlobalMaxPool": Twin("GlobalMaxPool", (0,)),
    "MaxPool": Twin("MaxPool", (0,)),
}


def extend_with_nchwc() -> None:
    """Registers the rules; nobody else has any."""
    for op_type, twin in _TWINS.items():
        registry.register(DOMAIN, op_type, 1)(twin.infer)
    registry.register(DOMAIN, "ReorderInput", 1)(_to_blocks)
    registry.register(DOMAIN, "ReorderOutput", 1)(_from_blocks)
    registry.register(DOMAIN, "Upsample", 1)(_upsample)


def _has_channels_last(node: ir.Node) -> bool:
    return "channels_last" in node.attributes and bool(node.attributes["channels_last"].as_int())


def _to_blocks(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    data = node.inputs[0]
    if data is None or data.shape is None:
        return
    dims = list(data.shape)
    batch, sizes, channels = dims[0], dims[2:], dims[1]
    if _has_channels_last(node):
        sizes, channels = dims[1:-1], dims[-1]
    is_whole = isinstance(channels, int) and channels % _LONGEST_BLOCK == 0
    filled = channels if is_whole else ctx.new_symbolic_dim()
    ctx.set_shape_and_dtype(node.outputs[0], ir.Shape([batch, filled, *sizes]), data.dtype)


def _from_blocks(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    data, channels = node.inputs[0], node.attributes.get("channels")
    if data is None or data.shape is None or channels is None:
        return
    batch, sizes = data.shape[0], list(data.shape[2:])
    dims = [*sizes, channels.as_int()] if _has_channels_last(node) else [channels.as_int(), *sizes]
    ctx.set_shape_and_dtype(node.outputs[0], ir.Shape([batch, *dims]), data.dtype)


def _upsample(ctx: ShapeInferenceContext, node: ir.Node) -> None:
    data, scales = node.inputs[0], node.attributes.get("scales")
    if data is None or data.shape is None or scales is None:
        return
    dims = [dim * scale for dim, scale in zip(data.shape, scales.as_ints(), strict=True)]
    ctx.set_shape_and_dtype(node.outputs[0], ir.Shape(dims), data.dtype)
