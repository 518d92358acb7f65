"""Programs that `torch.export.save` wrote.

Loading one must not run its code: PyTorch reads parts of the file as pickles, which may name any function. All pickles
are therefore read with the restricted reader, and files that hold others kinds of objects are refused.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from gimlet.compiler.frontends.quiet import quiet_torch
from gimlet.runtime.errors import InputError, MissingError

_RESTRICTED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
# Parts of an archive that PyTorch reads with an unrestricted pickle, or runs.
_REFUSED = {
    "/data/constants/custom_obj_": "an object of a custom class",
    "/data/constants/opaque_": "a Python object",
    "/data/aotinductor/": "compiled code",
}

_TRANSFORMERS = b"torch.ops.transformers."


def read_pt2(path: Path) -> Any:
    """The `ExportedProgram` in a file. InputError if it is no such file, or loading it would run its code."""
    _refuse_objects(path)
    _register_operators(path)
    try:
        from torch.export.pt2_archive._package import load_pt2
    except ImportError as error:
        raise MissingError("a .pt2 file needs PyTorch", where=str(path), hint="pip install torch") from error
    try:
        with _restricted_pickles(), quiet_torch():
            programs = load_pt2(str(path)).exported_programs
    except pickle.UnpicklingError as error:
        raise InputError(
            "loading it needs an unrestricted pickle, which could run any code",
            where=str(path),
            hint="save it again with example inputs that are plain tensors, numbers, lists and dicts",
        ) from error
    except (RuntimeError, ValueError, KeyError, AssertionError, OSError) as error:
        raise InputError(
            f"the program cannot be loaded: {str(error).partition(chr(10))[0]}",
            where=str(path),
            hint="save it again with the PyTorch that is installed here",
        ) from error
    if "model" not in programs:
        raise InputError("there is no program in the file", where=str(path), hint="write it with torch.export.save")
    return programs["model"]


def _refuse_objects(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise InputError(
            "the file is not an exported program, or is cut short",
            where=str(path),
            hint="write it with torch.export.save",
        ) from error
    if not any("/models/" in f"/{name}" for name in names):
        raise InputError(
            "the archive holds no exported program that this PyTorch reads",
            where=str(path),
            hint="write it with torch.export.save; torch.save and torch.jit.save make other files",
        )
    for name in names:
        for part, what in _REFUSED.items():
            if part in f"/{name}":
                raise InputError(
                    f"it holds {what} ({name}), and loading that would run its code",
                    where=str(path),
                    hint="export a program without custom objects",
                )


def _register_operators(path: Path) -> None:
    """Imports transformers where the program calls an operator that it registers: PyTorch would not know it."""
    with zipfile.ZipFile(path) as archive:
        programs = [name for name in archive.namelist() if name.endswith(".json") and "/models/" in f"/{name}"]
        if not any(_TRANSFORMERS in archive.read(name) for name in programs):
            return
    try:
        import_module("transformers.integrations.moe")
    except ImportError as error:
        message = "the program calls an operator of transformers"
        raise MissingError(message, where=str(path), hint="pip install transformers") from error


@contextmanager
def _restricted_pickles() -> Generator[None]:
    before = os.environ.get(_RESTRICTED)
    os.environ[_RESTRICTED] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_RESTRICTED]
        else:
            os.environ[_RESTRICTED] = before
