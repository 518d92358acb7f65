"""The kernel of a matrix product: the loops of a mapping, and the instructions of one item.

for each batch, part of the rows, column tile, group of the depth:   items, dealt to the cores
                (the column tile first, where chiplets share columns)
  for each block of rows:                                           a loop of the core
    for each depth tile:
      the tile of weights: a window where it lies, or a load
      for each accumulator: load rows, convert them, multiply with the tile in the array
                            and, on the vector unit, with the last columns of the tile
    for each accumulator: what stands behind the product, store or add
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from gimlet.runtime.expr import ONE, ZERO, Expr
from gimlet.runtime.sram.formats import SUMS
from gimlet.runtime.sram.program import Range
from gimlet.targets.sram.builder import KernelBuilder, ProgramBuilder
from gimlet.targets.sram.expression import Argument, Place, evaluate
from gimlet.targets.sram.mapping import Mapping, Steps, rows_of_chiplet
from gimlet.targets.sram.views import Counter, View


@dataclass(frozen=True)
class _Part:
    """An accumulator: where its part of the result is, which rows stream, and its first column of the tile."""

    tile: str
    place: Place
    first: Expr
    rows: Expr
    column: int


@dataclass(frozen=True)
class _Columns:
    """A tile of columns: its first one, its number, and how many it has."""

    start: Expr
    index: Expr
    size: Expr


@dataclass(frozen=True)
class ProductKernel:
    """`output = lhs · rhs`, batch dimensions alike, in the element type of `rhs`.

    `packed` weights are [column tiles, depth tiles, columns, depth]; `begins` says that the depth is never empty,
    `adds` that others add to the same elements. With `tiled`, `lhs` and `output` are one row each, [1, tiles, step].
    With `separate` each of a batch [batch, rows, columns] has weights of its own, column tiles behind those before.
    Tiles are cut from each `kept` columns, those of a chiplet, if that is not 0.
    """

    builder: ProgramBuilder
    lhs: View
    rhs: View
    output: View
    packed: bool
    mapping: Mapping
    steps: Steps
    begins: bool
    adds: bool = False
    tiled: bool = False
    separate: bool = False
    kept: int = 0

    def emit(self, product: Argument, root: Argument, views: dict[View, View]) -> None:
        """Appends the kernel, with the tree `root` behind the product, of which that is a leaf."""
        builder, mapping = self.builder, self.mapping
        batch, (rows, depth, columns) = self.lhs.shape[:-2], (*self.lhs.shape[-2:], self.output.shape[-1])
        if self.tiled:
            batch, rows = (), ONE
            depth, columns = self.lhs.shape[1] * self.lhs.shape[2], self.output.shape[1] * self.output.shape[2]
        width = min(self.steps.columns, builder.bounds.most(columns))
        deep = min(self.steps.depth, builder.bounds.most(depth))
        at_once = mapping.rows * mapping.accumulators
        with builder.kernel("matmul") as kernel, ExitStack() as loops:
            # Of what is dealt by columns the items of a tile of columns are next to each other.
            by_columns = builder.tensors[self.output.tensor].width > 0
            outer = [] if self.separate and not by_columns else [kernel.range(size, 1).start for size in batch]
            n = self._columns(kernel, columns, width) if by_columns else None
            first, part = self._part(kernel, rows, by_columns)
            m = None if mapping.resident else kernel.range(rows, at_once)
            outer = outer or [kernel.range(size, 1).start for size in batch]
            n = n or self._columns(kernel, columns, width)
            # One group takes all of a depth that may be larger than the one that code is tuned for.
            group = kernel.range(depth, mapping.tiles * deep) if mapping.splits > 1 else None
            item = _Item(self, kernel, tuple(outer), first, n, group, width, deep)
            along = depth if group is None else group.size
            if mapping.stays_held:
                k = loops.enter_context(kernel.loop(along, deep))
                tiles = item.tiles(k)
                m = loops.enter_context(kernel.loop(rows if part is None else part.size, at_once))
                parts = item.parts(m)
                item.multiply(k, parts, tiles)
            else:
                m = m or loops.enter_context(kernel.loop(rows if part is None else part.size, at_once))
                parts = item.parts(m)
                with kernel.loop(along, deep) as k:
                    item.multiply(k, parts, item.tiles(k))
            for each in parts:
                result = evaluate(kernel, root, each.place, {id(product): each.tile}, views)
                kernel.store(self.output, each.place.begin, each.place.tile, result, adds=self.adds)

    def _columns(self, kernel: KernelBuilder, columns: Expr, width: int) -> _Columns:
        """The range over tiles of columns, where each chiplet cuts its own that inside the one over those."""
        if not self.kept:
            tiles = kernel.range(columns, width)
            return _Columns(tiles.start, tiles.index, tiles.size)
        chiplet = kernel.range(columns, self.kept)
        tiles = kernel.range(chiplet.size, width)
        index = chiplet.index * -(-self.kept // width) + tiles.index
        return _Columns(chiplet.start + tiles.start, index, tiles.size)

    def _part(self, kernel: KernelBuilder, rows: Expr, by_columns: bool) -> tuple[Expr, Range | None]:
        """The first row of the part of the rows that a copy of the weights makes, and its range; None for all."""
        mapping, dealing = self.mapping, self.builder.dealing
        if mapping.replicas <= 1:
            return ZERO, None
        most = self.builder.bounds.best(rows)
        kept = 0 if by_columns else rows_of_chiplet(dealing, most, mapping.replicas)
        chiplet = kernel.range(rows, kept) if kept else None
        part = kernel.range(chiplet.size if chiplet else rows, mapping.chunk(most))
        return (chiplet.start if chiplet else ZERO) + part.start, part


@dataclass(frozen=True)
class _Item:
    """What an item of the kernel does: a part of the rows from `first` on, column tile `n`, `group` of the depth."""

    of: ProductKernel
    kernel: KernelBuilder
    outer: tuple[Expr, ...]
    first: Expr
    n: _Columns
    group: Range | None
    width: int
    deep: int

    @property
    def columns(self) -> list[tuple[int, int, Expr]]:
        """The first column, the most columns and the columns that the array has of a tile, and the vector unit."""
        share = self.of.mapping.vector_columns
        if not share:
            return [(0, self.width, self.n.size)]
        narrow = self.width - share
        return [(0, narrow, Expr.const(narrow)), (narrow, share, Expr.const(share))]

    def parts(self, m: Range) -> list[_Part]:
        """The accumulators of a block of rows."""
        mapping, axis = self.of.mapping, len(self.outer)
        found: list[_Part] = []
        for index in range(mapping.accumulators):
            begin = self.first + m.start + index * mapping.rows
            rows = self.rows_of(index, m)
            for column, limit, size in self.columns:
                along = (self.n.index, Expr.const(column)) if self.of.tiled else (self.n.start + column,)
                place = Place(
                    shape=self.of.output.shape,
                    begin=(*self.outer, begin, *along),
                    tile=((Counter(axis, rows),), (Counter(axis + len(along), size),)),
                    limits=(mapping.rows, limit),
                )
                if self.of.begins:
                    tile = self.kernel.new_tile(SUMS[self.of.rhs.dtype], place.limits, depth=2)
                else:
                    tile = self.kernel.fill(SUMS[self.of.rhs.dtype], place.sizes, place.limits, 0)
                found.append(_Part(tile, place, begin, rows, column))
        return found

    def rows_of(self, index: int, m: Range) -> Expr:
        """The rows of an accumulator: the last has what the others leave of a block."""
        mapping = self.of.mapping
        last = index == mapping.accumulators - 1
        return m.size - index * mapping.rows if last else Expr.const(mapping.rows)

    def tiles(self, k: Range) -> dict[int, str]:
        """The tiles of the right-hand side by their first column: where they lie on their core, or loaded."""
        of, mapping, axis = self.of, self.of.mapping, len(self.outer)
        index = self.depth_tile(k)
        depth = 0 if mapping.resident else mapping.copies
        found: dict[int, str] = {}
        for column, limit, size in self.columns:
            if of.packed:
                at = (self.column_tile(), index, Expr.const(column), ZERO)
                tile = ((Counter(3, k.size),), (Counter(2, size),))
            else:
                at = (*self.outer, self.begin(k), self.n.start)
                tile = ((Counter(axis, k.size),), (Counter(axis + 1, size),))
            found[column] = self.kernel.load(of.rhs, at, tile, (self.deep, limit), repeated=True, depth=depth)
        return found

    def column_tile(self) -> Expr:
        """The number of the tile of columns among those of all weights."""
        if not self.of.separate:
            return self.n.index
        return self.outer[0] * -(-self.of.output.shape[-1].as_int() // self.width) + self.n.index

    def depth_tile(self, k: Range) -> Expr:
        """The number of the tile of a step along the depth."""
        return k.index if self.group is None else self.group.index * self.of.mapping.tiles + k.index

    def begin(self, k: Range) -> Expr:
        """The first position of a step along the depth."""
        return k.start if self.group is None else self.group.start + k.start

    def multiply(self, k: Range, parts: Sequence[_Part], tiles: dict[int, str]) -> None:
        """One step along the depth: every part grows by its rows times its columns of the tile."""
        of, mapping, axis = self.of, self.of.mapping, len(self.outer)
        streams: dict[Expr, str] = {}
        for part in parts:
            if part.first not in streams:
                along = (self.depth_tile(k), ZERO) if of.tiled else (self.begin(k),)
                rows = ((Counter(axis, part.rows),), (Counter(axis + len(along), k.size),))
                at, shape = (*self.outer, part.first, *along), (mapping.rows, self.deep)
                a = self.kernel.load(of.lhs, at, rows, shape, repeated=True, depth=mapping.copies)
                if of.lhs.dtype != of.rhs.dtype:
                    a = self.kernel.map("copy", [a], of.rhs.dtype, depth=2)
                streams[part.first] = a
            unit = "nothing" if part.column else of.builder.machine.dataflow
            begins = k.name if of.begins else ""
            self.kernel.matmul(part.tile, streams[part.first], tiles[part.column], begins, unit)
