"""Convolutions: an implicit im2col by the DMA engines in front of the matrix unit.

The matrix product is [positions, K] · [K, output channels]: positions are a block of the output, K runs over kernel
positions and channels, as many of both at once as need the fewest steps; the other ones are loops. Padding is what
a load reads outside its tensor. MXINT8 shares exponents along the channels, so the input is packed with channels last;
with fewer channels than a block, along K in the tile instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import ceil, prod

import numpy as np

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.sram.tiles import Patches
from gimlet.runtime.expr import ONE, ZERO, Expr, floordiv, maximum
from gimlet.runtime.sram.formats import MX_BLOCK, SUMS, stored_bytes
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.program import Range
from gimlet.targets.sram.builder import KernelBuilder, RefusedError
from gimlet.targets.sram.channels import are_last, rigid, temporary_for
from gimlet.targets.sram.constants import Array, Constant
from gimlet.targets.sram.expression import Argument, Place, emit_elementwise, evaluate, replaced, views_of
from gimlet.targets.sram.lowering import Lowering
from gimlet.targets.sram.tiling import label_of, problem_of_patches
from gimlet.targets.sram.views import Counter, Shape, View

_POSITIONS = (256, 128, 64, 32, 16)
_VECTOR_TILE = 4096
_LEAST_TILE = 64
_MOST_COPIES = 8
_COPIES_SHARE = 8
"""The part of a core's SRAM that the copies of one tile may take beyond the second: one in so many."""


