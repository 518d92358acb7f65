"""Fourier transforms of the parts of complex numbers, as ONNX's `DFT`.

PyTorch has three: of complex numbers, of real ones, and to real ones. `gimlet::dft` and `gimlet::real_dft` are ONNX's
operator as PyTorch can trace it; an inverse transform is divided by its length there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from gimlet.compiler.frontends.complex_numbers.pair import Pair, interleaved, parted

_BY_ROOT, _BY_LENGTH = 1, 2

_library: Final = torch.library.Library("gimlet", "FRAGMENT")
_library.define("dft(Tensor pairs, int axis, bool inverse) -> Tensor")
_library.define("real_dft(Tensor values, int axis, bool onesided) -> Tensor")


def _dft(pairs: Tensor, axis: int, inverse: bool) -> Tensor:
    """[…, 2] of complex numbers in pairs; `axis` is not the last."""
    transform = torch.fft.ifft if inverse else torch.fft.fft
    return torch.view_as_real(transform(torch.view_as_complex(pairs.contiguous()), dim=axis)).contiguous()


def _real_dft(values: Tensor, axis: int, onesided: bool) -> Tensor:
    """[…, 2] of real numbers; the first half of the frequencies, n//2 + 1, if it is `onesided`."""
    transform = torch.fft.rfft if onesided else torch.fft.fft
    return torch.view_as_real(transform(values, dim=axis)).contiguous()


def _dft_shape(pairs: Tensor, axis: int, inverse: bool) -> Tensor:
    del axis, inverse
    return torch.empty_like(pairs, memory_format=torch.contiguous_format)


def _real_dft_shape(values: Tensor, axis: int, onesided: bool) -> Tensor:
    shape: list[Any] = list(values.shape)
    if onesided:
        shape[axis] = shape[axis] // 2 + 1
    return values.new_empty([*shape, 2])


_library.impl("dft", _dft, "CPU")
_library.impl("real_dft", _real_dft, "CPU")
torch.library.register_fake("gimlet::dft", _dft_shape, lib=_library)
torch.library.register_fake("gimlet::real_dft", _real_dft_shape, lib=_library)


def forward(values: Any, dims: Sequence[int], norm: str | None) -> Pair:
    """The transform of complex or real numbers along some dimensions."""
    if isinstance(values, Tensor):
        return _of_real(values, dims, norm, onesided=False)
    return _scaled(_along(values, dims, inverse=False), _lengths(values, dims), norm)


def backward(values: Any, dims: Sequence[int], norm: str | None) -> Pair:
    values = Pair(values, torch.zeros_like(values)) if isinstance(values, Tensor) else values
    return _scaled_back(_along(values, dims, inverse=True), _lengths(values, dims), norm)


def _of_real(values: Tensor, dims: Sequence[int], norm: str | None, *, onesided: bool) -> Pair:
    """The last of the dimensions first, of which half the frequencies are kept if it is `onesided`."""
    found = parted(torch.ops.gimlet.real_dft(values, dims[-1] % values.ndim, onesided))
    return _scaled(_along(found, dims[:-1], inverse=False), _lengths(values, dims), norm)


def half_of_real(values: Tensor, dims: Sequence[int], norm: str | None) -> Pair:
    """Half the frequencies of real numbers."""
    return _of_real(values, dims, norm, onesided=True)


