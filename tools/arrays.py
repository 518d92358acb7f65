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
from gimlet.runtime.manifest import Manifest
from gimlet.runtime.random_inputs import random_inputs
from gimlet.runtime.tensors import symbol_of

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


def complete(manifest: Manifest, given: Mapping[str, Any], seed: int, *, is_random: bool) -> dict[str, Any]:
    """The inputs that were given, and with `is_random` the others made up for the same sizes.

    What has a default may be left out. UsageError for a name that is no input's, and for inputs that are missing.
    """
    specs = [manifest.spec(port) for port in manifest.inputs]
    takes = "the program takes " + (", ".join(map(str, specs)) or "no inputs")
    unknown = next((name for name in given if name not in {spec.name for spec in specs}), None)
    if unknown is not None:
        raise UsageError(f"there is no such input; {takes}", where=f"--input {unknown}")
    defaults = {port.name for port in manifest.inputs if port.default is not None}
    missing = [spec.name for spec in specs if spec.name not in given and spec.name not in defaults]
    if missing and not is_random:
        hint = f"--input {missing[0]}=FILE.npy, or --random"
        raise UsageError(f"no array for {', '.join(missing)}; {takes}", hint=hint)
    if not missing:
        return dict(given)
    sizes: dict[str, int] = {}
    for spec in specs:
        shape = given[spec.name].shape if spec.name in given and spec.is_tensor else ()
        for dim, size in zip(spec.shape or (), shape, strict=False):
            name = symbol_of(dim)
            if name is not None:
                sizes[name] = size
    return random_inputs(manifest, seed, sizes) | dict(given)


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
