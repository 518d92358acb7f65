"""Convolutions with one input channel a group, on the vector unit.

As a row times a matrix: the filter of a channel, by the patches of that channel at a block of positions, which one
transfer brings. The vector unit reads a patch once for that, where a product and a sum for each kernel position read
and write three numbers each; and one load is waited for, not one for each kernel position. Integers, which a matrix
instruction does not take so, and long filters are multiplied position by position.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil, prod

from gimlet.runtime.expr import ONE, ZERO, Expr
from gimlet.targets.sram.channels import are_last
from gimlet.targets.sram.convolution import Geometry, load_window, vector_ranges, whole_place
from gimlet.targets.sram.expression import Argument, Place, evaluate, views_of
from gimlet.targets.sram.lowering import Lowering
from gimlet.targets.sram.views import Counter, Shape, View

LONGEST_FILTER = 256
_PATCH_ELEMENTS = 16384
_LEAST_POSITIONS = 16


@dataclass(frozen=True)
class Filters:
    """A convolution by rows: `weight` is [channels, kernel positions], `times` outputs for each channel of `source`."""

    lowering: Lowering
    source: View
    weight: View
    times: int
    geometry: Geometry
    shape: Shape

    @property
    def sums(self) -> str:
        return "f32"

    @property
    def by_position(self) -> bool:
        return True

    def emit(self, root: Argument, target: View) -> None:
        builder, rank = self.lowering.builder, len(self.shape) - 2
        views = {view: view.expand(self.shape) for view in views_of(root)}
        taps = tuple(Expr.const(size) for size in self.geometry.kernel)
        with builder.kernel("depthwise") as kernel:
            extents = [(self.shape[0], 1), (self.source.shape[1], 1), (Expr.const(self.times), 1)]
            extents += zip(self.shape[2:], self._steps(), strict=True)
            last = are_last(builder, self.source, len(self.shape))
            order = [0, *range(3, 3 + rank), 1, 2] if last else range(3 + rank)
            ranges = {each: kernel.range(*extents[each]) for each in order}
            batch, channel, copy, *spatial = (ranges[each] for each in range(3 + rank))
            own = channel.start * self.times + copy.start
            place = Place(
                shape=self.shape,
                begin=(batch.start, own, *(each.start for each in spatial)),
                tile=((), tuple(Counter(2 + dim, each.size) for dim, each in enumerate(spatial))),
                limits=(1, prod(each.step for each in spatial)),
            )
            accumulator = kernel.new_tile("f32", place.limits, depth=2)
            with kernel.loop(ONE, 1) as once:
                begin = [batch.start, channel.start]
                for dim, each in enumerate(spatial):
                    begin.append(each.start * self.geometry.strides[dim] - self.geometry.pads[dim])
                patch = (
                    tuple(Counter(2 + dim, tap, self.geometry.dilations[dim]) for dim, tap in enumerate(taps)),
                    tuple(Counter(2 + dim, each.size, self.geometry.strides[dim]) for dim, each in enumerate(spatial)),
                )
                limits = (prod(self.geometry.kernel), place.limits[1])
                held = kernel.load(self.source, begin, patch, limits, fill=0.0, repeated=True)
                row = ((), (Counter(1, self.weight.shape[1]),))
                filters = kernel.load(self.weight, (own, ZERO), row, (1, limits[0]), repeated=True)
                kernel.matmul(accumulator, filters, held, once.name, "nothing")
            result = evaluate(kernel, root, place, {id(self): accumulator}, views)
            kernel.store(target, place.begin, place.tile, result)

    def _steps(self) -> list[int]:
        """The positions of an item in each dimension: an equal part of all, that a tile has room for."""
        builder = self.lowering.builder
        best = [builder.bounds.best(size) for size in self.shape]
        most = _PATCH_ELEMENTS // prod(self.geometry.kernel)
        room = min(most, max(_LEAST_POSITIONS, ceil(prod(best) / builder.cores)))
        steps: list[int] = []
        for size in reversed(best[2:]):
            step = max(1, min(size, room))
            step = ceil(size / ceil(size / step))
            steps.insert(0, step)
            room = max(1, room // step)
        return steps


@dataclass(frozen=True)
class Depthwise:
    """A convolution with one input channel a group: a product and a sum of the vector unit for each kernel position.

    `weight` is [channels, ...] with one filter a channel, repeated where a group has several outputs.
    """

    lowering: Lowering
    source: View
    weight: View
    geometry: Geometry
    shape: Shape
    fill: float = 0.0

    @property
    def sums(self) -> str:
        """The element type of its sums, which the weights are in as well."""
        return self.weight.dtype

    @property
    def by_position(self) -> bool:
        return are_last(self.lowering.builder, self.source, len(self.shape))

    def emit(self, root: Argument, target: View) -> None:
        builder = self.lowering.builder
        views = {view: view.expand(self.shape) for view in views_of(root)}
        with builder.kernel("depthwise") as kernel:
            ranges = vector_ranges(self.lowering, kernel, self.shape, target.order)
            place = whole_place(self.shape, ranges)
            accumulator = kernel.fill(self.sums, place.sizes, place.limits, 0)
            with ExitStack() as loops:
                taps = [loops.enter_context(kernel.loop(Expr.const(size), 1)) for size in self.geometry.kernel]
                patch = load_window(kernel, self.source, ranges, taps, self.geometry, self.fill, builder.machine)
                if self.sums == "i32":
                    patch = kernel.map("copy", [patch], self.sums)
                begin = (ranges[1].start, *(tap.start for tap in taps))
                tile = ((), (Counter(0, ranges[1].size),), *(() for _ in taps))
                held = kernel.load(self.weight, begin, tile, (1, ranges[1].step, *(1 for _ in taps)))
                kernel.map("multiply_add", [patch, held, accumulator], into=accumulator)
            result = evaluate(kernel, root, place, {id(self): accumulator}, views)
            kernel.store(target, place.begin, place.tile, result)
