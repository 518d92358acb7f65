"""Opens a bundle and trusts nothing in it.

The manifest must hash to what `manifest.sha256` says, every path stays inside the folder, no part of a path is a
link, and a file's size and hash are compared the first time that it is opened. Nothing is unpickled or executed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gimlet.runtime.errors import CheckError, InputError
from gimlet.runtime.manifest import FileEntry, Manifest
from gimlet.runtime.manifest_check import check_path
from gimlet.runtime.manifest_json import MANIFEST, read_engines, read_manifest

MANIFEST_DIGEST = "manifest.sha256"
ENGINES = "engines.json"
OWN_FILES = frozenset({MANIFEST, MANIFEST_DIGEST, ENGINES})
LARGEST_MANIFEST = 256 << 20

_REBUILD = "compile the model again, or copy the bundle again"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. `id` is the sha256 of its manifest; `engines` are the files that the id does not cover."""

    root: Path
    id: str
    manifest: Manifest
    engines: Mapping[str, FileEntry]
    _verified: set[str] = field(default_factory=set[str], repr=False, compare=False)

    def entry(self, path: str) -> FileEntry | None:
        """What the bundle says about one of its files, or None for an engine that is not built yet."""
        return self.manifest.files.get(path) or self.engines.get(path)

    def open_file(self, path: str) -> Path:
        """Where the file `path` lies, its size and hash compared on the first call.

        InputError for a file that is missing, not listed, or reached through a link; CheckError for one that changed.
        """
        full = self._locate(path)
        if path not in self._verified:
            entry = self.entry(path)
            if entry is None:
                raise InputError(f"the bundle lists no file {path!r}", where=str(self.root))
            _verify(full, path, entry)
            self._verified.add(path)
        return full

    def _locate(self, path: str) -> Path:
        check_path(path, str(self.root))
        full = self.root
        for part in path.split("/"):
            full = full / part
            if full.is_symlink():
                raise InputError(f"{path!r} is reached through a link", where=str(self.root), hint=_REBUILD)
        return full

    def verify_all(self) -> int:
        """Compares every file, and that no other file lies in the folder. The number of bytes that were hashed."""
        listed = {**self.manifest.files, **self.engines}
        for path in sorted(listed):
            self.open_file(path)
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = (Path(folder) / name).relative_to(self.root).as_posix()
                if path not in listed and path not in OWN_FILES:
                    raise CheckError(f"{path!r} does not belong to the bundle", where=str(self.root), hint="remove it")
        return sum(entry.bytes for entry in listed.values())


def _verify(full: Path, path: str, entry: FileEntry) -> None:
    try:
        _check_regular(full)
        with full.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size != entry.bytes:
                message = f"{path!r} has {status.st_size} bytes, the bundle says {entry.bytes}"
                raise CheckError(message, where=str(full), hint=_REBUILD)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(full, error) from None
    if digest != entry.sha256:
        raise CheckError(
            f"{path!r} was changed: its sha256 is {digest}, the bundle says {entry.sha256}",
            where=str(full),
            hint=_REBUILD,
        )


def _check_regular(path: Path) -> None:
    """InputError for a link, a folder or a device; opening a pipe would wait for ever. OSError if there is nothing."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise InputError("is not a regular file", where=str(path), hint=_REBUILD)


def _unreadable(path: Path, error: OSError) -> InputError:
    what = "the file is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    return InputError(what, where=str(path), hint=_REBUILD)


def _read_own(root: Path, name: str) -> bytes:
    path = root / name
    try:
        _check_regular(path)
        with path.open("rb") as file:
            data = file.read(LARGEST_MANIFEST + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(data) > LARGEST_MANIFEST:
        raise InputError(f"is larger than {LARGEST_MANIFEST} bytes", where=str(path))
    return data


def open_bundle(path: str | os.PathLike[str], *, verify_hashes: bool = False) -> Bundle:
    """Opens the bundle at `path`; with `verify_hashes` every file is compared now, otherwise each on first use.

    InputError for something that is no bundle, is malformed, or was written in a newer format; CheckError where the
    content is not what was written.
    """
    given = Path(path)
    if not given.is_dir():
        what = "is a file, not a bundle" if given.exists() else "there is no such bundle"
        raise InputError(what, where=str(given), hint="a bundle is the folder that gimlet-compile -o writes")
    if not os.path.lexists(given / MANIFEST):
        raise InputError(f"is not a bundle: it holds no {MANIFEST}", where=str(given), hint="compile the model again")
    root = given.resolve()
    text = _read_own(root, MANIFEST)
    bundle_id = hashlib.sha256(text).hexdigest()
    stated = _read_own(root, MANIFEST_DIGEST).decode("ascii", "replace").strip()
    if not re.fullmatch("[0-9a-f]{64}", stated) or stated != bundle_id:
        raise CheckError(
            f"{MANIFEST} was changed: its sha256 is {bundle_id}, {MANIFEST_DIGEST} says {stated[:64]!r}",
            where=str(root),
            hint=_REBUILD,
        )
    manifest = read_manifest(text, str(root / MANIFEST))
    bundle = Bundle(root, bundle_id, manifest, _read_engines(root, manifest))
    if verify_hashes:
        bundle.verify_all()
    return bundle


def _read_engines(root: Path, manifest: Manifest) -> dict[str, FileEntry]:
    if not manifest.undigested:
        return {}
    where = str(root / ENGINES)
    text = _read_own(root, ENGINES)
    try:
        engines = read_engines(text, where)
    except InputError as error:
        raise CheckError(error.message, where=error.where, hint=_REBUILD) from None
    for path, entry in engines.items():
        variant = manifest.undigested.get(path)
        if variant is None:
            raise CheckError(f"{path!r} is no engine of this bundle", where=where, hint=_REBUILD)
        if entry.key != variant.key:
            message = f"{path!r} was built from something else: key {entry.key!r}, expected {variant.key!r}"
            raise CheckError(message, where=where, hint=_REBUILD)
    return engines
