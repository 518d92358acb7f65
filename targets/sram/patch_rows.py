"""Convolutions as one matrix product: a row of patches for each position of the output, times the weights.

The kernel of a convolution (convolution.py) gives an item a block of positions and all of the depth, one step after the
other. That is little work for many cores where there are few positions and a great depth, as at the end of a
backbone, or where a kernel is longer than an array is high. The mapping of a product cuts the depth as well. What its
rows take is one kernel that copies every patch; a kernel of one position has its rows where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, prod

from gimlet.dialects.sram.tiles import Patches
from gimlet.runtime.expr import ZERO, Expr
from gimlet.runtime.sram.formats import stored_bytes
from gimlet.targets.sram import channels
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.convolution import Convolution, Geometry, on_array, padded_view, vector_ranges, whole_place
from gimlet.targets.sram.convolution_trial import Way
from gimlet.targets.sram.convolution_trial import cycles_of as timed_alone
from gimlet.targets.sram.expression import Argument, Index, Product, emit_elementwise, nodes_of, replaced, views_of
from gimlet.targets.sram.mapping import Sizes, weight_bytes
from gimlet.targets.sram.patch_mapping import by_patches
from gimlet.targets.sram.products import MatrixProduct, WeightMatrix, columns_of_groups, multiply, product_of
from gimlet.targets.sram.tiling import given_tiles
from gimlet.targets.sram.trial import cycles_of
from gimlet.targets.sram.views import Counter, Shape, View

_SURE = 2
"""How many times as long as the other way one has to take in closed form so that neither is tried."""


@dataclass(frozen=True)
class ByKernel:
    """The way of a convolution by its own kernel, with the tiles `given`, or those that it has without a choice."""

    given: Patches | None

    def __call__(self, convolution: Convolution) -> Convolution:
        return on_array(replace(convolution, given=self.given))


@dataclass(frozen=True, eq=False)
class RowProduct:
    """A convolution whose positions are the rows of `matrix`; the result is [N, O, ...].

    With several `groups` the matrix is [groups, positions, outputs of a group].
    """

    matrix: MatrixProduct
    shape: Shape
    groups: int

    @property
    def sums(self) -> str:
        """The element type of its sums."""
        return self.matrix.sums

    @property
    def by_position(self) -> bool:
        return True

    def emit(self, root: Argument, target: View) -> None:
        builder, output = self.matrix.builder, self._as_rows(target)
        views = {view: self._as_rows(view) for view in views_of(root)}
        known: dict[int, Argument] = {id(self): self.matrix}
        known |= {id(each): views[each] or each for each in nodes_of(root) if isinstance(each, View)}
        indexed = any(isinstance(each, Index) for each in nodes_of(root))
        if output is not None and not indexed and None not in views.values():
            self.matrix.emit(replaced(root, known), output)
            return
        total = builder.temporary(self.sums, (self.matrix.shape[-2], self.shape[1]))
        self.matrix.emit(self.matrix, _by_group(total, self.groups))
        wide = View.whole(total.tensor, total.dtype, tuple(self.shape[axis] for axis in channels.last(len(self.shape))))
        turned = wide.transpose(channels.first(len(self.shape)))
        emit_elementwise(builder, replaced(root, {id(self): turned}), target)

    def _as_rows(self, view: View) -> View | None:
        """A view of the result's shape as that of the matrix, or None where no walk gives it."""
        probe = {name: max(2, size) for name, size in self.matrix.builder.bounds.optimum.items()}
        wide = view.expand(self.shape).transpose(channels.last(len(self.shape)))
        rows = wide.reshape((self.matrix.shape[-2], self.shape[1]), probe)
        return None if rows is None else _by_group(rows, self.groups)


