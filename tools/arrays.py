"""Arrays between commands and files: `NAME=FILE.npy`."""

from __future__ import annotations

from collections.abc import Iterable
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
