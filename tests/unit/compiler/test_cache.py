"""Language models with their cache as tensors: one trace for prefill and decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

import gimlet
from gimlet.compiler.frontends.cache import (
    CachedModel,
    FixedCachedModel,
    PaddedCachedModel,
    with_cache,
    with_fixed_cache,
)
from gimlet.runtime.errors import UsageError

SMALL: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WINDOW = {"head_dim": 8, "sliding_window": 4, "eos_token_id": 1, "bos_token_id": 0}


# Dimensions of open size take most of a trace's time: one layer in every run, layers of two kinds in the long one.
IN_A_BUNDLE = pytest.mark.parametrize(
    "kind", ["a window in one layer", pytest.param("a window in some layers", marks=pytest.mark.full)]
)


def model(kind: str) -> Any:
    torch.manual_seed(0)
    configs: dict[str, Any] = {
        "full": tf.LlamaConfig(**SMALL),
        "a window in one layer": tf.MistralConfig(**{**SMALL, "num_hidden_layers": 1}, **WINDOW),
        "a window in every layer": tf.MistralConfig(**SMALL, **WINDOW),
        "a window in some layers": tf.Gemma3TextConfig(
            **SMALL, **WINDOW, layer_types=["sliding_attention", "full_attention"]
        ),
    }
    return tf.AutoModelForCausalLM.from_config(configs[kind]).eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["full", "a window in every layer", "a window in some layers"])
def test_tokens_in_pieces_give_what_all_at_once_do(kind: str, attention: str):
    """The wrapper against transformers: as far as the window reaches back, and further."""
    plain = model(kind)
    plain.set_attn_implementation(attention)
    cached = CachedModel(plain)
    ids = torch.randint(2, 99, (2, 11), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = plain(input_ids=ids, use_cache=False).logits
        logits, past = cached(ids[:, :3], cached.empty_past(2))
        found = [logits]
        for start, end in ((3, 4), (4, 9), (9, 11)):
            logits, past = cached(ids[:, start:end], past)
            found.append(logits)
    torch.testing.assert_close(torch.cat(found, dim=1), expected, rtol=1e-4, atol=1e-5)
    assert past[0][0].shape[2] == 11


@IN_A_BUNDLE
def test_one_bundle_for_prefill_and_decode(kind: str, tmp_path: Path):
    plain = model(kind)
    module, args, _, shapes = with_cache(plain, batch=(1, 1, 4), length=(1, 1, 16), past=(0, 8, 32))
    bundle = gimlet.compile(module, args, dynamic_shapes=shapes, output=tmp_path / "m.gimlet")
    assert {name: (dim.minimum, dim.optimum, dim.maximum) for name, dim in bundle.manifest.dims.items()} == {
        "batch": (1, 1, 4),
        "length": (1, 1, 16),
        "past": (0, 8, 32),
    }
    ids = torch.randint(2, 99, (3, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = plain(input_ids=ids, use_cache=False).logits.numpy()
    with gimlet.load(bundle.path) as program:
        logits, past = program(ids[:, :7], module.empty_past(3))
        np.testing.assert_allclose(logits, expected[:, :7], rtol=1e-4, atol=1e-5)
        for place in (7, 8):
            logits, past = program(ids[:, place : place + 1].numpy(), past)
            np.testing.assert_allclose(logits[:, 0], expected[:, place], rtol=1e-4, atol=1e-5)
        assert past[-1][1].shape == (3, 2, 9, 8)


def test_prefill_alone():
    plain = model("full")
    ids = torch.arange(2, 8)[None]
    logits, past = CachedModel(plain)(ids)
    torch.testing.assert_close(logits, plain(input_ids=ids, use_cache=False).logits, rtol=1e-4, atol=1e-5)
    assert len(past) == 2


def test_other_kinds_of_state_are_refused():
    config = tf.Qwen3NextConfig(**SMALL, layer_types=["linear_attention", "full_attention"])
    with pytest.raises(UsageError, match="has layers of linear_attention") as error:
        with_cache(tf.Qwen3NextForCausalLM(config))
    assert "full or sliding attention" in (error.value.hint or "")


@IN_A_BUNDLE
def test_sequences_of_unequal_lengths_in_one_batch(kind: str, tmp_path: Path):
    plain = model(kind)
    module, args, _, shapes = with_cache(plain, batch=(1, 2, 4), length=(1, 1, 16), past=(0, 8, 32), padded=True)
    assert isinstance(module, PaddedCachedModel)
    bundle = gimlet.compile(module, args, dynamic_shapes=shapes, output=tmp_path / "m.gimlet")
    generator = torch.Generator().manual_seed(2)
    sequences = [torch.randint(2, 99, (size,), generator=generator) for size in (9, 4, 6)]
    with torch.no_grad():
        expected = [plain(input_ids=ids[None], use_cache=False).logits[0].numpy() for ids in sequences]
    with gimlet.load(bundle.path) as program:
        for is_left in (True, False):
            prefill_and_decode(program, module, sequences, expected, is_left=is_left)


def prefill_and_decode(
    program: Any, module: PaddedCachedModel, sequences: list[Any], expected: list[Any], *, is_left: bool
) -> None:
    """All but the last two tokens of each sequence at once, padded on one side, then one after the other."""
    ids, real = torch.full((3, 7), 1), torch.zeros(3, 7, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        size = len(sequence) - 2
        part = slice(7 - size, 7) if is_left else slice(0, size)
        ids[row, part], real[row, part] = sequence[:-2], True
    logits, past, seen = program(ids, real, module.empty_past(3), module.nothing_seen(3))
    for row, sequence in enumerate(sequences):
        wanted = expected[row][: len(sequence) - 2]
        np.testing.assert_allclose(logits[row][real[row].numpy()], wanted, rtol=1e-4, atol=1e-5)
    for place in (-2, -1):
        tokens = torch.stack([sequence[place : place + 1 or None] for sequence in sequences])
        logits, past, seen = program(tokens, torch.ones(3, 1, dtype=torch.bool), past, seen)
        for row in range(3):
            np.testing.assert_allclose(logits[row, 0], expected[row][place], rtol=1e-4, atol=1e-5)
    assert seen.shape == (3, 9)


@IN_A_BUNDLE
def test_a_cache_of_a_fixed_size(kind: str, tmp_path: Path):
    plain = model(kind)
    module, args, _, shapes = with_fixed_cache(plain, 16, batch=(1, 1, 4), length=(1, 1, 16))
    assert isinstance(module, FixedCachedModel)
    bundle = gimlet.compile(module, args, dynamic_shapes=shapes, output=tmp_path / "m.gimlet")
    ids = torch.randint(2, 99, (3, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = plain(input_ids=ids, use_cache=False).logits.numpy()
    with gimlet.load(bundle.path) as program:
        logits, cache = program(ids[:, :7], np.array(0), module.empty_past(3, 16))
        np.testing.assert_allclose(logits, expected[:, :7], rtol=1e-4, atol=1e-5)
        for place in (7, 8):
            logits, cache = program(ids[:, place : place + 1], np.array(place), cache)
            np.testing.assert_allclose(logits[:, 0], expected[:, place], rtol=1e-4, atol=1e-5)
        assert cache[-1][1].shape == (3, 2, 16, 8)
    with pytest.raises(UsageError, match="a cache of 0 tokens holds none"):
        with_fixed_cache(plain, 0)
