"""What a module changes in place: arguments, which change for the caller too, and buffers, which become states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.export import Dim

import gimlet
from gimlet.compiler.checking.verify import verify_bundle
from gimlet.compiler.frontends import load
from gimlet.compiler.sources import open_source
from gimlet.dialects.context import GimletContext
from gimlet.runtime.errors import InputError


class Caching(torch.nn.Module):
    def forward(self, x: torch.Tensor, cache: dict[str, torch.Tensor], at: torch.Tensor) -> Any:
        cache["k"].index_copy_(1, at, x)
        cache["v"][:, :1] += 1
        return cache["k"].sum(1), x * 2


def cached() -> tuple[Any, ...]:
    return torch.rand(2, 3, 4), {"k": torch.zeros(2, 8, 4), "v": torch.zeros(2, 8)}, torch.tensor([1, 2, 6])


def test_the_callers_arrays_are_changed(tmp_path: Path):
    batch = Dim("batch", max=8)
    shapes = {"x": {0: batch}, "cache": {"k": {0: batch}, "v": {0: batch}}, "at": None}
    bundle = gimlet.compile(Caching(), cached(), dynamic_shapes=shapes, output=tmp_path / "m.gimlet")
    x, cache, at = cached()
    mine = {key: value.numpy().copy() for key, value in cache.items()}
    tensors = {key: value.clone() for key, value in cache.items()}
    with gimlet.load(bundle.path) as program:
        for _ in range(2):
            expected = Caching()(x, cache, at)
            for given in (mine, tensors):
                found = program(x, given, at)
                for array, tensor in zip(found, expected, strict=True):
                    np.testing.assert_allclose(array, tensor, rtol=1e-6)
                for key in cache:
                    np.testing.assert_array_equal(given[key], cache[key])
        assert set(program.run({"x": x, "cache_k": mine["k"], "cache_v": mine["v"], "at": at})) >= {"cache_k.after"}
        mine["k"].flags.writeable = False
        with pytest.raises(InputError, match="argument 'cache_k': is a read-only array"):
            program(x, mine, at)
        with pytest.raises(InputError, match="argument 'cache_v': is a list"):
            program(x, {**tensors, "v": mine["v"].tolist()}, at)
    source = open_source(Caching(), args=cached(), dynamic_shapes=shapes)
    for comparison in verify_bundle(bundle.path, source):
        assert comparison.ok
        assert {"cache_k.after", "cache_v.after"} <= set(comparison.outputs)


class Overwrites(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2)


def test_an_argument_that_is_returned_too(tmp_path: Path):
    bundle = gimlet.compile(Overwrites(), (torch.ones(4),), output=tmp_path / "m.gimlet")
    (output,) = bundle.manifest.outputs
    assert bundle.manifest.signature is not None
    assert bundle.manifest.signature.changed == (("x", output.name),)
    mine = np.ones(4, np.float32)
    with gimlet.load(bundle.path) as program:
        assert program(mine).tolist() == mine.tolist() == [2] * 4


class Counter(torch.nn.Module):
    def __init__(self, begin: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("steps", torch.full((4,), begin))
        self.weight = torch.nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps.view(2, 2).add_(1)
        return x * self.steps * self.weight


def test_a_buffer_is_a_state(tmp_path: Path):
    bundle = gimlet.compile(Counter(), (torch.ones(4),), output=tmp_path / "m.gimlet")
    assert [state.name for state in bundle.manifest.states] == ["steps"]
    with gimlet.load(bundle.path) as program:
        assert [program(np.ones(4, np.float32))[0] for _ in range(3)] == [1, 2, 3]
        with program.state() as other:
            assert other(np.ones(4, np.float32))[0] == 1
    source = open_source(Counter(), args=(torch.ones(4),))
    assert all(comparison.ok for comparison in verify_bundle(bundle.path, source))


class Hidden(torch.nn.Module):
    """Its buffer is also in an object that is no module, as a cache of transformers has it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(4), persistent=False)
        self.register_buffer("place", torch.zeros(4), persistent=False)
        self.held = [{"steps": self.steps, "place": self.place}]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        held = self.held[0]
        held["place"].copy_(x)
        held["steps"].add_(held["place"])
        return held["steps"] * 2


def test_a_buffer_that_an_object_holds_too(tmp_path: Path):
    model = Hidden()
    bundle = gimlet.compile(model, (torch.ones(4),), output=tmp_path / "m.gimlet")
    assert not model.steps.any(), "the trace leaves the module as it was"
    assert [state.name for state in bundle.manifest.states] == ["steps"], "the other is overwritten before it is read"
    with gimlet.load(bundle.path) as program:
        assert [program(np.full(4, n, np.float32))[0] for n in (1, 2, 3)] == [2, 6, 12]


class ChangesWeight(Counter):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.weight.add_(1)
        return x * self.weight


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Counter(1.0), "buffer 'steps' is changed in place, and begins with other values than zeros"),
        (ChangesWeight(), "parameter 'weight' is changed in place, and a bundle's weights are constants"),
    ],
)
def test_what_cannot_be_changed_is_refused(model: torch.nn.Module, message: str):
    with pytest.raises(InputError, match=message) as error:
        load(model, args=(torch.ones(4),), ctx=GimletContext())
    assert error.value.where is not None
    assert error.value.where.startswith("tests/unit/compiler/test_in_place.py:")


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_a_static_cache_of_transformers(tmp_path: Path):
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
    from transformers.integrations.executorch import TorchExportableModuleWithStaticCache

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=64)).eval()
    model.generation_config = GenerationConfig(use_cache=True, cache_implementation="static")
    module = TorchExportableModuleWithStaticCache(model, 1, 16)
    inputs = {"input_ids": torch.tensor([[5]]), "cache_position": torch.tensor([0])}
    bundle = gimlet.compile(module, kwargs=inputs, output=tmp_path / "m.gimlet")
    assert len(bundle.manifest.states) == 4
    tokens = [5, 7, 9, 3, 2]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    with gimlet.load(bundle.path) as program:
        for place, token in enumerate(tokens):
            found = program(input_ids=np.array([[token]]), cache_position=np.array([place]))
            np.testing.assert_allclose(found[0, 0], expected[place], atol=1e-6)


def test_an_argument_called_input_may_be_changed(tmp_path: Path):
    class Named(torch.nn.Module):
        def forward(self, input: torch.Tensor) -> Any:
            input.add_(1)
            return input * 2, 3

    gimlet.compile(Named(), (torch.ones(2),), output=tmp_path / "m.gimlet")
    with gimlet.load(tmp_path / "m.gimlet") as program:
        given = np.ones(2, np.float32)
        np.testing.assert_array_equal(program(given)[0], [4, 4])
        np.testing.assert_array_equal(given, [2, 2])
