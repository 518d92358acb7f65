"""`--verify`: a bundle that was just written, against the model it was compiled from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gimlet.compiler.checking.compare import Comparison, compare
from gimlet.compiler.checking.reference import reference_of
from gimlet.compiler.sources import Source
from gimlet.runtime.bundle import open_bundle
from gimlet.runtime.random_inputs import random_inputs


def verify_bundle(path: Path, source: Source, seed: int = 0) -> list[Comparison]:
    """Compares a bundle with its source at the optimum of every dimension and, where there are any, at the minimum.

    Errors as those of running the bundle and of running the source.
    """
    bundle = open_bundle(path)
    reference = reference_of(source)
    dims = bundle.manifest.dims
    sizes = [{name: bound.optimum for name, bound in dims.items()}]
    if dims:
        sizes.append({name: bound.minimum for name, bound in dims.items()})
    return [
        replace(compare(bundle, reference, random_inputs(bundle.manifest, seed + index, each)), sizes=each)
        for index, each in enumerate(sizes)
    ]
