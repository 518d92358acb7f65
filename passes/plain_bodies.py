"""What operators of ONNX compute that it defines in words only, as lines of functions of simpler ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gimlet.dialects.onnx import OnnxOp
from gimlet.passes.einsum_lines import einsum

OLDEST_PLAIN = 13
"""The oldest opset at which Unsqueeze, Squeeze and ReduceSum are given their axes as an input."""

PLAIN: Mapping[str, Callable[[OnnxOp, int], list[str] | None]] = {
    "Einsum": einsum,
}
