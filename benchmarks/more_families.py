"""More small models of transformers' families with random weights, for what large operators are found in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import transformers as tf
from families import VOCABULARY, Family, Sizes, ids, noise, text

_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
_DECODER = {**_SMALL, **_TOKENS, "num_key_value_heads": 2}
_PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
_IMAGE = {"image_size": 32, "patch_size": 8, "num_channels": 3}
_BATCH, _LENGTH = (1, 2, 8), (2, 9, 32)


def encoder(model: type[Any], config: Any) -> Family:
    """A model of token ids alone."""
    return Family(
        make=lambda: model(config),
        inputs=lambda at: {"input_ids": ids(at["batch"], at["length"])},
        axes={"input_ids": {0: "batch", 1: "length"}},
        dims={"batch": _BATCH, "length": _LENGTH},
    )


def image(model: type[Any], config: Any) -> Family:
    """A model of images of 32×32."""
    return Family(
        make=lambda: model(config),
        inputs=lambda at: {"pixel_values": noise(at["batch"], 3, 32, 32)},
        axes={"pixel_values": {0: "batch"}},
        dims={"batch": _BATCH},
    )


def _bart() -> Family:
    config = tf.BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
    )

    def inputs(at: Sizes) -> dict[str, Any]:
        source, target = ids(at["batch"], at["length"]), ids(at["batch"], at["target"])
        return {"input_ids": source, "decoder_input_ids": target, "use_cache": False}

    return Family(
        make=lambda: tf.BartModel(config),
        inputs=inputs,
        axes={"input_ids": {0: "batch", 1: "length"}, "decoder_input_ids": {0: "batch", 1: "target"}},
        dims={"batch": _BATCH, "length": _LENGTH, "target": (2, 5, 32)},
    )


_GPTJ = tf.GPTJConfig(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, rotary_dim=4, **_TOKENS)
_NEOX = tf.GPTNeoXConfig(**_SMALL, **_TOKENS, rope_parameters=_PARTIAL)
_PHI = tf.PhiConfig(**_DECODER, rope_parameters=_PARTIAL)
_GEMMA2 = tf.Gemma2Config(**_DECODER, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"])
_COHERE = tf.CohereConfig(**_DECODER)
_GLM = tf.GlmConfig(**_DECODER, head_dim=8)
_FALCON = tf.FalconConfig(
    vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=False, **_TOKENS
)
_BLOOM = tf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, **_TOKENS)
_OPT = tf.OPTConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    ffn_dim=48,
    max_position_embeddings=64,
    word_embed_proj_dim=32,
    **_TOKENS,
)
_MODERN = tf.ModernBertConfig(**_SMALL, local_attention=8, cls_token_id=0, sep_token_id=1, **_TOKENS)
_DISTIL = tf.DistilBertConfig(
    vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64
)
_DEBERTA = tf.DebertaV2Config(
    **_SMALL, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, type_vocab_size=0
)
_SWIN = tf.SwinConfig(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)
_DINO = tf.Dinov2Config(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8, mlp_ratio=2
)

MORE_FAMILIES: dict[str, Callable[[], Family]] = {
    "DistilBERT": partial(encoder, tf.DistilBertModel, _DISTIL),
    "ALBERT": partial(encoder, tf.AlbertModel, tf.AlbertConfig(**_SMALL, embedding_size=16)),
    "ModernBERT": partial(encoder, tf.ModernBertModel, _MODERN),
    "DeBERTa-v2": partial(encoder, tf.DebertaV2Model, _DEBERTA),
    "GPT-J": partial(text, tf.GPTJForCausalLM, _GPTJ),
    "GPT-NeoX": partial(text, tf.GPTNeoXForCausalLM, _NEOX),
    "Phi": partial(text, tf.PhiForCausalLM, _PHI),
    "Phi-3": partial(text, tf.Phi3ForCausalLM, tf.Phi3Config(**_DECODER)),
    "Mistral": partial(text, tf.MistralForCausalLM, tf.MistralConfig(**_DECODER, head_dim=8, sliding_window=8)),
    "Qwen2": partial(text, tf.Qwen2ForCausalLM, tf.Qwen2Config(**_DECODER)),
    "Gemma 2": partial(text, tf.Gemma2ForCausalLM, _GEMMA2),
    "OLMo-2": partial(text, tf.Olmo2ForCausalLM, tf.Olmo2Config(**_DECODER)),
    "Cohere": partial(text, tf.CohereForCausalLM, _COHERE),
    "GLM": partial(text, tf.GlmForCausalLM, _GLM),
    "SmolLM3": partial(text, tf.SmolLM3ForCausalLM, tf.SmolLM3Config(**_DECODER)),
    "Falcon": partial(text, tf.FalconForCausalLM, _FALCON),
    "BLOOM": partial(text, tf.BloomForCausalLM, _BLOOM),
    "OPT": partial(text, tf.OPTForCausalLM, _OPT),
    "BART": _bart,
    "DINOv2": partial(image, tf.Dinov2Model, _DINO),
    "Swin": partial(image, tf.SwinModel, _SWIN),
}
