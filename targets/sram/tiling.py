"""The tiles of an op's products, given by the IR or chosen by code generation, and whether they are legal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod

from xdsl.dialects.builtin import ArrayAttr

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.sram.tiles import TILES, WHOLE, Part, Patches, PatchesAttr, Tiles, TilesAttr
from gimlet.passes.refusal import RefusedError
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.formats import MX_BLOCK
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram.mapping import (
    Sizes,
    Steps,
    column_tiles,
    has_accumulators,
    has_copies,
    has_whole_tiles,
    largest_steps,
)

_QUARTERS = [(0, 0), (0, 1), (1, 0), (1, 1)]


@dataclass(frozen=True)
class Slot:
    """One product of an op: the tiles that are given for it, none where they are to be chosen, and all that were."""

    of: str
    product: int
    given: tuple[Tiles, ...]
    chosen: list[Tiles | Patches]

    def parts(self) -> tuple[Part, ...] | None:
        """The parts that are given, none for a product in one; None where nothing is. RefusedError if they overlap."""
        if not self.given:
            return None
        parts = tuple(each.part for each in self.given)
        if parts == (WHOLE,):
            return ()
        if sorted(quarter for part in parts for quarter in _quarters(part)) != _QUARTERS:
            raise RefusedError(f"tiles of {self.of}: its parts do not make it once")
        return parts

    def tiles(self, part: Part) -> Tiles | None:
        """The tiles that are given for a part."""
        return next((each for each in self.given if each.part == part), None)


def _quarters(part: Part) -> Iterator[tuple[int, int]]:
    for depth in (0, 1) if part.depth is None else (part.depth,):
        for columns in (0, 1) if part.columns is None else (part.columns,):
            yield depth, columns


@dataclass
class Plan:
    """The tiles of every product of a segment: what ops say in `sram.tiles`, and what was chosen for all."""

    chosen: dict[OnnxOp, list[Tiles | Patches]] = field(default_factory=dict[OnnxOp, list[Tiles | Patches]])
    products: dict[OnnxOp, int] = field(default_factory=dict[OnnxOp, int])

    def next(self, op: OnnxOp) -> Slot:
        """The next product of an op, in the order in which its rule makes them, without taking it."""
        product = self.products.get(op, 0)
        said = given_tiles(op)
        if any(isinstance(each, Patches) for each in said):
            raise RefusedError(f"tiles of {label_of(op)}: #sram.patches are of a convolution")
        given = tuple(each for each in said if isinstance(each, Tiles) and each.product == product)
        return Slot(label_of(op), product, given, self.chosen.setdefault(op, []))

    def take(self, op: OnnxOp) -> Slot:
        """The next product of an op; the one after it is next."""
        slot = self.next(op)
        self.products[op] = slot.product + 1
        return slot

    def convolution(self, op: OnnxOp) -> Patches | None:
        """The tiles that are given for an op that is one convolution, None where they are to be chosen."""
        self.products[op] = 1
        given = given_tiles(op)
        if len(given) > 1 or any(isinstance(each, Tiles) for each in given):
            raise RefusedError(f"tiles of {label_of(op)}: a convolution has one #sram.patches")
        return next((each for each in given if isinstance(each, Patches)), None)

    def check_all_used(self, ops: Sequence[OnnxOp]) -> None:
        """RefusedError for an op that says tiles of more products than it is made of."""
        for op in ops:
            for each in given_tiles(op):
                product = each.product if isinstance(each, Tiles) else 0
                if product >= self.products.get(op, 0):
                    raise RefusedError(f"tiles of {label_of(op)}: it has no product {product}")


def label_of(op: OnnxOp) -> str:
    """What an op is called in a refusal."""
    return op.node_name or op.op_type


def given_tiles(op: OnnxOp) -> tuple[Tiles | Patches, ...]:
    """What the op's attribute says. RefusedError where that is not a list of tiles."""
    said = op.attributes.get(TILES)
    if said is None:
        return ()
    if not isinstance(said, ArrayAttr) or not all(isinstance(each, TilesAttr | PatchesAttr) for each in said):
        raise RefusedError(f"tiles of {label_of(op)}: {TILES} is not a list of #sram.tiles")
    return tuple(each.data for each in said if isinstance(each, TilesAttr | PatchesAttr))


def write_tiles(chosen: Mapping[OnnxOp, Sequence[Tiles | Patches]]) -> None:
    """Puts tiles into the attributes of their ops."""
    for op, tiles in chosen.items():
        products = sorted((each for each in tiles if isinstance(each, Tiles)), key=lambda each: each.product)
        patches = [PatchesAttr(each) for each in tiles if isinstance(each, Patches)]
        if tiles:
            op.attributes[TILES] = ArrayAttr([*map(TilesAttr, products), *patches])


def sizes_of(sizes: Sizes) -> tuple[int, ...]:
    """Sizes as tiles say them."""
    return (*((sizes.batch,) if sizes.batch > 1 else ()), sizes.rows, sizes.depth, sizes.columns)


def steps_of(tiles: Tiles, machine: Machine) -> Steps:
    """The largest tile of an instruction that the tiles say: of sizes that are whole in one, what the machine takes."""
    most = largest_steps(machine)
    depth, columns = tiles.sizes[-2:]
    return Steps(
        most.rows,
        most.depth if tiles.depth == min(most.depth, depth) else tiles.depth,
        most.columns if tiles.columns == min(most.columns, columns) else tiles.columns,
    )


