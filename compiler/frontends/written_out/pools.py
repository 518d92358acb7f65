"""Pools and convolutions: adaptive ones of any size, a divisor of one's own, no bias in three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from gimlet.compiler.frontends.written_out.inline import Written

_aten: Final = torch.ops.aten
_AVERAGES: Final = {1: _aten.avg_pool1d.default, 2: _aten.avg_pool2d.default, 3: _aten.avg_pool3d.default}


def _bounds(size: Any, parts: int) -> list[tuple[Any, Any]]:
    """Where each window begins and ends, as PyTorch has them: floor(i·size/parts) to ceil((i+1)·size/parts)."""
    return [(part * size // parts, ((part + 1) * size + parts - 1) // parts) for part in range(parts)]


def _adaptive_average(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """One axis after the other: a window is a box, and the mean of its means."""
    for axis, parts in zip(range(-len(sizes), 0), sizes, strict=True):
        if values.shape[axis] is parts:
            continue
        bounds = _bounds(values.shape[axis], int(parts))
        means = [values.narrow(axis, begin, end - begin).mean(axis, keepdim=True) for begin, end in bounds]
        values = torch.cat(means, axis)
    return values


def _adaptive_maximum(values: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The last axis first, and the first of equal values: then PyTorch's choice among them is met, too."""
    places = torch.zeros_like(values, dtype=torch.int64)
    stride: Any = 1
    for axis, parts in reversed(list(zip(range(-len(sizes), 0), sizes, strict=True))):
        found: list[tuple[Tensor, Tensor]] = []
        for begin, end in _bounds(values.shape[axis], int(parts)):
            most, at = values.narrow(axis, begin, end - begin).max(axis, keepdim=True)
            before = places.narrow(axis, begin, end - begin).gather(axis, at)
            found.append((most, (at + begin) * stride + before))
        stride = stride * values.shape[axis]
        values, places = (torch.cat(each, axis) for each in zip(*found, strict=True))
    return values, places


def _is_average_needed(values: Tensor, sizes: Sequence[Any]) -> bool:
    """The exporter takes windows that are alike and known; it lacks some in three dimensions."""
    if all(type(size) is int and size == 1 for size in sizes):
        return False
    known = [type(size) is int for size in values.shape[-len(sizes) :]]
    if not all(known):
        return all(
            type(parts) is int or parts is size for parts, size in zip(sizes, values.shape[-len(sizes) :], strict=True)
        )
    return len(sizes) == 3


def _is_maximum_needed(_values: Tensor, sizes: Sequence[int]) -> bool:
    return any(size != 1 for size in sizes)


def _divided(
    values: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int = 1,
) -> Tensor:
    """A mean over whole windows, of values padded by hand, times the size of a window through the divisor.

    How many windows there are, PyTorch's own says, whose result nothing reads.
    """
    rank = len(kernel)
    padding = [*padding] * (rank // len(padding))
    steps = [*(stride or kernel)] * (rank // len(stride or kernel))
    windows = _AVERAGES[rank](values, kernel, steps, padding, ceil_mode).shape[-rank:]
    amounts: list[Any] = []
    size = 1
    for axis in range(rank):
        size *= kernel[axis]
        length = values.shape[values.ndim - rank + axis] + 2 * padding[axis]
        more = torch.sym_max(0, (windows[axis] - 1) * steps[axis] + kernel[axis] - length)
        amounts = [padding[axis], padding[axis] + more, *amounts]
    whole = torch.nn.functional.pad(values, amounts)
    return _AVERAGES[rank](whole, kernel, steps) * (size / divisor)


def _has_divisor(*args: Any, divisor_override: int | None = None, **_kwargs: Any) -> bool:
    return len(args) == 7 and args[6] is not None


def _convolution(values: Tensor, weight: Tensor, bias: None = None, *settings: Any, **named: Any) -> Tensor:
    """The exporter's own bias of zeros has two dimensions."""
    return _aten.conv3d.default(values, weight, values.new_zeros([weight.shape[0]]), *settings, **named)


def _has_no_bias(*args: Any, **_kwargs: Any) -> bool:
    return len(args) < 3 or args[2] is None


POOLS: Final[dict[Any, Written]] = {
    _aten.adaptive_avg_pool1d.default: Written(_adaptive_average, _is_average_needed),
    _aten.adaptive_avg_pool2d.default: Written(_adaptive_average, _is_average_needed),
    _aten.adaptive_avg_pool3d.default: Written(_adaptive_average, _is_average_needed),
    _aten.adaptive_max_pool1d.default: Written(_adaptive_maximum, _is_maximum_needed),
    _aten.adaptive_max_pool2d.default: Written(_adaptive_maximum, _is_maximum_needed),
    _aten.adaptive_max_pool3d.default: Written(_adaptive_maximum, _is_maximum_needed),
    _aten.avg_pool2d.default: Written(_divided, _has_divisor),
    _aten.avg_pool3d.default: Written(_divided, _has_divisor),
    _aten.conv3d.default: Written(_convolution, _has_no_bias),
}
