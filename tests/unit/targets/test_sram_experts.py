"""Mixtures of experts on the SRAM machine against numpy, fetched for a few tokens and all at once for many."""

import numpy as np
import pytest
from onnx import helper
from tests.unit.targets.sram_models import DEVICE, Runner, device, emit, model_of, relative_error, segment_of
from tests.unit.targets.test_sram_ops import F

from gimlet.targets.api import Reason

ALL_MX = device(mx_error_budget=1.0)
RNG = np.random.default_rng(5)
EXPERTS, HIDDEN, INNER = 6, 192, 136
GATED = {"activation_type": "swiglu", "swiglu_fusion": 1}


def normal(*shape):
    return (RNG.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)


def weights_of(fused, third, bias):
    found = {"w1": normal(EXPERTS, INNER * (1 + fused), HIDDEN), "w2": normal(EXPERTS, HIDDEN, INNER)}
    if third:
        found["w3"] = normal(EXPERTS, INNER, HIDDEN)
    if bias:
        found |= {f"b{name[1:]}": normal(*each.shape[:2]) for name, each in found.items()}
    return found


def model(weights, tokens, attributes):
    names = [name if name in weights else "" for name in ("w1", "b1", "w2", "b2", "w3", "b3")]
    node = helper.make_node("MoE", ["x", "router", *names], ["y"], name="moe", domain="com.microsoft", **attributes)
    given = {"x": (F, [*tokens, HIDDEN]), "router": (F, [tokens[-1], EXPERTS])}
    found = model_of([node], given, ["y"], weights)
    found.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return found


def expected(weights, x, router, attributes):
    """The operator's documentation, token by token."""
    tokens, found = x.reshape(-1, HIDDEN).astype(np.float64), np.zeros((router.shape[0], HIDDEN))
    for row, logits in enumerate(router.astype(np.float64)):
        chosen = np.argsort(-logits, kind="stable")[: attributes.get("k", 1)]
        among = chosen if attributes.get("normalize_routing_weights") else range(EXPERTS)
        for expert in chosen:
            share = np.exp(logits[expert]) / np.exp(logits[list(among)]).sum()
            inner = layer(weights, "1", expert, tokens[row])
            inner = layer(weights, "2", expert, activated(weights, expert, inner, tokens[row], attributes))
            found[row] += share * inner
    return found.reshape(x.shape)


def layer(weights, which, expert, x):
    return weights[f"w{which}"][expert] @ x + (weights[f"b{which}"][expert] if f"b{which}" in weights else 0)


def activated(weights, expert, inner, x, attributes):
    kind, fusion = attributes.get("activation_type", "relu"), attributes.get("swiglu_fusion", 0)
    if kind != "swiglu":
        inner = {"relu": lambda a: np.maximum(a, 0), "silu": lambda a: a / (1 + np.exp(-a))}[kind](inner)
        return inner * layer(weights, "3", expert, x) if "w3" in weights else inner
    gate, up = (inner[0::2], inner[1::2]) if fusion == 1 else np.split(inner, 2) if fusion else (inner, None)
    up = layer(weights, "3", expert, x) if up is None else up
    limit = attributes.get("swiglu_limit", np.inf)
    gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
    alpha, beta = attributes.get("activation_alpha", 1.0), attributes.get("activation_beta", 0.0)
    return gate / (1 + np.exp(-alpha * gate)) * (up + beta)


@pytest.mark.parametrize("tokens", [1, 40], ids=["fetched", "all"])
@pytest.mark.parametrize(
    ("attributes", "third", "bias"),
    [
        (
            {"k": 2, "normalize_routing_weights": 1, "activation_alpha": 1.7, "activation_beta": 1.0, **GATED},
            False,
            True,
        ),
        ({"k": 2, "swiglu_limit": 0.5, **GATED, "swiglu_fusion": 2}, False, True),
        ({"k": 3, "activation_type": "swiglu"}, True, False),
        ({"k": 1, "activation_type": "silu"}, True, True),
        ({"k": 2}, False, False),
    ],
)
def test_experts(attributes, third, bias, tokens):
    weights = weights_of(attributes.get("swiglu_fusion", 0) > 0, third, bias)
    runner = Runner(segment_of(model(weights, [tokens], attributes)), "fp32")
    x, router = RNG.standard_normal((tokens, HIDDEN)).astype(np.float32), normal(tokens, EXPERTS) * 4
    assert relative_error(runner(x=x, router=router)[0], expected(weights, x, router, attributes)) <= 2e-6
    fetched = any(kernel.name.startswith("experts") for kernel in runner.executor.program.kernels)
    assert fetched == (tokens == 1 or attributes["k"] == 1)


