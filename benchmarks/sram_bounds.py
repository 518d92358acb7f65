"""The SRAM machine's cycles against a bound from shapes and figures: python benchmarks/sram_bounds.py [--kind KIND]

Chains of matrix-vector products with resident weights, as in decoding, and matrix products, on the reference part or
another. For each: cycles of the program that the code generator makes, the bound (targets/sram/bound.py), their ratio,
and where a core's cycles go: the matrix unit's work, putting tiles into the array, and what the matrix unit waits for.
`--two-tiles` times a machine whose array takes the next tile while it uses one, which no source says of the part.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from gimlet.compiler.hardware import load_kind
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.importer import import_model
from gimlet.runtime.sram.cycles import KernelTime, Timing
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram.bound import Bound, bound_of
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.codegen import generate
from gimlet.targets.sram.target import machine_of, work_of_ops

DECODE = ((4096, 4096), (4096, 14336, 4096), (8192,) * 5, (8192, 28672, 8192))
PRODUCTS = (512, 1024, 2048, 4096, 8192)
FORMATS = ("fp32", "bf16", "mxint8")


def chain(rows: int, widths: Sequence[int]) -> ir.Model:
    """`rows` by `widths[0]`, times a matrix for each further width. The weights have no values."""

    def weight(index: int, shape: tuple[int, int]) -> ir.Value:
        tensor = ir.LazyTensor(lambda: ir.tensor(np.zeros(shape, np.float32)), ir.DataType.FLOAT, ir.Shape(shape))
        return ir.Value(name=f"w{index}", shape=ir.Shape(shape), type=ir.TensorType(tensor.dtype), const_value=tensor)

    x = ir.Value(name="x", shape=ir.Shape((rows, widths[0])), type=ir.TensorType(ir.DataType.FLOAT))
    nodes, weights, value = [], [], x
    for index, shape in enumerate(pairwise(widths)):
        weights.append(weight(index, shape))
        node = ir.Node("", "MatMul", [value, weights[-1]], num_outputs=1)
        value = node.outputs[0]
        value.name, value.shape = f"y{index}", ir.Shape((rows, shape[1]))
        value.type = ir.TensorType(ir.DataType.FLOAT)
        nodes.append(node)
    graph = ir.Graph([x], [value], nodes=nodes, initializers=weights, opset_imports={"": 17})
    return ir.Model(graph, ir_version=10)


def timed(rows: int, widths: Sequence[int], machine: Machine, fmt: str) -> tuple[Timing, Bound]:
    module = import_model(chain(rows, widths), GimletContext())
    ops = [op for op in module.walk() if isinstance(op, OnnxOp) and op.op_type == "MatMul"]
    work = replace(work_of_ops(ops, {}, mx_budget=1.0), keeps_views=False)
    timing = generate(work, machine, fmt).timing
    return timing, bound_of(ops, [value for _, value in work.outputs], machine, fmt, {})


def rest(kernels: Sequence[KernelTime], cores: int) -> str:
    """The shares of the cycles in which a core's matrix unit works, and waits, by reason."""
    total = sum(kernel.cycles for kernel in kernels)
    waits: dict[str, float] = {}
    for kernel in kernels:
        for (unit, reason), cycles in kernel.stalls.items():
            if unit == "matrix":
                waits[reason] = waits.get(reason, 0.0) + cycles
    work = {unit: sum(kernel.busy[unit] for kernel in kernels) / total / cores for unit in ("matrix", "array")}
    parts = [f"{unit} {share:4.0%}" for unit, share in work.items()]
    parts += [f"{reason} {cycles / total:4.0%}" for reason, cycles in sorted(waits.items(), key=lambda each: -each[1])]
    return "  ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--two-tiles", action="store_true", help="the array takes a tile while it uses another")
    parser.add_argument("--kind", default="d-matrix/corsair", help="another part that has this machine")
    given = parser.parse_args()
    machine = machine_of(load_kind(given.kind))
    if given.two_tiles:
        machine = replace(machine, array_tiles=2)
    print("Shares are of a core's cycles: its matrix unit and array at work, then what its matrix unit waits for.")
    print(f"{'':36}{'format':8}{'cycles':>8}{'bound':>8}{'ratio':>7}  where")
    shapes = [(1, widths) for widths in DECODE] + [(size, (size, size)) for size in PRODUCTS]
    for rows, widths in shapes:
        label = f"{rows} x {' x '.join(map(str, widths))}"
        for fmt in FORMATS:
            try:
                timing, bound = timed(rows, widths, machine, fmt)
            except RefusedError as refusal:
                print(f"{label:36}{fmt:8}refused: {refusal}")
                continue
            ratio = timing.cycles / bound.cycles
            where = rest(timing.kernels, timing.cores)
            print(f"{label:36}{fmt:8}{timing.cycles:8}{bound.cycles:8.0f}{ratio:7.2f}  {where}")


if __name__ == "__main__":
    main()
