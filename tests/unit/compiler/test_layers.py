"""Layers that are alike are copies of one that was traced, and the graph is that of the whole trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.same_graph import both_ways
from torch.export import Dim

import gimlet
from gimlet.compiler.frontends import pytorch
from gimlet.compiler.frontends.layers.alike import groups_of
from gimlet.compiler.frontends.layers.marks import NotRepeatedError, repeats_of, two_of_each
from gimlet.compiler.frontends.layers.numbers import LayerNumber
from gimlet.compiler.frontends.layers.rehearsal import rehearse
from gimlet.dialects.context import GimletContext

DEPTH = 4
SIZE = 4
LAST = (*[0] * (DEPTH - 1), 1)
Past = tuple[tuple[torch.Tensor, torch.Tensor], ...]


class Cache:
    """What transformers' caches are to torch.export inside of a model: an object that is no container."""

    def __init__(self, past: Past) -> None:
        self.past = list(past)
        self.first: torch.Tensor | None = None


class Layer(torch.nn.Module):
    """Of a number that it knows: with its own past, with `shared`, as layers of a decoder."""

    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.linear = torch.nn.Linear(SIZE, SIZE)
        self.register_buffer("scale", torch.full((SIZE,), 1.0 + layer_idx), persistent=False)

    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> torch.Tensor:
        cache.past[self.layer_idx] = tuple(torch.cat([past, hidden], 1) for past in cache.past[self.layer_idx])
        return hidden + self.linear(hidden * self.scale).relu() * shared + cache.past[self.layer_idx][0].mean()


class NumberIsUsed(Layer):
    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        new = super().forward(hidden, shared, cache)
        return new if self.layer_idx in (0, DEPTH - 1) else new.sin()


class LastIsOther(Layer):
    """By its number as an index alone."""

    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        return super().forward(hidden, shared, cache) * LAST[self.layer_idx]


class LastReturnsOther(Layer):
    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        one, other = hidden.sin(), hidden.cos()
        if LAST[self.layer_idx]:
            one, other = other, one
        cache.past[self.layer_idx] = (one, one)
        return other


class LastReturnsMore(Layer):
    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        new = super().forward(hidden, shared, cache)
        return (new, 1) if LAST[self.layer_idx] else new


class InPlace(Layer):
    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        shared += 1
        return super().forward(hidden, shared, cache)


class Leaking(Layer):
    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        cache.first = hidden.sin() if cache.first is None else cache.first
        return super().forward(hidden, shared, cache) + cache.first


class Appending(Layer):
    def forward(self, hidden: torch.Tensor, shared: Any, cache: Cache) -> Any:
        shared.append(hidden)
        return super().forward(hidden, shared[0], cache)


class Shorter(Layer):
    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        return super().forward(hidden, shared, cache)[:, :1]


class ReturnsCache(Layer):
    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        return super().forward(hidden, shared, cache), Cache(())


class Branching(Layer):
    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        return torch.cond(hidden.sum() > 0, lambda x: (x.sin(),), lambda x: (x.cos(),), (hidden,))[0]


class Tied(Layer):
    def __init__(self, layer_idx: int) -> None:
        super().__init__(layer_idx)
        self.other = torch.nn.Linear(SIZE, SIZE)

    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        return self.other(super().forward(hidden, shared, cache))


class Pair(Layer):
    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        return super().forward(hidden, shared, cache), hidden.sin(), shared, "text"


class Model(torch.nn.Module):
    """Layers with a past each, and what is the same for all of them."""

    def __init__(self, layers: list[torch.nn.Module]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x: torch.Tensor, past: Past) -> Any:
        shared, cache = self.shared(x), Cache(past)
        for number in range(len(self.layers)):
            new = self.call(number, x, shared, cache)
            x = new[0] if isinstance(new, tuple) else new
        return self.returned(x, cache)

    def shared(self, x: torch.Tensor) -> Any:
        return x.mean(-1, keepdim=True).exp()

    def call(self, number: int, *args: Any) -> Any:
        return self.layers[number](*args)

    def returned(self, x: torch.Tensor, cache: Cache) -> Any:
        return x, tuple(cache.past)


def layers_of(kind: Callable[[int], torch.nn.Module], depth: int = DEPTH) -> list[torch.nn.Module]:
    torch.manual_seed(0)
    return [kind(number) for number in range(depth)]


def inputs_of(model: Model) -> tuple[Any, ...]:
    return torch.rand(2, 3, SIZE), tuple((torch.rand(2, 5, SIZE), torch.rand(2, 5, SIZE)) for _ in model.layers)


