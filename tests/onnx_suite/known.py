"""The cases that do not come out the same, and why. The suite fails on any other, and on one here that passes."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """Cases whose names match `pattern` entirely, and the stages in which they fail."""

    pattern: str
    stages: tuple[str, ...]
    reason: str

    def covers(self, name: str, stage: str) -> bool:
        """Whether this is about a case in a stage."""
        return stage in self.stages and re.fullmatch(self.pattern, name) is not None


KNOWN: tuple[Known, ...] = ()
