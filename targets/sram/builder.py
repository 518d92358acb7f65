"""Builds programs: tensors without addresses, and kernels whose tiles are named, sized and shared as they are used."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod

from gimlet.dialects.onnx import OnnxOp
from gimlet.passes.refusal import RefusedError
from gimlet.passes.sram_home_weights import Homes
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.program import (
    EVERYWHERE,
    UNPLACED,
    Access,
    Fill,
    Gather,
    Held,
    Iota,
    Kernel,
    Load,
    Loop,
    Map,
    Matmul,
    Operand,
    Range,
    Reduce,
    Role,
    Scatter,
    Statement,
    Store,
    Tensor,
    Tile,
)
from gimlet.runtime.sram.verify import tile_bytes
from gimlet.targets.sram.views import Counter, Shape, View

COLUMNS_A_CHIPLET = 16
"""The fewest columns of a chiplet where columns are dealt."""


@dataclass(frozen=True)
class Bounds:
    """The symbolic dimensions of a segment: `optimum` to tune for, `maximum` to allocate for."""

    optimum: Mapping[str, int]
    maximum: Mapping[str, int]
    minimum: Mapping[str, int]

    def never_empty(self, size: Expr) -> bool:
        """Whether a size is positive at both ends of every dimension."""
        return min(size.evaluate(self.minimum), size.evaluate(self.maximum)) > 0

    def fixed(self, size: Expr) -> bool:
        """Whether a size is the same in every run."""
        return size.is_constant or size.evaluate(self.minimum) == size.evaluate(self.maximum)

    def best(self, size: Expr) -> int:
        """A size at the optimum, at least 1."""
        return max(1, size.evaluate(self.optimum))

    def most(self, size: Expr) -> int:
        """A size at the maximum of every dimension, at least 1."""
        return max(1, size.evaluate(self.maximum), size.evaluate(self.optimum))


@dataclass
class ProgramBuilder:
    """What has been generated so far. Addresses come last (levels.py)."""

    machine: Machine
    bounds: Bounds
    whole: Dealing
    """All cores that the program is for."""
    homes: Homes
    by_columns: frozenset[int] = frozenset()
    """Numbers of rows of tensors that are dealt by columns, beyond those of a few rows (layout.py)."""
    channels_last: set[str] = field(default_factory=set[str])
    """Tensors of feature maps [N, ..., C] (channels.py)."""
    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    kernels: list[Kernel] = field(default_factory=list[Kernel])
    ops: tuple[OnnxOp, ...] = ()
    """What the next kernels compute."""
    ops_of: dict[str, tuple[OnnxOp, ...]] = field(default_factory=dict[str, tuple[OnnxOp, ...]])
    """What each kernel computes, by its name."""
    chiplet: int = EVERYWHERE
    """Where the next kernels are."""

    @property
    def dealing(self) -> Dealing:
        """The cores that the next kernels are dealt to."""
        return self.whole if self.chiplet == EVERYWHERE else Dealing(self.whole.group, 1)

    @property
    def cores(self) -> int:
        """How many cores the next kernels are dealt to."""
        return self.dealing.cores

    def move_to(self, chiplet: int) -> None:
        """Puts the next kernels, and the weights that they keep, on one chiplet, or everywhere."""
        self.chiplet = self.homes.chiplet = chiplet

    def tensor(self, dtype: str, shape: Shape, role: Role = "temporary", name: str = "") -> str:
        """A new tensor; returns its name. Its address and capacity are not decided yet."""
        name = name or f"t{len(self.tensors)}"
        width = 0 if role == "weight" else self.width(shape)
        self.tensors[name] = Tensor(name, dtype, shape, "sram", UNPLACED, 0, role, width=width)
        return name

    def width(self, shape: Shape) -> int:
        """The columns of a tensor that is dealt by columns: one of several rows, but few, or so many that it pays."""
        if not shape or not shape[-1].is_constant:
            return 0
        rows = prod(self.bounds.most(size) for size in shape[:-1])
        columns = shape[-1].as_int()
        few = 1 < rows <= self.dealing.parts or rows in self.by_columns
        return columns if few and self.dealing.parts <= columns // COLUMNS_A_CHIPLET else 0

    def temporary(self, dtype: str, shape: Shape) -> View:
        """A new tensor, seen whole."""
        return View.whole(self.tensor(dtype, shape), dtype, shape)

    @contextmanager
    def computing(self, ops: tuple[OnnxOp, ...]) -> Generator[None]:
        """Kernels that are added in the block compute `ops`."""
        before, self.ops = self.ops, ops
        try:
            yield
        finally:
            self.ops = before

    @contextmanager
    def kernel(self, what: str) -> Generator[KernelBuilder]:
        """A kernel that is added when the block is left. `what` it does begins its name."""
        builder = KernelBuilder(self.bounds)
        yield builder
        used = sum(tile_bytes(tile) for tile in builder.tiles.values())
        if used > self.machine.sram_bytes_per_core // 2:
            raise RefusedError(
                f"its tiles take {used} bytes, more than half of a core's {self.machine.sram_bytes_per_core}"
            )
        name = f"{what}_{len(self.kernels)}"
        self.ops_of[name] = self.ops
        self.kernels.append(
            Kernel(
                name=name,
                grid=tuple(builder.grid),
                tiles=tuple(builder.tiles.values()),
                body=tuple(builder.body),
                sources=tuple(dict.fromkeys(op.node_name or op.op_type for op in self.ops)),
                chiplet=self.chiplet,
            )
        )


class KernelBuilder:
    """One kernel. Methods append an instruction and return the tile that it writes.

    A tile that is no longer needed may be given back with `free`; later ones of the same shape and type take its place.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.grid: list[Range] = []
        self.tiles: dict[str, Tile] = {}
        self.body: list[Statement] = []
        self.spare: dict[tuple[str, tuple[int, ...], int], list[str]] = {}
        self.ranges = 0

    def range(self, extent: Expr, step: int) -> Range:
        """A range of the grid."""
        each = self._new_range(extent, step)
        self.grid.append(each)
        return each

    def _new_range(self, extent: Expr, step: int) -> Range:
        each = Range(f"i{self.ranges}", extent, step)
        self.ranges += 1
        return each

    @contextmanager
    def loop(self, extent: Expr, step: int) -> Generator[Range]:
        """A loop around what the block appends."""
        outer, self.body = self.body, []
        over = self._new_range(extent, step)
        yield over
        body, self.body = self.body, outer
        self.body.append(Loop(over, tuple(body)))

    def new_tile(self, dtype: str, shape: Sequence[int], depth: int = 1) -> str:
        key = (dtype, tuple(shape), depth)
        if self.spare.get(key):
            return self.spare[key].pop()
        name = f"v{len(self.tiles)}"
        self.tiles[name] = Tile(name, dtype, tuple(shape), depth, UNPLACED)
        return name

    def free(self, tile: str) -> None:
        """Lets later instructions use the tile's memory."""
        declared = self.tiles[tile]
        self.spare.setdefault((declared.dtype, declared.shape, declared.depth), []).append(tile)

    def load(
        self,
        view: View,
        begin: Sequence[Expr],
        tile: Sequence[Sequence[Counter]],
        shape: Sequence[int],
        fill: float | None = None,
        repeated: bool = False,
        depth: int = 2,
    ) -> str:
        """A load into a tile of at most `shape`, in `depth` copies. Dimensions that only repeat take 1 (views.py)."""
        held = [1 if view.repeats(counters, repeated) else size for counters, size in zip(tile, shape, strict=True)]
        name = self.new_tile(view.dtype, held, depth)
        self.body.append(Load(name, view.access(begin, tile, fill, repeated)))
        return name

    def gather(self, access: Access, dtype: str, shape: Sequence[int], indices: str, axis: int) -> str:
        name = self.new_tile(dtype, shape, depth=2)
        self.body.append(Gather(name, access, indices, axis))
        return name

    def store(
        self, view: View, begin: Sequence[Expr], tile: Sequence[Sequence[Counter]], name: str, adds: bool = False
    ) -> None:
        """A DMA store of a tile, converted first if the tensor has another element type."""
        if self.tiles[name].dtype != view.dtype:
            name = self.map("copy", [name], view.dtype, depth=2)
        self.body.append(Store(view.access(begin, tile), name, adds))

    def scatter(
        self,
        view: View,
        begin: Sequence[Expr],
        tile: Sequence[Sequence[Counter]],
        name: str,
        indices: str,
        axis: int,
        function: str = "",
    ) -> None:
        """A store of a tile at positions along its dimension `axis` that a tile of indices gives, converted first."""
        if self.tiles[name].dtype != view.dtype:
            name = self.map("copy", [name], view.dtype, depth=2)
        self.body.append(Scatter(view.access(begin, tile), name, indices, axis, function=function))

    def fill(
        self, dtype: str, sizes: Sequence[Expr], shape: Sequence[int], value: int | float | Expr, depth: int = 1
    ) -> str:
        name = self.new_tile(dtype, shape, depth)
        self.body.append(Fill(name, tuple(sizes), _plain(value)))
        return name

    def iota(self, sizes: Sequence[Expr], shape: Sequence[int], axis: int, start: Expr, step: int = 1) -> str:
        name = self.new_tile("i64", shape)
        self.body.append(Iota(name, tuple(sizes), axis, start, step))
        return name

    def matmul(self, accumulator: str, lhs: str, rhs: str, begins: str = "", stationary: Held = "rhs") -> None:
        """`accumulator += lhs · rhs`, from zero in the first step of the loop `begins`."""
        self.body.append(Matmul(accumulator, lhs, rhs, stationary, begins))

    def map(
        self,
        function: str,
        operands: Sequence[Operand],
        dtype: str = "f32",
        parameters: Sequence[float] = (),
        into: str = "",
        depth: int = 1,
    ) -> str:
        """A vector function of tiles and numbers; into a new tile, or one that is there already."""
        shapes = [self.tiles[each].shape for each in operands if isinstance(each, str)]
        name = into or self.new_tile(dtype, [max(sizes) for sizes in zip(*shapes, strict=True)], depth)
        plain = tuple(each if isinstance(each, str) else _plain(each) for each in operands)
        self.body.append(Map(function, name, plain, tuple(parameters)))
        return name

    def reduce(self, function: str, source: str, axes: Sequence[int]) -> str:
        declared = self.tiles[source]
        shape = [1 if axis in axes else size for axis, size in enumerate(declared.shape)]
        name = self.new_tile(declared.dtype, shape)
        self.body.append(Reduce(function, name, source, tuple(axes)))
        return name


def _plain(value: int | float | Expr) -> int | float | Expr:
    """A constant expression as the integer that it is."""
    return value.as_int() if isinstance(value, Expr) and value.is_constant else value
