"""Why a pass, or a target, cannot make what it was asked for: a reason for the user, tied to an op by whoever asked."""

from __future__ import annotations


class RefusedError(Exception):
    """Code cannot be generated, for a reason that the user should read."""
