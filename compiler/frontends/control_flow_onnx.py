"""Branches and loops of PyTorch that its ONNX exporter lacks or writes wrongly, as `Loop` and `Scan`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.onnx._internal.exporter._torchlib.ops import hop


def control_flow_translations() -> dict[Any, Callable[..., Any]]:
    """By PyTorch's operator, as the `custom_translation_table` of torch.onnx.export takes them."""
    return {torch.ops.higher_order.while_loop: _while_loop, torch.ops.higher_order.map_impl: _map}


def _while_loop(condition: Any, body: Any, carried: Any, others: Any) -> Any:
    """PyTorch's own, with its first call of the condition at the version that the others have, which is none."""
    results: Any = hop.higher_order_while_loop(condition, body, carried, others)
    begin = results[0].producer().inputs[1].producer()
    begin.version = None
    return results


def _map(body: Any, items: Any, others: Any) -> Any:
    return hop.higher_order_scan(body, [], items, others)
