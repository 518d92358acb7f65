"""The openvino package at compile time: asked for only when a device's target is, and said to be missing where it is.

Nothing here calls `openvino.convert_model` or its command line, which report their use over the network.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from gimlet.runtime.errors import MissingError

PACKAGE = "openvino"
DEVICE = "CPU"


@cache
def installed_version() -> str | None:
    """The version of the package, or None where it is not installed."""
    if find_spec(PACKAGE) is None:
        return None
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "unknown"


def missing() -> MissingError:
    """The error for a machine without the package."""
    return MissingError(
        "openvino is not installed, which says what it can run and converts models",
        where="target openvino",
        hint="pip install 'gimlet-compiler[openvino]'",
    )


def require() -> str:
    """The version of the package. MissingError where it is not installed."""
    found = installed_version()
    if found is None:
        raise missing()
    return found


@cache
def core() -> Any:
    """The process's one `openvino.Core`. MissingError where the package is not installed."""
    require()
    import openvino

    return openvino.Core()


def tidy(error: Exception) -> str:
    """OpenVINO's message without the places in its own sources."""
    lines = [line.strip() for line in str(error).removeprefix("RuntimeError: ").splitlines()]
    noise = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't", "Summary:", "To facilitate")
    kept = [line for line in lines if line and not line.startswith(noise)]
    return " ".join(kept or lines[:1])[:300]
