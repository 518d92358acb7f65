"""Mixtures of experts: one operator each, whatever layout, activation and router the model has."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.integrations.moe import use_experts_implementation

import gimlet
from gimlet.compiler.frontends import load
from gimlet.compiler.frontends.experts import Activation, activation_of
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, OnnxOp

EXPERTS, HIDDEN, INNER, TOP = 6, 16, 12, 2
ACTIVATIONS = {
    "silu": (Activation("swiglu"), lambda g, u: torch.nn.functional.silu(g) * u),
    "clamped": (
        Activation("swiglu", 1.702, 1.0, 7.0),
        lambda g, u: (u.clamp(-7, 7) + 1) * g.clamp(max=7) * torch.sigmoid(1.702 * g.clamp(max=7)),
    ),
    "gated gelu": (
        Activation("geglu"),
        lambda g, u: torch.nn.functional.gelu(g, approximate="tanh") * u,
    ),
    "exact gated gelu": (None, lambda g, u: torch.nn.functional.gelu(g) * u),
}
ROUTERS = ("softmax of the largest", "largest of softmax", "scaled sigmoid")


def experts_class(*, concatenated: bool, transposed: bool, bias: bool, gate: Any) -> type[torch.nn.Module]:
    class Experts(torch.nn.Module):
        """As transformers' models have them; its own `forward` is never called."""

        def __init__(self, config: Any) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(0)

            def random(*shape: int) -> torch.nn.Parameter:
                return torch.nn.Parameter(torch.randn(*shape, generator=generator) * 2)

            self.num_experts, self.limit = EXPERTS, 7.0
            first, second = (HIDDEN, 2 * INNER), (INNER, HIDDEN)
            self.gate_up_proj = random(EXPERTS, *(first if transposed else first[::-1]))
            self.down_proj = random(EXPERTS, *(second if transposed else second[::-1]))
            if bias:
                self.gate_up_proj_bias, self.down_proj_bias = random(EXPERTS, 2 * INNER), random(EXPERTS, HIDDEN)

        def _apply_gate(self, values: torch.Tensor) -> torch.Tensor:
            return gate(*(values.chunk(2, -1) if concatenated else (values[..., ::2], values[..., 1::2])))

        def forward(self, *args: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError

    decorate = use_experts_implementation(is_concatenated=concatenated, is_transposed=transposed, has_bias=bias)
    return decorate(Experts)


class Mixture(torch.nn.Module):
    def __init__(self, router: str, **options: Any) -> None:
        super().__init__()
        self.kind = router
        self.router = torch.nn.Linear(HIDDEN, EXPERTS)
        self.experts = experts_class(**options)(SimpleNamespace(_experts_implementation="grouped_mm"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.router(x)
        if self.kind == ROUTERS[0]:
            values, index = torch.topk(logits, TOP, dim=-1)
            return self.experts(x, index, torch.softmax(values, dim=1))
        if self.kind == ROUTERS[1]:
            values, index = torch.topk(torch.softmax(logits.float(), dim=-1), TOP, dim=-1)
            values /= values.sum(dim=-1, keepdim=True)
            return self.experts(x, index, values)
        values, index = torch.topk(torch.sigmoid(logits), TOP, dim=-1)
        return self.experts(x, index, values * 2.5)


def operators(model: torch.nn.Module) -> tuple[list[str], list[str]]:
    """The ONNX operators that a mixture becomes, and the keys of its weights."""
    tokens = torch.export.Dim("tokens", min=1, max=64)
    module = load(model, args=(torch.ones(3, HIDDEN),), dynamic_shapes=({0: tokens},), ctx=GimletContext())
    ops = [op for op in module.walk() if isinstance(op, OnnxOp)]
    return [op.op_type for op in ops], [op.key for op in ops if isinstance(op, InitializerOp) and op.key]


def compiled(model: torch.nn.Module, path: Path) -> gimlet.Program:
    tokens = torch.export.Dim("tokens", min=1, max=64)
    gimlet.compile(model, (torch.ones(3, HIDDEN),), dynamic_shapes=({0: tokens},), output=path)
    return gimlet.load(path)


LAYOUTS = [
    (concatenated, transposed, bias)
    for concatenated, transposed, bias in product((False, True), repeat=3)
    if (concatenated, transposed, bias) in {(False, True, True), (True, False, False), (True, True, True)}
]


@pytest.mark.parametrize(("layout", "router"), list(zip(LAYOUTS, ROUTERS, strict=True)))
def test_every_layout_and_router(layout: tuple[bool, bool, bool], router: str, tmp_path: Path):
    torch.manual_seed(0)
    concatenated, transposed, bias = layout
    gate = ACTIVATIONS["clamped" if bias else "silu"][1]
    model = Mixture(router, concatenated=concatenated, transposed=transposed, bias=bias, gate=gate).eval()
    with compiled(model, tmp_path / "m.gimlet") as program:
        assert_same(model, program)


@pytest.mark.parametrize(("router", "softmax"), list(zip(ROUTERS, (True, True, False), strict=True)))
def test_a_router_that_moe_has_is_left_to_it(router: str, softmax: bool):
    model = Mixture(router, concatenated=True, transposed=False, bias=False, gate=ACTIVATIONS["silu"][1])
    found, keys = operators(model)
    assert found.count("MoE") == 1
    assert ("ScatterElements" in found) is not softmax
    assert "Experts" not in found
    assert any("gate_up_proj.interleaved" in key for key in keys)
    assert not any(key.endswith("gate_up_proj") for key in keys)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("concatenated", [False, True])
def test_an_activation_is_found_by_what_it_computes(name: str, concatenated: bool):
    wanted, gate = ACTIVATIONS[name]
    cls = experts_class(concatenated=concatenated, transposed=False, bias=False, gate=gate)
    found = activation_of(cls(SimpleNamespace(_experts_implementation="grouped_mm")))
    if wanted is None:
        assert found is None
        return
    assert found is not None
    assert (found.kind, found.alpha, found.beta, found.limit) == (wanted.kind, wanted.alpha, wanted.beta, wanted.limit)
    assert found.interleaved is not concatenated


@pytest.mark.parametrize(
    ("function", "kind"),
    [(torch.relu, "relu"), (torch.nn.SiLU(), "silu"), (torch.nn.GELU("tanh"), "gelu"), (torch.tanh, None)],
)
def test_experts_without_a_gate(function: Any, kind: str | None):
    found = activation_of(SimpleNamespace(has_gate=False, act_fn=function))
    assert (found.kind if found else None) == kind


def test_what_follows_an_expert_is_not_lost():
    assert activation_of(SimpleNamespace(has_gate=False, act_fn=torch.relu, has_post_expert_norm=True)) is None
    assert activation_of(SimpleNamespace(has_gate=True, _apply_gate=lambda values: values @ torch.ones(3))) is None


@pytest.mark.parametrize(("activation", "operator"), [("gated gelu", "MoE"), ("exact gated gelu", "MatMul")])
def test_experts_that_the_cpu_has_no_kernel_for(activation: str, operator: str, tmp_path: Path):
    torch.manual_seed(0)
    gate = ACTIVATIONS[activation][1]
    model = Mixture(ROUTERS[0], concatenated=True, transposed=False, bias=False, gate=gate).eval()
    assert operator in operators(model)[0]
    with compiled(model, tmp_path / "m.gimlet") as program:
        assert_same(model, program)


def assert_same(model: torch.nn.Module, program: gimlet.Program) -> None:
    for tokens in (1, 7, 40):
        x = torch.randn(tokens, HIDDEN)
        with torch.no_grad():
            expected = model(x).numpy()
        assert np.abs(program(x.numpy()) - expected).max() <= 1e-5 * np.ptp(expected)


def test_a_program_with_grouped_products_in_a_file(tmp_path: Path):
    torch.manual_seed(0)
    gate = ACTIVATIONS["silu"][1]
    model = Mixture(ROUTERS[0], concatenated=True, transposed=False, bias=False, gate=gate).eval()
    tokens = torch.export.Dim("tokens", min=1, max=64)
    program = torch.export.export(model, (torch.ones(3, HIDDEN),), dynamic_shapes=({0: tokens},))
    torch.export.save(program, tmp_path / "m.pt2")
    bundle = gimlet.compile(tmp_path / "m.pt2", output=tmp_path / "m.gimlet")
    with gimlet.load(bundle.path) as loaded:
        assert_same(model, loaded)


def test_the_model_is_left_as_it_was():
    model = Mixture(ROUTERS[0], concatenated=True, transposed=False, bias=False, gate=ACTIVATIONS["silu"][1])
    operators(model)
    assert "forward" not in vars(model.experts)
    assert model(torch.ones(1, HIDDEN)).shape == (1, HIDDEN)
