"""What no program can beat: a lower bound of a segment's cycles, from shapes in the IR and figures of the machine.

It knows nothing of programs, kernels and tiles, so that the cycle model can be checked against it. Each resource alone
needs as many cycles as it takes for the least that has to go through it:

- *compute*: the operations of matrix products, all arrays at their peak in the fastest format that is allowed;
- *sram*: every weight of a product and every result of the segment, once, all cores' SRAM together;
- *lpddr*: the weights that SRAM has no room for, once;
- *network*: nothing. One chiplet can compute anything by itself, so no byte has to cross, little sense as it makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from xdsl.ir import SSAValue

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.dialects.onnx.types import element_bits
from gimlet.dialects.onnx.work import is_weight, work_of
from gimlet.runtime.sram.formats import MX_BLOCK
from gimlet.runtime.sram.machine import Machine

_LEAST_BYTES: Mapping[str, float] = {"fp32": 4.0, "bf16": 2.0, "mxint8": (MX_BLOCK + 1) / MX_BLOCK}
_TYPES: Mapping[str, str] = {"fp32": "f32", "bf16": "bf16", "mxint8": "mxint8"}
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Attention"})


@dataclass(frozen=True)
class Bound:
    """Cycles that each resource needs at least."""

    compute: float
    sram: float
    lpddr: float
    network: float = 0.0

    @property
    def cycles(self) -> float:
        return max(self.compute, self.sram, self.lpddr, self.network)


def bound_of(
    ops: Iterable[OnnxOp], results: Sequence[SSAValue], machine: Machine, fmt: str, sizes: Mapping[str, int]
) -> Bound:
    """The bound for `ops` that make `results`, products computed in no faster format than `fmt`."""
    flops, weights = 0.0, set[SSAValue]()
    for op in ops:
        # Grouped convolutions may run on the vector unit.
        if op.op_type not in _PRODUCTS or op.attr("group", 1) != 1:
            continue
        flops += work_of(op).flops.evaluate(sizes)
        weights |= {value for value in op.inputs[1:2] if value is not None and is_weight(value)}
    least = _LEAST_BYTES[fmt]
    weight_bytes = sum(_elements(value, sizes) for value in weights) * least
    result_bytes = sum(_elements(value, sizes) * element_bits(value.type) / 8 for value in results)
    return Bound(
        compute=flops / machine.flops(_TYPES[fmt]) * machine.clock_hz,
        sram=(weight_bytes + result_bytes) / (machine.cores * machine.sram_bytes_per_cycle),
        lpddr=max(0.0, weight_bytes - machine.sram_bytes) / machine.lpddr_bytes_per_cycle,
    )


def _elements(value: SSAValue, sizes: Mapping[str, int]) -> int:
    return prod(dim.evaluate(sizes) for dim in dims_of(value) or ())
