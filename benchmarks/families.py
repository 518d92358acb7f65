"""Small models of transformers' families with random weights, and one block of a diffusion network.

Each is traced at one size and run at others. Dimensions have a minimum, the size they are traced at, and a maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import transformers as tf
from torch.export import Dim

from gimlet.compiler.frontends.cache import with_cache

VOCABULARY = 99
Sizes = Mapping[str, int]
Inputs = dict[str, Any]
_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_DECODER = {**_SMALL, "num_key_value_heads": 2, "max_position_embeddings": 128, "eos_token_id": 1, "bos_token_id": 0}
_IMAGE = {"image_size": 32, "patch_size": 8, "num_channels": 3}


@dataclass(frozen=True)
class Family:
    """A model, its inputs at given sizes, which dimensions each input has, and the sizes they may have."""

    make: Callable[[], torch.nn.Module]
    inputs: Callable[[Sizes], Inputs]
    axes: Mapping[str, Any]
    dims: Mapping[str, tuple[int, int, int]]
    derived: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict[str, Callable[[Any], Any]])

    def dynamic_shapes(self, inputs: Inputs) -> dict[str, Any]:
        """As `torch.export` takes them: a dimension is a Dim, or an expression over one."""
        dims: dict[str, Any] = {name: Dim(name, min=low, max=high) for name, (low, _, high) in self.dims.items()}
        dims |= {name: make(dims) for name, make in self.derived.items()}
        return {name: _named(self.axes.get(name), dims) for name in inputs}

    def module(self) -> torch.nn.Module:
        """The model, with the same weights every time."""
        torch.manual_seed(0)
        return self.make().eval()

    def sizes(self, which: int) -> dict[str, int]:
        """The sizes that are traced (1), the smallest (0), or others (2)."""
        other = {name: min(high, size + 3) for name, (_, size, high) in self.dims.items()}
        return other if which == 2 else {name: bounds[which] for name, bounds in self.dims.items()}


def _named(axes: Any, dims: Mapping[str, Any]) -> Any:
    if isinstance(axes, str):
        return dims[axes]
    if isinstance(axes, dict):
        return {axis: _named(name, dims) for axis, name in axes.items()}
    return tuple(_named(item, dims) for item in axes) if isinstance(axes, tuple) else None


def ids(*shape: int) -> torch.Tensor:
    """Random tokens, none of which means an end or padding."""
    return torch.randint(2, VOCABULARY, shape, generator=torch.Generator().manual_seed(sum(shape)))


def noise(*shape: int) -> torch.Tensor:
    """Random values of variance 1."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


_TOKENS = {0: "batch", 1: "length"}
_BATCH, _LENGTH = (1, 2, 8), (2, 9, 32)


def text(model: type[Any], config: Any, **options: Any) -> Family:
    """A language model from token ids to logits, without its cache."""
    return Family(
        make=lambda: model(config),
        inputs=lambda at: {"input_ids": ids(at["batch"], at["length"]), "use_cache": False},
        axes={"input_ids": _TOKENS},
        **{"dims": {"batch": _BATCH, "length": _LENGTH}, **options},
    )


def cached(model: type[Any], config: Any) -> Family:
    """A language model with its cache: `length` new tokens after `past` old ones."""

    def inputs(module: Any, at: Sizes) -> Inputs:
        past = module.empty_past(at["batch"], at["past"])
        filled = tuple((noise(*keys.shape), noise(*values.shape)) for keys, values in past)
        return {"input_ids": ids(at["batch"], at["length"]), "past": filled}

    def make() -> torch.nn.Module:
        return with_cache(model(config), batch=(1, 1, 8), length=(1, 1, 32), past=(0, 5, 64))[0]

    layer = ({0: "batch", 2: "past"},) * 2
    return Family(
        make=make,
        inputs=lambda at: inputs(make(), at),
        axes={"input_ids": _TOKENS, "past": (layer,) * config.num_hidden_layers},
        dims={"batch": _BATCH, "length": (1, 3, 32), "past": (0, 5, 64)},
    )


