"""Which layers of a model are alike: the same code with the same settings, on weights of the same shapes.

Layers are the children of a ModuleList or a Sequential. Two are alike if all that their modules hold is equal: classes,
children, the types and shapes of parameters and buffers, and every other attribute, except that an integer may grow
with the layer's place in the list, as `layer_idx` does. Where an object that they share has a list with an item for
each layer, such as `config.layer_types`, their items must be equal too. A layer with a hook is like no other.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import torch

_PLAIN: Final = (str, bytes, int, float, complex, bool, type(None), type, torch.dtype, torch.device, torch.Size)
_NOT_SETTINGS: Final = frozenset({"_parameters", "_buffers", "_modules", "training"})
_HOOKS: Final = "hooks"


@dataclass
class Group:
    """Layers that are alike: their places in the list, and the attributes that hold a layer's own number.

    `numbers` are pairs of a module's path inside of the layer and an attribute's name.
    """

    places: list[int]
    numbers: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])


def groups_of(layers: list[torch.nn.Module]) -> list[Group]:
    """The layers of a list in groups of such as are alike, in the order of their first ones."""
    groups: list[Group] = []
    for place, layer in enumerate(layers):
        for group in groups:
            first = group.places[0]
            comparison = _Comparison(len(layers), first, place)
            if comparison.modules(layers[first], layer, ""):
                group.places.append(place)
                group.numbers |= comparison.numbers
                break
        else:
            groups.append(Group([place]))
    return groups


class _Comparison:
    """Of the layers at two places of a list of `count`."""

    def __init__(self, count: int, first: int, second: int) -> None:
        self.count = count
        self.places = (first, second)
        self.numbers: set[tuple[str, str]] = set()
        self.pairs: dict[int, int] = {}

    def modules(self, one: torch.nn.Module, other: torch.nn.Module, path: str) -> bool:
        if id(one) in self.pairs:
            return self.pairs[id(one)] == id(other)
        self.pairs[id(one)] = id(other)
        if type(one) is not type(other) or one.training != other.training:
            return False
        if _hooked(one) or _hooked(other) or vars(one).keys() != vars(other).keys():
            return False
        settings = [name for name in vars(one) if name not in _NOT_SETTINGS and not name.endswith(_HOOKS)]
        return (
            self.tensors(vars(one)["_parameters"], vars(other)["_parameters"])
            and self.tensors(vars(one)["_buffers"], vars(other)["_buffers"])
            and self.children(vars(one)["_modules"], vars(other)["_modules"], path)
            and all(self.settings(vars(one)[name], vars(other)[name], path, name) for name in settings)
        )

    def children(self, one: Mapping[str, Any], other: Mapping[str, Any], path: str) -> bool:
        """Whether two dicts of modules, some of which may be None, have like ones."""
        return one.keys() == other.keys() and all(
            one[name] is other[name]
            if one[name] is None or other[name] is None
            else self.modules(one[name], other[name], f"{path}.{name}".removeprefix("."))
            for name in one
        )

    def tensors(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        return one.keys() == other.keys() and all(_kind(one[name]) == _kind(other[name]) for name in one)

    def settings(self, one: Any, other: Any, path: str, name: str) -> bool:
        if type(one) is int and type(other) is int and one != other:
            self.numbers.add((path, name))
            return one - other == self.places[0] - self.places[1]
        return self.values(one, other)

    def values(self, one: Any, other: Any) -> bool:
        if one is other:
            return self.same_item(one)
        if type(one) is not type(other):
            return False
        if isinstance(one, _PLAIN):
            return one == other
        if isinstance(one, list | tuple):
            return len(one) == len(other) and all(map(self.values, cast(Any, one), other))
        if isinstance(one, set | frozenset):
            return one == other and all(isinstance(item, _PLAIN) for item in cast(set[Any], one))
        if isinstance(one, dict):
            return list(cast(Any, one)) == list(other) and all(
                map(self.values, cast(Any, one).values(), other.values())
            )
        if isinstance(one, functools.partial):
            return self.values((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))
        if isinstance(one, types.MethodType):
            return one.__func__ is other.__func__ and self.pairs.get(id(one.__self__)) == id(other.__self__)
        return False

    def same_item(self, shared: Any) -> bool:
        """Whether both layers have the same item of every list that a shared object has for all layers."""
        if isinstance(shared, (*_PLAIN, torch.Tensor, torch.nn.Module, types.FunctionType)):
            return True
        lists = [each for each in getattr(shared, "__dict__", {}).values() if isinstance(each, list | tuple)]
        lists += [shared] if isinstance(shared, list | tuple) else []
        first, second = self.places
        return all(each[first] == each[second] for each in cast(list[Any], lists) if len(each) == self.count)


def _hooked(module: torch.nn.Module) -> bool:
    return any(vars(module)[name] for name in vars(module) if name.endswith(_HOOKS))


def _kind(tensor: torch.Tensor | None) -> Any:
    if tensor is None:
        return None
    return type(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.device
