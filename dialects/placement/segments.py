"""Parts of a workload and their order: `placement.segment`, launches of segments, and transfers of values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from xdsl.dialects.builtin import (
    ArrayAttr,
    FlatSymbolRefAttrConstr,
    FunctionType,
    ModuleOp,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
)
from xdsl.ir import Attribute, OpResult, Region, SSAValue
from xdsl.irdl import (
    AnyAttr,
    AttrSizedOperandSegments,
    IRDLOperation,
    ParsePropInAttrDict,
    VarConstraint,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import HasParent, IsolatedFromAbove, IsTerminator, Pure, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

from gimlet.dialects.placement.attributes import StateType, TokenType
from gimlet.dialects.placement.hardware import require_device, topology_of


@irdl_op_definition
class SegmentOp(IRDLOperation):
    """A part of the workload that one device runs as a whole: all inputs before, all outputs after.

        placement.segment @s0 on @gpu0 as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32>
            attributes {arg_names = ["x"], res_names = ["y"]} {
          %y = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
          placement.yield %y : tensor<4xf32>
        }

    `format` is the number format that the device computes in; `by "…"` after it names the target that compiles the
    segment, where the device has several. `arg_names` and `res_names` are the ONNX names of the
    values at its edge, the names that artifacts bind by.
    """

    name = "placement.segment"

    sym_name = prop_def(SymbolNameConstraint())
    device = prop_def(FlatSymbolRefAttrConstr)
    number_format = prop_def(StringAttr, prop_name="format")
    target = opt_prop_def(StringAttr)
    function_type = prop_def(FunctionType)
    arg_names = prop_def(ArrayAttr[StringAttr])
    res_names = prop_def(ArrayAttr[StringAttr])
    body = region_def("single_block")

    traits = traits_def(IsolatedFromAbove(), SymbolOpInterface())

    def __init__(
        self,
        name: str,
        device: str,
        number_format: str,
        body: Region,
        arg_names: Sequence[str],
        res_names: Sequence[str],
        target: str = "",
    ) -> None:
        last = body.block.last_op
        super().__init__(
            properties={
                "sym_name": StringAttr(name),
                "device": SymbolRefAttr(device),
                "format": StringAttr(number_format),
                "target": StringAttr(target) if target else None,
                "function_type": FunctionType.from_lists(
                    body.block.arg_types, () if last is None else last.operand_types
                ),
                "arg_names": ArrayAttr([StringAttr(arg_name) for arg_name in arg_names]),
                "res_names": ArrayAttr([StringAttr(res_name) for res_name in res_names]),
            },
            regions=[body],
        )

    @property
    def device_name(self) -> str:
        return self.device.string_value()

    @property
    def format(self) -> str:
        return self.number_format.data

    @property
    def target_name(self) -> str:
        """The target that compiles the segment; empty for the device's first that has the format."""
        return "" if self.target is None else self.target.data

    @property
    def results_yielded(self) -> tuple[SSAValue, ...]:
        """The values that the segment's body yields."""
        last = self.body.block.last_op
        return tuple(last.operands) if isinstance(last, YieldOp) else ()

    def verify_(self) -> None:
        if not self.format:
            raise VerifyException(f"segment @{self.sym_name.data} has an empty format")
        if self.target is not None and not self.target.data:
            raise VerifyException(f"segment @{self.sym_name.data} has an empty target")
        require_device(self, self.device_name)
        last = self.body.block.last_op
        if not isinstance(last, YieldOp):
            raise VerifyException(f"segment @{self.sym_name.data} must end with placement.yield")
        if self.function_type.inputs.data != tuple(self.body.block.arg_types):
            raise VerifyException(
                f"the arguments of segment @{self.sym_name.data} do not have the types that it declares"
            )
        if self.function_type.outputs.data != tuple(last.operand_types):
            raise VerifyException(f"segment @{self.sym_name.data} yields other types than it declares")
        self._verify_names("arg_names", self.arg_names, len(self.function_type.inputs))
        self._verify_names("res_names", self.res_names, len(self.function_type.outputs))
        self._verify_states()

    def _verify_names(self, what: str, names: ArrayAttr[StringAttr], count: int) -> None:
        if len(names) != count:
            raise VerifyException(f"{what} of segment @{self.sym_name.data} has {len(names)} names for {count} values")
        if len({name.data for name in names}) != count:
            raise VerifyException(f"{what} of segment @{self.sym_name.data} has a name twice")

    def _verify_states(self) -> None:
        types = (*self.function_type.inputs, *self.function_type.outputs)
        if any(isinstance(type_, StateType) for type_ in types):
            raise VerifyException(f"segment @{self.sym_name.data} takes and yields what a state holds, not the state")

    @classmethod
    def parse(cls, parser: Parser) -> SegmentOp:
        name = parser.parse_symbol_name()
        parser.parse_keyword("on")
        device = SymbolRefAttr(parser.parse_symbol_name())
        parser.parse_keyword("as")
        number_format = StringAttr(parser.parse_str_literal("a number format"))
        target = parser.parse_str_literal("a target") if parser.parse_optional_keyword("by") else None
        args = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_argument)
        outputs: list[Attribute] = []
        if parser.parse_optional_punctuation("->"):
            many = parser.parse_optional_comma_separated_list(parser.Delimiter.PAREN, parser.parse_type)
            outputs.extend([parser.parse_type()] if many is None else many)
        parser.parse_keyword("attributes")
        attributes = parser.parse_optional_dictionary_attr_dict()
        properties: dict[str, Attribute] = {
            "sym_name": name,
            "device": device,
            "format": number_format,
            **({} if target is None else {"target": StringAttr(target)}),
            "function_type": FunctionType.from_lists([arg.type for arg in args], outputs),
        }
        for key in ("arg_names", "res_names"):
            if key not in attributes:
                parser.raise_error(f"a segment needs {key}")
            properties[key] = attributes.pop(key)
        return SegmentOp.create(properties=properties, attributes=attributes, regions=[parser.parse_region(args)])

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        printer.print_string(" on ")
        printer.print_attribute(self.device)
        printer.print_string(" as ")
        printer.print_attribute(self.number_format)
        printer.print_string(" ")
        if self.target is not None:
            printer.print_string("by ")
            printer.print_attribute(self.target)
            printer.print_string(" ")
        with printer.in_parens():
            printer.print_list(self.body.block.args, printer.print_block_argument)
        outputs = self.function_type.outputs.data
        if len(outputs) == 1:
            printer.print_string(" -> ")
            printer.print_attribute(outputs[0])
        elif outputs:
            printer.print_string(" -> ")
            with printer.in_parens():
                printer.print_list(outputs, printer.print_attribute)
        names = {"arg_names": self.arg_names, "res_names": self.res_names}
        printer.print_op_attributes({**names, **self.attributes}, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)


