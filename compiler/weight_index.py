"""Which weight of the IR is where in a bundle, so that `module.mlir` can be lowered again from the bundle alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx.weights import Weight, unpack
from gimlet.runtime.errors import InputError
from gimlet.runtime.manifest_check import check_path
from gimlet.runtime.tensors import numpy_type, type_name
from gimlet.targets.api import WeightReference

INDEX = "weights/index.json"
_SCHEMA = 1


def index_text(places: Mapping[str, tuple[Weight, WeightReference]]) -> str:
    """The index of weights by key, canonical."""
    entries = {
        key: [place.location, place.offset, type_name(weight.dtype), list(weight.shape)]
        for key, (weight, place) in places.items()
    }
    return json.dumps({"schema": _SCHEMA, "weights": entries}, indent=0, sort_keys=True) + "\n"


def add_bundle_weights(bundle: Path, ctx: GimletContext) -> None:
    """Adds the weights of a bundle, by their keys in its IR. InputError for an index that is malformed."""
    path = bundle / INDEX
    if not path.is_file():
        return
    try:
        data = json.loads(path.read_text())
        entries = [(key, *entry) for key, entry in data["weights"].items()]
        if data["schema"] != _SCHEMA:
            raise InputError(f"the index has schema {data['schema']}, not {_SCHEMA}", where=str(path))
        for key, location, offset, dtype, shape in entries:
            _add(ctx, bundle, key, location, int(offset), dtype, tuple(int(size) for size in shape))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            "the index of weights is malformed", where=str(path), hint="compile the model again"
        ) from error


def _add(
    ctx: GimletContext, bundle: Path, key: str, location: str, offset: int, dtype: str, shape: tuple[int, ...]
) -> None:
    check_path(location, INDEX)
    weight = Weight(key, numpy_type(dtype), shape, None)
    path = bundle / location
    if not path.is_file() or offset < 0 or offset + weight.nbytes > path.stat().st_size:
        raise InputError(f"weight {key!r} is not in {location}", where=str(bundle), hint="copy the bundle again")
    ctx.weights.add_lazy(key, weight.dtype, shape, partial(_read, path, offset, weight))


def _read(path: Path, offset: int, weight: Weight) -> NDArray[Any]:
    return unpack(_mapped(path)[offset : offset + weight.nbytes], weight.dtype, weight.shape)


@cache
def _mapped(path: Path) -> NDArray[np.uint8]:
    return np.memmap(path, dtype=np.uint8, mode="r")
