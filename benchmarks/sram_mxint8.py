"""MXINT8 of the SRAM machine against the vendor's own simulation of it: python benchmarks/sram_mxint8.py [--blocks N]

The oracle is `block_quantize` of dmx-compressor (PyPI, Apache-2.0), which its format MXINT8_K32 calls: C++, built here
when this is first run. Only that module is loaded; the package around it wants other versions of transformers.
Values are compared bit for bit, case by case; where they differ, the first difference is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from gimlet.runtime.sram.formats import MX_BLOCK, round_mxint8

Array = np.ndarray[Any, np.dtype[np.float32]]


def oracle() -> ModuleType:
    """The module `dmx.compressor.quant.quant_function` without the package that it is in."""
    path = Path(str(distribution("dmx-compressor").locate_file("dmx/compressor/quant/quant_function.py")))
    spec = importlib.util.spec_from_file_location("dmx_quant", path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{path} cannot be loaded: pip install --no-deps -r requirements/benchmarks.txt")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases(blocks: int) -> dict[str, Array]:
    """Blocks of 32 float32 by what is special about them, [blocks, 32] each."""
    random = np.random.default_rng(0)
    normal = random.standard_normal((blocks, MX_BLOCK)).astype(np.float32)
    scales = np.exp2(random.integers(-60, 60, (blocks, 1))).astype(np.float32)
    steps = random.integers(-255, 256, (blocks, MX_BLOCK)).astype(np.float32)
    steps[:, 0] = 128
    largest = np.clip(normal, -1, 1).astype(np.float32)
    largest[:, 0] = np.float32(2) - np.float32(2**-6) * random.random(blocks).astype(np.float32)
    wide = normal * np.exp2(random.integers(-30, 1, (blocks, MX_BLOCK))).astype(np.float32)
    infinite, missing = normal.copy(), normal.copy()
    infinite[np.arange(blocks), random.integers(0, MX_BLOCK, blocks)] = np.inf
    missing[np.arange(blocks), random.integers(0, MX_BLOCK, blocks)] = np.nan
    return {
        "normal": normal,
        "powers of two": np.exp2(np.floor(4 * normal)).astype(np.float32),
        "scaled by 2^-60 to 2^60": normal * scales,
        "30 octaves in a block": wide,
        "ties": steps / 2 * scales,
        "clamped": largest * scales,
        "zero": np.zeros((1, MX_BLOCK), np.float32),
        "subnormal": normal * np.float32(1e-40),
        "near the largest": np.clip(normal, -1, 1) * np.float32(3.4e38),
        "with an infinity": infinite,
        "with a NaN": missing,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=10_000)
    module = oracle()
    print("| blocks | values | equal | the first that is not: value, scale 2^, ours, theirs |\n|---|---|---|---|")
    for name, values in cases(parser.parse_args().blocks).items():
        ours = round_mxint8(values)
        given = torch.from_numpy(values)
        theirs = module.block_quantize(given, wl=8, dim=0, symmetric=True, rounding="nearest").numpy()
        equal = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        first = ""
        if not equal.all():
            at = tuple(np.argwhere(~equal)[0])
            exponent = np.floor(np.log2(np.abs(values[at[0]]).max()))
            first = f"{values[at]!r}, {exponent:.0f}, {ours[at]!r}, {theirs[at]!r}"
        print(f"| {name} | {values.size:,} | {equal.mean():.4%} | {first} |")


if __name__ == "__main__":
    main()
