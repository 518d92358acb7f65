"""gimlet-reduce: makes IR as small as it can be while a failure stays in it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from gimlet.runtime.errors import GimletError, UsageError
from gimlet.tools.cli import command, print_json, run

if TYPE_CHECKING:
    from gimlet.compiler.ir_text import Toolbox

PATH = click.Path(path_type=Path)
FILE = "{}"


@command("gimlet-reduce")
@click.argument("file", type=PATH)
@click.option("--test", metavar="CMD", help="A shell command that exits with 0 where the IR is still interesting.")
@click.option("-p", "--passes", metavar="PIPELINE", help="Interesting is where these passes fail in the same way.")
@click.option("-o", "--output", type=PATH, help="Where the result goes, as it gets smaller. Default: standard output.")
@click.option("--time-limit", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Stop after S seconds.")
@click.option(
    "--test-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds for one run of --test; one that takes longer is not interesting.",
)
@click.option("--allow-invalid", is_flag=True, help="Test IR that does not verify, too.")
@click.option("--allow-unregistered-dialect", is_flag=True, help="Read operations of dialects that are not known.")
@click.option("--load", type=PATH, multiple=True, metavar="FILE.py", help="A file with passes and dialects to know.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def gimlet_reduce(
    file: Path,
    test: str | None,
    passes: str | None,
    output: Path | None,
    time_limit: float | None,
    test_limit: float,
    load: tuple[Path, ...],
    *,
    allow_invalid: bool,
    allow_unregistered_dialect: bool,
    as_json: bool,
) -> None:
    """Shrink FILE while a failure stays in it.

    Say what the failure is either by --test, whose command gets the name of a file with IR in place of {}, or else as
    its last argument; or by -p, which runs passes in this process and keeps what makes them fail with the same
    exception from the same function.
    """
    from gimlet.compiler.ir_text import Toolbox, module_text, read_ir
    from gimlet.compiler.progress import Progress
    from gimlet.compiler.workbench.reducer import Reducer

    if (test is None) == (passes is None):
        raise click.UsageError("say what to look for: either --test CMD or -p PIPELINE")
    toolbox = Toolbox.of(load)
    module = read_ir(file, toolbox.context(allow_unregistered_dialect), verify=not allow_invalid)
    progress = Progress(quiet=as_json)
    look = _fails_alike(toolbox, passes, allow_unregistered_dialect) if passes else _command(test or "", test_limit)
    reducer = Reducer(
        look,
        allow_invalid,
        time_limit,
        progress.say,
        (lambda text: _write(output, text)) if output else (lambda text: None),
    )
    found = reducer.reduce(module)
    reduced = module_text(found)
    if output:
        _write(output, reduced)
    if as_json:
        before, after = (sum(1 for _ in item.walk()) - 1 for item in (module, found))
        outcome = {"complete": reducer.complete, "tests": reducer.tests, "ops_before": before, "ops_after": after}
        print_json(outcome | {"ir": reduced})
    elif not output:
        click.echo(reduced, nl=False)


def _write(path: Path, text: str) -> None:
    """All of the text or what was there before."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text)
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"the file cannot be written: {error.strerror or error}", where=str(path)) from error


_NOT_RUN = (126, 127)
"""What a shell exits with for a command that it does not find or may not run."""


def _command(command: str, limit_s: float) -> Callable[[str], bool]:
    """Whether the command exits with 0 on a file that holds the text."""

    def interesting(text: str) -> bool:
        with tempfile.TemporaryDirectory(prefix="gimlet-reduce-") as folder:
            path = Path(folder) / "reduced.mlir"
            path.write_text(text)
            name = shlex.quote(str(path))
            spelled = command.replace(FILE, name) if FILE in command else f"{command} {name}"
            code = _exit_code(spelled, limit_s)
            if code in _NOT_RUN:
                raise UsageError(f"there is no such command, or it cannot be run: {command}", where="--test")
            return code == 0

    return interesting


def _exit_code(command: str, limit_s: float) -> int | None:
    """The exit code of a shell command; None where it took too long and was stopped with all that it had started."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        ["bash", "-c", command], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    ) as process:
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _fails_alike(toolbox: Toolbox, pipeline: str, allow_unregistered: bool) -> Callable[[str], bool]:
    """Whether the passes fail on the text as they did on the first one: the same exception out of the same function."""
    from xdsl.utils.exceptions import DiagnosticException, ParseError

    from gimlet.compiler.diagnostics import BUGS
    from gimlet.compiler.ir_text import parse_text

    passes = toolbox.pipeline(pipeline)
    first: list[tuple[str, str]] = []

    def interesting(text: str) -> bool:
        ctx = toolbox.context(allow_unregistered)
        try:
            module = parse_text(text, "reduced.mlir", ctx)
        except (ParseError, DiagnosticException, *BUGS):
            return False
        try:
            for item in passes:
                item.apply(ctx, module)
                module.verify()
        except (DiagnosticException, GimletError, *BUGS) as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            found = type(error).__name__, f"{frame.filename}:{frame.name}"
            first.append(found)
            return first[0] == found
        return False

    return interesting


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The command's entry point."""
    run(gimlet_reduce, args)


if __name__ == "__main__":
    main()
