"""ONNX models: read from a file, checked, and imported."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from google.protobuf.json_format import ParseError as JsonParseError
from google.protobuf.message import DecodeError
from google.protobuf.text_format import ParseError as TextParseError
from onnx_ir.serde import SerdeError
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import VerifyException

from gimlet.compiler.frontends.onnx_check import check_proto
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.defaults import default_weights
from gimlet.dialects.onnx.importer import import_model
from gimlet.dialects.onnx.proto import from_proto as model_from_proto
from gimlet.passes.entry import entry_function
from gimlet.runtime.errors import InputError, UsageError

if TYPE_CHECKING:
    from gimlet.dialects.context import GimletContext

# What `onnx_ir` raises for a protobuf that it cannot make sense of.
_UNREADABLE = (SerdeError, ValueError, TypeError, LookupError, AttributeError, OverflowError, NotImplementedError)
_PARSE_ERRORS = (DecodeError, JsonParseError, TextParseError, UnicodeDecodeError, onnx.parser.ParseError)


def read_onnx(path: Path) -> tuple[ir.Model, tuple[Path, ...]]:
    """The model in a file, and the folders that its external data may be in. The data itself is not read.

    InputError for a file that is empty, cut short or not ONNX.
    """
    if path.stat().st_size == 0:
        raise InputError("the file is empty", where=str(path), hint="export or download the model again")
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except _PARSE_ERRORS as error:
        raise InputError(
            "the file is not an ONNX model, or is cut short", where=str(path), hint="export or download the model again"
        ) from error
    model = from_proto(proto, str(path))
    ir.external_data.set_base_dir(model.graph, path.parent)
    # A download cache keeps files elsewhere and links to them: data may lie where the model itself really is.
    return model, (path.resolve().parent,) if path.is_symlink() else ()


def from_proto(proto: onnx.ModelProto, where: str) -> ir.Model:
    """The model of a protobuf. InputError if it is not a whole model, or has something that cannot be represented."""
    if not proto.HasField("graph"):
        raise InputError("there is no graph in it: it is not an ONNX model", where=where, hint="export the model again")
    if not proto.opset_import:
        raise InputError(
            "the model does not say which opset it is for",
            where=where,
            hint="it is cut short, or too old: export it again",
        )
    check_proto(proto)
    try:
        return model_from_proto(proto)
    except _UNREADABLE as error:
        reason = str(_cause(error)).strip().partition("\n")[0]
        raise InputError(
            f"the model cannot be read: {reason}", where=where, hint="check it with onnx.checker"
        ) from error


def _cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def to_module(
    model: ir.Model, ctx: GimletContext, data_roots: Iterable[Path] = (), overridable: str | None = None
) -> ModuleOp:
    """The verified module of a model, with `overridable` as for `import_model`.

    InputError names the first node that does not fit its operator's schema; UsageError for a wrong `overridable`.
    """
    try:
        module = import_model(model, ctx, data_roots=data_roots, overridable=overridable)
    except re.error as error:
        message = f"{overridable!r} is not a regular expression: {error}"
        raise UsageError(message, where="--overridable") from None
    default_weights(entry_function(module), ctx)
    check(module)
    return module


def check(module: ModuleOp) -> None:
    """Verifies every operation. InputError names the first bad node, where xDSL would list the whole module."""
    for op in module.walk():
        try:
            op.verify(verify_nested_ops=False)
        except VerifyException as error:
            reason = _cause(error)
            name = op.node_name if isinstance(op, OnnxOp) else ""
            raise InputError(
                str(reason).strip().partition("\n")[0],
                where=f"node {name!r}" if name else op.name,
                hint="the model is not valid at the opset that it imports",
            ) from None
