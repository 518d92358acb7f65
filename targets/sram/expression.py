"""Elementwise work that was not generated yet: a tree of vector functions over views, fused into one kernel.

A node's arguments are broadcast to its shape as numpy does it. A tree is generated when something needs the value in
memory: as a kernel of its own, or behind the product of a matrix kernel, whose accumulator is then one of its leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from gimlet.runtime.expr import ONE, ZERO, Expr
from gimlet.runtime.sram.formats import MX_BLOCK
from gimlet.runtime.sram.functions import FUNCTIONS
from gimlet.runtime.sram.program import Range
from gimlet.targets.sram.aligned import aligned_columns, aligned_steps, cut_alike
from gimlet.targets.sram.builder import KernelBuilder, ProgramBuilder
from gimlet.targets.sram.views import Counter, Shape, View

MOST_NODES = 24
MOST_LEAVES = 8
_LARGEST_TILE = 8192
_SMALLEST_TILE = 64
_PRIVATE_ELEMENTS = 65536


class Product(Protocol):
    """A matrix product that was not generated yet."""

    @property
    def shape(self) -> Shape: ...

    @property
    def sums(self) -> str:
        """The element type that it is added up in."""
        ...

    @property
    def by_position(self) -> bool:
        """Whether its result is [N, C, ...] and best lies with channels last (channels.py)."""
        ...

    def emit(self, root: Argument, target: View) -> None:
        """Generates the product with the tree `root`, of which it is a leaf, behind it, into `target`."""
        ...


@dataclass(frozen=True, eq=False)
class Index:
    """The position along a dimension of the result, counted from the last one (0), as i64."""

    axis_from_last: int


@dataclass(frozen=True, eq=False)
class Node:
    """A vector function of `arguments`; its element type is `dtype`, `f32` for all floats."""

    function: str
    arguments: tuple[Argument, ...]
    dtype: str
    shape: Shape
    parameters: tuple[float, ...] = ()


Argument = View | Node | Index | Product | int | float | Expr


def nodes_of(root: Argument) -> Iterator[Argument]:
    """Every distinct node and leaf of a tree, arguments before what they are arguments of."""
    seen: set[int] = set()

    def visit(argument: Argument) -> Iterator[Argument]:
        if id(argument) in seen:
            return
        seen.add(id(argument))
        if isinstance(argument, Node):
            for each in argument.arguments:
                yield from visit(each)
        yield argument

    yield from visit(root)


def views_of(root: Argument) -> list[View]:
    """The views that a tree reads, each once."""
    return list(dict.fromkeys(each for each in nodes_of(root) if isinstance(each, View)))


def products_of(root: Argument) -> list[Product]:
    """The products that a tree reads."""
    plain = (View, Node, Index, int, float, Expr)
    return [each for each in nodes_of(root) if not isinstance(each, plain)]


def replaced(root: Argument, known: dict[int, Argument]) -> Argument:
    """The tree with other arguments in place of those whose id `known` has."""
    if id(root) not in known and isinstance(root, Node):
        arguments = tuple(replaced(each, known) for each in root.arguments)
        known[id(root)] = Node(root.function, arguments, root.dtype, root.shape, root.parameters)
    return known.get(id(root), root)


def is_small(root: Argument) -> bool:
    """Whether one kernel can hold the tree."""
    count = sum(isinstance(each, Node) for each in nodes_of(root))
    return count <= MOST_NODES and len(views_of(root)) <= MOST_LEAVES


@dataclass(frozen=True)
class Place:
    """The part of the result that one item of a kernel makes, and how it lies in a tile.

    `shape` is the result's, `begin` the first position in each dimension; `tile` has the counters of each dimension of
    the tile and `limits` their largest sizes; `sizes` is how many elements each dimension of the tile has.
    """

    shape: Shape
    begin: tuple[Expr, ...]
    tile: tuple[tuple[Counter, ...], ...]
    limits: tuple[int, ...]

    @property
    def sizes(self) -> tuple[Expr, ...]:
        found: list[Expr] = []
        for counters in self.tile:
            size = ONE
            for counter in counters:
                size = size * counter.size
            found.append(size)
        return tuple(found)


def evaluate(
    kernel: KernelBuilder,
    root: Argument,
    place: Place,
    ready: dict[int, str],
    views: Mapping[View, View],
    early: Sequence[View] = (),
) -> str:
    """Appends the tree's instructions to a kernel, and returns the tile of its result.

    `ready` has tiles by the id of the argument that they hold, `views` what each view of the tree is in the place's
    shape; one that `views` lacks is broadcast to it. Those that are `early`, in that shape, are loaded first.
    """
    readers: dict[int, int] = {}
    for each in nodes_of(root):
        if isinstance(each, Node):
            for argument in each.arguments:
                readers[id(argument)] = readers.get(id(argument), 0) + 1
    loaded = {seen: kernel.load(seen, place.begin, place.tile, place.limits) for seen in dict.fromkeys(early)}
    for each in nodes_of(root):
        if id(each) in ready or isinstance(each, int | float | Expr):
            continue
        if isinstance(each, View):
            seen = views.get(each) or each.expand(place.shape)
            if seen not in loaded:
                loaded[seen] = kernel.load(seen, place.begin, place.tile, place.limits)
            ready[id(each)] = loaded[seen]
        elif isinstance(each, Index):
            ready[id(each)] = _index(kernel, each, place)
        elif isinstance(each, Node):
            operands = [ready.get(id(argument), argument) for argument in each.arguments]
            ready[id(each)] = _apply(kernel, each, operands, place)
            for argument in each.arguments:
                readers[id(argument)] -= 1
                if isinstance(argument, Node) and not readers[id(argument)]:
                    kernel.free(ready[id(argument)])
    if isinstance(root, int | float | Expr):
        return kernel.fill("f32", place.sizes, place.limits, root)
    return ready[id(root)]


def _apply(kernel: KernelBuilder, node: Node, operands: Sequence[object], place: Place) -> str:
    known = [each if isinstance(each, str | int | float | Expr) else "" for each in operands]
    if any(isinstance(each, str) for each in known):
        return kernel.map(node.function, known, node.dtype, node.parameters)
    dtype = "i1" if node.function == "select" or FUNCTIONS[node.function].kind == "logic" else node.dtype
    ones = (1,) * len(place.limits)
    first = known[0] if isinstance(known[0], int | float | Expr) else 0
    filled = kernel.fill(dtype, [ONE] * len(ones), ones, first)
    return kernel.map(node.function, [filled, *known[1:]], node.dtype, node.parameters)


def _index(kernel: KernelBuilder, index: Index, place: Place) -> str:
    axis = len(place.shape) - 1 - index.axis_from_last
    for dim, counters in enumerate(place.tile):
        if [counter.dim for counter in counters] == [axis]:
            sizes = [counters[0].size if each == dim else ONE for each in range(len(place.tile))]
            limits = [place.limits[dim] if each == dim else 1 for each in range(len(place.tile))]
            return kernel.iota(sizes, limits, dim, place.begin[axis], counters[0].stride)
    ones = (1,) * len(place.limits)
    return kernel.iota([ONE] * len(ones), ones, 0, place.begin[axis])


def emit_elementwise(builder: ProgramBuilder, root: Argument, target: View, what: str = "map") -> None:
    """One kernel that computes a tree without products into `target`."""
    root, target = _in_order(root, target)
    by_columns = builder.tensors[target.tensor].width > 0
    shape, views, output = _merged(builder, root, target, by_columns or target.dtype == "mxint8")
    aligned = None
    if not by_columns and _rows_dealt(builder, target):
        by_rows = _merged(builder, root, target, True)
        aligned = _aligned(builder, by_rows[0], by_rows[1], target.dtype)
        shape, views, output = by_rows if aligned else (shape, views, output)
    replaced = dict(zip(views_of(root), views, strict=True))
    with builder.kernel(what) as kernel:
        if aligned:
            begin, ranges = _aligned_grid(builder, kernel, shape, aligned)
        else:
            ranges = _grid(builder, kernel, shape, len(views), target.dtype, by_columns)
            begin = tuple(each.start for each in ranges)
        place = Place(
            shape=shape,
            begin=begin,
            tile=tuple((Counter(axis, each.size),) for axis, each in enumerate(ranges)),
            limits=tuple(each.step for each in ranges),
        )
        # What is there from the beginning, as a bias, does not queue behind what another kernel makes.
        weights = [seen for seen in views if builder.tensors[seen.tensor].role == "weight"]
        result = evaluate(kernel, root, place, {}, replaced, weights)
        result = _full(kernel, result, place, target.dtype)
        kernel.store(output, place.begin, place.tile, result)


def _in_order(root: Argument, target: View) -> tuple[Argument, View]:
    """The tree and where it goes with dimensions as they lie there: items next to each other write what is."""
    order = target.order
    if order == tuple(range(len(order))) or any(isinstance(each, Index) for each in nodes_of(root)):
        return root, target
    turned: dict[int, Argument] = {}
    for each in (each for each in nodes_of(root) if isinstance(each, View)):
        turned[id(each)] = each.expand(target.shape).transpose(order)
    return replaced(root, turned), target.transpose(order)


def _full(kernel: KernelBuilder, tile: str, place: Place, dtype: str) -> str:
    """The tile repeated to the size of the place where it is smaller: a store does not repeat."""
    if all(held == limit for held, limit in zip(kernel.tiles[tile].shape, place.limits, strict=True)):
        return tile
    own = kernel.tiles[tile].dtype
    base = "f32" if own in ("f32", "bf16", "f16", "mxint8") else own
    if base == "i1":
        zeros = kernel.fill("i1", place.sizes, place.limits, 0)
        return kernel.map("or", [tile, zeros], "i1")
    zeros = kernel.fill(base, place.sizes, place.limits, 0)
    return kernel.map("add", [tile, zeros], base)


def _rows_dealt(builder: ProgramBuilder, target: View) -> bool:
    """Whether a whole tensor of a fixed number of rows is written, which chiplets have in whole rows."""
    declared = builder.tensors[target.tensor].shape
    fixed = all(size.is_constant for size in target.shape)
    if not fixed or not target.is_whole or not target.shape or target.shape[-1] != declared[-1]:
        return False
    elements = prod(size.as_int() for size in target.shape)
    return builder.tensors[target.tensor].unit(elements, builder.dealing.parts) > 1


def _aligned(builder: ProgramBuilder, shape: Shape, views: Sequence[View], dtype: str) -> tuple[int, int] | None:
    """The steps of [rows, columns] with which items are where their rows are, where there are such."""
    if len(shape) != 2:
        return None
    rows, columns = (size.as_int() for size in shape)
    limits = (_SMALLEST_TILE, min(_LARGEST_TILE, _room(len(views))))
    constants = any(builder.tensors[each.tensor].role == "weight" for each in views)
    return aligned_steps(builder.dealing, rows, columns, limits, dtype, constants)


def _aligned_grid(
    builder: ProgramBuilder, kernel: KernelBuilder, shape: Shape, steps: tuple[int, int]
) -> tuple[tuple[Expr, Expr], list[Range]]:
    """Where an item begins, and the ranges of rows and columns: of each chiplet's rows, unless all are cut alike."""
    (rows, columns), dealing = shape, builder.dealing
    alike = cut_alike(dealing, rows.as_int(), steps[0])
    chiplet = None if alike else kernel.range(rows, dealing.run(rows.as_int()))
    along = [kernel.range(chiplet.size if chiplet else rows, steps[0]), kernel.range(columns, steps[1])]
    first = (chiplet.start if chiplet else ZERO) + along[0].start
    return (first, along[1].start), along


