"""Values between commands and files: `NAME=FILE.npy`, and `NAME=FILE.npz` for what is no tensor.

A member of an .npz archive is a tensor, named by its path in the value: `0`, `1`, … are the items of a sequence, `keys`
and `values` the parts of a map; `empty` says that a sequence has no items, and `none` that an optional has no value. An
item's own parts follow behind a slash: `0/keys`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from gimlet.runtime.errors import InputError, UsageError

_NONE, _EMPTY = "none", "empty"
_MAGIC = b"\x93NUMPY"
_ARRAY_HINT = "write it with numpy.save, as numbers or flags"
_MAP = {"keys", "values"}


def read_inputs(texts: Iterable[str], flag: str = "--input") -> dict[str, Any]:
    """The values that texts of the form NAME=FILE.npy or NAME=FILE.npz name. No pickle is ever loaded.

    UsageError, which names the flag, for another form or a file that is not there, InputError for one that holds no
    array.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, _, file = text.partition("=")
        if not name or not file:
            raise UsageError(f"cannot read {text!r}", where=flag, hint="write NAME=FILE.npy, or NAME=FILE.npz")
        if name in found:
            raise UsageError(f"input {name!r} is given twice", where=flag)
        path = Path(file)
        if not path.is_file():
            what = f"{file} is a folder, not a file" if path.is_dir() else f"there is no file {file}"
            raise UsageError(what, where=f"{flag} {name}", hint="numpy.save writes such a file")
        try:
            found[name] = _read(path)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{file} holds no array: {_reason(path, error)}", where=f"input {name!r}", hint=_ARRAY_HINT
            ) from error
    return found


def _reason(path: Path, error: Exception) -> str:
    """Why a file was not read. numpy takes what it does not know for a pickle, and says how to load that."""
    if "pickle" not in str(error):
        return str(error)
    with path.open("rb") as file:
        known = file.read(len(_MAGIC)) == _MAGIC
    return "its elements are Python objects" if known else "it is no .npy or .npz file"


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return _assembled({name: loaded[name] for name in loaded.files})


def _assembled(members: Mapping[str, np.ndarray]) -> Any:
    """The value of an archive's members by their paths. ValueError where they are of no value."""
    if set(members) == {""}:
        return members[""]
    if set(members) == {_NONE}:
        return None
    if set(members) == {_EMPTY}:
        return []
    if set(members) == _MAP:
        return dict(zip(members["keys"].tolist(), members["values"].tolist(), strict=True))
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, array in members.items():
        index, _, rest = name.partition("/")
        parts.setdefault(index, {})[rest] = array
    indices = [str(index) for index in range(len(parts))]
    if not parts or set(parts) != set(indices):
        raise ValueError(f"{', '.join(sorted(members)) or 'no members'} are the parts of no sequence, optional or map")
    return [_assembled(parts[index]) for index in indices]


def _members(value: Any, path: str = "") -> dict[str, np.ndarray]:
    """A value's tensors by their paths, as `_assembled` reads them."""
    inside = f"{path}/" if path else ""
    if value is None or (isinstance(value, list) and not value):
        return {f"{inside}{_NONE if value is None else _EMPTY}": np.zeros(0)}
    if isinstance(value, dict):
        table = cast("dict[Any, Any]", value)
        return {f"{inside}keys": np.array(list(table)), f"{inside}values": np.array(list(table.values()))}
    if not isinstance(value, list):
        return {path: _storable(value)}
    found: dict[str, np.ndarray] = {}
    for index, item in enumerate(cast("list[Any]", value)):
        found |= _members(item, f"{inside}{index}")
    return found


def write_outputs(folder: Path, outputs: Mapping[str, Any]) -> dict[str, str]:
    """Writes each array to `folder`/NAME.npy, with '/' in a name as '_', and what is no array to NAME.npz.

    Returns the files by name.

    Types that numpy's format lacks (bfloat16, 8-bit floats) are written as float32, which holds all of their values.
    InputError where two names give one file, or the folder cannot be written.
    """
    files: dict[str, str] = {}
    for name, value in outputs.items():
        path = str(folder / f"{name.replace('/', '_')}{'.npy' if isinstance(value, np.ndarray) else '.npz'}")
        if path in files.values():
            raise InputError(f"two outputs would both be {path}", where=f"output {name!r}")
        files[name] = path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in outputs.items():
            if isinstance(value, np.ndarray):
                np.save(files[name], _storable(value), allow_pickle=False)
            else:
                _write_archive(files[name], _members(value))
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(folder)) from None
    return files


def _write_archive(path: str, members: Mapping[str, np.ndarray]) -> None:
    """An .npz archive. numpy's own writer takes the names for keywords, of which some are its own."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def _storable(array: np.ndarray) -> np.ndarray:
    if array.dtype.hasobject:
        return array.astype(str)
    return array.astype(np.float32) if array.dtype.kind == "V" else array
