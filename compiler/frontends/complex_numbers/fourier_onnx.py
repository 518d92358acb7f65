"""Fourier transforms in ONNX: `DFT` and `STFT` of powers of two, products with the matrix of all others.

ONNX Runtime's kernels are off by up to 5e-5 of the largest value where the length is not a power of two (measured from
60 to 640, float32; a product with the matrix by 4e-7, PyTorch by 1.4e-7), and no faster there at these lengths.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

MOST: Final = 1024
"""Longer transforms are always `DFT`: the matrix of a complex one of this length has 16 MiB."""


def fourier_translations() -> dict[Any, Callable[..., Any]]:
    """By operator, as the `custom_translation_table` of torch.onnx.export takes them."""
    operators = torch.ops.gimlet
    return {operators.dft.default: _dft, operators.real_dft.default: _real_dft, operators.stft.default: _stft}


def _op() -> Any:
    # The stubs know tensors and numbers of Python, not the values that PyTorch's exporter records.
    return import_module("onnxscript").opset18


def _by_matrix(length: Any) -> bool:
    return isinstance(length, int) and 1 < length <= MOST and length & (length - 1) != 0


def _waves(length: int, count: int, *, inverse: bool = False) -> NDArray[np.complex128]:
    """[length, count] of e^(-2πi jk/length), the conjugate over the length if `inverse`."""
    turns = np.outer(np.arange(length), np.arange(count)) % length / length
    angles = 2 * np.pi * turns
    waves: NDArray[np.complex128] = np.cos(angles) - 1j * np.sin(angles)
    return waves.conj() / length if inverse else waves


def _constant(array: NDArray[Any], like: Any) -> Any:
    return _op().Constant(value=ir.tensor(np.ascontiguousarray(array.astype(like.dtype.numpy()))))


def _ints(*values: int) -> Any:
    return _op().Constant(value_ints=list(values))


def _dft(pairs: Any, axis: int, inverse: bool) -> Any:
    """[…, 2] of […, 2], along an axis of the others."""
    op, rank, length = _op(), len(pairs.shape), pairs.shape[axis]
    if not _by_matrix(length):
        return op.DFT(pairs, axis=axis, inverse=int(inverse))
    waves = _waves(length, length, inverse=inverse)
    # Of a number's two parts, each goes to both of every result's.
    parts = np.stack([np.stack([waves.real, waves.imag], -1), np.stack([-waves.imag, waves.real], -1)], 1)
    order = [*(each for each in range(rank - 1) if each != axis), axis, rank - 1]
    rows = op.Reshape(op.Transpose(pairs, perm=order), _ints(*[0] * (rank - 2), 2 * length))
    found = op.MatMul(rows, _constant(parts.reshape(2 * length, 2 * length), pairs))
    return op.Transpose(op.Reshape(found, _ints(*[0] * (rank - 2), length, 2)), perm=_back(order))


def _real_dft(values: Any, axis: int, onesided: bool) -> Any:
    """[…, 2] of real numbers."""
    op, rank, length = _op(), len(values.shape), values.shape[axis]
    if not _by_matrix(length):
        return op.DFT(op.Unsqueeze(values, _ints(-1)), axis=axis, onesided=int(onesided))
    count = length // 2 + 1 if onesided else length
    order = [*(each for each in range(rank) if each != axis), axis]
    found = op.MatMul(op.Transpose(values, perm=order), _constant(_in_columns(_waves(length, count)), values))
    found = op.Reshape(found, _ints(*[0] * (rank - 1), count, 2))
    return op.Transpose(found, perm=_back([*order, rank]))


def _in_columns(waves: NDArray[np.complex128]) -> NDArray[np.float64]:
    """[length, 2·count]: real and imaginary parts in turns."""
    return np.stack([waves.real, waves.imag], -1).reshape(len(waves), -1)


def _back(order: list[int]) -> list[int]:
    return [order.index(place) for place in range(len(order))]


def _stft(signals: Any, window: Any, step: int, onesided: bool) -> Any:
    """[B, frames, frequencies, 2] of signals [B, N]; by the matrix, a convolution in steps."""
    op, length = _op(), window.shape[0]
    if not _by_matrix(length):
        return op.STFT(signals, op.Constant(value_int=step), window, onesided=int(onesided))
    count = length // 2 + 1 if onesided else length
    waves = _constant(_in_columns(_waves(length, count)).T[:, None], signals)
    found = op.Conv(op.Unsqueeze(signals, _ints(1)), op.Mul(waves, window), strides=[step])
    return op.Reshape(op.Transpose(found, perm=[0, 2, 1]), _ints(0, 0, count, 2))