def _by_group(rows: View, groups: int) -> View:
    """Rows of all groups, one behind the other, as [groups, rows, columns]; those of one group as they are."""
    if groups == 1:
        return rows
    split = rows.reshape((rows.shape[0], Expr.const(groups), Expr.const(rows.shape[1].as_int() // groups)), {})
    if split is None:
        raise RefusedError("the channels of groups do not lie behind each other")
    return split.transpose((1, 0, 2))


def quickest(convolution: Convolution) -> Product:
    """The convolution in the way that its tiles say, or else in the quickest: as rows, or by its kernel."""
    op = convolution.op
    if op is None or convolution.dtype == "i8":
        return on_array(convolution)
    given = given_tiles(op)
    if given and not any(isinstance(each, Patches) for each in given):
        return product_of_rows(convolution)
    if given:
        return ByKernel(convolution.lowering.plan.convolution(op))(convolution)
    way = _quickest(convolution)
    if isinstance(way, ByKernel):
        convolution.lowering.plan.convolution(op)
    return way(convolution)


def product_of_rows(convolution: Convolution) -> RowProduct:
    """The convolution as a product of rows, of which the input is converted before but in MXINT8."""
    lowering, op, weight = convolution.lowering, convolution.op, convolution.weight
    if convolution.dtype != "mxint8":
        convolution = replace(convolution, source=lowering.converted(convolution.source, convolution.dtype))
    if op is None:
        raise RefusedError("a convolution without an operation is no product of rows")
    kernel = weight.shape[2:]
    depth = prod(weight.shape[1:])
    # Channels last, as the patches have them.
    matrix = weight.derived(
        "rows", (weight.shape[0], depth), lambda array: array.transpose(0, *range(2, array.ndim), 1).reshape(-1, depth)
    )
    groups = convolution.groups
    weights = WeightMatrix(lowering.weights, matrix, convolution.dtype, True, groups)
    rows = _by_group(_rows(convolution, kernel, groups * depth), groups)
    batch = (Expr.const(groups),) if groups > 1 else ()
    return RowProduct(multiply(lowering, op, rows, weights, batch), convolution.shape, groups)


def _rows(convolution: Convolution, kernel: Sequence[int], depth: int) -> View:
    """The patches as a matrix [N · positions, depth of all groups], in the element type of the input."""
    lowering, source, geometry = convolution.lowering, convolution.source, convolution.geometry
    builder, bounds, shape, dtype = lowering.builder, lowering.bounds, convolution.shape, source.dtype
    rows = product_of((shape[0], *shape[2:]))
    found = _rows_there(convolution)
    if found is not None:
        return found
    groups, own = Expr.const(convolution.groups), convolution.weight.shape[1]
    if convolution.groups > 1:
        read = bounds.best(rows) * depth
        source = lowering.turned(source, dtype) if channels.pays_for_patches(builder, source, read, dtype) else source
    full = (shape[0], *shape[2:], groups, *map(Expr.const, kernel), Expr.const(own))
    made = builder.temporary(dtype, (rows, Expr.const(depth)))
    target = made.reshape(full, {name: max(2, size) for name, size in builder.bounds.optimum.items()})
    if target is None:
        raise RefusedError("rows of patches do not lie in patches")
    rank = len(kernel)
    source = padded_view(lowering, source, range(2, 2 + rank))
    with builder.kernel("patches") as copied:
        ranges = vector_ranges(lowering, copied, full, range(len(full)))
        place = whole_place(full, ranges)
        batch, spatial, group, taps, channel = (
            ranges[0],
            ranges[1 : 1 + rank],
            ranges[1 + rank],
            ranges[2 + rank : -1],
            ranges[-1],
        )
        begin = [batch.start, group.start * own + channel.start]
        for dim, (at, tap) in enumerate(zip(spatial, taps, strict=True)):
            first = at.start * geometry.strides[dim] - geometry.pads[dim]
            begin.append(first + tap.start * geometry.dilations[dim])
        steps = (1, *geometry.strides, own, *geometry.dilations, 1)
        along = (0, *range(2, 2 + rank), 1, *range(2, 2 + rank), 1)
        tile = [(Counter(dim, each.size, step),) for dim, each, step in zip(along, ranges, steps, strict=True)]
        loaded = copied.load(source, begin, tile, place.limits, fill=convolution.fill, repeated=True)
        copied.store(target, place.begin, place.tile, loaded)
    return made


def _rows_there(convolution: Convolution) -> View | None:
    """The input as rows, where every patch is one position of it, in the order of the output."""
    geometry: Geometry = convolution.geometry
    source, shape = convolution.source, convolution.shape
    plain = all(pad == ZERO for pad in geometry.pads) and prod(geometry.kernel) == 1
    if not plain or source.shape[2:] != shape[2:]:
        return None
    probe = {name: max(2, size) for name, size in convolution.lowering.bounds.optimum.items()}
    rows = product_of((shape[0], *shape[2:]))
    return source.transpose(channels.last(len(shape))).reshape((rows, source.shape[1]), probe)


def _quickest(convolution: Convolution) -> Way:
    """The way that is the quickest alone, of those of which the closed form is not sure."""
    lowering, dtype, weight = convolution.lowering, convolution.dtype, convolution.weight
    builder = lowering.builder
    machine, dealing, homes, bounds = builder.machine, builder.dealing, builder.homes, builder.bounds
    plain = ByKernel(None)
    if machine.dataflow != "rhs" or 0 in weight.shape:
        return plain
    rows, depth = product_of((convolution.shape[0], *convolution.shape[2:])), prod(weight.shape[1:])
    count = bounds.best(rows)
    # As rows are multiplied, so that what is timed here is known when they are.
    loaded = convolution.source.dtype if dtype == "mxint8" else dtype
    outputs, groups = weight.shape[0] // convolution.groups, convolution.groups
    columns = outputs if groups == 1 else columns_of_groups(machine, outputs, groups)
    sizes = Sizes(1, count, depth, columns, loaded, dtype, True, True, bounds.fixed(rows))
    size = weight_bytes(sizes) / dealing.cores
    room, spare = homes.room, homes.spare(size)
    others = [] if _rows_there(convolution) is not None else by_patches(convolution, room, spare)
    ways: list[Way] = [*map(ByKernel, others), *_of_rows_or_plain(convolution, sizes, room, spare)]
    if len(ways) == 1:
        return ways[0]
    # Behind the others, of ways that are all refused the one that has the smallest tiles.
    return min(reversed(ways), key=lambda way: timed_alone(convolution, way, size))


def _of_rows_or_plain(convolution: Convolution, sizes: Sizes, room: int, spare: int) -> list[Way]:
    """Rows, or the kernel whose weights are loaded, or both where neither takes less than half of the other."""
    builder, bounds, weight = convolution.lowering.builder, convolution.lowering.bounds, convolution.weight
    machine, dealing, groups = builder.machine, builder.dealing, convolution.groups
    latency = 2 * machine.network_latency_cycles + machine.semaphore_cycles
    copies = 0.0
    if _rows_there(convolution) is None:
        moved = 2 * stored_bytes(sizes.lhs, (sizes.rows * groups * sizes.depth,))
        copies = latency + moved / dealing.cores / machine.network_bytes_per_cycle
    found = convolution.tiles()
    steps = prod(convolution.outer(found.kernel)) * ceil(weight.shape[1] / found.channels)
    items = bounds.best(convolution.shape[0]) * groups * ceil(weight.shape[0] // groups / found.outputs)
    for size, step in zip(convolution.shape[2:], found.positions, strict=True):
        items *= ceil(bounds.best(size) / step)
    deep = prod(found.kernel) * found.channels
    hold = stored_bytes(sizes.held, (found.outputs, deep)) / machine.sram_bytes_per_cycle
    stream = prod(found.positions) * machine.row_cycles[sizes.held]
    direct = latency + ceil(items / dealing.cores) * steps * (hold + stream)
    if groups == 1 and direct <= copies + latency:
        return [ByKernel(None)]
    product = copies + cycles_of(machine, dealing, sizes, room, spare)
    if groups == 1 and max(product, direct) > _SURE * min(product, direct):
        return [product_of_rows] if product < direct else [ByKernel(None)]
    return [product_of_rows, ByKernel(None)]
