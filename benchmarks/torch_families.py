"""Families of PyTorch models, compiled for this machine, against PyTorch.

    python benchmarks/torch_families.py [NAME…]

Each is traced with dynamic dimensions at one size and run at three. The error is the largest difference between the
bundle's outputs and PyTorch's, relative to the largest value of each output.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from families import FAMILIES, Family
from torch.utils import _pytree

import gimlet
from gimlet.runtime.errors import GimletError


@dataclass(frozen=True)
class Line:
    """What is known of a family: ops of the bundle, relative error, or why there is none."""

    dims: tuple[str, ...]
    ops: int = 0
    error: float = 0.0
    seconds: float = 0.0
    reason: str = ""


def measure(family: Family) -> Line:
    """Compiles a family and runs it at the traced, the smallest and other sizes."""
    start = time.perf_counter()
    module, traced = family.module(), family.inputs(family.sizes(1))
    shapes = family.dynamic_shapes(traced)
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = gimlet.compile(module, kwargs=traced, dynamic_shapes=shapes, output=Path(folder) / "m.gimlet")
        except GimletError as error:
            return Line(tuple(family.dims), reason=str(error).replace("\n", " "))
        with gimlet.load(bundle.path) as program:
            errors = [difference(module, program, family.inputs(family.sizes(which))) for which in (1, 0, 2)]
    ops = sum(segment.ops for segment in bundle.manifest.segments)
    return Line(tuple(bundle.manifest.dims), ops, max(errors), time.perf_counter() - start)


def difference(module: torch.nn.Module, program: gimlet.Program, inputs: dict[str, object]) -> float:
    """The largest difference to PyTorch, relative to each output's largest value. Both return the same structure."""
    with torch.no_grad():
        expected = [leaf for leaf in _pytree.tree_leaves(module(**inputs)) if isinstance(leaf, torch.Tensor)]
    found = [leaf for leaf in _pytree.tree_leaves(program(**inputs)) if isinstance(leaf, np.ndarray)]
    if [leaf.shape for leaf in found] != [tuple(leaf.shape) for leaf in expected]:
        raise ValueError(f"shapes {[leaf.shape for leaf in found]} for {[leaf.shape for leaf in expected]}")
    pairs = zip(found, expected, strict=True)
    return max(float(np.abs(a - b.numpy()).max() / max(np.abs(b.numpy()).max(), 1e-6)) for a, b in pairs if a.size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(FAMILIES)}")
    names = parser.parse_args().names or list(FAMILIES)
    print("| family | imports | ops | largest error | dynamic dimensions | s |\n|---|---|---|---|---|---|")
    for name in names:
        line = measure(FAMILIES[name]())
        result = f"no: {line.reason} | | " if line.reason else f"yes | {line.ops} | {line.error:.1e} "
        print(f"| {name} | {result}| {', '.join(line.dims)} | {line.seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
