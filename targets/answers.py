"""What a framework answered before, kept on disk so that it is asked once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


class AnswerFile:
    """Answers on disk: a JSON object from a question's key, or an operator's name, to a refusal or nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers = self._read()

    def get(self, key: str) -> str | None:
        """The stored answer, None where the question was never asked."""
        return self._answers.get(key)

    def add(self, answers: Mapping[str, str]) -> None:
        """Adds answers to what is on disk now. A folder that cannot be written to only costs the next compile time."""
        if not answers:
            return
        self._answers = {**self._read(), **answers}
        keep_text(self.path, json.dumps(self._answers, indent=0, sort_keys=True))

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(found, dict):
            return {}
        return {str(key): text for key, text in found.items() if isinstance(text, str)}


def keep_text(path: Path, text: str) -> None:
    """Writes a file of the cache: beside and renamed, since two compiles may write the same at once.

    A folder that cannot be written to, or a full disk, only costs the next compile time.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(text)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def default_cache() -> Path:
    """The folder that outlives a compile: `$GIMLET_CACHE`, else `gimlet` in the user's cache folder."""
    if "GIMLET_CACHE" in os.environ:
        return Path(os.environ["GIMLET_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "gimlet"
