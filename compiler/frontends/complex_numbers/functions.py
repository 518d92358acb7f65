"""Functions of complex numbers, of what their parts have."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gimlet.compiler.frontends.complex_numbers.pair import Pair, is_real, real_part


def length(values: Pair) -> Tensor:
    return torch.sqrt(values.re * values.re + values.im * values.im)


def angle(values: Pair) -> Tensor:
    return torch.atan2(values.im, values.re)


def polar(size: Tensor, phase: Tensor) -> Pair:
    return Pair(size * torch.cos(phase), size * torch.sin(phase))


def product(left: Any, right: Any, multiply: Any = torch.mul) -> Pair:
    """Of anything bilinear: a product, a matrix product, a convolution."""
    if is_real(left):
        return Pair(multiply(left, real_part(right)), multiply(left, right.imag))
    if is_real(right):
        return Pair(multiply(real_part(left), right), multiply(left.imag, right))
    re, im, other_re, other_im = real_part(left), left.imag, real_part(right), right.imag
    return Pair(
        multiply(re, other_re) - multiply(im, other_im),
        multiply(re, other_im) + multiply(im, other_re),
    )


def quotient(left: Any, right: Any) -> Pair:
    """Scaled by the longer part of the divisor, so that no square is infinite."""
    if is_real(right):
        return Pair(left.re / right, left.imag / right)
    if isinstance(right, complex):
        return product(left, 1 / right if right else complex(math.nan, math.nan))
    if is_real(left):
        return product(left, reciprocal(right))
    scale = torch.maximum(right.re.abs(), right.im.abs())
    re, im = right.re / scale, right.im / scale
    whole = (re * re + im * im) * scale
    return product(left, Pair(re / whole, -im / whole))


def exp(values: Pair) -> Pair:
    return polar(torch.exp(values.re), values.im)


def expm1(values: Pair) -> Pair:
    """e^x cos y - 1 = (e^x - 1) cos y - 2 sin²(y/2)."""
    half = torch.sin(values.im / 2)
    re = torch.expm1(values.re) * torch.cos(values.im) - 2 * half * half
    return Pair(re, torch.exp(values.re) * torch.sin(values.im))


def log(values: Pair) -> Pair:
    return Pair(torch.log(length(values)), angle(values))


def sqrt(values: Pair) -> Pair:
    """The root has a positive real part; its two parts come from the larger, √((|z| + |x|) / 2)."""
    larger = torch.sqrt((length(values) + values.re.abs()) / 2)
    safe = torch.where(larger == 0, torch.ones_like(larger), larger)
    smaller = values.im.abs() / (2 * safe)
    right = values.re >= 0
    im = torch.where(right, smaller, larger)
    return Pair(torch.where(right, larger, smaller), torch.where(values.im < 0, -im, im))


def sin(values: Pair) -> Pair:
    return Pair(
        torch.sin(values.re) * torch.cosh(values.im),
        torch.cos(values.re) * torch.sinh(values.im),
    )


def cos(values: Pair) -> Pair:
    return Pair(
        torch.cos(values.re) * torch.cosh(values.im),
        -torch.sin(values.re) * torch.sinh(values.im),
    )


def sinh(values: Pair) -> Pair:
    found = sin(values.times_i())
    return Pair(found.im, -found.re)


def cosh(values: Pair) -> Pair:
    return cos(values.times_i())


def tanh(values: Pair) -> Pair:
    """With t = tanh x: (t + i tan y) / (1 + i t tan y), multiplied out with the sine and cosine of y."""
    t, sine, cosine = torch.tanh(values.re), torch.sin(values.im), torch.cos(values.im)
    whole = cosine * cosine + t * t * sine * sine
    return Pair(t / whole, (1 - t) * (1 + t) * sine * cosine / whole)


def tan(values: Pair) -> Pair:
    found = tanh(values.times_i())
    return Pair(found.im, -found.re)


def sigmoid(values: Pair) -> Pair:
    """(1 + tanh(z/2)) / 2."""
    half = tanh(values.each(lambda part: part / 2))
    return Pair((1 + half.re) / 2, half.im / 2)


def reciprocal(values: Pair) -> Pair:
    return quotient(Pair(torch.ones_like(values.re), torch.zeros_like(values.re)), values)


def sign(values: Pair) -> Pair:
    size = length(values)
    whole = torch.where(size == 0, torch.ones_like(size), size)
    return values.each(lambda part: part / whole)


def power(base: Any, exponent: Any) -> Pair:
    """By repeated products for a small whole exponent, else e^(exponent · log base); 0 to a positive power is 0."""
    if isinstance(exponent, float) and exponent.is_integer():
        exponent = int(exponent)
    if isinstance(exponent, int) and abs(exponent) <= 16 and isinstance(base, Pair):
        return _whole_power(base, exponent)
    if not isinstance(base, Pair):
        base = _of_number(base, exponent)
    found = exp(product(log(base), exponent))
    nothing = (base.re == 0) & (base.im == 0)
    wanted = exponent.re if isinstance(exponent, Pair) else exponent.real
    zero = torch.where(nothing, torch.zeros_like(base.re), base.re) * 0
    at_nothing = zero + (wanted == 0) if isinstance(wanted, int | float) else zero + (wanted == 0).to(zero.dtype)
    return Pair(torch.where(nothing, at_nothing, found.re), torch.where(nothing, zero, found.im))


def _of_number(number: Any, like: Any) -> Pair:
    if isinstance(number, Tensor):
        return Pair(number, torch.zeros_like(number))
    return Pair(torch.full_like(like.re, number.real), torch.full_like(like.re, number.imag))


def _whole_power(base: Pair, exponent: int) -> Pair:
    if exponent < 0:
        return reciprocal(_whole_power(base, -exponent))
    found = None
    while exponent:
        if exponent & 1:
            found = base if found is None else product(found, base)
        exponent >>= 1
        base = product(base, base) if exponent else base
    return Pair(torch.ones_like(base.re), torch.zeros_like(base.re)) if found is None else found


def product_along(values: Pair, dim: int, keepdim: bool = False) -> Pair:
    """Halves with halves, as many times as the length, which is known, has."""
    count = values.shape[dim]
    while count > 1:
        half = count // 2
        first = values.each(lambda part, half=half: part.narrow(dim, 0, half))
        second = values.each(lambda part, half=half: part.narrow(dim, half, half))
        made = product(first, second)
        if count % 2:
            rest = values.each(lambda part, count=count: part.narrow(dim, count - 1, 1))
            made = Pair(torch.cat([made.re, rest.re], dim), torch.cat([made.im, rest.im], dim))
        values, count = made, half + count % 2
    return values if keepdim else values.each(lambda part: part.squeeze(dim))


def products_along(values: Pair, dim: int) -> Pair:
    """The running products, in steps of 1, 2, 4, … of a length that is known."""
    count, step = values.shape[dim], 1
    while step < count:
        front, behind, earlier = (
            values.each(lambda part, begin=begin, size=size: part.narrow(dim, begin, size))
            for begin, size in ((0, step), (step, count - step), (0, count - step))
        )
        made = product(behind, earlier)
        values = Pair(torch.cat([front.re, made.re], dim), torch.cat([front.im, made.im], dim))
        step *= 2
    return values


def norm(values: Pair, *rest: Any, **named: Any) -> Tensor:
    """Of the lengths; the usual one is that of the parts, too."""
    return torch.linalg.vector_norm(length(values), *rest, **named)


def equal(left: Any, right: Any) -> Tensor:
    if isinstance(left, Pair) and isinstance(right, Pair):
        return (left.re == right.re) & (left.im == right.im)
    pair, other = (left, right) if isinstance(left, Pair) else (right, left)
    return (pair.re == other.real) & (pair.im == (other.imag if isinstance(other, complex) else 0))


def unequal(left: Any, right: Any) -> Tensor:
    return ~equal(left, right)
