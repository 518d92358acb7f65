"""Order along an axis, running values, and updates at places: of sorts, comparisons and scatters that ONNX has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from gimlet.compiler.frontends.written_out.inline import Written

_aten: Final = torch.ops.aten


def _sort(values: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """ONNX's TopK takes the first of equal values first, which is what a stable sort does."""
    return _aten.sort.default(values, dim, descending)


def _kth(values: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    ordered, places = _aten.sort.default(values, dim, False)
    found, at = ordered.narrow(dim, k - 1, 1), places.narrow(dim, k - 1, 1)
    return (found, at) if keepdim else (found.squeeze(dim), at.squeeze(dim))


def _median(values: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower of the two in the middle, and NaN where there is one."""
    found, at = _kth(values, (values.shape[dim] + 1) // 2, dim, keepdim)
    if values.is_floating_point():
        found = torch.where(values.isnan().any(dim, keepdim), math.nan, found)
    return found, at


def _median_of_all(values: Tensor) -> Tensor:
    return _median(values.flatten(), 0)[0]


def _nanmedian(values: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """NaNs are ordered behind all others; the middle is that of the others."""
    absent = values.isnan()
    ordered, places = _aten.sort.default(torch.where(absent, math.inf, values), dim, False)
    count = (~absent).sum(dim, keepdim=True)
    middle = ((count - 1) // 2).clamp(min=0)
    found, at = torch.where(count > 0, ordered.gather(dim, middle), math.nan), places.gather(dim, middle)
    return (found, at) if keepdim else (found.squeeze(dim), at.squeeze(dim))


def _is_known(values: Tensor, dim: int, *_args: Any, **_kwargs: Any) -> bool:
    """Running values are found in steps of 1, 2, 4, …, as many as the length needs."""
    return values.ndim > 0 and type(values.shape[dim]) is int


def _shifted(values: Tensor, dim: int, step: int, fill: float) -> Tensor:
    """What stands a step before each value, and `fill` at the front."""
    front = torch.full_like(values.narrow(dim, 0, step), fill)
    return torch.cat([front, values.narrow(dim, 0, values.shape[dim] - step)], dim)


def _steps(length: int) -> list[int]:
    return [1 << power for power in range(max(length - 1, 0).bit_length())]


def _cumprod(values: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    if dtype is None and not values.is_floating_point():
        dtype = torch.int64
    values = values if dtype is None else values.to(dtype)
    for step in _steps(values.shape[dim]):
        values = values * _shifted(values, dim, step, 1)
    return values


def _vander(values: Tensor, count: int | None = None, increasing: bool = False) -> Tensor:
    count = values.shape[-1] if count is None else count
    powers = torch.arange(count)
    return values.unsqueeze(-1) ** (powers if increasing else count - 1 - powers)


def _linalg_vander(values: Tensor, *, N: int | None = None) -> Tensor:  # noqa: N803 - PyTorch's name
    return _vander(values, N, increasing=True)


def _extreme(is_kept: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    """The running value that is `is_kept` against the one before, and its place: the last of equal ones."""

    def computed(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        dim = dim % values.ndim
        shape = [-1 if axis == dim else 1 for axis in range(values.ndim)]
        places = torch.arange(values.shape[dim]).reshape(shape).expand(values.shape)
        for step in _steps(values.shape[dim]):
            earlier, places_earlier = _shifted(values, dim, step, 0), _shifted(places, dim, step, -1)
            kept = (places_earlier < 0) | is_kept(values, earlier)
            values = torch.where(kept, values, earlier)
            places = torch.where(kept, places, places_earlier)
        return values, places

    return computed


def _at_least(later: Tensor, earlier: Tensor) -> Tensor:
    return (later >= earlier) | later.isnan() if later.is_floating_point() else later >= earlier


def _at_most(later: Tensor, earlier: Tensor) -> Tensor:
    return (later <= earlier) | later.isnan() if later.is_floating_point() else later <= earlier


def _searchsorted(
    bounds: Tensor,
    values: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """How many bounds are below each value, or not above it: every bound is compared."""
    if sorter is not None:
        bounds = bounds.gather(-1, sorter)
    rows = bounds.unsqueeze(-2) if bounds.ndim > 1 else bounds
    value = values.unsqueeze(-1)
    below = rows <= value if right or side == "right" else rows < value
    return below.sum(-1).to(torch.int32 if out_int32 else torch.int64)


def _isin(values: Tensor, tested: Tensor, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    del assume_unique
    found = (values.unsqueeze(-1) == tested.flatten()).any(-1)
    return ~found if invert else found


def _extreme_of(operator: Any) -> Callable[..., Tensor]:
    """Of all axes where none is named; ONNX has none of int16."""

    def computed(values: Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> Tensor:
        wide = values.to(torch.int32) if values.dtype == torch.int16 else values
        return operator(wide, list(dim) or list(range(values.ndim)), keepdim).to(values.dtype)

    return computed


_least, _most = _extreme_of(_aten.amin.default), _extreme_of(_aten.amax.default)


def _both_extremes(values: Tensor, *, dim: int | None = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    axes = () if dim is None else (dim,)
    return _least(values, axes, keepdim), _most(values, axes, keepdim)


def _fill_diagonal(values: Tensor, value: Any, wrap: bool = False) -> Tensor:
    del wrap
    rows, columns = torch.arange(values.shape[0]), torch.arange(values.shape[1])
    return values.copy_(torch.where(rows.unsqueeze(1) == columns, torch.full_like(values, value), values))


def _is_matrix(values: Tensor, _value: Any, wrap: bool = False) -> bool:
    return values.ndim == 2 and not wrap


def _random_order(count: Any, *, dtype: torch.dtype | None = None, **_named: Any) -> Tensor:
    return torch.rand([count]).argsort().to(dtype or torch.int64)


def _is_unusual(values: Tensor, dim: Sequence[int] = (), _keepdim: bool = False) -> bool:
    return values.ndim > 0 and (not dim or values.dtype == torch.int16)


def _put(values: Tensor, at: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    flat = values.flatten().index_put((at.flatten(),), source.flatten(), accumulate)
    return flat.reshape(values.shape)


def _index_reduce(
    values: Tensor, dim: int, at: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    shape = [-1 if axis == dim % values.ndim else 1 for axis in range(values.ndim)]
    places = at.reshape(shape).expand(source.shape)
    if reduce == "mean":
        return _scatter_mean(values, dim, places, source, reduce, include_self=include_self)
    return values.scatter_reduce(dim, places, source, reduce, include_self=include_self)


def _scatter_mean(
    values: Tensor, dim: int, at: Tensor, source: Tensor, _reduce: str, *, include_self: bool = True
) -> Tensor:
    counts = torch.zeros_like(values).scatter_add(dim, at, torch.ones_like(source))
    total = (values if include_self else torch.zeros_like(values)).scatter_add(dim, at, source)
    whole = counts + 1 if include_self else counts.clamp(min=1)
    mean = total / whole if values.is_floating_point() else torch.div(total, whole, rounding_mode="floor")
    return mean if include_self else torch.where(counts > 0, mean, values)


def _is_mean(_values: Tensor, _dim: int, _at: Tensor, _source: Tensor, reduce: str, **_named: Any) -> bool:
    return reduce == "mean"


def _diagonal_scatter(values: Tensor, source: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    moved = values.movedim((dim1, dim2), (0, 1))
    steps = torch.arange(source.shape[-1])
    found = moved.index_put((steps + max(-offset, 0), steps + max(offset, 0)), source.movedim(-1, 0))
    return found.movedim((0, 1), (dim1, dim2))


def _hstack(tensors: Sequence[Tensor]) -> Tensor:
    made = [tensor if tensor.ndim else tensor.unsqueeze(0) for tensor in tensors]
    return torch.cat(made, 0 if made[0].ndim == 1 else 1)


def _vstack(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor if tensor.ndim > 1 else tensor.reshape(1, -1) for tensor in tensors], 0)


def _dstack(tensors: Sequence[Tensor]) -> Tensor:
    rows = [tensor if tensor.ndim > 1 else tensor.reshape(1, -1) for tensor in tensors]
    return torch.cat([tensor if tensor.ndim > 2 else tensor.unsqueeze(2) for tensor in rows], 2)


ORDER: Final[dict[Any, Written]] = {
    _aten.sort.stable: Written(_sort),
    _aten.kthvalue.default: Written(_kth),
    _aten.median.dim: Written(_median),
    _aten.median.default: Written(_median_of_all),
    _aten.nanmedian.dim: Written(_nanmedian),
    _aten.cumprod.default: Written(_cumprod, _is_known),
    _aten.vander.default: Written(_vander),
    _aten.linalg_vander.default: Written(_linalg_vander),
    _aten.cummax.default: Written(_extreme(_at_least), _is_known),
    _aten.cummin.default: Written(_extreme(_at_most), _is_known),
    _aten.searchsorted.Tensor: Written(_searchsorted),
    _aten.amax.default: Written(_most, _is_unusual),
    _aten.amin.default: Written(_least, _is_unusual),
    _aten.aminmax.default: Written(_both_extremes),
    _aten.fill_diagonal_.default: Written(_fill_diagonal, _is_matrix),
    _aten.randperm.default: Written(_random_order),
    _aten.isin.Tensor_Tensor: Written(_isin),
    _aten.put.default: Written(_put),
    _aten.index_reduce.default: Written(_index_reduce),
    _aten.scatter_reduce.two: Written(_scatter_mean, _is_mean),
    _aten.diagonal_scatter.default: Written(_diagonal_scatter),
    _aten.hstack.default: Written(_hstack),
    _aten.vstack.default: Written(_vstack),
    _aten.dstack.default: Written(_dstack),
}
