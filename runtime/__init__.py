"""Loads a bundle and runs it: the standard library, numpy and, lazily, a vendor's own runtime.

    program = gimlet.runtime.load("m.gimlet")
    outputs = program(x=array)

Importing this costs little more than importing numpy; what reads and runs bundles is imported with the first bundle.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gimlet.runtime.errors import CheckError, GimletError, InfeasibleError, InputError, MissingError, UsageError

if TYPE_CHECKING:
    from gimlet.runtime.program import Program, load

Outputs: TypeAlias = dict[str, np.ndarray]
"""What a program returns: arrays by the names of its outputs."""

__all__ = [
    "CheckError",
    "GimletError",
    "InfeasibleError",
    "InputError",
    "MissingError",
    "Outputs",
    "Program",
    "UsageError",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in ("Program", "load"):
        raise AttributeError(f"module 'gimlet.runtime' has no attribute {name!r}")
    from gimlet.runtime import program

    return getattr(program, name)
