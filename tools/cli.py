"""What all commands share: exit codes, one message for an error, and machine-readable output.

    @command("gimlet-x")
    def gimlet_x(...): ...

    def main(args: Sequence[str] | None = None) -> NoReturn:
        run(gimlet_x, args)

Exit codes: 0 done, 1 the input cannot be compiled or run, 2 wrong usage, 3 a device or package is missing, 4 a check
failed, 5 infeasible, 70 a bug of ours (with a reproducer where there is one), 130 interrupted.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn, cast

import click

from gimlet import __version__
from gimlet.runtime.errors import GimletError

BUG = 70
INTERRUPTED = 130
USAGE = 2
JSON_FLAG = "--json"


class _Seconds(click.FloatRange):
    """A time above zero. What is no number at all, `nan`, is above nothing, but below nothing either."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


def command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Declares a command as all of them are: with -h, and with --version after its own options."""
    declare = click.command(name, context_settings={"help_option_names": ["-h", "--help"]})
    version = click.version_option(__version__, message=f"{name} %(version)s", help="Print the version and exit.")
    return lambda function: version(declare(function))


SEED = click.IntRange(min=0)
SECONDS = _Seconds(min=0, min_open=True)


def run(command: click.Command, args: Sequence[str] | None = None) -> NoReturn:
    """Runs a command on `args`, by default those of the process, and exits with the code that its outcome has."""
    given = list(sys.argv[1:] if args is None else args)
    with _Boundary(as_json=JSON_FLAG in given):
        # Without its standalone mode click returns the code of `ctx.exit(code)`, or what the command returns.
        code = command.main(given, prog_name=command.name, standalone_mode=False)
        sys.stdout.flush()
    sys.exit(code if isinstance(code, int) else 0)


def print_json(value: Any) -> None:
    """Prints one object for a program to read. What is infinite or no number is null: JSON has no word for it."""
    click.echo(json.dumps(_finite(value), indent=2, sort_keys=True, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Boundary:
    """Turns whatever leaves a command into a message and an exit code. No traceback reaches a user for codes 1 to 5."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        match error:
            case None | SystemExit():
                return
            case click.exceptions.Exit():
                sys.exit(error.exit_code)
            case click.ClickException():
                self.report({"error": "UsageError", "exit_code": USAGE, "message": error.format_message()}, error)
                sys.exit(USAGE)
            case click.Abort() | KeyboardInterrupt():
                click.echo("interrupted", err=True)
                sys.exit(INTERRUPTED)
            case GimletError():
                self.report(error.to_json(), error)
                sys.exit(error.exit_code)
            case BrokenPipeError():
                # Whoever read our output is gone: no message can reach them, and flushing at exit must not fail.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            case _:
                self.report_bug(error)
                sys.exit(BUG)

    def report(self, data: dict[str, object], error: GimletError | click.ClickException) -> None:
        """An error that the user can act on: a message, or an object where objects were asked for."""
        if self.as_json:
            print_json(data)
        elif isinstance(error, click.UsageError):
            error.show()
        else:
            text = error.format_message() if isinstance(error, click.ClickException) else str(error)
            click.echo(f"error: {text}", err=True)

    def report_bug(self, error: BaseException) -> None:
        """A bug: what it is in one line, and a file with the traceback."""
        command = getattr(error, "command", None)
        log = _write_traceback(error)
        if self.as_json:
            message = f"{type(error).__name__}: {error}"
            print_json({"error": "Bug", "exit_code": BUG, "message": message, "reproducer": command, "traceback": log})
            return
        click.echo(f"bug in gimlet: {type(error).__name__}: {error}", err=True)
        if command:
            click.echo(f"  reproduce it with: {command}", err=True)
        click.echo(f"  traceback: {log or 'could not be written'}", err=True)
        click.echo("  please report it with these files", err=True)


def _write_traceback(error: BaseException) -> str | None:
    with suppress(OSError), tempfile.NamedTemporaryFile("w", prefix="gimlet-bug-", suffix=".txt", delete=False) as file:
        file.write(f"{sys.argv}\n")
        traceback.print_exception(error, file=file)
        return file.name
    return None
