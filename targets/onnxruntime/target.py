"""ONNX Runtime as a target: sub-models that keep their weights in the bundle's file.

On the host it is the CPU provider. A device kind may name another execution provider in its options
(`execution_provider = "migraphx"`): the same model is then emitted with that provider, and marked deferred, because
such a provider compiles the model on its own machine when the session is made. None but the CPU's was ever run by this
project.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import onnx
from onnxruntime import InferenceSession
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    NotImplemented,
    SessionOptions,
)
from xdsl.ir import Block, Operation

from gimlet.dialects.onnx import OnnxOp, dims_of, onnx_type, value_name
from gimlet.dialects.onnx.proto import from_proto, to_proto
from gimlet.dialects.onnx.work import is_weight, work_of
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.targets.api import Artifact, Cost, Device, Reason, SegmentContext, Target
from gimlet.targets.one_op import is_constant, one_op_model, signature_of, untyped_refusal
from gimlet.targets.onnxruntime.features import features, has_kernel_model
from gimlet.targets.onnxruntime.halves import held_bytes, widened_work
from gimlet.targets.onnxruntime.host_model import describes_processor, host_seconds
from gimlet.targets.onnxruntime.kernels import EXPERTS, LARGE, PROVIDER, has_kernel, value_types
from gimlet.targets.onnxruntime.layout import any_size, fused_into
from gimlet.targets.portable import WEIGHTS_FILE, FolderWeights, segment_model, write_model, write_portable
from gimlet.targets.roofline import energy_joules, roofline
from gimlet.targets.widen import widen_missing_formats

PROVIDERS: Mapping[str, str] = {"migraphx": "MIGraphX", "rocm": "ROCM", "cuda": "CUDA", "openvino": "OpenVINO"}
"""Execution providers by the name that a device kind's options give: how ONNX Runtime's C interface spells them."""

NATIVE_MODEL_FILE = "native.onnx"
"""The model for a provider that is not the CPU's, in the number formats of the IR."""

_REFUSALS = (Fail, InvalidArgument, InvalidGraph, NotImplemented)


