"""Compiles a case for this machine and compares it with PyTorch at two sizes."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree

import gimlet
from gimlet.runtime.errors import GimletError
from torch_zoo.case import OTHER, TRACED, Case

TOLERANCE = 2e-5


def measure(case: Case) -> str:
    """Nothing if the case computes what PyTorch does; else why it does not."""
    module, shapes = case.module(), case.dynamic_shapes()
    sizes = (TRACED, OTHER) if shapes else (TRACED,)
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = gimlet.compile(
                module, copy.deepcopy(case.values(TRACED)), dynamic_shapes=shapes, output=Path(folder) / "m.gimlet"
            )
            with gimlet.load(bundle.path) as program:
                found = [_pytree.tree_leaves(program(*copy.deepcopy(case.values(at)))) for at in sizes]
        except GimletError as error:
            return " ".join(str(error).split())
    for at, leaves in zip(sizes, found, strict=True):
        with torch.no_grad():
            expected = _pytree.tree_leaves(module(*copy.deepcopy(case.values(at))))
        said = _difference(expected, leaves)
        if said:
            return f"at {at}: {said}" if shapes else said
    return ""


def _difference(expected: list[Any], found: list[Any]) -> str:
    if len(expected) != len(found):
        return f"{len(found)} outputs for {len(expected)}"
    for wanted, leaf in zip(expected, found, strict=True):
        if not isinstance(wanted, torch.Tensor):
            continue
        exact, array = wanted.numpy(), np.asarray(leaf)
        if (exact.dtype, exact.shape) != (array.dtype, array.shape):
            return f"{array.dtype}{array.shape} for {exact.dtype}{exact.shape}"
        if exact.dtype.kind != "f":
            if not np.array_equal(exact, array):
                return "other integers"
            continue
        finite = np.isfinite(exact)
        if not np.array_equal(exact[~finite], array[~finite], equal_nan=True):
            return "other infinities or NaN"
        scale = max(float(np.abs(exact[finite]).max(initial=0)), 1e-6)
        off = float(np.abs(array[finite].astype(np.float64) - exact[finite]).max(initial=0)) / scale
        if not off <= TOLERANCE:
            return f"off by {off:.1e}"
    return ""
