"""PyTorch modules and exported programs, from `gimlet.compile` to the right numbers on three kinds of silicon."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import gimlet
from gimlet.compiler.checking.numerics import deviation
from gimlet.compiler.checking.verify import verify_bundle
from gimlet.compiler.sources import open_source

RACK = Path(__file__).resolve().parents[2] / "examples" / "topologies" / "rack.toml"


class ConvNet(torch.nn.Module):
    """A small convolutional classifier with a residual branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, 2, 1), torch.nn.BatchNorm2d(16), torch.nn.Hardswish())
        self.branch = torch.nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.mix = torch.nn.Conv2d(16, 16, 1)
        self.head = torch.nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.mix(torch.nn.functional.silu(self.branch(x)))
        return self.head(torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)).softmax(-1)


class Block(torch.nn.Module):
    """One transformer block, with its mask as a keyword and two outputs."""

    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norms = torch.nn.ModuleList([torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)])
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, width)
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(width, 4 * width), torch.nn.GELU(), torch.nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor, *, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        batch, length, width = x.shape
        parts = self.qkv(self.norms[0](x)).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5 + mask[:, None, None, :]
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))
        return {"hidden": x + self.mlp(self.norms[1](x)), "scores": scores}


def block() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...], dict[str, torch.Tensor], dict[str, dict[int, object]]]:
    torch.manual_seed(0)
    batch, length = torch.export.Dim("batch", min=1, max=4), torch.export.Dim("length", min=2, max=64)
    inputs = (torch.randn(2, 8, 64),), {"mask": torch.zeros(2, 8)}
    return Block().eval(), *inputs, {"x": {0: batch, 1: length}, "mask": {0: batch, 1: length}}


def test_a_module_on_three_devices(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ConvNet().eval()
    example = torch.randn(2, 3, 32, 32)
    bundle = gimlet.compile(
        model,
        (example,),
        dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=8)}},
        topology=RACK,
        min_shares={"gpu0": 0.1, "sram0": 0.2, "cpu": 0.1},
        output=tmp_path / "net.gimlet",
    )
    assert {segment.device for segment in bundle.manifest.segments} == {"cpu", "gpu0", "sram0"}
    with gimlet.load(bundle.path, emulate_missing=True) as program:
        for batch in (1, 2, 5):
            x = torch.randn(batch, 3, 32, 32)
            (found,) = program(x=x.numpy()).values()
            with torch.no_grad():
                assert deviation(found, model(x).numpy()).within("fp32")


def test_keyword_inputs_and_nested_outputs(tmp_path: Path) -> None:
    model, args, kwargs, shapes = block()
    bundle = gimlet.compile(model, args, kwargs=kwargs, dynamic_shapes=shapes, output=tmp_path / "block.gimlet")
    assert sorted(bundle.manifest.dims) == ["batch", "length"]
    with gimlet.load(bundle.path) as program:
        x, mask = torch.randn(3, 11, 64), torch.randn(3, 11)
        found = program(x=x.numpy(), mask=mask.numpy())
    with torch.no_grad():
        wanted = model(x, mask=mask)
    for value, name in zip(found.values(), ("hidden", "scores"), strict=True):
        assert deviation(value, wanted[name].numpy()).within("fp32")


def test_an_exported_program_from_a_file(tmp_path: Path) -> None:
    model, args, kwargs, shapes = block()
    torch.export.save(torch.export.export(model, args, kwargs, dynamic_shapes=shapes), tmp_path / "block.pt2")
    bundle = gimlet.compile(str(tmp_path / "block.pt2"), output=tmp_path / "block.gimlet")
    for found in verify_bundle(bundle.path, open_source(str(tmp_path / "block.pt2"))):
        assert found.reference == "torch"
        assert found.ok, found.outputs


def test_sizes_out_of_range_are_refused(tmp_path: Path) -> None:
    model, args, kwargs, shapes = block()
    bundle = gimlet.compile(model, args, kwargs=kwargs, dynamic_shapes=shapes, output=tmp_path / "block.gimlet")
    with gimlet.load(bundle.path) as program:
        for size in (0, 5, 9):
            with pytest.raises(gimlet.runtime.InputError, match="batch"):
                program(x=np.zeros((size, 8, 64), np.float32), mask=np.zeros((size, 8), np.float32))
