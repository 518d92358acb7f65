"""Checks what a caller passes against what the bundle was compiled for, and finds the sizes of the dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from gimlet.runtime.errors import InputError
from gimlet.runtime.manifest import DimRange
from gimlet.runtime.structures import Structure, checked, parse_type
from gimlet.runtime.tensors import STRING, TensorSpec, as_array, symbol_of

Signature = tuple[tuple[int, ...], ...]


class InputChecker:
    """The inputs of a program, the ranges of its dimensions, and what inputs are that are not given."""

    def __init__(
        self,
        specs: Sequence[TensorSpec],
        dims: Mapping[str, DimRange],
        defaults: Mapping[str, np.ndarray] | None = None,
        states: int = 0,
    ) -> None:
        """`states` is how many of the last `specs` are a state's, which the program keeps, and no caller's."""
        self._states = frozenset(spec.name for spec in specs[len(specs) - states :])
        self._defaults = defaults or {}
        self._specs = tuple(specs)
        self._ports = tuple((spec.name, spec.numpy_type) for spec in specs)
        self._dims = dims

    def arrays(self, given: Mapping[str, Any]) -> tuple[list[np.ndarray | Structure], Signature]:
        """The inputs as C-contiguous arrays (or structures) in the program's order, and their shapes.

        InputError for a name that is missing or unknown, or a wrong element type. Shapes are checked by `sizes`.
        """
        if self._defaults:
            given = {**self._defaults, **given}
        if len(given) != len(self._ports):
            self._wrong_names(given)
        arrays: list[np.ndarray | Structure] = []
        for name, dtype in self._ports:
            array = given.get(name)
            if type(array) is not np.ndarray or array.dtype != dtype or not array.flags.c_contiguous:
                array = self._converted(name, dtype, given)
            arrays.append(array)
        return arrays, tuple([array.shape for array in arrays])

    def _converted(self, name: str, dtype: np.dtype, given: Mapping[str, Any]) -> np.ndarray | Structure:
        if name not in given:
            self._wrong_names(given)
        spec = next(spec for spec in self._specs if spec.name == name)
        if not spec.is_tensor:
            return Structure(checked(given[name], parse_type(spec.dtype), name))
        try:
            array = as_array(given[name])
        except (ValueError, TypeError, RuntimeError, BufferError) as error:
            raise self._error(spec, f"is no tensor: {error}") from None
        if spec.dtype == STRING and array.dtype.kind in "OUT":
            array = array.astype(object)
        if array.dtype != dtype:
            hint = f"convert it: {name}.astype({spec.dtype!r})"
            raise self._error(spec, f"has elements of {array.dtype}", hint)
        return np.ascontiguousarray(array).reshape(array.shape)

    def _error(self, spec: TensorSpec, message: str, hint: str | None = None) -> InputError:
        if spec.name in self._states:
            hint = "reset() starts again, and state() makes a state for another sequence"
            return InputError(f"{message}; it is {spec}", where=f"state {spec.name!r}", hint=hint)
        return InputError(f"{message}; the program takes {spec}", where=f"input {spec.name!r}", hint=hint)

    def _wrong_names(self, given: Mapping[str, Any]) -> NoReturn:
        wanted = {spec.name for spec in self._specs}
        takes = "the program takes " + (", ".join(map(str, self._specs)) or "none")
        for name in given:
            if name not in wanted:
                raise InputError(f"there is no such input; {takes}", where=f"input {name!r}")
        for spec in self._specs:
            if spec.name not in given:
                raise InputError(f"is missing; {takes}", where=f"input {spec.name!r}")
        raise InputError(takes)

    def sizes(self, signature: Signature) -> dict[str, int]:
        """The size of every dimension that the inputs' shapes determine.

        InputError for a wrong rank or static dimension, a size outside the range that the bundle was compiled for, or
        two sizes for one dimension.
        """
        sizes: dict[str, int] = {}
        origin: dict[str, str] = {}
        for spec, shape in zip(self._specs, signature, strict=True):
            if spec.shape is None or not spec.is_tensor:
                continue
            if len(spec.shape) != len(shape):
                raise self._error(spec, f"has shape {list(shape)}, of rank {len(shape)}")
            for axis, (dim, size) in enumerate(zip(spec.shape, shape, strict=True)):
                name = symbol_of(dim)
                if name is None:
                    continue
                self._check_range(spec, axis, name, size, shape)
                if sizes.setdefault(name, size) != size:
                    message = f"has shape {list(shape)}: {name} is {size} here and {sizes[name]} in {origin[name]}"
                    raise self._error(spec, message)
                origin.setdefault(name, f"dimension {axis} of {spec.name!r}")
        self._check_expressions(signature, sizes)
        return sizes

    def _check_range(self, spec: TensorSpec, axis: int, name: str, size: int, shape: tuple[int, ...]) -> None:
        allowed = self._dims.get(name)
        if allowed is None or allowed.minimum <= size <= allowed.maximum:
            return
        raise self._error(
            spec,
            f"has shape {list(shape)}: dimension {axis} ({name}) is {size}, "
            f"and the bundle was compiled for {allowed.minimum} to {allowed.maximum}",
            hint=f"compile with --bind {name}={min(size, allowed.minimum)}:{allowed.optimum}:"
            f"{max(size, allowed.maximum)}",
        )

    def _check_expressions(self, signature: Signature, sizes: Mapping[str, int]) -> None:
        """Compares the dimensions that are fixed, or computed from others."""
        for spec, shape in zip(self._specs, signature, strict=True):
            for axis, (dim, size) in enumerate(zip(spec.shape or (), shape, strict=False)):
                if dim is None or not dim.symbols <= sizes.keys():
                    continue
                wanted = dim.evaluate(sizes)
                if wanted != size:
                    raise self._error(spec, f"has shape {list(shape)}: dimension {axis} is {size} instead of {wanted}")
