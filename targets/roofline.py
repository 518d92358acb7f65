"""The roofline: what an op costs on a device, from the op's work and the figures of the device's kind.

    seconds = max(flops / (peak · fraction), bytes / (bandwidth · memory_fraction)) + kernel_overhead

The overhead added to the roof is what gives small ops their low achieved share, so the fractions can stay constants.
Fitted so, the model is within 7 to 14% (median) of the published bf16 matrix products of six GPUs (`docs/hardware.md`).

- **Peak.** Matrix products and convolutions run at the format's peak, everything else at `peak.vector` (else at the
  format's). `fractions` may have one for the class of op or for the format, else `compute_fraction` holds.
- **Bytes.** Floating-point values take as many bits as the format has, or fewer where the IR has them in fewer.
  Activations go to the fastest level of memory that holds what the op reads and writes. Weights come from the fastest
  level that holds all weights of the device together (`resident_bytes`), else of this op.
- **Energy.** `load_w` while the roof is busy, `idle_w` during the overhead (nothing, where it is not known): what a
  device draws while it has nothing to do is not this op's. Unknown, None, where the kind has no `load_w`.
"""

from __future__ import annotations

from collections.abc import Mapping

from gimlet.dialects.onnx.work import Amounts, OpClass, Work
from gimlet.runtime.errors import UsageError
from gimlet.targets.api import Cost, Device, HardwareKind

FORMAT_BITS: Mapping[str, float] = {
    "fp64": 64,
    "fp32": 32,
    "tf32": 32,
    "bf16": 16,
    "fp16": 16,
    "fp8": 8,
    "int8": 8,
    "mxint16": 16 + 8 / 32,
    "mxint8": 8 + 8 / 32,
    "mxint4": 4 + 8 / 32,
    "fp4": 4 + 8 / 16,
}
"""Bits that one value takes in memory. Block formats count their shared scale: MX has 8 bits for 32 values (OCP
Microscaling Formats 1.0), fp4 is NVFP4 with 8 bits for 16. TF32 is a way to compute: in memory it is fp32."""
_VECTOR = "vector"
_ON_MATRIX_UNIT = ("matrix", "conv")


def roofline(
    work: Work, device: Device, fmt: str, sizes: Mapping[str, int], *, resident_bytes: float | None = None
) -> Cost:
    """What `work` costs on `device` computing in `fmt`, with symbolic dimensions at `sizes`.

    A view costs nothing. UsageError names a figure that the kind lacks or a format that nobody knows, InputError a
    dimension that `sizes` lacks.
    """
    kind = device.kind
    amounts = work.at(sizes, _bits(fmt))
    if work.op_class == "view":
        return Cost(0.0, None if kind.load_w is None else 0.0)
    busy = max(
        compute_seconds(amounts.flops, kind, fmt, work.op_class),
        memory_seconds(amounts, kind, amounts.weight_bytes if resident_bytes is None else resident_bytes),
    )
    return Cost(
        seconds=busy + kind.kernel_overhead_s,
        joules=energy_joules(kind, busy, kind.kernel_overhead_s),
        weight_bytes=round(amounts.weight_bytes),
        activation_bytes=round(amounts.activation_bytes),
    )


def compute_seconds(flops: float, kind: HardwareKind, fmt: str, op_class: OpClass) -> float:
    """Seconds for operations alone. UsageError if the kind has no peak for them."""
    if not flops:
        return 0.0
    figure = fmt if op_class in _ON_MATRIX_UNIT or _VECTOR not in kind.peak else _VECTOR
    if figure not in kind.peak:
        raise missing_figure(kind, f"peak.{figure}")
    fraction = kind.fractions.get(op_class)
    if fraction is None:
        fraction = kind.fractions.get(figure, kind.compute_fraction)
    return flops / (kind.peak[figure] * fraction)


def memory_seconds(amounts: Amounts, kind: HardwareKind, resident_bytes: float) -> float:
    """Seconds for bytes alone: activations and weights one after the other, each at the rate of its level of memory."""
    activations = amounts.activation_bytes / kind.level_for(amounts.activation_bytes).bandwidth
    weights = amounts.weight_read / kind.level_for(resident_bytes).bandwidth
    return (activations + weights) / kind.memory_fraction


def energy_joules(kind: HardwareKind, busy_s: float, waiting_s: float) -> float | None:
    """Energy of a device that is busy and then waits; None if its power under load is not known."""
    if kind.load_w is None:
        return None
    return kind.load_w * busy_s + (kind.idle_w or 0.0) * waiting_s


def missing_figure(kind: HardwareKind, figure: str) -> UsageError:
    """The error for a figure that a kind does not have and something needs."""
    have = ", ".join(sorted(kind.peak)) if figure.startswith("peak.") else ""
    return UsageError(
        f"{kind.name} has no {figure}" + (f" (it has peaks for {have})" if have else ""),
        hint=f"add {figure} and its source to the kind's file",
    )


def _bits(fmt: str) -> float:
    if fmt not in FORMAT_BITS:
        raise UsageError(f"unknown number format {fmt!r}", hint=f"known: {', '.join(FORMAT_BITS)}")
    return FORMAT_BITS[fmt]
