"""Keeps PyTorch's exporters from writing to the terminal: what matters reaches the user as an error."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

_LOGGERS = (
    "torch.onnx",
    "torch.export",
    "torch._export",
    "onnxscript",
    "onnx_ir",
    "torch.fx.experimental.symbolic_shapes",
)


@contextmanager
def quiet_torch() -> Generator[None]:
    """Silences warnings and the exporters' loggers for a while."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
