"""GridSample and DeformConv as lines of a function in ONNX's text form: rows of pixels gathered at computed places.

An image [N, C, H, W] becomes rows of C channels, one for each of its N·H·W pixels. A place between pixels reads those
around it, each by its weight; what is outside has no weight, where it counts as zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.passes.function_lines import Lines, LineWriter, Unwritten, has

_FLOAT, _INT64 = 1, 7
_AXES_ARE_AN_INPUT = 13
_BETWEEN = ("bilinear", "linear")
_PADDINGS = ("zeros", "border", "reflection")


def grid_sample(op: OnnxOp, opset: int) -> Lines:
    """x0 [N, C, H, W] at the places x1 [N, rows, columns, 2], each (x, y) from -1 to 1: y0 [N, C, rows, columns]."""
    sizes = _image(op)
    mode, padding = str(op.attr("mode", "linear" if opset >= 20 else "bilinear")), str(op.attr("padding_mode", "zeros"))
    if sizes is None or (mode != "nearest" and mode not in _BETWEEN):
        return Unwritten(f"for images of known sizes, nearest and linear, and this one is {mode}")
    writer = _Writer(sizes)
    places: list[str] = []
    for which, size in ((0, sizes[2]), (1, sizes[1])):
        index = writer.line(f"Constant <value_int: int = {which}> ()")
        given = writer.line(f"Gather <axis: int = 3> (x1, {index})")
        given = writer.line(f"Cast <to: int = {_FLOAT}> ({given})")
        places.append(writer.place(given, size, padding, corners=bool(op.attr("align_corners", 0)), mode=mode))
    found = writer.sampled(places[1], places[0], 3, is_nearest=mode == "nearest")
    writer.lines.append(f"y0 = Transpose <perm: ints = [0, 3, 1, 2]> ({found})")
    return writer.lines


def deform_conv(op: OnnxOp, opset: int) -> Lines:
    """A product of the weights and of pixels at places that are moved by offsets, one for each position of the filter.

    x0 [N, C, H, W], the weights x1 [M, C, kh, kw], offsets x2 [N, 2 kh kw, rows, columns], a bias x3 [M], and factors
    x4 [N, kh kw, rows, columns].
    """
    sizes, weights, result = _image(op), dims_of(op.operands[1]), dims_of(op.results[0])
    if opset < _AXES_ARE_AN_INPUT or sizes is None or not weights or not result or len(weights) != 4:
        return Unwritten("for images of two dimensions and known sizes")
    if int(op.attr("group", 1)) != 1 or int(op.attr("offset_group", 1)) != 1:
        return Unwritten("with all channels and offsets in one group")
    if not all(size.is_constant for size in (*weights, *result[2:])):
        return Unwritten("for weights and results of known sizes")
    filters, channels, *kernel = (size.as_int() for size in weights)
    rows, columns = (size.as_int() for size in result[2:])
    count = kernel[0] * kernel[1]
    steps, pads, holes = (
        list(op.attr(name) or default)
        for name, default in (("strides", [1, 1]), ("pads", [0] * 4), ("dilations", [1, 1]))
    )
    writer = _Writer(sizes)
    apart = writer.line(f"Reshape (x2, {writer.numbers(0, count, 2, rows, columns)})")
    places: list[str] = []
    for which, long in enumerate((rows, columns)):
        index = writer.line(f"Constant <value_int: int = {which}> ()")
        moved = writer.line(f"Gather <axis: int = 2> ({apart}, {index})")
        moved = writer.line(f"Cast <to: int = {_FLOAT}> ({moved})")
        own = [at // kernel[1] if which == 0 else at % kernel[1] for at in range(count)]
        begin = [step * steps[which] - pads[which] + at * holes[which] for at in own for step in range(long)]
        flat = writer.line(f"Constant <value_floats: floats = {list(map(float, begin))}> ()")
        shape = (count, long, 1) if which == 0 else (count, 1, long)
        places.append(writer.line(f"Add ({moved}, {writer.line(f'Reshape ({flat}, {writer.numbers(*shape)})')})"))
    found = writer.sampled(places[0], places[1], 4, is_nearest=False)
    if has(op, 4):
        found = writer.line(f"Mul ({found}, {writer.line(f'Unsqueeze (x4, {writer.numbers(4)})')})")
    turned = writer.line(f"Transpose <perm: ints = [0, 2, 3, 1, 4]> ({found})")
    patches = writer.line(f"Reshape ({turned}, {writer.numbers(0, rows * columns, count * channels)})")
    deep = writer.line("Transpose <perm: ints = [2, 3, 1, 0]> (x1)")
    flat = writer.line(f"Reshape ({deep}, {writer.numbers(count * channels, filters)})")
    product = writer.line(f"MatMul ({patches}, {flat})")
    if has(op, 3):
        product = writer.line(f"Add ({product}, x3)")
    first = writer.line(f"Transpose <perm: ints = [0, 2, 1]> ({product})")
    writer.lines.append(f"y0 = Reshape ({first}, {writer.numbers(0, filters, rows, columns)})")
    return writer.lines


def _image(op: OnnxOp) -> tuple[int, int, int] | None:
    """Channels, height and width; None where they are not known, or are not all."""
    dims = dims_of(op.operands[0])
    if dims is None or len(dims) != 4 or not all(size.is_constant and size.as_int() for size in dims[1:]):
        return None
    channels, height, width = (size.as_int() for size in dims[1:])
    return channels, height, width


@dataclass
class _Writer(LineWriter):
    """Writes lines for one image of these channels, height and width."""

    sizes: tuple[int, int, int]

    def place(self, given: str, size: int, padding: str, *, corners: bool, mode: str) -> str:
        """Where in `size` pixels a place from -1 to 1 is: between the outer pixels' middles, or their outer edges."""
        low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
        moved = self.line(f"Add ({given}, {self.number(1.0)})")
        place = self.line(f"Mul ({moved}, {self.number((high - low) / 2)})")
        if not corners:
            place = self.line(f"Sub ({place}, {self.number(0.5)})")
        if mode == "nearest":
            place = self.line(f"Round ({place})")
        if padding == "zeros":
            return place
        if padding == "reflection" and high > low:
            # A wave that goes up and down between both edges.
            period = self.number(2 * (high - low))
            from_low = self.line(f"Sub ({place}, {self.number(low)})")
            whole = self.line(f"Floor ({self.line(f'Div ({from_low}, {period})')})")
            rest = self.line(f"Sub ({from_low}, {self.line(f'Mul ({whole}, {period})')})")
            down = self.line(f"Abs ({self.line(f'Sub ({rest}, {self.number(high - low)})')})")
            place = self.line(f"Sub ({self.number(high)}, {down})")
        return self.clipped(place, size)

    def clipped(self, place: str, size: int) -> str:
        return self.line(f"Clip ({place}, {self.number(0.0)}, {self.number(size - 1.0)})")

    def sampled(self, y: str, x: str, rank: int, *, is_nearest: bool) -> str:
        """[N, ..., C] for places [N, ...] of `rank` dimensions."""
        channels, height, width = self.sizes
        turned = self.line("Transpose <perm: ints = [0, 2, 3, 1]> (x0)")
        rows = self.line(f"Reshape ({turned}, {self.numbers(-1, channels)})")
        batch = self.first_rows(height * width, rank)
        found = ""
        for row, row_weight in self.beside(y, is_nearest=is_nearest):
            for column, column_weight in self.beside(x, is_nearest=is_nearest):
                inside = [self.clipped(row, height), self.clipped(column, width)]
                same = [self.line(f"Equal ({each}, {own})") for each, own in zip(inside, (row, column), strict=True)]
                weight = self.line(f"Mul ({row_weight}, {column_weight})") if row_weight else self.number(1.0)
                is_in = self.line(f"And ({same[0]}, {same[1]})")
                weight = self.line(f"Where ({is_in}, {weight}, {self.number(0.0)})")
                at = self.line(f"Mul ({inside[0]}, {self.number(float(width))})")
                at = self.line(f"Cast <to: int = {_INT64}> ({self.line(f'Add ({at}, {inside[1]})')})")
                pixels = self.line(f"Gather <axis: int = 0> ({rows}, {self.line(f'Add ({at}, {batch})')})")
                weight = self.line(f"Unsqueeze ({self.line(f'CastLike ({weight}, x0)')}, {self.numbers(rank)})")
                part = self.line(f"Mul ({pixels}, {weight})")
                found = self.line(f"Add ({found}, {part})") if found else part
        return found

    def beside(self, place: str, *, is_nearest: bool) -> Sequence[tuple[str, str]]:
        """The pixels around a place along one dimension, and the weight of each; "" for a weight of 1."""
        if is_nearest:
            return [(place, "")]
        low = self.line(f"Floor ({place})")
        share = self.line(f"Sub ({place}, {low})")
        rest = self.line(f"Sub ({self.number(1.0)}, {share})")
        return [(low, rest), (self.line(f"Add ({low}, {self.number(1.0)})"), share)]

    def first_rows(self, pixels: int, rank: int) -> str:
        """The first row of each image, [N, 1, ...] of `rank` dimensions."""
        zero, one = (self.line(f"Constant <value_int: int = {value}> ()") for value in (0, 1))
        shape = self.line("Shape <start: int = 0, end: int = 1> (x0)")
        images = self.line(f"Range ({zero}, {self.line(f'Squeeze ({shape})')}, {one})")
        first = self.line(f"Mul ({images}, {self.line(f'Constant <value_int: int = {pixels}> ()')})")
        return self.line(f"Unsqueeze ({first}, {self.numbers(*range(1, rank))})")

    def number(self, value: float) -> str:
        return self.line(f"Constant <value_float: float = {float(value)!r}> ()")
