"""Matrix products: what MatMul, Gemm and attention become, with whatever elementwise work stands behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.sram.tiles import WHOLE, Mapping, Part, Tiles
from gimlet.runtime.expr import ONE, Expr
from gimlet.runtime.sram.formats import SUMS
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram.builder import ProgramBuilder, RefusedError
from gimlet.targets.sram.constants import Array, Constant, Weights
from gimlet.targets.sram.expression import (
    Argument,
    Index,
    emit_elementwise,
    nodes_of,
    replaced,
    views_of,
)
from gimlet.targets.sram.lowering import Lowering
from gimlet.targets.sram.mapping import (
    Sizes,
    Steps,
    columns_of_chiplet,
    largest_steps,
    weight_bytes,
)
from gimlet.targets.sram.product_kernel import ProductKernel
from gimlet.targets.sram.tiling import Slot, problem, sizes_of, steps_of
from gimlet.targets.sram.trial import array_for, cycles_of, quickest
from gimlet.targets.sram.views import Shape, View


def product_of(sizes: Sequence[Expr]) -> Expr:
    """The product of sizes."""
    return reduce(lambda a, b: a * b, sizes, ONE)


def broadcast(left: Shape, right: Shape) -> Shape:
    """The shape that numpy broadcasts two shapes to. Sizes that are not 1 are equal."""
    rank = max(len(left), len(right))
    a, b = (ONE,) * (rank - len(left)) + left, (ONE,) * (rank - len(right)) + right
    return tuple(y if x == ONE else x for x, y in zip(a, b, strict=True))


@dataclass(frozen=True, eq=False)
class WeightMatrix:
    """A constant matrix [depth, columns] ([columns, depth] in memory if `transposed`) in element type `dtype`.

    With several `groups` it is as many such matrices, one behind the other, transposed in memory.
    """

    weights: Weights
    constant: Constant
    dtype: str
    transposed: bool
    groups: int = 1

    @property
    def depth(self) -> int:
        return self.constant.shape[-1 if self.transposed else 0]

    @property
    def columns(self) -> int:
        return self.constant.shape[0 if self.transposed else -1] // self.groups

    def part(self, part: Part, steps: Steps) -> WeightMatrix:
        """The tiles of a part of the product."""
        kept = [(part.columns, steps.columns), (part.depth, steps.depth)]
        kept = kept if self.transposed else kept[::-1]
        shape = tuple(size if half is None else size // 2 for size, (half, _) in zip(self._shape, kept, strict=True))

        def cut(matrix: Array) -> Array:
            for axis, (half, step) in enumerate(kept):
                if half is not None:
                    tiles = np.moveaxis(matrix, axis, 0).reshape(-1, 2, step, matrix.shape[1 - axis])
                    matrix = np.moveaxis(tiles[:, half].reshape(-1, matrix.shape[1 - axis]), 0, axis)
            return matrix

        constant = self.constant.derived(f"part/{part.depth}/{part.columns}", shape, cut)
        return replace(self, constant=constant)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.constant.shape[0], self.constant.shape[1]

    def packed(self, steps: Steps, mapping: Mapping, by_columns: bool, kept: int = 0) -> View:
        """The matrix in tiles: [column tiles, depth tiles, columns, depth], with as many depth tiles as groups hold.

        A tile lies in one piece, its depth last: that is the order in which MXINT8 shares exponents. All tiles of a
        group lie together, so that they can be a block of one core. Where chiplets share columns (`by_columns`), all
        copies of a tile of columns lie behind each other. Tiles are cut from each `kept` columns, if that is not 0.
        """
        rows, width = min(steps.depth, self.depth), min(steps.columns, self.columns)
        transposed, columns, depth = self.transposed, self.columns, self.depth
        run = kept or columns
        runs, wide = -(-columns // run), -(-run // width)
        tiles, groups = runs * wide, self.groups
        grid = (groups * tiles, mapping.splits * mapping.tiles)

        def pack(matrix: Array) -> Array:
            by_column = (matrix if transposed else matrix.T).astype(np.float32).reshape(groups, columns, depth)
            padded = np.zeros((groups, runs, wide * width, grid[1] * rows), np.float32)
            for number in range(runs):
                own = by_column[:, number * run : (number + 1) * run]
                padded[:, number, : own.shape[1], :depth] = own
            return padded.reshape(grid[0], width, grid[1], rows).transpose(0, 2, 1, 3)

        what = f"matrix{'^T' if transposed else ''}/{groups}/{grid[1]}/{kept}"
        packed = self.constant.derived(what, (*grid, width, rows), pack)
        if mapping.resident:
            together = mapping.splits if by_columns and mapping.replicas > 1 else 0
            return self.weights.resident(packed, self.dtype, mapping.tiles * width * rows, mapping.replicas, together)
        return self.weights.view(packed, self.dtype)


@dataclass(frozen=True, eq=False)
class MatrixProduct:
    """`lhs[..., M, K] · rhs[..., K, N]`, batch dimensions of both already broadcast to those of the result.

    Operands are multiplied in the element type of `rhs`; tiles of `lhs` are converted where it has another one. With
    several `parts` each is a kernel that adds to the result. Weights of several groups are those
    of a batch, [groups, M, K].
    """

    builder: ProgramBuilder
    lhs: View
    rhs: View | WeightMatrix
    shape: Shape
    parts: tuple[Part, ...]
    slot: Slot

    @property
    def sums(self) -> str:
        """The element type of its sums."""
        return SUMS[self.rhs.dtype]

    @property
    def by_position(self) -> bool:
        return False

    @property
    def separate(self) -> bool:
        """Whether each of the batch has weights of its own."""
        return isinstance(self.rhs, WeightMatrix) and self.rhs.groups > 1

    def emit(self, root: Argument, target: View) -> None:
        lhs, output, views = self._flattened(root, target)
        tiles = None if self.parts else self._tiles(lhs, output, root is not self)
        if tiles is not None and tiles.mapping.splits == 1:
            self._kernel(lhs, self.rhs, output, tiles, root, views)
            return
        # Of groups one behind the other in each row.
        covers = (target.transpose((1, 0, 2)) if self.separate else target).is_whole
        if root is self and target.dtype == self.sums and covers:
            self._sum(lhs, output, tiles)
            return
        total = self.builder.temporary(self.sums, self.shape)
        seen = total if output.shape == self.shape else View.whole(total.tensor, self.sums, output.shape)
        self._sum(lhs, seen, tiles)
        emit_elementwise(self.builder, replaced(root, {id(self): total}), target)

    def _sum(self, lhs: View, output: View, tiles: Tiles | None) -> None:
        """Adds all parts of the product to `output`, or what items with the `tiles` of all of it make."""
        if tiles is not None:
            self._kernel(lhs, self.rhs, output, tiles, self, {}, adds=True)
            return
        if not isinstance(self.rhs, WeightMatrix):
            raise RefusedError("a product of two computed operands is not made in parts")
        steps = largest_steps(self.builder.machine)
        for part in self.parts:
            rhs = self.rhs.part(part, steps)
            own = self._tiles(lhs, output, False, rhs, part)
            rows, columns = _in_tiles(lhs, steps.depth, part.depth), _in_tiles(output, steps.columns, part.columns)
            self._kernel(rows, rhs, columns, own, self, {}, adds=True, tiled=True)

    def _tiles(
        self, lhs: View, output: View, fused: bool, rhs: WeightMatrix | None = None, part: Part = WHOLE
    ) -> Tiles:
        """The tiles of the product, or of the part of it that has the weights `rhs`: those given, or the quickest."""
        by_columns = self.builder.tensors[output.tensor].width > 0
        sizes = self._sizes(lhs, output, fused, by_columns, rhs)
        machine, dealing = self.builder.machine, self.builder.dealing
        found = self.slot.tiles(part)
        if found is not None:
            if (wrong := problem(found, sizes, machine, dealing)) is not None:
                raise RefusedError(f"tiles of {self.slot.of}: {wrong}")
        else:
            room = self._room(lhs, sizes)
            array = array_for(machine, dealing, sizes, *room) if part == WHOLE else machine
            mapping, most = quickest(array, dealing, sizes, *room), largest_steps(array)
            depth, columns = min(most.depth, sizes.depth), min(most.columns, sizes.columns)
            found = Tiles(sizes_of(sizes), sizes.held, sizes.lhs, depth, columns, mapping, self.slot.product, part)
        self.slot.chosen.append(found)
        return found

    def _room(self, lhs: View, sizes: Sizes) -> tuple[int, int]:
        """What a core has left for weights, and how much of it may be more copies of these."""
        homes = self.builder.homes
        room = homes.room if len(lhs.shape) == 2 or self.separate else 0
        return room, homes.spare(weight_bytes(sizes) / self.builder.cores)

    def conversion(self, root: Argument, dtype: str) -> float | None:
        """The cycles that it takes more if the tree `root` behind it is stored as `dtype` and not as its sums.

        None where a kernel of its own converts the result: of parts, and with tiles that are given.
        """
        if self.parts or self.slot.given:
            return None
        machine, dealing = self.builder.machine, self.builder.dealing
        lhs, output, _ = self._flattened(root, View.whole("", dtype, self.shape))
        converted = self._sizes(lhs, output, True, self.builder.width(self.shape) > 0)
        plain = replace(converted, fused=root is not self, made="")
        room = self._room(lhs, plain)
        longer, before = (cycles_of(machine, dealing, each, *room) for each in (converted, plain))
        return longer - before

    def _sizes(self, lhs: View, output: View, fused: bool, by_columns: bool, rhs: WeightMatrix | None = None) -> Sizes:
        bounds, held = self.builder.bounds, self.rhs.dtype
        columns, groups = rhs.columns if rhs else bounds.best(output.shape[-1]), 1
        if isinstance(self.rhs, WeightMatrix) and self.separate:
            columns, groups = columns_of_groups(self.builder.machine, columns, self.rhs.groups), self.rhs.groups
        return Sizes(
            batch=bounds.best(product_of(lhs.shape[:-2])) // groups,
            rows=bounds.best(lhs.shape[-2]),
            depth=rhs.depth if rhs else bounds.best(lhs.shape[-1]),
            columns=columns,
            lhs=lhs.dtype,
            held=held,
            weights=isinstance(self.rhs, WeightMatrix),
            fused=fused or output.dtype != self.sums,
            fixed=bounds.fixed(lhs.shape[-2]),
            by_columns=by_columns,
            made="" if output.dtype == self.sums else output.dtype,
            separate=self.separate,
        )

    def _kernel(
        self,
        lhs: View,
        rhs: View | WeightMatrix,
        output: View,
        tiles: Tiles,
        root: Argument,
        views: dict[View, View],
        adds: bool = False,
        tiled: bool = False,
    ) -> None:
        steps, mapping = steps_of(tiles, self.builder.machine), tiles.mapping
        weights = isinstance(rhs, WeightMatrix)
        by_columns = self.builder.tensors[output.tensor].width > 0
        sizes = self._sizes(lhs, output, False, by_columns)
        kept = 0 if tiled else columns_of_chiplet(self.builder.dealing, sizes, tiles.columns)
        held = rhs.packed(steps, mapping, by_columns, kept) if isinstance(rhs, WeightMatrix) else rhs
        begins = self.builder.bounds.never_empty(lhs.shape[-1])
        kernel = ProductKernel(
            self.builder, lhs, held, output, weights, mapping, steps, begins, adds, tiled, self.separate, kept
        )
        kernel.emit(self, root, views)

    def _flattened(self, root: Argument, target: View) -> tuple[View, View, dict[View, View]]:
        """The operands with all batch dimensions as rows, where one right-hand side serves them all."""
        views = {view: view.expand(self.shape) for view in views_of(root)}
        shared = isinstance(self.rhs, WeightMatrix)
        indexed = any(isinstance(each, Index) for each in nodes_of(root))
        if not shared or self.separate or len(self.shape) == 2 or indexed:
            return self.lhs, target, views
        probe = {name: max(2, size) for name, size in self.builder.bounds.optimum.items()}
        rows = product_of(self.shape[:-1])
        lhs = self.lhs.reshape((rows, self.lhs.shape[-1]), probe)
        output = target.reshape((rows, self.shape[-1]), probe)
        flat = {view: wide.reshape((rows, self.shape[-1]), probe) for view, wide in views.items()}
        found = {view: each for view, each in flat.items() if each is not None}
        if lhs is None or output is None or len(found) != len(views):
            return self.lhs, target, views
        return lhs, output, found


def columns_of_groups(machine: Machine, columns: int, groups: int) -> int:
    """The columns of one product that takes the arrays as long as one of `columns` for each group: whole tiles."""
    width = largest_steps(machine).columns
    return groups * -(-columns // width) * width


def _in_tiles(view: View, step: int, half: int | None) -> View:
    """A row as [1, tiles, step], or every other one of the tiles."""
    tiles, size = view.shape[-1].as_int() // step, Expr.const(step)
    pieces = (Expr.const(tiles),) if half is None else (Expr.const(tiles // 2), Expr.const(2))
    wide = view.reshape((ONE, *pieces, size), {})
    if wide is None:
        raise RefusedError("a row that is multiplied in parts does not lie in tiles")
    return wide if half is None else wide.slice(2, half, ONE).squeeze(2)


def multiply(
    lowering: Lowering, op: OnnxOp, lhs: View, rhs: View | WeightMatrix, batch: Shape, parts: tuple[Part, ...] = ()
) -> MatrixProduct:
    """The next product of `op`, of operands whose batch dimensions are broadcast to `batch`."""
    slot = lowering.plan.take(op)
    if not parts and slot.parts():
        raise RefusedError(f"tiles of {slot.of}: it is not made in parts")
    lhs = lhs.expand((*batch, *lhs.shape[-2:]))
    columns = Expr.const(rhs.columns) if isinstance(rhs, WeightMatrix) else rhs.shape[-1]
    if isinstance(rhs, View):
        rhs = rhs.expand((*batch, *rhs.shape[-2:]))
    return MatrixProduct(lowering.builder, lhs, rhs, (*batch, lhs.shape[-2], columns), parts, slot)
