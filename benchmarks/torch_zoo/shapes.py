"""Activations, losses, and what only moves or resizes values: torch.nn and torch.nn.functional."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from torch_zoo.case import Case, Input, f, function, i, layer, u

_ACTIVATIONS: dict[str, dict[str, Any]] = {
    "ELU": {"alpha": 0.7},
    "Hardshrink": {},
    "Hardsigmoid": {},
    "Hardtanh": {"min_val": -0.5, "max_val": 0.8},
    "Hardswish": {},
    "LeakyReLU": {"negative_slope": 0.2},
    "LogSigmoid": {},
    "PReLU": {},
    "ReLU": {},
    "ReLU6": {},
    "RReLU": {},
    "SELU": {},
    "CELU": {"alpha": 0.7},
    "GELU": {},
    "Sigmoid": {},
    "SiLU": {},
    "Mish": {},
    "Softplus": {"beta": 2, "threshold": 3},
    "Softshrink": {},
    "Softsign": {},
    "Tanh": {},
    "Tanhshrink": {},
    "Threshold": {"threshold": 0.1, "value": 20},
    "GLU": {},
    "Softmin": {"dim": 1},
    "Softmax": {"dim": 1},
    "LogSoftmax": {"dim": 1},
}

_OWN = [
    *(
        layer(f"nn.{name}", lambda name=name, s=s: getattr(nn, name)(**s), f("n", 4, 6))
        for name, s in _ACTIVATIONS.items()
    ),
    layer("nn.GELU(approximate=tanh)", lambda: nn.GELU(approximate="tanh"), f("n", 4)),
    layer("nn.PReLU of channels", lambda: nn.PReLU(4), f("n", 4, 6)),
    layer("nn.Softmax2d", nn.Softmax2d, f("n", 4, 5, 6)),
    layer("nn.ReLU(inplace=True)", lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True)), f("n", 6)),
    layer(
        "nn.AdaptiveLogSoftmaxWithLoss.log_prob",
        lambda: _LogProb(nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 12])),
        f("n", 8),
    ),
    function("F.gumbel_softmax of its own noise", lambda x: functional.softmax((x + 0.5) / 0.7, -1), f("n", 6)),
    function("F.normalize", lambda x: functional.normalize(x, dim=1), f("n", 6)),
    function("F.normalize(p=1)", lambda x: functional.normalize(x, p=1.0, dim=0), f("n", 6)),
]


class _LogProb(nn.Module):
    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made = made

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.made.log_prob(values)


_PAIR = (f("n", 6), f("n", 6))
_SIGNS = Input(("n",), lambda sizes, g: torch.ones(sizes) - 2 * (torch.arange(sizes[0]) % 2))
_LOSSES: dict[str, tuple[Any, ...]] = {
    "L1Loss": _PAIR,
    "MSELoss": _PAIR,
    "SmoothL1Loss": _PAIR,
    "HuberLoss": _PAIR,
    "CrossEntropyLoss": (f("n", 6), i(6, "n")),
    "NLLLoss": (f("n", 6), i(6, "n")),
    "PoissonNLLLoss": (f("n", 6), u("n", 6)),
    "GaussianNLLLoss": (f("n", 6), f("n", 6), u("n", 6)),
    "KLDivLoss": (f("n", 6), u("n", 6)),
    "BCELoss": (u("n", 6), u("n", 6)),
    "BCEWithLogitsLoss": (f("n", 6), u("n", 6)),
    "HingeEmbeddingLoss": (f("n"), _SIGNS),
    "SoftMarginLoss": (f("n"), _SIGNS),
    "CosineEmbeddingLoss": (f("n", 6), f("n", 6), _SIGNS),
    "MarginRankingLoss": (f("n"), f("n"), _SIGNS),
    "MultiLabelSoftMarginLoss": (f("n", 6), i(2, "n", 6)),
    "MultiLabelMarginLoss": (f(4, 6), i(6, 4, 6)),
    "MultiMarginLoss": (f("n", 6), i(6, "n")),
    "TripletMarginLoss": (f("n", 6), f("n", 6), f("n", 6)),
    "TripletMarginWithDistanceLoss": (f("n", 6), f("n", 6), f("n", 6)),
}

_ALL_LOSSES = [
    *(layer(f"nn.{name}", getattr(nn, name), *inputs) for name, inputs in _LOSSES.items()),
    layer(
        "nn.CrossEntropyLoss, weights",
        lambda: nn.CrossEntropyLoss(torch.linspace(0.1, 1, 6), ignore_index=2, label_smoothing=0.1),
        f("n", 6),
        i(6, "n"),
    ),
    layer("nn.CrossEntropyLoss, probabilities", nn.CrossEntropyLoss, f("n", 6), u("n", 6)),
    layer(
        "nn.CrossEntropyLoss, pixels", lambda: nn.CrossEntropyLoss(reduction="none"), f("n", 6, 3, 4), i(6, "n", 3, 4)
    ),
    layer("nn.NLLLoss2d, sum", lambda: nn.NLLLoss(reduction="sum"), f("n", 6, 3, 4), i(6, "n", 3, 4)),
    layer("nn.MSELoss(reduction=none)", lambda: nn.MSELoss(reduction="none"), *_PAIR),
    layer(
        "nn.CTCLoss",
        nn.CTCLoss,
        Input((10, 2, 6), lambda s, g: torch.randn(s, generator=g).log_softmax(2)),
        torch.randint(1, 6, (2, 4), generator=torch.Generator().manual_seed(1)),
        torch.tensor([10, 9]),
        torch.tensor([4, 3]),
    ),
    layer("nn.CosineSimilarity", nn.CosineSimilarity, *_PAIR),
    layer("nn.PairwiseDistance", nn.PairwiseDistance, *_PAIR),
    layer("nn.PairwiseDistance(p=1, keepdim)", lambda: nn.PairwiseDistance(p=1.0, keepdim=True), *_PAIR),
]

_PAD_NAMES = [
    *(
        (kind, rank)
        for kind in ("ConstantPad", "ReflectionPad", "ReplicationPad", "ZeroPad", "CircularPad")
        for rank in (1, 2, 3)
    ),
]


def _pad(kind: str, rank: int) -> nn.Module:
    amounts = (1, 2) * rank
    return getattr(nn, f"{kind}{rank}d")(amounts, *([1.5] if kind == "ConstantPad" else []))


def _resize(mode: str, rank: int, **settings: Any) -> Case:
    said = ", ".join(f"{key}={value}" for key, value in settings.items())
    sizes = (8, 6, 5)[:rank]
    return layer(f"nn.Upsample, {rank}d {mode}, {said}", lambda: nn.Upsample(mode=mode, **settings), f("n", 4, *sizes))


_MODES = (
    ("nearest", 1),
    ("nearest", 2),
    ("nearest", 3),
    ("nearest-exact", 1),
    ("nearest-exact", 2),
    ("nearest-exact", 3),
    ("linear", 1),
    ("bilinear", 2),
    ("bicubic", 2),
    ("trilinear", 3),
)
_RESIZES = [
    *(_resize(mode, rank, scale_factor=2.0) for mode, rank in _MODES),
    *(_resize(mode, rank, scale_factor=1.7) for mode, rank in _MODES),
    *(_resize(mode, rank, size=3) for mode, rank in _MODES),
    *(_resize(mode, rank, size=7, align_corners=True) for mode, rank in _MODES if "linear" in mode or "cubic" in mode),
    *(_resize(mode, 2, size=3, antialias=True) for mode in ()),
    function("F.interpolate(area)", lambda x: functional.interpolate(x, size=(3, 4), mode="area"), f("n", 4, 6, 8)),
    function(
        "F.interpolate(area, scale)",
        lambda x: functional.interpolate(x, scale_factor=0.5, mode="area"),
        f("n", 4, 6, 8),
    ),
    *(
        function(
            f"F.interpolate({mode}, antialias)",
            lambda x, mode=mode: functional.interpolate(x, size=(3, 4), mode=mode, antialias=True),
            f("n", 4, 7, 9),
        )
        for mode in ("bilinear", "bicubic")
    ),
    function(
        "F.interpolate to the size of another",
        lambda x, y: functional.interpolate(x, size=y.shape[2:], mode="bilinear"),
        f("n", 4, 6, 8),
        f("n", 4, "m", 9),
    ),
    function(
        "F.interpolate, any size",
        lambda x: functional.interpolate(x, scale_factor=2, mode="nearest"),
        f("n", 4, "m", 8),
    ),
    function(
        "F.interpolate, any size, bilinear",
        lambda x: functional.interpolate(x, scale_factor=1.5, mode="bilinear"),
        f("n", 4, "m", 8),
    ),
    function(
        "F.interpolate(recompute_scale_factor)",
        lambda x: functional.interpolate(x, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True),
        f("n", 4, 6, 8),
    ),
    layer("nn.UpsamplingNearest2d", lambda: nn.UpsamplingNearest2d(scale_factor=2), f("n", 4, 6, 8)),
    layer("nn.UpsamplingBilinear2d", lambda: nn.UpsamplingBilinear2d(scale_factor=2), f("n", 4, 6, 8)),
]

_GRID = Input(("n", 5, 6, 2), lambda sizes, g: torch.rand(sizes, generator=g) * 2.4 - 1.2)
_GRID_3D = Input(("n", 3, 5, 6, 3), lambda sizes, g: torch.rand(sizes, generator=g) * 2.4 - 1.2)


def _sample(mode: str, padding: str, align: bool) -> Case:
    return function(
        f"F.grid_sample({mode}, {padding}, align_corners={align})",
        lambda x, grid: functional.grid_sample(x, grid, mode, padding, align),
        f("n", 4, 7, 8),
        _GRID,
    )


_MOVES = [
    *(
        layer(f"nn.{kind}{rank}d", lambda kind=kind, rank=rank: _pad(kind, rank), f("n", 4, *(8, 6, 5)[:rank]))
        for kind, rank in _PAD_NAMES
    ),
    function("F.pad, negative", lambda x: functional.pad(x, (-1, 2, 1, -2)), f("n", 4, 6, 8)),
    function("F.pad, by a size", lambda x: functional.pad(x, (0, 16 - x.shape[1])), f("n", "m")),
    layer("nn.PixelShuffle", lambda: nn.PixelShuffle(2), f("n", 8, 3, 4)),
    layer("nn.PixelUnshuffle", lambda: nn.PixelUnshuffle(2), f("n", 2, 6, 8)),
    layer("nn.ChannelShuffle", lambda: nn.ChannelShuffle(2), f("n", 6, 3, 4)),
    layer("nn.Flatten(0, 1)", lambda: nn.Flatten(0, 1), f("n", "m", 4)),
    *(
        _sample(mode, padding, align)
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for align in (False, True)
    ),
    function(
        "F.grid_sample, 3d",
        lambda x, grid: functional.grid_sample(x, grid, align_corners=False),
        f("n", 4, 6, 7, 8),
        _GRID_3D,
    ),
    function(
        "F.affine_grid", lambda theta: functional.affine_grid(theta, (4, 3, 5, 6), align_corners=False), f(4, 2, 3)
    ),
    function(
        "F.affine_grid(align_corners)",
        lambda theta: functional.affine_grid(theta, (4, 3, 5, 6), align_corners=True),
        f(4, 2, 3),
    ),
    function(
        "F.affine_grid, 3d",
        lambda theta: functional.affine_grid(theta, (4, 3, 5, 6, 7), align_corners=False),
        f(4, 3, 4),
    ),
    function(
        "F.affine_grid and F.grid_sample",
        lambda x, theta: functional.grid_sample(
            x, functional.affine_grid(theta, x.shape, align_corners=False), align_corners=False
        ),
        f("n", 3, 5, 6),
        f("n", 2, 3),
    ),
    function("F.one_hot", lambda x: functional.one_hot(x, 7), i(7, "n", "m")),
    function("F.pdist", functional.pdist, f(5, 4)),
    function("F.temporal_shift", lambda x: torch.cat([x[:, 1:], x[:, :1]], 1), f("n", 5, 4)),
]

_HEADS = (f("n", 4, "m", 8), f("n", 4, 5, 8), f("n", 4, 5, 8))
_SELF = (f("n", 4, "m", 8), f("n", 4, "m", 8), f("n", 4, "m", 8))
_FEW = (f("n", 4, "m", 8), f("n", 2, "m", 8), f("n", 2, "m", 8))
_dot = functional.scaled_dot_product_attention
_ATTENTION = [
    function("F.scaled_dot_product_attention", _dot, *_HEADS),
    function("F.scaled_dot_product_attention(is_causal)", lambda q, k, v: _dot(q, k, v, is_causal=True), *_SELF),
    function(
        "F.scaled_dot_product_attention(is_causal), longer keys",
        lambda q, k, v: _dot(q, k, v, is_causal=True),
        f(2, 4, 3, 8),
        f(2, 4, 5, 8),
        f(2, 4, 5, 8),
    ),
    function(
        "F.scaled_dot_product_attention, flags",
        lambda q, k, v, m: _dot(q, k, v, m),
        *_HEADS,
        Input(("n", 1, "m", 5), lambda s, g: (torch.rand(s, generator=g) > 0.4) | (torch.arange(5) == 0)),
    ),
    function("F.scaled_dot_product_attention, values", lambda q, k, v, m: _dot(q, k, v, m), *_HEADS, f("m", 5)),
    function("F.scaled_dot_product_attention(scale)", lambda q, k, v: _dot(q, k, v, scale=0.3), *_HEADS),
    function("F.scaled_dot_product_attention(enable_gqa)", lambda q, k, v: _dot(q, k, v, enable_gqa=True), *_FEW),
    function(
        "F.scaled_dot_product_attention(enable_gqa, is_causal)",
        lambda q, k, v: _dot(q, k, v, is_causal=True, enable_gqa=True),
        *_FEW,
    ),
    function("F.scaled_dot_product_attention, three dimensions", _dot, f("n", "m", 8), f("n", 5, 8), f("n", 5, 8)),
    function("F.scaled_dot_product_attention, two dimensions", _dot, f("m", 8), f(5, 8), f(5, 8)),
    function(
        "F.scaled_dot_product_attention, five dimensions",
        _dot,
        f("n", 3, 4, "m", 8),
        f("n", 3, 4, 5, 8),
        f("n", 3, 4, 5, 8),
    ),
    function(
        "F.scaled_dot_product_attention, wider values", _dot, f("n", 4, "m", 8), f("n", 4, 5, 8), f("n", 4, 5, 12)
    ),
    function(
        "F.scaled_dot_product_attention, nothing allowed",
        lambda q, k, v, m: _dot(q, k, v, m),
        f(2, 4, 3, 8),
        f(2, 4, 5, 8),
        f(2, 4, 5, 8),
        torch.ones(3, 5, dtype=torch.bool).tril(-1),
    ),
]

SHAPES: list[Case] = [*_OWN, *_ALL_LOSSES, *_MOVES, *_RESIZES, *_ATTENTION]
