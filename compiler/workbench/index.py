"""Where everything is in a text of IR, for an editor: operations, values, symbols, dimensions, and what is wrong.

    index = index_text(text, "model.mlir", toolbox.context())
    index.problems, index.definition(offset), index.references(offset)

A text that is wrong in one place is read on behind it: after the operation that does not parse, at the next line on its
level. Positions are offsets in the text; a `Span` is a start and an end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation, SSAValue
from xdsl.parser import Parser
from xdsl.parser.core import UnresolvedOperand
from xdsl.utils.exceptions import DiagnosticException, ParseError, VerifyException
from xdsl.utils.lexer import Span as TextSpan
from xdsl.utils.mlir_lexer import MLIRTokenKind

Span = tuple[int, int]
_TOKEN: Final = re.compile(r'%[\w$.-]+|@(?:"[^"\n]*"|[\w$.-]+)|[A-Za-z_][\w$]*(?:\.[\w$]+)*')
_RESULTS: Final = re.compile(r"%[\w$.-]+")
_SKIPPED: Final = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*')
_DIMS: Final = re.compile(r"#onnx\.dims<([^>]*)>")
_BOUNDS: Final = re.compile(r"onnx\.dim_bounds\s*=\s*\{([^}]*)\}")


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, and where."""

    span: Span
    message: str


@dataclass
class IrIndex:
    """What there is in a text. `values` has the span of each definition, `uses` each use of a value."""

    text: str
    module: ModuleOp | None = None
    problems: list[Problem] = field(default_factory=list[Problem])
    ops: list[tuple[Span, Operation]] = field(default_factory=list[tuple[Span, Operation]])
    values: list[tuple[Span, SSAValue]] = field(default_factory=list[tuple[Span, SSAValue]])
    uses: list[tuple[Span, SSAValue]] = field(default_factory=list[tuple[Span, SSAValue]])
    symbols: list[tuple[Span, str]] = field(default_factory=list[tuple[Span, str]])

    def note(self, span: Span, message: str) -> None:
        """Adds a problem. The end of the text is a token too, one behind it."""
        last = len(self.text)
        self.problems.append(Problem((min(span[0], last), min(span[1], last)), message.strip()))

    def token(self, offset: int) -> tuple[Span, str] | None:
        """The name at an offset: a value, a symbol, an operation or a word."""
        start = self.text.rfind("\n", 0, offset) + 1
        end = self.text.find("\n", offset)
        line = self.text[start : end if end >= 0 else None]
        for match in _TOKEN.finditer(line):
            if match.start() <= offset - start <= match.end():
                return (start + match.start(), start + match.end()), match[0]
        return None

    def op_at(self, offset: int) -> tuple[Span, Operation] | None:
        """The innermost operation around an offset."""
        around = [entry for entry in self.ops if entry[0][0] <= offset <= entry[0][1]]
        return min(around, key=lambda entry: entry[0][1] - entry[0][0], default=None)

    def value_at(self, offset: int) -> SSAValue | None:
        """The value that is defined or used at an offset; in an operation that is wrong, the last one of that name."""
        found = next((value for span, value in (*self.values, *self.uses) if span[0] <= offset <= span[1]), None)
        token = self.token(offset)
        if found is not None or token is None or not token[1].startswith("%"):
            return found
        named = [(span, value) for span, value in self.values if self.text[slice(*span)] == token[1]]
        return max((entry for entry in named if entry[0][0] <= offset), default=(None, None), key=_start)[1]

    def dimension_at(self, offset: int) -> str | None:
        """The name of the dimension at an offset."""
        return next((name for span, name in self.dimensions() if span[0] <= offset <= span[1]), None)

    def dimensions(self) -> Iterator[tuple[Span, str]]:
        """Every name of a dimension: first where its bounds are given, then in types."""
        for where in (_BOUNDS, _DIMS):
            for match in where.finditer(self.text):
                inside = re.finditer(r"[A-Za-z_]\w*(?=\s*=)" if where is _BOUNDS else r"[A-Za-z_]\w*", match[1])
                yield from (((match.start(1) + m.start(), match.start(1) + m.end()), m[0]) for m in inside)

    def definition_of_symbol(self, name: str) -> Span | None:
        """Where the operation that is called @name says so."""
        for span, op in self.ops:
            own = op.properties.get("sym_name") or op.attributes.get("sym_name")
            if isinstance(own, StringAttr) and own.data == name:
                inside = (found for found, text in self.symbols if text == name and span[0] <= found[0] < span[1])
                return min(inside, default=span)
        return None

    def definition(self, offset: int) -> Span | None:
        """Where the value, symbol or dimension at an offset is defined."""
        found = self.references(offset)
        return found[0] if found else None

    def references(self, offset: int) -> list[Span]:
        """Every place that names what is at an offset, its definition first."""
        value = self.value_at(offset)
        if value is not None:
            return self._spans_of(value)
        token = self.token(offset)
        if token is not None and token[1].startswith("@"):
            name = token[1][1:].strip('"')
            own = self.definition_of_symbol(name)
            others = [span for span, text in self.symbols if text == name and span != own]
            return [*([own] if own else []), *sorted(set(others))]
        dimension = self.dimension_at(offset)
        return [span for span, name in self.dimensions() if name == dimension] if dimension else []

    def _spans_of(self, value: SSAValue) -> list[Span]:
        defined = [span for span, other in self.values if other is value]
        return [*defined, *sorted({span for span, other in self.uses if other is value})]