def _room(leaves: int) -> int:
    """The elements that a tile may have, of so many views that are read and what is made of them."""
    return _PRIVATE_ELEMENTS // (2 * leaves + 4)


def _merged(builder: ProgramBuilder, root: Argument, target: View, keeps_rows: bool) -> tuple[Shape, list[View], View]:
    """The shape with as few dimensions as all views allow, and the views of that shape; `keeps_rows` apart if asked."""
    shape = target.shape or (ONE,)
    output = target if target.shape else target.unsqueeze(0)
    views = [view.expand(shape) for view in views_of(root)]
    indexed = {len(shape) - 1 - each.axis_from_last for each in nodes_of(root) if isinstance(each, Index)}
    if indexed:
        return shape, views, output
    probe = {name: max(2, size) for name, size in builder.bounds.optimum.items()}
    axis = len(shape) - 2
    while axis >= 0:
        keeps_blocks = keeps_rows and axis == len(shape) - 2 and shape[axis] != ONE
        merged = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
        found = [] if keeps_blocks else [each.reshape(merged, probe) for each in (output, *views)]
        if found and all(each is not None for each in found):
            output, *views = [each for each in found if each is not None]
            shape = merged
        axis -= 1
    return shape, views, output


def _grid(
    builder: ProgramBuilder, kernel: KernelBuilder, shape: Shape, leaves: int, dtype: str, by_columns: bool
) -> list[Range]:
    """Ranges over the dimensions of an elementwise kernel: enough items for the cores, tiles that fit.

    Items next to each other work on what is: on rows, or on columns where those are dealt.
    """
    best = [builder.bounds.best(size) for size in shape]
    total = 1
    for size in best:
        total *= size
    budget = max(_SMALLEST_TILE, min(_LARGEST_TILE, _room(leaves), -(-total // builder.cores)))
    steps: list[int] = []
    for axis in reversed(range(len(shape))):
        step = max(1, min(best[axis], budget))
        block = MX_BLOCK if dtype == "mxint8" and axis == len(shape) - 1 else 1
        step = -(-step // block) * block
        if by_columns and axis == len(shape) - 1:
            step = aligned_columns(builder.dealing, total // best[axis], best[axis], step, budget, block)
        steps.insert(0, step)
        budget = max(1, budget // step)
    if not by_columns:
        return [kernel.range(size, step) for size, step in zip(shape, steps, strict=True)]
    columns = kernel.range(shape[-1], steps[-1])
    return [*(kernel.range(size, step) for size, step in zip(shape[:-1], steps[:-1], strict=True)), columns]
