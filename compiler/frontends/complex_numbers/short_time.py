"""Short-time Fourier transforms, of signals of any length, and their inverse."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch._C import DispatchKey

from gimlet.compiler.frontends.complex_numbers.fourier import real_of_half
from gimlet.compiler.frontends.complex_numbers.pair import COMPLEX_OF, REAL_OF, Pair, parted, real_part

_library: Final = torch.library.Library("gimlet", "FRAGMENT")
_library.define("stft(Tensor signals, Tensor window, int step, bool onesided) -> Tensor")


def _stft(signals: Tensor, window: Tensor, step: int, onesided: bool) -> Tensor:
    """[B, frames, frequencies, 2] of signals [B, N]: a frame has the window's length."""
    frames = signals.unfold(-1, window.shape[0], step) * window
    return torch.view_as_real((torch.fft.rfft if onesided else torch.fft.fft)(frames)).contiguous()


def _stft_shape(signals: Tensor, window: Tensor, step: int, onesided: bool) -> Tensor:
    length = window.shape[0]
    frames = (signals.shape[1] - length) // step + 1
    return signals.new_empty([signals.shape[0], frames, length // 2 + 1 if onesided else length, 2])


_library.impl("stft", _stft, "CPU")
torch.library.register_fake("gimlet::stft", _stft_shape, lib=_library)


@contextmanager
def short_time_in_shapes() -> Generator[None]:
    """While this lasts, PyTorch gets the shapes of these transforms at once.

    It would compute them step by step, and ask on the way whether sizes divide each other, which fixes them.
    """
    kernels = {torch.ops.aten.stft.default: _spectrogram_shape, torch.ops.aten.istft.default: _signal_shape}
    before = {operator: dict(operator.py_kernels) for operator in kernels}
    try:
        for operator, kernel in kernels.items():
            _set_kernels(operator, {**before[operator], DispatchKey.CompositeImplicitAutograd: kernel})
        yield
    finally:
        for operator, found in before.items():
            _set_kernels(operator, found)


def _set_kernels(operator: Any, kernels: Mapping[Any, Any]) -> None:
    operator.py_kernels.clear()
    operator.py_kernels.update(kernels)
    operator._dispatch_cache.clear()


def _spectrogram_shape(
    values: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Tensor:
    del win_length, window, normalized, align_to_window
    half = onesided is not False and not values.is_complex()
    frames = (values.shape[-1] - n_fft) // (n_fft // 4 if hop_length is None else hop_length) + 1
    shape = [*values.shape[:-1], n_fft // 2 + 1 if half else n_fft, frames]
    dtype = COMPLEX_OF.get(values.dtype, values.dtype)
    return values.new_empty(shape, dtype=dtype) if return_complex else values.new_empty([*shape, 2])


def _signal_shape(
    values: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: Any = None,
    return_complex: bool = False,
) -> Tensor:
    del win_length, window, normalized, onesided
    whole = n_fft + (n_fft // 4 if hop_length is None else hop_length) * (values.shape[-1] - 1)
    count = (whole - 2 * (n_fft // 2) if center else whole) if length is None else length
    dtype = values.dtype if return_complex else REAL_OF[values.dtype]
    return values.new_empty([*values.shape[:-2], count], dtype=dtype)


def _window(values: Any, window: Tensor | None, n_fft: int, win_length: int | None) -> Tensor:
    """The window, of ones where there is none, in the middle of a frame."""
    length = n_fft if win_length is None else win_length
    made = values.new_ones([length]) if window is None else window.to(values.dtype)
    before = (n_fft - length) // 2
    return torch.nn.functional.pad(made, [before, n_fft - length - before])


def spectrogram(
    values: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Pair:
    """`aten.stft`: `torch.stft` has padded what it centers."""
    del return_complex
    if align_to_window:
        raise ValueError("align_to_window=True")
    step = n_fft // 4 if hop_length is None else hop_length
    shape = _window(real_part(values), window, n_fft, win_length)
    if normalized:
        shape = shape * n_fft**-0.5

    def part(real: Tensor, half: bool) -> Pair:
        signals = real if real.ndim == 2 else real.unsqueeze(0)
        found = torch.ops.gimlet.stft(signals, shape, step, half).transpose(1, 2)
        return parted(found if real.ndim == 2 else found.squeeze(0))

    if isinstance(values, Pair):
        return part(values.re, False) + part(values.im, False).times_i()
    return part(values, onesided is not False)


def signal(
    values: Pair,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: Any = None,
    return_complex: bool = False,
) -> Tensor:
    """`torch.istft` to a real signal: frames added where they overlap, over the sum of the squared windows there."""
    if return_complex:
        raise ValueError("return_complex=True")
    step = n_fft // 4 if hop_length is None else hop_length
    frames = (values if values.ndim == 3 else values.each(lambda part: part.unsqueeze(0))).each(
        lambda part: part.transpose(1, 2)
    )
    if onesided is False:
        frames = frames.each(lambda part: part.narrow(-1, 0, n_fft // 2 + 1))
    shape = _window(values, window, n_fft, win_length)
    waves = real_of_half(frames, [-1], n_fft) * shape
    waves = waves * n_fft**0.5 if normalized else waves
    count = frames.shape[1]
    whole = n_fft + step * (count - 1)
    weights = (shape * shape).expand(1, count, n_fft)
    begin = n_fft // 2 if center else 0
    end = begin + length if length is not None else whole - begin
    kept: Any = torch.sym_min(end, whole) - begin if length is not None else end - begin
    total, weight = (_overlapped(each, step, whole).narrow(-1, begin, kept) for each in (waves, weights))
    found = total / weight
    if length is not None:
        found = torch.nn.functional.pad(found, [0, length - kept])
    return found if values.ndim == 3 else found.squeeze(0)


def _overlapped(frames: Tensor, step: int, whole: Any) -> Tensor:
    """[B, whole] of frames [B, count, n] that begin a step apart: each is cut into steps, and equal places added."""
    batch, count, n = frames.shape
    parts = -(-n // step)
    cut = torch.nn.functional.pad(frames, [0, parts * step - n]).reshape(batch, count, parts, step)
    shifted = [torch.nn.functional.pad(cut.select(2, part), [0, 0, part, parts - 1 - part]) for part in range(parts)]
    total = shifted[0]
    for each in shifted[1:]:
        total = total + each
    return total.reshape(batch, (count + parts - 1) * step).narrow(-1, 0, whole)