class OnnxRuntimeTarget(Target):
    """Sub-models for ONNX Runtime."""

    name: ClassVar[str] = "onnxruntime"
    executor: ClassVar[str] = "onnxruntime"
    option_names: ClassVar[frozenset[str] | None] = frozenset({"cores", "execution_provider"})

    def __init__(self) -> None:
        self._known: dict[Hashable, str | None] = {}
        self._weights: WeakKeyDictionary[Block, float] = WeakKeyDictionary()

    def formats(self, device: Device) -> tuple[str, ...]:
        """float32 alone: the provider computes what is float32 in the IR in float32, and the rest as imported."""
        del device
        return ("fp32",)

    def large_operators(self, device: Device) -> frozenset[str]:
        """Experts, which have no other quick form; on the CPU also what its kernels are measured to be quicker at."""
        return EXPERTS if provider_of(device) else EXPERTS | LARGE

    def requires(self, device: Device) -> Mapping[str, str]:
        provider = provider_of(device)
        return {} if provider is None else {"execution_provider": f"{provider}ExecutionProvider"}

    def settings(self, device: Device, requests: int = 1) -> Sequence[Mapping[str, Any]]:
        """On the CPU all cores, or one: small models are quicker without handing work over.

        With one thread each, requests in flight compute beside each other, on the threads that they come from.
        """
        del requests
        if provider_of(device):
            return ({},)
        own = device.thread_options
        return (own,) if own else ({"threads": 0}, {"threads": 1})

    def versions(self) -> Mapping[str, str]:
        return {"onnxruntime": version("onnxruntime")}

    def refuses(self, op: Operation, device: Device, fmt: str) -> Reason | None:
        del fmt
        if not isinstance(op, OnnxOp):
            return Reason(op.name, f"{op.name} is not an ONNX operation")
        if is_constant(op) or provider_of(device) is not None:
            return None
        signature = signature_of(op)
        if signature not in self._known:
            self._known[signature] = _refusal(op)
        refusal = self._known[signature]
        return None if refusal is None else Reason(_label(op), refusal)

    def updates_in_place(self, op: Operation) -> bool:
        """Its kernels copy what they change first, unless the result is bound to the same memory."""
        return isinstance(op, OnnxOp) and op.op_type in ("ScatterND", "ScatterElements", "TensorScatter")

    def fusable(self, producer: Operation, consumer: Operation) -> bool:
        """What ONNX Runtime's optimiser computes in the kernel of a convolution, a product or a Sigmoid."""
        if not isinstance(producer, OnnxOp) or not isinstance(consumer, OnnxOp):
            return False
        return fused_into(consumer, any_size(consumer)) is producer

    def fusion_saving(self, producer: Operation, consumer: Operation, device: Device, size_bytes: int) -> float:
        """All that the consumer costs: what a kernel computes on its registers takes it no longer."""
        if not self._models(device):
            return super().fusion_saving(producer, consumer, device, size_bytes)
        return math.inf if self.fusable(producer, consumer) else 0.0

    def op_cost(self, op: Operation, device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost:
        """By the model of the CPU provider's kernels; the roofline for another provider and for ops without a model.

        An op is taken among the neighbours that it has in the IR: what a later op's kernel computes costs nothing.
        """
        work = widened_work(op) if isinstance(op, OnnxOp) and provider_of(device) is None else work_of(op)
        flat = roofline(work, device, fmt, sizes)
        if not self._models(device) or not isinstance(op, OnnxOp) or is_constant(op) or not has_kernel_model(op):
            return flat
        kernels = features(op, sizes, self._resident_bytes(op), cut=True)
        seconds = host_seconds(kernels, device.kind)
        return replace(flat, seconds=seconds, joules=energy_joules(device.kind, seconds, 0.0))

    def _models(self, device: Device) -> bool:
        return provider_of(device) is None and describes_processor(device.kind)

    def _resident_bytes(self, op: OnnxOp) -> float | None:
        """Bytes of the weights of everything in the op's block: they go through the caches in turn."""
        block = op.parent_block()
        if block is None:
            return None
        if block not in self._weights:
            weights = (value for each in block.ops for value in each.results if is_weight(value))
            self._weights[block] = sum(map(held_bytes, weights))
        return self._weights[block]

    def emit(self, segment: SegmentContext, device: Device, fmt: str, folder: Path) -> Artifact | Reason:
        provider = provider_of(device)
        if provider is None:
            files = write_portable(segment, folder)
            if isinstance(files, Reason):
                return files
            return Artifact(executor=self.executor, format=fmt, files=files, options=device.thread_options)
        found = segment_model(segment)
        if isinstance(found, Reason):
            return found
        write_model(found, segment.weights or FolderWeights(folder), folder / NATIVE_MODEL_FILE)
        own_weights = segment.weights is None and bool(found.weights)
        return Artifact(
            executor=self.executor,
            format=fmt,
            files=(NATIVE_MODEL_FILE, WEIGHTS_FILE) if own_weights else (NATIVE_MODEL_FILE,),
            deferred=True,
            options={"provider": provider},
            facts={"deferred": f"{provider} compiles the model on the device's host, when the session is made"},
        )

    def finish(self, root: Path, files: Sequence[str], folder: Path) -> Mapping[str, Path] | Reason:
        """Nothing to write: a provider compiles when the session is made."""
        del root, files, folder
        return {}


def provider_of(device: Device) -> str | None:
    """The execution provider that a device takes, None for the CPU's. InputError for one that is not known."""
    name = device.kind.options.get("execution_provider")
    if name is None or str(name).lower() == "cpu":
        return None
    if str(name).lower() not in PROVIDERS:
        raise InputError(
            f"unknown execution provider {name!r}",
            where=f"device kind {device.kind.name}",
            hint=f"known: cpu, {', '.join(PROVIDERS)}",
        )
    return PROVIDERS[str(name).lower()]


_BY_ATTRIBUTES = frozenset({"MoE", "QMoE"})
"""Operators whose kernel takes some values of their attributes only, which the list of kernels does not say."""


_UNNAMED = re.compile(r" node with name ''")
_NOT_DOUBLE = frozenset({"LSTM", "GRU", "RNN"})
"""Operators that have a kernel for float64 which refuses it when it runs (1.32)."""


def _label(op: OnnxOp) -> str:
    return op.node_name or (value_name(op.results[0]) if op.results else op.name)


def _refusal(op: OnnxOp) -> str | None:
    """Why the CPU provider does not run an operation: by its list of kernels, by a session where that is unclear."""
    untyped = untyped_refusal(op)
    if untyped is not None:
        return untyped
    if op.op_type == "Attention" and not op.domain and not _has_full_mask(op):
        return "its Attention wants the last two dimensions of a mask in full"
    if op.op_type in _NOT_DOUBLE and not op.domain and "float64" in _numbers(op):
        return f"its {op.op_type} does not compute in float64"
    if not _gives_what_it_caches(op):
        return f"its {op.op_type} takes a past only where it gives the keys and values so far"
    schema = op.schema
    if schema is not None and not op.regions and op.op_type not in _BY_ATTRIBUTES:
        types = value_types(
            schema,
            (None if value is None else onnx_type(value.type) for value in op.inputs),
            (None if value is None else onnx_type(value.type) for value in op.outputs),
        )
        if has_kernel(op.domain, op.op_type, schema.since_version, types):
            return None
    return _session_refusal(op)


def _has_full_mask(op: OnnxOp) -> bool:
    """Whether a mask of Attention has as many rows as there are queries, and columns as keys, as far as is known."""
    query, keys, mask, past = (_known_dims(op, index) for index in (0, 1, 3, 4))
    if not query or not keys or len(mask) < 2:
        return True
    axis = -2 if len(query) == 4 else 1
    positions = keys[axis] + past[-2] if past else keys[axis]
    return mask[-2:] == (query[axis], positions)


_CACHES = {
    ("", "Attention"): (4, (1, 2)),
    ("com.microsoft", "Attention"): (4, (1,)),
    ("com.microsoft", "GroupQueryAttention"): (3, (1, 2)),
    ("com.microsoft", "MultiHeadAttention"): (6, (1, 2)),
}
"""The input for the past, and the results that it is in with what is new."""


def _gives_what_it_caches(op: OnnxOp) -> bool:
    """Whether an attention with a past gives it with what is new: else the kernels of 1.32 fail or read beyond it."""
    past, presents = _CACHES.get((op.domain, op.op_type), (0, ()))
    if op.input_at(past) is None:
        return True
    return all(index < len(op.outputs) and op.outputs[index] is not None for index in presents)


def _known_dims(op: OnnxOp, index: int) -> tuple[Expr, ...]:
    value = op.input_at(index)
    return () if value is None else dims_of(value) or ()


def _session_refusal(op: OnnxOp) -> str | None:
    options = SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        model = from_proto(onnx.load_from_string(one_op_model(op).data))
        reasons = widen_missing_formats(model)
        if reasons:
            return reasons[0].message
        InferenceSession(to_proto(model).SerializeToString(), options, providers=[PROVIDER])
    except InputError as error:
        return error.message
    except _REFUSALS as error:
        unfit = "; a body that is not for the sizes that are fixed needs them as a range" if op.regions else ""
        return _UNNAMED.sub(f" of {_numbers(op)}", _tidy(str(error))) + unfit
    return None


def _numbers(op: OnnxOp) -> str:
    """The element types of an operation's inputs, "float64 and int64"."""
    types = (onnx_type(value.type) for value in op.inputs if value is not None)
    names = [name.removeprefix("tensor(").removesuffix(")") for name in types if name]
    return " and ".join(dict.fromkeys({"double": "float64", "float": "float32"}.get(name, name) for name in names))


def _tidy(message: str) -> str:
    """ONNX Runtime's message without its prefix of codes."""
    return " ".join(message.rpartition("[ONNXRuntimeError]")[2].split(" : ", 3)[-1].split())[:300]
