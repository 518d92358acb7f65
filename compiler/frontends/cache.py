"""A language model of transformers with its cache as plain tensors, ready to be compiled.

    module, args, _, shapes = with_cache(model)
    gimlet.compile(module, args, dynamic_shapes=shapes, output="m.gimlet")
    program = gimlet.load("m.gimlet")
    logits, past = program(ids, module.empty_past())         # prefill: a past of length 0
    logits, past = program(next_ids, past)                   # decode

A `DynamicCache` cannot enter or leave an exported graph. Here each layer's keys and values are tensors,
[batch, heads, past, size], that share the dimensions `batch` and `past`, so one trace serves prefill and decode.
Sliding windows are in the mask: the cache keeps what has left the window.

Sequences of unequal lengths go into one batch with `with_cache(model, padded=True)`:

    logits, past, seen = program(ids, real, module.empty_past(2), module.nothing_seen(2))
    logits, past, seen = program(next_ids, next_real, past, seen)

`real` says which of the ids are no padding, wherever that stands; `seen` is that of the past.

A cache of a fixed size, as transformers' `StaticCache`, keeps every shape but the tokens' the same from step to step:

    module, args, _, shapes = with_fixed_cache(model, capacity=512)
    logits, cache = program(ids, np.int64(0), module.empty_past(1, 512))
    logits, cache = program(next_ids, np.int64(ids.shape[1]), cache)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    `states` are the pairs that `gimlet.compile(…, states=module.states)` lets the program keep itself.
    """

    states: Mapping[str, str] = {"past": "1"}

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
        start = past[0][0].shape[2] if past else 0
        length = input_ids.shape[1]
        positions = torch.arange(length, device=input_ids.device) + start
        keys = torch.arange(length + start, device=input_ids.device)
        layers = [_layer(*pair) for pair in past or ()]
        return self.run(input_ids, self.mask(positions[None], keys[None]), positions[None], layers)

    def run(
        self, input_ids: torch.Tensor, mask: Any, positions: torch.Tensor, layers: Sequence[DynamicLayer]
    ) -> tuple[torch.Tensor, Past]:
        """The model on tokens at `positions` [1 or batch, length], which see what `mask` says: logits and new past."""
        result = self.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=_cache(layers),
            use_cache=True,
        )
        return result.logits, tuple((layer.keys, layer.values) for layer in result.past_key_values.layers)

    def mask(self, queries: torch.Tensor, keys: torch.Tensor, allowed: torch.Tensor | None = None) -> Any:
        """Which of the `keys` each of the `queries` sees, by their positions [1 or batch, …], if it is `allowed`.

        For each kind of layer where there are several. Made here it is two comparisons in the graph, and transformers'
        own would be dozens of operations.
        """
        keys, queries = keys[:, None, :], queries[:, :, None]
        full = keys <= queries
        if allowed is not None:
            full = full & allowed
        window = getattr(self._config, "sliding_window", None)
        if self._kinds:
            masks = {_FULL: full, _WINDOWED: full & (keys > queries - window) if window else full}
            return {kind: self._as_model_takes_it(masks[kind]) for kind in sorted(self._kinds)}
        if window and getattr(self._config, "use_sliding_window", True):
            full = full & (keys > queries - window)
        return self._as_model_takes_it(full)

    def _as_model_takes_it(self, visible: torch.Tensor) -> torch.Tensor:
        if self._config._attn_implementation == "sdpa":
            return visible[:, None]
        seen, hidden = (
            torch.tensor(value, dtype=self.dtype, device=visible.device) for value in (0.0, torch.finfo(self.dtype).min)
        )
        return torch.where(visible, seen, hidden)[:, None]

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


class PaddedCachedModel(CachedModel):
    """As `CachedModel`, for sequences of unequal lengths.

    Besides, `real` [batch, length] says which ids are no padding, and `seen` [batch, past] is that of the past; the
    module returns it for both, [batch, past + length]. A token's position is the number of real ones before it. What is
    computed for padding has no meaning.
    """

    states: Mapping[str, str] = {"past": "1", "seen": "2"}

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (a call with more inputs)
        self, input_ids: torch.Tensor, real: torch.Tensor, past: Past, seen: torch.Tensor
    ) -> tuple[torch.Tensor, Past, torch.Tensor]:
        seen_now = torch.cat([seen, real], dim=1)
        places = torch.cumsum(seen_now.to(torch.int64), dim=1) - 1
        positions = places[:, seen.shape[1] :].clamp(min=0)
        count = torch.arange(seen_now.shape[1], device=seen.device)
        keys, queries = count[None, None, :], count[seen.shape[1] :][None, :, None]
        # Padding sees itself: a softmax over nothing is no number, and spreads.
        allowed = (seen_now[:, None, :] & (keys <= queries)) | (keys == queries)
        layers = [_layer(*pair) for pair in past]
        logits, present = self.run(input_ids, self.mask(positions, places, allowed), positions, layers)
        return logits, present, seen_now

    def nothing_seen(self, batch: int = 1, past: int = 0) -> torch.Tensor:
        """What has been seen of a past of padding, by default of length 0: what prefill starts from."""
        return torch.zeros(batch, past, dtype=torch.bool, device=next(self.model.parameters()).device)


