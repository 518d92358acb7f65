"""Models of torchvision and timm with random weights, compiled for this machine, against PyTorch.

    python benchmarks/image_models.py [torchvision/NAME | timm/NAME | timm/NAME@PIXELS]…

Neither package is a dependency of the project: install them beside it (`pip install --no-deps torchvision timm`). Each
model is traced at a batch of two images and run at two and three. Errors are largest differences to PyTorch in float64
on the same weights, relative to each output's largest value; beside them those of PyTorch in float32.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import Dim
from torch.utils import _pytree

import gimlet
from gimlet.runtime.errors import GimletError

MODELS = (
    *("torchvision/alexnet", "torchvision/vgg11", "torchvision/squeezenet1_1", "torchvision/resnet18"),
    *("torchvision/mobilenet_v3_small", "torchvision/shufflenet_v2_x0_5", "torchvision/efficientnet_b0"),
    *("torchvision/mnasnet0_5", "torchvision/regnet_y_400mf", "torchvision/convnext_tiny", "torchvision/googlenet"),
    *("timm/resnet26d", "timm/efficientnetv2_rw_t", "timm/vit_tiny_patch16_224", "timm/convnextv2_atto"),
    *("timm/poolformer_s12", "timm/mobilevit_xxs", "timm/levit_128s", "timm/ghostnet_050", "timm/fastvit_t8"),
    *("timm/edgenext_xx_small", "timm/repvgg_a0", "timm/hrnet_w18_small", "timm/nfnet_f0"),
)
PIXELS = 64


def made(name: str) -> tuple[torch.nn.Module, int]:
    """A model in evaluation mode with the same weights every time, and the sides of its images."""
    package, _, rest = name.partition("/")
    model, _, pixels = rest.partition("@")
    size = int(pixels or PIXELS)
    torch.manual_seed(0)
    module = _random(package, model, size).eval()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            # As they are made, the signal fades until only the last bias is left.
            torch.nn.init.normal_(part.running_mean, std=0.1)
            torch.nn.init.uniform_(part.running_var, 0.5, 1.5)
    return module, size


def _random(package: str, model: str, size: int) -> torch.nn.Module:
    if package == "torchvision":
        return importlib.import_module("torchvision.models").get_model(model, weights=None)
    timm: Any = importlib.import_module("timm")
    try:
        return timm.create_model(model, pretrained=False, num_classes=10, img_size=size)
    except TypeError:
        return timm.create_model(model, pretrained=False, num_classes=10)


def _outputs(module: torch.nn.Module, images: torch.Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        leaves = _pytree.tree_leaves(module(images))
    return [leaf.double().numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _error(expected: list[np.ndarray], found: list[Any]) -> float:
    if [array.shape for array in expected] != [np.shape(array) for array in found]:
        return float("inf")
    return max(
        float(np.abs(exact - array).max() / max(np.abs(exact).max(), 1e-6))
        for exact, array in zip(expected, found, strict=True)
    )


def measure(name: str) -> str:
    """The columns behind a model's name: ops, our error, PyTorch's error."""
    module, size = made(name)
    batches = [torch.randn(count, 3, size, size) for count in (2, 3)]
    exact = copy.deepcopy(module).double()
    expected = [_outputs(exact, images.double()) for images in batches]
    with tempfile.TemporaryDirectory() as folder:
        try:
            shapes = ({0: Dim("batch", min=1, max=4)},)
            bundle = gimlet.compile(module, (batches[0],), dynamic_shapes=shapes, output=Path(folder) / "m.gimlet")
            with gimlet.load(bundle.path) as program:
                found = [_pytree.tree_leaves(program(images)) for images in batches]
        except GimletError as error:
            return f"no: {' '.join(str(error).split())} | | "
    ours = max(_error(*pair) for pair in zip(expected, found, strict=True))
    own = max(_error(wanted, _outputs(module, images)) for wanted, images in zip(expected, batches, strict=True))
    return f"{sum(segment.ops for segment in bundle.manifest.segments)} | {ours:.1e} | {own:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=MODELS)
    warnings.simplefilter("ignore")
    print("| model | ops | error | PyTorch's | s |\n|---|---|---|---|---|")
    for name in parser.parse_args().names:
        start = time.perf_counter()
        row = measure(name)
        print(f"| {name} | {row} | {time.perf_counter() - start:.0f} |", flush=True)


if __name__ == "__main__":
    main()
