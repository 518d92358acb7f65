"""`gimlet-compile finish`: builds, on a machine that has the device, what a compile deferred."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gimlet.compiler.bundle import add_engines
from gimlet.runtime.bundle import Bundle, open_bundle
from gimlet.runtime.errors import InputError
from gimlet.runtime.manifest import Variant
from gimlet.targets import registry
from gimlet.targets.api import Reason


def finish_bundle(path: Path) -> list[str]:
    """Builds every engine of the bundle that is not there yet. Returns their paths in the bundle.

    MissingError where this machine lacks the device or a package; InputError where a build fails.
    """
    bundle = open_bundle(path)
    built: list[str] = []
    for segment in bundle.manifest.segments:
        for variant in segment.variants:
            if variant.deferred and any(bundle.entry(name) is None for name in variant.undigested):
                built += _finish(bundle, segment.id, variant)
    return built


def _finish(bundle: Bundle, segment: str, variant: Variant) -> list[str]:
    files = [name for name in variant.files if name not in variant.undigested]
    for name in files:
        bundle.open_file(name)
    with tempfile.TemporaryDirectory() as folder:
        found = registry.load(variant.executor).finish(bundle.root, files, Path(folder))
        if isinstance(found, Reason):
            raise InputError(found.message, where=segment)
        add_engines(bundle, found)
    return sorted(found)
