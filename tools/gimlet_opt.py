"""gimlet-opt: reads IR, runs passes on it, prints it. Takes every flag of xdsl-opt, and has some of its own.

gimlet-opt FILE.mlir -p 'outline-segments{keep-schedule=true},insert-transfers' --timing --dump-ir dump
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, ClassVar

from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import ArgSpecParseError, DiagnosticException, ParseError, VerifyException
from xdsl.xdsl_opt_main import xDSLOptMain

from gimlet import __version__
from gimlet.compiler.diagnostics import BUGS, CompilerBug, bug_of
from gimlet.compiler.instruments import DumpIr, Instrument, Statistics, Timing, observe
from gimlet.compiler.ir_text import Toolbox
from gimlet.compiler.weight_references import add_references
from gimlet.dialects.reading import read_module
from gimlet.dialects.universe import GIMLET_UNIVERSE
from gimlet.passes.registry import PASSES
from gimlet.runtime.errors import GimletError, UsageError
from gimlet.tools.files import check_folder
from gimlet.tools.pass_list import pass_list, pass_page

BUG_EXIT_CODE = 70
_INPUT_ERROR, _USAGE_ERROR = 1, 2
_MARK = "Operation does not verify"
_LONGEST_LINE = 160
_MODELS = (".onnx", ".pt2")


class GimletOptMain(xDSLOptMain):
    """xDSL's driver, with gimlet's dialects and passes, plug-ins, instruments, and a reproducer where a pass breaks."""

    version_format: ClassVar[str] = f"gimlet-opt built from xdsl version {{xdsl_version}}, gimlet {__version__}"

    def register_all_arguments(self, arg_parser: argparse.ArgumentParser) -> None:
        super().register_all_arguments(arg_parser)
        own = arg_parser.add_argument_group("gimlet's own")
        own.add_argument("--load", type=Path, action="append", default=[], metavar="FILE.py", help=_HELP["load"])
        own.add_argument(
            "--weights", type=Path, action="append", default=[], metavar="FILE.json", help=_HELP["weights"]
        )
        own.add_argument("--list-passes", nargs="?", const="", metavar="NAME", help=_HELP["list_passes"])
        own.add_argument("--timing", action="store_true", help=_HELP["timing"])
        own.add_argument("--statistics", action="store_true", help=_HELP["statistics"])
        own.add_argument("--dump-ir", type=Path, metavar="DIR", help=_HELP["dump_ir"])
        own.add_argument("--dump-ir-changed", action="store_true", help=_HELP["dump_ir_changed"])

    def register_all_dialects(self) -> None:
        """Left to `setup_pipeline`: the context is made once it is known that there is something to do."""

    def register_all_passes(self) -> None:
        super().register_all_passes()
        self.available_passes.update(GIMLET_UNIVERSE.all_passes)

    def register_all_frontends(self) -> None:
        self.available_frontends["mlir"] = self._parse_mlir

    def setup_pipeline(self) -> None:
        toolbox = Toolbox.of(self.args.load)
        self.available_passes.update(toolbox.passes)
        super().setup_pipeline()
        self.ctx = toolbox.context(self.ctx.allow_unregistered)
        for path in self.args.weights:
            add_references(path, self.ctx)
        self.instruments: list[Instrument] = []
        if self.args.timing:
            self.instruments.append(Timing())
        if self.args.statistics:
            self.instruments.append(Statistics())
        check_folder(self.args.dump_ir, "--dump-ir")
        if self.args.dump_ir is not None:
            self.instruments.append(DumpIr(self.args.dump_ir, only_changed=self.args.dump_ir_changed))

    def prepare_output(self) -> IO[str]:
        return sys.stdout if self.args.output_file is None else self._partial_output.open("w")

    @property
    def _partial_output(self) -> Path:
        """Where the output is written until it is complete."""
        return Path(f"{self.args.output_file}.partial")

    def get_input_stream(self) -> tuple[IO[bytes], str]:
        stream, extension = super().get_input_stream()
        if extension in self.available_frontends or self.args.frontend:
            return stream, extension
        stream.close()
        name = self.get_input_name()
        model = name.endswith(_MODELS)
        hint = f"gimlet-compile {name} --to import prints its IR" if model else "call it .mlir, or add --frontend mlir"
        raise UsageError(f"{name} is not a file of IR", hint=hint)

    def parse_chunk(self, chunk: IO[bytes], file_extension: str, start_offset: int = 0) -> ModuleOp | None:
        # Kept for a reproducer: a copy of the text costs less than one of the IR.
        self._text, self._extension = chunk.read(), file_extension
        return super().parse_chunk(BytesIO(self._text), file_extension, start_offset)

    def _parse_mlir(self, source: IO[bytes]) -> ModuleOp:
        parser = Parser(self.ctx, source.read().decode(), self.get_input_name())
        try:
            return read_module(parser, implicit=not self.args.no_implicit_module)
        except VerifyException as error:
            parser.raise_error(str(error), parser.pos, parser.pos)

    def apply_passes(self, prog: ModuleOp) -> None:
        passes = self.pipeline.passes
        self._between(None, prog, passes[0] if passes else None)
        for index, current in enumerate(passes):
            following = passes[index + 1] if index + 1 < len(passes) else None
            apply, check = partial(current.apply, self.ctx, prog), partial(self._between, current, prog, following)
            try:
                observe(current.name, prog, apply, check, self.instruments)
            except VerifyException as error:
                if self.args.verify_diagnostics:
                    raise
                raise self._bug(index, error) from error
            except BUGS as error:
                raise self._bug(index, error) from error

    def _between(self, previous: ModulePass | None, prog: ModuleOp, following: ModulePass | None) -> None:
        if self.pipeline.callback is not None:
            self.pipeline.callback(previous, prog, following)

    def _bug(self, index: int, error: Exception) -> CompilerBug:
        """The bug of the pass at `index`, which failed on the input that was read last."""
        passes = self.pipeline.passes[: index + 1]
        flags = [text for path in self.args.load for text in ("--load", str(path))]
        if self.args.allow_unregistered_dialect:
            flags.append("--allow-unregistered-dialect")
        module = super().parse_chunk(BytesIO(self._text), self._extension)
        if module is None:
            return CompilerBug(",".join(str(item.spec()) for item in passes), error)
        return bug_of(module, self.ctx, passes, error, flags)

    def report(self) -> None:
        """Prints what the instruments found out, on standard error."""
        for instrument in self.instruments:
            sys.stderr.write(instrument.report())

    def keep_output(self) -> None:
        """Puts the complete output where it belongs."""
        if self.args.output_file is not None:
            self._partial_output.replace(self.args.output_file)

    def drop_output(self) -> None:
        """Removes an output that is not complete."""
        if self.args.output_file is not None:
            self._partial_output.unlink(missing_ok=True)


_HELP: dict[str, str] = {
    "load": "a Python file whose passes and dialects are to be known; several times for several",
    "weights": "where the IR's weights are, as a reproducer says it; several times for several",
    "list_passes": "print every pass with its options and what it does, or all about one of them, and exit",
    "timing": "print the seconds of each pass and of the verifier, and the number of operations",
    "statistics": "print what each pass made, erased and changed",
    "dump_ir": "write the IR before the first pass and after each into this folder",
    "dump_ir_changed": "with --dump-ir, leave out what a pass did not change",
}


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
        if tool.args.list_passes is not None:
            name = tool.args.list_passes
            passes = tool.available_passes
            sys.stdout.write(pass_page(passes, name) if name else pass_list(passes, PASSES))
            return 0
        tool.run()
        tool.keep_output()
        tool.report()
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
    except (CompilerBug, *BUGS) as error:
        return _report_bug(error)
    return 0


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command with `args`, those of the process by default, and exits with its code."""
    try:
        tool = GimletOptMain("gimlet's IR: read it, run passes on it, print it", args)
    except GimletError as error:
        sys.exit(_fail(f"error: {error}", error.exit_code))
    except (ArgSpecParseError, ValueError) as error:
        sys.exit(_fail(f"error: {error}\n  hint: gimlet-opt --list-passes prints them", _USAGE_ERROR))
    if tool.args.input_file == "-":
        tool.args.input_file = None
    code = _run(tool)
    if code:
        with suppress(OSError):
            tool.drop_output()
    sys.exit(code)


if __name__ == "__main__":
    main()
