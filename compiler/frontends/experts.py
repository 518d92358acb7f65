"""Grouped experts of transformers' models as one operator, `com.microsoft.MoE`.

Every mixture of experts in transformers goes through one interface: tokens, the experts that each goes to, their
weights, and all experts' parameters in two tensors. While a model is traced, that interface yields one node; after the
conversion the node becomes `MoE`, with the parameters in the layout that the operator has. No parameter is copied:
another layout is a view, made when the weight is written.

`MoE` chooses the experts itself, from logits. Where the model chose them by a softmax of the logits' largest, that is
what `MoE` does, and it gets the logits. Any other choice is given to it as the logarithms of the weights, with −∞ for
the other experts, and what the weights add up to is multiplied afterwards.

An activation that `MoE` lacks leaves the model as it is, with transformers' own `grouped_mm` (`grouped_products`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

DOMAIN: Final = "gimlet"
OPERATOR: Final = "Experts"
_PROBE_SPAN: Final = 20.0


@dataclass(frozen=True)
class Activation:
    """What an expert does between its two products, as the attributes of `MoE` say it.

    A gated one computes `g · sigmoid(alpha · g) · (u + beta)` of `g` and `u`, clamped to `limit` above and on both
    sides, or `gelu(g) · u`, approximated by tanh; `interleaved` says whether the first product yields g0, u0, g1, u1, …
    or all of `g` first.
    """

    kind: str
    alpha: float = 1.0
    beta: float = 0.0
    limit: float = math.inf
    interleaved: bool = False

    @property
    def gated(self) -> bool:
        """Whether the first product yields two values for each one that the second takes."""
        return self.kind in ("swiglu", "geglu")

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        if not self.gated:
            return _UNGATED[self.kind](values)
        gate, up = (values[..., ::2], values[..., 1::2]) if self.interleaved else values.chunk(2, dim=-1)
        if self.kind == "geglu":
            return _UNGATED["gelu"](gate) * up
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return gate * torch.sigmoid(self.alpha * gate) * (up + self.beta)


_UNGATED: Final[dict[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "relu": torch.relu,
    "silu": torch.nn.functional.silu,
    "gelu": partial(torch.nn.functional.gelu, approximate="tanh"),
    "identity": lambda values: values,
}


def activation_of(experts: Any) -> Activation | None:
    """The activation of an experts module, found by what it computes; None where `MoE` has none like it."""
    if getattr(experts, "has_post_expert_norm", False):
        return None
    values = torch.linspace(-_PROBE_SPAN, _PROBE_SPAN, 64, dtype=torch.float64)[torch.randperm(64, generator=_seeded())]
    try:
        with torch.no_grad(), torch.device("cpu"):
            expected = experts._apply_gate(values) if experts.has_gate else experts.act_fn(values)
    except (RuntimeError, TypeError, AttributeError):
        return None
    for candidate in _gated(experts) if experts.has_gate else [Activation(kind) for kind in _UNGATED]:
        found = candidate(values)
        if found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-6, atol=1e-9):
            return candidate
    return None


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _gated(experts: Any) -> list[Activation]:
    config = getattr(experts, "config", None)
    alphas = {1.0, 1.702, *_numbers(experts, config, ("alpha", "swiglu_alpha"))}
    limits = {math.inf, *_numbers(experts, config, ("limit", "swiglu_limit"))}
    gelus = [Activation("geglu", interleaved=interleaved) for interleaved in (False, True)]
    return gelus + [
        Activation("swiglu", alpha, beta, limit, interleaved)
        for interleaved in (False, True)
        for alpha in sorted(alphas)
        for beta in (0.0, 1.0)
        for limit in sorted(limits, reverse=True)
    ]


def _numbers(experts: Any, config: Any, names: Sequence[str]) -> list[float]:
    found = [getattr(owner, name, None) for owner in (experts, config) for name in names]
    return [float(value) for value in found if isinstance(value, int | float)]


def _forward(
    experts: Any,
    activation: Activation,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    first = "gate_up_proj" if experts.has_gate else "up_proj"
    biases = [getattr(experts, f"{name}_bias") if experts.has_bias else None for name in (first, "down_proj")]
    attributes: dict[str, Any] = {
        "activation_type": activation.kind,
        "activation_alpha": activation.alpha,
        "activation_beta": activation.beta,
        "interleaved": int(activation.interleaved),
        "transposed": int(experts.is_transposed),
    }
    if math.isfinite(activation.limit):
        attributes["swiglu_limit"] = activation.limit
    experts_output = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{OPERATOR}",
        (hidden_states, top_k_index, top_k_weights, getattr(experts, first), biases[0], experts.down_proj, biases[1]),
        attributes,
        dtype=hidden_states.dtype,
        shape=hidden_states.shape,
        version=1,
    )
    # PyTorch takes the result of a symbolic operator to be on the CPU; the model may be on the meta device.
    return experts_output.to(hidden_states.device)


@contextmanager
def experts_as_one_op(model: torch.nn.Module) -> Generator[None]:
    """While this lasts, each experts module in `model` whose activation `MoE` has is traced as one node."""
    found = [module for module in model.modules() if hasattr(module, "_is_expert_parallel")]
    changed: list[torch.nn.Module] = []
    try:
        for module in found:
            activation = activation_of(module)
            if activation is not None:
                module.forward = partial(_forward, module, activation)
                changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward
