"""Engines that were built before, by the hash of what they are built from.

Two builds of one network differ in a few internal names, so an engine is identified by its sources: a rebuild that
finds them unchanged copies the engine and is equal to the byte. A build takes seconds to minutes, a copy milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from gimlet.targets.tensorrt.engine import BuildReport

_REPORT = "report.json"
_ENGINE = "engine.trt"


def engine_key(model: bytes, settings: dict[str, Any]) -> str:
    """The hash of what decides an engine: the model with its weights' digests, and everything in `settings`."""
    digest = hashlib.sha256(hashlib.sha256(model).digest())
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


class EngineCache:
    """A folder of engines, each in a folder named by its key, complete or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "engines"

    def fetch(self, key: str, engine: Path) -> BuildReport | None:
        """Copies the engine of `key` and returns its report; None if it is not there or was damaged."""
        entry = self.folder / key
        try:
            found = json.loads((entry / _REPORT).read_text())
            partial = engine.with_name(f"{engine.name}.{os.getpid()}")
            shutil.copyfile(entry / _ENGINE, partial)
            if _sha256(partial) != found.pop("sha256"):
                partial.unlink()
                return None
            partial.replace(engine)
            return BuildReport.from_json(found)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def store(self, key: str, engine: Path, report: BuildReport) -> None:
        """Keeps a copy of an engine. Whoever stores the same key first wins; a full disk only loses the copy."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder) as name:
                entry = Path(name) / "entry"
                entry.mkdir()
                shutil.copyfile(engine, entry / _ENGINE)
                (entry / _REPORT).write_text(json.dumps({**report.to_json(), "sha256": _sha256(engine)}, indent=1))
                shutil.rmtree(self.folder / key, ignore_errors=True)
                entry.rename(self.folder / key)
        except OSError:
            return


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
