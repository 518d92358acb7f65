"""Inputs made up for a program, where nobody has real ones: `gimlet-run --random` and `gimlet-compile --verify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.runtime.manifest import Manifest
from gimlet.runtime.structures import Map, Optional, Sequence, Tensor, ValueType, parse_type
from gimlet.runtime.tensors import STRING, TensorSpec

_ITEMS = 2


def random_inputs(manifest: Manifest, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
    """An array for each input, the same for the same seed; dimensions at `sizes`, else at their optimum.

    Floats are normal with variance 1. Integers are 1 or 2: small enough to be an index into most tables, and never a
    mask that hides everything. What has a default is left out. A sequence or a map has two elements, an optional a
    value. InputError for an input whose shape no range bounds.
    """
    generator = np.random.default_rng(seed)
    known = {name: bound.optimum for name, bound in manifest.dims.items()} | dict(sizes or {})
    specs = [manifest.spec(port) for port in manifest.inputs if port.default is None]
    return {spec.name: _random_value(spec, parse_type(spec.dtype), known, generator) for spec in specs}


def _random_value(spec: TensorSpec, type_: ValueType, sizes: Mapping[str, int], generator: np.random.Generator) -> Any:
    if isinstance(type_, Tensor):
        return random_array(TensorSpec(spec.name, type_.dtype, spec.shape), sizes, generator)
    if isinstance(type_, Optional):
        return _random_value(spec, type_.item, sizes, generator)
    if isinstance(type_, Sequence):
        return [_random_value(spec, type_.item, sizes, generator) for _ in range(_ITEMS)]
    return _random_map(type_, generator)


def _random_map(type_: Map, generator: np.random.Generator) -> dict[Any, Any]:
    keys = [f"key {index}" if type_.key == STRING else index for index in range(_ITEMS)]
    values = random_array(TensorSpec("", type_.value, (Expr.of(_ITEMS),)), {}, generator)
    return dict(zip(keys, values.tolist(), strict=True))


def random_array(spec: TensorSpec, sizes: Mapping[str, int], generator: np.random.Generator) -> np.ndarray:
    """An array as `random_inputs` makes it for one tensor. InputError where its shape is open."""
    shape = spec.resolve(sizes)
    if shape is None:
        raise InputError(f"the shape of {spec} is open", where=f"input {spec.name!r}", hint="give the input itself")
    if spec.dtype == STRING:
        return np.full(shape, "text", dtype=object)
    dtype: np.dtype[Any] = spec.numpy_type
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return generator.integers(1, 3, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
