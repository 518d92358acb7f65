"""Grouped matrix products, of experts that are no `MoE`, as products that ONNX has.

Rows are sorted by expert, and `offs` says where the rows of each end. Every expert is multiplied with every row, and
what is not an expert's own is dropped: E times the operations, and no gather of weights. The way to one operator is the
module itself (`experts`), where its activation is one that `MoE` has.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

OPERATORS = ("aten::_grouped_mm", "transformers::grouped_mm_fallback")


def grouped_translations() -> dict[Any, Callable[..., Any]]:
    """The translation of every operator for grouped products that PyTorch and transformers have registered here."""
    found: dict[Any, Callable[..., Any]] = {}
    for name in OPERATORS:
        namespace, _, operator = name.partition("::")
        packet = getattr(getattr(torch.ops, namespace), operator, None)
        if packet is not None:
            found[packet.default] = _grouped_product
    return found


def _grouped_product(rows: Any, weights: Any, offs: Any, bias: Any = None, out_dtype: int = -1) -> Any:
    """[S, N] of rows [S, K], weights [E, K, N] and the ends [E] of the experts' rows."""
    # The stubs know tensors and numbers of Python, not the values that PyTorch's exporter records.
    op: Any = import_module("onnxscript").opset18
    del bias, out_dtype
    ends = op.Cast(offs, to=7)
    starts = op.Concat(_ints(op, 0), op.Slice(ends, _ints(op, 0), _ints(op, -1), _ints(op, 0)), axis=0)
    places = op.Range(_int(op, 0), op.Squeeze(op.Shape(rows, end=1, start=0)), _int(op, 1))
    before, begun = (op.Less(places, op.Unsqueeze(bounds, _ints(op, 1))) for bounds in (starts, ends))
    own = op.Unsqueeze(op.And(begun, op.Not(before)), _ints(op, 2))
    products = op.MatMul(op.Unsqueeze(rows, _ints(op, 0)), weights)
    kept = op.Where(own, products, op.CastLike(op.Constant(value_float=0.0), products))
    return op.ReduceSum(kept, _ints(op, 0), keepdims=0)


def _int(op: Any, value: int) -> Any:
    return op.Constant(value_int=value)


def _ints(op: Any, *values: int) -> Any:
    return op.Constant(value_ints=list(values))
