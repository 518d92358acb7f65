"""Bugs of our own, and the reproducers that they leave behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.printer import Printer


class CompilerBug(Exception):  # noqa: N818 - the field's word for it
    """A pass failed in a way that no input should be able to cause.

    `reproducer` is the file that holds the IR from before the pass; `command` runs the pass on it again.
    """

    def __init__(self, pipeline: str, cause: BaseException, reproducer: Path | None) -> None:
        super().__init__(f"{type(cause).__name__} in '{pipeline}': {cause}")
        self.reproducer = reproducer
        self.command = f"gimlet-opt {reproducer} -p '{pipeline}'" if reproducer else None


def write_reproducer(module: ModuleOp, pipeline: str) -> Path | None:
    """Writes the IR, and as its first line the command that runs `pipeline` on it. None where it cannot be written."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="gimlet-bug-", suffix=".mlir", delete=False) as file:
            file.write(f"// gimlet-opt {file.name} -p '{pipeline}'\n")
            Printer(stream=file).print_op(module)
            file.write("\n")
    except OSError:
        return None
    return Path(file.name)
