"""gimlet-lsp: a language server for IR, over standard input and output. Needs the extra `lsp`.

Diagnostics for all that does not parse or verify, hover with types, shapes, costs and operators' documentation, go to
definition and references of values, symbols and dimensions, and an outline.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from gimlet.runtime.errors import MissingError
from gimlet.tools.cli import command, run

if TYPE_CHECKING:
    from lsprotocol import types as lsp
    from pygls.lsp.server import LanguageServer
    from xdsl.ir import Operation

    from gimlet.compiler.ir_text import Toolbox
    from gimlet.compiler.workbench.index import IrIndex, Span


class Document:
    """A text that is open in the editor, with its index. Columns count as the protocol has them, in UTF-16 units."""

    def __init__(self, text: str, index: IrIndex) -> None:
        self.text = text
        self.index = index
        self.starts = [0, *(offset + 1 for offset, letter in enumerate(text) if letter == "\n")]

    def offset(self, position: lsp.Position) -> int:
        """Where a position of the protocol is in the text; the nearest place where it is outside."""
        if position.line >= len(self.starts):
            return len(self.text)
        start = self.starts[position.line]
        end = self.text.find("\n", start) % (len(self.text) + 1)
        units = self.text[start:end].encode("utf-16-le", "surrogatepass")[: 2 * position.character]
        return start + len(units.decode("utf-16-le", "ignore"))

    def position(self, offset: int) -> lsp.Position:
        """The position of the protocol that an offset is."""
        from lsprotocol import types as lsp

        line = bisect_right(self.starts, offset) - 1
        before = self.text[self.starts[line] : offset]
        return lsp.Position(line, len(before.encode("utf-16-le", "surrogatepass")) // 2)

    def range(self, span: Span) -> lsp.Range:
        """The range of the protocol that a span is."""
        from lsprotocol import types as lsp

        return lsp.Range(self.position(span[0]), self.position(span[1]))


def make_server(toolbox: Toolbox) -> LanguageServer:
    """The server, which knows the dialects of the toolbox."""
    from lsprotocol import types as lsp
    from pygls.lsp.server import LanguageServer

    from gimlet.compiler.workbench.hover import hover_text
    from gimlet.compiler.workbench.index import index_text

    server = LanguageServer("gimlet-lsp", version("gimlet-compiler"))
    documents: dict[str, Document] = {}

    def read(uri: str) -> Document:
        source = server.workspace.get_text_document(uri).source
        found = documents.get(uri)
        if found is None or found.text != source:
            found = documents[uri] = Document(source, index_text(source, uri, toolbox.context()))
        return found

    def check(uri: str) -> None:
        document = read(uri)
        problems = [
            lsp.Diagnostic(document.range(p.span), p.message, lsp.DiagnosticSeverity.Error, source="gimlet")
            for p in document.index.problems
        ]
        server.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, problems))

    @server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def did_open(params: lsp.DidOpenTextDocumentParams) -> None:
        check(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def did_change(params: lsp.DidChangeTextDocumentParams) -> None:
        check(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    def did_close(params: lsp.DidCloseTextDocumentParams) -> None:
        documents.pop(params.text_document.uri, None)

    @server.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hover(params: lsp.HoverParams) -> lsp.Hover | None:
        document = read(params.text_document.uri)
        text = hover_text(document.index, document.offset(params.position))
        return lsp.Hover(lsp.MarkupContent(lsp.MarkupKind.Markdown, text)) if text else None

    @server.feature(lsp.TEXT_DOCUMENT_DEFINITION)
    def definition(params: lsp.DefinitionParams) -> lsp.Location | None:
        document = read(params.text_document.uri)
        span = document.index.definition(document.offset(params.position))
        return lsp.Location(params.text_document.uri, document.range(span)) if span else None

    @server.feature(lsp.TEXT_DOCUMENT_REFERENCES)
    def references(params: lsp.ReferenceParams) -> list[lsp.Location]:
        document = read(params.text_document.uri)
        spans = document.index.references(document.offset(params.position))
        first = 0 if params.context.include_declaration else 1
        return [lsp.Location(params.text_document.uri, document.range(span)) for span in spans[first:]]

    @server.feature(lsp.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    def document_symbol(params: lsp.DocumentSymbolParams) -> list[lsp.DocumentSymbol]:
        return outline(read(params.text_document.uri))

    # The decorators keep them; this says so to those who look for unused functions.
    del did_open, did_change, did_close, hover, definition, references, document_symbol
    return server


def outline(document: Document) -> list[lsp.DocumentSymbol]:
    """The operations with a symbol, and inside them those with results, each in what it is in."""
    spans = {id(op): span for span, op in document.index.ops}
    inside: dict[int | None, list[Operation]] = {}
    for _, op in sorted(document.index.ops, key=lambda entry: entry[0]):
        parent = op.parent_op()
        inside.setdefault(id(parent) if parent is not None and id(parent) in spans else None, []).append(op)

    def symbols(parent: int | None) -> list[lsp.DocumentSymbol]:
        return [_symbol(document, op, spans[id(op)], symbols(id(op))) for op in inside.get(parent, []) if _name(op)]

    return symbols(None)


def _name(op: Operation) -> str:
    from xdsl.dialects.builtin import ModuleOp, StringAttr

    own = op.properties.get("sym_name") or op.attributes.get("sym_name")
    if isinstance(own, StringAttr):
        return f"@{own.data}"
    if op.results:
        return f"%{op.results[0].name_hint or '_'}"
    return "module" if isinstance(op, ModuleOp) else ""


def _symbol(document: Document, op: Operation, span: Span, children: list[lsp.DocumentSymbol]) -> lsp.DocumentSymbol:
    from lsprotocol import types as lsp

    name = _name(op)
    kind = lsp.SymbolKind.Variable if name.startswith("%") else lsp.SymbolKind.Function
    kind = lsp.SymbolKind.Module if op.name in ("builtin.module", "placement.topology") else kind
    line = document.text.find("\n", *span)
    head = (span[0], line if line >= 0 else span[1])
    return lsp.DocumentSymbol(name, kind, document.range(span), document.range(head), detail=op.name, children=children)


@command("gimlet-lsp")
@click.option(
    "--load",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE.py",
    help="A file with dialects to know; several times for several.",
)
def gimlet_lsp(load: tuple[Path, ...]) -> None:
    """Serve an editor over standard input and output, in the Language Server Protocol."""
    from gimlet.compiler.ir_text import Toolbox

    try:
        server = make_server(Toolbox.of(load))
    except ModuleNotFoundError as error:
        raise MissingError(
            f"the package {error.name} is not installed", hint="pip install 'gimlet-compiler[lsp]'"
        ) from error
    # It closes its streams at the end, and ours are flushed after that.
    server.start_io(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The command's entry point."""
    run(gimlet_lsp, args)


if __name__ == "__main__":
    main()
