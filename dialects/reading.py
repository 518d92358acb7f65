"""Reads IR from text that may be anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.parser.core import ForwardDeclaredValue
from xdsl.utils.lexer import Span

_BROKEN = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, NotImplementedError, RecursionError,
    TypeError, ValueError,
)  # fmt: skip
"""What xDSL's parser raises for text that it has no message for: a type without its parameters, an `i99999999999`."""
_ORDERED = "onnx."


def read_module(parser: Parser, *, implicit: bool = True) -> ModuleOp:
    """The module that a parser's text holds. ParseError with the place, whatever is wrong with the text.

    Without `implicit` the text must spell the module's own operation. A failed verification while parsing is raised as
    it is. An operation of the onnx dialect stands behind those that it reads, which xDSL's verifier does not check.
    """
    ahead = _watch(parser)
    try:
        module = parser.parse_module(implicit)
    except _BROKEN as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        parser.raise_error(f"the text cannot be read here: {reason}", parser.pos, parser.pos)
    early = _early_use(module) if ahead else None
    if early is not None:
        op, value = early
        span = next((at for at in ahead if at.text == f"%{value.name_hint}"), ahead[0])
        parser.raise_error(f"{op.name} reads {span.text} before it is computed", span)
    return module


def _watch(parser: Parser) -> list[Span]:
    """Where the text reads a value that it has not defined by then, filled while the parser goes on."""
    ahead: list[Span] = []
    resolve = parser.resolve_operand

    def watched(operand: UnresolvedOperand, type: Attribute) -> SSAValue[Any]:
        value = resolve(operand, type)
        if isinstance(value, ForwardDeclaredValue):
            ahead.append(operand.span)
        return value

    parser.resolve_operand = watched
    return ahead


def _early_use(module: ModuleOp) -> tuple[Operation, SSAValue] | None:
    """The first operation of the onnx dialect that reads what is computed by itself or behind it, and the value."""
    done, entered = set[Operation](), set[Block]()
    waiting: list[tuple[Operation | Block, bool]] = [(module, False)]
    while waiting:
        item, is_left = waiting.pop()
        if isinstance(item, Operation) and is_left:
            done.add(item)
        elif isinstance(item, Operation):
            value = next((each for each in _ordered_operands(item) if _is_ahead(each, done, entered)), None)
            if value is not None:
                return item, value
            waiting += [(item, True), *((block, False) for region in item.regions for block in region.blocks)]
        elif is_left:
            entered.remove(item)
        else:
            entered.add(item)
            waiting += [(item, True), *((op, False) for op in reversed(list(item.ops)))]
    return None


def _ordered_operands(op: Operation) -> Sequence[SSAValue]:
    return op.operands if op.name.startswith(_ORDERED) else ()


def _is_ahead(value: SSAValue, done: set[Operation], entered: set[Block]) -> bool:
    """Whether a value is of an operation that comes later in a block that is being walked."""
    owner = value.owner
    return isinstance(owner, Operation) and owner not in done and owner.parent in entered
