"""gimlet-opt: reads IR, runs passes on it, prints it. Takes every flag of xdsl-opt.

gimlet-opt FILE.mlir -p 'outline-segments{keep-schedule=true},insert-transfers'
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, ClassVar

from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser
from xdsl.passes import ModulePass
from xdsl.universe import Universe
from xdsl.utils.exceptions import ArgSpecParseError, DiagnosticException, ParseError, VerifyException
from xdsl.xdsl_opt_main import xDSLOptMain

from gimlet.compiler.diagnostics import CompilerBug, write_reproducer
from gimlet.dialects.context import GimletContext
from gimlet.dialects.universe import GIMLET_UNIVERSE
from gimlet.runtime.errors import GimletError

BUG_EXIT_CODE = 70
_INPUT_ERROR, _USAGE_ERROR = 1, 2
# What a pass raises only where it is wrong itself.
_BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_MARK = "Operation does not verify"
_LONGEST_LINE = 160


class GimletOptMain(xDSLOptMain):
    """xDSL's driver, with gimlet's dialects and passes, and a file that reproduces the failure where a pass breaks."""

    version_format: ClassVar[str] = "gimlet-opt built from xdsl version {xdsl_version}"

    def register_all_dialects(self) -> None:
        """Left to `setup_pipeline`: the context is made once it is known that there is something to do."""

    def register_all_passes(self) -> None:
        super().register_all_passes()
        self.available_passes.update(GIMLET_UNIVERSE.all_passes)

    def register_all_frontends(self) -> None:
        self.available_frontends["mlir"] = self._parse_mlir

    def setup_pipeline(self) -> None:
        super().setup_pipeline()
        self.ctx = GimletContext(self.ctx.allow_unregistered, services={"placement": _place})
        for name, factory in (Universe.get_multiverse().all_dialects | GIMLET_UNIVERSE.all_dialects).items():
            self.ctx.register_dialect(name, factory)

    def prepare_output(self) -> IO[str]:
        return sys.stdout if self.args.output_file is None else self._partial_output.open("w")

    @property
    def _partial_output(self) -> Path:
        """Where the output is written until it is complete."""
        return Path(f"{self.args.output_file}.partial")

    def _parse_mlir(self, source: IO[bytes]) -> ModuleOp:
        parser = Parser(self.ctx, source.read().decode(), self.get_input_name())
        try:
            return parser.parse_module(not self.args.no_implicit_module)
        except VerifyException as error:
            parser.raise_error(str(error), parser.pos, parser.pos)

    def apply_passes(self, prog: ModuleOp) -> None:
        passes = self.pipeline.passes
        self._between(None, prog, passes[0] if passes else None)
        for index, current in enumerate(passes):
            # A copy would be counted as time of the pass.
            before = None if self.args.time_passes else prog.clone()
            following = passes[index + 1] if index + 1 < len(passes) else None
            try:
                current.apply(self.ctx, prog)
            except _BUGS as error:
                raise _bug(before, current, error) from error
            try:
                self._between(current, prog, following)
            except VerifyException as error:
                if self.args.verify_diagnostics:
                    raise
                raise _bug(before, current, error) from error

    def _between(self, previous: ModulePass | None, prog: ModuleOp, following: ModulePass | None) -> None:
        if self.pipeline.callback is not None:
            self.pipeline.callback(previous, prog, following)

    def keep_output(self) -> None:
        """Puts the complete output where it belongs."""
        if self.args.output_file is not None:
            self._partial_output.replace(self.args.output_file)

    def drop_output(self) -> None:
        """Removes an output that is not complete."""
        if self.args.output_file is not None:
            self._partial_output.unlink(missing_ok=True)


def _bug(before: ModuleOp | None, current: ModulePass, error: Exception) -> CompilerBug:
    pipeline = str(current.pipeline_pass_spec())
    return CompilerBug(pipeline, error, None if before is None else write_reproducer(before, pipeline))


def _place(module: ModuleOp, ctx: GimletContext, **options: Any) -> None:
    """The placement service, loaded when a pass asks for it: its solver takes longer to import than most runs take."""
    from gimlet.compiler.placement.service import make_service

    make_service()(module, ctx, **options)


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"gimlet-opt: {message.rstrip()}\n")
    return code


def _diagnosis(error: DiagnosticException) -> str:
    """The message, and the operation that it is about where xDSL says which."""
    lines = "\n".join(getattr(error, "__notes__", [])).splitlines()
    marked = next((index for index, line in enumerate(lines) if _MARK in line), None)
    if marked is None or marked < 2:
        return f"error: {error}"
    operation = lines[marked - 2].strip()
    if len(operation) > _LONGEST_LINE:
        operation = f"{operation[:_LONGEST_LINE]}…"
    return f"error: {error}\n  in: {operation}"


def _report_bug(error: BaseException) -> int:
    text = f"bug: {error if isinstance(error, CompilerBug) else f'{type(error).__name__}: {error}'}"
    if isinstance(error, CompilerBug) and error.command:
        text += f"\n  reproduce it with: {error.command}"
    return _fail(text, BUG_EXIT_CODE)


def _run(tool: GimletOptMain) -> int:
    try:
        tool.run()
        tool.keep_output()
    except ParseError as error:
        return _fail(f"error: {error}", _INPUT_ERROR)
    except UnicodeDecodeError as error:
        return _fail(f"error: {tool.get_input_name()} is not text: {error}", _INPUT_ERROR)
    except DiagnosticException as error:
        return _fail(_diagnosis(error), _INPUT_ERROR)
    except GimletError as error:
        return _fail(f"error: {error}", error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _INPUT_ERROR
    except OSError as error:
        return _fail(f"error: {error.strerror}: {error.filename}", _USAGE_ERROR)
    except (CompilerBug, *_BUGS) as error:
        return _report_bug(error)
    return 0


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command with `args`, those of the process by default, and exits with its code."""
    try:
        tool = GimletOptMain("gimlet's IR: read it, run passes on it, print it", args)
    except (ArgSpecParseError, ValueError) as error:
        sys.exit(_fail(f"error: {error}\n  hint: gimlet-opt --help lists the passes", _USAGE_ERROR))
    code = _run(tool)
    if code:
        with suppress(OSError):
            tool.drop_output()
    sys.exit(code)


if __name__ == "__main__":
    main()
