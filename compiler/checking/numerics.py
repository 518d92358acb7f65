"""How far two tensors are apart, and how far they may be in each number format.

Integers and booleans must be equal. A float32 tensor is held to its maximum absolute error over the reference's range
(maximum minus minimum); lower precisions to the relative L2 error ‖a − b‖ / ‖b‖.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Tolerances of a whole model's outputs, by the lowest precision in it. fp32: what reordered float32 sums give. bf16
# and fp16: their unit roundoff (2^-9, 2^-12) over some ten layers. mxint8: 7 bits of mantissa shared by 32 elements.
RANGE_TOLERANCE = 1e-4
# One rounding step of float32 at 1.0. A sigmoid or softmax that is nearly zero everywhere (a detector on an empty page)
# has a range so small that the approximations which vendors compute them by would be out of any tolerance over it.
NEGLIGIBLE = 2.0**-23
L2_TOLERANCE: Mapping[str, float] = {"bf16": 1e-2, "fp16": 5e-3, "mxint8": 3e-2, "int8": 5e-2, "fp8": 5e-2}


@dataclass(frozen=True)
class Deviation:
    """Distance of a tensor from its reference: maximum absolute error over the range, relative L2 error, and the
    maximum absolute error itself. `uniform` says that all elements of the reference, more than one, are equal, so
    that agreeing with it says little. `apart` says why they cannot be compared, where the distance is infinite.
    """

    of_range: float
    relative_l2: float
    equal: bool
    absolute: float = float("inf")
    uniform: bool = False
    apart: str = ""

    def __str__(self) -> str:
        if self.apart:
            return self.apart
        return "equal" if self.equal else f"{self.of_range:.2e} of range, L2 {self.relative_l2:.2e}"

    def within(self, fmt: str) -> bool:
        """Whether the distance is acceptable for a computation in number format `fmt`."""
        if self.equal or self.absolute <= NEGLIGIBLE:
            return True
        if fmt in L2_TOLERANCE:
            return self.relative_l2 <= L2_TOLERANCE[fmt]
        return self.of_range <= RANGE_TOLERANCE

    def limit(self, fmt: str) -> str:
        """The tolerance that `within` applies, as text."""
        if fmt in L2_TOLERANCE:
            return f"relative L2 ≤ {L2_TOLERANCE[fmt]:g} ({fmt})"
        return f"max error ≤ {RANGE_TOLERANCE:g} of range (fp32)"


EQUAL = Deviation(0.0, 0.0, equal=True, absolute=0.0)


def _apart(why: str) -> Deviation:
    return Deviation(float("inf"), float("inf"), equal=False, apart=why)


def deviation(value: Any, reference: Any) -> Deviation:
    """How far `value` is from `reference`: infinitely, for another shape or a NaN in only one of them.

    Of sequences and maps, the largest distance of two items; they are infinitely far where they have other keys, or one
    is longer.
    """
    if isinstance(value, dict) and isinstance(reference, dict):
        left, right = cast("dict[Any, Any]", value), cast("dict[Any, Any]", reference)
        return deviation([left[key] for key in sorted(left)], [right[key] for key in sorted(left) if key in right])
    if isinstance(value, list) and isinstance(reference, list):
        items, others = cast("list[Any]", value), cast("list[Any]", reference)
        if len(items) != len(others):
            return _apart(f"{len(items)} items, and the reference has {len(others)}")
        found = [deviation(item, other) for item, other in zip(items, others, strict=True)]
        return max(found, key=lambda each: (each.of_range, each.relative_l2, not each.equal), default=EQUAL)
    if value is None or reference is None or isinstance(value, list | dict) or isinstance(reference, list | dict):
        return EQUAL if value is None and reference is None else _apart("another kind of value than the reference")
    return _distance(np.asarray(value), np.asarray(reference))


def _distance(value: Array, reference: Array) -> Deviation:
    if value.shape != reference.shape:
        return _apart(f"of shape {list(value.shape)}, and the reference has {list(reference.shape)}")
    uniform = reference.size > 1 and bool(np.all(reference == reference.flat[0]))
    if value.size == 0 or np.array_equal(value, reference):
        return replace(EQUAL, uniform=uniform)
    if value.dtype.kind in "OSU" or reference.dtype.kind in "OSU":
        return _apart("other texts than the reference")
    a, b = value.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return _apart("NaN or infinite elsewhere than the reference")
    a, b = a[finite], b[finite]
    difference = np.abs(a - b)
    if not difference.size:
        return EQUAL
    spread = float(b.max() - b.min()) or float(np.abs(b).max()) or 1.0
    norm = float(np.linalg.norm(b))
    distance = float(np.linalg.norm(difference))
    relative = distance / norm if norm else float("inf") if distance else 0.0
    return Deviation(float(difference.max()) / spread, relative, not distance, float(difference.max()), uniform)


def coarsest(formats: set[str]) -> str:
    """The format among `formats` with the loosest tolerance: the one a mixed model is held to."""
    return max(formats, key=lambda fmt: (L2_TOLERANCE.get(fmt, 0.0), fmt), default="fp32")
