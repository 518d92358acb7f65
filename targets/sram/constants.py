"""Constants of the model: known in shape when code is generated, read and packed when the program is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.formats import stored_bytes
from gimlet.targets.sram.builder import ProgramBuilder
from gimlet.targets.sram.views import View

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant of element type `dtype` (`f32` for all floats). `key` tells equal ones apart from others."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Array]

    def derived(self, what: str, shape: tuple[int, ...], change: Callable[[Array], Array]) -> Constant:
        """Another constant made of this one."""
        return Constant(f"{self.key}|{what}", self.dtype, shape, lambda: change(self.read()))


@dataclass
class Weights:
    """The weight tensors of a program, each once, and how the bytes of each are made."""

    builder: ProgramBuilder
    readers: dict[str, Callable[[], Array]] = field(default_factory=dict[str, Callable[[], Array]])
    known: dict[tuple[str, str], View] = field(default_factory=dict[tuple[str, str], View])

    def view(self, constant: Constant, dtype: str) -> View:
        """The tensor that holds a constant in an element type."""
        key = (constant.key, dtype)
        if key not in self.known:
            shape = tuple(Expr.const(size) for size in constant.shape)
            name = self.builder.tensor(dtype, shape, "weight", f"w{len(self.known)}")
            self.readers[name] = constant.read
            self.known[key] = View.whole(name, dtype, shape)
        return self.known[key]

    def resident(self, constant: Constant, dtype: str, block: int, copies: int = 1, together: int = 0) -> View:
        """The tensor that holds a constant in blocks of so many elements, each on the core that uses it.

        There are `copies` of the blocks, of all or of every `together` blocks one after the other.
        """
        own = constant.derived(f"blocks/{block}/{copies}/{together}", constant.shape, lambda array: array)
        new = (own.key, dtype) not in self.known
        view = self.view(own, dtype)
        if new:
            blocks = prod(constant.shape) // block
            run = self.builder.dealing.run(blocks * copies)
            self.builder.homes.take(run, stored_bytes(dtype, (block,)))
            tensor = self.builder.tensors[view.tensor]
            changed = replace(tensor, space="core", block=block, copies=copies, together=together)
            self.builder.tensors[view.tensor] = changed
        return view
