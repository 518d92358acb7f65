"""Every target by its name. A line names the target's class and costs nothing until it is asked for.

A name that the table lacks is looked up in the entry-point group `gimlet.targets`; scanning installed packages takes
milliseconds, so that happens only then.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from gimlet.runtime.errors import MissingError
from gimlet.targets.api import Target

TARGETS: dict[str, str] = {
    "onnxruntime": "gimlet.targets.onnxruntime.target:OnnxRuntimeTarget",
    "tensorrt": "gimlet.targets.tensorrt.target:TensorRTTarget",
    "openvino": "gimlet.targets.openvino.target:OpenVinoTarget",
    "sram": "gimlet.targets.sram.target:SramTarget",
}


@cache
def load(name: str) -> Target:
    """The one instance of the target called `name`. MissingError, with the names that exist, where there is none."""
    path = TARGETS.get(name) or _entry_point(name)
    module, _, attribute = path.partition(":")
    target: type[Target] = getattr(import_module(module), attribute)
    return target()


def target_exists(name: str) -> bool:
    """Whether a target is called so, here or in an installed package. Nothing of it is loaded."""
    return name in TARGETS or _point(name) is not None


def _point(name: str) -> str | None:
    from importlib.metadata import entry_points

    return next((point.value for point in entry_points(group="gimlet.targets", name=name)), None)


def _entry_point(name: str) -> str:
    if point := _point(name):
        return point
    raise MissingError(
        f"no target is called {name!r} (known: {', '.join(TARGETS)})",
        hint="install the package that provides it in the entry-point group gimlet.targets",
    )
