"""Bundles whose target takes large operators whole keep a portable form that needs none of them."""

from pathlib import Path

import onnx
import torch

import gimlet
from gimlet.compiler.checking.verify import verify_bundle
from gimlet.compiler.sources import open_source


class Attention(torch.nn.Module):
    """Attention of four heads, between two projections."""

    def __init__(self) -> None:
        super().__init__()
        self.project = torch.nn.Linear(32, 96)
        self.out = torch.nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.project(x).reshape(batch, length, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-1, -2) * 8**-0.5).softmax(-1)
        return self.out((scores @ v).transpose(1, 2).reshape(batch, length, width))


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}


def test_the_portable_form_has_the_parts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, args = Attention().eval(), (torch.randn(2, 6, 32),)
    bundle = gimlet.compile(model, args, output=tmp_path / "attention.gimlet")
    (segment,) = bundle.manifest.segments
    assert segment.portable is not None
    whole, parts = segment.variants[0].files[0], segment.portable.files[0]
    assert whole != parts
    assert "Attention" in operators(bundle.path / whole)
    assert "Attention" not in operators(bundle.path / parts)
    for found in verify_bundle(bundle.path, open_source(model, args=args)):
        assert found.ok, found.outputs
