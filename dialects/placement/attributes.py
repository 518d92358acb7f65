"""Types and attributes of the placement dialect: tokens, states, costs, buffers."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import ArrayAttr, IntAttr, SymbolRefAttr, TensorType
from xdsl.ir import Attribute, Data, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr

DEVICE = "placement.device"
"""Discardable attribute of any op: the device it runs on, a symbol of the module's topology."""
FORMAT = "placement.format"
"""Discardable attribute of any op: the number format it is computed in, such as `fp32` or `bf16`."""
TARGET = "placement.target"
"""Discardable attribute of any op: the target that compiles it, where its device has several for the format."""
SETTINGS = "placement.settings"
"""Discardable attribute of any op, and of a segment: integers that the executor takes, such as threads."""
SEGMENT_HINT = "placement.segment"
"""Discardable attribute of any op: an integer; ops of one device with the same one belong in the same segment."""
COST = "placement.cost"
"""Discardable attribute of any op: what it costs, a `CostAttr`."""
BUFFERS = "placement.buffers"
"""On the function: the buffers that its values live in (`BufferAttr`). On a launch or a transfer: which of those its
results use, by index, −1 where the executor allocates."""
PEAK_BYTES = "placement.peak_bytes"
"""On the function: for each device, the bytes of all its buffers together (`ExprAttr`)."""


def _parse_expr(parser: AttrParser) -> Expr:
    position = parser.pos
    text = parser.parse_str_literal("an expression in quotes")
    try:
        return Expr.parse(text)
    except InputError as error:
        parser.raise_error(str(error), position, parser.pos)


@irdl_attr_definition
class TokenType(ParametrizedAttribute, TypeAttribute):
    """`!placement.token`: the completion of an asynchronous launch or transfer."""

    name = "placement.token"


@irdl_attr_definition
class ExprAttr(Data[Expr]):
    """`#placement.expr<"2*width + 3">`: an integer expression over symbolic dimensions."""

    name = "placement.expr"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Expr:
        with parser.in_angle_brackets():
            return _parse_expr(parser)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string_literal(str(self.data))


@irdl_attr_definition
class CostAttr(ParametrizedAttribute):
    """What an op costs on any hardware, as polynomials over the symbolic dimensions.

    `flops` counts a multiply-add as two. `bytes_read` is all that one run reads, the weights it reads included;
    `weight_bytes` are the weights that have to be resident, read or not.
    """

    name = "placement.cost"

    flops: ExprAttr
    bytes_read: ExprAttr
    bytes_written: ExprAttr
    weight_bytes: ExprAttr

    @staticmethod
    def of(
        flops: Expr | int | str,
        bytes_read: Expr | int | str,
        bytes_written: Expr | int | str,
        weight_bytes: Expr | int | str,
    ) -> CostAttr:
        """A cost from expressions, integers, or text. InputError where text does not parse."""
        return CostAttr(*(ExprAttr(Expr.of(value)) for value in (flops, bytes_read, bytes_written, weight_bytes)))

    @property
    def fields(self) -> dict[str, Expr]:
        """The four expressions by name, in the order they are printed."""
        return {
            "flops": self.flops.data,
            "bytes_read": self.bytes_read.data,
            "bytes_written": self.bytes_written.data,
            "weight_bytes": self.weight_bytes.data,
        }

    def verify(self) -> None:
        for name, value in self.fields.items():
            if value.is_constant and value.as_int() < 0:
                raise VerifyException(f"{name} of a cost is negative: {value}")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        found: dict[str, Expr] = {}

        def parse_field() -> None:
            position = parser.pos
            name = parser.parse_identifier("the name of a cost")
            if name not in _COST_FIELDS:
                parser.raise_error(f"expected one of {', '.join(_COST_FIELDS)}", position, parser.pos)
            if name in found:
                parser.raise_error(f"{name} is given twice", position, parser.pos)
            parser.parse_punctuation("=")
            found[name] = _parse_expr(parser)

        start = parser.pos
        parser.parse_comma_separated_list(parser.Delimiter.ANGLE, parse_field)
        missing = [name for name in _COST_FIELDS if name not in found]
        if missing:
            parser.raise_error(f"a cost needs {', '.join(missing)}", start, parser.pos)
        return [ExprAttr(found[name]) for name in _COST_FIELDS]

    def print_parameters(self, printer: Printer) -> None:
        def print_field(field: tuple[str, Expr]) -> None:
            printer.print_string(f"{field[0]} = ")
            printer.print_string_literal(str(field[1]))

        with printer.in_angle_brackets():
            printer.print_list(self.fields.items(), print_field)


_COST_FIELDS = ("flops", "bytes_read", "bytes_written", "weight_bytes")


@irdl_attr_definition
class StateType(ParametrizedAttribute, TypeAttribute):
    """`!placement.state<tensor<1x8x?x64xf32>, [1, 8, 4096, 64]>`: a tensor that stays on its device and is updated in
    place, such as a cache of keys.

    `tensor` is the type of what it holds now; `capacity`, one number a dimension, is what its memory is allocated for.
    """

    name = "placement.state"

    tensor: TensorType
    capacity: ArrayAttr[IntAttr]

    @staticmethod
    def of(tensor: TensorType, capacity: Sequence[int]) -> StateType:
        """A state that holds `tensor` in memory for `capacity`."""
        return StateType(tensor, ArrayAttr([IntAttr(size) for size in capacity]))

    @property
    def capacity_shape(self) -> tuple[int, ...]:
        return tuple(size.data for size in self.capacity)

    def verify(self) -> None:
        shape, capacity = self.tensor.get_shape(), self.capacity_shape
        if len(shape) != len(capacity):
            raise VerifyException(f"a state of rank {len(shape)} has a capacity of {len(capacity)} dimensions")
        for axis, (size, limit) in enumerate(zip(shape, capacity, strict=True)):
            if limit <= 0:
                raise VerifyException(f"the capacity of a state must be positive, dimension {axis} is {limit}")
            if size >= 0 and size != limit:
                raise VerifyException(f"dimension {axis} of a state is always {size}, but its capacity is {limit}")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            position = parser.pos
            tensor = parser.parse_type()
            if not isinstance(tensor, TensorType):
                parser.raise_error("a state holds a tensor", position, parser.pos)
            parser.parse_punctuation(",")
            capacity = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
        return [tensor, ArrayAttr([IntAttr(size) for size in capacity])]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_attribute(self.tensor)
            printer.print_string(f", {list(self.capacity_shape)}")


@irdl_attr_definition
class BufferAttr(ParametrizedAttribute):
    """`#placement.buffer<@gpu0, "4*width">`: memory on a device, its size in bytes over the symbolic dimensions."""

    name = "placement.buffer"

    device: SymbolRefAttr
    size: ExprAttr

    @staticmethod
    def of(device: str, size: Expr | int | str) -> BufferAttr:
        """A buffer of `size` bytes on `device`."""
        return BufferAttr(SymbolRefAttr(device), ExprAttr(Expr.of(size)))

    @property
    def device_name(self) -> str:
        return self.device.string_value()

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            device = parser.parse_symbol_name()
            parser.parse_punctuation(",")
            size = _parse_expr(parser)
        return [SymbolRefAttr(device), ExprAttr(size)]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_symbol_name(self.device_name)
            printer.print_string(", ")
            printer.print_string_literal(str(self.size.data))