@irdl_op_definition
class YieldOp(IRDLOperation):
    """Ends a segment with its results."""

    name = "placement.yield"

    values = var_operand_def()

    traits = traits_def(HasParent(SegmentOp), IsTerminator())
    assembly_format = "attr-dict ($values^ `:` type($values))?"

    def __init__(self, values: Sequence[SSAValue]) -> None:
        super().__init__(operands=[values])


@irdl_op_definition
class LaunchOp(IRDLOperation):
    """Starts a segment once `tokens` have fired. Its results may be used by whoever waits for its own token.

    %y, %done = placement.launch async @s0(%x) [%ready] : (tensor<4xf32>) -> tensor<4xf32>
    """

    name = "placement.launch"

    segment = prop_def(FlatSymbolRefAttrConstr)
    arguments = var_operand_def()
    tokens = var_operand_def(TokenType)
    outputs = var_result_def()
    token = result_def(TokenType)

    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    assembly_format = (
        "`async` $segment `(` $arguments `)` (`[` $tokens^ `]`)? attr-dict `:` functional-type($arguments, $outputs)"
    )

    def __init__(
        self, segment: str, arguments: Sequence[SSAValue], tokens: Sequence[SSAValue], result_types: Sequence[Attribute]
    ) -> None:
        super().__init__(
            properties={"segment": SymbolRefAttr(segment)},
            operands=[arguments, tokens],
            result_types=[result_types, TokenType()],
        )

    @property
    def segment_name(self) -> str:
        return self.segment.string_value()

    def verify_(self) -> None:
        _verify_waits(self.arguments, self.tokens)
        module = self.parent_op()
        while module is not None and not isinstance(module, ModuleOp):
            module = module.parent_op()
        if module is None:
            return
        segment = find_segment(module, self.segment_name)
        if segment is None:
            raise VerifyException(f"there is no segment {self.segment}")
        inputs, outputs = segment.function_type.inputs.data, segment.function_type.outputs.data
        if tuple(value.type for value in self.arguments) != inputs:
            raise VerifyException(f"the arguments do not have the types that segment {self.segment} takes")
        if tuple(value.type for value in self.outputs) != outputs:
            raise VerifyException(f"the results do not have the types that segment {self.segment} yields")


