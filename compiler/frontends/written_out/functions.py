"""Functions of single values that ONNX lacks, of what it has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from gimlet.compiler.frontends.written_out.inline import Written

_aten: Final = torch.ops.aten

# M. Giles, "Approximating the erfinv function" (2010), single precision, of w = -log(1 - x²): w - 2.5 and √w - 3.
_NEAR: Final = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_FAR: Final = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip
_SHIFT: Final = 8
_NEAR_ENOUGH: Final = 20


def _polynomial(values: Tensor, coefficients: Sequence[float]) -> Tensor:
    found = torch.full_like(values, coefficients[0])
    for coefficient in coefficients[1:]:
        found = found * values + coefficient
    return found


def _erfinv(values: Tensor) -> Tensor:
    wide = -torch.log((1 - values) * (1 + values))
    far = torch.sqrt(wide.clamp(min=5.0)) - 3
    found = torch.where(wide < 5, _polynomial(wide - 2.5, _NEAR), _polynomial(far, _FAR)) * values
    return torch.where(values.abs() == 1, values * math.inf, found)


def _lgamma(values: Tensor) -> Tensor:
    """Stirling's series, below 20 that at x + 8; below 1/2 by reflection, Γ(x)·Γ(1 - x) = π / sin(πx)."""
    low = values < 0.5
    above = torch.where(low, 1 - values, values)
    near = above < _NEAR_ENOUGH
    product = above
    for step in range(1, _SHIFT):
        product = product * (above + step)
    far = torch.where(near, above + _SHIFT, above)
    inverse = 1 / far
    series = inverse * (1 / 12 - inverse * inverse * (1 / 360 - inverse * inverse / 1260))
    found = (far - 0.5) * torch.log(far) - far + 0.5 * math.log(2 * math.pi) + series
    found = found - torch.where(near, torch.log(product), 0.0)
    sine = torch.sin(math.pi * (values - torch.round(values))).abs()
    found = torch.where(low, math.log(math.pi) - torch.log(sine) - found, found)
    return torch.where((low & (values == torch.floor(values))) | values.isinf(), math.inf, found)


def _digamma(values: Tensor) -> Tensor:
    """The series at x + 8; below 1/2 by reflection, ψ(1 - x) - ψ(x) = π / tan(πx)."""
    low = values < 0.5
    above = torch.where(low, 1 - values, values)
    steps = sum((1 / (above + step) for step in range(_SHIFT)), torch.zeros_like(above))
    far = above + _SHIFT
    square = 1 / (far * far)
    found = torch.log(far) - 0.5 / far - square * (1 / 12 - square * (1 / 120 - square / 252)) - steps
    reflected = found - math.pi / torch.tan(math.pi * (values - torch.round(values)))
    poles = torch.where(values == 0, -1 / values, math.nan)
    return torch.where(low, torch.where(values == torch.floor(values), poles, reflected), found)


def _fmax(left: Tensor, right: Tensor) -> Tensor:
    return torch.where(left.isnan(), right, torch.where(right.isnan(), left, torch.maximum(left, right)))


def _fmin(left: Tensor, right: Tensor) -> Tensor:
    return torch.where(left.isnan(), right, torch.where(right.isnan(), left, torch.minimum(left, right)))


def _copysign(values: Tensor, signs: Any) -> Tensor:
    """The sign of a zero shows in its inverse. A NaN counts as positive."""
    negative = (signs < 0) | ((signs == 0) & (1 / signs < 0))
    return torch.where(negative, -values.abs(), values.abs())


def _hypot(left: Tensor, right: Tensor) -> Tensor:
    """Scaled by the longer side, so that no square is infinite."""
    longer, shorter = torch.maximum(left.abs(), right.abs()), torch.minimum(left.abs(), right.abs())
    ratio = torch.where(longer == 0, shorter, shorter / longer)
    found = longer * torch.sqrt(1 + ratio * ratio)
    return torch.where(left.isinf() | right.isinf(), math.inf, found)


def _is_of_floats(values: Tensor, other: Any = None) -> bool:
    return values.is_floating_point() and (not isinstance(other, Tensor) or other.is_floating_point())


def _bernoulli(chances: Tensor) -> Tensor:
    """ONNX Runtime draws a one where the chance is that of a zero (seen in 1.32: of ones it makes zeros)."""
    return (torch.rand_like(chances) < chances).to(chances.dtype)


def _bernoulli_of(values: Tensor, chance: float = 0.5) -> Tensor:
    return (torch.rand_like(values) < chance).to(values.dtype)


def _ndtri(values: Tensor) -> Tensor:
    return math.sqrt(2) * _erfinv(2 * values - 1)


def _multigammaln(values: Tensor, rank: int) -> Tensor:
    parts = [_lgamma(values - step / 2) for step in range(rank)]
    return torch.stack(parts).sum(0) + math.log(math.pi) * rank * (rank - 1) / 4


def _hamming(count: int, *rest: Any, **named: Any) -> Tensor:
    """ONNX's has 25/46 and 21/46 where PyTorch's has 0.54 and 0.46, or what it is given."""
    periodic, alpha, beta = (*rest, *(True, 0.54, 0.46)[len(rest) :])
    turns = torch.arange(count, **named) / max(count if periodic else count - 1, 1)
    return alpha - beta * torch.cos(2 * math.pi * turns)


FUNCTIONS: Final[dict[Any, Written]] = {
    _aten.hamming_window.default: Written(_hamming),
    _aten.hamming_window.periodic: Written(_hamming),
    _aten.hamming_window.periodic_alpha: Written(_hamming),
    _aten.hamming_window.periodic_alpha_beta: Written(_hamming),
    _aten.erfinv.default: Written(_erfinv, _is_of_floats),
    _aten.lgamma.default: Written(_lgamma, _is_of_floats),
    _aten.digamma.default: Written(_digamma, _is_of_floats),
    _aten.special_erfinv.default: Written(_erfinv, _is_of_floats),
    _aten.special_gammaln.default: Written(_lgamma, _is_of_floats),
    _aten.special_digamma.default: Written(_digamma, _is_of_floats),
    _aten.special_psi.default: Written(_digamma, _is_of_floats),
    _aten.special_multigammaln.default: Written(_multigammaln, _is_of_floats),
    _aten.mvlgamma.default: Written(_multigammaln, _is_of_floats),
    _aten.special_ndtri.default: Written(_ndtri, _is_of_floats),
    _aten.bernoulli.default: Written(_bernoulli, _is_of_floats),
    _aten.bernoulli.p: Written(_bernoulli_of, _is_of_floats),
    _aten.fmax.default: Written(_fmax, _is_of_floats),
    _aten.fmin.default: Written(_fmin, _is_of_floats),
    _aten.hypot.default: Written(_hypot, _is_of_floats),
    _aten.copysign.Tensor: Written(_copysign, _is_of_floats),
}
