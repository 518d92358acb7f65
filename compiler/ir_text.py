"""IR as text, for tools: the context that it is read in, reading, and writing."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Dialect
from xdsl.parser import Parser
from xdsl.passes import ModulePass, PassPipeline
from xdsl.printer import Printer
from xdsl.universe import Universe
from xdsl.utils.exceptions import ArgSpecParseError, ParseError, VerifyException

from gimlet.compiler.plugins import Plugin, load_plugin
from gimlet.dialects.context import GimletContext
from gimlet.dialects.reading import read_module
from gimlet.dialects.universe import GIMLET_UNIVERSE
from gimlet.runtime.errors import InputError, UsageError


@dataclass(frozen=True)
class Toolbox:
    """The passes and dialects that there are: gimlet's, those of installed packages, and those of files."""

    passes: dict[str, Callable[[], type[ModulePass]]]
    dialects: dict[str, Callable[[], Dialect]]

    @staticmethod
    def of(files: Sequence[Path] = ()) -> Toolbox:
        """All of them. Errors as those of `load_plugin`."""
        universe = Universe.get_multiverse()
        found = Toolbox(
            universe.all_passes | GIMLET_UNIVERSE.all_passes, universe.all_dialects | GIMLET_UNIVERSE.all_dialects
        )
        for path in files:
            found = found.with_plugin(load_plugin(path))
        return found

    def with_plugin(self, plugin: Plugin) -> Toolbox:
        """These, and those of a plug-in, which win."""
        return Toolbox(
            self.passes | {name: partial(_same, item) for name, item in plugin.passes.items()},
            self.dialects | {name: partial(_same, item) for name, item in plugin.dialects.items()},
        )

    def context(self, allow_unregistered: bool = False) -> GimletContext:
        """A context that knows the dialects and provides the placement solver to passes."""
        ctx = GimletContext(allow_unregistered, services={"placement": _place})
        for name, factory in self.dialects.items():
            ctx.register_dialect(name, factory)
        return ctx

    def pipeline(self, text: str) -> tuple[ModulePass, ...]:
        """The passes that `text` spells. UsageError where it spells none."""
        try:
            return PassPipeline.parse_spec(self.passes, text).passes
        except (ArgSpecParseError, ValueError) as error:
            raise UsageError(str(error), where="passes", hint="gimlet-opt --list-passes prints them") from error


def _same(found: Any) -> Any:
    return found


def _place(module: ModuleOp, ctx: GimletContext, **options: Any) -> None:
    """The placement service, loaded when a pass asks for it: its solver takes longer to import than most runs take."""
    from gimlet.compiler.placement.service import make_service

    make_service()(module, ctx, **options)


def parse_text(text: str, name: str, ctx: GimletContext) -> ModuleOp:
    """The module that `text` is, not yet verified. ParseError with the place where it is none."""
    parser = Parser(ctx, text, name)
    try:
        return read_module(parser)
    except VerifyException as error:
        # An attribute or a type that does not hold what it may.
        parser.raise_error(str(error), parser.pos, parser.pos)


def read_ir(path: Path, ctx: GimletContext, *, verify: bool = True) -> ModuleOp:
    """The module in a file. UsageError where there is none, InputError where it is no IR or does not verify."""
    try:
        text = path.read_text()
    except OSError as error:
        raise UsageError(f"the file cannot be read: {error.strerror or error}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError(f"the file is not text: {error}", where=str(path)) from error
    try:
        module = parse_text(text, str(path), ctx)
        if verify:
            module.verify()
    except (ParseError, VerifyException) as error:
        raise InputError(str(error), where=str(path), hint="gimlet-opt checks IR by itself") from error
    return module


def module_text(module: ModuleOp) -> str:
    """The IR as text, ending in a newline."""
    stream = io.StringIO()
    Printer(stream=stream).print_op(module)
    return stream.getvalue() + "\n"
