"""Types and attributes of the sram dialect: each holds the runtime's own description of what it spells."""

from __future__ import annotations

from math import isfinite

from xdsl.ir import Data, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer

from gimlet.dialects.sram.annotations import Dealt, NamedLife
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.program import Access, Axis, Growth, Operand, Range


def parse_expr(parser: AttrParser) -> Expr:
    """An integer, or an expression in quotes."""
    number = parser.parse_optional_integer(allow_boolean=False)
    if number is not None:
        return Expr.const(number)
    position = parser.pos
    text = parser.parse_str_literal("an integer, or an expression in quotes")
    try:
        return Expr.parse(text)
    except InputError as error:
        parser.raise_error(error.message, position, parser.pos)


def print_expr(printer: Printer, expr: Expr) -> None:
    """What `parse_expr` reads."""
    if expr.is_constant:
        printer.print_string(str(expr.as_int()))
    else:
        printer.print_string_literal(str(expr))


def _parse_exprs(parser: AttrParser) -> tuple[Expr, ...]:
    return tuple(parser.parse_comma_separated_list(parser.Delimiter.SQUARE, lambda: parse_expr(parser)))


def _print_exprs(printer: Printer, exprs: tuple[Expr, ...]) -> None:
    with printer.in_square_brackets():
        printer.print_list(exprs, lambda expr: print_expr(printer, expr))


def parse_value(parser: AttrParser) -> int | float | Expr:
    """An integer, `float "0.5"`, or an expression in quotes."""
    if parser.parse_optional_keyword("float"):
        position = parser.pos
        text = parser.parse_str_literal("a number in quotes")
        try:
            return float(text)
        except ValueError:
            parser.raise_error(f"{text!r} is not a number", position, parser.pos)
    expr = parse_expr(parser)
    return expr.as_int() if expr.is_constant else expr


def print_value(printer: Printer, value: int | float | Expr) -> None:
    """What `parse_value` reads."""
    if isinstance(value, float):
        printer.print_string("float ")
        printer.print_string_literal(repr(value) if isfinite(value) else str(value))
    else:
        print_expr(printer, Expr.of(value))


@irdl_attr_definition
class TileType(ParametrizedAttribute, TypeAttribute):
    """`!sram.tile`: a buffer in the private SRAM of each core. Its declaration says what it holds."""

    name = "sram.tile"


@irdl_attr_definition
class SizesAttr(Data[tuple[Expr, ...]]):
    """`#sram.sizes<[64, "r.m.size"]>`: integers and expressions over dimensions and registers."""

    name = "sram.sizes"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> tuple[Expr, ...]:
        with parser.in_angle_brackets():
            return _parse_exprs(parser)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            _print_exprs(printer, self.data)


@irdl_attr_definition
class ValueAttr(Data[int | float | Expr]):
    """`#sram.value<float "0.5">`: a number, or an expression over dimensions."""

    name = "sram.value"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> int | float | Expr:
        with parser.in_angle_brackets():
            return parse_value(parser)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            print_value(printer, self.data)


@irdl_attr_definition
class OperandsAttr(Data[tuple[Operand, ...]]):
    """`#sram.operands<tile, float "0.5", "seq">`: what a vector function reads; each `tile` is the next SSA operand."""

    name = "sram.operands"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> tuple[Operand, ...]:
        def parse_one() -> Operand:
            return "tile" if parser.parse_optional_keyword("tile") else parse_value(parser)

        return tuple(parser.parse_comma_separated_list(parser.Delimiter.ANGLE, parse_one))

    def print_parameter(self, printer: Printer) -> None:
        def print_one(operand: Operand) -> None:
            if isinstance(operand, str):
                printer.print_string("tile")
            else:
                print_value(printer, operand)

        with printer.in_angle_brackets():
            printer.print_list(self.data, print_one)


@irdl_attr_definition
class RangeAttr(Data[Range]):
    """`#sram.range<m = 0 to "seq" step 64>`: defines the registers `r.m`, `r.m.size` and `r.m.index`."""

    name = "sram.range"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Range:
        with parser.in_angle_brackets():
            name = parser.parse_identifier("the name of a range")
            parser.parse_punctuation("=")
            if parser.parse_integer() != 0:
                parser.raise_error("a range begins at 0")
            parser.parse_keyword("to")
            extent = parse_expr(parser)
            parser.parse_keyword("step")
            return Range(name, extent, parser.parse_integer())

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f"{self.data.name} = 0 to ")
            print_expr(printer, self.data.extent)
            printer.print_string(f" step {self.data.step}")


