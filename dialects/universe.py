"""What xDSL's own tools find of gimlet, through the `xdsl.universe` entry point: its dialects and passes, unloaded.

The table of passes is a layer above and is imported by name.
"""

from __future__ import annotations

from importlib import import_module

from xdsl.universe import Universe

from gimlet.dialects import registry

GIMLET_UNIVERSE = Universe(
    all_dialects=registry.factories(), all_passes=import_module("gimlet.passes.registry").factories()
)
