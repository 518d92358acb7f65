"""The source model run as it is: what every bundle's numbers are compared with.

A PyTorch model runs in PyTorch. An ONNX model runs in onnx's own reference evaluator, which shares no code with the
runtimes that bundles use; where the evaluator does not know an operator (one of another domain), in a plain
onnxruntime session, and the result says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.sources import Source, is_torch
from gimlet.runtime.errors import InputError, UsageError

if TYPE_CHECKING:
    from onnx.reference.op_run import OpRun

Arrays = Mapping[str, NDArray[Any]]
_BATCH_NORMALIZATION_GIVEN = 7
_BATCH_NORMALIZATION_MODES = 14


class Reference(ABC):
    """A source model that can be run on numpy arrays."""

    name: ClassVar[str]

    @abstractmethod
    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        """The model's outputs, in its own order."""

    def values(self, inputs: Arrays, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Those of the named values inside the model that this reference can see. None, where it sees none."""
        del inputs, names
        return {}


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

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        torch = self._torch
        given = iter(inputs.values())
        leaves = [
            torch.from_numpy(np.array(next(given))) if isinstance(leaf, torch.Tensor) else leaf for leaf in self._leaves
        ]
        args, kwargs = self._tree.tree_unflatten(leaves, self._spec)
        with torch.no_grad():
            result = self._module(*args, **kwargs)
        return [
            leaf.float().numpy() if leaf.dtype == torch.bfloat16 else leaf.numpy()
            for leaf in self._tree.tree_leaves(result)
            if isinstance(leaf, torch.Tensor)
        ]


class OnnxReference(Reference):
    """An ONNX file in onnx's reference evaluator."""

    name = "onnx reference evaluator"

    def __init__(self, path: Path) -> None:
        from onnx.reference import ReferenceEvaluator

        self._evaluator = ReferenceEvaluator(str(path), new_ops=_corrections(path))

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        return _arrays(self._evaluator.run(None, dict(inputs)))

    def values(self, inputs: Arrays, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        known = self._evaluator.run(None, dict(inputs), intermediate=True)
        if not isinstance(known, dict):
            return {}
        return {name: known[name] for name in names if name in known}


def _corrections(path: Path) -> list[type[OpRun]]:
    """Operators that the evaluator computes otherwise than the specification says.

    BatchNormalization before opset 14 normalises with the statistics that it is given where it has one output; the
    evaluator (onnx 1.23) mixes them with the batch's own, by `momentum`, as if the model were being trained.
    """
    import onnx
    from onnx.reference.op_run import OpRun

    model = onnx.load(str(path), load_external_data=False)
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if not _BATCH_NORMALIZATION_GIVEN <= opset < _BATCH_NORMALIZATION_MODES:
        return []

    class BatchNormalization(OpRun):
        op_domain = ""

        def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
            self,
            x: NDArray[Any],
            scale: NDArray[Any],
            bias: NDArray[Any],
            mean: NDArray[Any],
            variance: NDArray[Any],
            epsilon: float = 1e-5,
            **_: Any,
        ) -> tuple[NDArray[Any]]:
            ones = (1,) * (x.ndim - 2)
            scale, bias, mean, variance = (each.reshape(-1, *ones) for each in (scale, bias, mean, variance))
            return ((scale * (x - mean) / np.sqrt(variance + epsilon) + bias).astype(x.dtype),)

    return [BatchNormalization]


class SessionReference(Reference):
    """An ONNX file in a plain onnxruntime session, unsplit and without graph optimisation."""

    name = "onnxruntime, unsplit"

    def __init__(self, path: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._path = path
        self._options = options
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        return _arrays(self._session.run(None, dict(inputs)))


def reference_of(source: Source) -> Reference:
    """The reference of a source. UsageError where it has none (IR, whose source is not known)."""
    if is_torch(source.model):
        return TorchReference(source)
    if isinstance(source.model, Path) and source.model.suffix == ".pt2":
        from gimlet.compiler.frontends.pt2_file import read_pt2

        return TorchReference(Source(read_pt2(source.model), source.name, source.origin))
    if isinstance(source.model, Path) and not source.is_ir:
        return _onnx_reference(source.model)
    raise UsageError(
        f"{source.origin} has no reference to compare with", hint="give the .onnx, .pt2 or module:callable it is from"
    )


def _onnx_reference(path: Path) -> Reference:
    """The evaluator if it knows every operator, else a session."""
    try:
        return OnnxReference(path)
    except (RuntimeError, NotImplementedError, TypeError, KeyError, ValueError) as error:
        try:
            return SessionReference(path)
        except RuntimeError as second:
            raise InputError(f"no reference can run the model: {error}; {second}", where=str(path)) from second


def _arrays(values: Any) -> list[NDArray[Any]]:
    return [np.asarray(value) for value in values]