@irdl_attr_definition
class AccessAttr(Data[Access]):
    """`#sram.access<@x["seq", 64] at ["r.m", "r.k"] by [["r.m.size" along 0], ["r.k.size" along 1]] fill 0>`.

    The tensor with the shape that it is seen in, the first position, and for each dimension of the tile its counters:
    `N along D step S`, or `N repeated`. With `fill`, positions outside the tensor read as that value.
    """

    name = "sram.access"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Access:
        with parser.in_angle_brackets():
            tensor = parser.parse_symbol_name().data
            shape = _parse_exprs(parser)
            parser.parse_keyword("at")
            start = _parse_exprs(parser)
            parser.parse_keyword("by")
            groups = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, lambda: _parse_axes(parser))
            fill = float(_number(parser)) if parser.parse_optional_keyword("fill") else None
            return Access(tensor, shape, start, tuple(groups), fill)

    def print_parameter(self, printer: Printer) -> None:
        access = self.data
        with printer.in_angle_brackets():
            printer.print_symbol_name(access.tensor)
            _print_exprs(printer, access.shape)
            printer.print_string(" at ")
            _print_exprs(printer, access.start)
            printer.print_string(" by ")
            with printer.in_square_brackets():
                printer.print_list(access.axes, lambda axes: _print_axes(printer, axes))
            if access.fill is not None:
                printer.print_string(" fill ")
                print_value(printer, float(access.fill))


@irdl_attr_definition
class GrowthAttr(Data[Growth]):
    """`#sram.growth<2 from "past" to "past + 1">`: of a state so many positions along a dimension, before and after."""

    name = "sram.growth"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Growth:
        with parser.in_angle_brackets():
            dim = parser.parse_integer()
            parser.parse_keyword("from")
            before = parse_expr(parser)
            parser.parse_keyword("to")
            return Growth(dim, before, parse_expr(parser))

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f"{self.data.dim} from ")
            print_expr(printer, self.data.before)
            printer.print_string(" to ")
            print_expr(printer, self.data.after)


@irdl_attr_definition
class LifeAttr(Data[NamedLife]):
    """`#sram.life<"a" to "c">`: the first and last kernel that need a tensor, or `begin` and `end` of the program."""

    name = "sram.life"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> NamedLife:
        with parser.in_angle_brackets():
            first = None if parser.parse_optional_keyword("begin") else _kernel(parser)
            parser.parse_keyword("to")
            last = None if parser.parse_optional_keyword("end") else _kernel(parser)
            return NamedLife(first, last)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(str(self.data))


@irdl_attr_definition
class DealtAttr(Data[Dealt]):
    """`#sram.dealt<2048 items, 256 a chiplet, 1 a core>`: how many there are, and where there are most of them."""

    name = "sram.dealt"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Dealt:
        with parser.in_angle_brackets():
            items = parser.parse_integer()
            parser.parse_keyword("items")
            found = [items]
            for each in ("chiplet", "core"):
                parser.parse_punctuation(",")
                found.append(parser.parse_integer())
                parser.parse_keyword("a")
                parser.parse_keyword(each)
            return Dealt(*found)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(str(self.data))


def _kernel(parser: AttrParser) -> str:
    return parser.parse_str_literal(": the name of a kernel")


def _number(parser: AttrParser) -> int | float:
    position = parser.pos
    value = parse_value(parser)
    if isinstance(value, Expr):
        parser.raise_error("expected a number", position, parser.pos)
    return value


def _parse_axes(parser: AttrParser) -> tuple[Axis, ...]:
    def parse_one() -> Axis:
        size = parse_expr(parser)
        if parser.parse_optional_keyword("repeated"):
            return Axis(-1, 0, size)
        parser.parse_keyword("along")
        dim = parser.parse_integer()
        return Axis(dim, parser.parse_integer() if parser.parse_optional_keyword("step") else 1, size)

    return tuple(parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parse_one))


def _print_axes(printer: Printer, axes: tuple[Axis, ...]) -> None:
    def print_one(axis: Axis) -> None:
        print_expr(printer, axis.size)
        if axis.dim < 0:
            printer.print_string(" repeated")
            return
        printer.print_string(f" along {axis.dim}" + (f" step {axis.step}" if axis.step != 1 else ""))

    with printer.in_square_brackets():
        printer.print_list(axes, print_one)