def real_of_half(values: Any, dims: Sequence[int], length: Any) -> Tensor:
    """The inverse of that, divided by the lengths: the other half of the last dimension is the conjugate of this."""
    if isinstance(values, Tensor):
        values = Pair(values, torch.zeros_like(values))
    last = dims[-1] % values.ndim
    half = _along(values, dims[:-1], inverse=True)
    other = half.each(lambda part: part.narrow(last, 1, (length - 1) // 2).flip(last))
    whole = Pair(torch.cat([half.re, other.re], last), torch.cat([half.im, -other.im], last))
    return _along(whole, [last], inverse=True).re


def _lengths(values: Any, dims: Sequence[int]) -> Any:
    return math.prod(values.shape[dim] for dim in dims)


def _along(values: Pair, dims: Sequence[int], *, inverse: bool) -> Pair:
    if not dims:
        return values
    made = interleaved(values)
    for dim in dims:
        made = torch.ops.gimlet.dft(made, dim % values.ndim, inverse)
    return parted(made)


def _scaled(values: Any, count: Any, norm: str | None) -> Any:
    if norm in (None, "backward"):
        return values
    return _each(values, 1 / (count if norm == "forward" else count**0.5))


def _scaled_back(values: Any, count: Any, norm: str | None) -> Any:
    """Of what was divided by the lengths."""
    if norm in (None, "backward"):
        return values
    return _each(values, count if norm == "forward" else count**0.5)


def _each(values: Any, factor: Any) -> Any:
    return values.each(lambda part: part * factor) if isinstance(values, Pair) else values * factor


def resized(values: Any, dim: int, length: Any) -> Any:
    """Cut, or padded with zeros, to a length; None leaves it."""
    if length is None or values.shape[dim] is length or values.shape[dim] == length:
        return values
    if isinstance(values, Pair):
        return values.each(lambda part: resized(part, dim, length))
    if values.shape[dim] > length:
        return values.narrow(dim, 0, length)
    amounts = [0, 0] * (values.ndim - 1 - dim % values.ndim) + [0, length - values.shape[dim]]
    return torch.nn.functional.pad(values, amounts)


def _floats(values: Any) -> Any:
    return values if isinstance(values, Pair) or values.is_floating_point() else values.to(torch.get_default_dtype())


def _dims(values: Any, sizes: Sequence[Any] | None, dims: Sequence[int] | None) -> list[int]:
    if dims is not None:
        return list(dims)
    return list(range(-len(sizes), 0)) if sizes is not None else list(range(values.ndim))


def _one(transform: Callable[..., Any]) -> Callable[..., Any]:
    def rule(values: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
        return transform(_floats(values), [n], [dim], norm)

    return rule


def _many(transform: Callable[..., Any], default: tuple[int, ...] | None = None) -> Callable[..., Any]:
    def rule(values: Any, s: Any = None, dim: Any = default, norm: str | None = None) -> Any:
        dims = _dims(values, s, dim)
        return transform(_floats(values), list(s) if s is not None else [None] * len(dims), dims, norm)

    return rule


def _all_resized(values: Any, sizes: Sequence[Any], dims: Sequence[int]) -> Any:
    for size, dim in zip(sizes, dims, strict=True):
        values = resized(values, dim, None if size == -1 else size)
    return values


def _fft(values: Any, sizes: Sequence[Any], dims: Sequence[int], norm: str | None) -> Pair:
    return forward(_all_resized(values, sizes, dims), dims, norm)


def _ifft(values: Any, sizes: Sequence[Any], dims: Sequence[int], norm: str | None) -> Pair:
    return backward(_all_resized(values, sizes, dims), dims, norm)


def _rfft(values: Tensor, sizes: Sequence[Any], dims: Sequence[int], norm: str | None) -> Pair:
    return half_of_real(_all_resized(values, sizes, dims), dims, norm)


def _irfft(values: Any, sizes: Sequence[Any], dims: Sequence[int], norm: str | None) -> Tensor:
    values, length = _half(values, sizes, dims)
    return _scaled_back(real_of_half(values, dims, length), _lengths(values, dims[:-1]) * length, norm)


def _half(values: Any, sizes: Sequence[Any], dims: Sequence[int]) -> tuple[Any, Any]:
    length = 2 * (values.shape[dims[-1]] - 1) if sizes[-1] is None or sizes[-1] == -1 else sizes[-1]
    return _all_resized(values, [*sizes[:-1], length // 2 + 1], dims), length


def _hfft(values: Any, sizes: Sequence[Any], dims: Sequence[int], norm: str | None) -> Tensor:
    """The transform of what is its own conjugate, reversed: that to real numbers of the conjugate, not divided."""
    values, length = _half(values, sizes, dims)
    values = Pair(values.re, -values.im) if isinstance(values, Pair) else values
    return _scaled(real_of_half(values, dims, length) * length, length, norm)


def _ihfft(values: Tensor, sizes: Sequence[Any], dims: Sequence[int], norm: str | None) -> Pair:
    opposite = {None: "forward", "backward": "forward", "forward": "backward", "ortho": "ortho"}
    found = _rfft(values, sizes, dims, opposite[norm])
    return Pair(found.re, -found.im)


_PLANE: Final = (-2, -1)
TRANSFORMS: Final[dict[str, Callable[..., Any]]] = {
    "fft_fft": _one(_fft),
    "fft_ifft": _one(_ifft),
    "fft_rfft": _one(_rfft),
    "fft_irfft": _one(_irfft),
    "fft_hfft": _one(_hfft),
    "fft_ihfft": _one(_ihfft),
    "fft_fft2": _many(_fft, _PLANE),
    "fft_ifft2": _many(_ifft, _PLANE),
    "fft_rfft2": _many(_rfft, _PLANE),
    "fft_irfft2": _many(_irfft, _PLANE),
    "fft_fftn": _many(_fft),
    "fft_ifftn": _many(_ifft),
    "fft_rfftn": _many(_rfft),
    "fft_irfftn": _many(_irfft),
}
"""By the name of PyTorch's operator, with its arguments."""
