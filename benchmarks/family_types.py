"""Small random models of transformers' families in float32, bfloat16 and float16, against PyTorch.

    python benchmarks/family_types.py [--types float32,bfloat16,float16] [NAME…]

Each is traced at one size and, where it has a dynamic dimension, run at another too. The error is the largest
difference to PyTorch in float32 on the same (rounded) weights and inputs, relative to each output's largest value;
beside it is that of PyTorch in the same type. A row is good if the first is at most twice the second and two units of
rounding (16 in float32, where PyTorch is the reference itself).
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from family_configs import FAMILIES, Model
from torch.export import Dim
from torch.utils import _pytree

import gimlet
from gimlet.runtime.errors import GimletError

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def measure(model: Model, dtype: torch.dtype) -> str:
    """The columns of a row behind family and type: result, ops, our error, PyTorch's error."""
    module = model.module().to(dtype)
    exact = copy.deepcopy(module).float()
    runs = [_cast(inputs, dtype) for inputs in model.inputs()]
    try:
        errors = [largest_error(_outputs(exact, _cast(each, torch.float32)), _outputs(module, each)) for each in runs]
    except (RuntimeError, TypeError, ValueError) as error:
        return f"PyTorch does not run it: {str(error).splitlines()[0]} | | | "
    shapes = model.shapes(Dim) if len(runs) > 1 else None
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = gimlet.compile(module, kwargs=runs[0], dynamic_shapes=shapes, output=Path(folder) / "m.gimlet")
            with gimlet.load(bundle.path) as program:
                found = [numbers_of(program(**copy.deepcopy(each))) for each in runs]
        except GimletError as error:
            return f"no: {' '.join(str(error).split())} | | | "
    ours = [
        largest_error(_outputs(exact, _cast(each, torch.float32)), leaves)
        for each, leaves in zip(runs, found, strict=True)
    ]
    ops = sum(segment.ops for segment in bundle.manifest.segments)
    good = max(ours) <= 2 * max(errors) + 2 * torch.finfo(dtype).eps * (8 if dtype == torch.float32 else 1)
    return f"{'yes' if good else 'NOT THE SAME'} | {ops} | {max(ours):.1e} | {max(errors):.1e}"


def _cast(inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {name: value.to(dtype) if value.is_floating_point() else value.clone() for name, value in inputs.items()}


def _outputs(module: torch.nn.Module, inputs: dict[str, Any]) -> list[np.ndarray]:
    with torch.no_grad():
        return numbers_of(module(**copy.deepcopy(inputs)))


def numbers_of(outputs: Any) -> list[np.ndarray]:
    """The outputs that are numbers with a point, as float64."""
    return list(_arrays(outputs))


def _arrays(outputs: Any) -> Iterator[np.ndarray]:
    for leaf in _pytree.tree_leaves(outputs):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            yield leaf.double().numpy()
        elif isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "biu":
            yield leaf.astype(np.float64)


def largest_error(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """Infinite where a shape differs, or where only one has a number."""
    if [each.shape for each in expected] != [each.shape for each in found]:
        return float("inf")
    worst = 0.0
    for wanted, array in zip(expected, found, strict=True):
        finite = np.isfinite(wanted)
        if not np.array_equal(finite, np.isfinite(array)):
            # What masks with the least number of a type has infinities in float32 at other places than in that type.
            finite &= np.isfinite(array)
        if finite.any():
            scale = max(float(np.abs(wanted[finite]).max()), 1e-6)
            worst = max(worst, float(np.abs(wanted - array)[finite].max()) / scale)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(FAMILIES)}")
    parser.add_argument("--types", default=",".join(TYPES), help="of the weights and inputs")
    arguments = parser.parse_args()
    print("| family | type | same | ops | error | PyTorch's | s |\n|---|---|---|---|---|---|---|")
    for name in arguments.names or FAMILIES:
        for dtype in arguments.types.split(","):
            start = time.perf_counter()
            row = measure(FAMILIES[name], TYPES[dtype])
            print(f"| {name} | {dtype} | {row} | {time.perf_counter() - start:.0f} |", flush=True)


if __name__ == "__main__":
    main()
