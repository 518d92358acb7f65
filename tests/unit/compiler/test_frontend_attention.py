"""Attention without heads, with one head of keys and values for all, and with one batch of them for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import gimlet

SHAPES = {
    "no heads": [(2, 5, 8), (2, 6, 8), (2, 6, 8), (2, 5, 6)],
    "no heads, one mask": [(2, 5, 8), (2, 6, 8), (2, 6, 8), (5, 6)],
    "no batch": [(5, 8), (6, 8), (6, 8)],
    "one head of keys": [(2, 4, 5, 8), (2, 1, 6, 8), (2, 1, 6, 8)],
    "one batch of keys": [(2, 4, 5, 8), (1, 4, 6, 8), (1, 4, 6, 8)],
}
QUICK = ("no heads", "one head of keys")


class Attention(torch.nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> tuple:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask), q + 1


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.full)], ids=str)
@pytest.mark.parametrize(
    "shapes", [pytest.param(SHAPES[name], id=name, marks=[] if name in QUICK else pytest.mark.full) for name in SHAPES]
)
def test_attention_is_what_pytorch_computes(shapes: list[tuple[int, ...]], dtype: torch.dtype, tmp_path: Path):
    torch.manual_seed(0)
    given = tuple(torch.randn(shape).to(dtype) for shape in shapes)
    gimlet.compile(Attention(), given, output=tmp_path / "m.gimlet")
    with gimlet.load(tmp_path / "m.gimlet") as program:
        found = np.asarray(program(*given)[0], np.float32)
    tolerance = 1e-5 if dtype is torch.float32 else 2**-6
    np.testing.assert_allclose(found, Attention()(*given)[0].float(), rtol=tolerance, atol=tolerance)