def reason_of(model: torch.nn.Module, args: tuple[Any, ...]) -> str:
    """Why the model's layers cannot be copies."""
    repeats = repeats_of(model)
    try:
        with two_of_each(repeats):
            program = pytorch.export_program(model, args, None, None)
        pytorch.import_program(program, GimletContext(), source=model, repeats=repeats)
    except NotRepeatedError as reason:
        return str(reason)
    return "they can"


COPIES = "2 layers are copies of others that are alike"


def test_layers_with_a_past_each():
    model = Model(layers_of(Layer))
    axes = {0: Dim("batch", max=9), 1: Dim("past", max=99)}
    shapes = {"x": {0: axes[0], 1: Dim("length", max=9)}, "past": tuple((axes, axes) for _ in model.layers)}
    assert both_ways(model, inputs_of(model), shapes) == [COPIES]


def test_more_results_than_one():
    model = Model(layers_of(Pair))
    assert both_ways(model, inputs_of(model)) == [COPIES]


def test_tied_weights():
    model = Model(layers_of(Layer))
    for layer in model.layers[1:3]:
        layer.linear.weight = model.layers[0].linear.weight
    assert both_ways(model, inputs_of(model)) == [COPIES]


def test_two_layers_share_a_module():
    model = Model(layers_of(Layer))
    model.layers[1].linear = model.layers[2].linear
    assert both_ways(model, inputs_of(model)) == [COPIES]


def test_two_kinds_in_turns():
    model = Model([Layer(number) if number % 2 else Pair(number) for number in range(8)])
    assert both_ways(model, inputs_of(model)) == [COPIES.replace("2", "4")]


class Listing(Model):
    """Gives its layers a list."""

    def shared(self, x: torch.Tensor) -> Any:
        return [super().shared(x)]


class Twice(Model):
    def call(self, number: int, *args: Any) -> Any:
        return super().call(number, *args) if number else self.layers[0](super().call(0, *args), *args[1:])


