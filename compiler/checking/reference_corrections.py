"""Operators that onnx's reference evaluator (1.23) computes otherwise than the specification says, computed as it says.

BatchNormalization before opset 14 normalises with the statistics that it is given where it has one output; the
evaluator mixes them with the batch's own, by `momentum`, as if the model were being trained. GlobalMaxPool takes the
maximum over all spatial dimensions; the evaluator takes it over two dimensions, the right ones only in images.
GatherElements fails there along more than 64 elements, as BERT's positions have, and where indices are fewer than the
data in another dimension.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx.reference.op_run import OpRun

_BATCH_NORMALIZATION_GIVEN: Final = 7
_BATCH_NORMALIZATION_MODES: Final = 14


def corrections(path: Path) -> list[type[OpRun]]:
    """The corrected operators that concern the model in `path`, for the evaluator's `new_ops`."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if _BATCH_NORMALIZATION_GIVEN <= opset < _BATCH_NORMALIZATION_MODES:
        return [_global_max_pool(), _gather_elements(), _batch_normalization()]
    return [_global_max_pool(), _gather_elements()]


def _global_max_pool() -> type[OpRun]:
    from onnx.reference.op_run import OpRun

    class GlobalMaxPool(OpRun):
        op_domain = ""

        def _run(self, x: NDArray[Any]) -> tuple[NDArray[Any]]:  # pyright: ignore[reportIncompatibleMethodOverride]
            return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)

    return GlobalMaxPool


def _gather_elements() -> type[OpRun]:
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        op_domain = ""

        def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, data: NDArray[Any], indices: NDArray[Any], axis: int = 0
        ) -> tuple[NDArray[Any]]:
            along = axis % data.ndim
            read = tuple(slice(None if i == along else size) for i, size in enumerate(indices.shape))
            return (np.take_along_axis(data[read], indices.astype(np.int64), along),)

    return GatherElements


def _batch_normalization() -> type[OpRun]:
    from onnx.reference.op_run import OpRun

    class BatchNormalization(OpRun):
        op_domain = ""

        def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
            self,
            x: NDArray[Any],
            scale: NDArray[Any],
            bias: NDArray[Any],
            mean: NDArray[Any],
            variance: NDArray[Any],
            epsilon: float = 1e-5,
            **_: Any,
        ) -> tuple[NDArray[Any]]:
            ones = (1,) * (x.ndim - 2)
            scale, bias, mean, variance = (each.reshape(-1, *ones) for each in (scale, bias, mean, variance))
            return ((scale * (x - mean) / np.sqrt(variance + epsilon) + bias).astype(x.dtype),)

    return BatchNormalization