class FixedCachedModel(CachedModel):
    """Token ids [batch, length], where the first of them stands, and a cache; to logits and the cache with them in it.

    The cache is a pair for each layer, keys and values [batch, heads, capacity, size]. What is behind the last token is
    not looked at. Tokens must stand within the capacity.
    """

    states: Mapping[str, str] = {"cache": "1"}

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (a call with more inputs)
        self, input_ids: torch.Tensor, start: torch.Tensor, cache: Past
    ) -> tuple[torch.Tensor, Past]:
        places = torch.arange(input_ids.shape[1], device=input_ids.device) + start
        keys = torch.arange(cache[0][0].shape[2], device=input_ids.device)
        layers = [_FixedLayer.of(places, *pair) for pair in cache]
        return self.run(input_ids, self.mask(places[None], keys[None]), places[None], layers)


class _FixedLayer(DynamicLayer):
    """Keys and values that new ones are written into, at `places`."""

    places: torch.Tensor

    @classmethod
    def of(cls, places: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> _FixedLayer:
        layer = cls()
        layer.dtype, layer.device = keys.dtype, keys.device
        layer.keys, layer.values, layer.places = keys, values, places
        layer.is_initialized = True
        return layer

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        del args, kwargs
        if self.keys is None or self.values is None:
            raise TypeError("a layer of a fixed size has its tensors from the start")
        self.keys = self.keys.index_copy(2, self.places, key_states)
        self.values = self.values.index_copy(2, self.places, value_states)
        return self.keys, self.values


def _layer(keys: torch.Tensor, values: torch.Tensor) -> DynamicLayer:
    layer = DynamicLayer()
    layer.dtype, layer.device = keys.dtype, keys.device
    layer.keys, layer.values = keys, values
    layer.is_initialized = True
    return layer


def _cache(layers: Sequence[DynamicLayer]) -> DynamicCache:
    cache = DynamicCache()
    cache.layers += layers
    return cache


def with_cache(
    model: PreTrainedModel,
    *,
    batch: Bounds = (1, 1, 64),
    length: Bounds = (1, 1, 4096),
    past: Bounds = (0, 1024, 4096),
    padded: bool = False,
) -> Traceable:
    """A model with its cache: module, example inputs and dynamic shapes, as a callable returns them to be compiled.

    `batch`, `length` and `past` are the minimum, the optimum (which costs are taken at) and the maximum of the
    dimensions of these names. The module is a `CachedModel`; its inputs are token ids and the past, its outputs logits
    and the new past. With `padded` it is a `PaddedCachedModel`, for sequences of unequal lengths. UsageError for a
    model whose layers keep another kind of state than keys and values.
    """
    module = (PaddedCachedModel if padded else CachedModel)(model).eval()
    module.dim_bounds = {"batch": batch, "length": length, "past": past}
    dims = {name: Dim(name, min=low, max=high) for name, (low, _, high) in module.dim_bounds.items()}
    example = module.empty_past(_TRACED["batch"], _TRACED["past"])
    device = next(model.parameters()).device
    ids = torch.zeros(_TRACED["batch"], _TRACED["length"], dtype=torch.int64, device=device)
    axes = {0: dims["batch"], 2: dims["past"]}
    tokens = {0: dims["batch"], 1: dims["length"]}
    layers = tuple((axes, axes) for _ in example)
    if not isinstance(module, PaddedCachedModel):
        return module, (ids, example), {}, {"input_ids": tokens, "past": layers}
    seen = module.nothing_seen(_TRACED["batch"], _TRACED["past"])
    shapes = {"input_ids": tokens, "real": tokens, "past": layers, "seen": {0: dims["batch"], 1: dims["past"]}}
    return module, (ids, torch.ones_like(ids, dtype=torch.bool), example, seen), {}, shapes


def with_fixed_cache(
    model: PreTrainedModel, capacity: int, *, batch: Bounds = (1, 1, 64), length: Bounds = (1, 1, 4096)
) -> Traceable:
    """A model with a cache of `capacity` tokens, as `with_cache`. The module is a `FixedCachedModel`.

    UsageError for a model whose layers keep another kind of state than keys and values, and for a capacity of less than
    one token.
    """
    if capacity < 1:
        raise UsageError(f"a cache of {capacity} tokens holds none", where="capacity")
    module = FixedCachedModel(model).eval()
    module.dim_bounds = {"batch": batch, "length": (length[0], length[1], min(length[2], capacity))}
    dims = {name: Dim(name, min=low, max=high) for name, (low, _, high) in module.dim_bounds.items()}
    example = module.empty_past(_TRACED["batch"], capacity)
    device = next(model.parameters()).device
    ids = torch.zeros(_TRACED["batch"], min(_TRACED["length"], capacity), dtype=torch.int64, device=device)
    axes = {0: dims["batch"]}
    shapes = {
        "input_ids": {0: dims["batch"], 1: dims["length"]},
        "start": None,
        "cache": tuple((axes, axes) for _ in example),
    }
    return module, (ids, torch.zeros((), dtype=torch.int64, device=device), example), {}, shapes
