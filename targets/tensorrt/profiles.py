"""Optimisation profiles: the range of shapes that an engine is built for, from the bounds of symbolic dimensions.

The range of a dimension that is an expression, `floordiv(width, 8)`, is taken over the corners of the box that the
bounds of its symbols span. That is exact for expressions that are monotone in each symbol, which those of shapes are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from gimlet.runtime.expr import Expr
from gimlet.targets.api import DimBound, Reason

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ShapeRange:
    """The shapes of one input that a profile covers: elementwise minimum, the one to tune for, and maximum."""

    minimum: Shape
    optimum: Shape
    maximum: Shape

    @property
    def is_static(self) -> bool:
        return self.minimum == self.maximum


Profile = Mapping[str, ShapeRange]


def dim_range(dim: Expr, bounds: Mapping[str, DimBound]) -> tuple[int, int, int]:
    """Minimum, optimum and maximum of a dimension. KeyError, with the symbol, where one has no bound."""
    symbols = sorted(dim.symbols)
    optimum = dim.evaluate({name: bounds[name].optimum for name in symbols})
    corners = product(*((bounds[name].minimum, bounds[name].maximum) for name in symbols))
    values = [dim.evaluate(dict(zip(symbols, corner, strict=True))) for corner in corners]
    return min(*values, optimum), optimum, max(*values, optimum)


def profile_of(
    segment: str, inputs: Iterable[tuple[str, Sequence[Expr | None] | None]], bounds: Mapping[str, DimBound]
) -> dict[str, ShapeRange] | Reason:
    """The profile of a segment's inputs, given as names and dimensions; a reason where one cannot be bounded."""
    profile: dict[str, ShapeRange] = {}
    for name, dims in inputs:
        if dims is None:
            return Reason(segment, f"input {name!r} has no known rank")
        ranges: list[tuple[int, int, int]] = []
        for axis, dim in enumerate(dims):
            if dim is None:
                return Reason(segment, f"dimension {axis} of input {name!r} is not known")
            unbound = sorted(symbol for symbol in dim.symbols if symbol not in bounds)
            if unbound:
                return Reason(
                    segment, f"dimension {axis} of input {name!r} depends on {unbound[0]!r}, which has no bound"
                )
            ranges.append(dim_range(dim, bounds))
        profile[name] = ShapeRange(
            tuple(low for low, _, _ in ranges),
            tuple(best for _, best, _ in ranges),
            tuple(high for _, _, high in ranges),
        )
    return profile


def profile_json(profile: Profile) -> dict[str, dict[str, list[int]]]:
    """A profile as plain data: for each input `min`, `opt` and `max`."""
    return {
        name: {"min": list(shape.minimum), "opt": list(shape.optimum), "max": list(shape.maximum)}
        for name, shape in sorted(profile.items())
    }
