"""Bugs of our own, and the reproducers that they leave behind."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.printer import Printer
from xdsl.utils.exceptions import DiagnosticException

from gimlet.compiler.weight_references import write_references
from gimlet.dialects.context import GimletContext

# Of weights that no file has, a reproducer has this much.
_MOST_WEIGHT_BYTES = 64 << 20
BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a pass raises only where it is wrong itself."""


class CompilerBug(Exception):  # noqa: N818 - the field's word for it
    """A pass failed in a way that no input should be able to cause.

    `reproducer` is the file that holds the IR to start from; `command` runs the pass on it again.
    """

    def __init__(
        self, pipeline: str, cause: BaseException, reproducer: Path | None = None, flags: Sequence[str] = ()
    ) -> None:
        super().__init__(f"{type(cause).__name__} in '{pipeline}': {cause}")
        self.reproducer = reproducer
        self.command = command_text(reproducer, pipeline, flags) if reproducer else None


def bug_of(
    start: ModuleOp, ctx: Context, passes: Sequence[ModulePass], cause: Exception, flags: Sequence[str] = ()
) -> CompilerBug:
    """The bug that the last of `passes` has, which all ran in turn on `start` before it raised `cause`.

    To copy the IR before each pass would cost more than many passes do. Instead the passes run once more, and the
    reproducer is the IR before the last one; where that pass alone does not fail in the same way again, the
    reproducer is `start` with all of the passes. `flags` are further flags that gimlet-opt needs. `start` is changed.
    """
    last = str(passes[-1].spec())
    whole = ",".join(str(item.spec()) for item in passes)
    path, with_weights = _reproducer(start.clone(), ctx, whole, flags)
    before = _replayed(start, ctx.clone(), passes[:-1])
    if before is None or not _fails(before.clone(), ctx.clone(), passes[-1], cause):
        return CompilerBug(whole, cause, path, with_weights)
    for file in [] if path is None else [path, *(path.with_suffix(suffix) for suffix in (".json", ".bin"))]:
        file.unlink(missing_ok=True)
    return CompilerBug(last, cause, *_reproducer(before, ctx, last, flags))


def command_text(path: Path, pipeline: str, flags: Sequence[str] = ()) -> str:
    """The shell command that runs `pipeline` on the IR in `path`."""
    return shlex.join(["gimlet-opt", str(path), *flags, "-p", pipeline])


def _reproducer(
    module: ModuleOp, ctx: Context, pipeline: str, flags: Sequence[str]
) -> tuple[Path | None, Sequence[str]]:
    """Writes the IR, with the command that runs `pipeline` on it as its first line, and where its weights are.

    Returns the file and the flags of the command; None for the file where it cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile("w", prefix="gimlet-bug-", suffix=".mlir", delete=False) as file:
            path = Path(file.name)
            references = path.with_suffix(".json")
            if isinstance(ctx, GimletContext) and write_references(module, ctx.weights, references, _MOST_WEIGHT_BYTES):
                flags = [*flags, "--weights", str(references)]
            file.write(f"// {command_text(path, pipeline, flags)}\n")
            Printer(stream=file).print_op(module)
            file.write("\n")
    except OSError:
        return None, flags
    return path, flags


def _replayed(module: ModuleOp, ctx: Context, passes: Sequence[ModulePass]) -> ModuleOp | None:
    """The module after `passes`; None where they do not get through this time."""
    try:
        for item in passes:
            item.apply(ctx, module)
    except (*BUGS, DiagnosticException):
        return None
    return module


def _fails(module: ModuleOp, ctx: Context, item: ModulePass, cause: Exception) -> bool:
    try:
        item.apply(ctx, module)
        module.verify()
    except (*BUGS, DiagnosticException) as error:
        return type(error) is type(cause)
    return False