@dataclass(frozen=True)
class Geometry:
    """The spatial side of a convolution or a pooling: one entry for each spatial dimension."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[Expr, ...]
    """What is added before the first position."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """`source[N, G·C, ...] * weight[G·O, C, ...]`; the result is [N, G·O, ...].

    `source` has channels in dimension 1, or last if `packed_last`. `dtype` is the element type of the operands; where
    the source is in another one, tiles are converted after they were loaded.
    """

    lowering: Lowering
    source: View
    packed_last: bool
    weight: Constant
    groups: int
    geometry: Geometry
    dtype: str
    shape: Shape
    op: OnnxOp | None
    """Whose tiles they are; None for a sum that an op needs beside its own product."""
    given: Patches | None
    fill: float = 0.0
    """What positions outside the source read as."""

    @property
    def sums(self) -> str:
        """The element type of its sums."""
        return SUMS[self.dtype]

    @property
    def by_position(self) -> bool:
        return True

    def emit(self, root: Argument, target: View) -> None:
        builder, patches = self.lowering.builder, self._patches()
        if patches.splits == 1:
            self._kernel(patches, root, target)
            return
        whole = target.transpose(target.order).is_whole and are_last(builder, target, len(self.shape))
        if root is self and target.dtype == self.sums and whole:
            self._kernel(patches, self, target)
            return
        # Parts that were added to a map with channels first would all cross.
        total = temporary_for(builder, self.sums, self.shape, self)
        self._kernel(patches, self, total)
        emit_elementwise(builder, replaced(root, {id(self): total}), target)

    def _kernel(self, patches: Patches, root: Argument, target: View) -> None:
        builder, packed = self.lowering.builder, self._packed(patches)
        views = {view: view.expand(self.shape) for view in views_of(root)}
        with builder.kernel("conv") as kernel, ExitStack() as loops:
            item = self._item(kernel, patches, target)
            if item.is_one_tile:
                # It stays in the array for all positions.
                steps = item.steps(loops)
                held = item.weights(packed, steps)
                block = item.block(loops)
                item.multiply(block, steps, held)
            else:
                block = item.block(loops)
                with ExitStack() as inner:
                    steps = item.steps(inner)
                    item.multiply(block, steps, item.weights(packed, steps))
            result = evaluate(kernel, root, block.place, {id(self): block.tile}, views)
            kernel.store(target, block.place.begin, block.place.tile, result, adds=patches.splits > 1)

    def _item(self, kernel: KernelBuilder, patches: Patches, target: View) -> Item:
        """The grid: blocks of positions and tiles of outputs; what items next to each other store is so too.

        Copies of weights that stay on the cores are one for each block of positions, in the order of those.
        """
        outputs, rank = self.weight.shape[0] // self.groups, len(self.shape) - 2
        extents = [(self.shape[0], 1), (Expr.const(self.groups), 1), (Expr.const(outputs), patches.outputs)]
        extents += zip(self.shape[2:], patches.items or patches.positions, strict=True)
        by_position = patches.resident or are_last(self.lowering.builder, target, len(self.shape))
        order = [0, *range(3, 3 + rank), 1, 2] if by_position else range(3 + rank)
        ranges = {each: kernel.range(*extents[each]) for each in order}
        batch, group, out, *spatial = (ranges[each] for each in range(3 + rank))
        channels = self.weight.shape[1]
        depth = [
            *((Expr.const(size), 1) for size in self.outer(patches.kernel)),
            (Expr.const(channels), patches.channels),
        ]
        cut = tuple(kernel.range(*each) for each in depth[: patches.cut])
        return Item(self, kernel, patches, batch, group, out, tuple(spatial), cut, tuple(depth[patches.cut :]))

    def tiles(self) -> Patches:
        """The tiles that the op says, or those that need the fewest steps and keep all cores busy."""
        if self.given is not None:
            return self.given
        machine = self.lowering.builder.machine
        outputs = self.weight.shape[0] // self.groups
        columns = min(outputs, machine.matrix_columns)
        items = self.groups * self.lowering.bounds.best(self.shape[0]) * -(-outputs // columns)
        depth = self.depth(self.weight.shape[1], machine.matrix_rows)
        return Patches(self.weight.shape, self.dtype, self._positions(items), *depth, columns)

    def _patches(self) -> Patches:
        """Its tiles, which the plan is told. RefusedError where they are not of this convolution."""
        plan, machine, found = self.lowering.plan, self.lowering.builder.machine, self.tiles()
        wrong = problem_of_patches(found, self.weight.shape, self.dtype, len(self.shape) - 2, machine)
        if wrong is None and found.loaded and found.loaded != self.source.dtype:
            wrong = f'they convert "{found.loaded}", its input is "{self.source.dtype}"'
        if wrong is None and found.resident and not all(map(self.lowering.bounds.fixed, self.shape)):
            wrong = "weights that stay on the cores have copies for positions whose number is fixed, its is not"
        if wrong is not None:
            raise RefusedError(f"tiles of {'a sum' if self.op is None else label_of(self.op)}: {wrong}")
        if self.op is not None:
            plan.chosen.setdefault(self.op, []).append(found)
        return found

    def copies(self, patches: Patches) -> int:
        """How many copies of weights that stay on the cores have a part of the positions each."""
        batch, _, *sizes = map(self.lowering.bounds.best, self.shape)
        parts = zip(sizes, patches.items or patches.positions, strict=True)
        return batch * prod(ceil(size / part) for size, part in parts)

    def depth(self, channels: int, rows: int) -> tuple[tuple[int, ...], int]:
        """The last kernel dimensions and the channels of one step along K: what needs the fewest steps."""
        kernel = self.geometry.kernel
        most = 0 if self.dtype == "mxint8" and channels >= MX_BLOCK else len(kernel)
        found: list[tuple[int, tuple[int, ...], int]] = []
        for count in range(most + 1):
            outer, inner = kernel[: len(kernel) - count], kernel[len(kernel) - count :]
            if prod(inner) <= rows:
                step = min(channels, rows // prod(inner))
                found.append((prod(outer) * -(-channels // step), inner, step))
        return min(found)[1:]

    def ahead(self, patches: Patches) -> int:
        """How many copies a tile of patches has: as many as are multiplied while a load is under way, and two."""
        machine = self.lowering.builder.machine
        latency = machine.network_latency_cycles + machine.die_latency_cycles
        moved = stored_bytes(self.source.dtype, (prod(patches.positions), prod(patches.kernel) * patches.channels))
        room = 2 + machine.sram_bytes_per_core // _COPIES_SHARE // moved
        return min(_MOST_COPIES, 2 + ceil(latency / (prod(patches.positions) * machine.row_cycles[self.dtype])), room)

    def outer(self, inner: Sequence[int]) -> tuple[int, ...]:
        """The kernel dimensions that are loops, where `inner` are those of one step."""
        return self.geometry.kernel[: len(self.geometry.kernel) - len(inner)]

    def _positions(self, items: int) -> tuple[int, ...]:
        """The output's positions of an item: a block of whole rows, or a part of one, as many as keep cores busy."""
        builder = self.lowering.builder
        sizes = [builder.bounds.best(size) for size in self.shape[2:]]
        total = prod(sizes)
        limits = [min(room, builder.machine.matrix_stream) for room in _POSITIONS]
        room = next((each for each in limits if items * -(-total // each) >= builder.cores), limits[-1])
        steps: list[int] = []
        for size in reversed(sizes):
            step = max(1, min(size, room))
            steps.insert(0, step)
            room = max(1, room // step)
        return tuple(steps)

    def load(
        self,
        kernel: KernelBuilder,
        begin: Sequence[Expr],
        group: Range,
        block: Sequence[Expr],
        taps: Sequence[Range],
        channel: Range,
        patches: Patches,
        depth: int,
    ) -> str:
        """The tile [positions, K] of input that a block of outputs needs for some kernel positions and channels.

        The block begins at `begin`, the batch first, and has the sizes `block`.
        """
        batch, *first_of = begin
        inner, rank, channels = patches.kernel, len(block), self.weight.shape[1]
        first = 1 if self.packed_last else 2
        at: list[Expr] = []
        for dim, each in enumerate(first_of):
            start = each * self.geometry.strides[dim] - self.geometry.pads[dim]
            at.append(start + taps[dim].start * self.geometry.dilations[dim] if dim < len(taps) else start)
        own = group.start * channels + channel.start
        where = [batch, *at, own] if self.packed_last else [batch, own, *at]
        counted = tuple(Counter(first + dim, size, self.geometry.strides[dim]) for dim, size in enumerate(block))
        outer = rank - len(inner)
        along = tuple(
            Counter(first + outer + index, Expr.const(size), self.geometry.dilations[outer + index])
            for index, size in enumerate(inner)
        )
        along = (*along, Counter(rank + 1 if self.packed_last else 1, channel.size))
        limits = (prod(patches.positions), prod(inner) * channel.step)
        loaded = kernel.load(self.source, where, (counted, along), limits, fill=self.fill, repeated=True, depth=depth)
        return loaded if self.source.dtype == self.dtype else kernel.map("copy", [loaded], self.dtype, depth=2)

    def _packed(self, patches: Patches) -> View:
        """The weights as [group, output tile, outer kernel..., channel tile, output, inner kernel, channel]."""
        inner, step, column_step = patches.kernel, patches.channels, patches.outputs
        groups, geometry = self.groups, self.geometry
        outputs, channels = self.weight.shape[0] // groups, self.weight.shape[1]
        outer = self.outer(inner)
        tiles, depth_tiles = -(-outputs // column_step), -(-channels // step)
        shape = (groups, tiles, *outer, depth_tiles, column_step, prod(inner) * step)

        def pack(weight: Array) -> Array:
            padded = np.zeros((groups, tiles * column_step, depth_tiles * step, *geometry.kernel), np.float32)
            padded[:, :outputs, :channels] = weight.reshape(groups, outputs, channels, *geometry.kernel)
            split = padded.reshape(groups, tiles, column_step, depth_tiles, step, prod(outer), prod(inner))
            return split.transpose(0, 1, 5, 3, 2, 6, 4).reshape(shape)

        what = f"conv/{groups}/{column_step}/{step}/{list(inner)}"
        weights, packed = self.lowering.weights, self.weight.derived(what, shape, pack)
        if patches.resident:
            block = prod(patches.loops[patches.cut :]) * prod(shape[-2:])
            view = weights.resident(packed, self.dtype, block, self.copies(patches))
        else:
            view = weights.view(packed, self.dtype)
        split = tuple(Expr.const(size) for size in (*shape[:-1], prod(inner), step))
        seen = view.reshape(split, {})
        return view if seen is None else seen


@dataclass(frozen=True)
class Block:
    """Positions that one instruction makes, and their sums."""

    place: Place
    tile: str
    sizes: tuple[Expr, ...]
    """In each spatial dimension."""


@dataclass(frozen=True)
class Item:
    """What an item does: positions of one image from `spatial` on, a tile of the outputs, a part of the depth.

    `cut` are the dimensions of the depth that are ranges of the grid, `rest` the sizes and steps of the others.
    """

    of: Convolution
    kernel: KernelBuilder
    patches: Patches
    batch: Range
    group: Range
    out: Range
    spatial: tuple[Range, ...]
    cut: tuple[Range, ...]
    rest: tuple[tuple[Expr, int], ...]

    @property
    def is_one_tile(self) -> bool:
        """Whether it has one tile of weights that stays on its core."""
        return self.patches.resident and prod(self.patches.loops[self.patches.cut :]) == 1

    @property
    def begins(self) -> bool:
        """Whether one loop says where sums begin; else they are filled with zeros."""
        return self.patches.resident and sum(size > 1 for size in self.patches.loops[self.patches.cut :]) <= 1

    def steps(self, loops: ExitStack) -> tuple[Range, ...]:
        """Enters the loops over the depth; all its dimensions, and behind them the loop in which sums begin."""
        found = tuple(loops.enter_context(self.kernel.loop(*each)) for each in self.rest)
        sizes = self.patches.loops[self.patches.cut :]
        first = next((each for each, size in zip(found, sizes, strict=True) if size > 1), None)
        once = first or (found[-1] if found else loops.enter_context(self.kernel.loop(ONE, 1)))
        return (*self.cut, *found, once)

    def block(self, loops: ExitStack) -> Block:
        """Enters the loops over positions."""
        kernel, of, begin, sizes = self.kernel, self.of, list[Expr](), list[Expr]()
        for each, step in zip(self.spatial, self.patches.positions, strict=True):
            inside = loops.enter_context(kernel.loop(each.size, step)) if each.step > step else None
            begin.append(each.start + inside.start if inside else each.start)
            sizes.append(inside.size if inside else each.size)
        outputs = of.weight.shape[0] // of.groups
        counters = tuple(Counter(2 + dim, size) for dim, size in enumerate(sizes))
        place = Place(
            shape=of.shape,
            begin=(self.batch.start, self.group.start * outputs + self.out.start, *begin),
            tile=(counters, (Counter(1, self.out.size),)),
            limits=(prod(self.patches.positions), self.patches.outputs),
        )
        if self.begins:
            return Block(place, kernel.new_tile(of.sums, place.limits, depth=2), tuple(sizes))
        return Block(place, kernel.fill(of.sums, place.sizes, place.limits, 0, depth=2), tuple(sizes))

    def weights(self, packed: View, steps: Sequence[Range]) -> str:
        """The tile of weights of a step along the depth."""
        *taps, channel = steps[:-1]
        inner, outputs = prod(self.patches.kernel), self.patches.outputs
        begin = (self.group.start, self.out.index, *(tap.start for tap in taps), channel.index, ZERO, ZERO, ZERO)
        last = len(begin) - 1
        depth = (Counter(last - 1, Expr.const(inner)), Counter(last, channel.size))
        tile, limits = (depth, (Counter(last - 2, self.out.size),)), (inner * channel.step, outputs)
        return self.kernel.load(packed, begin, tile, limits, repeated=True, depth=0 if self.patches.resident else 2)

    def multiply(self, block: Block, steps: Sequence[Range], held: str) -> None:
        """One step along the depth."""
        *taps, channel = steps[:-1]
        begin = (block.place.begin[0], *block.place.begin[2:])
        ahead = self.of.ahead(self.patches) if self.patches.resident else 2
        patch = self.of.load(self.kernel, begin, self.group, block.sizes, taps, channel, self.patches, ahead)
        self.kernel.matmul(block.tile, patch, held, steps[-1].name if self.begins else "")


def on_array(convolution: Convolution) -> Convolution:
    """The convolution of what its kernel loads: padded where it lies or copied, in MXINT8 packed with channels last.

    Input in another element type is converted before, unless its tiles say that items do.
    """
    lowering, rank, channels = convolution.lowering, len(convolution.geometry.kernel), convolution.weight.shape[1]
    axes, source, dtype = range(2, 2 + rank), convolution.source, convolution.dtype
    if convolution.given is not None and convolution.given.loaded:
        return replace(convolution, source=padded_view(lowering, source, axes))
    if dtype != "mxint8":
        return replace(convolution, source=padded_view(lowering, lowering.converted(source, dtype), axes))
    if channels < MX_BLOCK:
        return replace(convolution, source=padded_view(lowering, source, axes))
    packed = lowering.converted(source.transpose((0, *axes, 1)), dtype)
    return replace(convolution, source=padded_view(lowering, packed, range(1, 1 + rank)), packed_last=True)


def geometry_of(op: OnnxOp, kernel: Sequence[int], sizes: Shape, outputs: Shape) -> Geometry:
    """The spatial attributes of a convolution or pooling of an input of `sizes` to `outputs`."""
    rank = len(kernel)
    strides = tuple(op.attr("strides") or (1,) * rank)
    dilations = tuple(op.attr("dilations") or (1,) * rank)
    mode = op.attr("auto_pad", "NOTSET")
    if mode in ("NOTSET", "", None):
        pads = tuple(Expr.const(pad) for pad in (op.attr("pads") or (0,) * (2 * rank))[:rank])
    elif mode == "VALID":
        pads = (ZERO,) * rank
    else:
        pads = tuple(
            _same_pad(size, out, stride, (k - 1) * dilation + 1, mode == "SAME_LOWER")
            for size, out, stride, k, dilation in zip(sizes, outputs, strides, kernel, dilations, strict=True)
        )
    return Geometry(tuple(kernel), strides, dilations, pads)


def _same_pad(size: Expr, out: Expr, stride: int, reach: int, lower: bool) -> Expr:
    total = maximum((out - 1) * stride + reach - size, ZERO)
    return floordiv(total + 1, Expr.const(2)) if lower else floordiv(total, Expr.const(2))


def vector_ranges(
    lowering: Lowering, kernel: KernelBuilder, shape: Shape, order: Sequence[int], multiple: int = 1
) -> list[Range]:
    """Ranges over the dimensions of a result for the vector unit, the last ones in `order` whole where they fit.

    Items next to each other are so in that order. The last dimension is cut at a `multiple`.
    """
    builder = lowering.builder
    best = [builder.bounds.best(size) for size in shape]
    room = max(_LEAST_TILE, min(_VECTOR_TILE, -(-prod(best) // builder.cores)))
    steps = [1] * len(shape)
    for axis in reversed(order):
        steps[axis] = max(1, min(best[axis], room))
        if axis == order[-1]:
            steps[axis] = -(-steps[axis] // multiple) * multiple
        room = max(1, room // steps[axis])
    ranges = {axis: kernel.range(shape[axis], steps[axis]) for axis in order}
    return [ranges[axis] for axis in range(len(shape))]


def whole_place(shape: Shape, ranges: Sequence[Range]) -> Place:
    """The place of an item whose tile has the dimensions of the result."""
    return Place(
        shape=shape,
        begin=tuple(each.start for each in ranges),
        tile=tuple((Counter(axis, each.size),) for axis, each in enumerate(ranges)),
        limits=tuple(each.step for each in ranges),
    )


def load_window(
    kernel: KernelBuilder,
    source: View,
    ranges: Sequence[Range],
    taps: Sequence[Range],
    geometry: Geometry,
    fill: float,
    machine: Machine,
) -> str:
    """The input of a block of outputs at one kernel position: as many elements, `strides` apart."""
    begin: list[Expr] = [each.start for each in ranges[:2]]
    tile = [(Counter(axis, each.size),) for axis, each in enumerate(ranges[:2])]
    for dim, (each, tap) in enumerate(zip(ranges[2:], taps, strict=True)):
        offset = tap.start * geometry.dilations[dim] - geometry.pads[dim]
        begin.append(each.start * geometry.strides[dim] + offset)
        tile.append((Counter(dim + 2, each.size, geometry.strides[dim]),))
    limits = [each.step for each in ranges]
    return kernel.load(source, begin, tile, limits, fill=fill, repeated=True, depth=_ahead(machine, prod(limits)))


def _ahead(machine: Machine, elements: int) -> int:
    """How many copies a tile that is loaded again and again has: as many as there are loads under way, and two."""
    latency = machine.network_latency_cycles + machine.die_latency_cycles
    return min(_MOST_COPIES, 2 + ceil(latency * machine.network_bytes_per_cycle / (4 * elements)))


def padded_view(lowering: Lowering, view: View, axes: Sequence[int]) -> View:
    """A view whose `axes` are whole dimensions of its tensor, so that reading outside them is reading padding."""
    whole = rigid(view)
    if whole is not None:
        return whole
    if all(view.covers(axis) for axis in axes):
        return view
    copied = temporary_for(lowering.builder, view.dtype, view.shape, view)
    lowering.emit(view, copied, "copy")
    return rigid(copied) or copied