@irdl_op_definition
class TransferOp(IRDLOperation):
    """Copies a value to another device over the links of `route`, once `tokens` have fired.

    %a, %there = placement.transfer async %x from @cpu to @gpu0 route [@pcie0] : tensor<4xf32>
    """

    name = "placement.transfer"

    T: ClassVar = VarConstraint("T", AnyAttr())

    value = operand_def(T)
    tokens = var_operand_def(TokenType)
    source = prop_def(FlatSymbolRefAttrConstr)
    destination = prop_def(FlatSymbolRefAttrConstr)
    route = prop_def(ArrayAttr[SymbolRefAttr])
    copy = result_def(T)
    token = result_def(TokenType)

    traits = traits_def(Pure())
    assembly_format = (
        "`async` $value (` ` `[` $tokens^ `]`)? `from` $source `to` $destination `route` $route attr-dict"
        "`:` type($value)"
    )

    def __init__(
        self, value: SSAValue, tokens: Sequence[SSAValue], source: str, destination: str, route: Sequence[str]
    ) -> None:
        super().__init__(
            operands=[value, tokens],
            properties={
                "source": SymbolRefAttr(source),
                "destination": SymbolRefAttr(destination),
                "route": ArrayAttr([SymbolRefAttr(link) for link in route]),
            },
            result_types=[value.type, TokenType()],
        )

    @property
    def source_name(self) -> str:
        return self.source.string_value()

    @property
    def destination_name(self) -> str:
        return self.destination.string_value()

    def verify_(self) -> None:
        if isinstance(self.value.type, StateType):
            raise VerifyException("a state stays on its device and cannot be transferred")
        if self.source_name == self.destination_name:
            raise VerifyException(f"a transfer from {self.source} to itself")
        _verify_waits((self.value,), self.tokens)
        require_device(self, self.source_name)
        require_device(self, self.destination_name)
        self._verify_route()

    def _verify_route(self) -> None:
        topology = topology_of(self)
        if topology is None:
            return
        links = topology.links
        here = self.source_name
        for step in self.route:
            link = links.get(step.string_value())
            if link is None:
                raise VerifyException(f"{step} is not a link of topology @{topology.sym_name.data}")
            if here not in link.between:
                raise VerifyException(f"link {step} of the route does not start at @{here}")
            first, second = link.between
            here = second if here == first else first
        if here != self.destination_name:
            raise VerifyException(f"the route ends at @{here}, not at {self.destination}")


def find_segment(module: ModuleOp, name: str) -> SegmentOp | None:
    """The segment called `name` in `module`, or None."""
    segments = (op for op in module.body.block.ops if isinstance(op, SegmentOp))
    return next((op for op in segments if op.sym_name.data == name), None)


def completion_of(value: SSAValue) -> OpResult | None:
    """The token that fires when `value` is there, or None where it is there from the start."""
    if isinstance(value, OpResult) and isinstance(value.op, LaunchOp | TransferOp):
        return value.op.token
    return None


def _verify_waits(values: Iterable[SSAValue], tokens: Iterable[SSAValue]) -> None:
    waited = set(tokens)
    for value in values:
        token = completion_of(value)
        if token is not None and token not in waited:
            raise VerifyException(f"uses a result of '{token.op.name}' without waiting for its token")
