"""Operators that onnx's reference evaluator (1.23) computes otherwise than the specification says, computed as it says.

BatchNormalization before opset 14 normalises with the statistics that it is given where it has one output; the
evaluator mixes them with the batch's own, by `momentum`, as if the model were being trained. GlobalMaxPool takes the
maximum over all spatial dimensions; the evaluator takes it over two dimensions, the right ones only in images.
GatherElements fails there along more than 64 elements, as BERT's positions have, and where indices are fewer than the
data in another dimension. LRN normalises all channels; the evaluator as many as the batch has images. A Loop without a
condition runs `M` times, and what it collects has a new first dimension; in the evaluator it does not run at all, and
what is no vector is put together along the first one that is there. Operators on integers of 8 bits are in
`reference_integers`.
"""

from __future__ import annotations

from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.checking.reference_integers import integer_operators

if TYPE_CHECKING:
    from onnx.reference.op_run import OpRun

_BATCH_NORMALIZATION_GIVEN: Final = 7
_BATCH_NORMALIZATION_MODES: Final = 14


def corrections(path: Path) -> list[type[OpRun]]:
    """The corrected operators that concern the model in `path`, for the evaluator's `new_ops`."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    found = [*_of_all_opsets(), *integer_operators(opset)]
    if _BATCH_NORMALIZATION_GIVEN <= opset < _BATCH_NORMALIZATION_MODES:
        found.append(_batch_normalization())
    return found


def _of_all_opsets() -> list[type[OpRun]]:
    return [_global_max_pool(), _gather_elements(), _lrn(), _loop()]


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


def _lrn() -> type[OpRun]:
    from onnx.reference.op_run import OpRun

    class LRN(OpRun):
        op_domain = ""

        def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, x: NDArray[Any], alpha: float, beta: float, bias: float, size: int
        ) -> tuple[NDArray[Any]]:
            before, after = floor((size - 1) / 2), ceil((size - 1) / 2)
            squares = np.pad(x**2, [(0, 0), (before, after), *((0, 0),) * (x.ndim - 2)])
            sums = sum(squares[:, begin : begin + x.shape[1]] for begin in range(size))
            return ((x / (bias + alpha / size * sums) ** beta).astype(x.dtype),)

    return LRN


def _loop() -> type[OpRun]:
    from onnx.reference.ops.op_loop import Loop as Given

    class Loop(Given):
        op_domain = ""

        def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, count: Any, condition: Any, *carried: Any, context: Any = None, body: Any = None, **how: Any
        ) -> tuple[Any, ...]:
            del body  # An attribute, which the node has as well.
            run: Any = self
            number, going, *names = run.body.input_names
            collected: list[list[Any]] = [[] for _ in range(self.K)]
            turn, goes_on = 0, condition is None or bool(condition)
            while goes_on and (count is None or turn < int(count)):
                given = {**(context or {}), number: np.array(turn, np.int64), going: np.array(True)}
                still, *made = run._run_body({**given, **dict(zip(names, carried, strict=True))}, **how)
                carried = tuple(made[: self.N])
                for values, value in zip(collected, made[self.N :], strict=True):
                    values.append(value)
                turn, goes_on = turn + 1, condition is None or bool(still)
            # Without a turn nothing says how large an element is: numpy refuses, and a session runs the model.
            return (*carried, *(np.stack(values) for values in collected))

    return Loop


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
