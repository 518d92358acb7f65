"""Small models of many families: traced at one size, compiled for this machine, and run at others against PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from families import FAMILIES
from torch.utils import _pytree

import gimlet

QUICK = ("Llama with cache", "gpt-oss", "diffusion UNet block")


CASES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.full) for name in FAMILIES]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.full) for name in FAMILIES]
)
def test_a_family_computes_what_pytorch_does(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]()
    module, traced = family.module(), family.inputs(family.sizes(1))
    shapes = family.dynamic_shapes(traced)
    bundle = gimlet.compile(module, kwargs=traced, dynamic_shapes=shapes, output=tmp_path / "m.gimlet")
    assert len(bundle.manifest.dims) == len(family.dims)
    with gimlet.load(bundle.path) as program:
        for which in range(3):
            inputs = family.inputs(family.sizes(which))
            with torch.no_grad():
                expected = [leaf for leaf in _pytree.tree_leaves(module(**inputs)) if isinstance(leaf, torch.Tensor)]
            found = [leaf for leaf in _pytree.tree_leaves(program(**inputs)) if isinstance(leaf, np.ndarray)]
            assert [leaf.shape for leaf in found] == [tuple(leaf.shape) for leaf in expected]
            for array, tensor in zip(found, expected, strict=True):
                largest = np.abs(tensor.numpy()).max(initial=1e-6)
                assert np.abs(array - tensor.numpy()).max(initial=0) <= 1e-5 * largest
