"""Files that a command writes: refused before the work where they cannot be written, else an error with its flag.

check_outputs({"--save-costs": path})
with writing(path, "--save-costs"):
    path.write_text(text)
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from gimlet.runtime.errors import InputError, UsageError


def check_outputs(paths: Mapping[str, Path | None]) -> None:
    """Refuses files, by the flag that names each, that could not be written after all the work. UsageError."""
    for flag, path in paths.items():
        if path is None:
            continue
        if path.is_dir():
            raise UsageError(f"{path} is a folder", where=flag, hint="name a file in it")
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent}", where=flag, hint="make it first")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UsageError(f"{path} may not be written", where=flag, hint="check the permissions, or write elsewhere")


def check_folder(path: Path | None, flag: str) -> None:
    """Refuses a folder, there already or to be made, that no file could be written into. UsageError."""
    if path is None:
        return
    there = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), path)
    if not there.is_dir():
        raise UsageError(f"{there} is a file", where=flag, hint="name a folder, or what is to be one")
    if not os.access(there, os.W_OK):
        raise UsageError(f"{there} may not be written", where=flag, hint="check the permissions, or write elsewhere")


@contextmanager
def writing(path: Path, flag: str) -> Generator[None]:
    """Turns a failure to write `path` into an InputError that names the flag. Half of a new file does not stay."""
    is_new = not path.exists()
    try:
        yield
    except OSError as error:
        if is_new:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        hint = "check the permissions, and that the disk has room"
        raise InputError(f"{path} cannot be written: {error.strerror}", where=flag, hint=hint) from None