def _start(entry: tuple[Span | None, SSAValue | None]) -> int:
    return entry[0][0] if entry[0] else -1


def index_text(text: str, name: str, ctx: Context) -> IrIndex:
    """Reads a text of IR as far as it can be read. Never raises for what is wrong in the text."""
    index = IrIndex(text)
    try:
        # The first token is read at once, and may be none.
        parser = _IndexingParser(ctx, index, name)
        index.module = parser.parse_all()
    except ParseError as error:
        index.note((error.span.start, error.span.end), error.msg)
    if not index.problems:
        index.problems = list(_violations(index))
    return index


def _violations(index: IrIndex) -> Iterator[Problem]:
    """What does not verify, an operation at a time, on the line where it starts."""
    for span, op in index.ops:
        try:
            op.verify(verify_nested_ops=False)
        except DiagnosticException as error:
            end = index.text.find("\n", *span)
            yield Problem((span[0], end if end >= 0 else span[1]), str(error))


class _IndexingParser(Parser):
    """xDSL's parser, which notes where it found what, and goes on after an operation that does not parse."""

    def __init__(self, ctx: Context, index: IrIndex, name: str) -> None:
        super().__init__(ctx, index.text, name)
        self.index = index
        self._lost: set[str] = set()

    def parse_all(self) -> ModuleOp:
        """The whole text as a module. ParseError where it ends in something that no operation starts with."""
        found: list[Operation] = []
        while True:
            if self._current_token.kind in (MLIRTokenKind.HASH_IDENT, MLIRTokenKind.EXCLAMATION_IDENT):
                self._parse_alias_def()
            elif self._current_token.kind == MLIRTokenKind.FILE_METADATA_BEGIN:
                self._parse_file_metadata_dictionary()
            elif (op := self.parse_optional_operation()) is not None:
                found.append(op)
            elif self._current_token.kind == MLIRTokenKind.EOF:
                break
            else:
                self.raise_error("an operation is expected")
        for name in self.forward_ssa_references:
            if name not in self._lost:
                self.index.note(self._first_use(name), f"%{name} is used but not defined")
        if len(found) == 1 and isinstance(found[0], ModuleOp):
            return found[0]
        return ModuleOp(found)

    def parse_optional_operation(self) -> Operation | None:
        while True:
            start, state = self.pos, self._parser_state
            scope = self.ssa_values, self.blocks, self.forward_block_references, list(state.dialect_stack)
            try:
                op = super().parse_optional_operation()
            except ParseError as error:
                self.index.note((error.span.start, error.span.end), error.msg)
            except VerifyException as error:
                self.index.note((self.pos, self.pos), str(error))
            else:
                if op is not None:
                    self.index.ops.append(((start, self._end_of_last()), op))
                return op
            self.ssa_values, self.blocks, self.forward_block_references, state.dialect_stack[:] = scope
            self._skip(start)

    def _end_of_last(self) -> int:
        end = self.pos
        # Not text[:end].rstrip(), which copies all that is before for each operation.
        while end > 0 and self.index.text[end - 1].isspace():
            end -= 1
        return end

    def _skip(self, start: int) -> None:
        """Goes to the next line on the level of the operation at `start`, or to the brace that ends its region."""
        text = self.index.text
        line = text[start : text.find("\n", start) % (len(text) + 1)]
        self._lost |= {name[1:] for name in _RESULTS.findall(line.partition("=")[0])}
        blank = _SKIPPED.sub(lambda match: " " * len(match[0]), text[start:])
        depth = 0
        for offset, letter in enumerate(blank):
            if letter == "}" and depth == 0:
                self._resume_from(start + offset)
                return
            if letter == "\n" and depth == 0 and re.match(r'\s*[%"A-Za-z}]', text[start + offset :]):
                self._resume_from(start + offset)
                return
            # Only braces count: a parenthesis that is not closed yet is the usual case while somebody types.
            depth += (letter == "{") - (letter == "}")
        self._resume_from(len(text))

    def _first_use(self, name: str) -> Span:
        uses = (span for span, _ in self.index.uses if self.index.text[span[0] + 1 : span[1]].split("#")[0] == name)
        return min(uses, default=(0, 0))

    def _register_ssa_definition(self, name: str, values: Sequence[SSAValue], span: TextSpan[str]) -> None:
        forward = {id(value): index for index, value in self.forward_ssa_references.get(name, {}).items()}
        super()._register_ssa_definition(name, values, span)
        if forward:
            uses = self.index.uses
            uses[:] = [(s, values[forward[id(value)]] if id(value) in forward else value) for s, value in uses]
        self.index.values += [((span.start, span.end), value) for value in values]

    def resolve_operand(self, operand: UnresolvedOperand, type: object) -> SSAValue:  # pyright: ignore[reportIncompatibleMethodOverride]
        value = super().resolve_operand(operand, type)  # pyright: ignore[reportArgumentType, reportUnknownVariableType]
        self.index.uses.append(((operand.span.start, operand.span.end), value))
        return value

    def _parse_optional_operand_without_type(self) -> SSAValue | None:
        span = self._current_token.span
        value = super()._parse_optional_operand_without_type()
        if value is not None:
            self.index.uses.append(((span.start, span.end), value))
        return value

    def parse_optional_symbol_name(self) -> StringAttr | None:
        span = self._current_token.span
        name = super().parse_optional_symbol_name()
        if name is not None:
            self.index.symbols.append(((span.start, span.end), name.data))
        return name
