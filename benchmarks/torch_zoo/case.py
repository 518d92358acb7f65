"""What a case of the zoo is: a module or a function, and inputs of given shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from inspect import Parameter, signature
from typing import Any

import torch
from torch.export import Dim

TRACED = {"n": 4, "m": 6}
OTHER = {"n": 5, "m": 9}
_LEAST, _MOST = 4, 16


@dataclass(frozen=True)
class Input:
    """A tensor of a shape, in which a name is a dynamic dimension; `fill` makes it of the sizes and a generator."""

    shape: tuple[int | str, ...]
    fill: Callable[[tuple[int, ...], torch.Generator], torch.Tensor]

    def at(self, sizes: Mapping[str, int], generator: torch.Generator) -> torch.Tensor:
        return self.fill(tuple(sizes[size] if isinstance(size, str) else size for size in self.shape), generator)

    @property
    def axes(self) -> dict[int, str]:
        return {axis: size for axis, size in enumerate(self.shape) if isinstance(size, str)}


@dataclass(frozen=True)
class Case:
    """A module, or a function as one, with inputs that are tensors or of Python.

    `names` of dynamic dimensions are those of its inputs. `fixed` tells why a case has none although its inputs could.
    """

    name: str
    make: Callable[[], torch.nn.Module]
    inputs: tuple[Any, ...]

    @property
    def dims(self) -> tuple[str, ...]:
        found = [name for given in self.inputs if isinstance(given, Input) for name in given.axes.values()]
        return tuple(dict.fromkeys(found))

    def static(self) -> Case:
        """The case at the sizes that it is traced at."""

        def at(given: Any) -> Any:
            if not isinstance(given, Input):
                return given
            return replace(given, shape=tuple(TRACED[size] if isinstance(size, str) else size for size in given.shape))

        return replace(self, inputs=tuple(at(given) for given in self.inputs))

    def module(self) -> torch.nn.Module:
        """The module in evaluation mode, with the same weights every time, none of them all zeros or ones."""
        torch.manual_seed(0)
        module = self.make().eval()
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                    tensor.uniform_(0.5, 1.5)
        return module

    def values(self, sizes: Mapping[str, int]) -> tuple[Any, ...]:
        generator = torch.Generator().manual_seed(1)
        return tuple(given.at(sizes, generator) if isinstance(given, Input) else given for given in self.inputs)

    def dynamic_shapes(self) -> tuple[Any, ...] | None:
        """As `torch.export` takes them; None for a static case."""
        if not self.dims:
            return None
        dims = {name: Dim(name, min=_LEAST, max=_MOST) for name in self.dims}
        shapes = [
            {axis: dims[name] for axis, name in given.axes.items()} if isinstance(given, Input) else None
            for given in self.inputs
        ]
        kinds = [parameter.kind for parameter in signature(self.make().forward).parameters.values()]
        if Parameter.VAR_POSITIONAL not in kinds:
            return tuple(shapes)
        # PyTorch takes what `*args` stands for as one argument.
        single = kinds.index(Parameter.VAR_POSITIONAL)
        return (*shapes[:single], tuple(shapes[single:]))


class Function(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def words(text: str) -> list[str]:
    return text.split()


def layer(name: str, make: Callable[[], torch.nn.Module], *inputs: Any) -> Case:
    return Case(name, make, inputs)


def function(name: str, call: Callable[..., Any], *inputs: Any) -> Case:
    return Case(name, lambda: Function(call), inputs)


def f(*shape: int | str) -> Input:
    """Values of variance 1."""
    return Input(shape, lambda sizes, generator: torch.randn(sizes, generator=generator))


def u(*shape: int | str) -> Input:
    """Values between 0.05 and 0.95."""
    return Input(shape, lambda sizes, generator: torch.rand(sizes, generator=generator) * 0.9 + 0.05)


def i(high: int, *shape: int | str) -> Input:
    """Whole numbers below `high`."""
    return Input(shape, lambda sizes, generator: torch.randint(0, high, sizes, generator=generator))


def b(*shape: int | str) -> Input:
    """Flags."""
    return Input(shape, lambda sizes, generator: torch.rand(sizes, generator=generator) > 0.4)


def p(*shape: int | str) -> Input:
    """Values of which no two are alike, in no order, a fifth apart."""

    def fill(sizes: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        count = int(torch.tensor(sizes).prod())
        return (torch.randperm(count, generator=generator) - count // 2).float().reshape(sizes) / 5

    return Input(shape, fill)
