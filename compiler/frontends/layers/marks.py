"""Traces a model of which only the first and the last layer of each group of layers that are alike are run.

A layer that is run lies between two nodes, `Enter` and `Leave`; each other is one node, `Layer`. They are operators of
the domain `gimlet`, take all tensors that the layer was given, and yield the first of them, or what the layer made of
it. `copies` writes the other layers out when the graph is one of ONNX.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree

from gimlet.compiler.frontends.layers.alike import Group, groups_of
from gimlet.compiler.frontends.layers.numbers import LayerNumber, remembering
from gimlet.compiler.frontends.mutation import origin_of, written

DOMAIN: Final = "gimlet"
ENTER: Final = "Enter"
LEAVE: Final = "Leave"
LAYER: Final = "Layer"
NAME: Final = "layer"
_LEAST_GROUP: Final = 4
_CONTAINERS: Final = (tuple, list, dict)


class NotRepeatedError(Exception):
    """Layers that seemed to be alike may differ in what they compute: the model has to be traced whole."""


@dataclass
class Repeat:
    """Layers of one list that are alike, by their places. The first and the last are traced."""

    path: str
    group: Group
    layers: list[torch.nn.Module]
    called: list[int] = field(default_factory=list[int])
    call: _Call | None = None
    numbers: list[LayerNumber] = field(default_factory=list[LayerNumber])

    @property
    def first(self) -> int:
        return self.group.places[0]

    @property
    def last(self) -> int:
        return self.group.places[-1]

    @property
    def others(self) -> list[int]:
        """The places of those that are not traced."""
        return self.group.places[1:-1]

    def name(self, place: int) -> str:
        """The name of a layer in the model."""
        return f"{self.path}.{place}"


@dataclass(frozen=True)
class _Call:
    """How a layer was called, without its tensors, and what it returned in the place of each value."""

    spec: _pytree.TreeSpec
    leaves: tuple[Any, ...]
    result: _pytree.TreeSpec | None = None
    results: tuple[Any, ...] = ()


def repeats_of(model: torch.nn.Module) -> list[Repeat]:
    """The groups of layers of which it is worth to trace only two: a convolution or an activation alone is not."""
    found: list[Repeat] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{repeat.name(place)}.") for repeat in found for place in repeat.group.places)
        if inside or not isinstance(module, torch.nn.ModuleList | torch.nn.Sequential) or len(module) < _LEAST_GROUP:
            continue
        layers = list(module)
        if len(set(map(id, layers))) == len(layers) and not any("forward" in vars(layer) for layer in layers):
            groups = [group for group in groups_of(layers) if len(group.places) >= _LEAST_GROUP]
            found += [Repeat(path, group, layers) for group in groups if any(layers[group.places[0]].children())]
    return found


@contextmanager
def two_of_each(repeats: Sequence[Repeat]) -> Generator[None]:
    """While this lasts, the others are one node each. NotRepeatedError from a call that was not as those before it."""
    with ExitStack() as stack:
        for repeat in repeats:
            repeat.numbers = stack.enter_context(remembering(repeat.layers[repeat.first], repeat.group.numbers))
            for place in repeat.group.places:
                layer = repeat.layers[place]
                forward = layer.forward
                traced = place in (repeat.first, repeat.last)
                layer.forward = (
                    partial(_traced, repeat, place, forward) if traced else partial(_one_node, repeat, place)
                )
                stack.callback(delattr, layer, "forward")
        yield
    for repeat in repeats:
        _check_calls(repeat)


def _check_calls(repeat: Repeat) -> None:
    if sorted(repeat.called) != repeat.group.places:
        raise NotRepeatedError(f"{repeat.path}: not every layer is called once")
    for place in repeat.others:
        if not all(number.would_answer(int(number) + place - repeat.first) for number in repeat.numbers):
            raise NotRepeatedError(f"{repeat.name(place)}: what it computes depends on its number")


def check_in_place(program: ExportedProgram) -> None:
    """NotRepeatedError for a layer that changes a tensor in place which is not its own: the mark gave it a copy."""
    inside: dict[torch.fx.Node, str] = {}
    layer = ""
    for node in program.graph.nodes:
        kind, name = _mark_of(node)
        layer = name if kind == ENTER else "" if kind == LEAVE else layer
        if kind is None and layer:
            inside[node] = layer
            if any(inside.get(origin_of(changed)) != layer for changed in written(node)):
                raise NotRepeatedError(f"{layer}: it changes a tensor in place that is not its own")


def _mark_of(node: torch.fx.Node) -> tuple[str | None, str]:
    """The kind and the layer of a mark; None for any other node."""
    if node.target is not torch.ops.onnx_symbolic._symbolic.default or node.kwargs.get("domain") != DOMAIN:
        return None, ""
    texts = cast(Sequence[str], node.kwargs["attr_strs"])
    return str(node.args[1]), texts[0] if node.args[1] in (ENTER, LEAVE) else ""


def _traced(repeat: Repeat, place: int, forward: Any, /, *args: Any, **kwargs: Any) -> Any:
    repeat.called.append(place)
    leaves, spec, tensors = _flat(args, kwargs)
    call = _Call(spec, _described(leaves))
    if not tensors or (repeat.call and not _alike(call, repeat.call)):
        raise NotRepeatedError(f"{repeat.name(place)}: it is called otherwise than {repeat.name(repeat.first)}")
    entered = _mark(ENTER, repeat.name(place), tensors)
    given = list(leaves)
    given[_first_tensor(leaves)] = entered
    new_args, new_kwargs = _pytree.tree_unflatten(given, spec)
    results, result = _pytree.tree_flatten(forward(*new_args, **new_kwargs), is_leaf=_is_leaf)
    after, spec_after, _ = _flat(new_args, new_kwargs)
    if spec_after != spec or any(now is not before for now, before in zip(after, given, strict=True)):
        raise NotRepeatedError(f"{repeat.name(place)}: it changes a list or a dict that it is given")
    origins = tuple(_origin(value, given) for value in results)
    if _UNKNOWN in origins:
        kind = type(results[origins.index(_UNKNOWN)]).__name__
        raise NotRepeatedError(f"{repeat.name(place)}: it returns a {kind}")
    made = [value for value, origin in zip(results, origins, strict=True) if origin is _MADE][:1]
    if not made or not _same(_Form(made[0]), _Form(entered)):
        raise NotRepeatedError(f"{repeat.name(place)}: it does not return a tensor of the form of its first input")
    call = _Call(spec, call.leaves, result, origins)
    if repeat.call is None:
        repeat.call = call
    elif (repeat.call.result, repeat.call.results) != (result, origins):
        raise NotRepeatedError(f"{repeat.name(place)}: it returns otherwise than {repeat.name(repeat.first)}")
    results[origins.index(_MADE)] = _mark(LEAVE, repeat.name(place), made)
    return _pytree.tree_unflatten(results, result)


def _one_node(repeat: Repeat, place: int, /, *args: Any, **kwargs: Any) -> Any:
    repeat.called.append(place)
    leaves, spec, tensors = _flat(args, kwargs)
    first = repeat.call
    if first is None or first.result is None or not _alike(_Call(spec, _described(leaves)), first):
        raise NotRepeatedError(f"{repeat.name(place)}: it is called otherwise than {repeat.name(repeat.first)}")
    results = [leaves[origin.index] if isinstance(origin, _Given) else origin for origin in first.results]
    results[results.index(_MADE)] = _mark(LAYER, repeat.name(place), tensors)
    return _pytree.tree_unflatten(results, first.result)


@dataclass(frozen=True)
class _Given:
    """What a layer returns is what it was given, at a place among the leaves of its arguments."""

    index: int


@dataclass(frozen=True)
class _Made:
    """A tensor that the layer makes. Of a layer that is not traced there is only the first: nothing can be done with
    this in the place of another one."""


_MADE: Final = _Made()
_UNKNOWN: Final = object()


def _origin(value: Any, given: Sequence[Any]) -> Any:
    """Where a value that a layer returns is from: `_MADE`, `_Given`, or the value itself if it is a plain one."""
    for index, each in enumerate(given):
        if value is each and (isinstance(value, torch.Tensor) or not _is_plain(value)):
            return _Given(index)
    if isinstance(value, torch.Tensor):
        return _MADE
    return value if _is_plain(value) else _UNKNOWN


def _alike(one: _Call, other: _Call) -> bool:
    return one.spec == other.spec and len(one.leaves) == len(other.leaves) and all(map(_same, one.leaves, other.leaves))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, _Form) and isinstance(other, _Form):
        return str(one) == str(other)
    return one is other or (_is_plain(one) and type(one) is type(other) and one == other)


@dataclass(frozen=True)
class _Form:
    """Of a tensor. Its text is in the names that its dimensions have by now: what is run may find two to be one."""

    of: torch.Tensor

    def __str__(self) -> str:
        return f"{self.of.dtype}{[str(size) for size in self.of.shape]} on {self.of.device}"


def _described(leaves: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments, with its form in place of each tensor."""
    return tuple(_Form(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | torch.dtype | torch.device)


def _is_leaf(value: Any) -> bool:
    return type(value) not in _CONTAINERS


def _flat(args: Any, kwargs: Any) -> tuple[list[Any], _pytree.TreeSpec, list[torch.Tensor]]:
    leaves, spec = _pytree.tree_flatten((args, kwargs), is_leaf=_is_leaf)
    return leaves, spec, [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _first_tensor(leaves: Sequence[Any]) -> int:
    return next(index for index, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor))


def _mark(kind: str, name: str, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    first = tensors[0]
    made = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{kind}", tuple(tensors), {NAME: name}, dtype=first.dtype, shape=first.shape, version=1
    )
    return made if made.device == first.device else made.to(first.device)
