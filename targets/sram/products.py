"""Matrix products: what MatMul, Gemm and attention become, with whatever elementwise work stands behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from gimlet.runtime.expr import ONE, ZERO, Expr
from gimlet.targets.sram.builder import ProgramBuilder
from gimlet.targets.sram.constants import Array, Constant
from gimlet.targets.sram.expression import Argument, Index, Place, evaluate, nodes_of, views_of
from gimlet.targets.sram.lowering import Lowering
from gimlet.targets.sram.views import Counter, Shape, View

_ROWS = (256, 128, 64, 32, 16, 8)


def product_of(sizes: Sequence[Expr]) -> Expr:
    """The product of sizes."""
    return reduce(lambda a, b: a * b, sizes, ONE)


@dataclass(frozen=True, eq=False)
class PackedMatrix:
    """A constant matrix [depth, columns] in tiles: the tensor is [column tiles, depth tiles, columns, depth].

    A tile lies in one piece, its depth last: that is the order in which MXINT8 shares exponents.
    """

    view: View
    depth: Expr
    columns: Expr


def pack_matrix(lowering: Lowering, constant: Constant, dtype: str, transposed: bool) -> PackedMatrix:
    """A constant [depth, columns] ([columns, depth] if transposed) packed for the matrix unit."""
    machine = lowering.builder.machine
    depth, columns = reversed(constant.shape) if transposed else constant.shape
    rows = min(machine.matrix_rows, depth)
    grid = (-(-columns // machine.matrix_columns), -(-depth // rows))
    shape = (*grid, machine.matrix_columns, rows)

    def pack(matrix: Array) -> Array:
        by_column = matrix if transposed else matrix.T
        padded = np.zeros((grid[0] * machine.matrix_columns, grid[1] * rows), np.float32)
        padded[:columns, :depth] = by_column.astype(np.float32)
        return padded.reshape(grid[0], machine.matrix_columns, grid[1], rows).transpose(0, 2, 1, 3)

    packed = constant.derived(f"matrix{'^T' if transposed else ''}", shape, pack)
    return PackedMatrix(lowering.weights.view(packed, dtype), Expr.const(depth), Expr.const(columns))


@dataclass(frozen=True, eq=False)
class MatrixProduct:
    """`lhs[..., M, K] · rhs[..., K, N]`, batch dimensions of both already broadcast to those of the result."""

    builder: ProgramBuilder
    lhs: View
    rhs: View | PackedMatrix
    shape: Shape

    def emit(self, root: Argument, target: View) -> None:
        lhs, output, views = self._flattened(root, target)
        batch = lhs.shape[:-2]
        rows, depth, columns = lhs.shape[-2], lhs.shape[-1], output.shape[-1]
        machine, bounds = self.builder.machine, self.builder.bounds
        row_step = self._row_step(bounds.best(product_of(batch)), bounds.best(rows), bounds.best(columns))
        column_step = min(machine.matrix_columns, bounds.most(columns))
        depth_step = min(machine.matrix_rows, bounds.most(depth))
        axis = len(batch)
        with self.builder.kernel("matmul") as kernel:
            outer = [kernel.range(size, 1).start for size in batch]
            m, n = kernel.range(rows, row_step), kernel.range(columns, column_step)
            place = Place(
                shape=output.shape,
                begin=(*outer, m.start, n.start),
                tile=((Counter(axis, m.size),), (Counter(axis + 1, n.size),)),
                limits=(row_step, column_step),
            )
            accumulator = kernel.fill("f32", place.sizes, place.limits, 0)
            with kernel.loop(depth, depth_step) as k:
                left = ((Counter(axis, m.size),), (Counter(axis + 1, k.size),))
                a = kernel.load(lhs, (*outer, m.start, k.start), left, (row_step, depth_step), repeated=True)
                if isinstance(self.rhs, PackedMatrix):
                    tiled = ((Counter(3, k.size),), (Counter(2, n.size),))
                    begin = (n.index, k.index, ZERO, ZERO)
                    b = kernel.load(self.rhs.view, begin, tiled, (depth_step, column_step), repeated=True)
                else:
                    right = ((Counter(axis, k.size),), (Counter(axis + 1, n.size),))
                    begin = (*outer, k.start, n.start)
                    b = kernel.load(self.rhs, begin, right, (depth_step, column_step), repeated=True)
                kernel.matmul(accumulator, a, b)
            result = evaluate(kernel, root, place, {id(self): accumulator}, views)
            kernel.store(output, place.begin, place.tile, result)

    def _flattened(self, root: Argument, target: View) -> tuple[View, View, dict[View, View]]:
        """The operands with all batch dimensions as rows, where one right-hand side serves them all."""
        views = {view: view.expand(self.shape) for view in views_of(root)}
        shared = isinstance(self.rhs, PackedMatrix)
        if not shared or len(self.shape) == 2 or any(isinstance(each, Index) for each in nodes_of(root)):
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

    def _row_step(self, batch: int, rows: int, columns: int) -> int:
        """Rows that one instruction streams: as many as leave an item for each core, at least what hides the load."""
        tiles = batch * -(-columns // self.builder.machine.matrix_columns)
        steps = [min(step, self.builder.machine.matrix_stream) for step in _ROWS]
        chosen = next((step for step in steps if tiles * -(-rows // step) >= self.builder.cores), steps[-1])
        return max(1, min(chosen, rows))


def multiply(lowering: Lowering, lhs: View, rhs: View | PackedMatrix, batch: Shape) -> MatrixProduct:
    """The product of operands of one element type, batch dimensions broadcast to `batch`."""
    lhs = lhs.expand((*batch, *lhs.shape[-2:]))
    columns = rhs.columns if isinstance(rhs, PackedMatrix) else rhs.shape[-1]
    if isinstance(rhs, View):
        rhs = rhs.expand((*batch, *rhs.shape[-2:]))
    return MatrixProduct(lowering.builder, lhs, rhs, (*batch, lhs.shape[-2], columns))