def problem(tiles: Tiles, sizes: Sizes, machine: Machine, dealing: Dealing) -> str | None:
    """Why tiles are not of the product that has `sizes`, or the machine cannot have them; None where it can."""
    mapping = tiles.mapping
    if (tiles.sizes, tiles.dtype, tiles.loaded) != (sizes_of(sizes), sizes.held, sizes.lhs):
        said = f'{list(tiles.sizes)} "{tiles.dtype}" from "{tiles.loaded}"'
        return f'they are of {said}, it multiplies {list(sizes_of(sizes))} "{sizes.held}" from "{sizes.lhs}"'
    most = largest_steps(machine)
    tile, largest = (mapping.rows, tiles.depth, tiles.columns), (most.rows, most.depth, most.columns)
    if any(not 0 < size <= limit for size, limit in zip(tile, largest, strict=True)):
        return f"a tile of {list(tile)} is not from 1 to {list(largest)}, what an instruction takes"
    if sizes.held == "mxint8" and tiles.depth % MX_BLOCK and tiles.depth < sizes.depth:
        return f"a tile {tiles.depth} deep cuts blocks of {MX_BLOCK} numbers that share an exponent"
    deep = ceil(sizes.depth / tiles.depth)
    if not mapping.tiles or mapping.splits != ceil(deep / mapping.tiles):
        return f"{mapping.splits} groups of {mapping.tiles} are not the {deep} tiles of the depth"
    if mapping.splits > 1 and machine.dataflow != "rhs":
        return f"the depth is cut where the array holds the rhs, this one holds the {machine.dataflow}"
    if tiles.part != WHOLE and tile[1:] != largest[1:]:
        return f"tiles of a part of a product are {list(largest[1:])}, not {list(tile[1:])}"
    if not mapping.copies:
        return "a loaded tile has no buffer"
    blocks = column_tiles(dealing, sizes, tiles.columns) * mapping.splits
    if mapping.resident and not sizes.weights:
        return "only weights are resident, its second operand is computed"
    if mapping.resident and not has_copies(machine, dealing, sizes, blocks, mapping.replicas):
        return f"{mapping.replicas} copies of its weights do not share {sizes.rows} rows, or are too many for the cores"
    return _problem_of_units(tiles, sizes, machine, dealing)


def _problem_of_units(tiles: Tiles, sizes: Sizes, machine: Machine, dealing: Dealing) -> str | None:
    """What is wrong with the accumulators and the vector unit's columns."""
    mapping = tiles.mapping
    if not mapping.accumulators:
        return "a product has an accumulator"
    if not has_accumulators(dealing, sizes, mapping):
        rows = mapping.chunk(sizes.rows)
        return f"{mapping.accumulators} accumulators of {mapping.rows} rows do not share {rows} rows"
    if not mapping.vector_columns:
        return None
    shares = mapping.resident and machine.array_tiles == 1 and sizes.rows == 1 and sizes.fixed
    whole = has_whole_tiles(machine, dealing, sizes, tiles.columns)
    if not shares or not whole or mapping.vector_columns >= tiles.columns:
        return "the vector unit has columns of whole tiles of resident weights, for one row, and not all"
    return None


def problem_of_patches(patches: Patches, weights: Sequence[int], dtype: str, rank: int, machine: Machine) -> str | None:
    """Why patches are not of the convolution with `weights` and `rank` dimensions, or the machine cannot have them."""
    if (patches.weights, patches.dtype, len(patches.positions)) != (tuple(weights), dtype, rank):
        said = f'{list(patches.weights)} "{patches.dtype}" in {len(patches.positions)} dimensions'
        return f'they are of {said}, it multiplies {list(weights)} "{dtype}" in {rank}'
    kernel, inner = patches.weights[2:], patches.kernel
    if inner != kernel[len(kernel) - len(inner) :]:
        return f"{list(inner)} are not the last dimensions of the kernel {list(kernel)}"
    depth, positions = prod(inner) * patches.channels, prod(patches.positions)
    tile, most = (
        (positions, depth, patches.outputs),
        (machine.matrix_stream, machine.matrix_rows, machine.matrix_columns),
    )
    if any(not 0 < size <= limit for size, limit in zip(tile, most, strict=True)):
        return f"a tile of {list(tile)} is not from 1 to {list(most)}, what an instruction takes"
    if patches.channels > weights[1]:
        return f"{patches.channels} channels are more than the {weights[1]} of a group"
    if patches.items and (len(patches.items) != rank or min(patches.items) < 1):
        return f"items of {list(patches.items)} positions are not of {rank} dimensions"
    if patches.cut > len(patches.loops):
        return f"{patches.cut} of the {len(patches.loops)} loops over the depth are not cut"
    if (patches.cut or patches.resident) and machine.dataflow != "rhs":
        return f"weights stay and the depth is cut where the array holds the rhs, this one holds the {machine.dataflow}"
    if dtype == "mxint8" and patches.loaded and depth % MX_BLOCK:
        return f"a tile {depth} deep that is converted cuts blocks of {MX_BLOCK} numbers that share an exponent"
    if dtype != "mxint8" or weights[1] < MX_BLOCK:
        return None
    if inner or (patches.channels % MX_BLOCK and patches.channels < weights[1]):
        return f"blocks of {MX_BLOCK} numbers that share an exponent are channels of one kernel position"
    return None
