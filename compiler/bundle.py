"""Writes a bundle: all of it or nothing.

Everything is made in a hidden folder beside the target and renamed at the end, so a compile that fails or is killed
leaves nothing that looks like a bundle. The hidden folder is locked while its writer lives; the next compile to the
same target removes what a killed one left.

    with BundleWriter(Path("m.gimlet"), force=False) as writer:
        folder = writer.segment_folder("s0")         # targets emit into it
        place = writer.weights.add(array, digest)    # the WeightsWriter that targets are given
        writer.write_text("module.mlir", text)
        bundle_id = writer.commit(manifest)
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from gimlet.compiler.shared_weights import SharedWeights
from gimlet.runtime.bundle import ENGINES, MANIFEST_DIGEST, OWN_FILES, Bundle
from gimlet.runtime.errors import InputError, UsageError
from gimlet.runtime.manifest import FileEntry, Manifest
from gimlet.runtime.manifest_check import check_path
from gimlet.runtime.manifest_json import MANIFEST, write_engines, write_manifest

_OF_FILES = frozenset({".html", ".json", ".mlir", ".onnx", ".pt2", ".toml"})
"""Endings of what else a compile reads or writes: an output called so is meant otherwise."""
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class BundleWriter:
    """A bundle being written. Use it as a context manager: leaving it without `commit` removes everything.

    UsageError where the target exists and `force` is not given, or is something else than a bundle; InputError where
    the disk is full or the folder cannot be written.
    """

    def __init__(self, target: Path | str, *, force: bool = False) -> None:
        self.target = Path(os.path.abspath(target))
        self.force = force
        self.root = self.target.parent / f".{self.target.name}.tmp-{secrets.token_hex(4)}"
        self.weights = SharedWeights(self.root)
        self._lock = -1
        self._previous: _Handler = None
        self._committed = False

    def __enter__(self) -> BundleWriter:
        check_target(self.target, force=self.force)
        self._catch_sigterm()
        try:
            with translated(self.target):
                _remove_leftovers(self.target)
                self.root.mkdir()
                self._lock = _locked(self.root)
        finally:
            if self._lock < 0:
                self._cleanup()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup()
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            raise _no_space(self.target) from None

    def _catch_sigterm(self) -> None:
        """Makes a polite kill unwind like Ctrl-C does, unless the program handles it itself."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return

        def stop(number: int, frame: FrameType | None) -> None:
            del frame
            raise SystemExit(128 + number)

        self._previous = signal.signal(signal.SIGTERM, stop)

    def _cleanup(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None
        with suppress(OSError):
            self.weights.close()
        if not self._committed:
            shutil.rmtree(self.root, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def segment_folder(self, name: str) -> Path:
        """The folder of a segment's files, made on the first call. Its files are `segments/<name>/…` in the bundle."""
        check_path(name, "segment")
        folder = self.root / "segments" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write_bytes(self, path: str, data: bytes) -> None:
        """Writes one file; `path` is relative to the bundle."""
        check_path(path, "bundle")
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(data)

    def write_text(self, path: str, text: str) -> None:
        """Writes one file as UTF-8."""
        self.write_bytes(path, text.encode())

    def commit(self, manifest: Manifest) -> str:
        """Hashes every file, completes and writes the manifest, and puts the bundle in its place.

        `manifest.files` is filled in here. Returns the bundle's id. InputError where the manifest names a file that
        was not written or breaks a rule of `manifest_check`.
        """
        with translated(self.target):
            self.weights.close()
            hashed, engines = self._hash_files(manifest)
            complete = replace(manifest, files=hashed)
            text = write_manifest(complete)
            if manifest.undigested:
                (self.root / ENGINES).write_bytes(write_engines(engines))
            (self.root / MANIFEST).write_bytes(text)
            bundle_id = hashlib.sha256(text).hexdigest()
            (self.root / MANIFEST_DIGEST).write_text(bundle_id + "\n")
            self._publish()
        return bundle_id

    def _hash_files(self, manifest: Manifest) -> tuple[dict[str, FileEntry], dict[str, FileEntry]]:
        undigested = manifest.undigested
        hashed: dict[str, FileEntry] = {}
        engines: dict[str, FileEntry] = {}
        for path, full in _files_under(self.root):
            if path == self.weights.path and self.weights.nbytes == full.stat().st_size:
                hashed[path] = FileEntry(self.weights.sha256, self.weights.nbytes)
            elif path in undigested:
                engines[path] = file_entry(full, undigested[path].key)
            elif path not in OWN_FILES:
                hashed[path] = file_entry(full)
        for path, variant in undigested.items():
            if path not in engines and not variant.deferred:
                message = f"the engine {path!r} was not built and is not marked deferred"
                raise InputError(message, where=str(self.target))
        return hashed, engines

    def _publish(self) -> None:
        if not os.path.lexists(self.target):
            self.root.rename(self.target)
            self._committed = True
            return
        check_target(self.target, force=self.force)
        old = self.target.parent / f".{self.target.name}.old-{secrets.token_hex(4)}"
        lock = _locked(self.target)
        try:
            self.target.rename(old)
            try:
                self.root.rename(self.target)
                self._committed = True
            finally:
                if not self._committed:
                    old.rename(self.target)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            os.close(lock)


def check_target(target: Path, *, force: bool) -> None:
    """UsageError where a bundle cannot be written to `target`; call it before any long work."""
    where = str(target)
    if target.suffix in _OF_FILES:
        hint = f"write {target.stem}.gimlet" + ("; IR is written with --to PHASE" if target.suffix == ".mlir" else "")
        raise UsageError(f"a bundle is a folder, and {target.suffix} a file's name", where=where, hint=hint)
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}", where=where, hint="make it first")
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"{target.parent} may not be written", where=where, hint="check the permissions")
    if not os.path.lexists(target):
        return
    if not force:
        raise UsageError("exists already", where=where, hint="give --force to replace it")
    if target.is_symlink() or not target.is_dir():
        raise UsageError("is not a folder, so not a bundle that --force may replace", where=where)
    if any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise UsageError(f"holds no {MANIFEST}, so it is not a bundle that --force may replace", where=where)


