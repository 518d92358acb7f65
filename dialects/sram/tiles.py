"""How a product is cut into tiles and spread over the cores: what is decided between operations and kernels.

An ONNX operation has an element for each product that it is made of, in the order in which they are computed, in its
attribute `sram.tiles`. `sram-choose-tiles` writes them, `sram-lower` makes kernels as they say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from xdsl.ir import Data
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer

TILES = "sram.tiles"
_HALVES = ("even", "odd")


@dataclass(frozen=True)
class Mapping:
    """`rows` an instruction, `splits` groups of `tiles` tiles along the depth, weights `resident` or loaded.

    `replicas` are the copies of resident weights. An item works on `accumulators` times `rows` rows at once, for which
    it puts a tile into the array once. The vector unit takes the last `vector_columns` of each tile. `copies` of a
    loaded tile are what hides the latency of a load.
    """

    rows: int
    splits: int
    tiles: int
    resident: bool
    replicas: int = 1
    accumulators: int = 1
    vector_columns: int = 0
    copies: int = 2

    @property
    def stays_held(self) -> bool:
        """Whether an item needs one tile of weights only, which stays in the array for all its rows."""
        return self.resident and self.tiles == 1

    def chunk(self, rows: int) -> int:
        """The rows of the result that one copy of resident weights makes."""
        return -(-rows // self.replicas)


@dataclass(frozen=True)
class Part:
    """Which tiles of the depth and of the columns a part of a product takes: the even (0) or odd ones (1), or all."""

    depth: int | None = None
    columns: int | None = None


WHOLE = Part()


@dataclass(frozen=True)
class Tiles:
    """The tiles of a product, or of a `part` of it, which is the op's product number `product`.

    `sizes` are [rows, depth, columns] with dimensions at their optimum, behind the size of the batch if there is one.
    Operands are multiplied in the element type `dtype` and rows loaded in `loaded`: where that is another, every item
    converts the tiles that it loads. An instruction multiplies [`mapping.rows`, `depth`] by [`depth`, `columns`].
    """

    sizes: tuple[int, ...]
    dtype: str
    loaded: str
    depth: int
    columns: int
    mapping: Mapping
    product: int = 0
    part: Part = WHOLE

    @property
    def held_rows(self) -> int:
        """For how many rows a tile stays in the array before another takes its place."""
        rows, mapping = self.sizes[-3], self.mapping
        if mapping.stays_held:
            return mapping.chunk(rows)
        return min(rows, mapping.rows * mapping.accumulators)


@dataclass(frozen=True)
class Patches:
    """The tiles of a convolution with `weights` [outputs, channels of a group, kernel...] in element type `dtype`.

    An instruction multiplies a block of `positions` of the result by `outputs` of its channels. Its depth are the
    positions in the last dimensions of the kernel, which have the sizes `kernel`, of so many `channels`; the other
    dimensions and channels are loops, of which the `cut` outer ones are ranges of the grid instead: items then add
    their parts of a result. An item makes the positions `items`, where that is not one block, and weights that are
    `resident` are in as many copies as there are items of positions. A tile of weights stays in the array for one
    block, or for all of an item that has one tile.
    """

    weights: tuple[int, ...]
    dtype: str
    positions: tuple[int, ...]
    kernel: tuple[int, ...]
    channels: int
    outputs: int
    items: tuple[int, ...] = ()
    cut: int = 0
    resident: bool = False
    loaded: str = ""
    """The element type of what is loaded, where items convert the tiles of it."""

    @property
    def loops(self) -> tuple[int, ...]:
        """How many steps the depth takes in each dimension of the kernel that is no part of a tile, and in channels."""
        outer = self.weights[2 : len(self.weights) - len(self.kernel)]
        return (*outer, -(-self.weights[1] // self.channels))

    @property
    def splits(self) -> int:
        """How many items add their parts of a result."""
        return prod(self.loops[: self.cut])


@irdl_attr_definition
class PatchesAttr(Data[Patches]):
    """`#sram.patches<[64, 32, 3, 3] "bf16" by [1, 40], kernel [3, 3], channels 7, outputs 64>`.

    The shape of the weights and the element type of the operands; the positions of the result that one instruction
    makes, the last dimensions of the kernel and how many channels are its depth, and how many outputs its columns.
    Then, if there are any: `items [7, 40]`, the positions of an item; `cut 2`, how many loops over the depth are items
    of their own; `resident`, for weights that stay on the cores; `loaded "f32"`, for input that items convert.
    """

    name = "sram.patches"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Patches:
        with parser.in_angle_brackets():
            weights = _integers(parser)
            dtype = parser.parse_str_literal(": the element type of the operands")
            parser.parse_keyword("by")
            positions = _integers(parser)
            _next(parser, "kernel")
            kernel = _integers(parser)
            channels, outputs = (_number(parser, what) for what in ("channels", "outputs"))
            return _parse_items(parser, Patches(weights, dtype, positions, kernel, channels, outputs))

    def print_parameter(self, printer: Printer) -> None:
        found = self.data
        with printer.in_angle_brackets():
            printer.print_string(
                f'{list(found.weights)} "{found.dtype}" by {list(found.positions)}, kernel {list(found.kernel)}, '
                f"channels {found.channels}, outputs {found.outputs}"
            )
            printer.print_string(f", items {list(found.items)}" if found.items else "")
            printer.print_string(f", cut {found.cut}" if found.cut else "")
            printer.print_string(", resident" if found.resident else "")
            printer.print_string(f', loaded "{found.loaded}"' if found.loaded else "")


@irdl_attr_definition
class TilesAttr(Data[Tiles]):
    """`#sram.tiles<[1, 4096, 4096] "bf16" by [1, 64, 64], groups 32 of 2, resident 1, held 1 rows, buffers 3>`.

    The sizes of the product, the element type of its operands (and `from` which one rows are converted tile by tile);
    the rows, depth and columns of one instruction; into how many groups of how many tiles the depth is cut; how many
    copies of weights stay on the cores (`streamed`: none); for how many rows a tile stays in the array, which the rest
    decides and which may be left out; how many buffers a loaded tile has. Then, if there are any: `accumulators`, for
    each of which a tile in the array is used; `vector` columns that the vector unit multiplies; `depth even` and
    `columns odd`, which tiles a part of a product takes; `product`, which of the operation's products it is.
    """

    name = "sram.tiles"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Tiles:
        with parser.in_angle_brackets():
            begin = parser.pos
            sizes = _integers(parser)
            dtype = parser.parse_str_literal(": the element type of the operands")
            loaded = parser.parse_str_literal() if parser.parse_optional_keyword("from") else dtype
            parser.parse_keyword("by")
            tile = _integers(parser)
            if len(sizes) not in (3, 4) or len(tile) != 3:
                parser.raise_error("expected [rows, depth, columns], and a batch before those at most", begin)
            _next(parser, "groups")
            groups = parser.parse_integer(allow_boolean=False, allow_negative=False)
            parser.parse_keyword("of")
            mapping = Mapping(tile[0], groups, parser.parse_integer(allow_boolean=False, allow_negative=False), False)
            parser.parse_punctuation(",")
            if parser.parse_optional_keyword("resident"):
                copies = parser.parse_integer(allow_boolean=False, allow_negative=False)
                mapping = replace(mapping, resident=True, replicas=copies)
            else:
                parser.parse_keyword("streamed")
            return _parse_rest(parser, Tiles(sizes, dtype, loaded, tile[1], tile[2], mapping))

    def print_parameter(self, printer: Printer) -> None:
        tiles, mapping = self.data, self.data.mapping
        source = f' from "{tiles.loaded}"' if tiles.loaded != tiles.dtype else ""
        text = [
            f'{list(tiles.sizes)} "{tiles.dtype}"{source} by {[mapping.rows, tiles.depth, tiles.columns]}',
            f"groups {mapping.splits} of {mapping.tiles}",
            f"resident {mapping.replicas}" if mapping.resident else "streamed",
            f"held {tiles.held_rows} rows",
            f"buffers {mapping.copies}",
        ]
        text += [f"accumulators {mapping.accumulators}"] if mapping.accumulators != 1 else []
        text += [f"vector {mapping.vector_columns}"] if mapping.vector_columns else []
        text += [f"depth {_HALVES[tiles.part.depth]}"] if tiles.part.depth is not None else []
        text += [f"columns {_HALVES[tiles.part.columns]}"] if tiles.part.columns is not None else []
        text += [f"product {tiles.product}"] if tiles.product else []
        with printer.in_angle_brackets():
            printer.print_string(", ".join(text))


def _parse_rest(parser: AttrParser, tiles: Tiles) -> Tiles:
    """What stands behind where weights are, in any order."""
    said: tuple[int, int] | None = None
    while parser.parse_optional_punctuation(","):
        position = parser.pos
        what = parser.parse_identifier("what else the tiles are")
        mapping, part = tiles.mapping, tiles.part
        if what in ("depth", "columns"):
            half = parser.parse_identifier("even or odd")
            if half not in _HALVES:
                parser.raise_error("expected even or odd", position)
            index = _HALVES.index(half)
            part = replace(part, depth=index) if what == "depth" else replace(part, columns=index)
            tiles = replace(tiles, part=part)
            continue
        number = parser.parse_integer(allow_boolean=False, allow_negative=False)
        if what == "held":
            parser.parse_keyword("rows")
            said = number, position
        elif what == "buffers":
            tiles = replace(tiles, mapping=replace(mapping, copies=number))
        elif what == "accumulators":
            tiles = replace(tiles, mapping=replace(mapping, accumulators=number))
        elif what == "vector":
            tiles = replace(tiles, mapping=replace(mapping, vector_columns=number))
        elif what == "product":
            tiles = replace(tiles, product=number)
        else:
            parser.raise_error(f"tiles have no {what}", position)
    if min(tiles.mapping.rows, tiles.mapping.splits, tiles.mapping.replicas, *tiles.sizes) < 1:
        parser.raise_error("sizes, groups and copies of tiles are at least 1")
    if said is not None and said[0] != tiles.held_rows:
        parser.raise_error(f"a tile stays in the array for {tiles.held_rows} rows, not {said[0]}", said[1])
    return tiles


def _number(parser: AttrParser, keyword: str) -> int:
    _next(parser, keyword)
    return parser.parse_integer(allow_boolean=False, allow_negative=False)


def _parse_items(parser: AttrParser, patches: Patches) -> Patches:
    """What stands behind the outputs, in any order."""
    while parser.parse_optional_punctuation(","):
        position = parser.pos
        what = parser.parse_identifier("what else the patches are")
        if what == "items":
            patches = replace(patches, items=_integers(parser))
        elif what == "cut":
            patches = replace(patches, cut=parser.parse_integer(allow_boolean=False, allow_negative=False))
        elif what == "resident":
            patches = replace(patches, resident=True)
        elif what == "loaded":
            patches = replace(patches, loaded=parser.parse_str_literal(": the element type of the input"))
        else:
            parser.raise_error(f"patches have no {what}", position)
    return patches


def _integers(parser: AttrParser) -> tuple[int, ...]:
    return tuple(
        parser.parse_comma_separated_list(
            parser.Delimiter.SQUARE, lambda: parser.parse_integer(allow_boolean=False, allow_negative=False)
        )
    )


def _next(parser: AttrParser, keyword: str) -> None:
    parser.parse_punctuation(",")
    parser.parse_keyword(keyword)
