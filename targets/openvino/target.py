"""OpenVINO's CPU plug-in as a target: `model.xml` over the bundle's weights, compiled when the bundle is loaded.

It is a second runtime for a processor that ONNX Runtime serves too. The roofline does not tell the two apart, so the
target takes part only where costs are measured, or where a pin names it (`--pin '.=cpu:openvino'`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from xdsl.ir import Operation

from gimlet.dialects.onnx import OnnxOp, value_name
from gimlet.dialects.onnx.work import work_of
from gimlet.runtime.errors import MissingError
from gimlet.targets.answers import default_cache
from gimlet.targets.api import Artifact, Cost, Device, Reason, SegmentContext, Target
from gimlet.targets.one_op import is_constant
from gimlet.targets.openvino.library import installed_version, missing, require
from gimlet.targets.openvino.model import MODEL_FILE, write_xml
from gimlet.targets.openvino.probes import Probes
from gimlet.targets.portable import WEIGHTS_FILE, FolderWeights
from gimlet.targets.roofline import roofline

_FUSED_BEFORE = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_FUSED_AFTER = frozenset(
    {"Add", "BatchNormalization", "Clip", "Div", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul"}
    | {"PRelu", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Swish", "Tanh"}
)


class OpenVinoTarget(Target):
    """Models for OpenVINO's CPU plug-in."""

    name: ClassVar[str] = "openvino"
    executor: ClassVar[str] = "openvino"
    option_names: ClassVar[frozenset[str] | None] = frozenset()
    told_apart_by_measuring: ClassVar[bool] = True

    def __init__(self) -> None:
        self._probes: dict[Path, Probes] = {}

    def formats(self, device: Device) -> tuple[str, ...]:
        """float32 alone: bfloat16, which the plug-in would choose by itself on some processors, is switched off."""
        del device
        return ("fp32",)

    def settings(self, device: Device, requests: int = 1) -> Sequence[Mapping[str, Any]]:
        """All cores, or one: small models are quicker without handing work over.

        For several requests in flight also the cores in 2, 4, 8… streams, at most one for each request, which it alone
        computes.
        """
        own = device.thread_options
        most = min(requests, own.get("threads", requests))
        streams = [{**(own or {"threads": 0}), "streams": count} for count in _up_to(most)]
        return (own, *streams) if own else ({"threads": 0}, {"threads": 1}, *streams)

    def versions(self) -> Mapping[str, str]:
        return {"openvino": installed_version() or "missing"}

    def refuses(self, op: Operation, device: Device, fmt: str) -> Reason | None:
        return self.refuses_all([op], device, fmt)[0]

    def refuses_all(self, ops: Sequence[Operation], device: Device, fmt: str) -> list[Reason | None]:
        del device, fmt
        onnx_ops = [op for op in ops if isinstance(op, OnnxOp)]
        if installed_version() is None:
            known = dict.fromkeys(onnx_ops, _missing_sentence())
        else:
            cache = default_cache()
            probes = self._probes.setdefault(cache, Probes(cache))
            known = dict(zip(onnx_ops, probes.refusals(onnx_ops), strict=True))
        return [_reason(op, known) for op in ops]

    def fusable(self, producer: Operation, consumer: Operation) -> bool:
        """What the plug-in appends to convolutions and products, and chains of elementwise ops that it compiles."""
        if not isinstance(producer, OnnxOp) or not isinstance(consumer, OnnxOp):
            return False
        return producer.op_type in _FUSED_BEFORE | _FUSED_AFTER and consumer.op_type in _FUSED_AFTER

    def op_cost(self, op: Operation, device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost:
        return roofline(work_of(op), device, fmt, sizes)

    def emit(self, segment: SegmentContext, device: Device, fmt: str, folder: Path) -> Artifact | Reason:
        require()
        weights = segment.weights or FolderWeights(folder)
        nbytes = write_xml(segment, weights, folder)
        if isinstance(nbytes, Reason):
            return nbytes
        own_weights = segment.weights is None and nbytes > 0
        return Artifact(
            executor=self.executor,
            format=fmt,
            files=(MODEL_FILE, WEIGHTS_FILE) if own_weights else (MODEL_FILE,),
            options=device.thread_options,
            facts={"openvino": installed_version(), "constant bytes": nbytes},
        )


def _up_to(most: int) -> list[int]:
    """2, 4, 8, … and `most`, as far as they are at most that."""
    powers = [1 << bit for bit in range(1, most.bit_length())]
    return powers if most < 2 or powers[-1] == most else [*powers, most]


def _missing_sentence() -> str:
    error: MissingError = missing()
    return f"{error.message} ({error.hint})"


def _reason(op: Operation, known: Mapping[OnnxOp, str | None]) -> Reason | None:
    if not isinstance(op, OnnxOp):
        return Reason(op.name, f"{op.name} is not an ONNX operation")
    refusal = None if is_constant(op) else known[op]
    if refusal is None:
        return None
    return Reason(op.node_name or (value_name(op.results[0]) if op.results else op.name), refusal)
