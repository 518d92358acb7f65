"""Errors that reach a user, one class per exit code of the command line.

Every message says what went wrong, where, and what to do. Anything that is not one of these is a bug in gimlet: the
tools then exit with 70 and write a reproducer.
"""

from __future__ import annotations

from typing import ClassVar


class GimletError(Exception):
    """A failure that the user can act on.

    `where` names the place (an op, a file, a device); `hint` says what to do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  hint: {self.hint}" if self.hint else text

    def to_json(self) -> dict[str, object]:
        """The object that `--json` prints for this error."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
        }


class InputError(GimletError):
    """The model, the IR, the bundle or the input values cannot be compiled or run."""

    exit_code = 1


class UsageError(GimletError):
    """The command or the call was spelled wrong: an unknown option, device, pin or dimension."""

    exit_code = 2


class MissingError(GimletError):
    """A device or a package that this needs is not on this machine."""

    exit_code = 3


class CheckError(GimletError):
    """A check did not hold: numerics, a file's hash, a difference between bundles."""

    exit_code = 4


class InfeasibleError(GimletError):
    """No placement satisfies the limits that were given."""

    exit_code = 5