class CallsOneOtherwise(Model):
    def call(self, number: int, x: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        return super().call(number, x, 2.0 if number == 2 else shared, cache)


class CallsLastOtherwise(Model):
    def call(self, number: int, x: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        return super().call(number, x, 2.0 if number == DEPTH - 1 else shared, cache)


class ReturnsFirstPast(Model):
    def returned(self, x: torch.Tensor, cache: Cache) -> Any:
        return x, cache.past[0], cache.past[-1]


class ReturnsOtherPast(Model):
    def returned(self, x: torch.Tensor, cache: Cache) -> Any:
        return x, [cache.past[number] if number != 2 else cache.past[1] for number in range(DEPTH)]


class ReturnsOtherLast(Model):
    def returned(self, x: torch.Tensor, cache: Cache) -> Any:
        return x, (*cache.past[:-1], cache.past[-1][::-1])


@pytest.mark.parametrize(
    ("model", "kind", "reason"),
    [
        (Model, NumberIsUsed, "layers.1: what it computes depends on its number"),
        (Model, LastIsOther, "layers.3: its graph is not that of the first"),
        (Model, LastReturnsOther, "layers.3: its result is not that of the first"),
        (Model, LastReturnsMore, "layers.3: it returns otherwise than layers.0"),
        (Model, InPlace, "layers.0: it changes a tensor in place that is not its own"),
        (Model, Leaking, "layers.0: other layers read values of it"),
        (Model, Shorter, "layers.0: it does not return a tensor of the form of its first input"),
        (Model, ReturnsCache, "layers.0: it returns a Cache"),
        (Model, Branching, "layers.0: it has control flow"),
        (Listing, Appending, "layers.0: it changes a list or a dict that it is given"),
        (Twice, Layer, "layers: not every layer is called once"),
        (CallsOneOtherwise, Layer, "layers.2: it is called otherwise than layers.0"),
        (CallsLastOtherwise, Layer, "layers.3: it is called otherwise than layers.0"),
        (ReturnsFirstPast, Layer, "layers.3: there is no output for it"),
        (ReturnsOtherPast, Layer, "layers.2: its output 5 is of something else"),
        (ReturnsOtherLast, Layer, "layers.3: it yields other outputs than the first"),
    ],
)
def test_layers_that_only_seem_alike_are_all_traced(model: type[Model], kind: type[Layer], reason: str):
    made = model(layers_of(kind))
    assert reason_of(made, inputs_of(made)) == reason


def test_what_is_not_alike_after_all_is_traced_whole():
    model = Twice(layers_of(Layer))
    assert both_ways(model, inputs_of(model)) == ["every layer is traced: layers.1: it does not do what layers.0 does"]


SCALES = (1.0, 0.5, 0.25, 1.0)


class Scaled(Layer):
    """By a list of the program, whose first and last items are equal."""

    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        return super().forward(hidden, shared, cache) * SCALES[self.layer_idx]


class Counting(Layer):
    calls = 0

    def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
        Counting.calls += 1
        return super().forward(hidden, shared, cache) * (2.0 if Counting.calls % DEPTH == 3 else 1.0)


@pytest.mark.parametrize(("kind", "layer"), [(Scaled, 1), (Counting, 2)])
def test_a_layer_in_the_middle_that_is_other(kind: type[Layer], layer: int):
    model = Model(layers_of(kind))
    repeats = repeats_of(model)
    with pytest.raises(NotRepeatedError, match=f"layers.{layer}: it does not do what layers.0 does"):
        rehearse(model, repeats, inputs_of(model), {})
    assert not model.training or all(layer.training for layer in model.layers)
    assert not any("forward" in vars(layer) for layer in model.layers)


def test_what_cannot_be_run_without_numbers():
    class Reading(Layer):
        def forward(self, hidden: torch.Tensor, shared: torch.Tensor, cache: Cache) -> Any:
            return super().forward(hidden, shared, cache) * float(shared.sum())

    model = Model(layers_of(Reading))
    with pytest.raises(NotRepeatedError, match="it does not run without numbers"):
        rehearse(model, repeats_of(model), inputs_of(model), {})
    with pytest.raises(NotRepeatedError, match="the model is given a Cache"):
        rehearse(model, repeats_of(model), (Cache(()),), {})


def test_names_of_copies_are_no_other_s(tmp_path: Path):
    """The last layer's operations are numbered as a copy of the second would be."""
    model = torch.nn.Sequential(*(torch.nn.Linear(SIZE, SIZE) for _ in range(5)))
    gimlet.compile(model, (torch.ones(1, SIZE),), output=tmp_path / "m.gimlet")
    with gimlet.load(tmp_path / "m.gimlet") as program:
        found = program(np.ones((1, SIZE), np.float32))
    np.testing.assert_allclose(found, model(torch.ones(1, SIZE)).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_weight_that_is_tied_inside_of_one_layer():
    layers = layers_of(Tied)
    layers[0].other.weight = layers[0].linear.weight
    model = Model(layers)
    reason = "layers.3: it shares tensors otherwise than the first"
    assert reason_of(model, inputs_of(model)) == reason


def test_an_operator_alone_is_no_layer():
    assert not repeats_of(
        torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(8)), *map(torch.nn.ReLU, [False] * 8))
    )


def test_layers_are_as_they_were_afterwards():
    model = Model(layers_of(Layer))
    with two_of_each(repeats_of(model)):
        pytorch.export_program(model, inputs_of(model), None, None)
    assert not any("forward" in vars(layer) for layer in model.layers)
    assert all(type(layer.layer_idx) is int for layer in model.layers)


def sizes(layers: list[torch.nn.Module]) -> list[list[int]]:
    return [group.places for group in groups_of(layers)]


def test_what_makes_layers_unlike():
    layers = layers_of(Layer, 9)
    layers[1].register_forward_hook(lambda *_: None)
    layers[2].linear = torch.nn.Linear(SIZE, SIZE, bias=False)
    layers[3].linear.weight = torch.nn.Parameter(torch.empty(SIZE, SIZE, dtype=torch.float64))
    layers[4].layer_idx = 7
    layers[5].eps = 1e-5
    layers[6].linear = torch.nn.Sequential(torch.nn.Linear(SIZE, SIZE))
    layers[7].linear.in_features = 5
    assert sizes(layers) == [[0, 8], *([number] for number in range(1, 8))]


def test_a_list_for_all_layers_makes_them_unlike():
    class Config:
        kinds = None

    config = Config()
    config.kinds = ["a", "b", "a", "b"]
    layers = layers_of(Layer, 4)
    for layer in layers:
        layer.config = config
    assert sizes(layers) == [[0, 2], [1, 3]]


def test_settings_that_are_equal():
    layers = layers_of(Layer, 3)
    for layer in layers:
        layer.settings = {"a": [1, 2.0, None], "b": {"x"}, "c": (torch.float32,)}
        layer.bound = layer.linear.forward
    assert sizes(layers) == [[0, 1, 2]]
    layers[1].bound = layers[0].linear.forward
    layers[2].settings = {"a": [1, 2.5, None], "b": {"x"}, "c": (torch.float32,)}
    assert sizes(layers) == [[0], [1], [2]]


def test_a_number_remembers_what_was_asked():
    number = LayerNumber(3)
    assert ["a", "b", "c", "d"][number] == "d"
    assert number.would_answer(8)
    assert number > 2
    assert number.would_answer(8)
    assert not number.would_answer(1)
    assert number % 5 == 3
    assert number.would_answer(8)
    assert not number.would_answer(9)
    assert 1 + number == 4
    assert not number.would_answer(8)
    assert number.would_answer(3)
    assert isinstance(hash(number), int)