def _bert() -> Family:
    def inputs(at: Sizes) -> Inputs:
        mask = torch.ones(at["batch"], at["length"], dtype=torch.int64)
        mask[0, -1] = 0
        return {"input_ids": ids(at["batch"], at["length"]), "attention_mask": mask}

    return Family(
        make=lambda: tf.BertModel(tf.BertConfig(**_SMALL)),
        inputs=inputs,
        axes={"input_ids": _TOKENS, "attention_mask": _TOKENS},
        dims={"batch": _BATCH, "length": _LENGTH},
    )


def _t5() -> Family:
    config = tf.T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    return Family(
        make=lambda: tf.T5ForConditionalGeneration(config),
        inputs=lambda at: {
            "input_ids": ids(at["batch"], at["length"]),
            "decoder_input_ids": ids(at["batch"], at["target"]),
            "use_cache": False,
        },
        axes={"input_ids": _TOKENS, "decoder_input_ids": {0: "batch", 1: "target"}},
        dims={"batch": _BATCH, "length": _LENGTH, "target": (2, 5, 32)},
    )


def _whisper() -> Family:
    config = tf.WhisperConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_mel_bins=16,
        max_source_positions=32,
        max_target_positions=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return Family(
        make=lambda: tf.WhisperForConditionalGeneration(config),
        inputs=lambda at: {
            "input_features": noise(at["batch"], 16, 64),
            "decoder_input_ids": ids(at["batch"], at["target"]),
            "use_cache": False,
        },
        axes={"input_features": {0: "batch"}, "decoder_input_ids": {0: "batch", 1: "target"}},
        dims={"batch": _BATCH, "target": (2, 5, 32)},
    )


def _vit() -> Family:
    return Family(
        make=lambda: tf.ViTForImageClassification(tf.ViTConfig(**_SMALL, **_IMAGE)),
        inputs=lambda at: {"pixel_values": noise(at["batch"], 3, 32, 32)},
        axes={"pixel_values": {0: "batch"}},
        dims={"batch": _BATCH},
    )


def _clip() -> Family:
    text = {**_SMALL, "max_position_embeddings": 32, "eos_token_id": 1, "bos_token_id": 0}
    config = tf.CLIPConfig(text_config=text, vision_config={**_SMALL, **_IMAGE}, projection_dim=16)
    return Family(
        make=lambda: tf.CLIPModel(config),
        inputs=lambda at: {
            "input_ids": ids(at["batch"], at["length"]),
            "pixel_values": noise(at["images"], 3, 32, 32),
            "attention_mask": torch.ones(at["batch"], at["length"], dtype=torch.int64),
        },
        axes={"input_ids": _TOKENS, "pixel_values": {0: "images"}, "attention_mask": _TOKENS},
        dims={"batch": _BATCH, "length": _LENGTH, "images": (1, 3, 8)},
    )


