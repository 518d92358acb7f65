"""Layers of transformers' models that are alike: the graph with copies is that of the whole trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.same_graph import both_ways
from torch.export import Dim
from transformers import (
    BertConfig,
    BertModel,
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from gimlet.compiler.frontends.cache import with_cache, with_fixed_cache

DEPTH = 6
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
SHAPES = {"input_ids": {1: Dim("length", min=4, max=32)}}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 64,
}
DECODER: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "use_cache": False}


def _gpt_oss() -> Any:
    config = GptOssConfig(**{**DECODER, "num_hidden_layers": 8}, head_dim=8, num_local_experts=4, num_experts_per_tok=2)
    config._attn_implementation = "eager"
    return with_cache(GptOssForCausalLM(config).eval())


def _smol() -> Any:
    """No rotary embedding in every second layer, which a list in the configuration says."""
    config = SmolLM3Config(**{**DECODER, "num_hidden_layers": 8}, no_rope_layer_interval=2, pad_token_id=0)
    return with_cache(SmolLM3ForCausalLM(config).eval())


def _llama(wrap: Callable[..., Any], **options: Any) -> Any:
    return wrap(LlamaForCausalLM(LlamaConfig(**DECODER, tie_word_embeddings=True)).eval(), **options)


def _alone(model: torch.nn.Module) -> Any:
    return model.eval(), (), {"input_ids": IDS}, SHAPES


MODELS: dict[str, tuple[Callable[[], Any], int]] = {
    "Llama with cache": (lambda: _llama(with_cache), 4),
    "Llama with padding": (lambda: _llama(with_cache, padded=True), 4),
    "Llama with fixed cache": (lambda: _llama(with_fixed_cache, capacity=16), 4),
    "gpt-oss": (_gpt_oss, 4),
    "SmolLM3": (_smol, 4),
    "BERT": (lambda: _alone(BertModel(BertConfig(**SIZES))), 4),
    "Bloom": (
        lambda: _alone(
            BloomForCausalLM(BloomConfig(n_layer=DEPTH, hidden_size=32, n_head=4, vocab_size=64, use_cache=False))
        ),
        4,
    ),
    "Falcon": (lambda: _alone(FalconForCausalLM(FalconConfig(**{**SIZES, "use_cache": False}))), 4),
}


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_the_graph_is_that_of_the_whole_trace(name: str) -> None:
    torch.manual_seed(0)
    make, copies = MODELS[name]
    module, args, kwargs, shapes = make()
    assert both_ways(module, args, shapes, kwargs) == [f"{copies} layers are copies of others that are alike"]
