"""Losses, activations, bags of embeddings, distances and attention of more dimensions."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from gimlet.compiler.frontends.written_out.inline import Written

_aten: Final = torch.ops.aten
_NO_REDUCTION, _MEAN, _MAX = 0, 1, 2


def _cross_entropy(
    scores: Tensor, target: Tensor, weight: Any = None, reduction: int = 1, ignored: int = -100, smoothing: float = 0.0
) -> Tensor:
    """As PyTorch documents `CrossEntropyLoss`: of classes, or of the probability of each class."""
    axis = 0 if scores.ndim == 1 else 1
    logs, count = torch.log_softmax(scores, axis), scores.shape[axis]
    weighted = logs
    if weight is not None:
        weighted = logs * weight.reshape([-1 if at == axis else 1 for at in range(scores.ndim)])
    if target.is_floating_point():
        kept = target * (1 - smoothing) + smoothing / count
        return _reduced(-(kept * weighted).sum(axis), reduction, None)
    real = target != ignored
    place = torch.where(real, target, 0)
    own = weighted.gather(axis, place.unsqueeze(axis)).squeeze(axis)
    loss = -(1 - smoothing) * own - smoothing / count * weighted.sum(axis)
    parts = torch.ones_like(loss) if weight is None else weight[place]
    nothing = torch.zeros_like(loss)
    return _reduced(torch.where(real, loss, nothing), reduction, torch.where(real, parts, nothing))


def _reduced(loss: Tensor, reduction: int, parts: Tensor | None) -> Tensor:
    """The losses, their mean, or their sum; the mean is over `parts`, the weights of the losses."""
    if reduction == _NO_REDUCTION:
        return loss
    if reduction == _MEAN:
        return loss.mean() if parts is None else loss.sum() / parts.sum()
    return loss.sum()


def _is_smoothed(
    _scores: Tensor, target: Tensor, _weight: Any = None, _reduction: int = 1, _ignored: int = 0, smoothing: float = 0.0
) -> bool:
    """ONNX's operator takes whole numbers for classes, and no smoothing."""
    return bool(smoothing) or target.is_floating_point()


def _likelihoods(
    scores: Tensor, target: Tensor, weight: Tensor | None = None, _reduction: int = 0, ignored: int = -100
) -> Tensor:
    """The negative log likelihood of each target, not reduced."""
    axis = 1 if scores.ndim > 1 else 0
    real = target != ignored
    place = torch.where(real, target, 0)
    loss = -scores.gather(axis, place.unsqueeze(axis)).squeeze(axis)
    loss = loss if weight is None else loss * weight[place]
    return torch.where(real, loss, torch.zeros_like(loss))


def _is_not_reduced(_scores: Tensor, _target: Tensor, _weight: Any = None, reduction: int = 1, *_rest: Any) -> bool:
    """PyTorch calls its result a scalar when the traced operators are written with others."""
    return reduction == _NO_REDUCTION


def _leaky(values: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, *_training: Any) -> Tensor:
    """A randomized ReLU in evaluation."""
    return torch.nn.functional.leaky_relu(values, (lower + upper) / 2)


def _is_evaluation(_values: Tensor, _lower: float = 0.0, _upper: float = 0.0, training: bool = False, *_: Any) -> bool:
    return not training


def _bag(
    table: Tensor,
    ids: Tensor,
    begins: Tensor,
    _scale: bool = False,
    mode: int = 0,
    _sparse: bool = False,
    weights: Tensor | None = None,
    last_is_end: bool = False,
    padding: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows of all bags, each added to the bag that it is in. Only the first result is what PyTorch returns."""
    begins = begins[:-1] if last_is_end else begins
    count, width = begins.shape[0], table.shape[1]
    places = torch.arange(ids.shape[0]).unsqueeze(1)
    bags = (places >= begins.unsqueeze(0)).sum(1) - 1
    real = torch.ones_like(ids, dtype=torch.bool)
    if padding is not None:
        real = ids != (padding + table.shape[0] if padding < 0 else padding)
    rows = table[ids] if weights is None else table[ids] * weights.unsqueeze(1)
    counts = torch.zeros([count], dtype=table.dtype).index_add(0, bags, real.to(table.dtype))
    if mode == _MAX:
        least = torch.full_like(rows, float("-inf"))
        begin = torch.full([count, width], float("-inf"), dtype=table.dtype)
        kept = torch.where(real.unsqueeze(1), rows, least)
        most = begin.scatter_reduce(0, bags.unsqueeze(1).expand(-1, width), kept, "amax")
        found = torch.where((counts > 0).unsqueeze(1), most, torch.zeros_like(most))
        return found, bags, counts, bags
    kept = torch.where(real.unsqueeze(1), rows, torch.zeros_like(rows))
    total = torch.zeros([count, width], dtype=table.dtype).index_add(0, bags, kept)
    if mode == _MEAN:
        total = total / counts.clamp(min=1).unsqueeze(1)
    return total, bags, counts, bags


def _distances(left: Tensor, right: Tensor, power: float = 2.0, _mode: int | None = None) -> Tensor:
    return torch.linalg.vector_norm(left.unsqueeze(-2) - right.unsqueeze(-3), power, -1)


def _distances_of_pairs(values: Tensor, power: float = 2.0) -> Tensor:
    first, second = torch.triu_indices(values.shape[0], values.shape[0], 1).unbind(0)
    return torch.linalg.vector_norm(values[first] - values[second], power, -1)


def _attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *rest: Any, **named: Any
) -> Tensor:
    """With all dimensions before the heads as one."""
    batch = query.shape[:-3]
    if mask is not None:
        mask = mask.expand(*batch, query.shape[-3], query.shape[-2], key.shape[-2]).flatten(0, -4)
    flat = [each.expand(*batch, -1, -1, -1).flatten(0, -4) for each in (query, key, value)]
    found = _aten.scaled_dot_product_attention.default(*flat, mask, *rest, **named)
    return found.unflatten(0, batch)


def _has_many(query: Tensor, *_args: Any, **_kwargs: Any) -> bool:
    return query.ndim > 4


def _weight_norm(direction: Tensor, length: Tensor, dim: int = 0) -> Tensor:
    """With the squares of half precision added in float32, as PyTorch adds them."""
    wide = direction.float()
    axes = [axis for axis in range(direction.ndim) if axis != dim % direction.ndim]
    norm = torch.linalg.vector_norm(wide, 2, axes, keepdim=True)
    return (wide * (length.float() / norm)).to(direction.dtype)


def _is_half(direction: Tensor, _length: Tensor, dim: int = 0) -> bool:
    return direction.dtype in (torch.float16, torch.bfloat16) and dim != -1


LAYERS: Final[dict[Any, Written]] = {
    _aten.cross_entropy_loss.default: Written(_cross_entropy, _is_smoothed),
    _aten.nll_loss_nd.default: Written(_likelihoods, _is_not_reduced),
    _aten.rrelu.default: Written(_leaky, _is_evaluation),
    _aten.embedding_bag.padding_idx: Written(_bag),
    _aten._weight_norm.default: Written(_weight_norm, _is_half),
    _aten.cdist.default: Written(_distances),
    _aten.pdist.default: Written(_distances_of_pairs),
    _aten.scaled_dot_product_attention.default: Written(_attention, _has_many),
}