class DiffusionBlock(torch.nn.Module):
    """One level of a diffusion UNet: a residual block that takes the timestep, attention to the prompt, down and up."""

    def __init__(self, width: int = 32, prompt: int = 24, heads: int = 4) -> None:
        super().__init__()
        self.width = width
        self.time = torch.nn.Sequential(
            torch.nn.Linear(width, 4 * width), torch.nn.SiLU(), torch.nn.Linear(4 * width, width)
        )
        self.enter = torch.nn.Conv2d(4, width, 3, padding=1)
        self.norms = torch.nn.ModuleList([torch.nn.GroupNorm(8, width) for _ in range(3)])
        self.convs = torch.nn.ModuleList([torch.nn.Conv2d(width, width, 3, padding=1) for _ in range(2)])
        self.attention = torch.nn.MultiheadAttention(width, heads, kdim=prompt, vdim=prompt, batch_first=True)
        self.down = torch.nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.leave = torch.nn.Conv2d(2 * width, 4, 3, padding=1)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        frequencies = torch.exp(torch.arange(self.width // 2) * (-9.21 / (self.width // 2)))
        angles = timestep[:, None].float() * frequencies
        time = self.time(torch.cat([angles.cos(), angles.sin()], dim=-1))[:, :, None, None]
        x = self.enter(sample)
        inner = self.convs[0](torch.nn.functional.silu(self.norms[0](x))) + time
        x = x + self.convs[1](torch.nn.functional.silu(self.norms[1](inner)))
        tokens = self.norms[2](x).flatten(2).transpose(1, 2)
        x = x + self.attention(tokens, prompt, prompt, need_weights=False)[0].transpose(1, 2).reshape(x.shape)
        up = torch.nn.functional.interpolate(self.down(x), scale_factor=2.0, mode="nearest")
        return self.leave(torch.cat([x, up], dim=1))


def _diffusion() -> Family:
    return Family(
        make=DiffusionBlock,
        inputs=lambda at: {
            "sample": noise(at["batch"], 4, 2 * at["half"], 16),
            "timestep": torch.arange(at["batch"]) * 7 + 1,
            "prompt": noise(at["batch"], at["length"], 24),
        },
        axes={"sample": {0: "batch", 2: "height"}, "timestep": {0: "batch"}, "prompt": {0: "batch", 1: "length"}},
        dims={"batch": _BATCH, "length": _LENGTH, "half": (2, 4, 16)},
        derived={"height": lambda dims: 2 * dims["half"]},
    )


_GEMMA = tf.Gemma3TextConfig(
    **_DECODER, head_dim=16, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
)
_GPT_OSS = tf.GptOssConfig(
    **_DECODER,
    head_dim=16,
    num_local_experts=8,
    num_experts_per_tok=2,
    sliding_window=8,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
)
_DEEPSEEK = tf.DeepseekV3Config(
    **{**_DECODER, "num_hidden_layers": 2, "num_key_value_heads": 4},
    moe_intermediate_size=16,
    n_shared_experts=1,
    n_routed_experts=8,
    kv_lora_rank=16,
    q_lora_rank=24,
    qk_rope_head_dim=8,
    v_head_dim=16,
    qk_nope_head_dim=16,
    n_group=2,
    topk_group=1,
    num_experts_per_tok=2,
    first_k_dense_replace=1,
)
_MAMBA = tf.Mamba2Config(
    vocab_size=VOCABULARY,
    hidden_size=32,
    state_size=16,
    num_hidden_layers=2,
    num_heads=8,
    head_dim=8,
    n_groups=2,
    chunk_size=8,
    expand=2,
    bos_token_id=0,
    eos_token_id=1,
)


def _mamba() -> Family:
    """Its scan goes over chunks of 8 tokens: the length is a multiple of them, which the trace is told."""
    return Family(
        make=lambda: tf.Mamba2ForCausalLM(_MAMBA),
        inputs=lambda at: {"input_ids": ids(at["batch"], 8 * at["chunks"]), "use_cache": False},
        axes={"input_ids": {0: "batch", 1: "length"}},
        dims={"batch": _BATCH, "chunks": (2, 3, 8)},
        derived={"length": lambda dims: 8 * dims["chunks"]},
    )


FAMILIES: dict[str, Callable[[], Family]] = {
    "BERT": _bert,
    "GPT-2": partial(
        text,
        tf.GPT2LMHeadModel,
        tf.GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=1
        ),
    ),
    "Llama": partial(text, tf.LlamaForCausalLM, tf.LlamaConfig(**_DECODER)),
    "Llama with cache": partial(cached, tf.LlamaForCausalLM, tf.LlamaConfig(**_DECODER)),
    "Qwen3": partial(text, tf.Qwen3ForCausalLM, tf.Qwen3Config(**_DECODER, head_dim=16)),
    "Gemma 3": partial(text, tf.Gemma3ForCausalLM, _GEMMA),
    "Gemma 3 with cache": partial(cached, tf.Gemma3ForCausalLM, _GEMMA),
    "Mixtral": partial(
        text, tf.MixtralForCausalLM, tf.MixtralConfig(**_DECODER, num_local_experts=4, num_experts_per_tok=2)
    ),
    "gpt-oss": partial(text, tf.GptOssForCausalLM, _GPT_OSS),
    "gpt-oss with cache": partial(cached, tf.GptOssForCausalLM, _GPT_OSS),
    "DeepSeek-V3": partial(text, tf.DeepseekV3ForCausalLM, _DEEPSEEK),
    "DeepSeek-V3 with cache": partial(cached, tf.DeepseekV3ForCausalLM, _DEEPSEEK),
    "Mamba-2": _mamba,
    "T5": _t5,
    "Whisper": _whisper,
    "ViT": _vit,
    "CLIP": _clip,
    "diffusion UNet block": _diffusion,
}
