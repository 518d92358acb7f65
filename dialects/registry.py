"""Every dialect by its name. A line names the dialect's object and costs nothing until it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

from xdsl.ir import Dialect

DIALECTS: dict[str, str] = {
    "onnx": "gimlet.dialects.onnx:Onnx",
    "placement": "gimlet.dialects.placement:Placement",
    "sram": "gimlet.dialects.sram:Sram",
}


def load(name: str) -> Dialect:
    """The dialect called `name`. KeyError if there is none."""
    module, _, attribute = DIALECTS[name].partition(":")
    dialect: Dialect = getattr(import_module(module), attribute)
    return dialect


def factories() -> dict[str, Callable[[], Dialect]]:
    """For each name a function that loads the dialect, as xDSL's contexts and universes take them."""
    return {name: partial(load, name) for name in DIALECTS}
