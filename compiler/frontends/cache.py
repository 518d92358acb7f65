"""A language model of transformers with its cache as plain tensors, ready to be compiled.

    module, args, _, shapes = with_cache(model)
    gimlet.compile(module, args, dynamic_shapes=shapes, output="m.gimlet")
    program = gimlet.load("m.gimlet")
    logits, past = program(ids, module.empty_past())         # prefill: a past of length 0
    logits, past = program(next_ids, past)                   # decode

A `DynamicCache` cannot enter or leave an exported graph. Here each layer's keys and values are tensors,
[batch, heads, past, size], that share the dimensions `batch` and `past`, so one trace serves prefill and decode.
Sliding windows are in the mask: the cache keeps what has left the window.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from gimlet.compiler.frontends.experts import experts_as_one_op
from gimlet.compiler.frontends.quiet import quiet_torch
from gimlet.runtime.errors import UsageError

Bounds = tuple[int, int, int]
Past = tuple[tuple[torch.Tensor, torch.Tensor], ...]
Traceable = tuple["CachedModel", tuple[Any, ...], dict[str, Any], dict[str, Any]]
_WINDOWED: Final = "sliding_attention"
_FULL: Final = "full_attention"
_TRACED: Final = {"batch": 2, "length": 3, "past": 5}


class CachedModel(torch.nn.Module):
    """Token ids [batch, length] and the past of every layer, to logits [batch, length, vocabulary] and the new past.

    The past is a pair for each layer, keys and values [batch, heads, past, size], or None for prefill alone; the new
    one is `length` longer.
    All sequences of a batch have the same length. UsageError for a model whose layers keep another kind of state.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self._config: Any = model.config.get_text_config(decoder=True)
        kinds = set(getattr(self._config, "layer_types", None) or ())
        if kinds - {_WINDOWED, _FULL}:
            raise UsageError(
                f"{type(model).__name__} has layers of {', '.join(sorted(kinds - {_WINDOWED, _FULL}))}",
                hint="with_cache takes models whose layers keep keys and values: full or sliding attention",
            )
        self._kinds = kinds
        self.dim_bounds: dict[str, Bounds] = {}
        self.dtype = model.dtype

    def forward(self, input_ids: torch.Tensor, past: Past | None = None) -> tuple[torch.Tensor, Past]:
        layers = [_layer(keys, values) for keys, values in past or ()]
        start = past[0][0].shape[2] if past else 0
        length = input_ids.shape[1]
        positions = torch.arange(length, device=input_ids.device) + start
        result = self.model(
            input_ids=input_ids,
            attention_mask=self._mask(positions, length + start),
            position_ids=positions[None],
            past_key_values=_cache(layers),
            use_cache=True,
        )
        present = tuple((layer.keys, layer.values) for layer in result.past_key_values.layers)
        return result.logits, present

    def _mask(self, queries: torch.Tensor, count: int) -> Any:
        """Which positions a query sees; for each kind of layer where there are several.

        Made here it is two comparisons in the graph, and transformers' own would be dozens of operations.
        """
        keys = torch.arange(count, device=queries.device)[None, :]
        queries = queries[:, None]
        full = keys <= queries
        window = getattr(self._config, "sliding_window", None)
        if self._kinds:
            masks = {_FULL: full, _WINDOWED: full & (keys > queries - window) if window else full}
            return {kind: self._as_model_takes_it(masks[kind]) for kind in sorted(self._kinds)}
        if window and getattr(self._config, "use_sliding_window", True):
            full = full & (keys > queries - window)
        return self._as_model_takes_it(full)

    def _as_model_takes_it(self, visible: torch.Tensor) -> torch.Tensor:
        if self._config._attn_implementation == "sdpa":
            return visible[None, None]
        seen, hidden = (
            torch.tensor(value, dtype=self.dtype, device=visible.device) for value in (0.0, torch.finfo(self.dtype).min)
        )
        return torch.where(visible, seen, hidden)[None, None]

    def empty_past(self, batch: int = 1, past: int = 0) -> Past:
        """A past of zeros, by default of length 0: what prefill starts from."""
        device = next(self.model.parameters()).device
        return tuple(
            (self._zeros(keys, batch, past, device), self._zeros(values, batch, past, device))
            for keys, values in self._traced_past()
        )

    def _zeros(self, like: torch.Tensor, batch: int, past: int, device: torch.device) -> torch.Tensor:
        return torch.zeros(batch, like.shape[1], past, like.shape[3], dtype=like.dtype, device=device)

    def _traced_past(self) -> Past:
        """The cache that one token leaves, without computing anything."""
        device = next(self.model.parameters()).device
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with quiet_torch(), experts_as_one_op(self.model), fake, torch.no_grad():
            ids = torch.zeros(1, 1, dtype=torch.int64, device=device)
            layers = self.model(input_ids=ids, use_cache=True).past_key_values.layers
        return tuple((layer.keys, layer.values) for layer in layers)


def _layer(keys: torch.Tensor, values: torch.Tensor) -> DynamicLayer:
    layer = DynamicLayer()
    layer.dtype, layer.device = keys.dtype, keys.device
    layer.keys, layer.values = keys, values
    layer.is_initialized = True
    return layer


def _cache(layers: list[DynamicLayer]) -> DynamicCache:
    cache = DynamicCache()
    cache.layers += layers
    return cache


def with_cache(
    model: PreTrainedModel,
    *,
    batch: Bounds = (1, 1, 64),
    length: Bounds = (1, 1, 4096),
    past: Bounds = (0, 1024, 4096),
) -> Traceable:
    """A model with its cache: module, example inputs and dynamic shapes, as a callable returns them to be compiled.

    `batch`, `length` and `past` are the minimum, the optimum (which costs are taken at) and the maximum of the
    dimensions of these names. The module is a `CachedModel`; its inputs are token ids and the past, its outputs logits
    and the new past. UsageError for a model whose layers keep another kind of state than keys and values.
    """
    module = CachedModel(model).eval()
    module.dim_bounds = {"batch": batch, "length": length, "past": past}
    dims = {name: Dim(name, min=low, max=high) for name, (low, _, high) in module.dim_bounds.items()}
    example = module.empty_past(_TRACED["batch"], _TRACED["past"])
    device = next(model.parameters()).device
    ids = torch.zeros(_TRACED["batch"], _TRACED["length"], dtype=torch.int64, device=device)
    axes = {0: dims["batch"], 2: dims["past"]}
    shapes = {"input_ids": {0: dims["batch"], 1: dims["length"]}, "past": tuple((axes, axes) for _ in example)}
    return module, (ids, example), {}, shapes
