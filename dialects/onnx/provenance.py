"""Where a node comes from: what exporters write into a node's metadata, as a location.

PyTorch's exporter leaves a stack trace with absolute paths, and the names of the modules around, on every node. The
location keeps the innermost of each, with the path made relative: `loc("node_conv2d"("features.0"("model.py":12:0)))`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePath

import onnx_ir as ir
from xdsl.dialects.builtin import DictionaryAttr, FileLineColLoc, IntAttr, NameLoc, NoneAttr, StringAttr, UnknownLoc
from xdsl.ir import Attribute, Operation

from gimlet.dialects.onnx.attributes import decode_text, encode_text, text_dict, text_of, texts_of
from gimlet.dialects.onnx.names import named_location

METADATA = "onnx.metadata"
GRAPH_METADATA = "onnx.graph_metadata"
DOC = "onnx.doc"
RESULTS = "onnx.results"
SUBGRAPHS = "onnx.subgraphs"
SCOPE_KEY = "namespace"
_STACK_KEY = "pkg.torch.onnx.stack_trace"
_SCOPES_KEY = "pkg.torch.onnx.name_scopes"
_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"  # PyTorch's name for the place of ops that no module made
_FRAME = re.compile(r'File "([^"]+)", line (\d+)|^(\S+\.py)\((\d+)\)', re.MULTILINE)
_PACKAGES = ("site-packages", "dist-packages")


def user_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata without what exporters keep there for their own debugging."""
    return {key: text for key, text in metadata.items() if not key.startswith("pkg.") and key != SCOPE_KEY}


def notes(doc: str | None, metadata: Mapping[str, str]) -> dict[str, Attribute]:
    """A doc string and metadata as discardable attributes, those that there are."""
    found: dict[str, Attribute] = {}
    if doc:
        found[DOC] = StringAttr(doc)
    if kept := user_metadata(metadata):
        found[METADATA] = text_dict(kept)
    return found


def notes_of_node(node: ir.Node) -> dict[str, Attribute]:
    """What a model says about a node, its results and its subgraphs beside what they compute.

    A doc string that is a stack trace is in the location, and dropped here.
    """
    doc = node.doc_string if node.doc_string and not _FRAME.search(node.doc_string) else ""
    found = notes(doc, node.metadata_props)
    results = {
        encode_text(value.name): DictionaryAttr(said)
        for value in node.outputs
        if value.name and not value.is_graph_output() and (said := notes(value.doc_string, value.metadata_props))
    }
    if results:
        found[RESULTS] = DictionaryAttr(results)
    graphs = {
        name: DictionaryAttr({"name": StringAttr(graph.name or ""), **notes(graph.doc_string, graph.metadata_props)})
        for name, graph in _subgraphs(node)
        if graph.name or graph.doc_string or graph.metadata_props
    }
    if graphs:
        found[SUBGRAPHS] = DictionaryAttr(graphs)
    return found


def _subgraphs(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield name, attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from ((f"{name}[{index}]", graph) for index, graph in enumerate(attribute.as_graphs()))


def add_notes(to: ir.Value | ir.Node | ir.Graph | ir.Function, said: Mapping[str, Attribute]) -> None:
    """Puts the doc string and the metadata among `said` where `notes` found them."""
    if doc := text_of(said.get(DOC)):
        to.doc_string = doc
    to.metadata_props.update(texts_of(said.get(METADATA)))


def node_location(node: ir.Node) -> NameLoc | UnknownLoc:
    """The location of the operation that stands for a node."""
    metadata = node.metadata_props if node.metadata_props else {}
    source = _source(metadata.get(_STACK_KEY) or node.doc_string or "")
    scope = _scope(metadata)
    inner = NameLoc(StringAttr(encode_text(scope)), source or NoneAttr()) if scope else source
    return named_location(node.name or "", inner)


def scope_of(op: Operation) -> str:
    """The name of the module of the model that an operation was traced in, or ""."""
    location = op.location.location if isinstance(op.location, NameLoc) else None
    return decode_text(location.desc.data) if isinstance(location, NameLoc) else ""


def source_of(op: Operation) -> str:
    """The line of source that an operation comes from and the module, "model.py:12, in layers.0"; "" if not known."""
    location = op.location
    while isinstance(location, NameLoc):
        location = location.location
    if not isinstance(location, FileLineColLoc):
        return ""
    line, scope = f"{location.filename.data}:{location.line.data}", scope_of(op)
    return f"{line}, in {scope}" if scope else line


def _scope(metadata: Mapping[str, str]) -> str:
    """The module that the scopes name; "" for the model itself. Other exporters write it into the namespace."""
    scopes = metadata.get(_SCOPES_KEY)
    return metadata.get(SCOPE_KEY, "") if scopes is None else _name_scopes(scopes)


@lru_cache(maxsize=4096)
def _name_scopes(text: str) -> str:
    """The innermost module of a list such as "['', 'features', 'features.0', 'conv2d']": its last name is the op's."""
    try:
        names = ast.literal_eval(text) if text else []
    except (SyntaxError, ValueError):
        return ""
    modules = names[:-1] if isinstance(names, list) else []
    return str(modules[-1]) if modules and modules[-1] != _NO_MODULE else ""


@lru_cache(maxsize=4096)
def _source(trace: str) -> FileLineColLoc | None:
    frames = _FRAME.findall(trace) if trace else []
    if not frames:
        return None
    path, line, short_path, short_line = frames[-1]
    return FileLineColLoc(StringAttr(relative_path(path or short_path)), IntAttr(int(line or short_line)), IntAttr(0))


def relative_path(path: str) -> str:
    """A path relative to the working directory or to the packages' folder, else the file's name alone."""
    pure = PurePath(path)
    for packages in _PACKAGES:
        if packages in pure.parts:
            return str(PurePath(*pure.parts[pure.parts.index(packages) + 1 :]))
    if not pure.is_absolute():
        return path
    return str(pure.relative_to(Path.cwd())) if pure.is_relative_to(Path.cwd()) else pure.name
