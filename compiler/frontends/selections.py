"""`torch.masked_select`, whose size only its values say, in ONNX: PyTorch's exporter lacks it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch


def selection_translations() -> dict[Any, Callable[..., Any]]:
    """By PyTorch's operator, as the `custom_translation_table` of torch.onnx.export takes them."""
    return {torch.ops.aten.masked_select.default: _masked_select}


def _masked_select(values: Any, mask: Any) -> Any:
    """[K] of the values where the mask is true, both broadcast to one shape."""
    op: Any = import_module("onnxscript").opset18
    flat = op.Constant(value_ints=[-1])
    wide = op.Reshape(op.Expand(values, op.Shape(mask)), flat)
    chosen = op.Reshape(op.Expand(mask, op.Shape(values)), flat)
    return op.Compress(wide, chosen)
