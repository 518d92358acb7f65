"""The custom text form of ONNX operations.

    %y = onnx.Conv(%x, %w) {strides = [2, 2]} : (tensor<…>, tensor<…>) -> tensor<…> loc("/conv1/Conv")
    %y = onnx.Clip v11(%x, _, %max) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    %y = onnx.If(%c) else_branch { … } then_branch { … } : (tensor<i1>) -> tensor<4xf32>
    %c = onnx.Constant {value = dense<1> : tensor<i64>} : tensor<i64>

`v11` is the version, where it is not the newest; `_` an absent input or output. In the dictionary, names with a dot are
the operation's (discardable) attributes, the others ONNX attributes; `[2, 2]` is a list of integers, `[0.5]` of floats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from io import StringIO
from itertools import chain, repeat
from math import isfinite
from typing import Any, TypeVar

import numpy as np
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    UnknownLoc,
    f32,
    f64,
    i64,
)
from xdsl.ir import Attribute, Region, SSAValue
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.printer import Printer

from gimlet.dialects.onnx.attributes import (
    decode_text,
    encode_text,
    float_attr,
    floats_attr,
    int_attr,
    ints_attr,
    python_value,
    strings_attr,
)
from gimlet.dialects.onnx.extra_ops import CustomOp
from gimlet.dialects.onnx.known_text import DICTIONARY, TENSOR, TYPES, read_inputs, read_known, read_tensor_value
from gimlet.dialects.onnx.op import (
    ABSENT_INPUTS,
    ABSENT_OUTPUTS,
    CUSTOM_DOMAIN,
    CUSTOM_OP_TYPE,
    CUSTOM_OVERLOAD,
    GRAPHS,
    RESERVED,
    SINCE_VERSION,
    OnnxOp,
    without_absent,
)

ABSENT = "_"
_OpT = TypeVar("_OpT", bound=OnnxOp)


def print_op(op: OnnxOp, printer: Printer) -> None:
    """Prints what follows the operation's name."""
    if isinstance(op, CustomOp):
        _print_custom_name(op, printer)
    if (version := op.properties.get(SINCE_VERSION)) is not None:
        printer.print_string(f" v{python_value(version)}")
    has_inputs = bool(op.operands) or ABSENT_INPUTS in op.properties
    if has_inputs:
        with printer.in_parens():
            printer.print_list(op.inputs, lambda value: _print_input(value, printer))
    # An op that does not verify is printed too, in the message that says so.
    for name, region in zip(chain(op.graph_names, repeat("")), op.regions, strict=False):
        printer.print_string(" ")
        printer.print_identifier_or_string_literal(name)
        printer.print_string(" ")
        printer.print_region(region)
    _print_dictionary(op, printer)
    printer.print_string(" : ")
    if has_inputs:
        with printer.in_parens():
            printer.print_list(op.operands, lambda value: printer.print_string(_text(value.type)))
        printer.print_string(" -> ")
    texts = [ABSENT if value is None else _text(value.type) for value in op.outputs]
    printer.print_string(texts[0] if len(texts) == 1 else f"({', '.join(texts)})")
    if not printer.print_debuginfo and not isinstance(op.location, UnknownLoc):
        printer.print_string(" ")
        printer.print_attribute(op.location)


def _print_custom_name(op: CustomOp, printer: Printer) -> None:
    printer.print_string(" ")
    printer.print_string_literal(encode_text(op.domain))
    for text in (op.op_type, *((op.overload,) if op.overload else ())):
        printer.print_string(", ")
        printer.print_string_literal(encode_text(text))


def _print_input(value: SSAValue | None, printer: Printer) -> None:
    if value is None:
        printer.print_string(ABSENT)
    else:
        printer.print_ssa_value(value)


@lru_cache(maxsize=16384)
def _text(attribute: Attribute) -> str:
    """The text of an attribute. Types repeat a lot, and printing one takes much longer than looking it up."""
    stream = StringIO()
    Printer(stream=stream).print_attribute(attribute)
    return stream.getvalue()


def _print_dictionary(op: OnnxOp, printer: Printer) -> None:
    entries = [(name, value) for name, value in op.properties.items() if name not in RESERVED]
    entries += list(op.attributes.items())
    if not entries:
        return
    printer.print_string(" ")
    with printer.in_braces():
        printer.print_list(entries, lambda entry: _print_entry(*entry, printer))


def _print_entry(name: str, value: Attribute, printer: Printer) -> None:
    printer.print_identifier_or_string_literal(name)
    printer.print_string(" = ")
    text = _short_text(value) if "." not in name else None
    if text is None:
        printer.print_attribute(value)
    else:
        printer.print_string(text)


def _short_text(value: Attribute) -> str | None:
    if isinstance(value, IntegerAttr) and value.type == i64:
        return str(value.value.data)
    if isinstance(value, FloatAttr) and value.type == f32:
        return _float_text(value.value.data)
    if isinstance(value, DenseArrayBase) and len(value) and value.elt_type in (i64, f32):
        if value.elt_type == i64:
            return str(list(value.get_values()))
        texts = [_float_text(number) for number in value.get_values()]
        return None if None in texts else f"[{', '.join(text for text in texts if text)}]"
    return None


def _float_text(value: float) -> str | None:
    if not isfinite(value):
        return None
    mantissa, exponent, power = str(np.float32(value)).partition("e")
    return (mantissa if "." in mantissa else mantissa + ".0") + exponent + power


