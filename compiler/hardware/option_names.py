"""Keys of `[options]` that no target of a kind reads: a misspelled figure would be the default's, without a word."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

from gimlet.runtime.errors import InputError
from gimlet.targets.api import HardwareKind, Target

_OF_ANY_KIND: Final = frozenset({"deferred", "generic", "operating_point", "threads"})
"""Which point was chosen, how many threads a part of a machine has, and what is said to readers alone."""


def check_option_names(kind: HardwareKind, targets: Sequence[Target]) -> None:
    """InputError for a key that no target reads, with the nearest name. A target may leave its names open."""
    known = set(_OF_ANY_KIND)
    for target in targets:
        if target.option_names is None:
            return
        known |= target.option_names
    for name in kind.options:
        if name in known:
            continue
        close = difflib.get_close_matches(name, known, n=1)
        raise InputError(
            f"options.{name} is read by none of its targets ({', '.join(target.name for target in targets)})",
            where=f"device kind {kind.name}",
            hint=f"did you mean {close[0]!r}?" if close else f"its options are: {', '.join(sorted(known))}",
        )
