"""Small random models of transformers' families by the name of their class, each with what its configuration needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

Inputs = dict[str, torch.Tensor]

# What a configuration has of these is set, whatever the family calls it.
_SMALL: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "embedding_size", "word_embed_proj_dim", "hidden_dim", "dim"), 64
    ),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "ffn_dim"), 96),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "encoder_layers", "decoder_layers", "num_layers", "n_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "num_experts", "num_local_experts"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("head_dim", "d_kv"), 16),
    **dict.fromkeys(("sliding_window", "state_size", "patch_size"), 8),
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "moe_intermediate_size": 48,
    "image_size": 32,
    "num_channels": 3,
    "num_labels": 3,
}


@dataclass(frozen=True)
class Kind:
    """Inputs at a size, the sizes that a model is run at, and the axis that they are sizes of."""

    make: Callable[[int], Inputs]
    sizes: tuple[int, ...]
    axis: int = 0
    bounds: tuple[int, int] = (1, 4)


def _ids(length: int) -> Inputs:
    return {"input_ids": torch.randint(3, 100, (1, length))}


def _pixels(size: int) -> Callable[[int], Inputs]:
    return lambda batch: {"pixel_values": torch.randn(batch, 3, size, size)}


IDS = Kind(_ids, (12, 17), 1, (4, 32))
IDS_FIXED = Kind(_ids, (12,))
PIXELS = Kind(_pixels(32), (2, 3))
PIXELS_64 = Kind(_pixels(64), (2, 3))
WAVE = Kind(lambda length: {"input_values": torch.randn(1, length)}, (800,))
SPEECH = {
    "conv_dim": [16, 16],
    "conv_stride": [5, 2],
    "conv_kernel": [10, 3],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
}
SERIES = Kind(lambda length: {"past_values": torch.randn(1, length, 3)}, (32,))


@dataclass(frozen=True)
class Model:
    """A model class of transformers, called as its key, with its configuration."""

    config: str
    kind: Kind
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    name: str = ""

    def module(self) -> torch.nn.Module:
        """The model in evaluation mode and float32, with the same weights every time."""
        torch.manual_seed(0)
        base = getattr(transformers, self.config)
        known = base()
        small = {
            name: value
            for name, value in _SMALL.items()
            if hasattr(known, name) and not isinstance(getattr(base, name, None), property)
        }
        settings = {name: value for name, value in {**small, **self.settings}.items() if value is not None}
        module = getattr(transformers, self.name)(base(**settings)).eval()
        if hasattr(module.config, "use_cache"):
            module.config.use_cache = False
        return module

    def inputs(self) -> list[Inputs]:
        """At each size, the traced one first."""
        torch.manual_seed(1)
        return [self.kind.make(size) for size in self.kind.sizes]

    def shapes(self, dim: Callable[..., Any]) -> dict[str, Any]:
        """As `torch.export` takes them."""
        low, high = self.kind.bounds
        varied = {self.kind.axis: dim("size", min=low, max=high)}
        first, *others = self.kind.make(self.kind.sizes[0])
        return {first: varied, **dict.fromkeys(others)}


_MODELS: dict[str, Model] = {
    "OPTForCausalLM": Model("OPTConfig", IDS),
    "BloomForCausalLM": Model("BloomConfig", IDS),
    "FalconForCausalLM": Model("FalconConfig", IDS),
    "PhiForCausalLM": Model("PhiConfig", IDS),
    "Phi3ForCausalLM": Model("Phi3Config", IDS, {"pad_token_id": 0}),
    "MistralForCausalLM": Model("MistralConfig", IDS),
    "Qwen2ForCausalLM": Model("Qwen2Config", IDS),
    "Qwen2MoeForCausalLM": Model("Qwen2MoeConfig", IDS, {"shared_expert_intermediate_size": 48}),
    "Qwen3MoeForCausalLM": Model("Qwen3MoeConfig", IDS),
    "OlmoForCausalLM": Model("OlmoConfig", IDS),
    "OlmoeForCausalLM": Model("OlmoeConfig", IDS),
    "GPTNeoXForCausalLM": Model("GPTNeoXConfig", IDS),
    "GPTJForCausalLM": Model("GPTJConfig", IDS, {"rotary_dim": 8}),
    "GPTNeoForCausalLM": Model("GPTNeoConfig", IDS, {"attention_types": [[["global", "local"], 1]]}),
    "StableLmForCausalLM": Model("StableLmConfig", IDS),
    "Starcoder2ForCausalLM": Model("Starcoder2Config", IDS),
    "CohereForCausalLM": Model("CohereConfig", IDS),
    "Gemma2ForCausalLM": Model("Gemma2Config", IDS),
    "Gemma3ForCausalLM": Model("Gemma3TextConfig", IDS),
    "GraniteForCausalLM": Model("GraniteConfig", IDS),
    "GraniteMoeForCausalLM": Model("GraniteMoeConfig", IDS),
    "MambaForCausalLM": Model("MambaConfig", IDS_FIXED),
    "RobertaModel": Model("RobertaConfig", IDS),
    "DebertaV2Model": Model(
        "DebertaV2Config", IDS, {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}
    ),
    "ElectraModel": Model("ElectraConfig", IDS),
    "XLNetModel": Model("XLNetConfig", IDS_FIXED),
    "AlbertModel": Model("AlbertConfig", IDS),
    "DistilBertModel": Model("DistilBertConfig", IDS),
    "MPNetModel": Model("MPNetConfig", IDS),
    "ModernBertModel": Model(
        "ModernBertConfig",
        IDS,
        {
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "cls_token_id": 1,
            "sep_token_id": 2,
            "num_hidden_layers": 4,
        },
    ),
    "LongformerModel": Model(
        "LongformerConfig", IDS_FIXED, {"attention_window": [4, 4], "max_position_embeddings": 66}
    ),
    "BigBirdModel": Model("BigBirdConfig", IDS, {"attention_type": "original_full"}),
    "FunnelBaseModel": Model("FunnelConfig", IDS_FIXED, {"block_sizes": [1, 1], "d_inner": 96, "d_head": 16}),
    "ConvNextModel": Model(
        "ConvNextConfig",
        PIXELS,
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_hidden_layers": None, "patch_size": 4},
    ),
    "Dinov2Model": Model("Dinov2Config", PIXELS),
    "SegformerForSemanticSegmentation": Model(
        "SegformerConfig",
        PIXELS_64,
        {
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
            "decoder_hidden_size": 16,
            "patch_size": None,
        },
    ),
    "BeitModel": Model("BeitConfig", PIXELS),
    "DeiTModel": Model("DeiTConfig", PIXELS),
    "MobileViTModel": Model(
        "MobileViTConfig",
        PIXELS_64,
        {
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
            "patch_size": 2,
            "image_size": 64,
        },
    ),
    "EfficientNetModel": Model("EfficientNetConfig", PIXELS_64, {"hidden_dim": 2560}),
    "ResNetModel": Model(
        "ResNetConfig", PIXELS_64, {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    ),
    "RegNetModel": Model(
        "RegNetConfig",
        PIXELS_64,
        {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "groups_width": 8},
    ),
    "YolosModel": Model("YolosConfig", PIXELS, {"image_size": [32, 32], "num_detection_tokens": 5}),
    "Wav2Vec2Model": Model("Wav2Vec2Config", WAVE, SPEECH),
    "HubertModel": Model("HubertConfig", WAVE, SPEECH),
    "PatchTSTModel": Model(
        "PatchTSTConfig",
        SERIES,
        {"num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8, "prediction_length": 8},
    ),
    "SiglipVisionModel": Model("SiglipVisionConfig", PIXELS),
    "JambaForCausalLM": Model(
        "JambaConfig",
        IDS_FIXED,
        {
            "use_mamba_kernels": False,
            "num_hidden_layers": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
        },
    ),
    "RwkvModel": Model("RwkvConfig", IDS_FIXED, {"attention_hidden_size": 64, "context_length": 32}),
    "BambaForCausalLM": Model(
        "BambaConfig",
        IDS_FIXED,
        {
            "mamba_n_heads": 8,
            "mamba_d_head": 16,
            "mamba_expand": 2,
            "mamba_d_state": 8,
            "mamba_n_groups": 1,
            "attn_layer_indices": [1],
        },
    ),
}
FAMILIES: dict[str, Model] = {
    name: Model(each.config, each.kind, each.settings, name) for name, each in _MODELS.items()
}
