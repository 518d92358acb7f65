"""A launch with what a program does around it in every run, so that a trial times what a caller waits for.

A program copies its small inputs into memory that stays bound, gives each large output memory of its own, and hands
small outputs out as copies (`gimlet.runtime.frame`). What that takes depends on the runtime: OpenVINO's threads read a
small input from another core's cache, and a new output makes it set up again what it had prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from gimlet.runtime.executors.base import Bindings, Buffer
from gimlet.runtime.frame import SMALL_BYTES

Launch = Callable[[], None]


def as_called(
    launch: Launch,
    bindings: Bindings,
    inputs: Mapping[str, tuple[np.ndarray, Buffer]],
    outputs: Iterable[tuple[str, Buffer | None]],
) -> Launch:
    """`launch` with what a program does around it for these of its inputs and outputs.

    Inputs are a caller's arrays and the buffers that stay bound for them, outputs what is bound: None for what the
    executor allocates, which is new in every run by itself. Buffers that are not in host memory are left as they are.
    """
    copied_in = [
        (kept, given)
        for given, kept in inputs.values()
        if isinstance(kept, np.ndarray) and kept.nbytes <= SMALL_BYTES and not kept.dtype.hasobject
    ]
    bound = [(name, buffer) for name, buffer in outputs if isinstance(buffer, np.ndarray)]
    copied_out = [buffer for _, buffer in bound if buffer.nbytes <= SMALL_BYTES]
    fresh = [(name, buffer.shape, buffer.dtype) for name, buffer in bound if buffer.nbytes > SMALL_BYTES]

    def call() -> None:
        for kept, given in copied_in:
            kept[...] = given
        for name, shape, dtype in fresh:
            bindings.set_output(name, np.empty(shape, dtype))
        launch()
        for buffer in copied_out:
            buffer.copy()

    return call
