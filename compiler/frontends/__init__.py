"""From what a user has to a module of the onnx dialect: ONNX files, PyTorch programs and modules, and functions.

    load("model.onnx", ctx=ctx)
    load("model.pt2", ctx=ctx)
    load("examples.minilm:encoder", ctx=ctx)
    load(module, args=(x,), dynamic_shapes={"x": {0: batch}}, ctx=ctx)

PyTorch is imported only for what needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from xdsl.dialects.builtin import ModuleOp

from gimlet.compiler.collection import rare_collection
from gimlet.compiler.frontends.onnx_model import from_proto, read_onnx, to_module
from gimlet.compiler.frontends.python_callable import call_factory, looks_like_callable
from gimlet.passes.stale_shapes import forget_stale_shapes, say_stale
from gimlet.runtime.errors import UsageError

if TYPE_CHECKING:
    from gimlet.dialects.context import GimletContext

_ONNX_SUFFIXES = {".onnx", ".onnxtxt", ".textproto", ".json"}
_SOURCES = "an .onnx or .pt2 file, or package.module:callable"


@rare_collection()
def load(
    source: Any,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    translations: Mapping[Any, Callable[..., Any]] | None = None,
    overridable: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    ctx: GimletContext,
) -> ModuleOp:
    """The module of a model: a path, `package.module:callable`, `nn.Module`, `ExportedProgram` or ONNX model.

    `args`, `kwargs` and `dynamic_shapes` are example inputs and shapes as `torch.export.export` takes them, for an
    `nn.Module`; its attribute `dim_bounds`, if it has one, gives dimensions by name their minimum, optimum and
    maximum. `translations` are functions of ONNX operators by PyTorch operator, as the `custom_translation_table` of
    torch.onnx.export takes them. `overridable` says which inputs of an ONNX model that have initializers stay inputs,
    as for `import_model`. `say` is told in one line what was done that a user would want to know.

    UsageError for a source that does not exist, InputError for one that cannot be compiled.
    """
    module = _imported(source, args, kwargs, dynamic_shapes, translations, overridable, say, ctx)
    if module is source:
        return module
    say_stale(forget_stale_shapes(module), say)
    return module


def _imported(
    source: Any,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
    translations: Mapping[Any, Callable[..., Any]] | None,
    overridable: str | None,
    say: Callable[[str], None],
    ctx: GimletContext,
) -> ModuleOp:
    if isinstance(source, str | Path):
        source = _open(source)
        if isinstance(source, tuple):
            source, args, kwargs, dynamic_shapes = source
    if isinstance(source, Path):
        model, roots = read_onnx(source)
        return to_module(model, ctx, roots, overridable)
    if isinstance(source, ModuleOp):
        return source
    if isinstance(source, ir.Model):
        return to_module(source, ctx, overridable=overridable)
    if type(source).__name__ == "ModelProto":
        return to_module(from_proto(source, "the model"), ctx, overridable=overridable)
    if "torch" not in sys.modules:
        raise UsageError(f"a {type(source).__name__} is not a model", hint=f"give {_SOURCES}, or an nn.Module")
    from gimlet.compiler.frontends import pytorch

    return pytorch.import_model(source, ctx, args, kwargs, dynamic_shapes, translations, say)


def _open(source: str | Path) -> Any:
    """The path of an ONNX file, the program of a .pt2 file, or what a callable returns."""
    if isinstance(source, str) and looks_like_callable(source):
        return call_factory(source)
    path = Path(source)
    if not path.exists():
        raise UsageError(f"there is no file {path}", hint=f"a model is {_SOURCES}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a model", hint=f"a model is {_SOURCES}")
    if path.suffix == ".pt2":
        from gimlet.compiler.frontends.pt2_file import read_pt2

        return read_pt2(path)
    if path.suffix not in _ONNX_SUFFIXES:
        raise UsageError(f"{path.name} is not a kind of model that gimlet knows", hint=f"a model is {_SOURCES}")
    return path
