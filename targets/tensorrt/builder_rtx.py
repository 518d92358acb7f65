"""TensorRT for RTX as a builder: engines for a GPU that is not there.

The wheel (`tensorrt-rtx` on PyPI) carries the kernels of every GPU that it serves and makes the final choice of tactics
when the engine is first run, so that a build needs the GPU's compute capability and not the GPU.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from gimlet.runtime.errors import MissingError

MODULE = "tensorrt_rtx"
COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""What 1.7.1 builds for."""

NO_FLOAT32_PRODUCTS = frozenset({"7.5"})
"""Compute capabilities for which the library has no float32 matrix products or convolutions."""


@cache
def installed_version() -> str | None:
    """The version of the package, or None where it is not installed."""
    if find_spec(MODULE) is None:
        return None
    try:
        return version("tensorrt-rtx")
    except PackageNotFoundError:
        return "unknown"


def require() -> str:
    """The version of the package. MissingError where it is not installed."""
    found = installed_version()
    if found is None:
        raise MissingError(
            "TensorRT for RTX is not installed, which builds engines and says what they can hold",
            where="target tensorrt",
            hint="pip install 'gimlet-compiler[tensorrt]' (Linux on x86-64)",
        )
    return found


def builds_for(compute_capability: str) -> bool:
    """Whether engines for this compute capability can be built, on any machine."""
    return compute_capability in COMPUTE_CAPABILITIES
