"""Reads at once what xDSL's parser would read token by token: a name costs it some 20 µs, and an operation has dozens.

A model's operations repeat their types, costs and attributes, so that most of their text was read before in the same
file. Whatever does not look as the printer spells it is left to xDSL's parser, and so is every error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from typing import Any, Final, TypeVar

import numpy as np
from xdsl.dialects.builtin import BytesAttr, DenseIntOrFPElementsAttr, TensorType, f32, f64, i32, i64
from xdsl.ir import Attribute
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.utils.lexer import Span

DICTIONARY: Final = re.compile(r'\{(?:[^{}"]++|"[^"\\\n]*+")*\}')
TENSOR: Final = re.compile(r'tensor<[^<>"]*+(?:#onnx\.dims<(?:"[^"]*+"(?:, )?)+>)?>')
TYPES: Final = re.compile(r'(?:(?! loc\()[^"\n]|"[^"\n]*+")+')
"""The types behind an operation's colon, up to its location or the end of the line."""
_INPUTS = re.compile(r"\((?:(?:%[\w.$-]++|_)(?:, (?!\)))?)*\)")
_INPUT = re.compile(r"%[\w.$-]+|_(?=[,)])")
_TENSOR_VALUE = re.compile(
    r'\{value = dense<(?:\[(?P<numbers>[-+.\de, ]++)\]|"0x(?P<bytes>[0-9A-F]++)")>'
    r" : tensor<(?P<sizes>(?:\d++x)+)(?P<type>[if]\d\d)>\}"
)
_NUMBERS: dict[str, tuple[Attribute, type[np.generic], type[int | float]]] = {
    "f32": (f32, np.float32, float),
    "f64": (f64, np.float64, float),
    "i32": (i32, np.int32, int),
    "i64": (i64, np.int64, int),
}
_KNOWN = "_gimlet_known_text"
_T = TypeVar("_T")


def read_known(parser: Parser, pattern: re.Pattern[str], parse: Callable[[], _T]) -> _T:
    """What `parse` makes of the text that comes next, the same text only once a file.

    `pattern` matches all that `parse` reads where the text is in its usual form; what `parse` returns is not changed
    later. A name may mean something else in another file, so nothing is kept from one to the next.
    """
    content = parser.lexer.input.content
    match = pattern.match(content, parser.pos)
    if match is None:
        return parse()
    known: dict[str, Any] = vars(parser).setdefault(_KNOWN, {}).setdefault(pattern, {})
    text = match.group()
    if text in known:
        _resume(parser, match.end())
        return known[text]
    found = parse()
    between = content[match.end() : parser.pos]
    if not between or between.isspace():
        known[text] = found
    return found


def read_inputs(parser: Parser) -> list[UnresolvedOperand | None] | None:
    """The inputs in parentheses that come next, None for an absent one; None, and nothing read, in another form."""
    source = parser.lexer.input
    match = _INPUTS.match(source.content, parser.pos)
    if match is None:
        return None
    found = [
        None if name.group() == "_" else UnresolvedOperand(Span(name.start(), name.end(), source), 0)
        for name in _INPUT.finditer(source.content, match.start(), match.end())
    ]
    _resume(parser, match.end())
    return found


def read_tensor_value(parser: Parser) -> DenseIntOrFPElementsAttr | None:
    """The tensor where a dictionary comes next that has only that, `{value = dense<[…]> : tensor<…>}` or its bytes.

    None, and nothing read, for anything else.
    """
    match = _TENSOR_VALUE.match(parser.lexer.input.content, parser.pos)
    if match is None or match["type"] not in _NUMBERS:
        return None
    element, dtype, number = _NUMBERS[match["type"]]
    shape = [int(size) for size in match["sizes"].split("x")[:-1]]
    try:
        if match["bytes"]:
            array = np.frombuffer(bytes.fromhex(match["bytes"]), dtype)
        else:
            array = np.array([number(text) for text in match["numbers"].split(", ")], dtype)
    except (ValueError, OverflowError):
        return None
    if array.size != prod(shape) or (match["numbers"] and (len(shape) > 1 or not np.all(np.isfinite(array)))):
        return None
    _resume(parser, match.end())
    return DenseIntOrFPElementsAttr(TensorType(element, shape), BytesAttr(array.tobytes()))  # pyright: ignore[reportArgumentType]


def _resume(parser: Parser, position: int) -> None:
    parser._resume_from(position)  # pyright: ignore[reportPrivateUsage]
