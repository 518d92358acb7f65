"""The source of a compile: opened once, imported for the compile, and run as the reference for `--verify`."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser
from xdsl.utils.exceptions import ParseError, VerifyException

from gimlet.compiler.frontends import load
from gimlet.compiler.frontends.python_callable import call_factory, looks_like_callable
from gimlet.compiler.weight_index import add_bundle_weights
from gimlet.compiler.weight_references import add_references, references_of
from gimlet.dialects import registry
from gimlet.dialects.context import GimletContext
from gimlet.dialects.reading import read_module
from gimlet.runtime.errors import InputError, UsageError
from gimlet.runtime.manifest import ModelInfo

IR_SUFFIX = ".mlir"


@dataclass(frozen=True)
class Source:
    """A model as the user gave it. `model` is a path, an `nn.Module`, an `ExportedProgram` or an ONNX model."""

    model: Any
    name: str
    origin: str
    args: Sequence[Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    dynamic_shapes: Any = None
    translations: Mapping[Any, Callable[..., Any]] | None = None
    overridable: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether the source is a path."""
        return isinstance(self.model, Path)

    @property
    def is_ir(self) -> bool:
        """Whether the source is IR that an earlier compile printed."""
        return isinstance(self.model, Path) and self.model.suffix == IR_SUFFIX

    def import_module(self, ctx: GimletContext, say: Callable[[str], None] = lambda line: None) -> ModuleOp:
        """The source as a module. `say` is told what was done on the way. Errors as those of the frontends."""
        if isinstance(self.model, Path) and self.is_ir:
            return _parse(self.model, ctx)
        return load(
            self.model,
            args=self.args,
            kwargs=self.kwargs,
            dynamic_shapes=self.dynamic_shapes,
            translations=self.translations,
            overridable=self.overridable,
            say=say,
            ctx=ctx,
        )

    def info(self, module: ModuleOp) -> ModelInfo:
        """How a manifest names the source: by the hash of the file, else of the IR that it was imported to."""
        if isinstance(self.model, Path):
            with self.model.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        else:
            digest = hashlib.sha256(str(module).encode()).hexdigest()
        return ModelInfo(self.name, self.origin, digest)


def open_source(
    model: Any,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    translations: Mapping[Any, Callable[..., Any]] | None = None,
) -> Source:
    """The source that `model` means: a path, `package.module:callable`, or an object that a frontend takes.

    UsageError where a path or callable does not exist.
    """
    if isinstance(model, str) and looks_like_callable(model):
        made, args, kwargs, dynamic_shapes = call_factory(model)
        return Source(made, model.rpartition(":")[2], model, args, kwargs, dynamic_shapes, translations)
    if not isinstance(model, str | Path):
        return Source(model, type(model).__name__, type(model).__name__, args, kwargs, dynamic_shapes, translations)
    path = Path(model)
    if not path.is_file():
        message = f"{path} is a folder, not a model" if path.is_dir() else f"there is no file {path}"
        raise UsageError(message, hint="a model is an .onnx, .pt2 or .mlir file, or package.module:callable")
    return Source(path, path.stem, path.name, args, kwargs, dynamic_shapes, translations)


def _parse(path: Path, ctx: GimletContext) -> ModuleOp:
    """IR from text. InputError with the place where it does not parse or verify."""
    load_dialects(ctx)
    try:
        module = read_module(Parser(ctx, path.read_text(), str(path)))
        module.verify()
    except UnicodeDecodeError as error:
        raise InputError("is not text in UTF-8, so no IR", where=str(path)) from error
    except (ParseError, VerifyException) as error:
        raise InputError(str(error), where=str(path), hint="gimlet-opt checks IR by itself") from error
    add_bundle_weights(path.parent, ctx)
    if references_of(path).is_file():
        add_references(references_of(path), ctx)
    return module


def load_dialects(ctx: GimletContext) -> None:
    """Registers our dialects and the two of xDSL's that our IR uses."""
    from xdsl.dialects.builtin import Builtin
    from xdsl.dialects.func import Func

    known = set(ctx.registered_dialect_names)
    for name, factory in {**registry.factories(), "builtin": lambda: Builtin, "func": lambda: Func}.items():
        if name not in known:
            ctx.register_dialect(name, factory)


def is_torch(model: Any) -> bool:
    """Whether a model is PyTorch's: an `nn.Module` or an `ExportedProgram`. Never imports PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module | torch.export.ExportedProgram)
