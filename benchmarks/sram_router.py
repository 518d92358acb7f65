"""What MXINT8 costs a mixture of experts, and how much of that is that its router chooses other experts.

    python benchmarks/sram_router.py [--seeds 8]

DeepSeek-V3 as in `sram_models.py` (two layers, random weights) on random tokens, in PyTorch: the operands of every
linear layer but the router are rounded to the format, products are exact. It is run once as it is, and once with the
experts that the exact model chooses, weighed by its own scores. Printed for each format: the tokens whose experts
change, and the largest difference of a token's logits, relative to the largest logit: of tokens that keep their
experts, of those that do not, and with the choices of the exact model. No emulator takes part: the error is the
format's, not a program's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers as tf
from sram_models import _DECODER
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

from gimlet.runtime.sram.formats import round_bf16, round_mxint8

ROUNDINGS: dict[str, Callable[[Any], Any]] = {"bf16": round_bf16, "mxint8": round_mxint8}
TOKENS = 24


def deepseek() -> Any:
    """The model of `sram_models.py`, with the weights of torch's present seed."""
    config = tf.DeepseekV3Config(
        **{
            **_DECODER,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 128,
            "n_shared_experts": 1,
            "n_routed_experts": 8,
            "head_dim": 32,
            "kv_lora_rank": 128,
            "q_lora_rank": 128,
            "qk_rope_head_dim": 32,
            "v_head_dim": 64,
            "qk_nope_head_dim": 64,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
        }
    )
    return tf.DeepseekV3ForCausalLM(config).eval()


@contextmanager
def rounded(model: Any, fmt: str) -> Generator[None]:
    """The linear layers with operands in a format; nothing changes for an empty one."""
    hooks: list[Any] = []
    kept: list[tuple[torch.nn.Linear, torch.Tensor]] = []
    for layer in model.modules() if fmt else ():
        if isinstance(layer, torch.nn.Linear):
            kept.append((layer, layer.weight.data))
            layer.weight.data = torch.from_numpy(ROUNDINGS[fmt](layer.weight.data.numpy().copy()))
            hooks.append(
                layer.register_forward_pre_hook(
                    lambda _, given: (torch.from_numpy(ROUNDINGS[fmt](given[0].numpy().copy())),)
                )
            )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, weight in kept:
            layer.weight.data = weight


@contextmanager
def routed(model: Any, choices: list[torch.Tensor], *, forced: bool) -> Generator[None]:
    """Notes the experts that routers choose in `choices`, or with `forced` lets them choose those."""
    exact = DeepseekV3TopkRouter.forward
    given = iter(list(choices))

    def forward(router: Any, hidden: torch.Tensor) -> Any:
        logits, weights, indices = exact(router, hidden)
        if not forced:
            choices.append(indices)
            return logits, weights, indices
        indices = next(given)
        weights = logits.sigmoid().gather(1, indices)
        if router.norm_topk_prob:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return logits, weights * router.routed_scaling_factor, indices

    DeepseekV3TopkRouter.forward = forward  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with torch.no_grad():
            yield
    finally:
        DeepseekV3TopkRouter.forward = exact


def measure(fmt: str, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """By token: whether its experts change, its error, and its error with the exact model's experts."""
    torch.manual_seed(seed)
    model = deepseek()
    tokens = torch.randint(2, 512, (1, TOKENS))
    wanted: list[torch.Tensor] = []
    with routed(model, wanted, forced=False):
        exact = model(tokens).logits[0]
    found: list[torch.Tensor] = []
    with rounded(model, fmt), routed(model, found, forced=False):
        free = model(tokens).logits[0]
    with rounded(model, fmt), routed(model, wanted, forced=True):
        held = model(tokens).logits[0]
    pairs = zip(wanted, found, strict=True)
    changed = torch.stack([(a.sort(-1)[0] != b.sort(-1)[0]).any(-1) for a, b in pairs]).any(0)
    scale = exact.abs().max()
    errors = [((each - exact).abs().max(-1)[0] / scale).numpy() for each in (free, held)]
    return changed.numpy(), errors[0], errors[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    seeds = parser.parse_args().seeds
    print("| format | tokens | experts change | error: same experts | other experts | the exact model's experts |")
    print("|---|---|---|---|---|---|")
    for fmt in ROUNDINGS:
        changed, free, held = (
            np.concatenate(each) for each in zip(*(measure(fmt, s) for s in range(seeds)), strict=True)
        )
        same, other = (free[mask].max(initial=0.0) for mask in (~changed, changed))
        print(f"| {fmt} | {changed.size} | {changed.sum()} | {same:.1e} | {other:.1e} | {held.max():.1e} |", flush=True)


if __name__ == "__main__":
    main()
