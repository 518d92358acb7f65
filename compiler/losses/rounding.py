"""What is left of float32 values in a number format."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gimlet.runtime.errors import UsageError
from gimlet.runtime.sram.formats import round_to

Array = NDArray[Any]

_ELEMENTS: Final = {"bf16": "bf16", "fp16": "f16", "mxint8": "mxint8"}
_TF32_DROPPED: Final = 13


def rounded(values: Array, fmt: str, axis: int = -1) -> Array:
    """Values of any shape after a trip through `fmt`, in their own type; blocks of a block format run along `axis`.

    Values that are not float32 stay as they are. UsageError for a format whose rounding is not known.
    """
    if values.dtype != np.float32 or fmt == "fp32":
        return values
    if fmt == "tf32":
        return _tf32(values)
    if fmt not in _ELEMENTS:
        raise UsageError(
            f"what {fmt} loses is not known", hint=f"known: fp32, tf32, {', '.join(_ELEMENTS)}; leave it out (--format)"
        )
    if values.ndim == 0:
        return round_to(_ELEMENTS[fmt], values.reshape(1)).reshape(())
    return np.moveaxis(round_to(_ELEMENTS[fmt], np.moveaxis(values, axis, -1)), -1, axis)


def _tf32(values: Array) -> Array:
    """The nearest number of 10 bits of mantissa, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    half = np.uint32((1 << (_TF32_DROPPED - 1)) - 1) + ((bits >> np.uint32(_TF32_DROPPED)) & np.uint32(1))
    kept = (bits + half) & np.uint32(0xFFFFFFFF << _TF32_DROPPED & 0xFFFFFFFF)
    return np.where(np.isfinite(values), kept.view(np.float32), values)
