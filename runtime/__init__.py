"""Loads a bundle and runs it: the standard library, numpy and, lazily, a vendor's own runtime."""

from gimlet.runtime.errors import CheckError, GimletError, InfeasibleError, InputError, MissingError, UsageError
from gimlet.runtime.program import Program, load

__all__ = [
    "CheckError",
    "GimletError",
    "InfeasibleError",
    "InputError",
    "MissingError",
    "Program",
    "UsageError",
    "load",
]
