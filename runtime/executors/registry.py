"""Which class runs an artifact: a flat table of names, resolved when first asked for.

A name that the table lacks is looked up in the entry-point group `gimlet.executors`; scanning installed packages
takes milliseconds, so that happens only then.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import cast

from gimlet.runtime.errors import MissingError
from gimlet.runtime.executors.base import Executor

EXECUTORS = {
    "onnxruntime": "gimlet.runtime.executors.onnxruntime:OnnxRuntimeExecutor",
    "openvino": "gimlet.runtime.executors.openvino:OpenVinoExecutor",
    "sram": "gimlet.runtime.executors.sram:SramExecutor",
    "tensorrt": "gimlet.runtime.executors.tensorrt:TensorRTExecutor",
}


@lru_cache(maxsize=64)
def load_executor(name: str) -> type[Executor]:
    """The executor class called `name`. MissingError, with the names that exist, where nothing provides it."""
    path = EXECUTORS.get(name) or _entry_point(name)
    module, _, attribute = path.partition(":")
    return cast(type[Executor], getattr(import_module(module), attribute))


def _entry_point(name: str) -> str:
    from importlib.metadata import entry_points

    for point in entry_points(group="gimlet.executors", name=name):
        return point.value
    raise MissingError(
        f"no executor is called {name!r} (known: {', '.join(EXECUTORS)})",
        hint="install the package that provides it in the entry-point group gimlet.executors",
    )
