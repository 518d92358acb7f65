"""The SRAM machine's cycles against a bound from shapes and figures: python benchmarks/sram_bounds.py [--kind KIND]

Chains of matrix-vector products with resident weights, as in decoding, and matrix products, square ones and such of
rows that do not divide by the chiplets, on the reference part or another. For each: cycles of the program that the code
generator makes, the two bounds (targets/sram/bound.py), how far above them the program is, for how much of its time the
cores' SRAM moves bytes, and where a core's cycles go: what its matrix unit multiplies, what it waits for, and what is
left when it has no more to do (results are on their way, or a kernel without products runs).
`--random N` times N chains of random shapes, one of three of them a row through more weights than a chiplet of a small
machine has room for, and prints how many are below a bound and the nearest; a program below one ends it with 1.
`--convolutions` does all that for convolutions of one image or one sound: where a backbone ends, and where it begins.
`--path` prints what the cycles of the longest path go to instead, of what is furthest above the first bound.
`--two-tiles` times a machine whose array takes the next tile while it uses one, which no source says of the part.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx_ir as ir
from xdsl.ir import SSAValue

from gimlet.compiler.hardware import load_kind
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.importer import import_model
from gimlet.runtime.sram.binding import bind
from gimlet.runtime.sram.cycles import Timing
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.path import longest_path, path_summary
from gimlet.targets.sram.bound import Bound, bound_of, tight_bound_of
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.codegen import Generated, generate
from gimlet.targets.sram.target import machine_of, work_of_ops

DECODE = (
    *((width,) * 5 for width in (2048, 4096, 8192)),
    (8192,) * 13,
    (16384, 16384),
    (4096, 14336, 4096),
    (8192, 28672, 8192),
)
PRODUCTS = (512, 1024, 2048, 4096, 8192)
ODD = (
    (16, (4096, 14336)),
    (64, (4096, 14336)),
    (128, (4096, 4096)),
    (256, (4096, 4096)),
    (129, (768, 3072)),
    (197, (768, 768)),
    (700, (1300, 900)),
    (1500, (384, 1536)),
)
PATHS = ((1, (4096,) * 5), (512, (512, 512)), (1024, (1024, 1024)), (16, (4096, 14336)))
CONVOLUTIONS = (
    ((512, 7, 7), (512, 3, 3), 1, 1),
    ((2048, 7, 7), (512, 1, 1), 1, 0),
    ((256, 14, 14), (256, 3, 3), 1, 1),
    ((128, 28, 28), (128, 3, 3), 1, 1),
    ((64, 56, 56), (64, 3, 3), 1, 1),
    ((96, 20, 20), (96, 1, 1), 1, 0),
    ((3, 224, 224), (64, 7, 7), 2, 3),
    ((3, 224, 224), (768, 16, 16), 16, 0),
    ((80, 3000), (384, 3), 1, 1),
    ((1, 200003), (20, 401), 160, 0),
)
"""Channels and sizes of the input, channels of the output and the kernel, the stride and the padding."""
REASONS = {
    "operand from array": "a tile goes into the array",
    "operand from dma_in": "rows come",
    "operand from vector": "rows are converted",
    "copy read by dma_out": "results leave",
}
FORMATS = ("fp32", "bf16", "mxint8")
SMALL = {"chiplets": 4, "cores": 16, "sram_bytes_per_core": 1 << 18}


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


def convolution(sizes: Sequence[int], kernel: Sequence[int], stride: int, pad: int) -> ir.Model:
    """One convolution of one image, without values of its weights."""
    shape = (kernel[0], sizes[0], *kernel[1:])
    tensor = ir.LazyTensor(lambda: ir.tensor(np.zeros(shape, np.float32)), ir.DataType.FLOAT, ir.Shape(shape))
    x = ir.Value(name="x", shape=ir.Shape((1, *sizes)), type=ir.TensorType(ir.DataType.FLOAT))
    w = ir.Value(name="w", shape=ir.Shape(shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    count = len(kernel) - 1
    node = ir.node("Conv", [x, w], {"strides": [stride] * count, "pads": [pad] * 2 * count})
    value = node.outputs[0]
    made = [(size + 2 * pad - each) // stride + 1 for size, each in zip(sizes[1:], kernel[1:], strict=True)]
    value.name, value.shape, value.type = "y", ir.Shape((1, kernel[0], *made)), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], [value], nodes=[node], initializers=[w], opset_imports={"": 17})
    return ir.Model(graph, ir_version=10)


def timed(rows: int, widths: Sequence[int], machine: Machine, fmt: str) -> tuple[Timing, Bound, float]:
    return timed_model(chain(rows, widths), machine, fmt)


def timed_model(model: ir.Model, machine: Machine, fmt: str) -> tuple[Timing, Bound, float]:
    generated, ops, results = generated_for(model, machine, fmt)
    bound = bound_of(ops, results, machine, fmt, {})
    return generated.timing, bound, tight_bound_of(ops, results, machine, fmt, {})


def generated_for(model: ir.Model, machine: Machine, fmt: str) -> tuple[Generated, list[OnnxOp], list[SSAValue]]:
    """The program, the ops that it is of, and their results."""
    module = import_model(model, GimletContext())
    ops = [op for op in module.walk() if isinstance(op, OnnxOp) and op.op_type in ("Conv", "MatMul")]
    work = replace(work_of_ops(ops, {}, mx_budget=1.0), keeps_views=False)
    return generate(work, machine, fmt), ops, [value for _, value in work.outputs]


def against_paths(machine: Machine) -> None:
    """Prints what the cycles of the longest path of a program go to."""
    for rows, widths in PATHS:
        for fmt in FORMATS:
            generated = generated_for(chain(rows, widths), machine, fmt)[0]
            path = longest_path(bind(generated.program, {}))
            print(f"{label_of(rows, widths):34}{fmt:8}{generated.timing.cycles:8}  {path_summary(path)}", flush=True)


def label_of(rows: int, widths: Sequence[int]) -> str:
    times = len(widths) - 1
    if len(set(widths)) == 1 and times > 1:
        return f"{rows} x {widths[0]}, {times} times"
    return f"{rows} x {' x '.join(map(str, widths))}"


def rest(timing: Timing) -> str:
    """What the matrix unit of the busiest core does with its cycles, by reason; they add up to all of them."""
    spent: dict[str, float] = {}
    for kernel in timing.kernels:
        spent["multiplies"] = spent.get("multiplies", 0.0) + kernel.busiest["matrix"]
        for (unit, reason), cycles in kernel.stalls.items():
            if unit == "matrix":
                name = REASONS.get(reason, reason)
                spent[name] = spent.get(name, 0.0) + cycles
    spent["has no more to do"] = timing.cycles - sum(spent.values())
    parts = sorted(spent.items(), key=lambda each: -each[1])
    return "  ".join(f"{name} {cycles / timing.cycles:.0%}" for name, cycles in parts if cycles > timing.cycles / 200)


def random_chain(number: int, machine: Machine) -> tuple[int, tuple[int, ...], Machine]:
    """Rows and widths that no one chose, and the machine for them, the same in every run of this program."""
    choose = random.Random(number)
    if number % 3 == 0:
        small = replace(machine, **SMALL, die_latency_s=choose.choice([115e-9, 1e-6]))
        return choose.choice([1, 1, 2, 5]), (choose.randrange(100, 400),) * choose.randrange(4, 12), small
    rows = int(2 ** choose.uniform(0, 11))
    return rows, tuple(int(2 ** choose.uniform(4, 12)) for _ in range(choose.randrange(2, 5))), machine


def against_random(count: int, machine: Machine) -> int:
    """Prints how `count` programs of random shapes are to the bounds; 1 if one is below, else 0."""
    ratios: list[tuple[float, float, str]] = []
    refused = 0
    for number in range(count):
        rows, widths, on = random_chain(number, machine)
        fmt = FORMATS[number // 3 % 3]
        try:
            timing, bound, tight = timed(rows, widths, on, fmt)
        except RefusedError:
            refused += 1
            continue
        nearest = timing.cycles / tight if tight else float("inf")
        ratios.append((nearest, timing.cycles / bound.cycles, f"{rows} x {' x '.join(map(str, widths))} {fmt}"))
    return reported("chains", ratios, refused)


def random_convolution(number: int) -> tuple[tuple[int, ...], tuple[int, ...], int, int]:
    """Sizes of an image or sound, a kernel, its stride and padding, that no one chose."""
    choose = random.Random(number)
    rank = choose.choice((1, 2, 2, 2, 3))
    kernel = [choose.choice((1, 1, 2, 3, 3, 5, 7)) for _ in range(rank)]
    spatial = [max(size, int(2 ** choose.uniform(1, 12 / rank))) for size in kernel]
    channels, outputs = (int(2 ** choose.uniform(0, 10)) for _ in range(2))
    return (channels, *spatial), (outputs, *kernel), choose.choice((1, 1, 2, 3)), choose.choice((0, max(kernel) // 2))


def against_random_convolutions(count: int, machine: Machine) -> int:
    """Prints how `count` convolutions of random shapes are to the bounds; 1 if one is below, else 0."""
    ratios: list[tuple[float, float, str]] = []
    refused = 0
    for number in range(count):
        sizes, kernel, stride, pad = random_convolution(number)
        fmt = FORMATS[number % 3]
        try:
            timing, bound, tight = timed_model(convolution(sizes, kernel, stride, pad), machine, fmt)
        except RefusedError:
            refused += 1
            continue
        label = f"{' x '.join(map(str, sizes))} by {' x '.join(map(str, kernel))}, stride {stride}, pad {pad} {fmt}"
        ratios.append((timing.cycles / tight if tight else float("inf"), timing.cycles / bound.cycles, label))
    return reported("convolutions", ratios, refused)


def reported(what: str, ratios: list[tuple[float, float, str]], refused: int) -> int:
    """Prints the nearest programs to a bound, or those below; 1 if there are any of these, else 0."""
    below = [each for each in ratios if min(each[:2]) < 1]
    print(f"{len(ratios)} {what}, {refused} refused, {len(below)} below a bound")
    for tight_ratio, ratio, label in (below or sorted(ratios))[:5]:
        print(f"{label:60}{ratio:7.2f}{tight_ratio:7.2f}")
    return 1 if below else 0


def against_convolutions(machine: Machine) -> None:
    """Prints how far convolutions are from both bounds."""
    print(f"{'convolution':44}" + "".join(f"{fmt:>10}{'bound':>7}{'tight':>7}" for fmt in FORMATS))
    for sizes, kernel, stride, pad in CONVOLUTIONS:
        cells = ""
        for fmt in FORMATS:
            timing, bound, tight = timed_model(convolution(sizes, kernel, stride, pad), machine, fmt)
            cells += f"{timing.cycles:10}{timing.cycles / bound.cycles:7.1f}{timing.cycles / tight:7.2f}"
        label = f"{' x '.join(map(str, sizes))} by {' x '.join(map(str, kernel))}, stride {stride}"
        print(f"{label:44}{cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--two-tiles", action="store_true", help="the array takes a tile while it uses another")
    parser.add_argument("--kind", default="d-matrix/corsair", help="another part that has this machine")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="N random shapes instead")
    parser.add_argument("--convolutions", action="store_true", help="convolutions instead")
    parser.add_argument("--path", action="store_true", help="what the longest path goes to instead")
    given = parser.parse_args()
    machine = machine_of(load_kind(given.kind))
    if given.two_tiles:
        machine = replace(machine, array_tiles=2)
    if given.random:
        sys.exit((against_random_convolutions if given.convolutions else against_random)(given.random, machine))
    if given.convolutions or given.path:
        (against_paths if given.path else against_convolutions)(machine)
        return
    columns = f"{'cycles':>8}{'bound':>9}{'ratio':>7}{'tight':>9}{'ratio':>7}{'SRAM':>6}"
    print(f"{'':34}{'format':8}{columns}  the busiest matrix unit")
    shapes = [(1, widths) for widths in DECODE] + [(size, (size, size)) for size in PRODUCTS] + list(ODD)
    for rows, widths in shapes:
        label = label_of(rows, widths)
        for fmt in FORMATS:
            try:
                timing, bound, tight = timed(rows, widths, machine, fmt)
            except RefusedError as refusal:
                print(f"{label:34}{fmt:8}refused: {refusal}")
                continue
            ratios = f"{bound.cycles:9.0f}{timing.cycles / bound.cycles:7.2f}{tight:9.0f}{timing.cycles / tight:7.2f}"
            ratios += f"{timing.utilisation['sram']:6.0%}"
            print(f"{label:34}{fmt:8}{timing.cycles:8}{ratios}  {rest(timing)}")


if __name__ == "__main__":
    main()
