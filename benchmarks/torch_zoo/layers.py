"""Modules of torch.nn with weights or windows: convolutions, pools, norms, recurrent ones, attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from torch_zoo.case import Case, Input, f, i, layer, p

_IMAGES: dict[int, tuple[int | str, ...]] = {1: ("n", 4, 12), 2: ("n", 4, 9, 10), 3: ("n", 4, 6, 7, 8)}


def _images(rank: int, channels: int = 4) -> Input:
    return f("n", channels, *_IMAGES[rank][2:])


def _of_rank(name: str, rank: int, *args: Any, given: tuple[Any, ...] | None = None, **settings: Any) -> Case:
    """A layer of a class with the number of its dimensions in its name, "nn.{name}{rank}d"."""
    made = getattr(nn, f"{name}{rank}d")
    said = ", ".join([*map(str, args), *(f"{key}={value}" for key, value in settings.items())])
    return layer(f"nn.{name}{rank}d({said})", lambda: made(*args, **settings), *(given or (_images(rank),)))


_CONVOLUTIONS = [
    case
    for rank in (1, 2, 3)
    for case in (
        _of_rank("Conv", rank, 4, 6, 3),
        _of_rank("Conv", rank, 4, 6, 3, padding=1, stride=2, bias=False),
        _of_rank("Conv", rank, 4, 6, 3, padding="same", dilation=2),
        _of_rank("Conv", rank, 4, 6, 4, padding="same"),
        _of_rank("Conv", rank, 4, 6, 3, padding="valid", groups=2),
        _of_rank("Conv", rank, 4, 8, 3, groups=4),
        _of_rank("Conv", rank, 4, 6, 3, padding=2, padding_mode="circular"),
        _of_rank("Conv", rank, 4, 6, 3, padding=1, padding_mode="replicate"),
        _of_rank("ConvTranspose", rank, 4, 6, 3),
        _of_rank("ConvTranspose", rank, 4, 6, 3, stride=2, padding=1, output_padding=1),
        _of_rank("ConvTranspose", rank, 4, 6, 3, groups=2, dilation=2),
    )
]
_CONVOLUTIONS += [
    _of_rank("Conv", 1, 4, 6, 3, padding=1, padding_mode="reflect"),
    _of_rank("Conv", 2, 4, 6, 3, padding=1, padding_mode="reflect"),
    _of_rank("Conv", 3, 4, 6, 3, padding=1, padding_mode="reflect"),
    layer("nn.Conv2d, asymmetric", lambda: nn.Conv2d(4, 6, (1, 3), (2, 1), (0, 2), (1, 2)), f("n", 4, "m", 9)),
    layer("nn.Conv1d, any length", lambda: nn.Conv1d(4, 6, 3, padding=1), f("n", 4, "m")),
    layer("nn.Conv1d, no batch", lambda: nn.Conv1d(4, 6, 3), f(4, 12)),
    layer("nn.Conv2d, no batch", lambda: nn.Conv2d(4, 6, 3), f(4, 9, 9)),
    layer("nn.ConvTranspose1d, any length", lambda: nn.ConvTranspose1d(4, 6, 3, 2), f("n", 4, "m")),
    layer("nn.ConvTranspose2d, no batch", lambda: nn.ConvTranspose2d(4, 6, 3), f(4, 9, 9)),
    layer("nn.Unfold", lambda: nn.Unfold(3, padding=1, stride=2), f("n", 4, 8, 9)),
    layer("nn.Unfold, dilated", lambda: nn.Unfold((2, 3), dilation=2), f("n", 4, 8, 9)),
    layer("nn.Fold", lambda: nn.Fold((6, 7), (2, 3)), f("n", 12, 25)),
    layer("nn.Fold, strided", lambda: nn.Fold((6, 8), 2, stride=2, padding=0), f("n", 12, 12)),
]

_POOLS = [
    case
    for rank in (1, 2, 3)
    for case in (
        _of_rank("MaxPool", rank, 3),
        _of_rank("MaxPool", rank, 3, stride=2, padding=1),
        _of_rank("MaxPool", rank, 3, stride=2, ceil_mode=True),
        _of_rank("MaxPool", rank, 2, dilation=2),
        _of_rank("MaxPool", rank, 2, return_indices=True, given=(p("n", 4, *_IMAGES[rank][2:]),)),
        _of_rank("AvgPool", rank, 3),
        _of_rank("AvgPool", rank, 3, stride=2, padding=1),
        _of_rank("AvgPool", rank, 3, stride=2, padding=1, count_include_pad=False),
        _of_rank("AvgPool", rank, 3, stride=2, ceil_mode=True),
        _of_rank("AvgPool", rank, 3, stride=2, padding=1, ceil_mode=True),
        _of_rank("AdaptiveAvgPool", rank, 1),
        _of_rank("AdaptiveAvgPool", rank, 3),
        _of_rank("AdaptiveAvgPool", rank, 5),
        _of_rank("AdaptiveMaxPool", rank, 1),
        _of_rank("AdaptiveMaxPool", rank, 3),
        _of_rank("AdaptiveMaxPool", rank, 5),
        _of_rank("AdaptiveMaxPool", rank, 3, return_indices=True, given=(p("n", 4, *_IMAGES[rank][2:]),)),
        _of_rank("LPPool", rank, 2, 3),
        _of_rank("LPPool", rank, 3, 2, stride=2, ceil_mode=True, given=(f("n", 4, *_IMAGES[rank][2:]),)),
    )
]
_POOLS += [
    _of_rank("AvgPool", 2, 3, divisor_override=5),
    _of_rank("AvgPool", 3, 2, divisor_override=3),
    layer("nn.AdaptiveAvgPool2d((None, 3))", lambda: nn.AdaptiveAvgPool2d((None, 3)), f("n", 4, 6, 8)),
    layer("nn.AdaptiveAvgPool2d((2, 3))", lambda: nn.AdaptiveAvgPool2d((2, 3)), f("n", 4, 7, 8)),
    layer("nn.AdaptiveAvgPool3d((2, None, 3))", lambda: nn.AdaptiveAvgPool3d((2, None, 3)), f("n", 4, 6, 7, 8)),
    layer("nn.AdaptiveMaxPool2d((None, 3))", lambda: nn.AdaptiveMaxPool2d((None, 3)), f("n", 4, 6, 8)),
    layer("nn.AdaptiveAvgPool2d(1), any size", lambda: nn.AdaptiveAvgPool2d(1), f("n", 4, "m", 8)),
    layer("nn.AdaptiveMaxPool2d(1), any size", lambda: nn.AdaptiveMaxPool2d(1), f("n", 4, "m", 8)),
    layer("nn.AdaptiveAvgPool1d(3), any size", lambda: nn.AdaptiveAvgPool1d(3), f("n", 4, "m")),
    layer("nn.MaxPool2d, any size", lambda: nn.MaxPool2d(2), f("n", 4, "m", 8)),
    layer("nn.AvgPool2d, any size", lambda: nn.AvgPool2d(2), f("n", 4, "m", 8)),
    layer("nn.MaxPool2d, no batch", lambda: nn.MaxPool2d(2), f(4, 9, 8)),
    layer("nn.AdaptiveAvgPool2d, no batch", lambda: nn.AdaptiveAvgPool2d(3), f(4, 9, 8)),
]


class _Unpool(nn.Module):
    """A pool and its inverse."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.pool = getattr(nn, f"MaxPool{rank}d")(2, return_indices=True)
        self.unpool = getattr(nn, f"MaxUnpool{rank}d")(2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.unpool(*self.pool(values), output_size=values.shape)


class _Fractional(nn.Module):
    """A fractional pool whose windows are given: by itself, they are random."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        samples = torch.linspace(0.2, 0.8, 4 * rank).reshape(1, 4, rank)
        self.pool = getattr(nn, f"FractionalMaxPool{rank}d")(2, output_size=3, _random_samples=samples)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.pool(values)


_POOLS += [
    *(
        layer(f"nn.MaxUnpool{rank}d", lambda rank=rank: _Unpool(rank), p("n", 4, *(8, 6, 4)[:rank]))
        for rank in (1, 2, 3)
    ),
    layer("nn.FractionalMaxPool2d", lambda: _Fractional(2), f(1, 4, 9, 9)),
    layer("nn.FractionalMaxPool3d", lambda: _Fractional(3), f(1, 4, 9, 9, 9)),
]

_NORMS = [
    *(_of_rank("BatchNorm", rank, 4) for rank in (1, 2, 3)),
    *(_of_rank("BatchNorm", rank, 4, affine=False) for rank in (1, 2, 3)),
    *(_of_rank("InstanceNorm", rank, 4, affine=True) for rank in (1, 2, 3)),
    *(_of_rank("InstanceNorm", rank, 4, track_running_stats=True) for rank in (1, 2, 3)),
    layer("nn.BatchNorm1d, two dimensions", lambda: nn.BatchNorm1d(4), f("n", 4)),
    layer(
        "nn.BatchNorm2d(track_running_stats=False)", lambda: nn.BatchNorm2d(4, track_running_stats=False), f(3, 4, 5, 6)
    ),
    layer("nn.SyncBatchNorm", lambda: nn.SyncBatchNorm(4), f("n", 4, 5)),
    layer("nn.InstanceNorm1d, no batch", lambda: nn.InstanceNorm1d(4), f(4, 9)),
    layer("nn.GroupNorm", lambda: nn.GroupNorm(2, 4), _images(2)),
    layer("nn.GroupNorm, two dimensions", lambda: nn.GroupNorm(2, 4), f("n", 4)),
    layer("nn.GroupNorm(affine=False)", lambda: nn.GroupNorm(4, 4, affine=False), _images(1)),
    layer("nn.LayerNorm", lambda: nn.LayerNorm(8), f("n", "m", 8)),
    layer("nn.LayerNorm, two axes", lambda: nn.LayerNorm((5, 8)), f("n", 3, 5, 8)),
    layer("nn.LayerNorm(bias=False)", lambda: nn.LayerNorm(8, bias=False), f("n", "m", 8)),
    layer("nn.LayerNorm(elementwise_affine=False)", lambda: nn.LayerNorm(8, elementwise_affine=False), f("n", 8)),
    layer("nn.RMSNorm", lambda: nn.RMSNorm(8), f("n", "m", 8)),
    layer("nn.RMSNorm, two axes", lambda: nn.RMSNorm((5, 8), eps=1e-3), f("n", 5, 8)),
    layer("nn.LocalResponseNorm", lambda: nn.LocalResponseNorm(3), _images(2)),
    layer("nn.LocalResponseNorm, even", lambda: nn.LocalResponseNorm(2, alpha=0.1), _images(1)),
    layer("nn.CrossMapLRN2d", lambda: nn.CrossMapLRN2d(3), _images(2)),
    layer("spectral_norm", lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 5)), f("n", 8)),
    layer("weight_norm", lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 5)), f("n", 8)),
    layer(
        "weight_norm of a convolution", lambda: nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 3)), _images(1)
    ),
    layer("orthogonal", lambda: nn.utils.parametrizations.orthogonal(nn.Linear(8, 5)), f("n", 8)),
]


class _Recurrent(nn.Module):
    """A recurrent layer that is given its first states."""

    def __init__(self, made: nn.Module) -> None:
        super().__init__()
        self.made = made

    def forward(self, values: torch.Tensor, *states: torch.Tensor) -> Any:
        return self.made(values, states if len(states) > 1 else states[0])


_RECURRENT = [
    layer("nn.LSTM", lambda: nn.LSTM(5, 7), f("m", "n", 5)),
    layer(
        "nn.LSTM, two layers, both ways", lambda: nn.LSTM(5, 7, 2, bidirectional=True, batch_first=True), f("n", "m", 5)
    ),
    layer("nn.LSTM(bias=False)", lambda: nn.LSTM(5, 7, bias=False), f("m", "n", 5)),
    layer("nn.LSTM, no batch", lambda: nn.LSTM(5, 7), f("m", 5)),
    layer("nn.LSTM, states", lambda: _Recurrent(nn.LSTM(5, 7)), f("m", "n", 5), f(1, "n", 7), f(1, "n", 7)),
    layer("nn.LSTM(proj_size=3)", lambda: nn.LSTM(5, 7, proj_size=3), f(6, "n", 5)),
    layer("nn.GRU", lambda: nn.GRU(5, 7), f("m", "n", 5)),
    layer("nn.GRU, two layers, both ways", lambda: nn.GRU(5, 7, 2, bidirectional=True), f("m", "n", 5)),
    layer("nn.GRU, states", lambda: _Recurrent(nn.GRU(5, 7)), f("m", "n", 5), f(1, "n", 7)),
    layer("nn.RNN", lambda: nn.RNN(5, 7, batch_first=True), f("n", "m", 5)),
    layer("nn.RNN(nonlinearity=relu)", lambda: nn.RNN(5, 7, 2, nonlinearity="relu"), f("m", "n", 5)),
    layer("nn.RNNCell", lambda: nn.RNNCell(5, 7), f("n", 5), f("n", 7)),
    layer("nn.RNNCell, no state", lambda: nn.RNNCell(5, 7, nonlinearity="relu"), f("n", 5)),
    layer("nn.GRUCell", lambda: nn.GRUCell(5, 7), f("n", 5), f("n", 7)),
    layer("nn.LSTMCell", lambda: nn.LSTMCell(5, 7), f("n", 5)),
]


def _attention(**settings: Any) -> nn.Module:
    return nn.MultiheadAttention(8, 2, batch_first=True, **settings)


class _Itself(nn.Module):
    """Attention of values to themselves, with masks."""

    def __init__(self, made: nn.Module, **settings: Any) -> None:
        super().__init__()
        self.made, self.settings = made, settings

    def forward(
        self, values: torch.Tensor, padding: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> Any:
        return self.made(values, values, values, padding, attn_mask=mask, **self.settings)


class _Padded(nn.Module):
    """Transformer layers under a causal mask and one of padding."""

    def __init__(self, made: nn.Module) -> None:
        super().__init__()
        self.made = made

    def forward(self, values: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(values.shape[1])
        padding = torch.zeros(values.shape[:2], dtype=torch.bool)
        if memory is None:
            return self.made(values, mask, is_causal=True)
        return self.made(values, memory, tgt_mask=mask, tgt_key_padding_mask=padding)


def _encoder_layer(**settings: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, **{"batch_first": True, **settings})


def _decoder_layer(**settings: Any) -> nn.Module:
    return nn.TransformerDecoderLayer(8, 2, 16, batch_first=True, **settings)


_QKV = (f("n", "m", 8), f("n", 5, 8), f("n", 5, 8))
_ATTENTION = [
    layer("nn.MultiheadAttention", _attention, *_QKV),
    layer("nn.MultiheadAttention of itself", lambda: _Itself(_attention()), f("n", "m", 8)),
    layer("nn.MultiheadAttention, no weights", lambda: _Itself(_attention(), need_weights=False), f("n", "m", 8)),
    layer(
        "nn.MultiheadAttention, weights of heads",
        lambda: _Itself(_attention(), average_attn_weights=False),
        f("n", 5, 8),
    ),
    layer(
        "nn.MultiheadAttention, padding",
        lambda: _Itself(_attention()),
        f("n", 5, 8),
        Input(("n", 5), lambda s, g: torch.arange(5).expand(s) > 3),
    ),
    layer("nn.MultiheadAttention, mask", lambda: _Itself(_attention()), f("n", 5, 8), None, f(5, 5)),
    layer(
        "nn.MultiheadAttention, own widths",
        lambda: _attention(kdim=6, vdim=7),
        f("n", "m", 8),
        f("n", 5, 6),
        f("n", 5, 7),
    ),
    layer(
        "nn.MultiheadAttention(add_bias_kv, add_zero_attn)",
        lambda: _attention(add_bias_kv=True, add_zero_attn=True),
        *_QKV,
    ),
    layer(
        "nn.MultiheadAttention, length first",
        lambda: nn.MultiheadAttention(8, 2),
        f("m", "n", 8),
        f(5, "n", 8),
        f(5, "n", 8),
    ),
    layer("nn.MultiheadAttention, no batch", lambda: nn.MultiheadAttention(8, 2), f("m", 8), f(5, 8), f(5, 8)),
    layer("nn.TransformerEncoderLayer", _encoder_layer, f("n", "m", 8)),
    layer(
        "nn.TransformerEncoderLayer, norm first",
        lambda: _encoder_layer(norm_first=True, activation="gelu"),
        f("n", "m", 8),
    ),
    layer(
        "nn.TransformerEncoderLayer, length first",
        lambda: _encoder_layer(batch_first=False, bias=False),
        f("m", "n", 8),
    ),
    layer("nn.TransformerEncoderLayer, causal", lambda: _Padded(_encoder_layer()), f("n", 5, 8)),
    layer("nn.TransformerEncoder", lambda: nn.TransformerEncoder(_encoder_layer(), 2), f("n", "m", 8)),
    layer("nn.TransformerDecoderLayer", _decoder_layer, f("n", "m", 8), f("n", 5, 8)),
    layer("nn.TransformerDecoderLayer, masks", lambda: _Padded(_decoder_layer()), f("n", 5, 8), f("n", 4, 8)),
    layer(
        "nn.TransformerDecoder",
        lambda: nn.TransformerDecoder(_decoder_layer(norm_first=True), 2),
        f("n", "m", 8),
        f("n", 5, 8),
    ),
    layer("nn.Transformer", lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), f("n", 5, 8), f("n", "m", 8)),
]


class _Bag(nn.Module):
    """A bag of embeddings with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.made = nn.EmbeddingBag(12, 5, mode="sum")

    def forward(self, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return self.made(ids, per_sample_weights=weights)


_LINEAR = [
    layer("nn.Linear", lambda: nn.Linear(8, 5), f("n", "m", 8)),
    layer("nn.Linear(bias=False), one row", lambda: nn.Linear(8, 5, bias=False), f(8)),
    layer("nn.Bilinear", lambda: nn.Bilinear(4, 5, 6), f("n", 4), f("n", 5)),
    layer("nn.Identity", nn.Identity, f("n", 4)),
    layer("nn.LazyLinear", lambda: nn.Sequential(nn.Linear(8, 5), nn.Unflatten(1, (5, 1)), nn.Flatten()), f("n", 8)),
    layer("nn.Embedding", lambda: nn.Embedding(12, 5), i(12, "n", "m")),
    layer("nn.Embedding(padding_idx=0)", lambda: nn.Embedding(12, 5, padding_idx=0), i(12, "n", "m")),
    *(
        layer(f"nn.EmbeddingBag(mode={mode})", lambda mode=mode: nn.EmbeddingBag(12, 5, mode=mode), i(12, "n", 6))
        for mode in ("sum", "mean", "max")
    ),
    layer("nn.EmbeddingBag, offsets", lambda: nn.EmbeddingBag(12, 5, mode="mean"), i(12, 9), torch.tensor([0, 2, 5])),
    layer(
        "nn.EmbeddingBag, last offset",
        lambda: nn.EmbeddingBag(12, 5, mode="sum", include_last_offset=True),
        i(12, 9),
        torch.tensor([0, 2, 5, 9]),
    ),
    layer("nn.EmbeddingBag, weights", _Bag, i(12, "n", 6), f("n", 6)),
    layer("nn.EmbeddingBag(padding_idx=0)", lambda: nn.EmbeddingBag(12, 5, padding_idx=0), i(12, "n", 6)),
    layer(
        "nn.Dropout",
        lambda: nn.Sequential(nn.Dropout(), nn.Dropout1d(), nn.AlphaDropout(), nn.FeatureAlphaDropout()),
        f("n", 4, 5),
    ),
    layer("nn.Dropout2d, nn.Dropout3d", lambda: nn.Sequential(nn.Dropout2d(), nn.Dropout3d()), f("n", 4, 5, 6)),
]

LAYERS: list[Case] = [*_LINEAR, *_CONVOLUTIONS, *_POOLS, *_NORMS, *_RECURRENT, *_ATTENTION]
