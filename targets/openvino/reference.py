"""ONNX Runtime as the reference for single ops: made-up inputs that it accepts, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnxruntime import InferenceSession
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    NotImplemented,
    RuntimeException,
    SessionOptions,
)

from gimlet.dialects.onnx.types import element_by_code
from gimlet.runtime.errors import InputError

Values: TypeAlias = dict[str, np.ndarray[Any, Any]]
_REFUSALS = (Fail, InvalidArgument, InvalidGraph, NotImplemented, RuntimeException)
_PROVIDER = "CPUExecutionProvider"


def reference(model: onnx.ModelProto) -> tuple[Values, Values | None]:
    """Inputs for a model with fixed shapes, and its outputs; None where it runs on none of those that are tried.

    Integers are tried as 1 to 7, which divide and count, and as zeros, which are indices into anything. InputError for
    a model that ONNX Runtime does not know.
    """
    options = SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = InferenceSession(model.SerializeToString(), options, providers=[_PROVIDER])
    except _REFUSALS:
        operator = model.graph.node[-1].op_type
        raise InputError(f"OpenVINO's {operator} cannot be checked: ONNX Runtime does not run it") from None
    for integers in (_counts, _zeros):
        inputs = _inputs(model, integers)
        if inputs is None:
            return {}, None
        outputs = _outputs(session, model, inputs)
        if outputs is not None:
            return inputs, outputs
    return {}, None


def _outputs(session: InferenceSession, model: onnx.ModelProto, inputs: Mapping[str, Any]) -> Values | None:
    names = [info.name for info in model.graph.output]
    try:
        found = session.run(names, dict(inputs))
    except (*_REFUSALS, RuntimeError):
        return None
    arrays = [array for array in found if isinstance(array, np.ndarray)]
    return dict(zip(names, arrays, strict=True)) if len(arrays) == len(names) else None


Integers: TypeAlias = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray[Any, Any]]


def _counts(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return generator.integers(1, 8, shape)


def _zeros(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    del generator
    return np.zeros(shape, np.int64)


def _inputs(model: onnx.ModelProto, integers: Integers) -> Values | None:
    generator = np.random.default_rng(1)
    found: Values = {}
    for info in model.graph.input:
        tensor = info.type.tensor_type
        if not tensor.elem_type or not tensor.HasField("shape"):
            return None
        shape = tuple(dim.dim_value for dim in tensor.shape.dim)
        dtype = element_by_code(tensor.elem_type).dtype
        if dtype.kind == "f":
            # Quarters: ties are common among them, and halves to round.
            found[info.name] = np.asarray(np.round(generator.standard_normal(shape) * 4) / 4, dtype)
        elif dtype.kind == "b":
            found[info.name] = np.asarray(generator.random(shape) < 0.5)
        elif dtype.kind in "iu":
            found[info.name] = np.asarray(integers(generator, shape), dtype)
        else:
            return None
    return found