def parse_op(cls: type[_OpT], parser: Parser) -> _OpT:
    """Parses what follows the operation's name."""
    properties: dict[str, Attribute] = {}
    if issubclass(cls, CustomOp):
        _parse_custom_name(parser, properties)
    version, graph = _parse_version(parser)
    if version is not None:
        properties[SINCE_VERSION] = int_attr(version)
    inputs = _parse_inputs(parser)
    graphs = _parse_regions(parser, graph)
    attributes = _parse_dictionary(parser, properties)
    parser.parse_punctuation(":")
    position = parser.pos
    operand_types, outputs = read_known(parser, TYPES, lambda: _parse_types(parser, with_inputs=inputs is not None))
    present = without_absent(inputs or (), ABSENT_INPUTS, properties)
    operands = parser.resolve_operands(present, operand_types, position)
    result_types = without_absent(outputs, ABSENT_OUTPUTS, properties)
    _add_graph_names(cls, tuple(graphs), properties)
    return cls.create(
        operands=operands,
        result_types=result_types,
        properties=properties,
        attributes=attributes,
        regions=[graphs[name] for name in sorted(graphs)],
    )


def _parse_custom_name(parser: Parser, properties: dict[str, Attribute]) -> None:
    properties[CUSTOM_DOMAIN] = StringAttr(decode_text(parser.parse_str_literal()))
    parser.parse_punctuation(",")
    properties[CUSTOM_OP_TYPE] = StringAttr(decode_text(parser.parse_str_literal()))
    if parser.parse_optional_punctuation(",") is not None:
        properties[CUSTOM_OVERLOAD] = StringAttr(decode_text(parser.parse_str_literal()))


def _parse_version(parser: Parser) -> tuple[int | None, str]:
    """The version, and the name of the first subgraph where an operation without operands has no version."""
    position = parser.pos
    text = parser.parse_optional_identifier() or parser.parse_optional_str_literal()
    if text is None:
        return None, ""
    if text[:1] == "v" and text[1:].isdigit():
        return int(text[1:]), ""
    if parser.lexer.input.at(parser.pos) != "{":
        parser.raise_error("expected a version such as v11, or the operands", position)
    return None, text


def _parse_inputs(parser: Parser) -> list[UnresolvedOperand | None] | None:
    inputs = read_inputs(parser)
    if inputs is not None:
        return inputs
    return parser.parse_optional_comma_separated_list(parser.Delimiter.PAREN, lambda: _parse_input(parser))


def _parse_types(parser: Parser, *, with_inputs: bool) -> tuple[list[Attribute], list[Attribute | None]]:
    """The types of the operands and of all outputs."""
    operands: list[Attribute] = []
    if with_inputs:
        operands = parser.parse_comma_separated_list(parser.Delimiter.PAREN, lambda: _parse_type(parser))
        parser.parse_punctuation("->")
    outputs = parser.parse_optional_comma_separated_list(parser.Delimiter.PAREN, lambda: _parse_output(parser))
    return operands, [_parse_type(parser)] if outputs is None else outputs


def _parse_input(parser: Parser) -> UnresolvedOperand | None:
    return None if parser.parse_optional_keyword(ABSENT) else parser.parse_unresolved_operand()


def _parse_output(parser: Parser) -> Attribute | None:
    return None if parser.parse_optional_keyword(ABSENT) else _parse_type(parser)


def _parse_type(parser: Parser) -> Attribute:
    return read_known(parser, TENSOR, parser.parse_type)


def _parse_regions(parser: Parser, first: str) -> dict[str, Region]:
    graphs: dict[str, Region] = {first: parser.parse_region()} if first else {}
    while (name := parser.parse_optional_identifier() or parser.parse_optional_str_literal()) is not None:
        graphs[name] = parser.parse_region()
    return graphs


def _add_graph_names(cls: type[OnnxOp], names: tuple[str, ...], properties: dict[str, Attribute]) -> None:
    names = tuple(sorted(names))
    declared = () if issubclass(cls, CustomOp) or not cls.schema_name[:1].isupper() else cls.schema_at().graph_names
    if names and names != declared:
        properties[GRAPHS] = strings_attr(names)


def _parse_dictionary(parser: Parser, properties: dict[str, Attribute]) -> dict[str, Attribute]:
    """Adds the ONNX attributes to the properties, and returns the others."""
    value = read_tensor_value(parser)
    if value is not None:
        properties["value"] = value
        return {}
    known = read_known(parser, DICTIONARY, parser.parse_optional_attr_dict)
    properties |= {name: _from_short_form(value) for name, value in known.items() if "." not in name}
    return {name: value for name, value in known.items() if "." in name}


def _from_short_form(value: Attribute) -> Attribute:
    if isinstance(value, FloatAttr) and value.type == f64:
        return float_attr(value.value.data)
    if isinstance(value, ArrayAttr) and len(value):
        items: Sequence[Attribute] = value.data
        if all(isinstance(item, IntegerAttr) and item.type == i64 for item in items):
            return ints_attr(_numbers(items))
        if all(isinstance(item, FloatAttr | IntegerAttr) for item in items):
            return floats_attr(_numbers(items))
    return value


def _numbers(items: Iterable[Attribute]) -> list[Any]:
    return [python_value(item) for item in items]
