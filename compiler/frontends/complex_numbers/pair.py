"""A complex tensor as the real tensors of its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node

REAL_OF: Final = {
    torch.complex32: torch.float16,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}
COMPLEX_OF: Final = {real: number for number, real in REAL_OF.items()}


@dataclass(frozen=True)
class Pair:
    """A tensor's real and imaginary parts, of one shape and type."""

    re: Tensor
    im: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parts."""
        return self.re.dtype

    @property
    def imag(self) -> Tensor:
        """As numbers of Python have it."""
        return self.im

    @property
    def ndim(self) -> int:
        return self.re.ndim

    @property
    def shape(self) -> torch.Size:
        return self.re.shape

    def each(self, function: Callable[[Tensor], Tensor]) -> Pair:
        return Pair(function(self.re), function(self.im))

    def __add__(self, other: Pair) -> Pair:
        return Pair(self.re + other.re, self.im + other.im)

    def __sub__(self, other: Pair) -> Pair:
        return Pair(self.re - other.re, self.im - other.im)

    def __neg__(self) -> Pair:
        return Pair(-self.re, -self.im)

    def times_i(self) -> Pair:
        return Pair(-self.im, self.re)


register_pytree_node(Pair, lambda pair: ([pair.re, pair.im], None), lambda parts, _: Pair(*parts))


def interleaved(pair: Pair) -> Tensor:
    """As ONNX has complex numbers: a last dimension of two."""
    return torch.stack([pair.re, pair.im], -1)


def parted(values: Tensor) -> Pair:
    return Pair(values.select(-1, 0), values.select(-1, 1))


def real_part(value: Any) -> Any:
    """Of a pair or a complex number; anything else is real."""
    return value.re if isinstance(value, Pair) else value.real if isinstance(value, complex) else value


def imaginary_part(value: Any) -> Any:
    """Of a pair or a number; zeros of a real tensor."""
    if isinstance(value, Pair):
        return value.im
    if isinstance(value, Tensor):
        return torch.zeros_like(value)
    return value.imag if isinstance(value, complex) else 0


def is_real(value: Any) -> bool:
    return not isinstance(value, Pair | complex)
