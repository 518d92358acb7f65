"""The source model run as it is: what every bundle's numbers are compared with.

A PyTorch model runs in PyTorch. An ONNX model runs in onnx's own reference evaluator, which shares no code with the
runtimes that bundles use; where the evaluator does not know an operator (one of another domain), or fails at one, in a
plain onnxruntime session, and the result says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.checking.reference_corrections import corrections
from gimlet.compiler.sources import Source, is_torch
from gimlet.runtime.errors import InputError, UsageError

Arrays = Mapping[str, Any]
"""Arrays by name; a sequence, an optional or a map is a list, its value or None, or a dict."""
# Of onnxruntime's log: its warnings are about how the source was exported.
_ERRORS_ONLY = 3
# What Python and numpy raise in the evaluator's operators, which check nothing themselves.
_EVALUATOR_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
OTHER_MODEL: Final = "is it the model that the bundle was compiled from, and are these inputs for it?"


class Reference(ABC):
    """A source model that can be run on numpy arrays. `name` says what ran it, once it was run."""

    name: str

    @abstractmethod
    def run(self, inputs: Arrays) -> list[Any]:
        """The model's outputs, in its own order. InputError where it does not run on these inputs."""

    @property
    def output_names(self) -> list[str] | None:
        """The names of the outputs, where the source has any."""
        return None

    def restart(self) -> None:  # noqa: B027 - most keep nothing
        """Forgets what runs have left in the model."""

    def kept(self, name: str) -> NDArray[Any]:
        """What runs have left in a buffer of the model. InputError where it has none of the name."""
        raise InputError("the reference has no such input, and keeps nothing itself", where=f"state {name!r}")

    def values(self, inputs: Arrays, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Those of the named values inside the model that this reference can see. None, where it sees none."""
        del inputs, names
        return {}

    def run_and_see(self, inputs: Arrays, names: Sequence[str]) -> tuple[list[Any], dict[str, NDArray[Any]]]:
        """What `run` and `values` give for the same inputs."""
        return self.run(inputs), self.values(inputs, names)


class TorchReference(Reference):
    """An `nn.Module` or an `ExportedProgram`, with inputs and outputs flattened as in the exported model."""

    name = "torch"

    def __init__(self, source: Source) -> None:
        import torch
        from torch.utils import _pytree

        self._torch = torch
        self._tree = _pytree
        model = source.model
        if isinstance(model, torch.export.ExportedProgram):
            args, kwargs = model.example_inputs or ((), {})
            self._module = model.module()
        else:
            args, kwargs = tuple(source.args or ()), dict(source.kwargs or {})
            self._module = model.eval()
        self._leaves, self._spec = self._tree.tree_flatten((args, kwargs))
        self._buffers = [(buffer, buffer.detach().clone()) for buffer in self._module.buffers()]

    def run(self, inputs: Arrays) -> list[Any]:
        torch = self._torch
        given = iter(inputs.values())
        wanted = sum(isinstance(leaf, torch.Tensor) for leaf in self._leaves)
        if len(inputs) < wanted:
            raise InputError(f"takes {wanted} inputs, and got {len(inputs)}", where="the reference", hint=OTHER_MODEL)
        leaves = [
            self._tensor(np.array(next(given))) if isinstance(leaf, torch.Tensor) else leaf for leaf in self._leaves
        ]
        args, kwargs = self._tree.tree_unflatten(leaves, self._spec)
        try:
            with torch.no_grad():
                result = self._module(*args, **kwargs)
        except _EVALUATOR_ERRORS as error:
            raise _does_not_run(error) from error
        # What the module changes in place are outputs too, behind those that it returns.
        changed = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf._version > 0]
        returned = [leaf for leaf in self._tree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        return [self._array(leaf) for leaf in (*returned, *changed)]

    def _array(self, tensor: Any) -> NDArray[Any]:
        """A tensor as an array, in float32 where numpy has no type like its own."""
        known = (self._torch.float16, self._torch.float32, self._torch.float64)
        return tensor.float().numpy() if tensor.is_floating_point() and tensor.dtype not in known else tensor.numpy()

    def restart(self) -> None:
        with self._torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)

    def kept(self, name: str) -> NDArray[Any]:
        buffers = dict(self._module.named_buffers(remove_duplicate=False))
        return self._array(buffers[name]).copy() if name in buffers else super().kept(name)

    def _tensor(self, array: NDArray[Any]) -> Any:
        """The array as a tensor. Types of ml_dtypes, which torch does not read from numpy, go by their bits."""
        if array.dtype.isbuiltin == 1:
            return self._torch.from_numpy(array)
        bits = array.view(np.uint8 if array.itemsize == 1 else np.int16)
        return self._torch.from_numpy(bits).view(getattr(self._torch, array.dtype.name))


class OnnxReference(Reference):
    """An ONNX file in onnx's reference evaluator; in a plain session from the first run on that the evaluator fails."""

    name = "onnx reference evaluator"

    def __init__(self, path: Path) -> None:
        from gimlet.compiler.checking.half_evaluator import HalfEvaluator

        self._path = path
        self._evaluator = HalfEvaluator(str(path), new_ops=corrections(path))
        self._session: SessionReference | None = None

    def run(self, inputs: Arrays) -> list[Any]:
        if self._session is None:
            try:
                return _arrays(self._evaluate(inputs))
            except _EVALUATOR_ERRORS as error:
                self._session = SessionReference(self._path)
                self.name = f"{self._session.name} (the reference evaluator failed: {type(error).__name__}: {error})"
        return self._session.run(inputs)

    @property
    def output_names(self) -> list[str] | None:
        return [name for name in self._evaluator.output_names if isinstance(name, str)]

    def values(self, inputs: Arrays, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        if self._session is not None:
            return {}
        known = self._evaluate(inputs, intermediate=True)
        if not isinstance(known, dict):
            return {}
        return {name: known[name] for name in names if name in known}

    def run_and_see(self, inputs: Arrays, names: Sequence[str]) -> tuple[list[Any], dict[str, NDArray[Any]]]:
        """In one evaluation, where the evaluator gets through."""
        if self._session is not None:
            return super().run_and_see(inputs, names)
        try:
            known = self._evaluate(inputs, intermediate=True)
            outputs = _arrays([known[name] for name in self._evaluator.output_names])
        except _EVALUATOR_ERRORS:
            return super().run_and_see(inputs, names)
        return outputs, {name: known[name] for name in names if name in known}

    def _evaluate(self, inputs: Arrays, *, intermediate: bool = False) -> Any:
        # An overflow, say in the exp of a sigmoid, ends in an infinity and then in the right number.
        with np.errstate(all="ignore"):
            return self._evaluator.run(None, dict(inputs), intermediate=intermediate)


class SessionReference(Reference):
    """An ONNX file in a plain onnxruntime session, unsplit and without graph optimisation."""

    name = "onnxruntime, unsplit"

    def __init__(self, path: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _refusals() as error:
            raise InputError(f"onnxruntime does not load the model: {error}", where=str(path)) from error

    @property
    def output_names(self) -> list[str] | None:
        return [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> list[Any]:
        try:
            return _arrays(self._session.run(None, dict(inputs)))
        except _refusals() as error:
            raise _does_not_run(error) from error


def _does_not_run(error: Exception) -> InputError:
    message = f"does not run on these inputs: {type(error).__name__}: {error}"
    return InputError(message, where="the reference", hint=OTHER_MODEL)


def _refusals() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a model or inputs that it does not take; missing inputs are a ValueError."""
    from onnxruntime.capi.onnxruntime_pybind11_state import (
        Fail,
        InvalidArgument,
        InvalidGraph,
        NotImplemented,
        RuntimeException,
    )

    return (Fail, InvalidArgument, InvalidGraph, NotImplemented, RuntimeException, ValueError)


def reference_of(source: Source) -> Reference:
    """The reference of a source. UsageError where it has none (IR, whose source is not known)."""
    if is_torch(source.model):
        return TorchReference(source)
    if isinstance(source.model, Path) and source.model.suffix == ".pt2":
        from gimlet.compiler.frontends.pt2_file import read_pt2

        return TorchReference(Source(read_pt2(source.model), source.name, source.origin))
    if isinstance(source.model, Path) and not source.is_ir:
        return onnx_reference(source.model)
    raise no_reference(source)


def no_reference(source: Source) -> UsageError:
    """The error for a source that cannot be run: IR, whose own source is not known."""
    hint = "give the .onnx, .pt2 or module:callable it is from"
    return UsageError(f"{source.origin} has no reference to compare with", hint=hint)


def onnx_reference(path: Path) -> Reference:
    """The evaluator if it knows every operator, else a session. InputError for a file that is no whole ONNX model."""
    from onnx.checker import ValidationError

    from gimlet.compiler.frontends.onnx_model import read_onnx

    read_onnx(path)
    try:
        return OnnxReference(path)
    except (RuntimeError, TypeError, KeyError, ValueError, ValidationError) as error:
        try:
            return SessionReference(path)
        except InputError as second:
            raise InputError(f"no reference can run the model: {error}; {second.message}", where=str(path)) from second


def _arrays(values: Any) -> list[Any]:
    return [value if value is None or isinstance(value, list | dict) else np.asarray(value) for value in values]
