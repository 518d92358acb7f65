"""DFT and STFT as lines of a function in ONNX's text form: products with matrices of cosines and sines.

X[k] is the sum of x[n] · exp(-2πi k n / N). The angles are of k·n modulo N, which is exact, so that none is larger than
2π and a cosine in float32 is right to its last digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.passes.function_lines import Lines, LineWriter, Unwritten, has

_FLOAT = 1
_LONGEST = 4096
_AXIS_IS_AN_INPUT = 20
Known = Sequence["np.ndarray[Any, np.dtype[Any]] | None"]


def dft(op: OnnxOp, opset: int, known: Known) -> Lines:
    """`y0` [..., frequencies, ..., 2] of x0 [..., samples, ..., 1 or 2], of as many samples as x1 says."""
    dims = dims_of(op.operands[0])
    axis = _constant(known, 2, -2) if opset >= _AXIS_IS_AN_INPUT else int(op.attr("axis", 1))
    if dims is None or len(dims) < 2 or axis is None or not dims[-1].is_constant:
        return Unwritten("of signals of a known rank along a known axis")
    axis %= len(dims)
    length = _constant(known, 1, dims[axis].as_int() if dims[axis].is_constant and not has(op, 1) else None)
    is_inverse, one_sided = bool(op.attr("inverse", 0)), bool(op.attr("onesided", 0))
    if length is None or not 0 < length <= _LONGEST or not dims[axis].is_constant:
        return Unwritten(f"of a known number of samples, up to {_LONGEST}, and this one has {dims[axis]}")
    if is_inverse and one_sided:
        return Unwritten("where all frequencies are given or wanted, and this one has one side of an inverse")
    writer = _Writer(length, length // 2 + 1 if one_sided else length, is_inverse)
    order = [each for each in range(len(dims) - 1) if each != axis] + [axis]
    values = [writer.last(part, order, dims[axis].as_int()) for part in writer.parts("x0", dims[-1].as_int())]
    found = [writer.turned_back(part, order) for part in writer.transformed(values)]
    return writer.joined(found, len(dims) - 1)


def stft(op: OnnxOp, opset: int, known: Known) -> Lines:
    """`y0` [batch, frames, frequencies, 2] of x0 [batch, samples, 1 or 2], each frame by a window x2."""
    del opset
    dims, window = dims_of(op.operands[0]), None if (value := op.input_at(2)) is None else dims_of(value)
    step = _constant(known, 1, None)
    length = _constant(known, 3, window[0].as_int() if window and window[0].is_constant else None)
    if dims is None or len(dims) != 3 or not dims[1].is_constant or not dims[2].is_constant:
        return Unwritten("of signals of known sizes")
    if not step or length is None or not 0 < length <= min(_LONGEST, dims[1].as_int()):
        return Unwritten(f"of frames of a known length, up to {_LONGEST}, at known steps")
    writer = _Writer(length, length // 2 + 1 if op.attr("onesided", 1) else length, False)
    frames = (dims[1].as_int() - length) // step + 1
    begins = writer.numbers(*range(0, frames * step, step))
    begins = writer.line(f"Unsqueeze ({begins}, {writer.numbers(1)})")
    places = writer.line(f"Add ({begins}, {writer.numbers(*range(length))})")
    values: list[str] = []
    for part in writer.parts("x0", dims[2].as_int()):
        framed = writer.line(f"Gather <axis: int = 1> ({part}, {places})")
        values.append(writer.line(f"Mul ({framed}, x2)") if has(op, 2) else framed)
    return writer.joined(writer.transformed(values), 3)


def _constant(known: Known, index: int, absent: int | None) -> int | None:
    """The number that an input is, `absent` where it is left out or not known."""
    found = known[index] if index < len(known) else None
    return absent if found is None or not found.size else int(found.reshape(-1).tolist()[0])


@dataclass
class _Writer(LineWriter):
    """Writes lines of a transform of `length` samples to `frequencies`."""

    length: int
    frequencies: int
    is_inverse: bool

    def parts(self, source: str, count: int) -> list[str]:
        """The real numbers, and the imaginary ones where there are."""
        places = [self.line(f"Constant <value_int: int = {which}> ()") for which in range(count)]
        return [self.line(f"Gather <axis: int = -1> ({source}, {place})") for place in places]

    def last(self, value: str, order: Sequence[int], size: int) -> str:
        """A value with its samples last, as many as are transformed: the first ones, or zeros behind them."""
        value = self.turned(value, order)
        axis = len(order) - 1
        if size > self.length:
            ends = [self.numbers(each) for each in (0, self.length, axis)]
            return self.line(f"Slice ({value}, {', '.join(ends)})")
        if size < self.length:
            pads = [0] * (2 * len(order))
            pads[-1] = self.length - size
            return self.line(f"Pad ({value}, {self.numbers(*pads)})")
        return value

    def transformed(self, values: Sequence[str]) -> list[str]:
        """The real and imaginary numbers of the transform along the last dimension."""
        cosines, sines = self.matrices()
        real = self.line(f"MatMul ({values[0]}, {cosines})")
        imaginary = self.line(f"MatMul ({values[0]}, {sines})")
        if len(values) > 1:
            others = [self.line(f"MatMul ({values[1]}, {each})") for each in (sines, cosines)]
            real = self.line(f"Sub ({real}, {others[0]})")
            imaginary = self.line(f"Add ({imaginary}, {others[1]})")
        return [real, imaginary]

    def matrices(self) -> tuple[str, str]:
        """cos and sin of ±2π k n / N, [samples, frequencies]; an inverse transform's over N."""
        samples = self.line(f"Unsqueeze ({self.numbers(*range(self.length))}, {self.numbers(1)})")
        products = self.line(f"Mul ({samples}, {self.numbers(*range(self.frequencies))})")
        around = self.line(f"Mod ({products}, {self.line(f'Constant <value_int: int = {self.length}> ()')})")
        wide = self.line(f"Cast <to: int = {_FLOAT}> ({around})")
        turn = 2 * math.pi / self.length * (1 if self.is_inverse else -1)
        angles = self.line(f"Mul ({wide}, {self.line(f'Constant <value_float: float = {turn!r}> ()')})")
        found: list[str] = []
        for function in ("Cos", "Sin"):
            matrix = self.line(f"{function} ({angles})")
            if self.is_inverse:
                matrix = self.line(
                    f"Div ({matrix}, {self.line(f'Constant <value_float: float = {self.length}.0> ()')})"
                )
            found.append(self.line(f"CastLike ({matrix}, x0)"))
        return found[0], found[1]

    def turned_back(self, value: str, order: Sequence[int]) -> str:
        return self.turned(value, [order.index(axis) for axis in range(len(order))])

    def turned(self, value: str, order: Sequence[int]) -> str:
        if list(order) == sorted(order):
            return value
        return self.line(f"Transpose <perm: ints = {list(order)}> ({value})")

    def joined(self, parts: Sequence[str], axis: int) -> list[str]:
        deep = [self.line(f"Unsqueeze ({part}, {self.numbers(axis)})") for part in parts]
        return [*self.lines, f"y0 = Concat <axis: int = {axis}> ({', '.join(deep)})"]
