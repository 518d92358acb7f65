"""Reads IR from text that may be anything."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

_BROKEN = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, NotImplementedError, RecursionError,
    TypeError, ValueError,
)  # fmt: skip
"""What xDSL's parser raises for text that it has no message for: a type without its parameters, an `i99999999999`."""


def read_module(parser: Parser, *, implicit: bool = True) -> ModuleOp:
    """The module that a parser's text holds. ParseError with the place, whatever is wrong with the text.

    Without `implicit` the text must spell the module's own operation. A failed verification while parsing is raised as
    it is.
    """
    try:
        return parser.parse_module(implicit)
    except _BROKEN as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        parser.raise_error(f"the text cannot be read here: {reason}", parser.pos, parser.pos)