@contextmanager
def translated(target: Path) -> Generator[None]:
    """Turns what the file system refuses into errors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _no_space(target) from None
        message = f"cannot be written: {error.strerror or error}"
        raise InputError(message, where=str(target), hint="check the folder's permissions") from None


def _no_space(target: Path) -> InputError:
    hint = f"free space on the file system of {target.parent}; nothing was left there"
    return InputError("the disk is full", where=str(target), hint=hint)


def file_entry(path: Path, key: str = "") -> FileEntry:
    """The hash and size of a file."""
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size, key)


def add_engines(bundle: Bundle, engines: Mapping[str, Path]) -> None:
    """Puts engines, by their paths in the bundle, where a compile deferred them. The bundle's id stays what it is.

    InputError for a path that is no engine of the bundle, or where the disk is full.
    """
    undigested = bundle.manifest.undigested
    table = dict(bundle.engines)
    with translated(bundle.root):
        for path, built in engines.items():
            if path not in undigested:
                raise InputError(f"{path!r} is no engine of this bundle", where=str(bundle.root))
            full = bundle.root / path
            full.parent.mkdir(parents=True, exist_ok=True)
            _replace_file(full, built)
            table[path] = file_entry(full, undigested[path].key)
        temporary = bundle.root / f".{ENGINES}.tmp"
        temporary.write_bytes(write_engines(table))
        temporary.replace(bundle.root / ENGINES)


def _replace_file(target: Path, source: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _files_under(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file below `root` with its path relative to it, sorted. InputError for a link."""
    for full in sorted(root.rglob("*")):
        path = full.relative_to(root).as_posix()
        if full.is_symlink():
            raise InputError(f"{path!r} is a link: a bundle holds files only")
        if full.is_file():
            yield path, full


def _locked(folder: Path) -> int:
    """A lock on a folder that ends with this process. OSError where another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_leftovers(target: Path) -> None:
    """Removes what killed writers to `target` left, and gives back a bundle that was moved aside and not replaced."""
    name = glob.escape(target.name)
    for folder in sorted([*target.parent.glob(f".{name}.old-*"), *target.parent.glob(f".{name}.tmp-*")]):
        try:
            lock = _locked(folder)
        except OSError:
            continue
        if folder.name.startswith(f".{target.name}.old-") and not os.path.lexists(target):
            folder.rename(target)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