@pytest.mark.parametrize(("fmt", "on", "limit"), [("bf16", DEVICE, 1e-2), ("mxint8", ALL_MX, 5e-2)])
@pytest.mark.parametrize("tokens", [1, 40])
def test_formats(fmt, on, limit, tokens):
    attributes = {"k": 2, "normalize_routing_weights": 1, **GATED}
    weights = weights_of(True, False, True)
    runner = Runner(segment_of(model(weights, [1, tokens], attributes)), fmt, on)
    x, router = RNG.standard_normal((1, tokens, HIDDEN)).astype(np.float32), normal(tokens, EXPERTS) * 4
    assert list(runner.artifact.facts["products"]) == [fmt]
    assert 1e-4 < relative_error(runner(x=x, router=router)[0], expected(weights, x, router, attributes)) <= limit


def test_any_number_of_tokens():
    attributes = {"k": 2, "normalize_routing_weights": 1, **GATED}
    weights = weights_of(True, False, True)
    runner = Runner(segment_of(model(weights, ["tokens"], attributes), {"tokens": (1, 4, 50)}), "fp32")
    for tokens in (1, 4, 33):
        x, router = RNG.standard_normal((tokens, HIDDEN)).astype(np.float32), normal(tokens, EXPERTS) * 4
        assert relative_error(runner(x=x, router=router)[0], expected(weights, x, router, attributes)) <= 2e-6


def test_a_token_reads_only_its_experts():
    """Ten times as many experts take the DMA engines hardly longer."""
    attributes = {"k": 2, "normalize_routing_weights": 1, **GATED}
    cycles = []
    for times in (1, 10):
        weights = {name: np.tile(each, (times, 1, 1)) for name, each in weights_of(True, False, False).items()}
        built = model(weights, [1], attributes)
        built.graph.input[1].type.tensor_type.shape.dim[1].dim_value = EXPERTS * times
        cycles.append(Runner(segment_of(built), "fp32").artifact.facts["cycles"])
    assert cycles[1] <= 1.2 * cycles[0]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"activation_type": "geglu", "swiglu_fusion": 1}, "activation geglu"),
        ({"use_sparse_mixer": 1}, "sparse mixer"),
        ({"activation_type": "swiglu"}, "swiglu_fusion 0 without third weights"),
    ],
)
def test_what_is_refused(attributes, reason, tmp_path):
    found = emit(
        segment_of(model(weights_of("activation_type" in attributes, False, False), [2], attributes)), "fp32", tmp_path
    )
    assert isinstance(found, Reason)
    assert reason in found.message


@pytest.mark.parametrize("tokens", [1, 3])
def test_experts_that_are_fetched_from_lpddr_take_their_bytes(tokens):
    """Items fetch by computed positions: what one reads is no other's, though all read one tensor."""
    small = device(chiplets=1, cores=16, sram_bytes_per_core=2**18, lpddr_bytes_per_s=2e10)
    many, chosen = 10 * EXPERTS, 2
    weights = {name: np.tile(each, (10, 1, 1)) for name, each in weights_of(True, False, False).items()}
    built = model(weights, [tokens], {"k": chosen, **GATED})
    built.graph.input[1].type.tensor_type.shape.dim[1].dim_value = many
    facts = Runner(segment_of(built), "fp32", small).artifact.facts
    fetched = facts["lpddr_bytes"] * tokens * chosen / many
    assert fetched > 100_000
    assert facts["seconds"] >= 0.99 * fetched / small.kind.options["lpddr_bytes_per_s"]
