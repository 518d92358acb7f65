"""Arrays between commands and files: `NAME=FILE.npy`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from gimlet.runtime.errors import InputError, UsageError


def read_inputs(texts: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays that texts of the form NAME=FILE.npy name. No pickle is ever loaded.

    UsageError for another form or a file that is not there, InputError for one that holds no array.
    """
    found: dict[str, np.ndarray] = {}
    for text in texts:
        name, _, file = text.partition("=")
        if not name or not file:
            raise UsageError(f"cannot read {text!r}", where="--input", hint="write NAME=FILE.npy")
        if name in found:
            raise UsageError(f"input {name!r} is given twice", where="--input")
        path = Path(file)
        if not path.is_file():
            raise UsageError(f"there is no file {file}", where=f"--input {name}")
        try:
            found[name] = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise InputError(f"{file} holds no array: {error}", where=f"input {name!r}") from error
    return found


def write_outputs(folder: Path, outputs: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Writes each array to `folder`/NAME.npy, with '/' in a name as '_'. Returns the files by name.

    Types that numpy's format lacks (bfloat16, 8-bit floats) are written as float32, which holds all of their values.
    InputError where two names give one file, or the folder cannot be written.
    """
    files: dict[str, str] = {}
    for name in outputs:
        path = str(folder / f"{name.replace('/', '_')}.npy")
        if path in files.values():
            raise InputError(f"two outputs would both be {path}", where=f"output {name!r}")
        files[name] = path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in outputs.items():
            np.save(files[name], _storable(array), allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(folder)) from None
    return files


def _storable(array: np.ndarray) -> np.ndarray:
    if array.dtype.hasobject:
        return array.astype(str)
    return array.astype(np.float32) if array.dtype.kind == "V" else array
