"""A layer's number that remembers what was asked of it, so that the same can be asked of another layer's.

To index with it is free: which item of which list that was is seen in the graph. Everything else, a comparison, a sum,
a text of it, is remembered with its result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final

import torch

_UNARY: Final = ("neg", "pos", "abs", "invert", "bool", "float", "str", "repr", "format", "round")
_BINARY: Final = ("add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift")
_LOGIC: Final = ("and", "or", "xor")
_COMPARED: Final = ("eq", "ne", "lt", "le", "gt", "ge")


class LayerNumber(int):
    """An integer, and in `asked` what was asked of it: (method, arguments, answer)."""

    asked: list[tuple[str, tuple[Any, ...], Any]]

    def __new__(cls, value: int) -> LayerNumber:
        made = super().__new__(cls, value)
        made.asked = []
        return made

    # What defines __eq__ loses it.
    __hash__ = int.__hash__

    def would_answer(self, other: int) -> bool:
        """Whether `other` gives the same answers to all that was asked."""
        return all(getattr(int, name)(other, *args) == answer for name, args, answer in self.asked)


def _remembering(name: str) -> Callable[..., Any]:
    def method(self: LayerNumber, *args: Any) -> Any:
        answer = getattr(int, name)(self, *args)
        self.asked.append((name, args, answer))
        return answer

    return method


for _name in (*_UNARY, *_BINARY, *_LOGIC, *(f"r{name}" for name in (*_BINARY, *_LOGIC)), *_COMPARED):
    setattr(LayerNumber, f"__{_name}__", _remembering(f"__{_name}__"))


@contextmanager
def remembering(layer: torch.nn.Module, attributes: Iterable[tuple[str, str]]) -> Generator[list[LayerNumber]]:
    """While this lasts, the attributes of a layer's modules that hold its number remember what is asked of them."""
    found = [(layer.get_submodule(path), name) for path, name in attributes]
    before = [getattr(module, name) for module, name in found]
    numbers = [LayerNumber(value) for value in before]
    try:
        for (module, name), number in zip(found, numbers, strict=True):
            setattr(module, name, number)
        yield numbers
    finally:
        for (module, name), value in zip(found, before, strict=True):
            setattr(module, name, value)
